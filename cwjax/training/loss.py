"""The cross-entropy over Whisper's vocabulary, which never holds the logits of all positions.

Legend: B batch, T target positions, D width, V vocabulary, N rows (positions of all examples), R rows of a chunk.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from cwjax.models.attention import MASKED
from cwjax.models.placement import BATCH_AXES, TENSOR_AXIS, dividing, is_split, platform

CHUNK_BYTES = 128 * 2**20
"""Largest chunk of float32 logits on a device."""


def vocabulary_loss(
    stream: jax.Array, embedding: jax.Array, targets: jax.Array, is_target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy and number of right guesses over the positions that count.

    Every device works on its own examples, and along the mesh's tensor axis on its own positions.

    Args:
        stream: (B, T, D), whose products with the embedding are the logits.
        embedding: (V, D).
        targets: (B, T) int32, the token after each position.
        is_target: (B, T) bool, False for prompt and padding.

    Returns:
        Two float32 scalars.
    """

    def of_rows(stream, embedding, targets, is_target):
        return _loss(stream.reshape(-1, stream.shape[-1]), embedding, targets.reshape(-1), is_target.reshape(-1))

    if not is_split():
        return of_rows(stream, embedding, targets, is_target)
    batch, positions = dividing(BATCH_AXES, stream.shape[0]), dividing(TENSOR_AXIS, stream.shape[1])
    axes = (BATCH_AXES if batch else ()) + ((TENSOR_AXIS,) if positions else ())
    rows = P(batch, positions)
    split = jax.shard_map(
        lambda *operands: jax.lax.psum(of_rows(*operands), axes),
        in_specs=(rows, P(), rows, rows),
        out_specs=P(),
        check_vma=False,
    )
    return split(stream, embedding, targets, is_target)


@jax.custom_vjp
def _loss(
    stream: jax.Array, embedding: jax.Array, targets: jax.Array, is_target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """As above, of (N, D), (V, D), (N,) and (N,). The gradient is found along with the loss, while the logits of a
    chunk are there, so nothing is computed twice."""
    return _with_gradients(stream, embedding, targets, is_target)[0]


def _with_gradients(stream, embedding, targets, is_target):
    """((loss, right guesses), (gradient by stream, gradient by embedding))."""
    rows, vocabulary = len(stream), len(embedding)
    chunks = -(-4 * rows * vocabulary // CHUNK_BYTES)
    # Tensor cores want multiples of eight; XLA would pad for them in every chunk.
    multiple = 8 if platform() == "gpu" else 1
    size = -(-rows // (chunks * multiple)) * multiple
    embedding = jnp.pad(embedding, ((0, -vocabulary % multiple), (0, 0)))

    def cut(array: jax.Array) -> jax.Array:
        padding = [(0, size * chunks - rows)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(chunks, size, *array.shape[1:])

    def add_chunk(sums, chunk):
        measured, by_stream, by_embedding = _of_chunk(*chunk, embedding, vocabulary)
        return jax.tree.map(jnp.add, sums, (measured, by_embedding)), by_stream

    zero = jnp.zeros((), jnp.float32)
    sums = ((zero, zero), jnp.zeros(embedding.shape, jnp.float32))
    (measured, by_embedding), by_stream = jax.lax.scan(add_chunk, sums, tuple(map(cut, (stream, targets, is_target))))
    by_stream = by_stream.reshape(-1, stream.shape[-1])[:rows]
    return measured, (by_stream, by_embedding[:vocabulary].astype(embedding.dtype))


def _of_chunk(stream, targets, is_target, embedding, vocabulary):
    """Loss, gradient by stream and gradient by embedding (float32) of (R, D), (R,), (R,) and an embedding of which the
    first V rows count."""
    logits = jnp.einsum("rd,vd->rv", stream, embedding, preferred_element_type=jnp.float32)
    if len(embedding) > vocabulary:
        logits = jnp.where(np.arange(len(embedding)) < vocabulary, logits, MASKED)
    highest = logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = weights.sum(axis=-1, keepdims=True)
    said = jnp.take_along_axis(logits, targets[:, None], axis=-1)
    losses = (jnp.log(total) + highest - said)[:, 0]
    measured = jnp.where(is_target, losses, 0).sum(), ((said == highest)[:, 0] & is_target).sum(dtype=jnp.float32)
    shares = weights / total
    by_logits = jnp.where(targets[:, None] == np.arange(len(embedding)), shares - 1, shares)
    by_logits = jnp.where(is_target[:, None], by_logits, 0).astype(stream.dtype)
    by_stream = jnp.einsum("rv,vd->rd", by_logits, embedding)
    by_embedding = jnp.einsum("rv,rd->vd", by_logits, stream, preferred_element_type=jnp.float32)
    return measured, by_stream, by_embedding


def _scale_gradients(gradients, cotangents):
    by_loss, _ = cotangents
    return *((by_loss * gradient).astype(gradient.dtype) for gradient in gradients), None, None


_loss.defvjp(_with_gradients, _scale_gradients)
