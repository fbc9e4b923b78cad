"""What models know of the devices they run on: the platform, and the axes of the mesh that split activations.

The mesh is the one in context (`jax.set_mesh`). Without it everything is on one device.

Shape legend: B batch, T positions, D width.
"""

import math
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P

BATCH_AXES = ("data", "fsdp")
"""Axes of the mesh that split the batch."""
TENSOR_AXIS = "tensor"
"""Axis of the mesh that splits heads and hidden units."""


def platform() -> str:
    """The platform that is compiled for: of the mesh, whose devices need not be here, or else of the default device."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def is_split() -> bool:
    """Whether there is a mesh of several devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.size > 1


def dividing(axes: str | tuple[str, ...], size: int) -> str | tuple[str, ...] | None:
    """The axes if a dimension of that size divides over them, or else None: it is then not split."""
    sizes = jax.sharding.get_abstract_mesh().shape
    names = (axes,) if isinstance(axes, str) else axes
    return axes if size % math.prod(sizes[name] for name in names) == 0 else None


def split_batch(array: jax.Array) -> jax.Array:
    """Keeps the leading axis (B, ...) split and the others whole.

    Activations stay where their examples are, and parameters come to them. Left to itself, the
    partitioner may do the opposite, which costs more as soon as a batch is larger than a kernel.
    """
    if not is_split():
        return array
    return jax.lax.with_sharding_constraint(array, P(dividing(BATCH_AXES, array.shape[0])))


def on_own_examples(function: Callable[[jax.Array], jax.Array], array: jax.Array) -> jax.Array:
    """Lets every device apply a function to its own examples, (B, ...) -> (B, ...); for operations that the
    partitioner cannot split, such as Fourier transforms."""
    if not is_split():
        return function(array)
    split = P(dividing(BATCH_AXES, array.shape[0]))
    return jax.shard_map(function, in_specs=split, out_specs=split, check_vma=False)(array)
