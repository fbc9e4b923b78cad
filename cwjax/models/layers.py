"""Parts that Whisper and the text encoders share: attention, MLP, layer norm, stacks of layers.

Shape legend: B batch, H heads, d width of a head, D width, Tq queries, Tk keys, L layers.

Everything computes in the dtype of its parameters and inputs, except that softmax and the
statistics of layer norms are float32.
"""

import math
import zlib
from collections.abc import Callable
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Activation = Literal["gelu", "relu"]
Part = TypeVar("Part", bound=nnx.Module)

LONG_ATTENTION = 256 * 256
"""Scores per head from which attention on the CPU goes head by head, to stay in the cache."""

MASKED = jnp.finfo(jnp.float32).min
"""Score of a masked key. Finite, so that a row without any key is an average and not NaN."""

kernel_initializer = nnx.initializers.lecun_normal()
"""Variance 1 / inputs (LeCun et al. 1998): close to 0.02 at Whisper's widths, and right for small ones too."""


def named_key(key: jax.Array, name: str) -> jax.Array:
    """A random key that depends on `key` and `name` alone, whatever else is initialised."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def stack(make: Callable[[nnx.Rngs], Part], layers: int, key: jax.Array) -> Part:
    """`layers` differently initialised modules as one, each parameter with a leading axis of layers."""
    return jax.vmap(lambda one: make(nnx.Rngs(one)))(jax.random.split(key, layers))


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017); the one place that knows about backends.

    Args:
        query: (B, Tq, H, d).
        key, value: (B, Tk, H, d).
        mask: bool, broadcastable to (B, H, Tq, Tk) with 4 axes, True where a query sees a key. A
            query that sees no key gets the mean of the values.
        bias: (H, Tq, Tk), added to every example's scores.
        scale: factor of the dot products; 1 / sqrt(d) when None.

    Returns:
        (B, Tq, H, d) in the dtype of `query`.
    """
    if jax.default_backend() == "cpu":
        return _cpu_attention(query, key, value, mask, bias, scale)
    bias = None if bias is None else bias[None]
    return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale)


def heads_first_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    scale: float | None = None,
) -> jax.Array:
    """Attention in the layout of its matrix products.

    Args:
        query: (..., Tq, d).
        key, value: (..., Tk, d).
        mask: bool, broadcastable to (..., Tq, Tk).
        scale: as in `attention`.

    Returns:
        (..., Tq, d) in the dtype of `query`.
    """
    return _scaled_attention(_scale(query, scale), key, value, mask, None)


def _scale(query: jax.Array, scale: float | None) -> jax.Array:
    return query / math.sqrt(query.shape[-1]) if scale is None else query * scale


def _cpu_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    scale: float | None,
) -> jax.Array:
    batch, queries, heads, _ = query.shape
    query = _scale(query, scale)
    if queries * key.shape[1] < LONG_ATTENTION:
        query, key, value = (jnp.swapaxes(array, 1, 2) for array in (query, key, value))
        return jnp.swapaxes(_scaled_attention(query, key, value, mask, bias), 1, 2)
    if mask is not None:
        mask = jnp.swapaxes(jnp.broadcast_to(mask, (batch, heads, *mask.shape[2:])), 0, 1)
    query, key, value = (jnp.transpose(array, (2, 0, 1, 3)) for array in (query, key, value))

    def attend_head(operands: list[jax.Array | None]) -> jax.Array:
        # Heads outside and examples inside, because the bias is a head's and not copied for each example.
        *examples, bias = operands
        return jax.lax.map(lambda example: _scaled_attention(*example, bias), examples)

    return jnp.transpose(jax.lax.map(attend_head, [query, key, value, mask, bias]), (1, 2, 0, 3))


@jax.custom_vjp
def _scaled_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, bias: jax.Array | None
) -> jax.Array:
    """Attention whose query is scaled already, with a bias of the last axes of the scores. It divides by
    the softmax's sum after the product with the values, and computes the weights anew for the gradient
    instead of keeping them, as FlashAttention does (Dao et al. 2022): fewer passes over the scores, which
    dominate on a CPU."""
    return _attend(query, key, value, mask, bias)[0]


def _scores(query: jax.Array, key: jax.Array, mask: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)
    scores = scores if bias is None else scores + bias
    return scores if mask is None else jnp.where(mask, scores, MASKED)


def _attend(query, key, value, mask, bias) -> tuple[jax.Array, tuple[jax.Array | None, ...]]:
    scores = _scores(query, key, mask, bias)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    attended = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32) / total
    attended = attended.astype(query.dtype)
    return attended, (query, key, value, mask, bias, attended, highest, total)


def _attend_backward(kept, gradient):
    query, key, value, mask, bias, attended, highest, total = kept
    weights = jnp.exp(_scores(query, key, mask, bias) - highest)
    gradient = gradient / total
    share = (gradient * attended).sum(axis=-1, keepdims=True)
    gradient = gradient.astype(query.dtype)
    by_value = jnp.matmul(jnp.swapaxes(weights.astype(query.dtype), -1, -2), gradient)
    by_weight = jnp.matmul(gradient, jnp.swapaxes(value, -1, -2), preferred_element_type=jnp.float32)
    by_score = weights * (by_weight - share)
    if mask is not None:  # matters where a query sees nothing, and its weights are those of masked keys
        by_score = jnp.where(mask, by_score, 0)
    if bias is not None:
        by_bias = by_score.sum(axis=tuple(range(by_score.ndim - bias.ndim))).astype(bias.dtype)
    by_score = by_score.astype(query.dtype)
    by_query, by_key = jnp.matmul(by_score, key), jnp.matmul(jnp.swapaxes(by_score, -1, -2), query)
    by_operands = (by_query.astype(query.dtype), by_key.astype(key.dtype), by_value.astype(value.dtype))
    return *by_operands, None, None if bias is None else by_bias


_scaled_attention.defvjp(_attend, _attend_backward)


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
        gain = 1.0 if scale is None else 1 / (scale**2 * (inner // heads))
        query_initializer = nnx.initializers.variance_scaling(gain, "fan_in", "truncated_normal")
        self.query = Linear(width, inner, bias=query_bias, kernel_init=query_initializer, rngs=rngs)
        self.key = Linear(source_width, inner, bias=key_bias, rngs=rngs)
        self.value = Linear(source_width, inner, bias=value_bias, rngs=rngs)
        self.out = Linear(inner, width, bias=out_bias, rngs=rngs)

    def __call__(self, stream: jax.Array, mask: jax.Array | None = None, *, bias: jax.Array | None = None) -> jax.Array:
        """Self-attention: (B, T, D) -> (B, T, D). For `mask` and `bias` see `attention`."""
        return self.attend(stream, *self.project_source(stream), mask, bias=bias)

    def project_query(self, stream: jax.Array) -> jax.Array:
        """(B, Tq, D) -> (B, Tq, H, d)."""
        return self._split_heads(self.query(stream))

    def project_source(self, source: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values of (B, Tk, source width), each (B, Tk, H, d)."""
        return self._split_heads(self.key(source)), self._split_heads(self.value(source))

    def attend(
        self,
        stream: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None = None,
        *,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """Attention of (B, Tq, D) to projected keys and values (B, Tk, H, d) -> (B, Tq, D)."""
        query = self.project_query(stream)
        return self._join_heads(attention(query, key, value, mask, bias=bias, scale=self.scale))

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


def layer_norm(width: int, *, epsilon: float = 1e-5, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer norm over the last axis with the two-pass variance, which does not cancel."""
    return nnx.LayerNorm(width, epsilon=epsilon, use_fast_variance=False, rngs=rngs)
