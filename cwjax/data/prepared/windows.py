"""Which supervisions are heard together: windows of whole supervisions that follow each other in a recording.

A *run* is a row of supervisions of one recording, speaker, language, article and split, between which nothing unknown
is said. A window lies in one run, is cut in the pauses beside its first and its last supervision, and holds the pauses
in between as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from cwjax.data.cuts import Supervision, TimedWord

CUT_PAUSE = 0.25
"""Seconds; where a supervision that is too long is cut first."""

_ROUNDING = 1e-6


class Runs:
    """Supervisions by whose times windows are drawn.

    Attributes:
        starts: place of the first supervision of every run, (runs,).

    Args:
        start, end: seconds of their recordings, (n,); neither falls within a run.
        begins: whether a supervision begins a run, (n,); the first does.
        tokens: of their texts, (n,); None: they do not count.
    """

    def __init__(self, start: np.ndarray, end: np.ndarray, begins: np.ndarray, tokens: np.ndarray | None = None):
        self.starts = np.flatnonzero(begins)
        self._count = len(start)
        self._run = np.cumsum(begins) - 1
        # One timeline for all runs, one after another.
        spans = end[self._ends - 1] - start[self.starts] if len(self.starts) else np.zeros(0)
        shift = np.cumsum(spans) - spans - start[self.starts]
        self._start, self._end = start + shift[self._run], end + shift[self._run]
        self._tokens = None if tokens is None else np.append(0, np.cumsum(tokens, dtype=np.int64))

    @property
    def _ends(self) -> np.ndarray:
        return np.append(self.starts[1:], self._count)

    def furthest(self, seconds: float | np.ndarray, tokens: int = 0, first: np.ndarray | None = None) -> np.ndarray:
        """Where the longest windows end that begin at `first`, or at every supervision: one after their last.

        A supervision that alone is longer than the limits is a window all the same.
        """
        first = np.arange(self._count) if first is None else first
        last = np.searchsorted(self._end, self._start[first] + seconds + _ROUNDING, "right")
        if self._tokens is not None:
            last = np.minimum(last, np.searchsorted(self._tokens, self._tokens[first] + tokens, "right") - 1)
        return np.maximum(first + 1, np.minimum(last, self._ends[self._run[first]]))

    def windows(self, furthest: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
        """Greedy windows: where each begins, ascending; it ends where the next begins, or with the last supervision.

        Args:
            furthest: as `furthest` gives it.
            first: where the first window of each run ends; None: where it is longest.
        """
        found, heads, ends = [self.starts], self.starts, self._ends
        heads = furthest[heads] if first is None else first
        while len(heads := heads[is_inside := heads < ends]):
            ends = ends[is_inside]
            found.append(heads)
            heads = furthest[heads]
        return np.sort(np.concatenate(found))


def gathered(said: Sequence[Supervision], seconds: float) -> list[Sequence[Supervision]]:
    """Supervisions of one recording and speaker in windows, as long as they may be."""
    start, end = (np.array([getattr(one, edge) for one in said]) for edge in ("start", "end"))
    begins = np.array([number == 0 or bool(one.custom.get("gap_before")) for number, one in enumerate(said)])
    runs = Runs(start, end, begins)
    return [said[first:last] for first, last in pairwise([*runs.windows(runs.furthest(seconds)).tolist(), len(said)])]


def divided(one: Supervision, seconds: float) -> list[Supervision]:
    """A supervision that is too long, cut between words into parts that are not; nothing if it cannot be.

    It is cut in the last pause that leaves a part of half of the window or more, else before the last word that is too
    much. The words must be found in the text in their order; where a time is guessed (score 0) nothing is cut.
    """
    places, position = [], 0
    for word in one.words:
        position = one.text.find(word.text, position)
        if position < 0:
            return []
        places.append(position)
        position += len(word.text)
    cuts, begins = [0], one.start
    while one.end - begins > seconds + _ROUNDING:
        chosen = _cut(one, places, cuts[-1], begins, seconds)
        if not chosen:
            return []
        cuts.append(chosen)
        begins = _middle(one.words, chosen)
    borders = [one.start, *(_middle(one.words, cut) for cut in cuts[1:]), one.end]
    text = [0, *(places[cut] for cut in cuts[1:]), len(one.text)]
    return [
        replace(
            one,
            start=borders[part],
            end=borders[part + 1],
            text=one.text[text[part] : text[part + 1]].strip(),
            words=one.words[first:last],
        )
        for part, (first, last) in enumerate(pairwise([*cuts, len(one.words)]))
    ]


def _cut(one: Supervision, places: Sequence[int], first: int, begins: float, seconds: float) -> int:
    """The word before which to cut, or 0."""
    words, adjoining = one.words, 0
    for number in range(len(words) - 1, first, -1):
        before, after = words[number - 1], words[number]
        between = one.text[places[number - 1] + len(before.text) : places[number]]
        is_known = 0 not in (before.score, after.score) and not any(map(str.isalnum, between))
        if is_known and begins < (middle := _middle(words, number)) <= begins + seconds:
            adjoining = adjoining or number
            if after.start - before.end >= CUT_PAUSE and middle - begins >= seconds / 2:
                return number
    return adjoining


def _middle(words: Sequence[TimedWord], number: int) -> float:
    """Seconds of the middle of the pause before a word."""
    return (words[number - 1].end + words[number].start) / 2
