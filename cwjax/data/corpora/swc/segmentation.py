"""An article with word times -> its sentences, with the times at which they can be cut out of the audio.

Whole sentences are gathered until the longest duration is reached, and such a stretch is judged as one: those that are
too short, badly timed or implausibly fast or slow are rejected. They lie inside the spans of
`cwjax.data.corpora.swc.word_times`, so their text is what is heard.
"""

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

from cwjax.data.corpora.reader import Facts, Track, facts_of
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.article import Article
from cwjax.data.corpora.swc.text import Token, text_of
from cwjax.data.corpora.swc.word_times import (
    Span,
    Word,
    estimate_times,
    find_spans,
    forget_bad_times,
    measured_range,
    read_words,
    speaking_rate,
)
from cwjax.data.cuts import Supervision, TimedWord
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

SHORTEST_UTTERANCE = 20  # ms, the grid of Whisper's timestamp tokens

_FOOTNOTE = re.compile(r" ?\[ ?(?:(?:[a-z.]{1,6} )?\d{1,3} ?|(?:edit|bearbeiten|bewerken)\b[^\[\]]*)\]", re.IGNORECASE)
_LEADING_MARKS = re.compile(r"^(?:[–—,;:|/→-]+\s+)+")
_PLAIN = {**dict.fromkeys("„“”«»", '"'), **dict.fromkeys("‚‘’‹›", "'"), **dict.fromkeys("[]↑", "")}
_TYPOGRAPHIC = re.compile(f"[{re.escape(''.join(_PLAIN))}]")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A stretch of speech that is left out; `start` and `end` are seconds of the article."""

    reason: str
    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What an article gave.

    Attributes:
        tracks: the sentences and titles of every audio file that has any, as its supervisions.
        facts: about the article.
        rejected: stretches left out, with one of the reasons "duration" (too short), "too_long",
            "few_words", "no_letters", "edge" (words at a hole whose beginning or end was not measured), "coverage",
            "characters_per_second", and, for all of an article, "article_timed_ratio", "article_rate".
        holes: number of holes by kind: "file", "sent", "run", "short", "long".
        words: of the article's text, without ignored and guessed text.
        timed_words: those of them with times that are trusted.
        kept_words: those of them that lie in a supervision.
        rate: median milliseconds per character; 0 if no word is timed.
    """

    tracks: tuple[Track, ...]
    facts: Facts
    rejected: tuple[Rejected, ...]
    holes: dict[str, int]
    words: int
    timed_words: int
    kept_words: int
    rate: float

    @property
    def dropped(self) -> dict[str, int]:
        """Number of stretches left out, by reason."""
        return dict(Counter(piece.reason for piece in self.rejected))


def segment_article(article: Article, settings: SegmentationSettings) -> Segmentation:
    """Find the sentences of an article that can be cut out, each inside one audio file; deterministic.

    Raises CwjaxError if the offset of an audio file is unknown (see `cwjax.data.corpora.swc.article.with_durations`).
    """
    for part in article.audio_parts:
        if part.offset is None:
            raise CwjaxError(f"{part.path}: its offset is unknown; measure the article's audio files first")
    last = article.audio_parts[-1]
    audio_end = math.inf if last.duration is None else (last.offset + last.duration) * 1000
    borders = [*(part.offset * 1000 for part in article.audio_parts[1:]), audio_end]

    all_words = read_words(article.tokens)
    rate = speaking_rate(all_words)
    forget_bad_times(all_words, rate, borders, settings)
    words = [word for word in all_words if not word.is_extra]
    spans, holes = find_spans(words, rate, borders, settings)
    estimate_times(words, spans, rate)
    timed_words = sum(word.is_timed for word in words)

    maker = _SupervisionMaker(article, all_words, borders, settings)
    fault = _article_fault(timed_words / max(1, len(words)), rate, settings)
    found: list[list[Supervision]] = [[] for _ in article.audio_parts]
    rejected: list[Rejected] = []
    kept_words = 0

    def reject(reason: str, span: Span) -> None:
        text = " ".join(one.text for one in read_sentences(words, span, article.tokens))
        start, end = _times(words, span)
        rejected.append(Rejected(reason, start / 1000, end / 1000, text))

    for span in spans:
        begin, finish = measured_range(words, span)
        for edge in ((span[0], begin), (finish, span[1])):
            if edge[0] < edge[1]:
                reject("edge", edge)
        previous_end = -math.inf
        for packed in pack(words, (begin, finish), settings):
            sentences = read_sentences(words, packed, article.tokens)
            text = " ".join(one.text for one in sentences)
            if reason := fault or _fault(words, packed, text, settings):
                reject(reason, packed)
                previous_end = -math.inf
                continue
            for sentence in sentences:
                part = maker.part_of(sentence)
                is_gap = sentence.start - previous_end >= settings.previous_gap * 1000
                found[part].append(maker.make(sentence, part, is_gap and bool(found[part])))
                previous_end = sentence.end
            kept_words += packed[1] - packed[0]
    parts = zip(article.audio_parts, found, strict=True)
    tracks = tuple(Track(part.path, tuple(supervisions)) for part, supervisions in parts if supervisions)
    return Segmentation(tracks, maker.facts, tuple(rejected), dict(holes), len(words), timed_words, kept_words, rate)


@lru_cache(maxsize=1 << 14)
def clean_text(text: str) -> str:
    """Text as Whisper would write it: plain spaces and quotation marks, no footnote marks or [ ]."""
    text = " ".join(text.split())
    if "[" in text:
        text = _FOOTNOTE.sub("", text)
    text = _TYPOGRAPHIC.sub(lambda mark: _PLAIN[mark[0]], text)
    return _LEADING_MARKS.sub("", " ".join(text.split()))


def pack(words: Sequence[Word], span: Span, settings: SegmentationSettings) -> Iterator[Span]:
    """As many whole sentences at a time as fit with their padding; one that alone does not is cut."""
    longest = (settings.max_duration - 2 * settings.pad) * 1000
    first, last = span
    while first < last:
        ends = range(first + 1, last)
        too_long = next((place for place in ends if words[place].end - words[first].start > longest), None)
        cut = last if too_long is None else _cut(words, first, too_long, settings)
        yield first, cut
        first = cut


def _cut(words: Sequence[Word], first: int, fitting: int, settings: SegmentationSettings) -> int:
    """Where to cut words `first` to before `fitting`, the most that fits.

    After its last whole sentence; else in the last pause between two timed words, if that leaves
    enough; else between the last two timed words that adjoin; else after the last word.
    """
    between_timed = in_pause = None
    for cut in range(fitting, first, -1):
        before, after = words[cut - 1], words[cut]
        if before.sentence != after.sentence:
            return cut
        if before.is_timed and after.is_timed:
            is_pause = after.start - before.end >= settings.cut_pause * 1000
            is_enough = before.end - words[first].start >= settings.min_duration * 1000
            between_timed = between_timed or cut
            in_pause = in_pause or (cut if is_pause and is_enough else None)
    return in_pause or between_timed or fitting


class Sentence(NamedTuple):
    """A sentence or title, or a part of one: its first word and the one after the last, and the milliseconds of the
    article at which it begins and ends."""

    first: int
    last: int
    start: float
    end: float
    text: str


def read_sentences(words: Sequence[Word], span: Span, tokens: Sequence[Token]) -> list[Sentence]:
    """The sentences and titles of some words; one that is too short for a timestamp joins the one before it."""
    sentences: list[Sentence] = []
    finish = span[0]
    for _, group in groupby(words[slice(*span)], key=lambda word: word.sentence):
        begin, finish = finish, finish + len(list(group))
        text = clean_text(text_of(tokens[words[begin].begin : words[finish - 1].finish]))
        if not text:
            continue
        start, end = _times(words, (begin, finish))
        if sentences:
            latest = sentences[-1]
            start = max(start, latest.end)
            if min(end - start, latest.end - latest.start) < SHORTEST_UTTERANCE:
                both = f"{latest.text} {text}"
                sentences[-1] = Sentence(latest.first, finish, latest.start, max(latest.end, end), both)
                continue
        sentences.append(Sentence(begin, finish, start, end, text))
    return sentences


def _times(words: Sequence[Word], span: Span) -> tuple[float, float]:
    """When the first of some words begins and the last one ends, in milliseconds of the article."""
    return words[span[0]].start, words[span[1] - 1].end


def _article_fault(timed_ratio: float, rate: float, settings: SegmentationSettings) -> str:
    if timed_ratio < settings.min_timed_ratio:
        return "article_timed_ratio"
    return "" if settings.min_rate <= rate <= settings.max_rate else "article_rate"


def _fault(words: Sequence[Word], span: Span, text: str, settings: SegmentationSettings) -> str:
    """Why a stretch is left out, or an empty string."""
    start, end = _times(words, span)
    seconds = (end - start) / 1000
    if seconds < settings.min_duration:
        return "duration"
    if seconds > settings.max_duration - 2 * settings.pad:
        return "too_long"
    if span[1] - span[0] < settings.min_words:
        return "few_words"
    if not any(map(str.isalpha, text)):
        return "no_letters"
    inside = words[slice(*span)]
    timed = sum(word.characters - word.head - word.tail for word in inside if word.is_heard)
    if timed < settings.min_coverage * sum(word.characters for word in inside):
        return "coverage"
    speed = len(text) / max(seconds, 0.001)
    if not settings.min_characters_per_second <= speed <= settings.max_characters_per_second:
        return "characters_per_second"
    return ""


class _SupervisionMaker:
    """Makes the supervisions of one article; what they share is computed once."""

    def __init__(
        self, article: Article, all_words: Sequence[Word], borders: Sequence[float], settings: SegmentationSettings
    ) -> None:
        self._article = article
        self._words = [word for word in all_words if not word.is_extra]
        self._borders = borders
        self._pad = settings.pad * 1000
        self._sections: dict[tuple[str, ...], list[str]] = {}
        material = ContextMaterial(
            clean_text(article.title), (), clean_text(article.lead), article.categories, article.keywords
        )
        self.facts = facts_of(material, article.licence, article.source)
        # Until when something sounds before each word, and from when on after it. Words outside of spans and guessed
        # ones sound too; a neighbour in the same sentence without a time most likely stands right beside the word.
        self._end_before: list[float] = []
        self._start_after: list[float] = []
        latest, previous = -math.inf, None
        for word in all_words:
            if not word.is_extra:
                is_beside = previous and previous.known_start is None and previous.sentence == word.sentence
                self._end_before.append(max(latest, word.start) if is_beside and word.start is not None else latest)
            latest = latest if word.known_end is None else max(latest, word.known_end)
            previous = word
        earliest, following = math.inf, None
        for word in reversed(all_words):
            if not word.is_extra:
                is_beside = following and following.known_start is None and following.sentence == word.sentence
                self._start_after.append(min(earliest, word.end) if is_beside and word.end is not None else earliest)
            earliest = earliest if word.known_start is None else min(earliest, word.known_start)
            following = word
        self._start_after.reverse()

    def part_of(self, sentence: Sentence) -> int:
        """Number of the audio file in which a sentence is heard."""
        return bisect_right(self._borders, sentence.start)

    def make(self, sentence: Sentence, part_number: int, is_gap: bool) -> Supervision:
        """It may be cut in the middle of the pauses around it, at most `pad` away from its words."""
        article, part = self._article, self._article.audio_parts[part_number]
        middle_before = (self._end_before[sentence.first] + sentence.start) / 2
        middle_after = (self._start_after[sentence.last - 1] + sentence.end) / 2
        offset = part.offset * 1000
        start = math.ceil(max(sentence.start - self._pad, middle_before, offset))
        end = math.floor(min(sentence.end + self._pad, middle_after, self._borders[part_number]))
        place = article.tokens[self._words[sentence.first].token]
        custom: dict[str, Any] = {"article": article.identifier}
        if place.section:
            custom["section"] = self._cleaned(place.section)
        if place.is_lead and "lead" in self.facts:
            custom["lead"] = ""  # it would be the answer
        if is_gap:
            custom["gap_before"] = True
        begins, ends = round(start - offset) / 1000, round(end - offset) / 1000
        return Supervision(
            id=f"{article.identifier}/{round(sentence.start):08d}",
            start=begins,
            end=ends,
            text=sentence.text,
            speaker=article.reader_key,
            language=article.language,
            words=tuple(self._timed_words(sentence, offset, begins, ends)),
            custom=custom,
        )

    def _timed_words(self, sentence: Sentence, offset: float, begins: float, ends: float) -> Iterator[TimedWord]:
        """The words that are found in the text, in order; the score of one whose time is guessed is 0."""
        position = 0
        for word in self._words[sentence.first : sentence.last]:
            text = clean_text(text_of(self._article.tokens[word.begin : word.finish]))
            place = sentence.text.find(text, position)
            if text and place >= 0:
                position = place + len(text)
                start = min(max(round(word.start - offset) / 1000, begins), ends)
                end = min(max(round(word.end - offset) / 1000, begins), ends)
                yield TimedWord(text, start, end, None if word.is_timed else 0.0)

    def _cleaned(self, titles: tuple[str, ...]) -> list[str]:
        if titles not in self._sections:
            self._sections[titles] = [clean_text(title) for title in titles]
        return self._sections[titles]
