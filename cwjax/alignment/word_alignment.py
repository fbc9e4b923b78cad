"""Words heard against words of the text between two places that are known, by how alike they are spelt.

One word may be heard as several and several as one ("every one", "everyone"). Needleman and Wunsch 1970, with pairs of
words that are more or less alike, up to three against one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

SHAPES = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1))
"""How many words heard may stand for how many of the text."""
UNLIKE = 0.9
"""What a pair of words costs; it gains twice its likeness, of 0..1."""
LEFT_OUT = 0.5
"""What a word without a partner costs. Two such cost more than an unlike pair: most are misheard."""
ONE_OF_MORE = 0.15
"""What each word more than a pair costs."""


class Match(NamedTuple):
    """Words `heard` to before `heard_end` are words `text` to before `text_end`, alike by a share of 0..1."""

    heard: int
    heard_end: int
    text: int
    text_end: int
    likeness: float


def align(heard: Sequence[str], text: Sequence[str], open_end: bool = False, open_begin: bool = False) -> list[Match]:
    """The best matches, ascending.

    Args:
        heard, text: words in plain letters.
        open_end, open_begin: the last, or the first, are not known to go together: matches end, or begin, where they
            are worth most.
    """
    rows, columns = len(heard), len(text)
    if open_begin:
        reversed_words = [[word[::-1] for word in words[::-1]] for words in (heard, text)]
        return [
            Match(rows - heard_end, rows - first, columns - text_end, columns - word, likeness)
            for first, heard_end, word, text_end, likeness in reversed(align(*reversed_words, open_end=True))
        ]
    if not rows or not columns:
        return []
    gains = [_gains(heard, text, *shape) for shape in SHAPES]
    best = np.zeros((rows + 1, columns + 1)).tolist()
    came = np.full((rows + 1, columns + 1), -1).tolist()  # a shape, or one of the two below
    for row in range(rows + 1):
        here = best[row]
        above = best[row - 1] if row else here
        for column in range(columns + 1):
            if not row and not column:
                continue
            value, way = -np.inf, _HEARD_ONLY
            if row:
                value = above[column] - LEFT_OUT
            if column and here[column - 1] - LEFT_OUT > value:
                value, way = here[column - 1] - LEFT_OUT, _TEXT_ONLY
            if row and column:
                for number, (some, others) in enumerate(SHAPES):
                    if row >= some and column >= others:
                        total = best[row - some][column - others] + gains[number][row - some][column - others]
                        if total > value:
                            value, way = total, number
            here[column], came[row][column] = value, way
    row, column = rows, columns
    if open_end:
        row, column = divmod(int(np.argmax(best)), columns + 1)
    matches = []
    while row or column:
        way = came[row][column]
        if way == _HEARD_ONLY:
            row -= 1
        elif way == _TEXT_ONLY:
            column -= 1
        else:
            some, others = SHAPES[way]
            row, column = row - some, column - others
            gain = gains[way][row][column]
            likeness = (gain + UNLIKE + ONE_OF_MORE * (some + others - 2)) / 2
            matches.append(Match(row, row + some, column, column + others, likeness))
    return matches[::-1]


_HEARD_ONLY, _TEXT_ONLY = len(SHAPES), len(SHAPES) + 1


def _gains(heard: Sequence[str], text: Sequence[str], some: int, others: int) -> list[list[float]]:
    joined = ["".join(heard[place : place + some]) for place in range(len(heard) - some + 1)]
    parts = ["".join(text[place : place + others]) for place in range(len(text) - others + 1)]
    if not joined or not parts:
        return []
    likeness = cdist(joined, parts, scorer=Indel.normalized_similarity, dtype=np.float64)
    return (2 * likeness - UNLIKE - ONE_OF_MORE * (some + others - 2)).tolist()
