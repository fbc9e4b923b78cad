"""Tables of names: which tensor of somebody's checkpoint is which parameter of ours, read in both directions.

Every tensor of a checkpoint must find its place and every parameter must be filled; anything else is
an error that names it, found before the first tensor is read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.weights.tensors import Tensors


class Leaf(NamedTuple):
    """One tensor of a module: its name there, its name here ("" for the module's own path), and the order
    of axes that turns one into the other, which works both ways (None: as it is)."""

    theirs: str
    ours: str
    axes: tuple[int, ...] | None = None


LINEAR = (Leaf("weight", "kernel", (1, 0)), Leaf("bias", "bias"))
LINEAR_WITHOUT_BIAS = LINEAR[:1]
CONVOLUTION = (Leaf("weight", "kernel", (2, 1, 0)), Leaf("bias", "bias"))
LAYER_NORM = (Leaf("weight", "scale"), Leaf("bias", "bias"))
RMS_NORM = LAYER_NORM[:1]
EMBEDDING = (Leaf("weight", "embedding"),)
WEIGHT = (Leaf("weight", ""),)
PLAIN = (Leaf("", ""),)

Table = Mapping[str, tuple[str, tuple[Leaf, ...]]]
"""Their module name -> our path and the tensors in it; "#" stands for the number of a layer."""

NamedArrays = Iterator[tuple[str, np.ndarray]]
"""Names and arrays, one after another."""


def place(model: str, tensors: Tensors, table: Table, expected: Parameters) -> NamedArrays:
    """Our parameters from their tensors, in the dtypes they have, those of layers stacked; one at a time.

    Args:
        model: what it is, for messages.
        tensors: of the checkpoint.
        table: of the names.
        expected: shapes of the parameters to fill.

    Raises:
        CwjaxError: a tensor is missing, unknown, or of another shape than `expected` says. Raised here, not when
            the first parameter is asked for.
    """
    sources = dict(_sources(table))
    plan = []
    left = dict(tensors.shapes)
    for path, leaf in flatten(expected):
        pattern, axes = sources[path]
        layers = leaf.shape[0] if "#" in pattern else None
        shape = tuple(leaf.shape if layers is None else leaf.shape[1:])
        names = [pattern] if layers is None else [pattern.replace("#", str(layer)) for layer in range(layers)]
        for name in names:
            _require(model, tensors, left, name, tuple(shape[axis] for axis in axes) if axes else shape)
        plan.append((path, names, axes, layers is not None))
    if left:
        raise CwjaxError(
            f"{tensors.place}: has tensors that fit nowhere in {model}: {_list(left)}; is its configuration its own?"
        )
    return _read(tensors, plan)


def extract(parameters: Mapping[str, np.ndarray], table: Table) -> NamedArrays:
    """The inverse of `place`: their tensors from our parameters (path -> array), layers taken apart.

    Paths that `parameters` lacks are left out.
    """
    for path, (pattern, axes) in _sources(table):
        if path not in parameters:
            continue
        whole = np.asarray(parameters[path])
        parts = enumerate(whole) if "#" in pattern else [("", whole)]
        for layer, part in parts:
            yield pattern.replace("#", str(layer)), part.transpose(axes) if axes else part


def require_weights(named: NamedArrays, source: str = "") -> NamedArrays:
    """Passes all on that can be weights.

    Raises:
        CwjaxError: one is of another type than floating point, or holds a NaN or an infinite number; it is named, after
            the `source`.
    """
    for path, array in named:
        name = f"{source}: {path}" if source else path
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise CwjaxError(f"{name}: holds numbers of the type {array.dtype}, which are no weights; fetch it again")
        if not np.isfinite(array).all():
            raise CwjaxError(f"{name}: holds numbers that are not finite (NaN or infinite); fetch it again")
        yield path, array


def as_tree(named: NamedArrays, dtype: np.dtype | type = np.float32) -> Parameters:
    """The whole tree in one precision."""
    return unflatten({path: np.asarray(array, dtype) for path, array in named})


def abstract_parameters(make: Callable[[jax.Array], nnx.Module]) -> Parameters:
    """Shapes of a module's parameters; takes no memory."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(jax.random.key(0)))))


def _read(tensors: Tensors, plan: list[tuple[str, list[str], tuple[int, ...] | None, bool]]) -> NamedArrays:
    for path, names, axes, stacked in plan:
        if not stacked:
            tensor = tensors.read(names[0])
            yield path, np.ascontiguousarray(tensor.transpose(axes) if axes else tensor)
            continue
        first = tensors.read(names[0])
        first = first.transpose(axes) if axes else first
        whole = np.empty((len(names), *first.shape), first.dtype)
        for layer, name in enumerate(names):
            tensor = tensors.read(name)
            whole[layer] = tensor.transpose(axes) if axes else tensor
        yield path, whole


def _sources(table: Table) -> Iterator[tuple[str, tuple[str, tuple[int, ...] | None]]]:
    """Of each of our parameters: the pattern of its tensors' names, and the order of their axes."""
    for theirs, (ours, leaves) in table.items():
        for leaf in leaves:
            yield f"{ours}/{leaf.ours}".strip("/"), (f"{theirs}.{leaf.theirs}".rstrip("."), leaf.axes)


def _require(model: str, tensors: Tensors, left: dict[str, tuple[int, ...]], name: str, shape: tuple[int, ...]) -> None:
    if name not in left:
        raise CwjaxError(
            f"{tensors.place}: has no tensor '{name}'; is it a whole {model}, and its configuration its own?"
        )
    found = left.pop(name)
    if found != shape:
        raise CwjaxError(f"{tensors.place}: tensor '{name}' has shape {found}, but the configuration says {shape}")


def _list(names: Mapping[str, object]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
