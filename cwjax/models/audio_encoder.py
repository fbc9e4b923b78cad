"""Whisper's audio encoder, with context attention inside.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision". Context attention lets every audio
position look at a text encoder's reading of what is known about the recording; without context the audio encoder is
Whisper's own.

Shape legend: B batch, F mel frames (10 ms each), A audio positions (= F/2), M mels, S context tokens, E width of the
text encoder, D width, H heads, d width of a head, L layers, C layers with context attention.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.attention import MASKED
from cwjax.models.dropout import Dropout, dropped, or_skipped
from cwjax.models.layers import (
    MLP,
    LayerNorm,
    MultiHeadAttention,
    Remat,
    add_residual,
    gelu,
    kernel_initializer,
    named_key,
    run_layers,
    stack,
    whisper_attention,
)
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig


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
        key, value: (C, B, S, H, d); of a batch of 1 for one context that all windows share.
        mask: (B, S) bool.
    """

    key: jax.Array
    value: jax.Array
    mask: jax.Array


class _ContextLayer(NamedTuple):
    """A layer's context attention, or that of several; arrays as in `ProjectedContext`, without its leading axis."""

    norm: LayerNorm
    attn: MultiHeadAttention
    gate: nnx.Param | None
    key: jax.Array
    value: jax.Array


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Whisper's encoder positions, (positions, width) float32.

    Sines in the first half of the width, cosines in the second, of wavelengths from 2π to
    20000π positions in a geometric series.
    """
    frequencies = np.exp(-math.log(10000) * np.arange(width // 2) / (width // 2 - 1))
    angles = np.arange(positions)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


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

        self.remat: Remat = "none"
        self.attn_ln = layers("attn_ln", lambda rngs: LayerNorm(width, rngs=rngs))
        self.attn = layers("attn", lambda rngs: whisper_attention(width, heads, rngs))
        self.mlp_ln = layers("mlp_ln", lambda rngs: LayerNorm(width, rngs=rngs))
        self.mlp = layers("mlp", lambda rngs: MLP(width, config.encoder_ffn_dim, rngs=rngs))
        self.context_layers = context.layers_of(config.encoder_layers) if context else ()
        if not context:
            return
        count = len(self.context_layers)
        self.context_attn_ln = layers("context_attn_ln", lambda rngs: LayerNorm(width, rngs=rngs), count)
        bias = context.gate == "none"
        biases = {"key_bias": False, "value_bias": bias, "out_bias": bias}
        self.context_attn = layers(
            "context_attn",
            lambda rngs: MultiHeadAttention(width, heads, source_width=context_width, **biases, rngs=rngs),
            count,
        )
        self.context_gate = None if bias else nnx.Param(jnp.full(count, context.gate_init, jnp.float32))

    def __call__(
        self,
        stream: jax.Array,
        context: ProjectedContext | None,
        keep_states: bool,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """(B, A, D) -> (B, A, D), and every layer's output (L, B, A, D) if they are kept."""
        dropout = dropout and dropout.layers(self.attn_ln.scale.shape[0])
        shared = (self.attn_ln, self.attn, self.mlp_ln, self.mlp, dropout)
        states = []
        for first, last, attends in self._runs(context is not None):
            layers = _slice(shared, first, last)
            if attends:
                start = self.context_layers.index(first)
                layers += (_slice(self._attending(context), start, start + last - first),)

            def block(stream: jax.Array, layer: tuple, attends: bool = attends):
                (attn_ln, attn, mlp_ln, mlp, dropout, *own), before = layer, stream
                stream = add_residual(stream, dropped(attn(attn_ln(stream)), dropout, 1))
                if attends:
                    heard = _context_attention(stream, *own, context.mask)
                    stream = add_residual(stream, dropped(heard, dropout, 2))
                stream = add_residual(stream, dropped(mlp(mlp_ln(stream)), dropout, 3))
                stream = or_skipped(before, stream, dropout)
                return stream, stream if keep_states else None

            stream, kept = run_layers(block, stream, layers, self.remat)
            states.append(kept)
        return stream, jnp.concatenate(states) if keep_states else None

    def context_contributions(self, stream: jax.Array, context: ProjectedContext) -> jax.Array:
        """(B, A, D) -> (C, B, A, S); see `AudioEncoder.context_contributions`."""
        _, states = self(stream, context, keep_states=True)
        chosen = np.asarray(self.context_layers)
        before = jnp.concatenate([stream[None], states[:-1]])
        shared = jax.tree.map(lambda leaf: leaf[chosen], (before, self.attn_ln, self.attn))

        def contributions(layer: tuple) -> jax.Array:
            before, attn_ln, attn, own = layer
            return _context_contributions(add_residual(before, attn(attn_ln(before))), own, context.mask)

        return jax.lax.map(contributions, (*shared, self._attending(context)))

    def _attending(self, context: ProjectedContext) -> _ContextLayer:
        return _ContextLayer(self.context_attn_ln, self.context_attn, self.context_gate, context.key, context.value)

    def _runs(self, with_context: bool) -> list[tuple[int, int, bool]]:
        """Stretches of layers that are alike, as (first, one after the last, attend to the context)."""
        total = self.attn_ln.scale.shape[0]
        alike = itertools.groupby(range(total), lambda layer: with_context and layer in self.context_layers)
        stretches = [(attends, list(layers)) for attends, layers in alike]
        return [(layers[0], layers[-1] + 1, attends) for attends, layers in stretches]


def _slice(tree: tuple, first: int, last: int) -> tuple:
    return jax.tree.map(lambda leaf: leaf[first:last], tree)


def _context_attention(stream: jax.Array, layer: _ContextLayer, mask: jax.Array) -> jax.Array:
    """What the context adds to the stream (B, A, D); exactly nothing for examples without context."""
    queries = layer.norm(stream)
    if len(layer.key) == 1:  # one context for all windows is not copied for each
        queries = queries.reshape(1, -1, queries.shape[-1])
    attended = layer.attn.attend(queries, layer.key, layer.value, is_key=mask).reshape(stream.shape)
    if layer.gate is not None:
        attended = attended * jnp.tanh(layer.gate[...].astype(jnp.float32)).astype(attended.dtype)
    return jnp.where(mask.any(axis=-1)[:, None, None], attended, 0)


def _context_contributions(stream: jax.Array, layer: _ContextLayer, mask: jax.Array) -> jax.Array:
    """Lengths of the vectors that add up to `_context_attention`, (B, A, S) float32.

    A token's vector is a sum over heads of weight times projected value, so its squared length needs the values'
    products between heads only, and never the vectors themselves: D times less memory.
    """
    query, kernel = layer.attn.project_query(layer.norm(stream)), layer.attn.out.kernel[...]
    query, key, value, kernel = (one.astype(jnp.float32) for one in (query, layer.key, layer.value, kernel))
    scores = jnp.einsum("bahd,bshd->bhas", query, key) / math.sqrt(query.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask[:, None, None, :], scores, MASKED))
    projected = jnp.einsum("bshd,hdw->bshw", value, kernel.reshape(*value.shape[2:], -1))
    products = jnp.einsum("bshw,bsgw->bshg", projected, projected)
    lengths = jnp.sqrt(jnp.maximum(jnp.einsum("bhas,bshg,bgas->bas", weights, products, weights), 0))
    if layer.gate is not None:
        lengths = lengths * jnp.abs(jnp.tanh(layer.gate[...].astype(jnp.float32)))
    return jnp.where(mask[:, None, :], lengths, 0)


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
        self.ln_post = LayerNorm(config.d_model, rngs=nnx.Rngs(0))

    def __call__(
        self,
        features: jax.Array,
        context: ContextStates | ProjectedContext | None = None,
        dropout: Dropout | None = None,
    ) -> jax.Array:
        """Encodes log-mel features.

        Args:
            features: (B, F, M); F is even and at most twice `max_source_positions`.
            context: the text encoder's states, or what `project_context` made of them; None: stock
                Whisper.
            dropout: in training.

        Returns:
            (B, A, D).

        Raises:
            CwjaxError: the window is too long, or has an odd number of frames.
        """
        stream, context = self._embed(features), self._projected(context)
        if dropout is not None:
            stream = dropped(stream, dropout.part("audio_encoder"), 1)
            dropout = dropout.part("audio_encoder/blocks")
        stream, _ = self.blocks(stream, context, False, dropout)
        return self.ln_post(stream)

    def layer_states(self, features: jax.Array, context: ContextStates | ProjectedContext | None = None) -> jax.Array:
        """The output of every block, (L, B, A, D), before the last layer norm. Arguments as in a call."""
        _, states = self.blocks(self._embed(features), self._projected(context), keep_states=True)
        return states

    def context_contributions(self, features: jax.Array, context: ContextStates | ProjectedContext) -> jax.Array:
        """How strongly every context token moves every audio position, layer by layer.

        The vector that a token adds to a position is the sum over heads of its attention weight times its value,
        through the output projection and the gate. These vectors add up to what the layer adds, apart from the
        bias that the output has without a gate; their lengths tell which tokens matter, which attention weights
        alone do not (Kobayashi et al. 2020, "Attention is Not Only a Weight").

        Args:
            features: (B, F, M), as in a call.
            context: as in a call.

        Returns:
            (C, B, A, S) float32: lengths in the stream's units; 0 at padding and without context.

        Raises:
            CwjaxError: as a call does.
        """
        return self.blocks.context_contributions(self._embed(features), self._projected(context))

    def project_context(self, states: ContextStates) -> ProjectedContext:
        """Keys and values of every layer with context attention: compute once, use in every window."""
        # One layer after another: all at once would gather the kernels of all on every device.
        key, value = jax.lax.map(lambda attn: attn.project_source(states.hidden), self.blocks.context_attn)
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
