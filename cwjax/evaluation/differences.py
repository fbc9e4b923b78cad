"""Where two transcripts of the same sound differ, word by word."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from cwjax.scoring.normalisers import plain_words


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
    """Pairs the words of two transcripts so that long stretches are the same, as people would."""
    plain = [[" ".join(plain_words(word)) for word in words] for words in (first, second)]
    codes = difflib.SequenceMatcher(None, *plain, autojunk=False).get_opcodes()
    return [Stretch(kind == "equal", range(*places[:2]), range(*places[2:])) for kind, *places in codes]
