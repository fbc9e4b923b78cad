"""Whisper's text decoder, all positions at once or step by step with a key/value cache.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".

Shape legend: B batch, A audio positions, T target tokens, t tokens of a step, D width, H heads, d width of a head,
V vocabulary, L layers, N slots of the cache.
"""

import operator
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.dropout import Dropout, dropped, or_skipped
from cwjax.models.layers import MLP, Embedding, LayerNorm, Remat, named_key, run_layers, stack, whisper_attention
from cwjax.models.whisper import WhisperConfig


class DecoderBlocks(nnx.Module):
    """The text decoder's blocks, their parameters stacked over layers.

    Args:
        config: sizes.
        key: random key.
    """

    def __init__(self, config: WhisperConfig, *, key: jax.Array):
        width, heads = config.d_model, config.decoder_attention_heads

        def layers(name: str, make: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
            return stack(make, config.decoder_layers, named_key(key, name))

        self.remat: Remat = "none"
        self.attn_ln = layers("attn_ln", lambda rngs: LayerNorm(width, rngs=rngs))
        self.attn = layers("attn", lambda rngs: whisper_attention(width, heads, rngs))
        self.cross_attn_ln = layers("cross_attn_ln", lambda rngs: LayerNorm(width, rngs=rngs))
        self.cross_attn = layers("cross_attn", lambda rngs: whisper_attention(width, heads, rngs))
        self.mlp_ln = layers("mlp_ln", lambda rngs: LayerNorm(width, rngs=rngs))
        self.mlp = layers("mlp", lambda rngs: MLP(width, config.decoder_ffn_dim, rngs=rngs))

    def __call__(self, stream: jax.Array, audio: jax.Array, dropout: Dropout | None = None) -> jax.Array:
        """All positions at once: (B, T, D) and the audio (B, A, D) -> (B, T, D)."""

        def block(stream: jax.Array, layer_and_dropout: tuple[DecoderBlocks, Dropout | None]):
            (layer, dropout), before = layer_and_dropout, stream
            stream = stream + dropped(layer.attn(layer.attn_ln(stream), causal=True), dropout, 1)
            key, value = layer.cross_attn.project_source(audio)
            attended = layer.cross_attn.attend(layer.cross_attn_ln(stream), key, value)
            stream = stream + dropped(attended, dropout, 2)
            stream = stream + dropped(layer.mlp(layer.mlp_ln(stream)), dropout, 3)
            return or_skipped(before, stream, dropout), None

        dropout = dropout and dropout.layers(self.attn_ln.scale.shape[0])
        return run_layers(block, stream, (self, dropout), self.remat)[0]


class TextDecoder(nnx.Module):
    """Whisper's decoder; its token embedding is its output projection too.

    Args:
        config: sizes.
        key: random key.
    """

    def __init__(self, config: WhisperConfig, *, key: jax.Array):
        initializer = nnx.initializers.normal(config.init_std)
        rngs = nnx.Rngs(named_key(key, "token_embedding"))
        self.token_embedding = Embedding(config.vocab_size, config.d_model, std=config.init_std, rngs=rngs)
        shape = (config.max_target_positions, config.d_model)
        self.positions = nnx.Param(initializer(named_key(key, "positions"), shape))
        self.blocks = DecoderBlocks(config, key=named_key(key, "blocks"))
        self.ln = LayerNorm(config.d_model, rngs=nnx.Rngs(0))

    def __call__(self, tokens: jax.Array, audio: jax.Array) -> jax.Array:
        """Logits of the token after each position (teacher forcing).

        Args:
            tokens: (B, T) int, T at most `max_target_positions`.
            audio: (B, A, D), from the audio encoder.

        Returns:
            (B, T, V) float32.

        Raises:
            CwjaxError: more tokens than positions.
        """
        return self._project(self.states(tokens, audio))

    def states(self, tokens: jax.Array, audio: jax.Array, dropout: Dropout | None = None) -> jax.Array:
        """What the logits are made of, by the products with the token embedding: (B, T, D). As a call otherwise, with
        `dropout` in training."""
        length, most = tokens.shape[1], self.positions.shape[0]
        if length > most:
            raise CwjaxError(
                f"{length} tokens do not fit into the {most} positions of this Whisper's decoder: shorten the text or "
                "the prompt"
            )
        stream = self.token_embedding(tokens) + self.positions[:length]
        if dropout is not None:
            stream = dropped(stream, dropout.part("decoder"), 1)
            dropout = dropout.part("decoder/blocks")
        return self.ln(self.blocks(stream, audio, dropout))

    def stepwise(self) -> "StepwiseDecoder":
        """The decoder with a cache. Call it inside a compiled program, before its loop."""
        return StepwiseDecoder(self)

    def logits(self, stream: jax.Array) -> jax.Array:
        """Logits (..., V) float32 of the token after each position (..., D)."""
        return self._project(self.ln(stream))

    def _project(self, states: jax.Array) -> jax.Array:
        logits = self.token_embedding.project(states.reshape(-1, states.shape[-1]))
        return logits.reshape(*states.shape[:-1], -1)


class ProjectedAudio(NamedTuple):
    """Cross-attention's keys and values of every layer, computed once for all steps and hypotheses of a window.

    Attributes:
        key: L arrays (B, H, d, A), in the layout of their matrix product.
        value: L arrays (B, H, A, d).
    """

    key: tuple[jax.Array, ...]
    value: tuple[jax.Array, ...]


class DecoderCache(NamedTuple):
    """Self-attention's keys and values of the tokens so far; zeros in the slots that are still free.

    Batch and heads are one axis and keys are transposed, just as the matrix products take them. In any other
    layout XLA's CPU backend copies the cache at every step.

    Attributes:
        key: L arrays (B*H, d, N).
        value: L arrays (B*H, N, d).
    """

    key: tuple[jax.Array, ...]
    value: tuple[jax.Array, ...]


class Reading(NamedTuple):
    """What the decoder makes of the tokens it is fed.

    Attributes:
        stream: (B, t, D), for `TextDecoder.logits`.
        cache: with the tokens in it.
        queries: L arrays (B, H, t, d), of cross-attention to the audio, not yet scaled.
    """

    stream: jax.Array
    cache: DecoderCache
    queries: tuple[jax.Array, ...]


class StepwiseDecoder:
    """The decoder fed a prompt at once and then token by token, for several hypotheses side by side.

    Every layer's weights and cache are arrays of their own, taken out of the stacked ones before the loop: a slice
    of a stacked array would be copied at every step.

    Args:
        decoder: with its parameters.
    """

    def __init__(self, decoder: TextDecoder):
        self._decoder = decoder
        layers = decoder.blocks.attn_ln.scale.shape[0]
        self._blocks = [jax.tree.map(operator.itemgetter(number), decoder.blocks) for number in range(layers)]

    def project_audio(self, audio: jax.Array) -> ProjectedAudio:
        """Keys and values of the audio encoder's (B, A, D): compute once, use in every decoding of the window."""
        pairs = [block.cross_attn.project_source(audio) for block in self._blocks]
        keys = tuple(jnp.transpose(key, (0, 2, 3, 1)) for key, _ in pairs)
        return ProjectedAudio(keys, tuple(jnp.swapaxes(value, 1, 2) for _, value in pairs))

    def empty_cache(self, audio: ProjectedAudio, slots: int) -> DecoderCache:
        """A cache for N = `slots` tokens: the prompt's and those of all hypotheses."""
        batch, heads, _, width = audio.value[0].shape
        values = tuple(jnp.zeros((batch * heads, slots, width), value.dtype) for value in audio.value)
        return DecoderCache(tuple(jnp.swapaxes(value, 1, 2) for value in values), values)

    def read(
        self,
        tokens: jax.Array,
        audio: ProjectedAudio,
        cache: DecoderCache,
        slot: jax.Array | int,
        positions: jax.Array,
        mask: jax.Array,
    ) -> Reading:
        """Feeds tokens.

        Args:
            tokens: (B, t) int, that follow each other, or that continue t hypotheses of the same text.
            audio: what they are to be about.
            cache: receives them.
            slot: of the cache that the first one takes, a scalar or (B,); the others follow. Neither slots nor
                positions may exceed their number, which cannot be checked inside a compiled program.
            positions: int, broadcastable to (B, t), of each token in its text.
            mask: bool, broadcastable to (B, t, N): the slots that each token sees, its own among them.
        """
        stream = self._decoder.token_embedding(tokens) + self._decoder.positions[...][positions]
        mask = jnp.broadcast_to(mask, (*tokens.shape, mask.shape[-1]))[:, None]
        keys, values, queries = [], [], []
        for number, block in enumerate(self._blocks):
            normed = block.attn_ln(stream)
            key, value = block.attn.project_source(normed)
            keys.append(_write(cache.key[number], jnp.transpose(key, (0, 2, 3, 1)), slot, axis=2))
            values.append(_write(cache.value[number], jnp.swapaxes(value, 1, 2), slot, axis=1))
            query = jnp.swapaxes(block.attn.project_query(normed), 1, 2)
            stream = stream + block.attn.attend_transposed(query, keys[-1], values[-1], mask)
            query = jnp.swapaxes(block.cross_attn.project_query(block.cross_attn_ln(stream)), 1, 2)
            stream = stream + block.cross_attn.attend_transposed(query, audio.key[number], audio.value[number])
            stream = stream + block.mlp(block.mlp_ln(stream))
            queries.append(query)
        return Reading(stream, DecoderCache(tuple(keys), tuple(values)), tuple(queries))

    def logits(self, stream: jax.Array) -> jax.Array:
        """As `TextDecoder.logits`."""
        return self._decoder.logits(stream)


def _write(buffer: jax.Array, new: jax.Array, slot: jax.Array | int, axis: int) -> jax.Array:
    """Puts (B, H, ., .) into the buffer (B*H, ., .), from `slot` of the axis on; in place inside a compiled loop."""
    heads, new = new.shape[1], new.reshape(-1, *new.shape[2:])
    if jnp.size(slot) == 1:
        return jax.lax.dynamic_update_slice_in_dim(buffer, new, jnp.reshape(slot, ()), axis)
    write = partial(jax.lax.dynamic_update_slice_in_dim, axis=axis - 1)
    return jax.vmap(write)(buffer, new, jnp.repeat(slot, heads))
