"""Times of words, from the alignment of their tokens.

Splitting, the merging of punctuation and the correction of words that are improbably long are openai-whisper's
(openai/whisper, timing.py and tokenizer.py).
"""

import itertools
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cwjax.data.whisper_tokens import WhisperTokens
from cwjax.inference.alignment import Alignment, warp
from cwjax.inference.segments import Draft
from cwjax.inference.transcript import Word

SPACELESS = ("zh", "ja", "th", "lo", "my", "yue")
"""Languages written without spaces: every character that tokens make up is a word."""
SENTENCE_ENDS = ".。!！?？"
INVALID = "\ufffd"
POSITIONS_PER_SECOND = 50
"""Audio positions, which the weights of an alignment are about."""
LONGEST_MEDIAN = 0.7
"""Seconds; the median length of a window's words is believed up to this."""


@dataclass
class TimedWord:
    """A word within a window.

    Attributes:
        text: with the space before it.
        tokens: how many.
        start, end: seconds in the window.
        probability: mean probability of its tokens.
    """

    text: str
    tokens: int
    start: float
    end: float
    probability: float


def split_into_words(tokens: Sequence[int], vocabulary: WhisperTokens, language: str) -> list[tuple[str, int]]:
    """The words that text tokens make up: their texts, and how many tokens each has."""
    characters = _split_into_characters(tokens, vocabulary)
    if language in SPACELESS:
        return characters
    words: list[tuple[str, int]] = []
    for text, count in characters:
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append((text, count))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + count)
    return words


def _split_into_characters(tokens: Sequence[int], vocabulary: WhisperTokens) -> list[tuple[str, int]]:
    """The shortest stretches of tokens that are whole characters."""
    whole = vocabulary.text(tokens)
    parts: list[tuple[str, int]] = []
    pending: list[int] = []
    reached = 0
    for token in tokens:
        pending.append(token)
        text = vocabulary.text(pending)
        # A replacement character is unfinished, unless the whole text has one at the same place.
        place = reached + text.find(INVALID)
        if INVALID not in text or (place < len(whole) and whole[place] == INVALID):
            parts.append((text, len(pending)))
            reached += len(text)
            pending = []
    return parts


def time_words(
    tokens: Sequence[int], alignment: Alignment, vocabulary: WhisperTokens, language: str
) -> list[TimedWord]:
    """The words of a window's text with their times.

    Args:
        tokens: of the text.
        alignment: of those tokens.
        vocabulary: knows their texts.
        language: code.
    """
    words = split_into_words(tokens[: len(alignment.probabilities)], vocabulary, language)
    if not words:
        return []
    times = warp(alignment.weights) / POSITIONS_PER_SECOND
    bounds = np.cumsum([0, *(count for _, count in words)])
    return [
        TimedWord(text, count, float(times[first]), float(times[last]), float(np.mean(probabilities)))
        for (text, count), first, last, probabilities in zip(
            words, bounds[:-1], bounds[1:], np.split(alignment.probabilities.astype(float), bounds[1:-1]), strict=True
        )
    ]


def add_words(
    drafts: Sequence[Draft],
    words: list[TimedWord],
    counts: Sequence[int],
    began: float,
    last_speech: float,
    prepended: str,
    appended: str,
) -> None:
    """Gives each segment its words, and both of them times that agree.

    Args:
        drafts: the segments of a window, changed in place.
        words: of all of them, changed in place.
        counts: text tokens of each segment.
        began: seconds in the recording where the window begins.
        last_speech: seconds in the recording where the last word before the window ended.
        prepended: marks that belong to the word after them.
        appended: marks that belong to the word before them.
    """
    durations = [word.end - word.start for word in words if word.end != word.start]
    median = min(LONGEST_MEDIAN, float(np.median(durations))) if durations else 0.0
    if durations:
        _shorten_at_sentence_ends(words, 2 * median)
    merge_punctuation(words, prepended, appended)
    remaining = iter(words)
    for draft, wanted in zip(drafts, counts, strict=True):
        taken = []
        missing = wanted
        while missing > 0 and (word := next(remaining, None)) is not None:
            missing -= word.tokens
            if word.text:
                times = round(began + word.start, 2), round(began + word.end, 2)
                taken.append(TimedWord(word.text, word.tokens, *times, word.probability))
        if taken:
            _shorten_after_pause(taken, median, last_speech)
            _agree(draft, taken, median)
            last_speech = draft.end
        draft.words = [Word(word.text, word.start, word.end, word.probability) for word in taken]


def merge_punctuation(words: Sequence[TimedWord], prepended: str, appended: str) -> None:
    """Joins marks with the words they belong to; what was merged is left without text and tokens."""
    following = len(words) - 1
    for place in range(len(words) - 2, -1, -1):
        mark, word = words[place], words[following]
        if mark.text.startswith(" ") and mark.text.strip() in prepended:
            word.text, word.tokens = mark.text + word.text, mark.tokens + word.tokens
            mark.text, mark.tokens = "", 0
        else:
            following = place
    previous = 0
    for place in range(1, len(words)):
        word, mark = words[previous], words[place]
        if not word.text.endswith(" ") and mark.text in appended:
            word.text, word.tokens = word.text + mark.text, word.tokens + mark.tokens
            mark.text, mark.tokens = "", 0
        else:
            previous = place


def _shorten_at_sentence_ends(words: Sequence[TimedWord], longest: float) -> None:
    """A mark that ends a sentence, and the word after it, take in the pause between sentences."""
    for before, word in itertools.pairwise(words):
        if word.end - word.start > longest:
            if word.text in SENTENCE_ENDS:
                word.end = word.start + longest
            elif before.text in SENTENCE_ENDS:
                word.start = word.end - longest


def _shorten_after_pause(words: Sequence[TimedWord], median: float, last_speech: float) -> None:
    """The first two words of a segment take in the pause before it."""
    first, longest = words[0], 2 * median
    second = words[1] if len(words) > 1 else None
    if first.end - last_speech <= 2 * longest:
        return
    if first.end - first.start > longest or (second and second.end - first.start > 2 * longest):
        if second and second.end - second.start > longest:
            first.end = second.start = max(second.end / 2, second.end - longest)
        first.start = max(0, first.end - longest)


def _agree(draft: Draft, words: Sequence[TimedWord], median: float) -> None:
    """The segment begins and ends with its words, unless a word reaches half a second beyond it."""
    first, last = words[0], words[-1]
    if draft.start < first.end and draft.start - 0.5 > first.start:
        first.start = max(0, min(first.end - median, draft.start))
    else:
        draft.start = first.start
    if draft.end > last.start and draft.end + 0.5 < last.end:
        last.end = max(last.start + median, draft.end)
    else:
        draft.end = last.end
