"""What a Whisper hears in long recordings: words with times, kept in a file as soon as a stretch is done.

Files are decoded block by block and cut in pauses into stretches of about five minutes, so that memory does not grow
with their length, and what is heard of a stretch is a line of `heard.jsonl`: run again, only stretches that have none
are heard. Beside the words stand the pauses of the sound, which the model's times are corrected by.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile

from cwjax.data.audio.decode import audio_blocks, audio_duration
from cwjax.data.audio.log_mel import HOP_LENGTH, SAMPLING_RATE
from cwjax.errors import CwjaxError
from cwjax.inference.audio import DIGITAL_SILENCE, Recording, level
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcript import Transcript
from cwjax.inference.transcription import Request
from cwjax.weights.sources import file_sha256

log = logging.getLogger(__name__)

HEARD_FILE = "heard.jsonl"
WHOLE = -1
"""Beginning of the line that says that all stretches of a file were heard."""
STRETCH, SEARCHED = 300.0, 20.0
"""Seconds of a stretch, and before its end in which the quietest moment is where it is cut."""
QUIETEST = 0.3
"""Seconds that have to be quiet there."""
SHORTEST_PAUSE = 0.05
PAUSE_LEVEL = 0.3
"""Seconds of a pause, and its level as a share of the way from the noise to what is loud, in decibels."""
BATCH_SIZE = 8
OPTIONS = DecodingOptions(
    word_timestamps=True, independent_windows=True, condition_on_previous_text=False, temperature=(0.0, 0.6), best_of=1
)
"""A window that is decoded badly is decoded once more: what is still wrong then matches nothing."""

Interval = tuple[float, float]
"""Seconds from the start of the recording."""
Progress = Callable[[float, float, Path], None]
"""Is told the seconds of a file that are heard, and those that it has as far as is known."""


class HeardWord(NamedTuple):
    """A word as the model writes it; times are seconds from the start of the recording."""

    text: str
    start: float
    end: float
    probability: float


@dataclass
class Hearing:
    """What was heard in a file.

    Attributes:
        path: the file.
        sampling_rate: of the file, in hertz.
        duration: seconds.
        language: code.
        words: in order of time.
        pauses: in which nothing sounds.
    """

    path: Path
    sampling_rate: int
    duration: float
    language: str = ""
    words: list[HeardWord] = field(default_factory=list)
    pauses: list[Interval] = field(default_factory=list)


class Ear:
    """Hears files, each stretch once.

    Args:
        find_model: gives the model (`cwjax.load`) when a stretch has to be heard.
        model_name: what was heard by another is heard again.
        folder: where `heard.jsonl` is kept.
        language: code or English name; None: detected in each file's first stretch.
        progress: is told how far it is.
    """

    def __init__(
        self,
        find_model: Callable[[], Any],
        model_name: str,
        folder: Path,
        language: str | None = None,
        progress: Progress = lambda *_: None,
    ):
        self._find_model, self._model_name, self._file = find_model, model_name, folder / HEARD_FILE
        self._language, self._progress = language, progress
        self._places = {_key(line): place for place, line in _lines(self._file)}  # in the file, of each line

    def hear(self, path: Path) -> Hearing:
        """All that is said in a file.

        Raises:
            CwjaxError: it is no audio or damaged, or what is heard cannot be written.
        """
        try:
            audio = file_sha256(path)[:24]
        except OSError as error:
            raise CwjaxError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        whole = self._known(audio, WHOLE)
        if whole is None:
            whole = self._keep({"audio": audio, "begin": WHOLE, "duration": self._hear_new(path, audio)})
        hearing = Hearing(path, _sampling_rate(path), whole["duration"])
        self._progress(hearing.duration, hearing.duration, path)
        mine = (audio, self._model_name, self._language)
        for begin in sorted(key[3] for key in self._places if key[:3] == mine and key[3] != WHOLE):
            line = self._known(audio, begin)
            hearing.language = hearing.language or line["heard_language"]
            hearing.words += [HeardWord(*word) for word in line["words"]]
            hearing.pauses += [tuple(pause) for pause in line["pauses"]]
        return hearing

    def _hear_new(self, path: Path, audio: str) -> float:
        """Hears the stretches of a file that were not; gives its seconds."""
        done, ended, total, language = 0.0, 0, audio_duration(path), self._language
        running: dict[int, tuple[Request, int]] = {}

        def requests() -> Iterator[Request]:
            nonlocal done, ended, language
            for begin, samples in stretches(audio_blocks(path)):
                ended = begin + len(samples)
                known = self._known(audio, begin)
                if known is not None:
                    language = language or known["heard_language"]
                    done += len(samples) / SAMPLING_RATE
                    continue
                recording = Recording.open(samples)
                if language is None:
                    language = next(iter(self._find_model().detect_language(recording)), "en")
                request = Request(recording, "", replace(OPTIONS, language=language), name=str(path))
                running[id(request)] = request, begin
                yield request

        given = requests()
        first = next(given, None)
        if first is None:  # no need for a model
            return ended / SAMPLING_RATE
        for event in self._find_model().stream_many(chain([first], given), BATCH_SIZE):
            if event.error is not None:
                raise event.error
            if event.transcript is not None:
                request, begin = running.pop(id(event.request))
                self._keep({"audio": audio, "begin": begin, **_line(event.transcript, request.audio, begin)})
                done += request.audio.duration
                self._progress(done, total, path)
        return ended / SAMPLING_RATE

    def _known(self, audio: str, begin: int) -> dict[str, Any] | None:
        """What is kept of the stretch of a file that begins with a sample, or None."""
        place = self._places.get((audio, self._model_name, self._language, begin))
        if place is None:
            return None
        with self._file.open("rb") as file:
            file.seek(place)
            return json.loads(file.readline())

    def _keep(self, line: dict[str, Any]) -> dict[str, Any]:
        """Writes a line, on to the disk."""
        line = {"model": self._model_name, "language": self._language, **line}
        try:
            with self._file.open("a+b") as file:
                end = file.seek(0, 2)
                if end and (file.seek(end - 1), file.read(1))[1] != b"\n":  # torn by a kill
                    end += file.write(b"\n")
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CwjaxError(f"{self._file}: cannot be written ({error.strerror}); choose another --output") from error
        self._places[_key(line)] = end
        return line


def _key(line: dict[str, Any]) -> tuple[str, str, str | None, int]:
    return line["audio"], line["model"], line["language"], line["begin"]


def _line(transcript: Transcript, stretch: Recording, begin: int) -> dict[str, Any]:
    """What is kept of a stretch that begins with a sample of the file."""
    began = begin / SAMPLING_RATE
    words = [word for segment in transcript.segments for word in segment.words or ()]
    return {
        "heard_language": transcript.language,
        "words": [
            (one.text.strip(), round(began + one.start, 2), round(began + one.end, 2), round(one.probability, 3))
            for one in words
        ],
        "pauses": [(round(began + start, 2), round(began + end, 2)) for start, end in pauses(stretch.samples)],
    }


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines of a file, with where they begin; one may be torn by a kill."""
    if not path.is_file():
        return
    place = 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                _key(record)
                yield place, record
            except (ValueError, KeyError, TypeError):
                if line.strip():
                    log.info("%s: a line is torn; what it held is heard again", path)
            place += len(line)


def _sampling_rate(path: Path) -> int:
    try:
        return soundfile.info(path).samplerate
    except (soundfile.LibsndfileError, TypeError):
        try:
            with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
                return container.streams.audio[0].rate
        except (av.FFmpegError, IndexError, ValueError):
            return SAMPLING_RATE  # reading it will say what is wrong


def stretches(blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Samples of any length in stretches, each with the number of its first sample.

    Args:
        blocks: (n,) float32 at 16 kHz, of any lengths; where they are cut does not depend on these.
    """
    begin, held, size = 0, [], 0
    longest, searched = round(STRETCH * SAMPLING_RATE), round(SEARCHED * SAMPLING_RATE)
    for block in blocks:
        held.append(block)
        size += len(block)
        while size >= longest:
            samples = np.concatenate(held)
            cut = longest - searched + _quietest(samples[longest - searched : longest])
            yield begin, samples[:cut]
            held, begin, size = [samples[cut:]], begin + cut, size - cut
    if size:
        yield begin, np.concatenate(held)


def _quietest(samples: np.ndarray) -> int:
    """The sample in the middle of the quietest moment."""
    frames = samples[: len(samples) // HOP_LENGTH * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    width = round(QUIETEST * SAMPLING_RATE / HOP_LENGTH)
    power = np.convolve(np.square(frames).mean(axis=1), np.ones(width), mode="valid")
    return (int(np.argmin(power)) + width // 2) * HOP_LENGTH


def pauses(samples: np.ndarray) -> list[Interval]:
    """Where nothing sounds, seconds from the first of the samples, which are (n,) float32 at 16 kHz."""
    decibels = level(Recording(samples))
    sounding = decibels[decibels > DIGITAL_SILENCE]
    if not len(sounding):
        return [(0.0, len(samples) / SAMPLING_RATE)]
    loud = np.percentile(sounding, 95)
    quiet = np.percentile(np.maximum(decibels, loud - 60), 5)
    active = np.concatenate([[True], decibels >= quiet + PAUSE_LEVEL * (loud - quiet), [True]])
    edges = np.flatnonzero(np.diff(active.astype(np.int8)))
    spans = edges.reshape(-1, 2) * HOP_LENGTH / SAMPLING_RATE
    return [(float(start), float(end)) for start, end in spans if end - start >= SHORTEST_PAUSE - 1e-9]
