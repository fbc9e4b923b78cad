"""Parts that Whisper and the text encoders share: projections around attention, MLP, layer norm, stacks of layers.

Shape legend: B batch, H heads, d width of a head, D width, Tq queries, Tk keys, L layers.

Everything computes in the dtype of its parameters and inputs, except that softmax and the
statistics of layer norms are float32.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from cwjax.models.attention import Implementation, attention, heads_first_attention, keep_attended
from cwjax.models.placement import split_batch

Activation = Literal["gelu", "relu"]
Part = TypeVar("Part", bound=nnx.Module)

Remat = Literal["none", "dots", "full"]
"""What a gradient computes again instead of finding it kept, memory against time (Chen et al. 2016, "Training Deep Nets
with Sublinear Memory Cost"): nothing; all but the results of linear maps and attention; all that is inside a block."""

kernel_initializer = nnx.initializers.lecun_normal()
"""Variance 1 / inputs (LeCun et al. 1998): close to 0.02 at Whisper's widths, and right for small ones too."""


def named_key(key: jax.Array, name: str) -> jax.Array:
    """A random key that depends on `key` and `name` alone, whatever else is initialised."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def stack(make: Callable[[nnx.Rngs], Part], layers: int, key: jax.Array) -> Part:
    """`layers` differently initialised modules as one, each parameter with a leading axis of layers."""
    return jax.vmap(lambda one: make(nnx.Rngs(one)))(jax.random.split(key, layers))


def run_layers(
    block: Callable[[jax.Array, Any], tuple[jax.Array, Any]], stream: jax.Array, layers: Any, remat: Remat = "none"
) -> tuple[jax.Array, Any]:
    """Runs a stack of layers one after another.

    Args:
        block: from the stream (B, T, D) and one layer to the stream and what is to be kept of the layer.
        stream: (B, T, D).
        layers: parameters with a leading axis of layers.
        remat: what the gradient computes again.

    Returns:
        The last stream, and what was kept with a leading axis of layers.
    """

    def on_its_examples(stream: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
        return block(split_batch(stream), layer)

    policies = jax.checkpoint_policies
    match remat:
        case "none":
            body = on_its_examples
        case "dots":
            saved = policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable, keep_attended)
            body = jax.checkpoint(on_its_examples, prevent_cse=False, policy=saved)
        case "full":
            body = jax.checkpoint(on_its_examples, prevent_cse=False)
    return jax.lax.scan(body, split_batch(stream), layers)


class Linear(nnx.Linear):
    """A linear map of the last axis, computed on rows: for more axes, XLA's CPU backend is slow to
    find the gradient of the kernel."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        bias: bool = True,
        kernel_init: nnx.Initializer = kernel_initializer,
        rngs: nnx.Rngs,
    ):
        super().__init__(width_in, width_out, use_bias=bias, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, stream: jax.Array) -> jax.Array:
        """(..., width_in) -> (..., width_out)."""
        rows = super().__call__(stream.reshape(-1, stream.shape[-1]))
        return rows.reshape(*stream.shape[:-1], rows.shape[-1])


class Embedding(nnx.Embed):
    """A row for each number, in the dtype that the table has now; `nnx.Embed` gives the one it was made with."""

    def __init__(self, rows: int, width: int, *, std: float, rngs: nnx.Rngs):
        super().__init__(rows, width, embedding_init=nnx.initializers.normal(std), rngs=rngs)

    def __call__(self, numbers: jax.Array) -> jax.Array:
        """(...) int -> (..., width)."""
        return jnp.take(self.embedding[...], numbers, axis=0)

    def project(self, rows: jax.Array) -> jax.Array:
        """Products with all rows of the table: (n, width) -> (n, rows) float32."""
        return jnp.einsum("nd,vd->nv", rows, self.embedding[...], preferred_element_type=jnp.float32)


class MultiHeadAttention(nnx.Module):
    """Multi-head attention with its four projections.

    Args:
        width: D of the queries' stream and of the result.
        heads: H.
        head_width: d; `width` / H when None, for which H must be a divisor.
        source_width: width of what keys and values are made from; `width` when None.
        query_bias, key_bias, value_bias, out_bias: which projections have one.
        scale: factor of the dot products; 1 / sqrt(d) when None. New query kernels make up for another one.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_width: int | None = None,
        source_width: int | None = None,
        query_bias: bool = True,
        key_bias: bool = True,
        value_bias: bool = True,
        out_bias: bool = True,
        scale: float | None = None,
        rngs: nnx.Rngs,
    ):
        source_width = source_width or width
        inner = heads * head_width if head_width else width
        self.heads = heads
        self.scale = scale
        self.implementation: Implementation | None = None
        gain = 1.0 if scale is None else 1 / (scale**2 * (inner // heads))
        query_initializer = nnx.initializers.variance_scaling(gain, "fan_in", "truncated_normal")
        self.query = Linear(width, inner, bias=query_bias, kernel_init=query_initializer, rngs=rngs)
        self.key = Linear(source_width, inner, bias=key_bias, rngs=rngs)
        self.value = Linear(source_width, inner, bias=value_bias, rngs=rngs)
        self.out = Linear(inner, width, bias=out_bias, rngs=rngs)

    def __call__(self, stream: jax.Array, mask: jax.Array | None = None, **how: Any) -> jax.Array:
        """Self-attention: (B, T, D) -> (B, T, D). For `mask` and how see `attention`."""
        return self.attend(stream, *self.project_source(stream), mask, **how)

    def project_query(self, stream: jax.Array) -> jax.Array:
        """(B, Tq, D) -> (B, Tq, H, d)."""
        return self._split_heads(self.query(stream))

    def project_source(self, source: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values of (B, Tk, source width), each (B, Tk, H, d)."""
        return self._split_heads(self.key(source)), self._split_heads(self.value(source))

    def attend(
        self, stream: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None, **how: Any
    ) -> jax.Array:
        """Attention of (B, Tq, D) to projected keys and values (B, Tk, H, d) -> (B, Tq, D)."""
        how |= {"scale": self.scale, "implementation": self.implementation}
        return self._join_heads(attention(self.project_query(stream), key, value, mask, **how))

    def attend_transposed(
        self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """As `attend`, for arrays laid out as their matrix products take them.

        Args:
            query: (B, H, Tq, d), projected.
            key: (B, H, d, Tk) or (B*H, d, Tk).
            value: (B, H, Tk, d) or (B*H, Tk, d).
            mask: as in `attend`.
        """
        batch, heads, queries, width = query.shape
        if mask is not None:
            mask = jnp.broadcast_to(mask, (batch, heads, *mask.shape[2:])).reshape(-1, *mask.shape[2:])
        key = jnp.swapaxes(key.reshape(-1, *key.shape[-2:]), 1, 2)
        value = value.reshape(-1, *value.shape[-2:])
        attended = heads_first_attention(query.reshape(-1, queries, width), key, value, mask, scale=self.scale)
        return self._join_heads(jnp.swapaxes(attended.reshape(batch, heads, queries, width), 1, 2))

    def _split_heads(self, projected: jax.Array) -> jax.Array:
        return projected.reshape(*projected.shape[:-1], self.heads, -1)

    def _join_heads(self, attended: jax.Array) -> jax.Array:
        return self.out(attended.reshape(*attended.shape[:-2], -1))


def whisper_attention(width: int, heads: int, rngs: nnx.Rngs) -> MultiHeadAttention:
    """Attention as Whisper has it everywhere: every projection but the keys' has a bias."""
    return MultiHeadAttention(width, heads, key_bias=False, rngs=rngs)


class MLP(nnx.Module):
    """Two linear maps with an activation between: D -> `hidden` -> D."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu", *, bias: bool = True, rngs: nnx.Rngs):
        self.activation = activation
        self.up = Linear(width, hidden, bias=bias, rngs=rngs)
        self.down = Linear(hidden, width, bias=bias, rngs=rngs)

    def __call__(self, stream: jax.Array) -> jax.Array:
        """(..., D) -> (..., D)."""
        hidden = self.up(stream)
        return self.down(gelu(hidden) if self.activation == "gelu" else jax.nn.relu(hidden))


def add_residual(stream: jax.Array, update: jax.Array) -> jax.Array:
    """The sum, rounded to its dtype here and now.

    XLA may carry a bfloat16 sum in float32 into whatever it fuses with it. Then a stream to which
    nothing was added would differ from one that was left alone.
    """
    total = stream + update
    if total.dtype == jnp.bfloat16:
        total = jax.lax.reduce_precision(total, exponent_bits=8, mantissa_bits=7)
    return total


@jax.custom_vjp
def gelu(values: jax.Array) -> jax.Array:
    """The exact GELU, x Φ(x), by the error function; Whisper and BERT were trained with it.

    Computed in float32, but only the input is kept for the gradient. `jax.nn.gelu` goes by the
    complementary error function, which takes twice the time on a CPU.
    """
    wide = values.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(values.dtype)


def _normal_cdf(values: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jax.lax.erf(values * math.sqrt(0.5))


def _gelu_backward(values: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    wide = values.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    return ((gradient * (_normal_cdf(wide) + wide * density)).astype(values.dtype),)


gelu.defvjp(lambda values: (gelu(values), values), _gelu_backward)


class LayerNorm(nnx.LayerNorm):
    """Layer norm over the last axis with the two-pass variance, which does not cancel. Only its input is kept for the
    gradient, not the steps in float32."""

    def __init__(self, width: int, *, epsilon: float = 1e-5, rngs: nnx.Rngs):
        super().__init__(width, epsilon=epsilon, use_fast_variance=False, rngs=rngs)

    def __call__(self, stream: jax.Array) -> jax.Array:
        """(..., width) -> (..., width)."""
        return jax.checkpoint(super().__call__, prevent_cse=False)(stream)
