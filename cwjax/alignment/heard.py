"""What was heard in a recording, in the form in which it is compared with a text."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cwjax.alignment.hearing import HeardWord, Interval
from cwjax.alignment.written import plain, written

LONGEST_ONSET = 0.3
"""Seconds that a word may begin after a pause, or end before one, by the model and not by the sound."""


@dataclass
class Heard:
    """The N words of a recording, cut as those of a text are.

    Attributes:
        plain: letters and digits of each.
        start, end: (N,) seconds, corrected by the pauses.
        pauses: (P, 2) seconds in which nothing sounds.
    """

    plain: list[str] = field(default_factory=list)
    start: np.ndarray = field(default_factory=lambda: np.zeros(0))
    end: np.ndarray = field(default_factory=lambda: np.zeros(0))
    pauses: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.plain)

    def sounding(self, start: float, end: float) -> float:
        """Seconds between two times, without pauses."""
        lengths = np.diff(self.pauses).ravel()
        ends = np.cumsum(lengths)
        times = np.concatenate([[0.0], self.pauses.ravel()])
        quiet = np.concatenate([[0.0], np.stack([ends - lengths, ends], axis=1).ravel()])
        return end - start - float(np.diff(np.interp([start, end], times, quiet))[0])


def heard(words: Sequence[HeardWord], pauses: Sequence[Interval]) -> Heard:
    """Words without marks, cut where those of a text are, and without pauses in their times."""
    said = [word for word in words if plain(word.text)]
    times = np.array([(word.start, word.end) for word in said]).reshape(-1, 2)
    quiet = np.array(pauses).reshape(-1, 2)
    _keep_out_of_pauses(times, quiet)
    forms, starts, ends = [], [], []
    for word, (start, end) in zip(said, times.tolist(), strict=True):
        pieces = written(word.text)
        bounds = shared(start, end, pieces.lengths)
        forms += pieces.plain
        starts += bounds[:-1].tolist()
        ends += bounds[1:].tolist()
    return Heard(forms, np.array(starts), np.array(ends), quiet)


def shared(start: float, end: float, lengths: np.ndarray) -> np.ndarray:
    """(N + 1,) seconds: a stretch of time shared by N words of so many characters."""
    return start + (end - start) * np.cumsum([0, *lengths]) / lengths.sum()


def _keep_out_of_pauses(times: np.ndarray, pauses: np.ndarray) -> None:
    """Moves beginnings and ends of words, (N, 2), to where the sound begins and ends."""
    begins, ends = pauses.T
    previous = 0.0
    for place, (start, end) in enumerate(times.tolist()):
        for pause in range(np.searchsorted(ends, start, "right"), np.searchsorted(begins, end, "left")):
            before, after = begins[pause] - start, end - ends[pause]
            if before > max(after, 0):
                end = min(end, begins[pause])
                break
            start = max(start, ends[pause]) if after > 0 else start
        pause = np.searchsorted(ends, start, "right") - 1
        if pause >= 0 and start - ends[pause] < LONGEST_ONSET and ends[pause] >= previous:
            start = ends[pause]
        following = times[place + 1, 0] if place + 1 < len(times) else np.inf
        pause = np.searchsorted(begins, end, "left")
        if pause < len(begins) and begins[pause] - end < LONGEST_ONSET and begins[pause] <= following:
            end = begins[pause]
        start = max(start, previous)
        times[place] = start, max(end, start)
        previous = times[place, 1]
