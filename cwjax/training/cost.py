"""What a program costs: float operations counted in its jaxpr, bytes of collectives read off the compiled text.

XLA's own analysis counts the body of a loop once; here loops count as often as they run.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.extend.core
import numpy as np


@dataclass(frozen=True)
class Products:
    """The matrix products and convolutions of a program, which are nearly all it computes, of all devices together.

    Attributes:
        operations: float operations, a multiplication and an addition each counted.
        seconds: how long they take at a device's pace, where each takes the longer of computing and of reading and
            writing its arrays; divided over the devices this is the roofline (Williams et al. 2009).
    """

    operations: float
    seconds: float

    def __add__(self, other: "Products") -> "Products":
        return Products(self.operations + other.operations, self.seconds + other.seconds)

    def __mul__(self, times: float) -> "Products":
        return Products(self.operations * times, self.seconds * times)


NOTHING = Products(0.0, 0.0)


def count_products(jaxpr: Any, operations_per_second: float = math.inf, bytes_per_second: float = math.inf) -> Products:
    """Counts what a jaxpr computes.

    Args:
        jaxpr: as `jax.make_jaxpr` gives it.
        operations_per_second: of a device.
        bytes_per_second: that a device reads or writes.
    """
    total = NOTHING
    for equation in jaxpr.eqns:
        if not equation.outvars and not equation.effects:
            continue  # left over where only kept results of it are used: the compiler drops it
        name, parameters = equation.primitive.name, equation.params
        operations = _operations(equation)
        if operations:
            moved = sum(_bytes(variable.aval) for variable in (*equation.invars, *equation.outvars))
            seconds = max(operations / operations_per_second, moved / bytes_per_second)
            total += Products(operations, seconds)
            continue
        inner = [count_products(one, operations_per_second, bytes_per_second) for one in _inner(parameters)]
        if name == "cond":
            total += max(inner, key=lambda branch: branch.operations)
            continue
        times = 1
        if name == "scan":
            times = parameters["length"]
        elif name == "shard_map":  # its shapes are those of one device
            times = parameters["mesh"].size
        for one in inner:
            total += one * times
    return total


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, jax.extend.core.ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, jax.extend.core.Jaxpr):
                yield one


def _operations(equation: Any) -> float:
    """Of a product, or of a kernel, which reads and writes only its own operands and results."""
    parameters = equation.params
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        case "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / outputs
        case "pallas_call":
            times = math.prod(size for size in parameters["grid_mapping"].grid if isinstance(size, int))
            return times * sum(count_products(one).operations for one in _inner(parameters))
        case "dot_product_attention_fwd_wrapper":  # cuDNN's
            return 2 * _scores_operations(equation)
        case "dot_product_attention_bwd_wrapper":  # the scores once more, and four gradients
            return 5 * _scores_operations(equation)
    return 0.0


def _scores_operations(equation: Any) -> float:
    """Of the products of queries (B, Tq, H, d) with keys (B, Tk, H, d)."""
    query, key = (variable.aval.shape for variable in equation.invars[:2])
    return 2.0 * math.prod(query) * key[1]


def _bytes(aval: Any) -> int:
    return math.prod(aval.shape) * np.dtype(aval.dtype).itemsize if hasattr(aval, "shape") else 0


@dataclass(frozen=True)
class Collectives:
    """What the devices of a compiled program send each other.

    Attributes:
        sent: bytes that a device sends in one run of the program, by kind of collective.
        gathered_in_loops: most bytes that all-gathers and all-reduces inside one turn of a loop bring together on a
            device: parameters, which over many chips are gathered by all-reduce too, and gradients.
    """

    sent: dict[str, int]
    gathered_in_loops: int

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return sum(self.sent.values())


_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=(?:\{([^}]*)\}|(%?[\w.\-]+))")
_WHILE = re.compile(
    r" while\(.*condition=%?([\w.\-]+).*body=%?([\w.\-]+)|while\(.*body=%?([\w.\-]+).*condition=%?([\w.\-]+)"
)
_TRIPS = re.compile(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)')
_BOUND = re.compile(r"[su]32\[\]\S* constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\(")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")
_WIDTHS = {"pred": 8, "bf16": 16}


def count_collectives(text: str) -> Collectives:
    """Counts the collectives of a compiled program, for one device.

    Args:
        text: `compiled.as_text()`, optimised HLO.
    """
    computations, entry = _computations(text)
    called: dict[str, Counter[str]] = defaultdict(Counter)
    bodies = set()
    for name, lines in computations.items():
        for line in lines:
            loop = _WHILE.search(line)
            condition, body = (loop[1] or loop[4], loop[2] or loop[3]) if loop else ("", "")
            for listed, single in _CALLED.findall(line):
                for callee in (listed or single).replace("%", "").replace(" ", "").split(","):
                    if callee in computations:
                        called[name][callee] += _trips(line, computations[condition]) if callee == body else 1
            if body:
                bodies.add(body)
    times_run = _times_run(called, entry)
    whole = _collectives_of(computations, times_run)
    sent: Counter[str] = Counter()
    for one in whole.values():
        sent[one.kind] += one.times * one.sent
    gathered = [
        sum(
            one.times * one.size
            for key, one in _collectives_of(computations, _times_run(called, body, bodies)).items()
            # Others are begun outside the loop, and only carried on in it.
            if one.kind in ("all-gather", "all-reduce") and key in whole and whole[key].times >= times_run[body]
        )
        for body in bodies
    ]
    return Collectives(dict(sent), max(gathered, default=0))


def _trips(line: str, condition: list[str]) -> int:
    """How often a loop runs: known to the compiler, or else the number its counter is compared with."""
    known = _TRIPS.search(line)
    bounds = [int(bound) for bound in _BOUND.findall("\n".join(condition))]
    return int(known[1]) if known else max(bounds, default=1)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            name = opened[2]
            computations[name] = []
            entry = name if opened[1] else entry
        elif name:
            computations[name].append(line)
    return computations, entry


def _times_run(called: dict[str, Counter[str]], start: str, without: Set[str] = frozenset()) -> Counter[str]:
    """How often each computation runs when `start` runs once; loops `without` are left out."""
    times = Counter({start: 1})
    for callee, count in called[start].items():
        if callee not in without:
            for name, inner in _times_run(called, callee, without).items():
                times[name] += count * inner
    return times


class _Collective(NamedTuple):
    """A collective: its kind, bytes that a device sends in a run, bytes of its result, and how often it runs."""

    kind: str
    sent: int
    size: int
    times: int


def _collectives_of(computations: dict[str, list[str]], times_run: Counter[str]) -> dict[str, _Collective]:
    """The collectives in computations that run so often.

    The compiler for TPUs cuts a collective into stages between which it computes; they share a channel. Stages in the
    middle may lie in a loop that runs meanwhile, so a collective runs as often as its rarest stage. Collectives of
    different kinds may share a channel too.
    """
    found: dict[str, _Collective] = {}
    for name, times in times_run.items():
        for number, line in enumerate(computations[name]):
            match = _COLLECTIVE.search(line)
            if not match:
                continue
            arrays = [_array_bytes(*array) for array in _ARRAY.findall(match[1])]
            if match[3]:  # begun here: its result is the largest of what it carries
                arrays = [max(arrays)]
            size, members, kind = sum(arrays), _members(line), match[2]
            share = (members - 1) / members
            factor = {"all-gather": share, "all-reduce": 2 * share, "reduce-scatter": members - 1, "all-to-all": share}
            one = _Collective(kind, round(size * factor.get(kind, 1.0)), size, times)
            channel = _CHANNEL.search(line)
            key = f"{kind} {channel[1]}" if channel else f"{name} {number}"
            other = found.get(key, one)
            found[key] = _Collective(
                kind, max(one.sent, other.sent), max(one.size, other.size), min(times, other.times)
            )
    return found


def _array_bytes(kind: str, shape: str) -> int:
    digits = re.search(r"\d+", kind)
    bits = _WIDTHS.get(kind) or (int(digits[0]) if digits else 0)
    return math.prod(map(int, filter(None, shape.split(",")))) * bits // 8


def _members(line: str) -> int:
    """Devices of each group that takes part."""
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if iota:
        return max(int(iota[2]), 1)
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
    if mesh:
        axes = dict(re.findall(r"('\w+')=(\d+)", mesh[1]))
        return math.prod(int(axes[axis]) for axis in mesh[2].split(","))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed else 2
