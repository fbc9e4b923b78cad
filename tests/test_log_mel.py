"""Log-mel features against transformers' own feature extractor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import amplitudes, assert_close
from transformers import WhisperFeatureExtractor

from cwjax.data.audio.log_mel import FFT_LENGTH, log_mel


def sounds() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    time = np.arange(480_000) / 16_000
    speechlike = np.sin(2 * np.pi * 140 * time) * np.exp(3 * np.sin(2 * np.pi * 3 * time) - 4)
    return {
        "noise": generator.normal(size=480_000) * 0.1,
        "tone then silence": np.where(time < 2, 0.5 * np.sin(2 * np.pi * 440 * time), 0),
        "speech-like": speechlike + 1e-3 * generator.normal(size=480_000),
        "silence": np.zeros(480_000),
    }


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("name", ["noise", "tone then silence", "speech-like", "silence"])
def test_equals_transformers(name: str, num_mel_bins: int) -> None:
    waveform = sounds()[name].astype(np.float32)
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)
    # Its NumPy path, in float64; with torch installed it would take a float32 one that is 5e-5 away from it.
    expected = extractor._np_extract_fbank_features(waveform[None], "cpu")[0].T
    ours = log_mel(waveform[None].astype(np.float64), num_mel_bins)[0]
    assert ours.shape == (3000, num_mel_bins)
    assert_close(ours, expected, terms=1)  # theirs are float32 from the logarithm on
    on_device = jax.jit(lambda samples: log_mel(samples, num_mel_bins, jnp))(waveform[None])[0]
    assert_close(amplitudes(on_device), amplitudes(expected), terms=FFT_LENGTH)
