"""Samples as 16-bit numbers: what the records of a prepared corpus hold and what travels to the device."""

from typing import Any

import numpy as np

_SCALE = np.float32(32768)


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """(n,) float32 in -1..1 to int16; louder samples are clipped."""
    scaled = samples * _SCALE
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    return scaled.astype(np.int16)


def from_pcm16(samples: Any) -> Any:
    """int16 samples of any shape, of NumPy or JAX, to float32 in -1..1."""
    return samples.astype(np.float32) / _SCALE
