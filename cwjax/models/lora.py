"""Low-rank adaptation (Hu et al. 2021, "LoRA"): to a frozen kernel the product of two narrow matrices is added.

A pair lies beside its kernel in the tree: `attn/query/lora_a` (in, r) and `attn/query/lora_b` (r, out) at
`attn/query/kernel` (in, out), all with the same leading axis of layers. The model never sees one: it is given the
merged kernels.
"""

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cwjax.errors import CwjaxError
from cwjax.models.layers import named_key
from cwjax.models.parameters import Parameters, flatten, unflatten

KERNEL, LORA_A, LORA_B = "kernel", "lora_a", "lora_b"


@dataclass(frozen=True)
class LoraSettings:
    """Pairs beside frozen kernels, trained in their place and merged into them in the result."""

    rank: int = 0
    """r, the inner width of every pair; 0: no pairs. Usual: 8 to 32."""
    alpha: float = 16.0
    """A pair's product is multiplied by alpha / rank."""
    targets: tuple[str, ...] = (
        "audio_encoder/blocks/*attn/query/kernel",
        "audio_encoder/blocks/*attn/value/kernel",
        "decoder/blocks/*attn/query/kernel",
        "decoder/blocks/*attn/value/kernel",
    )
    """Patterns of the kernels that have a pair where `freeze` freezes them; those that it does not freeze are trained
    as they are."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise CwjaxError(f"lora.rank is {self.rank}: must not be negative")
        if not 0 < self.alpha < math.inf:
            raise CwjaxError(f"lora.alpha is {self.alpha}: must be positive")

    @property
    def scale(self) -> float:
        """What a pair's product is multiplied by."""
        return self.alpha / max(self.rank, 1)


def is_pair(path: str) -> bool:
    """Whether a parameter is one of a pair."""
    return path.endswith((f"/{LORA_A}", f"/{LORA_B}"))


def pairs_beside(paths: Iterable[str], kernels: Iterable[str]) -> list[str]:
    """Those of some paths that are a pair of one of the kernels."""
    heads = {path.removesuffix(KERNEL) for path in kernels if path.endswith(f"/{KERNEL}")}
    return [path for path in paths if is_pair(path) and path[: path.rindex("/") + 1] in heads]


def pair_shapes(kernels: Mapping[str, jax.ShapeDtypeStruct], settings: LoraSettings) -> Parameters:
    """Shapes of the pairs of kernels, by path, that the settings target.

    Raises:
        CwjaxError: a target is no linear map, or not narrowed by the rank.
    """
    pairs = {}
    for path, kernel in kernels.items():
        if not any(fnmatch.fnmatchcase(path, pattern) for pattern in settings.targets):
            continue
        head, _, name = path.rpartition("/")
        if name != KERNEL or "/blocks/" not in path:
            raise CwjaxError(f"lora.targets: {path} is no kernel of a linear map in a block, which alone have pairs")
        *layers, width_in, width_out = kernel.shape
        if settings.rank >= min(width_in, width_out):
            raise CwjaxError(f"lora.rank is {settings.rank}: must be below the widths of {path} {tuple(kernel.shape)}")
        pairs[f"{head}/{LORA_A}"] = jax.ShapeDtypeStruct((*layers, width_in, settings.rank), jnp.float32)
        pairs[f"{head}/{LORA_B}"] = jax.ShapeDtypeStruct((*layers, settings.rank, width_out), jnp.float32)
    return unflatten(pairs)


def new_pair_parameter(path: str, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """What one of a pair starts from: A uniform as Kaiming He's initialisation has it in PEFT, B zeros, so that the
    model begins as it was."""
    if path.endswith(LORA_B):
        return jnp.zeros(shape, jnp.float32)
    bound = 1 / math.sqrt(shape[-2])
    return jax.random.uniform(named_key(key, path), shape, jnp.float32, -bound, bound)


def merge_lora(parameters: Parameters, scale: float) -> Parameters:
    """The tree without pairs: to every kernel that has one, scale * A @ B is added, in float32 before it is rounded to
    the kernel's dtype. Without pairs the tree is given back as it is."""
    leaves: dict[str, Any] = dict(flatten(parameters))
    heads = [path.removesuffix(LORA_A) for path in leaves if path.endswith(f"/{LORA_A}")]
    for head in heads:
        kernel, product = leaves[head + KERNEL], jnp.matmul(leaves.pop(head + LORA_A), leaves.pop(head + LORA_B))
        leaves[head + KERNEL] = (kernel.astype(jnp.float32) + scale * product).astype(kernel.dtype)
    return unflatten(leaves) if heads else parameters
