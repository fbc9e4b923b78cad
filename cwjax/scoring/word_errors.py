"""Word and character error rates (Levenshtein distance), and where in the reference the errors are."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

AlignedPair = tuple[str | None, str | None]
"""A reference word and what was heard for it; None where a word was inserted or deleted."""


@dataclass(frozen=True)
class WordErrors:
    """Counts of errors, which add up over segments."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_words: int = 0

    @property
    def rate(self) -> float:
        """Errors per reference word; 0 for nothing said and nothing heard, above 1 where much was invented."""
        errors = self.substitutions + self.deletions + self.insertions
        return errors / max(self.reference_words, 1)

    def __add__(self, other: "WordErrors") -> "WordErrors":
        return WordErrors(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[AlignedPair]:
    """Pairs every reference word with the word heard for it, at the least number of errors."""
    pairs: list[AlignedPair] = []
    for kind, first, end, heard_first, heard_end in Levenshtein.opcodes(reference, hypothesis):
        said, heard = reference[first:end], hypothesis[heard_first:heard_end]
        if kind == "insert":
            pairs += [(None, word) for word in heard]
        elif kind == "delete":
            pairs += [(word, None) for word in said]
        else:
            pairs += zip(said, heard, strict=True)
    return pairs


def count_errors(pairs: Sequence[AlignedPair]) -> WordErrors:
    """Errors among aligned pairs."""
    return WordErrors(
        substitutions=sum(said is not None and heard is not None and said != heard for said, heard in pairs),
        deletions=sum(heard is None for _, heard in pairs),
        insertions=sum(said is None for said, _ in pairs),
        reference_words=sum(said is not None for said, _ in pairs),
    )


def errors_by_place(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[WordErrors, np.ndarray]:
    """Errors of one transcript: their counts, and how many there are at each reference word.

    Returns:
        The second (n + 1,) int32: at each of n words its own error and what was inserted before it; the last is what
        was inserted behind them all.
    """
    places = np.zeros(len(reference) + 1, np.int32)
    count = {"replace": 0, "delete": 0, "insert": 0}
    for edit in Levenshtein.editops(reference, hypothesis):
        count[edit.tag] += 1
        places[edit.src_pos] += 1
    return WordErrors(count["replace"], count["delete"], count["insert"], len(reference)), places
