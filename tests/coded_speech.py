"""Speech that a stand-in for a model hears without error: a word is an alternating signal whose height is its number.

So the ways from files to words, and whatever is done with these, can be tested in seconds, times included.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.inference.transcript import Segment, Transcript, Word
from cwjax.inference.transcription import Event, Request

LETTER, PAUSE = 0.06, 0.04
"""Seconds of a letter, and between words."""
_LOWEST, _STEP = 700, 24
"""Of the signal's height, in units of 16-bit samples."""


def vocabulary(count: int = 1200, seed: int = 0) -> list[str]:
    """Words that are pronounceable, and different."""
    draw = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))] = None
    return list(words)


WORDS = vocabulary()


def prose(count: int, seed: int) -> list[str]:
    """Words as often as in texts: the first of the vocabulary are most frequent (Zipf)."""
    weights = 1 / np.arange(3, len(WORDS) + 3)
    return np.random.default_rng(seed).choice(WORDS, count, p=weights / weights.sum()).tolist()


def sentences(words: Sequence[str], seed: int) -> list[list[str]]:
    """The words as written, 4 to 20 a sentence."""
    draw, done, ready = random.Random(seed), 0, []
    while done < len(words):
        some = list(words[done : done + draw.randint(4, 20)])
        done += len(some)
        ready.append([some[0].capitalize(), *some[1:-1], some[-1] + "."] if len(some) > 1 else [some[0] + "."])
    return ready


def speak(words: Iterable[str], pause_after: str = ".") -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Samples at 16 kHz of words of the vocabulary, and each with its start and end in seconds."""
    numbers = {word: number for number, word in enumerate(WORDS)}
    parts, times, at = [], [], 0
    for word in words:
        plain = word.lower().strip(".,;!?")
        count = round(LETTER * len(plain) * SAMPLING_RATE) // 2 * 2
        height = (_LOWEST + _STEP * numbers[plain]) / 2**15
        parts.append(height * np.tile([1.0, -1.0], count // 2).astype(np.float32))
        times.append((word, at / SAMPLING_RATE, (at + count) / SAMPLING_RATE))
        gap = round((0.6 if word.endswith(pause_after) else PAUSE) * SAMPLING_RATE)
        parts.append(np.zeros(gap, np.float32))
        at += count + gap
    return np.concatenate(parts), times


def understand(samples: np.ndarray) -> list[tuple[str, float, float]]:
    """The inverse of `speak`."""
    heights = np.round(np.abs(samples) * 2**15).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], heights, [0]])))
    heard = []
    for first, last in pairwise(edges):
        if heights[first] >= _LOWEST:
            heard.append((WORDS[(heights[first] - _LOWEST) // _STEP], first / SAMPLING_RATE, last / SAMPLING_RATE))
    return heard


@dataclass
class CodedModel:
    """Stands in for `cwjax.load(...)`.

    Attributes:
        fails_after: so many stretches, as if the process was killed.
        stretches: how many were heard.
    """

    fails_after: int = 1 << 30
    stretches: int = 0
    lengths: list[float] = field(default_factory=list)

    def detect_language(self, audio: object) -> dict[str, float]:
        """As of a model."""
        return {"en": 0.9, "de": 0.1}

    def stream_many(self, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[Event]:
        """As of a model."""
        for request in requests:
            if self.stretches == self.fails_after:
                raise KeyboardInterrupt
            self.stretches += 1
            self.lengths.append(request.audio.duration)
            words = tuple(Word(" " + text, start, end, 1.0) for text, start, end in understand(request.audio.samples))
            segment = Segment(0, 0, 0.0, request.audio.duration, "", (), 0.0, 0.0, 1.0, 0.0, words)
            yield Event(request, segment)
            yield Event(request, transcript=Transcript("", (segment,), request.options.language or "en"))
