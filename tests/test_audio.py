"""Decoding audio, and that segments cut the sound that belongs to their words."""

import json
import os
import shutil
import struct
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

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


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_resampling_in_blocks_leaves_no_seams(tmp_path, monkeypatch, rate):
    monkeypatch.setattr("cwjax.data.audio.BLOCK_FRAMES", 7001)
    signal = np.random.default_rng(0).uniform(-1, 1, (rate + 1, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", signal, rate, subtype="FLOAT")
    whole = soxr.resample(signal.mean(axis=1), rate, RATE, quality="HQ")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), whole, atol=1e-6)


def test_memory_is_that_of_the_result(tmp_path, monkeypatch):
    monkeypatch.setattr("cwjax.data.audio.BLOCK_FRAMES", 1 << 14)
    soundfile.write(tmp_path / "a.flac", np.zeros((44_100 * 60, 2), np.int16), 44_100)
    tracemalloc.start()
    samples = read_audio(tmp_path / "a.flac")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples.nbytes == 60 * RATE * 4
    assert peak < 1.3 * samples.nbytes


def test_short_and_silent_files_are_audio(tmp_path):
    soundfile.write(tmp_path / "short.wav", tone(440, 0.01, RATE), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros((8_000, 2)), 8_000)
    assert len(read_audio(tmp_path / "short.wav")) == 160
    silence = read_audio(tmp_path / "silent.wav")
    assert len(silence) == RATE
    assert not silence.any()


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
        soundfile.write(path, samples, 8, subtype="FLOAT")
    elif kind == "headerless":
        path.write_bytes(bytes(1000))


@pytest.fixture
def path_of_programs(tmp_path, monkeypatch) -> Path:
    """An empty PATH, to put an ffmpeg on."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.usefixtures("path_of_programs")
@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("missing", "a.ogg", "no such audio file"),
        ("garbage", "a.ogg", "cannot be read as audio"),
        ("nothing", "a.ogg", "cannot be read as audio"),
        ("no samples", "a.wav", "holds no audio"),
        ("not finite", "a.wav", r"not finite numbers, the first at 6\.25 s"),
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


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, 10, RATE), RATE)
    read = soundfile.SoundFile.read

    def read_then_cut(file: soundfile.SoundFile, *arguments, **options) -> np.ndarray:
        block = read(file, *arguments, **options)
        os.truncate(path, RATE * 2 * 4)
        return block

    monkeypatch.setattr("cwjax.data.audio.BLOCK_FRAMES", 1000)
    monkeypatch.setattr(soundfile.SoundFile, "read", read_then_cut)
    with pytest.raises(CwjaxError, match=r"a\.wav: ends after 4\.0 s, but its header says 10\.0 s"):
        read_audio(path)


def real_ffmpeg() -> str:
    """The ffmpeg on the PATH, or that of a wheel; without either the test is skipped."""
    return shutil.which("ffmpeg") or pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()


@pytest.mark.parametrize("name", ["talk.m4a", "video.mp4", "-film: the bees.mkv"])
def test_ffmpeg_reads_the_rest(tmp_path, path_of_programs, monkeypatch, name):
    monkeypatch.undo()
    ffmpeg = real_ffmpeg()
    monkeypatch.setenv("PATH", str(path_of_programs))
    (path_of_programs / "ffmpeg").symlink_to(ffmpeg)
    stereo = np.stack([tone(440, 2, 44_100), tone(440, 2, 44_100)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44_100)
    picture = [] if name.endswith("m4a") else ["-f", "lavfi", "-i", "testsrc=size=32x32:rate=5", "-c:v", "mpeg4"]
    command = ["ffmpeg", "-loglevel", "error", "-i", tmp_path / "a.wav", *picture, "-c:a", "aac", "-t", "2"]
    subprocess.run([*command, f"file:{tmp_path / name}"], check=True)
    samples = read_audio(tmp_path / name)
    assert len(samples) == pytest.approx(2 * RATE, abs=0.1 * RATE)
    assert loudest_frequency(samples) == pytest.approx(440, abs=2)
    np.testing.assert_allclose(np.abs(samples[RATE // 2 : RATE]).max(), 0.5, atol=0.05)
    for content in (b"a text file", b"#EXTM3U\n#EXTINF:3,\n" + os.fsencode(tmp_path / name) + b"\n#EXT-X-ENDLIST\n"):
        (tmp_path / "no.wav").write_bytes(content)
        with pytest.raises(CwjaxError, match=r"no\.wav: cannot be read as audio \(ffmpeg: ") as caught:
            read_audio(tmp_path / "no.wav")
        assert "\n" not in str(caught.value)


def write_program(path: Path, script: str) -> None:
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_what_ffmpeg_says(tmp_path, path_of_programs, caplog):
    cat = shutil.which("cat", path="/bin:/usr/bin")
    path = tmp_path / "talk.m4a"
    path.write_bytes(b"something that libsndfile does not know")
    with pytest.raises(CwjaxError, match=r"talk\.m4a: cannot be read .* or install ffmpeg$"):
        read_audio(path)
    complain = "echo '[in @ 0x1] moov atom not found' >&2; echo 'more' >&2\n"
    write_program(path_of_programs / "ffmpeg", complain + "exit 1\n")
    with pytest.raises(CwjaxError, match=r"talk\.m4a: cannot be read as audio \(ffmpeg: moov atom not found\);"):
        read_audio(path)
    two_frames = struct.pack(">4s5I2x4f", b".snd", 26, 2**32 - 1, 6, 16_000, 2, 1, 0, -0.75, -0.25)
    (path_of_programs / "two_frames").write_bytes(two_frames)
    write_program(path_of_programs / "ffmpeg", f"{complain}{cat} '{path_of_programs}/two_frames'\n")
    np.testing.assert_array_equal(read_audio(path), np.array([0.5, -0.5], np.float32))
    assert "talk.m4a: ffmpeg read it, but said: moov atom not found" in caplog.text
    write_program(path_of_programs / "ffmpeg", "exit 0\n")
    with pytest.raises(CwjaxError, match=r"talk\.m4a: holds no audio"):
        read_audio(path)


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
        offset = next(part.offset for part in article.audio_parts if part.path == one.audio)
        begin = round((one.start - offset) * RATE)
        clip = samples[begin : begin + round(one.duration * RATE)]
        assert len(clip) == round(one.duration * RATE)
        first_word = round(one.utterances[0].start * RATE)
        for start, end, pitch in words:
            position = first_word + round((start - words[0][0]) * RATE / 1000)
            burst = clip[position : position + round((end - start) * RATE / 1000)]
            assert loudest_frequency(burst) == pytest.approx(pitch, abs=5)
        assert np.abs(clip[: first_word - 200]).max() < 0.05, "silence before the first word"
        assert np.abs(clip[round(one.utterances[-1].end * RATE) + 200 :]).max() < 0.05
