"""The cross-entropy over Whisper's vocabulary, which never holds the logits of all positions.

Legend: B batch, T target positions, D width, V vocabulary, N rows (positions of all examples), R rows of a chunk.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from cwjax.models.attention import MASKED
from cwjax.models.placement import BATCH_AXES, TENSOR_AXIS, dividing, is_split, platform

CHUNK_BYTES = 128 * 2**20
"""Largest chunk of float32 logits on a device."""


class Objective(NamedTuple):
    """What is minimised at a position: the cross-entropy. With a teacher it is ce_weight times that and kl_weight times
    temperature² times the divergence of the model's distribution from the teacher's, both at the temperature (Hinton et
    al. 2015, "Distilling the Knowledge in a Neural Network").

    Attributes:
        label_smoothing: share of the target that is spread evenly over the vocabulary (Szegedy et al. 2016).
        ce_weight, kl_weight, temperature: as above.
    """

    label_smoothing: float = 0.0
    ce_weight: float = 1.0
    kl_weight: float = 0.0
    temperature: float = 1.0


CROSS_ENTROPY = Objective()

Rows = tuple[jax.Array, jax.Array]
"""A decoder's stream and the embedding with which its products are the logits."""


def vocabulary_loss(
    stream: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    is_target: jax.Array,
    objective: Objective = CROSS_ENTROPY,
    teacher: Rows | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Summed objective, by default the cross-entropy, and number of right guesses over the positions that count.

    Every device works on its own examples, and along the mesh's tensor axis on its own positions.

    Args:
        stream: (B, T, D), whose products with the embedding are the logits.
        embedding: (V, D).
        targets: (B, T) int32, the token after each position.
        is_target: (B, T) bool, False for prompt and padding.
        objective: what is summed.
        teacher: (B, T, D') and (V, D') of the model whose distribution is to be learnt; gets no gradient.

    Returns:
        Two float32 scalars.
    """

    def of_rows(stream, embedding, targets, is_target, teacher):
        if teacher is not None:
            teacher = teacher[0].reshape(-1, teacher[0].shape[-1]), teacher[1]
        stream = stream.reshape(-1, stream.shape[-1])
        return _loss(objective, stream, embedding, targets.reshape(-1), is_target.reshape(-1), teacher)

    if not is_split():
        return of_rows(stream, embedding, targets, is_target, teacher)
    batch, positions = dividing(BATCH_AXES, stream.shape[0]), dividing(TENSOR_AXIS, stream.shape[1])
    axes = (BATCH_AXES if batch else ()) + ((TENSOR_AXIS,) if positions else ())
    rows = P(batch, positions)
    split = jax.shard_map(
        lambda *operands: jax.lax.psum(of_rows(*operands), axes),
        in_specs=(rows, P(), rows, rows, None if teacher is None else (rows, P())),
        out_specs=P(),
        check_vma=False,
    )
    return split(stream, embedding, targets, is_target, teacher)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(
    objective: Objective,
    stream: jax.Array,
    embedding: jax.Array,
    targets: jax.Array,
    is_target: jax.Array,
    teacher: Rows | None,
) -> tuple[jax.Array, jax.Array]:
    """As above, of (N, D), (V, D), (N,), (N,) and a teacher's (N, D') and (V, D'). The gradient is found along with the
    loss, while the logits of a chunk are there, so nothing is computed twice."""
    return _with_gradients(objective, stream, embedding, targets, is_target, teacher)[0]


def _with_gradients(objective, stream, embedding, targets, is_target, teacher):
    """((loss, right guesses), (gradient by stream, gradient by embedding))."""
    rows, vocabulary = len(stream), len(embedding)
    chunks = -(-4 * rows * vocabulary // CHUNK_BYTES)
    # Tensor cores want multiples of eight; XLA would pad for them in every chunk.
    multiple = 8 if platform() == "gpu" else 1
    size = -(-rows // (chunks * multiple)) * multiple
    embedding = jnp.pad(embedding, ((0, -vocabulary % multiple), (0, 0)))
    taught, of_teacher = (None, None) if teacher is None else teacher
    of_teacher = None if teacher is None else jnp.pad(of_teacher, ((0, -vocabulary % multiple), (0, 0)))

    def cut(array: jax.Array) -> jax.Array:
        padding = [(0, size * chunks - rows)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(chunks, size, *array.shape[1:])

    def add_chunk(sums, chunk):
        measured, by_stream, by_embedding = _of_chunk(objective, *chunk, embedding, of_teacher, vocabulary)
        return jax.tree.map(jnp.add, sums, (measured, by_embedding)), by_stream

    zero = jnp.zeros((), jnp.float32)
    sums = ((zero, zero), jnp.zeros(embedding.shape, jnp.float32))
    chunked = jax.tree.map(cut, (stream, targets, is_target, taught))
    (measured, by_embedding), by_stream = jax.lax.scan(add_chunk, sums, chunked)
    by_stream = by_stream.reshape(-1, stream.shape[-1])[:rows]
    return measured, (by_stream, by_embedding[:vocabulary].astype(embedding.dtype))


def _of_chunk(objective, stream, targets, is_target, taught, embedding, of_teacher, vocabulary):
    """Loss, gradient by stream and gradient by embedding (float32) of (R, D), (R,), (R,), a teacher's (R, D'), and
    embeddings of which the first V rows count."""
    logits = _logits(stream, embedding, vocabulary)
    highest = logits.max(axis=-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = weights.sum(axis=-1, keepdims=True)
    said = jnp.take_along_axis(logits, targets[:, None], axis=-1)
    right = (said == highest)[:, 0] & is_target
    shares, is_said = weights / total, targets[:, None] == np.arange(len(embedding))
    if smoothing := objective.label_smoothing:
        everywhere = smoothing / vocabulary
        by_logits = jnp.where(is_said, shares - (1 - smoothing + everywhere), shares - everywhere)
        said = (1 - smoothing) * said + smoothing * logits[:, :vocabulary].mean(axis=-1, keepdims=True)
    else:
        by_logits = jnp.where(is_said, shares - 1, shares)
    losses = (jnp.log(total) + highest - said)[:, 0]
    if taught is not None:
        ours = jax.nn.log_softmax(logits / objective.temperature)
        theirs = jax.nn.log_softmax(_logits(taught, of_teacher, vocabulary) / objective.temperature)
        expected = jnp.exp(theirs)
        divergence = jnp.where(expected > 0, expected * (theirs - ours), 0).sum(axis=-1)
        losses = objective.ce_weight * losses + objective.kl_weight * objective.temperature**2 * divergence
        by_divergence = objective.kl_weight * objective.temperature * (jnp.exp(ours) - expected)
        by_logits = objective.ce_weight * by_logits + by_divergence
    measured = jnp.where(is_target, losses, 0).sum(), right.sum(dtype=jnp.float32)
    by_logits = jnp.where(is_target[:, None], by_logits, 0).astype(stream.dtype)
    by_stream = jnp.einsum("rv,vd->rd", by_logits, embedding)
    by_embedding = jnp.einsum("rv,rd->vd", by_logits, stream, preferred_element_type=jnp.float32)
    return measured, by_stream, by_embedding


def _logits(stream, embedding, vocabulary):
    """(R, D) and an embedding of which the first V rows count -> (R, rows) float32."""
    logits = jnp.einsum("rd,vd->rv", stream, embedding, preferred_element_type=jnp.float32)
    if len(embedding) > vocabulary:
        logits = jnp.where(np.arange(len(embedding)) < vocabulary, logits, MASKED)
    return logits


def _scale_gradients(objective, gradients, cotangents):
    by_loss, _ = cotangents
    return *((by_loss * gradient).astype(gradient.dtype) for gradient in gradients), None, None, None


_loss.defvjp(_with_gradients, _scale_gradients)
