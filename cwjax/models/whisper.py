"""Whisper's audio encoder, with context attention inside, and its text decoder.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision". Context
attention lets every audio position look at a text encoder's reading of what is known about the
recording; without context the audio encoder is Whisper's own.

Shape legend: B batch, F mel frames (10 ms each), A audio positions (= F/2), M mels, S context
tokens, E width of the text encoder, T target tokens, D width, H heads, d width of a head,
V vocabulary, L layers, C layers with context attention, N positions of the decoder's cache.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.layers import (
    MLP,
    MultiHeadAttention,
    add_residual,
    embedding_initializer,
    gelu,
    kernel_initializer,
    layer_norm,
    named_key,
    stack,
)


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of a Whisper, under the names of Hugging Face configurations. The default is "tiny"."""

    vocab_size: int = 51865
    num_mel_bins: int = 80
    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    decoder_layers: int = 4
    decoder_attention_heads: int = 6
    decoder_ffn_dim: int = 1536
    max_source_positions: int = 1500
    """Audio positions of the longest window, 20 ms each."""
    max_target_positions: int = 448
    """Tokens of the longest target, prompt included."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise CwjaxError(f"Whisper's {field.name} is {getattr(self, field.name)}: it must be at least 1")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, name):
                raise CwjaxError(
                    f"Whisper's d_model {self.d_model} does not divide by {name} {getattr(self, name)}: "
                    "choose a multiple of it"
                )
        if self.d_model % 2 or self.d_model < 4:
            raise CwjaxError(
                f"Whisper's d_model is {self.d_model}: sinusoidal positions need an even width of at least 4"
            )


def _whisper_sizes() -> dict[str, WhisperConfig]:
    def size(layers: int, width: int, heads: int, **others: int) -> WhisperConfig:
        both = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
        sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
        return WhisperConfig(d_model=width, **(sides | others))

    shapes = {"tiny": (4, 384, 6), "base": (6, 512, 8), "small": (12, 768, 12), "medium": (24, 1024, 16)}
    large, v3 = (32, 1280, 20), {"num_mel_bins": 128, "vocab_size": 51866}
    return {
        **{name: size(*shape) for name, shape in shapes.items()},
        **{f"{name}.en": size(*shape, vocab_size=51864) for name, shape in shapes.items()},
        "large-v2": size(*large),
        "large-v3": size(*large, **v3),
        "large-v3-turbo": size(*large, **v3, decoder_layers=4),
    }


WHISPER_SIZES: dict[str, WhisperConfig] = _whisper_sizes()
"""The published sizes by name; ".en" are the English-only ones, with a token less."""


@dataclass(frozen=True)
class ContextAttentionConfig:
    """How the audio encoder attends to the context."""

    gate: Literal["tanh", "none"] = "tanh"
    """"tanh": each layer's attention is scaled by the tanh of a learned scalar. "none": it is added as it is,
    and its projections have biases like Whisper's own."""
    gate_init: float = 0.0
    """What the scalars start from; 0 leaves a pretrained Whisper unchanged."""
    layers: tuple[int, ...] | None = None
    """Encoder layers with context attention, counted from 0 at the input; None: all."""

    def __post_init__(self) -> None:
        if self.gate not in ("tanh", "none"):
            raise CwjaxError(f"context attention's gate is {self.gate!r}: use 'tanh' or 'none'")
        if self.layers is not None and (
            not self.layers or min(self.layers) < 0 or list(self.layers) != sorted(set(self.layers))
        ):
            raise CwjaxError(
                f"context attention's layers are {self.layers}: name at least one, ascending from 0, each once"
            )

    def layers_of(self, encoder_layers: int) -> tuple[int, ...]:
        """The layers with context attention in an encoder of so many layers.

        Raises:
            CwjaxError: one of `layers` does not exist.
        """
        if self.layers is None:
            return tuple(range(encoder_layers))
        if self.layers[-1] >= encoder_layers:
            raise CwjaxError(
                f"context attention's layers name {self.layers[-1]}, but the audio encoder's last layer is "
                f"{encoder_layers - 1}"
            )
        return self.layers


class ContextStates(NamedTuple):
    """A text encoder's reading of a context.

    Attributes:
        hidden: (B, S, E).
        mask: (B, S) bool, False at padding; all False for an example without context.
    """

    hidden: jax.Array
    mask: jax.Array


class ProjectedContext(NamedTuple):
    """Context attention's keys and values, which serve every window of a recording.

    Attributes:
        key, value: (C, B, S, H, d).
        mask: (B, S) bool.
    """

    key: jax.Array
    value: jax.Array
    mask: jax.Array


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


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Whisper's encoder positions, (positions, width) float32.

    Sines in the first half of the width, cosines in the second, of wavelengths from 2π to
    20000π positions in a geometric series.
    """
    frequencies = np.exp(-math.log(10000) * np.arange(width // 2) / (width // 2 - 1))
    angles = np.arange(positions)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _whisper_attention(width: int, heads: int, rngs: nnx.Rngs) -> MultiHeadAttention:
    return MultiHeadAttention(width, heads, key_bias=False, rngs=rngs)


class AudioBlocks(nnx.Module):
    """The audio encoder's blocks, their parameters stacked over layers.

    Parameters named `context_*` are stacked over the layers with context attention only.

    Args:
        config: sizes.
        context: how to attend to the context; None: stock Whisper.
        context_width: E.
        key: random key.
    """

    def __init__(
        self, config: WhisperConfig, context: ContextAttentionConfig | None, context_width: int, *, key: jax.Array
    ):
        width, heads = config.d_model, config.encoder_attention_heads

        def layers(name: str, make: Callable[[nnx.Rngs], nnx.Module], count: int = config.encoder_layers) -> nnx.Module:
            return stack(make, count, named_key(key, name))

        self.attn_ln = layers("attn_ln", lambda rngs: layer_norm(width, rngs=rngs))
        self.attn = layers("attn", lambda rngs: _whisper_attention(width, heads, rngs))
        self.mlp_ln = layers("mlp_ln", lambda rngs: layer_norm(width, rngs=rngs))
        self.mlp = layers("mlp", lambda rngs: MLP(width, config.encoder_ffn_dim, rngs=rngs))
        self.context_layers = context.layers_of(config.encoder_layers) if context else ()
        if not context:
            return
        count = len(self.context_layers)
        self.context_attn_ln = layers("context_attn_ln", lambda rngs: layer_norm(width, rngs=rngs), count)
        bias = context.gate == "none"
        self.context_attn = layers(
            "context_attn",
            lambda rngs: MultiHeadAttention(
                width,
                heads,
                source_width=context_width,
                key_bias=False,
                value_bias=bias,
                out_bias=bias,
                rngs=rngs,
            ),
            count,
        )
        self.context_gate = nnx.Param(jnp.full(count, context.gate_init)) if context.gate == "tanh" else None

    def __call__(
        self, stream: jax.Array, context: ProjectedContext | None, keep_states: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """(B, A, D) -> (B, A, D), and every layer's output (L, B, A, D) if they are kept."""
        shared = (self.attn_ln, self.attn, self.mlp_ln, self.mlp)
        states = []
        for first, last, attends in self._runs(context is not None):
            layers = _slice(shared, first, last)
            if attends:
                start = self.context_layers.index(first)
                own = (self.context_attn_ln, self.context_attn, self.context_gate, context.key, context.value)
                layers += (_slice(own, start, start + last - first),)

            def block(stream: jax.Array, layer: tuple, attends: bool = attends):
                attn_ln, attn, mlp_ln, mlp, *own = layer
                stream = add_residual(stream, attn(attn_ln(stream)))
                if attends:
                    stream = add_residual(stream, _context_attention(stream, *own[0], context.mask))
                stream = add_residual(stream, mlp(mlp_ln(stream)))
                return stream, stream if keep_states else None

            stream, kept = jax.lax.scan(block, stream, layers)
            states.append(kept)
        return stream, jnp.concatenate(states) if keep_states else None

    def _runs(self, with_context: bool) -> list[tuple[int, int, bool]]:
        """Stretches of layers that are alike, as (first, one after the last, attend to the context)."""
        total = self.attn_ln.scale.shape[0]
        alike = itertools.groupby(range(total), lambda layer: with_context and layer in self.context_layers)
        stretches = [(attends, list(layers)) for attends, layers in alike]
        return [(layers[0], layers[-1] + 1, attends) for attends, layers in stretches]


def _slice(tree: tuple, first: int, last: int) -> tuple:
    return jax.tree.map(lambda leaf: leaf[first:last], tree)


def _context_attention(
    stream: jax.Array,
    norm: nnx.LayerNorm,
    attn: MultiHeadAttention,
    gate: nnx.Param | None,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    """What the context adds to the stream (B, A, D); exactly nothing for examples without context."""
    attended = attn.attend(norm(stream), key, value, mask[:, None, None, :])
    if gate is not None:
        attended = attended * jnp.tanh(gate[...].astype(jnp.float32)).astype(attended.dtype)
    return jnp.where(mask.any(axis=-1)[:, None, None], attended, 0)


class AudioEncoder(nnx.Module):
    """Whisper's audio encoder with context attention between self-attention and MLP.

    Args:
        config: sizes.
        context: how to attend to the context; None: stock Whisper, which takes no context.
        context_width: E, the width of the text encoder.
        key: random key.
    """

    def __init__(
        self, config: WhisperConfig, context: ContextAttentionConfig | None, context_width: int, *, key: jax.Array
    ):
        def conv(name: str, width_in: int, stride: int) -> nnx.Conv:
            return nnx.Conv(
                width_in,
                config.d_model,
                kernel_size=3,
                strides=stride,
                padding=1,
                kernel_init=kernel_initializer,
                rngs=nnx.Rngs(named_key(key, name)),
            )

        self.max_frames = 2 * config.max_source_positions
        self.conv1 = conv("conv1", config.num_mel_bins, 1)
        self.conv2 = conv("conv2", config.d_model, 2)
        self.positions = nnx.Param(jnp.asarray(sinusoids(config.max_source_positions, config.d_model)))
        self.blocks = AudioBlocks(config, context, context_width, key=named_key(key, "blocks"))
        self.ln_post = layer_norm(config.d_model, rngs=nnx.Rngs(0))

    def __call__(self, features: jax.Array, context: ContextStates | ProjectedContext | None = None) -> jax.Array:
        """Encodes log-mel features.

        Args:
            features: (B, F, M); F is even and at most twice `max_source_positions`.
            context: the text encoder's states, or what `project_context` made of them; None: stock
                Whisper.

        Returns:
            (B, A, D).

        Raises:
            CwjaxError: the window is too long, or has an odd number of frames.
        """
        stream, _ = self.blocks(self._embed(features), self._projected(context), keep_states=False)
        return self.ln_post(stream)

    def layer_states(self, features: jax.Array, context: ContextStates | ProjectedContext | None = None) -> jax.Array:
        """The output of every block, (L, B, A, D), before the last layer norm. Arguments as in a call."""
        _, states = self.blocks(self._embed(features), self._projected(context), keep_states=True)
        return states

    def project_context(self, states: ContextStates) -> ProjectedContext:
        """Keys and values of every layer with context attention: compute once, use in every window."""
        key, value = jax.vmap(lambda attn: attn.project_source(states.hidden))(self.blocks.context_attn)
        return ProjectedContext(key, value, states.mask)

    def _projected(self, context: ContextStates | ProjectedContext | None) -> ProjectedContext | None:
        return self.project_context(context) if isinstance(context, ContextStates) else context

    def _embed(self, features: jax.Array) -> jax.Array:
        frames = features.shape[1]
        if frames > self.max_frames or frames % 2:
            raise CwjaxError(
                f"the window has {frames} mel frames, but this Whisper takes an even number of at most "
                f"{self.max_frames}: cut or pad the audio"
            )
        stream = gelu(self.conv2(gelu(self.conv1(features))))
        return stream + self.positions[: frames // 2]


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
        self.attn = layers("attn", lambda rngs: _whisper_attention(width, heads, rngs))
        self.cross_attn_ln = layers("cross_attn_ln", lambda rngs: layer_norm(width, rngs=rngs))
        self.cross_attn = layers("cross_attn", lambda rngs: _whisper_attention(width, heads, rngs))
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
        self.token_embedding = nnx.Embed(
            config.vocab_size,
            config.d_model,
            embedding_init=embedding_initializer,
            rngs=nnx.Rngs(named_key(key, "token_embedding")),
        )
        shape = (config.max_target_positions, config.d_model)
        self.positions = nnx.Param(embedding_initializer(named_key(key, "positions"), shape))
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
