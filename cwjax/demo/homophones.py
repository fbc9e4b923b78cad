"""Pairs of words that sound the same, and what a recording about each of them is called (`homophones.toml`)."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from cwjax.data.prepared.splits import SPLITS

HOMOPHONES_FILE = "homophones.json"
"""At the root of a corpus about such pairs: which word each of its articles is about."""


@dataclass(frozen=True)
class Wordings:
    """Ways to name one topic: titles of two to eight words, leads of one short sentence."""

    titles: tuple[str, ...]
    leads: tuple[str, ...]


@dataclass(frozen=True)
class Homophone:
    """A word, the word that sounds like it, and the wordings of its topic for each split."""

    word: str
    partner: str
    wordings: dict[str, Wordings]


@dataclass(frozen=True)
class HomophonePairs:
    """The pairs, and the carrier sentences ("{word}" marks the place) that fit all of their words."""

    pairs: tuple[tuple[Homophone, Homophone], ...]
    carriers: tuple[str, ...]


def read_homophones() -> HomophonePairs:
    """The collection that comes with the package."""
    content = tomllib.loads((Path(__file__).parent / "homophones.toml").read_text(encoding="utf-8"))
    carriers = tuple(content.pop("carriers"))
    words = {
        word: Homophone(
            word,
            entry["partner"],
            {split: Wordings(tuple(entry[split]["titles"]), tuple(entry[split]["leads"])) for split in SPLITS},
        )
        for word, entry in content.items()
    }
    ordered = list(words.values())
    return HomophonePairs(tuple(zip(ordered[::2], ordered[1::2], strict=True)), carriers)
