"""A fingerprint of parameters: whether they are bit for bit what they were."""

import jax
import jax.numpy as jnp

from cwjax.models.parameters import Parameters, flatten


def fingerprint(parameters: Parameters) -> dict[str, int]:
    """A number for each array that any change of a bit changes; the same on every mesh."""
    return {path: int(_bits(leaf)) for path, leaf in flatten(parameters)}


@jax.jit
def _bits(array: jax.Array) -> jax.Array:
    """The array's bits as unsigned numbers, each times an odd number of its own, added up modulo 2^32."""
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)
    place, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= array.shape[axis]
    return (bits * (2 * place + 1)).sum(dtype=jnp.uint32)
