"""Where parameters and batches live: the mesh and the rules.

Axes: `data` (copies of the model), `fsdp` (parameters and batch split), `tensor` (heads and hidden
units split). A rule gives the PartitionSpec of a parameter's own dimensions; parameters of stacked
layers have one dimension more in front, which is never split.
"""

import fnmatch
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import DictKey

from cwjax.errors import CwjaxError
from cwjax.models.parameters import Parameters, flatten, unflatten

RULES: tuple[tuple[str, P], ...] = (
    ("*/query/kernel", P("fsdp", "tensor")),
    ("*/key/kernel", P("fsdp", "tensor")),
    ("*/value/kernel", P("fsdp", "tensor")),
    ("*/query/bias", P("tensor")),
    ("*/value/bias", P("tensor")),
    ("*/out/kernel", P("tensor", "fsdp")),
    ("*/up/kernel", P("fsdp", "tensor")),
    ("*/gate/kernel", P("fsdp", "tensor")),
    ("*/up/bias", P("tensor")),
    ("*/down/kernel", P("tensor", "fsdp")),
    ("*/conv*/kernel", P(None, None, "fsdp")),
    ("*embedding*/embedding", P(None, "fsdp")),
    ("*", P()),
)
"""First match wins; the last line replicates what is small: biases, scales, gates, positions."""

BATCH = P(("data", "fsdp"))
"""Batches are split over both axes."""


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """The mesh over all devices; one axis may be -1 and takes the devices that are left.

    Raises:
        CwjaxError: the axes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if list(sizes.values()).count(-1) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise CwjaxError(f"mesh: {sizes}: sizes are positive, and one of them may be -1")
    filled = {name: devices // max(fixed, 1) if size == -1 else size for name, size in sizes.items()}
    if math.prod(filled.values()) != devices:
        raise CwjaxError(f"mesh: {sizes} cannot be laid over {devices} devices")
    return jax.make_mesh(tuple(filled.values()), tuple(filled), axis_types=(AxisType.Auto,) * 3)


def parameter_shardings(parameters: Parameters, mesh: Mesh) -> Parameters:
    """The sharding of every parameter of a (concrete or abstract) tree.

    Raises:
        CwjaxError: a dimension does not divide over its axis; the parameter is named.
    """
    shardings = {}
    for path, leaf in flatten(parameters):
        rule = next(spec for pattern, spec in RULES if fnmatch.fnmatchcase(path, pattern))
        stacked = "/blocks/" in path and rule != P()
        spec = P(None, *rule) if stacked else rule
        for size, axes in zip(leaf.shape, spec, strict=False):
            parts = math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))
            if size % parts:
                raise CwjaxError(
                    f"mesh: {path} {tuple(leaf.shape)}: {size} does not divide over {parts} devices of axis {axes}"
                )
        shardings[path] = NamedSharding(mesh, spec)
    return unflatten(shardings)


def optimizer_shardings(abstract_optimizer: Any, shardings: Parameters, mesh: Mesh) -> Any:
    """Shardings of the optimizer's state: what belongs to a parameter lies where the parameter lies.

    A leaf belongs to the parameter whose path ends its own path in the state.
    """
    of_parameter = dict(flatten(shardings))

    def sharding(path: tuple[Any, ...], _: Any) -> NamedSharding:
        names = [entry.key for entry in path if isinstance(entry, DictKey)]
        tails = ("/".join(map(str, names[start:])) for start in range(len(names)))
        return next((of_parameter[tail] for tail in tails if tail in of_parameter), replicated(mesh))

    return jax.tree_util.tree_map_with_path(sharding, abstract_optimizer)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Moves this process's share of a batch to its devices."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def require_divisible_batch(batch_size: int, mesh: Mesh) -> None:
    """Refuses a global batch that does not divide over the devices that share it."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise CwjaxError(f"train.batch_size is {batch_size}: must be a multiple of data x fsdp = {parts} devices")
