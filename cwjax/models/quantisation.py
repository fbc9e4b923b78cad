"""Weights rounded to int8, with which transcription reads a quarter of the memory.

Every output of a linear map and every row of the token embedding has a scale of its own, by which its largest weight
becomes 127. What is multiplied with them is rounded in the same way, row by row, so that products are sums of integers
(Dettmers et al. 2022, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", section 2.1).

Shape legend: L layers, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from cwjax.models.layers import Embedding, Linear
from cwjax.models.parameters import Parameters


def quantise(graphdef: nnx.GraphDef, parameters: Parameters) -> tuple[nnx.GraphDef, Parameters]:
    """A `ContextWhisper` with int8 weights, and its parameters, which take a quarter of the memory.

    Only what is multiplied most: convolutions, the text encoder and context attention remain as they are.
    """
    model = nnx.merge(graphdef, parameters)
    blocks = model.audio_encoder.blocks
    for part in (blocks.attn, blocks.mlp, model.decoder):
        for _, module in list(nnx.iter_modules(part)):
            for name, child in list(vars(module).items()):
                if type(child) in _ROUNDED:
                    setattr(module, name, _ROUNDED[type(child)](child))
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


class Int8Linear(nnx.Module):
    """A linear map of the last axis with rounded weights.

    Args:
        linear: with its parameters, which may be stacked over layers.
    """

    def __init__(self, linear: Linear):
        kernel, scale = _round(linear.kernel[...], axis=-2)
        self.kernel, self.scale = nnx.Param(kernel), nnx.Param(jnp.squeeze(scale, -2))
        self.bias = linear.bias

    def __call__(self, stream: jax.Array) -> jax.Array:
        """(..., width_in) -> (..., width_out)."""
        rows = _product(stream.reshape(-1, stream.shape[-1]), self.kernel[...], self.scale[...], axis=0)
        if self.bias is not None:
            rows += self.bias[...]
        return rows.reshape(*stream.shape[:-1], -1)


class Int8Embedding(nnx.Module):
    """An embedding with rounded rows.

    Args:
        embedding: with its table (V, D).
    """

    def __init__(self, embedding: Embedding):
        table, scale = _round(embedding.embedding[...], axis=1)
        self.embedding, self.scale = nnx.Param(table), nnx.Param(jnp.squeeze(scale, 1))

    def __call__(self, numbers: jax.Array) -> jax.Array:
        """(...) int -> (..., D)."""
        return self.embedding[...][numbers] * self.scale[...][numbers][..., None]

    def project(self, rows: jax.Array) -> jax.Array:
        """As `Embedding.project`."""
        return _product(rows, self.embedding[...], self.scale[...], axis=1)


_ROUNDED = {Linear: Int8Linear, Embedding: Int8Embedding}


def _round(values: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """int8, and the scale they are to be multiplied by, one for all along the axis."""
    largest = jnp.max(jnp.abs(values), axis=axis, keepdims=True)
    scale = jnp.where(largest == 0, 1, largest) / 127
    return jnp.round(values / scale).astype(jnp.int8), scale


def _product(rows: jax.Array, table: jax.Array, scale: jax.Array, axis: int) -> jax.Array:
    """Rows (n, width) float32 times int8 of that width along `axis`, with a scale for every place of the other axis."""
    rounded, row_scale = _round(rows, axis=1)
    if len(rows) == 1:  # XLA's CPU backend multiplies int8 matrices, but would make a vector and its matrix int32 first
        rounded = jnp.concatenate([rounded, jnp.zeros_like(rounded)])
    contracted = (((1,), (axis,)), ((), ()))
    sums = jax.lax.dot_general(rounded, table, contracted, preferred_element_type=jnp.int32)[: len(rows)]
    return sums * row_scale * scale
