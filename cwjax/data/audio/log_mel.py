"""Whisper's log-mel spectrogram (Radford et al. 2022, section 2.2).

Legend: B batch, N samples, F mel frames (N / 160), M mels.

One definition for two places: with NumPy in float64 it is the reference (equal to transformers'
WhisperFeatureExtractor to 1e-5), with jax.numpy in float32 it runs on the device inside the
training step (there the quietest bins differ by up to about 5e-5, as float32 spectra do).
"""

import contextlib
import functools
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cwjax.machine import cache_directory

SAMPLING_RATE = 16_000
"""Samples per second."""
FFT_LENGTH = 400
"""Samples of a frame: 25 ms."""
HOP_LENGTH = 160
"""Samples between frames: 10 ms."""
SAMPLES_PER_POSITION = 2 * HOP_LENGTH
"""Samples of one position of the audio encoder, whose second convolution has a stride of two."""
MARGIN = FFT_LENGTH // 2
"""Samples of the first frame before the audio begins, and of the last after its end."""
DYNAMIC_RANGE = 8.0
"""Decades below the maximum that are kept."""


@functools.cache
def mel_filters(num_mel_bins: int) -> np.ndarray:
    """Slaney's mel filters from 0 to 8 kHz, (201, M) float64; kept between runs, for librosa imports for seconds."""
    cache = cache_directory()
    kept = cache and cache / f"mel-{num_mel_bins}-librosa-{version('librosa')}.npz"
    try:
        return np.load(kept)["filters"]  # whose checksum is compared
    except Exception:  # not there, or damaged in any way
        filters = _mel()(sr=SAMPLING_RATE, n_fft=FFT_LENGTH, n_mels=num_mel_bins, dtype=np.float64).T
    if kept:
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".npz", delete=False) as aside:
                np.savez(aside, filters=filters)
            Path(aside.name).replace(kept)
    return filters


def _mel() -> Callable[..., np.ndarray]:
    """librosa's filters. Importing them fails where Numba may write neither beside librosa nor into a home directory:
    librosa asks it to keep other functions that it compiles."""
    import librosa

    try:
        return librosa.filters.mel
    except RuntimeError:
        import numba

        before = numba.config.CACHE_DIR
        with tempfile.TemporaryDirectory(prefix="cwjax-numba-") as numba.config.CACHE_DIR:
            try:
                return librosa.filters.mel
            finally:
                numba.config.CACHE_DIR = before


def log_mel(waveform: Any, num_mel_bins: int, xp: ModuleType = np) -> Any:
    """Log-mel spectrogram of waveforms that are already as long as the model's window.

    Args:
        waveform: (B, N) samples in -1..1 at 16 kHz, N a multiple of 160, zeros where the audio has ended.
        num_mel_bins: M, 80 or 128.
        xp: numpy or jax.numpy.

    Returns:
        (B, F, M) in the waveform's precision, mostly in -1..1.
    """
    decades = mel_decades(xp.pad(waveform, ((0, 0), (MARGIN, MARGIN)), mode="reflect"), num_mel_bins, xp)
    return compress(decades, decades.max(axis=(1, 2), keepdims=True), xp)


def mel_decades(samples: Any, num_mel_bins: int, xp: ModuleType = np) -> Any:
    """Power in every mel band, in decades (log10) and at least -10, with nothing else done to it.

    Args:
        samples: (B, N + 400) at 16 kHz: 200 samples before the first frame's middle and 200 after the last.
        num_mel_bins: M.
        xp: numpy or jax.numpy.

    Returns:
        (B, F, M).
    """
    frames = (samples.shape[1] - 2 * MARGIN) // HOP_LENGTH
    positions = np.arange(frames)[:, None] * HOP_LENGTH + np.arange(FFT_LENGTH)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_LENGTH) / FFT_LENGTH)
    spectrum = xp.fft.rfft(samples[:, positions] * xp.asarray(window, dtype=samples.dtype))
    power = xp.square(spectrum.real) + xp.square(spectrum.imag)
    mel = xp.matmul(power, xp.asarray(mel_filters(num_mel_bins), dtype=samples.dtype))
    return xp.log10(xp.maximum(mel, 1e-10))


def compress(decades: Any, max_log_mel: Any, xp: ModuleType = np) -> Any:
    """Whisper's features: `decades` (B, F, M) cut 8 below the highest of the recording and scaled."""
    return (xp.maximum(decades, max_log_mel - DYNAMIC_RANGE) + 4) / 4
