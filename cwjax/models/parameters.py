"""Parameter trees: nested dictionaries of arrays, whose paths read `audio_encoder/blocks/attn/query/kernel`."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Parameters = dict[str, Any]
"""A nested dictionary whose leaves are arrays (or shapes, shardings, labels of arrays)."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and leaf of every parameter, in a fixed order."""
    for name in sorted(tree):
        if isinstance(tree[name], Mapping):
            yield from flatten(tree[name], f"{prefix}{name}/")
        else:
            yield prefix + name, tree[name]


def unflatten(leaves: Mapping[str, Any]) -> Parameters:
    """The inverse of `flatten`."""
    tree: Parameters = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def merge(*trees: Parameters) -> Parameters:
    """One tree of all leaves; where two trees share a path, the later one's leaf stands."""
    return unflatten({path: leaf for tree in trees for path, leaf in flatten(tree)})


def cast(parameters: Parameters, dtype: jnp.dtype) -> Parameters:
    """Floating-point leaves in another precision; gradients come back in the old one."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, parameters
    )
