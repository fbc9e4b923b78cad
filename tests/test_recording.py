"""Windows of a recording against openai-whisper's spectrogram of the whole file."""

import numpy as np
import pytest
import soundfile
from tolerance import amplitudes, assert_close

from cwjax.data.log_mel import FFT_LENGTH, compress, mel_decades
from cwjax.errors import CwjaxError
from cwjax.inference.recording import Recording


def noise(samples: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.normal(size=samples) * np.linspace(0.01, 0.3, samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [35 * 16_000 + 77, 3 * 16_000, 160, 201])
def test_windows_are_cut_from_openai_whispers_spectrogram(samples: int) -> None:
    pytest.importorskip("torch")
    import whisper

    recording = Recording.open(noise(samples))
    whole = whisper.log_mel_spectrogram(recording.samples, 80, padding=480_000).numpy().T
    loudest = whole.max() * 4 - 4
    assert recording.frames == len(whole) - 3000
    for seek in {0, 1, 2, min(777, recording.frames - 1), recording.frames - 1}:
        window = recording.window(seek, 600)[None].astype(np.float64)
        assert window.shape == (1, 600 * 160 + 400)
        ours = compress(mel_decades(window, 80), loudest)[0]
        ours, theirs = amplitudes(ours), amplitudes(whole[seek : seek + 600])
        assert_close(ours, theirs, terms=FFT_LENGTH, message=f"from frame {seek}")


def test_files_and_samples_are_the_same(tmp_path) -> None:
    samples = np.round(noise(20_000) * 2**15) / 2**15
    soundfile.write(tmp_path / "talk.wav", samples, 16_000, subtype="PCM_16")
    opened = Recording.open(tmp_path / "talk.wav")
    np.testing.assert_allclose(opened.samples, samples, atol=1e-6)
    assert opened.frames == 125
    assert opened.duration == 1.25
    assert opened.name.endswith("talk.wav")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\).*mono samples"),
        (np.zeros(100, np.int16), "type int16.*float32 in -1..1"),
        (np.zeros(0, np.float32), "holds no samples"),
        (np.array([0, np.nan], np.float32), "not finite"),
    ],
)
def test_what_is_no_recording_is_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(CwjaxError, match=message):
        Recording.open(samples)
