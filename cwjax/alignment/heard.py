"""What was heard in a recording, in the form in which it is compared with a text."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cwjax.alignment.hearing import HeardWord, Interval
from cwjax.alignment.written import ends_phrase, written

LONGEST_CLOSURE = 0.105
"""Seconds of silence that there may be within a word, before a stop."""
FARTHEST, NEAR = 0.5, 0.12
"""Seconds by which the model may be wrong about the ends of words: where there is a pause, and where it is short."""
PHRASE_BONUS = 0.02
"""Seconds that a pause is rather where a mark of punctuation is."""
EARLY = 0.2
"""What a word that begins too early counts, of one that begins too late: the model looks ahead in pauses."""
_INSTANT, _FOREVER = 1e-6, 1e9
SHORTEST_WORD = 0.04
"""Seconds that are left to a word."""


@dataclass
class Heard:
    """The N words of a recording, cut as those of a text are.

    Attributes:
        plain: letters and digits of each.
        start, end: (N,) seconds.
        marked: (N,) bool, whether a mark of punctuation follows.
        pauses: (P, 2) seconds in which nothing sounds.
    """

    plain: list[str] = field(default_factory=list)
    start: np.ndarray = field(default_factory=lambda: np.zeros(0))
    end: np.ndarray = field(default_factory=lambda: np.zeros(0))
    marked: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    pauses: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.plain)

    def sounding(self, start: float, end: float) -> float:
        """Seconds between two times, without pauses."""
        times, sound = self._clock()
        return float(np.diff(np.interp([start, end], times, sound))[0])

    def shared(self, start: float, end: float, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends, (N,) seconds, of N words of so many characters between two times, around the pauses."""
        times, sound = self._clock()
        bounds = shared(*np.interp([start, end], times, sound), lengths)
        if bounds[-1] - bounds[0] < _INSTANT * len(bounds):
            bounds = shared(start, end, lengths)
            return bounds[:-1], bounds[1:]
        found = (
            np.interp(bounds[some] + side, sound, times)
            for some, side in ((slice(-1), _INSTANT), (slice(1, None), -_INSTANT))
        )
        starts, ends = (np.clip(one, start, end) for one in found)
        return starts, ends

    def _clock(self) -> tuple[np.ndarray, np.ndarray]:
        """Times, and how much sound there was until each."""
        lengths = np.diff(self.pauses).ravel()
        ends = np.cumsum(lengths)
        times = np.concatenate([[0.0], self.pauses.ravel(), [_FOREVER]])
        quiet = np.concatenate(
            [[0.0], np.stack([ends - lengths, ends], axis=1).ravel(), ends[-1:] if len(ends) else [0]]
        )
        return times, times - quiet


def heard(words: Sequence[HeardWord], pauses: Sequence[Interval]) -> Heard:
    """Words without marks, cut where those of a text are."""
    found = Heard(pauses=np.array(pauses).reshape(-1, 2))
    starts, ends, marked = [], [], []
    for word in words:
        pieces = written(word.text)
        if len(pieces):
            bounds = shared(word.start, word.end, pieces.lengths)
            found.plain.extend(pieces.plain)
            starts += bounds[:-1].tolist()
            ends += bounds[1:].tolist()
            marked += [ends_phrase(word.text[end - 1]) for end in pieces.ends.tolist()]
    found.start, found.end, found.marked = np.array(starts), np.array(ends), np.array(marked, bool)
    return found


def shared(start: float, end: float, lengths: np.ndarray) -> np.ndarray:
    """(N + 1,) seconds: a stretch of time shared by N words of so many characters."""
    return start + (end - start) * np.cumsum([0, *lengths]) / lengths.sum()


def put_pauses_between(times: np.ndarray, marked: np.ndarray, pauses: np.ndarray) -> None:
    """Moves the ends of words, (N, 2) in order of time, to the pauses, (P, 2), that are most likely between them.

    A pause belongs between the two words where the least sound changes hands, rather after a mark of punctuation, and
    of several between the same two the longest counts. One within a word may be the closure of a stop.
    """
    count = len(times)
    begins, ends = np.concatenate([times[:, 0], [np.inf]]), np.concatenate([[-np.inf], times[:, 1]])
    bonus = PHRASE_BONUS * np.concatenate([[False], marked])
    chosen: dict[int, tuple[float, float]] = {}
    for start, end in pauses.tolist():
        near = np.searchsorted(begins[:-1], [start - FARTHEST, end + FARTHEST])
        between = np.arange(max(near[0] - 1, 0), min(near[1] + 2, count + 1))
        early, late = np.maximum(0, start - begins[between]), np.maximum(0, ends[between] - end)
        is_sure = (end - start >= LONGEST_CLOSURE) | (bonus[between] > 0)
        allowed = np.maximum(early, late) <= np.where(is_sure, FARTHEST, NEAR)
        if not allowed.any():
            continue
        cost = np.where(allowed, EARLY * early + late - bonus[between], np.inf)
        place = int(between[np.argmin(cost)])
        if place not in chosen or end - start > chosen[place][1] - chosen[place][0]:
            chosen[place] = start, end
    for place, (start, end) in sorted(chosen.items()):
        fits_before = place == 0 or start - times[place - 1, 0] >= SHORTEST_WORD
        fits_after = place == count or times[place, 1] - end >= SHORTEST_WORD
        if fits_before and fits_after:
            if place > 0:
                times[place - 1, 1] = start
            if place < count:
                times[place, 0] = end
    np.maximum.accumulate(times.ravel(), out=times.ravel())
