"""Augmentation of training audio on the host."""

from dataclasses import replace

import numpy as np
import soxr

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.segment import Utterance


def perturb_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Plays 16 kHz samples `factor` times as fast, which moves pitch and formants too (Ko et al. 2015).

    Args:
        samples: (n,) float32.
        factor: above 1 is faster, higher and shorter.

    Returns:
        (about n / factor,) float32.
    """
    if factor == 1:
        return samples
    return soxr.resample(samples, SAMPLING_RATE * factor, SAMPLING_RATE, quality="LQ")


def perturb_utterances(utterances: tuple[Utterance, ...], factor: float) -> tuple[Utterance, ...]:
    """The times of utterances in audio that is played `factor` times as fast."""
    return tuple(replace(piece, start=piece.start / factor, end=piece.end / factor) for piece in utterances)
