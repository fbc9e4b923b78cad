"""Decoding audio, and that segments cut the sound that belongs to their words."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cwjax.data.audio import audio_duration, read_audio
from cwjax.data.segmentation import SegmentationSettings, segment_article
from cwjax.data.swc import read_article, with_durations
from cwjax.errors import CwjaxError

RATE = 16_000


def tone(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def loudest_frequency(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_formats_and_rates_give_the_same_sound(tmp_path, suffix, rate):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(440, 1.0, rate), rate)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(RATE, abs=1)
    assert loudest_frequency(samples) == pytest.approx(440, abs=2)
    middle = samples[RATE // 4 : 3 * RATE // 4]
    expected = tone(440, 1.0, RATE)[RATE // 4 : 3 * RATE // 4]
    assert np.abs(middle - expected).max() < (0.05 if suffix == "ogg" else 0.002)
    assert audio_duration(path) == pytest.approx(1.0, abs=1e-3)


def test_channels_are_averaged(tmp_path):
    left, right = tone(300, 0.5, RATE), tone(1000, 0.5, RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right, -left], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), right / 3, atol=1e-6)


def test_long_files_are_read_whole_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("cwjax.data.audio.BLOCK_FRAMES", 1000)
    signal = np.random.default_rng(0).uniform(-1, 1, 4321).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", signal, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), signal)


def test_other_sampling_rates_can_be_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 1.0, RATE), RATE)
    samples = read_audio(tmp_path / "a.wav", sampling_rate=8000)
    assert len(samples) == 8000
    assert loudest_frequency(samples, 8000) == pytest.approx(440, abs=2)


def test_frequencies_above_the_new_limit_do_not_fold_back(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(12_000, 1.0, 48_000), 48_000)
    assert np.abs(read_audio(tmp_path / "a.wav")[1000:-1000]).max() < 1e-3


def write_broken(path: Path, kind: str) -> None:
    if kind == "garbage":
        path.write_bytes(b"this is no audio at all" * 100)
    elif kind == "nothing":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)
    elif kind == "not finite":
        samples = np.zeros(100, np.float32)
        samples[50] = np.nan
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    elif kind == "headerless":
        path.write_bytes(bytes(1000))


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("missing", "a.ogg", "no such audio file"),
        ("garbage", "a.ogg", "cannot be read as audio"),
        ("nothing", "a.ogg", "cannot be read as audio"),
        ("no samples", "a.wav", "holds no audio"),
        ("not finite", "a.wav", "not finite"),
        ("headerless", "a.raw", "cannot be read as audio"),
    ],
)
def test_unusable_files_are_named_with_the_reason(tmp_path, kind, name, reason):
    path = tmp_path / name
    write_broken(path, kind)
    with pytest.raises(CwjaxError, match=reason) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind != "not finite":
        with pytest.raises(CwjaxError, match=reason):
            audio_duration(path)


WORDS = [  # start (ms), end (ms), pitch (Hz); a pause parts the sentences
    [(500, 1000, 400), (1050, 1550, 500), (1600, 2100, 600)],
    [(2900, 3400, 700), (3450, 3950, 800), (4000, 4500, 900)],
    [(6500, 7000, 1000), (7050, 7550, 1100), (7600, 8100, 1200)],
]
SECOND_FILE = 5.25


def write_tones(folder: Path) -> None:
    """An article whose words are tones, over two files of different rates and channels."""
    folder.mkdir()
    sentences = []
    whole = {rate: np.zeros(round(9 * rate)) for rate in (44_100, 22_050)}
    for words in WORDS:
        tokens = []
        for start, end, pitch in words:
            tokens.append(f'<t>tone{pitch}<n pronunciation="tone{pitch}" start="{start}" end="{end}"/></t>')
            for rate, signal in whole.items():
                first = round(start * rate / 1000)
                piece = tone(pitch, (end - start) / 1000, rate)
                signal[first : first + len(piece)] = piece
        sentences.append(f"<s>{' '.join(tokens)}<t>.</t></s>")
    document = f"<article><meta/><d><p>{' '.join(sentences)}</p></d></article>"
    (folder / "aligned.swc").write_text(document)
    (folder / "info.json").write_text(json.dumps({"audio_files": [{"offset": 0.0}, {}]}))
    first = whole[44_100][: round(SECOND_FILE * 44_100)]
    soundfile.write(folder / "audio1.ogg", np.stack([first, first], axis=1), 44_100)
    soundfile.write(folder / "audio2.ogg", whole[22_050][round(SECOND_FILE * 22_050) :], 22_050)


def test_segments_hold_the_sound_of_their_words(tmp_path):
    write_tones(tmp_path / "tones")
    article = read_article(tmp_path / "tones", tmp_path)
    article = with_durations(article, [audio_duration(tmp_path / part.path) for part in article.audio_parts])
    assert article.audio_parts[1].offset == pytest.approx(SECOND_FILE, abs=1e-3)
    segments = segment_article(article, SegmentationSettings(max_duration=2.5)).segments
    assert [one.audio for one in segments] == ["tones/audio1.ogg", "tones/audio1.ogg", "tones/audio2.ogg"]
    for one, words in zip(segments, WORDS, strict=True):
        samples = read_audio(tmp_path / one.audio)
        begin = round((one.start - one.audio_offset) * RATE)
        clip = samples[begin : begin + round(one.duration * RATE)]
        assert len(clip) == round(one.duration * RATE)
        first_word = round(one.utterances[0].start * RATE)
        for start, end, pitch in words:
            position = first_word + round((start - words[0][0]) * RATE / 1000)
            burst = clip[position : position + round((end - start) * RATE / 1000)]
            assert loudest_frequency(burst) == pytest.approx(pitch, abs=5)
        assert np.abs(clip[: first_word - 200]).max() < 0.05, "silence before the first word"
        assert np.abs(clip[round(one.utterances[-1].end * RATE) + 200 :]).max() < 0.05
