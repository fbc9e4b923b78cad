"""Scaled dot-product attention (Vaswani et al. 2017), and how each platform computes it fastest.

Shape legend: B batch, H heads, d width of a head, Tq queries, Tk keys.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from cwjax.models.placement import BATCH_AXES, TENSOR_AXIS, dividing, is_split, platform

LONG_ATTENTION = 256 * 256
"""Scores per head from which it pays not to hold those of all heads at once."""

MASKED = jnp.finfo(jnp.float32).min
"""Score of a masked key. Finite, so that a row without any key is an average and not NaN."""

ATTENDED = "attended"
"""Name of what attention found and what its gradient needs of it (see `keep_attended`)."""

TILE = 512
"""Queries and keys that the kernel for TPUs holds at a time."""

Implementation = Literal["definition"]
"""Another way than the platform's: what the definition says, once, for counting operations. All ways of the platforms
compute the scores again for the gradient."""


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    is_key: jax.Array | None = None,
    bias: jax.Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Attention on the platform that is compiled for.

    Args:
        query: (B, Tq, H, d).
        key, value: (B, Tk, H, d).
        mask: bool, broadcastable to (B, H, Tq, Tk) with 4 axes, True where a query sees a key. A
            query that sees no key gets the mean of the values.
        is_key: (B, Tk) bool, False at keys that are padding; kernels can do with it what they cannot with a `mask`.
            Where all are padding, the result means nothing. Not together with `mask`.
        bias: (H, Tq, Tk), added to every example's scores.
        causal: no query sees a key behind its own position.
        scale: factor of the dot products; 1 / sqrt(d) when None.
        implementation: None: the platform's.

    Returns:
        (B, Tq, H, d) in the dtype of `query`.
    """
    scale = _scale(query, scale)
    fits_kernels = mask is None and bias is None and query.shape[1] * key.shape[1] >= LONG_ATTENTION
    if is_key is not None:
        is_first = np.arange(key.shape[1]) == 0
        is_key = is_key | (is_first & ~is_key.any(axis=1, keepdims=True))  # no softmax of nothing
    match implementation or platform():
        case "tpu" if fits_kernels:
            attend = partial(_on_tpu, causal=causal)
        case "gpu" if fits_kernels and _fits_cudnn(query, key):
            attend, scale = partial(_on_gpu, causal=causal, scale=scale), 1.0
        case other:
            attend = {"cpu": _on_cpu, "definition": _by_definition}.get(other, _all_heads)
            if is_key is not None:
                mask, is_key = is_key[:, None, None, :], None
            if causal:
                past = jnp.tri(query.shape[1], key.shape[1], dtype=bool)[None, None]
                mask = past if mask is None else mask & past
    operands = {"query": query * scale, "key": key, "value": value, "mask": mask, "bias": bias, "is_key": is_key}
    operands = {name: array for name, array in operands.items() if array is not None}
    return _on_each_device(attend, operands) if is_split() else attend(**operands)


def heads_first_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None, *, scale: float | None = None
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
    return _scaled_attention(query * _scale(query, scale), key, value, mask, None)


def _scale(query: jax.Array, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


def keep_attended(primitive: Any, *operands: Any, **parameters: Any) -> bool:
    """A policy for `jax.checkpoint`: what attention found is kept, for it is dear to compute again."""
    named = jax.checkpoint_policies.save_only_these_names(ATTENDED)
    # cuDNN's own results cannot be named from outside.
    return named(primitive, *operands, **parameters) or primitive.name == "dot_product_attention_fwd_wrapper"


def _on_each_device(attend: Callable[..., jax.Array], operands: dict[str, jax.Array]) -> jax.Array:
    """No example needs another and no head another, so every device attends to its own. The partitioner cannot
    know this of loops and kernels, and would gather all they read."""
    batch, _, heads, _ = operands["query"].shape
    batch, heads = dividing(BATCH_AXES, batch), dividing(TENSOR_AXIS, heads)
    specs = dict.fromkeys(("query", "key", "value"), P(batch, None, heads))
    if "mask" in operands:
        rows, columns, *_ = operands["mask"].shape
        specs["mask"] = P(batch if rows > 1 else None, heads if columns > 1 else None)
    if "bias" in operands:
        specs["bias"] = P(heads)
    if "is_key" in operands:
        specs["is_key"] = P(batch)
    split = jax.shard_map(
        lambda operands: attend(**operands), in_specs=(specs,), out_specs=specs["query"], check_vma=False
    )
    return split(operands)


def _fits_cudnn(query: jax.Array, key: jax.Array) -> bool:
    """Its attention is for half precision, heads of a multiple of 8 up to 128, and NVIDIA's GPUs from Ampere on. Its
    gradient wants even lengths: on an H200 JAX refuses 447 tokens."""
    # AMD's are called otherwise than by a number; of GPUs that are not here nothing is known.
    capability = getattr(jax.local_devices()[0], "compute_capability", "8.0")
    recent = re.fullmatch(r"[\d.]+", capability) is not None and float(capability) >= 8.0
    width, even = query.shape[-1], query.shape[1] % 2 == key.shape[1] % 2 == 0
    return recent and even and query.dtype in (jnp.bfloat16, jnp.float16) and width <= 128 and width % 8 == 0


def _on_gpu(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    is_key: jax.Array | None = None,
    *,
    causal: bool,
    scale: float,
    kernel: str = "cudnn",
) -> jax.Array:
    """cuDNN's fused attention. It is told how many keys there are before the padding, so padding goes to the end."""
    lengths = None
    if is_key is not None:
        order = jnp.argsort(~is_key, axis=1, stable=True)[:, :, None, None]
        key, value = (jnp.take_along_axis(array, order, axis=1) for array in (key, value))
        lengths = is_key.sum(axis=1, dtype=jnp.int32)
    return jax.nn.dot_product_attention(
        query, key, value, scale=scale, is_causal=causal, key_value_seq_lengths=lengths, implementation=kernel
    )


def _on_tpu(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    is_key: jax.Array | None = None,
    *,
    causal: bool,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention, a fused kernel that writes no scores to memory. It wants whole tiles: keys that fill the last
    one are masked, queries that do so are cut off again."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    (_, queries, heads, _), keys = query.shape, key.shape[1]

    def tiled(array: jax.Array) -> jax.Array:
        return jnp.pad(jnp.swapaxes(array, 1, 2), ((0, 0), (0, 0), (0, -array.shape[1] % TILE), (0, 0)))

    query, key, value = tiled(query), tiled(key), tiled(value)
    visible = np.broadcast_to(np.arange(key.shape[2]) < keys, (query.shape[2], key.shape[2]))
    if causal:
        visible = np.tril(visible)
    tiles = splash.BlockSizes(
        **{f"block_{name}": TILE for name in ("q", "kv", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")}
    )
    kernel = splash.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.NumpyMask(visible)] * heads),
        block_sizes=tiles,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
    segments = None
    if is_key is not None:  # a query sees the keys of its own segment, and all queries are in segment 1
        padded = jnp.pad(is_key.astype(jnp.int32), ((0, 0), (0, key.shape[2] - keys)))
        segments = splash.SegmentIds(jnp.ones(query.shape[::2], jnp.int32), padded)
    attended = jax.vmap(kernel)(query, key, value, segments)
    return jnp.swapaxes(attended[:, :, :queries], 1, 2)


def _by_definition(query, key, value, mask=None, bias=None) -> jax.Array:
    bias = None if bias is None else bias[None]
    return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=1.0)


def _all_heads(query, key, value, mask=None, bias=None) -> jax.Array:
    query, key, value = (jnp.swapaxes(array, 1, 2) for array in (query, key, value))
    return jnp.swapaxes(_scaled_attention(query, key, value, mask, bias), 1, 2)


def _on_cpu(query, key, value, mask=None, bias=None) -> jax.Array:
    """Long attention goes head by head, to stay in the cache."""
    batch, queries, heads, _ = query.shape
    if queries * key.shape[1] < LONG_ATTENTION:
        return _all_heads(query, key, value, mask, bias)
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
    attended, highest, total = (
        checkpoint_name(array, ATTENDED) for array in (attended.astype(query.dtype), highest, total)
    )
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
