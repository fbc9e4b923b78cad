"""Dropout (Srivastava et al. 2014) and layer drop (Fan et al. 2019), in training alone, with random keys from outside.

An example has a key of its own, so what it loses does not depend on the batch around it, its devices or what is
computed again. Without keys, that is with None, nothing is dropped and nothing computed.

Legend: B batch, T positions, D width, L layers.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from cwjax.models.layers import named_key


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dropout:
    """What is dropped.

    Attributes:
        keys: (B,) random keys; with a leading axis of layers as `layers` gives it.
        rate: share of the numbers that become zero; the others grow, so that the mean stays.
        layer_rate: share of the layers that an example skips.
    """

    keys: jax.Array
    rate: float = field(metadata={"static": True})
    layer_rate: float = field(metadata={"static": True})

    def part(self, name: str) -> "Dropout":
        """The same with other keys, those of a part of the model."""
        return self._with(jax.vmap(lambda key: named_key(key, name))(self.keys))

    def layers(self, count: int) -> "Dropout":
        """The same with keys (L, B), to be run through with the layers."""
        return self._with(jax.vmap(self._keys)(jnp.arange(count)))

    def _with(self, keys: jax.Array) -> "Dropout":
        return Dropout(keys, self.rate, self.layer_rate)

    def _keys(self, number: int | jax.Array) -> jax.Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(self.keys)

    def _drawn(self, number: int, kept: float, shape: tuple[int, ...]) -> jax.Array:
        return jax.vmap(lambda key: jax.random.bernoulli(key, kept, shape))(self._keys(number))


def dropped(update: jax.Array, dropout: Dropout | None, place: int) -> jax.Array:
    """What is left of an update (B, T, D); `place` tells those of a layer apart, from 1 on."""
    if dropout is None or not dropout.rate:
        return update
    kept = 1 - dropout.rate
    return jnp.where(dropout._drawn(place, kept, update.shape[1:]), update / kept, 0)


def or_skipped(before: jax.Array, after: jax.Array, dropout: Dropout | None) -> jax.Array:
    """The stream (B, T, D) after a layer, or before it for examples that skip the layer."""
    if dropout is None or not dropout.layer_rate:
        return after
    return jnp.where(dropout._drawn(0, dropout.layer_rate, (1, 1)), before, after)
