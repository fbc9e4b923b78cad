"""Where two transcripts of the same sound differ, word by word."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from cwjax.evaluation.word_errors import normalise


@dataclass(frozen=True)
class Stretch:
    """Consecutive words of two transcripts that are either the same or stand in each other's place.

    Attributes:
        same: whether the words are equal but for case and punctuation.
        first, second: the places of the words in the first and in the second transcript; at most one is empty.
    """

    same: bool
    first: range
    second: range


def compare(first: Sequence[str], second: Sequence[str]) -> list[Stretch]:
    """Pairs the words of two transcripts at the least number of changes (Levenshtein distance)."""
    numbers: dict[str, int] = {}
    sentences = []
    for words in (first, second):
        # Numbers stand for words, as what one transcript writes as a word may hold spaces once it is normalised.
        names = (" ".join(normalise(word)) for word in words)
        sentences.append(" ".join(str(numbers.setdefault(name, len(numbers))) for name in names))
    if not first or not second:
        return [Stretch(False, range(len(first)), range(len(second)))] if first or second else []
    stretches: list[Stretch] = []
    for chunk in jiwer.process_words(*sentences).alignments[0]:
        same = chunk.type == "equal"
        one, other = range(chunk.ref_start_idx, chunk.ref_end_idx), range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if stretches and stretches[-1].same == same:
            one = range(stretches[-1].first.start, one.stop)
            other = range(stretches.pop().second.start, other.stop)
        stretches.append(Stretch(same, one, other))
    return stretches
