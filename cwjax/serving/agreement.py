"""Text of sound that goes on, of which nothing is ever taken back: LocalAgreement-2 (Liu et al. 2020; Macháček et al.
2023).

The sound so far is transcribed again and again. Words on which two transcripts in a row agree are told, once the later
one has more after them.
"""

from collections.abc import Sequence
from itertools import takewhile


class Agreement:
    """What the transcripts of a growing piece of sound agree on.

    Attributes:
        said: words that have been told.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self._likely: list[str] = []  # words of the last transcript after those

    def hear(self, words: Sequence[str]) -> list[str]:
        """Takes the next transcript; gives the words that it tells."""
        rest = words[place_after(self.said, words) :]
        pairs = zip(rest[:-1], self._likely, strict=False)  # the last word may be cut off
        agreed = [word for word, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
        self.said += agreed
        self._likely = rest[len(agreed) :]
        return agreed

    def end(self, words: Sequence[str]) -> list[str]:
        """Takes the last transcript; gives what it has beyond what was told."""
        return list(words[place_after(self.said, words) :])


def place_after(said: Sequence[str], words: Sequence[str]) -> int:
    """How many of the words say what was said before: those of the smallest edit distance, for a transcript may have
    changed its mind about a word that was told."""
    if words[: len(said)] == said:
        return len(said)
    costs = list(range(len(words) + 1))
    for number, one in enumerate(map(_plain, said), 1):
        row = [number]
        for place, other in enumerate(map(_plain, words)):
            row.append(min(costs[place] + (one != other), costs[place + 1] + 1, row[place] + 1))
        costs = row
    return min(range(len(costs)), key=lambda place: (costs[place], abs(place - len(said))))


def _plain(word: str) -> str:
    """A word without case and the marks around it."""
    return "".join(filter(str.isalnum, word.casefold())) or word
