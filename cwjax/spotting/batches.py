"""Batches for a phrase spotter: slices of windows, phrases said in them, and words that look much like these."""

import random
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from cwjax.models.phrase_spotter import normalized, read_letters
from cwjax.spotting.states import EncodedWindow

POSITIONS_PER_SECOND = 50

_SOUNDS = {
    **{"tsch": "C", "tch": "C", "sch": "S", "sh": "S", "ck": "k", "ch": "k", "th": "t", "ph": "f", "qu": "kf"},
    **{"x": "ks", "c": "k", "q": "k", "z": "s", "w": "f", "v": "f", "y": "i", "j": "i", "d": "t", "b": "p", "g": "k"},
    **{"h": ""},
}
"""Letters that some voice of some accent speaks alike, in the order in which they are looked for."""


@dataclass(frozen=True)
class BatchSettings:
    """What is in a batch.

    Attributes:
        slices: of windows.
        slice_seconds: length of each.
        phrases: said in each slice.
    """

    slices: int = 24
    slice_seconds: float = 6.0
    phrases: int = 5


class Batch(NamedTuple):
    """S slices and P phrases.

    Attributes:
        states: (S, A, W) float16.
        ids, lengths: letters of the phrases, (P, N) and (P,).
        said: (S, P) bool.
        unknown: (S, P) bool, where it cannot be told or does not matter whether a phrase is said.
    """

    states: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    said: np.ndarray
    unknown: np.ndarray


def batches(
    windows: Sequence[EncodedWindow], words: tuple[str, ...], settings: BatchSettings, rows: int, seed: int
) -> Iterator[Batch]:
    """Batches without end, made ahead in a thread; `rows` are those of the letters' embedding."""
    chance = random.Random(seed)
    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(make_batch, windows, words, settings, rows, chance) for _ in range(3))
        while True:
            ahead.append(pool.submit(make_batch, windows, words, settings, rows, chance))
            yield ahead.popleft().result()


def make_batch(
    windows: Sequence[EncodedWindow],
    words: tuple[str, ...],
    settings: BatchSettings,
    rows: int,
    chance: random.Random,
) -> Batch:
    """A batch of slices of some of the windows; `words` are those that may look like what is said in them."""
    longest = chance.choices((12, 18, 32), (5, 3, 2))[0]
    length = round(settings.slice_seconds * POSITIONS_PER_SECOND)
    slices, phrases = [], {}
    for _ in range(settings.slices):
        states, whole, partly = _slice(chance.choice(windows), length, chance)
        said = [phrase for _, known in whole for phrase in known]
        said = chance.sample(said, min(len(said), settings.phrases - 2))
        texts = [text for text, _ in whole]
        said += [_stretch(text, chance) for text in chance.choices(texts, k=2)] if texts else []
        phrases.update(dict.fromkeys(phrase for phrase in map(normalized, said) if 3 <= len(phrase) <= longest))
        slices.append((states, said_words(texts), said_words([*texts, *partly])))
    alike = (normalized(look_alike(phrase, words, chance)) for phrase in list(phrases))
    phrases.update(dict.fromkeys(phrase for phrase in alike if 3 <= len(phrase) <= longest))
    listed = list(phrases) or ["nothing"]
    count = 2 * settings.slices * settings.phrases
    ids, lengths = read_letters(listed, rows)
    ids = np.pad(ids, ((0, count - len(listed)), (0, 32)))[:, :longest]
    lengths = np.pad(lengths, (0, count - len(listed)), constant_values=1)
    said = np.zeros((settings.slices, count), bool)
    unknown = np.ones_like(said)  # as are the phrases that fill up
    for row, (_, whole, near) in enumerate(slices):
        joined = near.replace(" ", "")
        for column, phrase in enumerate(listed):
            said[row, column] = f" {phrase} " in whole
            unknown[row, column] = not said[row, column] and phrase.replace(" ", "") in joined
    return Batch(np.stack([states for states, *_ in slices]), ids, lengths, said, unknown)


def _slice(window: EncodedWindow, length: int, chance: random.Random) -> tuple[np.ndarray, list, list[str]]:
    """States of a stretch, the sentences wholly in it with their phrases, and those partly in it."""
    positions = len(window.states)
    length = min(length, positions)
    if window.sentences:
        start = chance.choice(window.sentences).start - chance.uniform(0.0, 0.4)
        first = min(max(0, int(start * POSITIONS_PER_SECOND)), positions - length)
    else:
        first = chance.randrange(positions - length + 1)
    begin, end = first / POSITIONS_PER_SECOND, (first + length) / POSITIONS_PER_SECOND
    near = [one for one in window.sentences if one.end > begin and one.start < end]
    whole = [one for one in near if one.start >= begin and one.end <= end]
    partly = [one.text for one in near if one not in whole]
    return window.states[first : first + length], [(one.text, one.phrases) for one in whole], partly


def said_words(texts: Any) -> str:
    """Normalised words of texts between single spaces; a mark stands between texts."""
    return "".join(f" | {' '.join(_plain(normalized_word) for normalized_word in text.split())} " for text in texts)


def _plain(word: str) -> str:
    return normalized(re.sub(r"^\W+|\W+$", "", word))


def _stretch(text: str, chance: random.Random) -> str:
    words = [_plain(word) for word in text.split()]
    first = chance.randrange(len(words))
    return " ".join(words[first : first + chance.choice((1, 1, 2, 3))])


def look_alike(phrase: str, words: tuple[str, ...], chance: random.Random) -> str:
    """A phrase with one word in the place of another that is written much like it and sounds different."""
    parts = phrase.split()
    place = chance.randrange(len(parts))
    parts[place] = chance.choice(look_alikes(parts[place], words))
    return " ".join(parts)


@lru_cache(maxsize=200_000)
def look_alikes(word: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Up to four of the words nearest in letters, without those that may be spoken alike."""
    chance = random.Random(word)
    some = [one.casefold() for one in chance.sample(words, min(len(words), 3000))]
    near = process.extract(word, some, scorer=Levenshtein.distance, limit=6)
    others = (found for found, distance, _ in near if distance > 2 or not _sound_alike(word, found))
    return tuple(islice(others, 4)) or (chance.choice(some),)


def _sound_alike(word: str, other: str) -> bool:
    """Whether two words may be spoken alike: all but their vowels and what letters share sounds is the same."""
    return _skeleton(word) == _skeleton(other)


@lru_cache(maxsize=200_000)
def _skeleton(word: str) -> str:
    plain = "".join(letter for letter in normalized(word) if letter.isalpha())
    for letters, sound in _SOUNDS.items():
        plain = plain.replace(letters, sound)
    return re.sub(r"(.)\1+", r"\1", plain[:1] + re.sub("[aeiou]", "", plain[1:]))
