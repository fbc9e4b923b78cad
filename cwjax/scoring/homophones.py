"""Words that sound the same: what a transcript has where one of them was said."""

from collections.abc import Iterator, Sequence

from cwjax.scoring.normalisers import plain_words
from cwjax.scoring.word_errors import AlignedPair, align


def decisions(
    reference: str, hypothesis: str, word: str, partner: str, language: str = ""
) -> Iterator[tuple[bool, bool]]:
    """Of each time that a word was said: whether it is there, and whether the word is there that sounds the same."""
    for said, heard in aligned(reference, hypothesis, language):
        if said == word:
            yield heard == word, heard == partner


def aligned(reference: str, hypothesis: str, language: str = "") -> Sequence[AlignedPair]:
    """Words of a transcript beside those that were said, as they are spelled: numbers stay as written."""
    return align(plain_words(reference, language), plain_words(hypothesis, language))


def pair_name(word: str, partner: str) -> str:
    """The same for both words: what is tried on a pair is one trial, however many voices and sentences say it."""
    return " / ".join(sorted((word, partner)))
