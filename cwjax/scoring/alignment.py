"""Alignments with a scorer's own costs and tie-breaks, for many pairs of sequences at once.

Error rates need no more than the least number of errors, and rapidfuzz counts it. Scorers that ask *which* words were
wrong depend on which of several equally good alignments is taken; here that is the scorer's choice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CELLS = 8_000_000
"""Costs that are kept at a time. Of longer sequences only some rows are kept, and the others are worked out twice."""
CLOSE = 1e-4
"""Costs nearer than this are the same."""

Cost = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of setting places of two sequences side by side: (pair, first place, second place), broadcast against each other."""


def align(lengths: np.ndarray, cost: Cost, gap: float, gap_in_first: bool) -> np.ndarray:
    """The cheapest alignment of each pair of sequences.

    Side by side is chosen before any gap, from the end to the beginning.

    Args:
        lengths: of both sequences of each pair, (B, 2) int.
        cost: of two elements side by side; called with places up to the longest sequences' ends.
        gap: cost of an element that stands alone.
        gap_in_first: whether, if both are cheapest, a gap in the first sequence (an insertion) is chosen before one in
            the second (a deletion).

    Returns:
        (S, B, 2) int: steps from the end to the beginning; each the places in the first and in the second sequence, -1
        for a gap. Pairs with fewer steps end with steps of two gaps.
    """
    pairs, (rows, columns) = np.arange(len(lengths)), lengths.max(axis=0, initial=0)
    across = gap * np.arange(columns + 1)
    places = np.arange(columns)

    def below(above: np.ndarray, row: int) -> np.ndarray:
        least = np.minimum(above[:, 1:] + gap, above[:, :-1] + cost(pairs[:, None], np.array(row), places[None]))
        least = np.concatenate([above[:, :1] + gap, least - across[1:]], axis=1)
        return np.minimum.accumulate(least, axis=1) + across  # gaps in the first sequence

    block = max(1, CELLS // max(1, len(lengths) * (columns + 1)))
    kept = [np.tile(across, (len(lengths), 1))]
    for start in range(0, rows - block, block):
        last = kept[-1]
        for row in range(start, start + block):
            last = below(last, row)
        kept.append(last)
    at, steps = lengths.copy(), []
    for start, first in reversed(list(zip(range(0, max(rows, 1), block), kept, strict=True))):
        costs = [first]
        for row in range(start, min(start + block, rows)):
            costs.append(below(costs[-1], row))
        table = np.stack(costs)
        while (active := (at[:, 0] > start) | ((start == 0) & (at[:, 1] > 0))).any():
            pair = pairs[active]
            row, column = at[active].T
            up, left = np.maximum(row - start - 1, 0), np.maximum(column - 1, 0)
            here = table[row - start, pair, column]
            beside = (row > 0) & (column > 0)
            beside &= np.abs(table[up, pair, left] + cost(pair, np.maximum(row - 1, 0), left) - here) < CLOSE
            inserted = (column > 0) & (np.abs(table[row - start, pair, left] + gap - here) < CLOSE)
            deleted = (row > 0) & (np.abs(table[up, pair, column] + gap - here) < CLOSE)
            inserted &= ~beside if gap_in_first else ~beside & ~deleted
            step = np.full_like(at, -1)
            step[pair[~inserted], 0] = row[~inserted] - 1
            chosen = beside | inserted
            step[pair[chosen], 1] = column[chosen] - 1
            at[pair] -= step[pair] >= 0
            steps.append(step)
    return np.array(steps, int).reshape(-1, len(lengths), 2)


@dataclass(frozen=True)
class Edits:
    """Alignments of pairs of texts, arrays (S, B) of steps.

    Attributes:
        row, column: places of the words; -1 for a gap.
        substituted, deleted, inserted, said: which steps are such; `said` those with a word of the first text.
    """

    row: np.ndarray
    column: np.ndarray
    substituted: np.ndarray
    deleted: np.ndarray
    inserted: np.ndarray
    said: np.ndarray

    def counts(self, among: np.ndarray | bool = True) -> np.ndarray:
        """Substitutions, deletions, insertions and words of the first text among some steps, (4, B)."""
        kinds = self.substituted, self.deleted, self.inserted, self.said
        return np.stack([(kind & among).sum(axis=0) for kind in kinds])


def edits(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[Sequence[str]],
    substitution: float,
    gap: float,
    gap_in_first: bool,
) -> Edits:
    """Aligns the words of at least one pair of texts; costs and ties as in `align`."""
    (said, heard), _ = numbered(references, hypotheses)
    said_words, heard_words = padded(said, -1), padded(heard, -2)

    def cost(pair: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return substitution * (said_words[pair, row] != heard_words[pair, column])

    row, column = np.moveaxis(align(sizes(said, heard), cost, gap, gap_in_first), -1, 0)
    both = (row >= 0) & (column >= 0)
    unequal = said_words[np.arange(len(said)), row] != heard_words[np.arange(len(said)), column]
    return Edits(row, column, both & unequal, (row >= 0) & ~both, (column >= 0) & ~both, row >= 0)


def sizes(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> np.ndarray:
    """Lengths of pairs of sequences, (B, 2)."""
    return np.array([[len(one), len(other)] for one, other in zip(first, second, strict=True)], int).reshape(-1, 2)


def padded(sequences: Sequence[Sequence[int]], filler: int) -> np.ndarray:
    """Sequences as rows of an array, (B, longest), at least one column."""
    array = np.full((len(sequences), max([1, *map(len, sequences)])), filler)
    for row, sequence in enumerate(sequences):
        array[row, : len(sequence)] = sequence
    return array


def numbered(*groups: Sequence[Iterable[str]]) -> tuple[list[list[list[int]]], list[str]]:
    """Words by numbers, the same in all groups of sequences; and the words by their numbers."""
    numbers: dict[str, int] = {}
    found = [[[numbers.setdefault(word, len(numbers)) for word in words] for words in group] for group in groups]
    return found, list(numbers)
