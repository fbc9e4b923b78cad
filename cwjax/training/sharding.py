"""Where parameters and batches live: the mesh and the rules.

Axes: `data` (copies of the model), `fsdp` (parameters and batch split), `tensor` (heads and hidden
units split). A rule gives the PartitionSpec of a parameter's own dimensions; parameters of stacked
layers have one dimension more in front, which is never split.
"""

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import DictKey

from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.lora import KERNEL, LORA_A, LORA_B
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.placement import BATCH_AXES, TENSOR_AXIS
from cwjax.models.t5 import T5Config

RULES: tuple[tuple[str, P], ...] = (
    ("*/query/kernel", P("fsdp", "tensor")),
    ("*/key/kernel", P("fsdp", "tensor")),
    ("*/value/kernel", P("fsdp", "tensor")),
    ("*/query/bias", P("tensor")),
    ("*/key/bias", P("tensor")),
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
"""First match wins; the last line replicates what is small: biases of sums, scales, gates, positions. Vocabularies are
never split, for they divide by nothing."""

BATCH = P(BATCH_AXES)
"""Batches are split over both axes."""


def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices; one axis may be -1 and takes the devices that are left.

    Args:
        data, fsdp, tensor: devices along each axis.
        devices: to lay the mesh over; None: all there are.

    Raises:
        CwjaxError: the axes do not multiply to the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if list(sizes.values()).count(-1) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise CwjaxError(f"mesh: {sizes}: sizes are positive, and one of them may be -1")
    filled = {name: count // max(fixed, 1) if size == -1 else size for name, size in sizes.items()}
    if math.prod(filled.values()) != count:
        raise CwjaxError(
            f"mesh: {sizes} cannot be laid over {count} devices; they must multiply to {count}, or one be -1 and the "
            "others divide it"
        )
    return jax.make_mesh(tuple(filled.values()), tuple(filled), axis_types=(AxisType.Auto,) * 3, devices=devices)


def parameter_shardings(parameters: Parameters, mesh: Mesh) -> Parameters:
    """The sharding of every parameter of a (concrete or abstract) tree.

    Raises:
        CwjaxError: a dimension does not divide over its axis; the parameter is named.
    """
    shardings = {}
    for path, leaf in flatten(parameters):
        rule = _rule(path)
        stacked = "/blocks/" in path and rule != P()
        spec = P(None, *rule) if stacked else rule
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis and size % mesh.shape[axis]:
                raise CwjaxError(
                    f"mesh.{axis} is {mesh.shape[axis]}: {size} of {path} {tuple(leaf.shape)} does not divide over it"
                )
        shardings[path] = NamedSharding(mesh, spec)
    return unflatten(shardings)


def _rule(path: str) -> P:
    """Of a parameter. LoRA's pairs lie where their kernels do: A split as its inputs are, B as its outputs."""
    head, _, name = path.rpartition("/")
    if name in (LORA_A, LORA_B):
        inputs, outputs = _rule(f"{head}/{KERNEL}")
        return P(inputs, None) if name == LORA_A else P(None, outputs)
    return next(spec for pattern, spec in RULES if fnmatch.fnmatchcase(path, pattern))


def require_divisible_heads(config: ContextWhisperConfig, mesh: Mesh) -> None:
    """Raises `CwjaxError` if an attention's heads do not divide over the axis that splits them."""
    text = config.text_encoder
    heads = {
        "audio_encoder/blocks/attn": config.whisper.encoder_attention_heads,
        "decoder/blocks/attn": config.whisper.decoder_attention_heads,
        "text_encoder/blocks/attn": text.num_heads if isinstance(text, T5Config) else text.num_attention_heads,
    }
    for path, count in heads.items():
        if count % mesh.shape[TENSOR_AXIS]:
            raise CwjaxError(
                f"mesh.tensor is {mesh.shape[TENSOR_AXIS]}: the {count} heads of {path} do not divide over it"
            )


def optimizer_shardings(abstract_optimizer: Any, trained: Parameters, mesh: Mesh) -> Any:
    """Shardings of the optimizer's state: what belongs to a parameter lies where the parameter lies.

    A leaf belongs to the parameter whose path ends its own path in the state. Of other shapes than the parameter's, as
    where means over rows or columns stand for it, it is small, and whole on every device.

    Args:
        abstract_optimizer: shapes of the state.
        trained: shapes and shardings of the parameters.
        mesh: of devices.
    """
    of_parameter = dict(flatten(trained))

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = [entry.key for entry in path if isinstance(entry, DictKey)]
        tails = ("/".join(map(str, names[start:])) for start in range(len(names)))
        own = next((of_parameter[tail] for tail in tails if tail in of_parameter), None)
        return own.sharding if own is not None and own.shape == leaf.shape else replicated(mesh)

    return jax.tree_util.tree_map_with_path(sharding, abstract_optimizer)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a tree with the shardings of another: all that is needed to compile for it or restore it."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings
    )


def put_parameters(
    named: Iterator[tuple[str, np.ndarray]], shapes: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """Arrays on the devices, taken one at a time and of each only what the devices here hold.

    Args:
        named: paths and arrays, the same in every process.
        shapes: dtype and sharding of every path.
    """

    def put(array: np.ndarray, shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(array.shape, shape.sharding, lambda index: array[index].astype(shape.dtype))

    return {path: put(array, shapes[path]) for path, array in named}


def gather(parameters: Parameters) -> Iterator[tuple[str, np.ndarray]]:
    """Paths and whole arrays on the host, one at a time. Every process must take all of them."""
    for path, leaf in flatten(parameters):
        yield path, multihost_utils.process_allgather(leaf, tiled=True)


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """Which share of every batch this process reads, as (number, of how many).

    Processes whose devices differ along `tensor` alone read the same.

    Raises:
        CwjaxError: the shares of two processes overlap in part.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    rows: dict[int, set[int]] = {}
    for device, (part,) in NamedSharding(mesh, BATCH).devices_indices_map((parts,)).items():
        rows.setdefault(device.process_index, set()).add(part.start or 0)
    shares = sorted({tuple(sorted(part)) for part in rows.values()})
    if sum(map(len, shares)) != parts or len(set(map(len, shares))) > 1:
        raise CwjaxError(
            f"mesh: {dict(mesh.shape)} splits the batch across processes unevenly; let data x fsdp be a multiple of "
            "the number of processes, or the other way round"
        )
    return shares.index(tuple(sorted(rows[jax.process_index()]))), len(shares)


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Moves this process's share of a batch to its devices."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def require_divisible_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Refuses a global batch that does not divide over the devices that share it, in parts that are summed up."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (parts * accumulation):
        raise CwjaxError(
            f"train.batch_size is {batch_size}: must be a multiple of data x fsdp = {parts} devices"
            + (f" x train.accumulation = {accumulation}" if accumulation > 1 else "")
        )
