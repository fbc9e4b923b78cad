"""Whisper's text decoder, all positions at once or step by step with a key/value cache.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".

Shape legend: B batch, A audio positions, T target tokens, t tokens of a step, D width, H heads, d width of a head,
V vocabulary, L layers, N positions of the cache.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.layers import MLP, MultiHeadAttention, layer_norm, named_key, stack, whisper_attention
from cwjax.models.whisper import WhisperConfig


class DecoderCache(NamedTuple):
    """What a decoder keeps between steps.

    Attributes:
        cross_key, cross_value: (L, B, H, A, d), of the audio.
        self_key, self_value: (L, B, H, N, d), of the tokens so far; zeros behind them.
    """

    cross_key: jax.Array
    cross_value: jax.Array
    self_key: jax.Array
    self_value: jax.Array


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

        self.attn_ln = layers("attn_ln", lambda rngs: layer_norm(width, rngs=rngs))
        self.attn = layers("attn", lambda rngs: whisper_attention(width, heads, rngs))
        self.cross_attn_ln = layers("cross_attn_ln", lambda rngs: layer_norm(width, rngs=rngs))
        self.cross_attn = layers("cross_attn", lambda rngs: whisper_attention(width, heads, rngs))
        self.mlp_ln = layers("mlp_ln", lambda rngs: layer_norm(width, rngs=rngs))
        self.mlp = layers("mlp", lambda rngs: MLP(width, config.decoder_ffn_dim, rngs=rngs))

    def __call__(self, stream: jax.Array, audio: jax.Array) -> jax.Array:
        """All positions at once: (B, T, D) and the audio (B, A, D) -> (B, T, D)."""
        causal = jnp.tri(stream.shape[1], dtype=bool)[None, None]

        def block(stream: jax.Array, layer: DecoderBlocks):
            stream = stream + layer.attn(layer.attn_ln(stream), causal)
            key, value = layer.cross_attn.project_source(audio)
            stream = stream + layer.cross_attn.attend(layer.cross_attn_ln(stream), key, value)
            return stream + layer.mlp(layer.mlp_ln(stream)), None

        return jax.lax.scan(block, stream, self)[0]

    def start(self, audio: jax.Array, length: int) -> DecoderCache:
        """A cache for targets of up to `length` tokens. `audio` is (B, A, D)."""

        def project(attn: MultiHeadAttention) -> tuple[jax.Array, jax.Array]:
            key, value = attn.project_source(audio)
            return jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)

        cross_key, cross_value = jax.vmap(project)(self.cross_attn)
        empty = jnp.zeros((*cross_key.shape[:3], length, cross_key.shape[-1]), cross_key.dtype)
        return DecoderCache(cross_key, cross_value, empty, empty)

    def step(self, stream: jax.Array, cache: DecoderCache, position: jax.Array | int) -> tuple[jax.Array, DecoderCache]:
        """The next positions (B, t, D), given those in the cache -> (B, t, D) and the cache with them."""
        reached = jnp.arange(cache.self_key.shape[3])
        causal = reached[None, :] <= position + jnp.arange(stream.shape[1])[:, None]

        def block(carry: tuple, xs: tuple):
            stream, self_key, self_value = carry
            number, layer, cross_key, cross_value = xs
            normed = layer.attn_ln(stream)
            key, value = layer.attn.project_source(normed)
            self_key = _write(self_key, key, number, position)
            self_value = _write(self_value, value, number, position)
            stream = stream + layer.attn.attend_heads_first(normed, self_key[number], self_value[number], causal)
            normed = layer.cross_attn_ln(stream)
            stream = stream + layer.cross_attn.attend_heads_first(normed, cross_key, cross_value)
            stream = stream + layer.mlp(layer.mlp_ln(stream))
            return (stream, self_key, self_value), None

        numbers = jnp.arange(cache.self_key.shape[0])
        carry = (stream, cache.self_key, cache.self_value)
        xs = (numbers, self, cache.cross_key, cache.cross_value)
        (stream, self_key, self_value), _ = jax.lax.scan(block, carry, xs)
        return stream, cache._replace(self_key=self_key, self_value=self_value)


def _write(buffer: jax.Array, new: jax.Array, layer: jax.Array, position: jax.Array | int) -> jax.Array:
    """Puts (B, t, H, d) into the buffer (L, B, H, N, d), from `position` on."""
    return jax.lax.dynamic_update_slice(buffer, jnp.swapaxes(new, 1, 2)[None], (layer, 0, 0, position, 0))


class TextDecoder(nnx.Module):
    """Whisper's decoder; its token embedding is its output projection too.

    Args:
        config: sizes.
        key: random key.
    """

    def __init__(self, config: WhisperConfig, *, key: jax.Array):
        initializer = nnx.initializers.normal(config.init_std)
        self.token_embedding = nnx.Embed(
            config.vocab_size,
            config.d_model,
            embedding_init=initializer,
            rngs=nnx.Rngs(named_key(key, "token_embedding")),
        )
        shape = (config.max_target_positions, config.d_model)
        self.positions = nnx.Param(initializer(named_key(key, "positions"), shape))
        self.blocks = DecoderBlocks(config, key=named_key(key, "blocks"))
        self.ln = layer_norm(config.d_model, rngs=nnx.Rngs(0))

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
        self._require_room(tokens.shape[1])
        stream = self.token_embedding(tokens) + self.positions[: tokens.shape[1]]
        return self._logits(self.blocks(stream, audio))

    def start(self, audio: jax.Array, max_length: int) -> DecoderCache:
        """The cache before the first token.

        Args:
            audio: (B, A, D), from the audio encoder.
            max_length: most tokens that will be fed, prompt included.

        Raises:
            CwjaxError: more tokens than positions.
        """
        self._require_room(max_length)
        return self.blocks.start(audio, max_length)

    def step(self, tokens: jax.Array, cache: DecoderCache, position: jax.Array | int) -> tuple[jax.Array, DecoderCache]:
        """Feeds further tokens: a whole prompt at once, then one by one.

        Args:
            tokens: (B, t) int.
            cache: of the tokens before; `position + t` must not exceed its length, which cannot be
                checked inside a compiled program.
            position: number of tokens before, a scalar.

        Returns:
            Logits (B, t, V) float32 of the token after each one fed, and the cache with them.
        """
        positions = jax.lax.dynamic_slice_in_dim(self.positions[...], position, tokens.shape[1])
        stream, cache = self.blocks.step(self.token_embedding(tokens) + positions, cache, position)
        return self._logits(stream), cache

    def _logits(self, stream: jax.Array) -> jax.Array:
        rows = self.ln(stream).reshape(-1, stream.shape[-1])
        embedding = self.token_embedding.embedding[...]
        logits = jnp.einsum("nd,vd->nv", rows, embedding, preferred_element_type=jnp.float32)
        return logits.reshape(*stream.shape[:-1], -1)

    def _require_room(self, tokens: int) -> None:
        if tokens > self.positions.shape[0]:
            raise CwjaxError(
                f"{tokens} tokens do not fit into the {self.positions.shape[0]} positions of this Whisper's "
                "decoder: shorten the text or the prompt"
            )
