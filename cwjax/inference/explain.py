"""Which words of the context each stretch of a recording attended to.

Legend: C layers with context attention, A audio positions (20 ms), S context tokens, W words, N columns of the map.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POSITIONS_PER_SECOND = 50
POSITIONS_PER_COLUMN = 5
"""A column of the map is the mean over 0.1 s."""
WORDS_KEPT = 12
"""Words of the context that are told apart in a window; the others are summed."""


@dataclass(frozen=True)
class ExplainedWindow:
    """What a window attended to.

    Attributes:
        start: seconds in the recording.
        words: places in `Explanation.words` of the words that mattered most, ascending.
        influence: (C, W, N) float32, of these words: lengths of what they added to the audio encoder's stream.
        others: (C, N) float32, of all other words and of tokens without a word.
    """

    start: float
    words: tuple[int, ...]
    influence: np.ndarray
    others: np.ndarray

    @property
    def end(self) -> float:
        """Seconds in the recording."""
        return self.start + self.others.shape[1] * COLUMN_SECONDS


COLUMN_SECONDS = POSITIONS_PER_COLUMN / POSITIONS_PER_SECOND


@dataclass(frozen=True)
class Explanation:
    """What a recording attended to, window by window.

    Attributes:
        context: what was said about the recording.
        words: of the context, as it writes them.
        layers: of the audio encoder that have context attention.
        windows: in order of time, without overlap.
    """

    context: str
    words: tuple[str, ...]
    layers: tuple[int, ...]
    windows: tuple[ExplainedWindow, ...]


def explain_window(
    start: float, positions: int, contributions: np.ndarray, owners: Sequence[int], word_count: int
) -> ExplainedWindow:
    """Sums the contributions of tokens to those of words, and averages them over columns of time.

    Args:
        start: seconds in the recording.
        positions: that count, from the window's beginning; what follows belongs to the next window.
        contributions: (C, A, S) from `AudioEncoder.context_contributions`.
        owners: (S,) the word each token is a part of, -1: none.
        word_count: words of the context.
    """
    columns = -(-positions // POSITIONS_PER_COLUMN)
    edges = np.arange(0, positions, POSITIONS_PER_COLUMN)
    widths = np.diff([*edges, positions])
    by_column = np.add.reduceat(contributions[:, :positions].astype(np.float32), edges, axis=1) / widths[:, None]
    by_word = np.zeros((word_count + 1, len(contributions), columns), np.float32)
    np.add.at(by_word, np.asarray(owners), by_column.transpose(2, 0, 1))  # -1 is the last row
    totals = (by_word[:-1].sum(axis=1) * widths).sum(axis=1)
    chosen = np.sort(np.argsort(-totals, kind="stable")[:WORDS_KEPT])
    rest = np.setdiff1d(np.arange(word_count + 1), chosen)
    return ExplainedWindow(start, tuple(map(int, chosen)), by_word[chosen].swapaxes(0, 1), by_word[rest].sum(axis=0))


def split_words(text: str) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """The words of a text, and the places of their characters."""
    matches = list(re.finditer(r"\S+", text))
    return tuple(match.group() for match in matches), [match.span() for match in matches]
