"""SpecAugment (Park et al. 2019): stretches of time and bands of frequency are masked, on the device.

Legend: B batch, F mel frames, M mels.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cwjax.errors import CwjaxError

MASK_VALUE = 0.0
"""What stands in place of masked features: about their mean in speech."""


@dataclass(frozen=True)
class SpecAugmentSettings:
    """How much of the spectrogram is masked; by default nothing. Usual: 2 times 50 frames and 2 times 20 mels."""

    time_masks: int = 0
    """Stretches of time."""
    longest_time_mask: int = 50
    """Frames of 10 ms; each stretch is drawn from 0 to so many."""
    frequency_masks: int = 0
    """Bands of frequency."""
    widest_frequency_mask: int = 20
    """Mels; each band is drawn from 0 to so many."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise CwjaxError(f"train.spec_augment.{name} is {value}: must not be negative")

    @property
    def masks(self) -> bool:
        """Whether anything is masked at all."""
        return bool(self.time_masks or self.frequency_masks)


def spec_augment(features: jax.Array, keys: jax.Array, settings: SpecAugmentSettings) -> jax.Array:
    """Masks stretches of features.

    Args:
        features: (B, F, M).
        keys: (B,) random keys; equal keys, equal masks, whatever the batch around them.
        settings: how much.

    Returns:
        (B, F, M).
    """

    def masked(key: jax.Array, length: int, masks: int, longest: int) -> jax.Array:
        """Where one of the masks lies, (length,) bool."""
        of_lengths, of_starts = jax.random.split(key)
        lengths = jax.random.randint(of_lengths, (masks, 1), 0, min(longest, length) + 1)
        starts = jnp.floor(jax.random.uniform(of_starts, (masks, 1)) * (length - lengths + 1)).astype(int)
        places = jnp.arange(length)
        return ((places >= starts) & (places < starts + lengths)).any(axis=0)

    def augmented(rows: jax.Array, key: jax.Array) -> jax.Array:
        of_time, of_frequency = jax.random.split(key)
        times = masked(of_time, rows.shape[0], settings.time_masks, settings.longest_time_mask)
        bands = masked(of_frequency, rows.shape[1], settings.frequency_masks, settings.widest_frequency_mask)
        return jnp.where(times[:, None] | bands, MASK_VALUE, rows)

    return jax.vmap(augmented)(features, keys)
