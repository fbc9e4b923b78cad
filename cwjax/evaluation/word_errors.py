"""Word error rate over a corpus, and the alignment of words behind it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

AlignedPair = tuple[str | None, str | None]
"""A reference word and what was heard for it; None where a word was inserted or deleted."""

_APOSTROPHES = str.maketrans("’‘`´", "''''")


@dataclass(frozen=True)
class WordErrors:
    """Counts of errors (Levenshtein distance over words), which add up over segments."""

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
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_words + other.reference_words,
        )


def normalise(text: str) -> list[str]:
    """Words of a text without case and punctuation.

    Hyphens divide words, apostrophes stay inside them. Words in brackets are kept: Whisper's own normaliser deletes
    them, but in read articles about one word in twenty stands in parentheses and is spoken.
    """
    plain = text.casefold().translate(_APOSTROPHES)
    words = re.findall(r"\w+(?:'\w+)*", plain.replace("_", " "))
    return words


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[AlignedPair]:
    """Pairs every reference word with the word heard for it, at the least number of errors."""
    if not reference:
        return [(None, word) for word in hypothesis]
    if not hypothesis:
        return [(word, None) for word in reference]
    output = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    pairs: list[AlignedPair] = []
    for chunk in output.alignments[0]:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "insert":
            pairs += [(None, word) for word in heard]
        elif chunk.type == "delete":
            pairs += [(word, None) for word in said]
        else:
            pairs += list(zip(said, heard, strict=True))
    return pairs


def count_errors(pairs: Sequence[AlignedPair]) -> WordErrors:
    """Errors among aligned pairs."""
    return WordErrors(
        substitutions=sum(said is not None and heard is not None and said != heard for said, heard in pairs),
        deletions=sum(heard is None for _, heard in pairs),
        insertions=sum(said is None for said, _ in pairs),
        reference_words=sum(said is not None for said, _ in pairs),
    )


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Errors of one transcript."""
    return count_errors(align(normalise(reference), normalise(hypothesis)))
