"""An article with word times -> segments of limited length with the text that is spoken in them.

Whole sentences are gathered until the longest duration is reached, and the audio is cut in the pauses.
Segments lie inside the spans of `cwjax.data.corpora.swc.word_times`, so their text is what is heard; those
that are too short, badly timed or implausibly fast or slow are rejected.
"""

import bisect
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.article import Article
from cwjax.data.corpora.swc.text import Tokens
from cwjax.data.corpora.swc.word_times import (
    Span,
    Words,
    estimate_times,
    find_spans,
    forget_bad_times,
    measured_range,
    read_words,
    speaking_rate,
)
from cwjax.data.segment import ContextMaterial, Segment, Utterance, latest_text
from cwjax.errors import CwjaxError

SHORTEST_UTTERANCE = 20  # ms, the grid of Whisper's timestamp tokens

_FOOTNOTE = re.compile(r" ?\[ ?(?:(?:[a-z.]{1,6} )?\d{1,3} ?|(?:edit|bearbeiten|bewerken)\b[^\[\]]*)\]", re.IGNORECASE)
_LEADING_MARKS = re.compile(r"^(?:[–—,;:|/→-]+\s+)+")
_PLAIN = {**dict.fromkeys("„“”«»", '"'), **dict.fromkeys("‚‘’‹›", "'"), **dict.fromkeys("[]↑", "")}
_TYPOGRAPHIC = re.compile(f"[{re.escape(''.join(_PLAIN))}]")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A stretch of speech that became no segment; `start` and `end` are seconds of the article."""

    reason: str
    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What an article gave.

    Attributes:
        segments: in the order of the article.
        rejected: stretches left out, with one of the reasons "duration" (too short), "too_long",
            "few_words", "no_letters", "edge" (words at a hole whose beginning or end was not measured), "coverage",
            "characters_per_second", and, for all of an article, "article_timed_ratio", "article_rate".
        holes: number of holes by kind: "file", "sent", "run", "short", "long".
        words: of the article's text, without ignored and guessed text.
        timed_words: those of them with times that are trusted.
        segment_words: those of them that lie in a segment.
        rate: median milliseconds per character; 0 if no word is timed.
    """

    segments: tuple[Segment, ...]
    rejected: tuple[Rejected, ...]
    holes: dict[str, int]
    words: int
    timed_words: int
    segment_words: int
    rate: float

    @property
    def dropped(self) -> dict[str, int]:
        """Number of stretches left out, by reason."""
        return dict(Counter(piece.reason for piece in self.rejected))


def segment_article(article: Article, settings: SegmentationSettings) -> Segmentation:
    """Cut an article into segments, each inside one audio file; deterministic.

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
    words = all_words.take(~all_words.is_extra)
    spans, holes = find_spans(words, rate, borders, settings)
    estimate_times(words, spans, rate)
    timed_words = int(np.count_nonzero(words.is_timed))

    maker = _SegmentMaker(article, all_words, words, borders, settings)
    fault = _article_fault(timed_words / max(1, len(words)), rate, settings)
    segments: list[Segment] = []
    rejected: list[Rejected] = []
    segment_words = 0
    for span in spans:
        begin, finish = measured_range(words, span)
        for edge in ((span[0], begin), (finish, span[1])):
            if edge[0] < edge[1]:
                text = " ".join(piece.text for piece in read_utterances(words, edge, article.tokens))
                start, end = _times(words, edge)
                rejected.append(Rejected("edge", start / 1000, end / 1000, text))
        previous, previous_end = "", -math.inf
        for packed in pack(words, (begin, finish), settings):
            utterances = read_utterances(words, packed, article.tokens)
            text = " ".join(utterance.text for utterance in utterances)
            start, end = _times(words, packed)
            reason = fault or _fault(words, packed, text, settings)
            if reason:
                rejected.append(Rejected(reason, start / 1000, end / 1000, text))
                previous = ""
                continue
            if start - previous_end >= settings.previous_gap * 1000:
                previous = ""
            segments.append(maker.make(packed, utterances, text, previous))
            segment_words += packed[1] - packed[0]
            previous = latest_text(f"{previous} {text}".strip(), settings.previous_characters)
            previous_end = end
    return Segmentation(tuple(segments), tuple(rejected), dict(holes), len(words), timed_words, segment_words, rate)


def clean_text(text: str) -> str:
    """Text as Whisper would write it: plain spaces and quotation marks, no footnote marks or [ ]."""
    text = " ".join(text.split())
    if "[" in text:
        text = _FOOTNOTE.sub("", text)
    text = _TYPOGRAPHIC.sub(lambda mark: _PLAIN[mark[0]], text)
    return _LEADING_MARKS.sub("", " ".join(text.split()))


def pack(words: Words, span: Span, settings: SegmentationSettings) -> Iterator[Span]:
    """As many whole sentences at a time as fit with their padding; one that alone does not is cut."""
    longest = (settings.max_duration - 2 * settings.pad) * 1000
    first, last = span
    while first < last:
        too_long = np.flatnonzero(words.end[first + 1 : last] - words.start[first] > longest)
        cut = _cut(words, first, first + 1 + int(too_long[0]), settings) if len(too_long) else last
        yield first, cut
        first = cut


def _cut(words: Words, first: int, fitting: int, settings: SegmentationSettings) -> int:
    """Where to cut words `first` to before `fitting`, the most that fits.

    After its last whole sentence; else in the last pause between two timed words, if that leaves
    enough; else between the last two timed words that adjoin; else after the last word.
    """
    cuts = np.arange(fitting, first, -1)
    sentence_ends = cuts[words.sentence[cuts - 1] != words.sentence[cuts]]
    if len(sentence_ends):
        return int(sentence_ends[0])
    is_timed = words.is_timed
    timed = cuts[is_timed[cuts - 1] & is_timed[cuts]]
    pause = words.start[timed] - words.end[timed - 1]
    duration = words.end[timed - 1] - words.start[first]
    pauses = timed[(pause >= settings.cut_pause * 1000) & (duration >= settings.min_duration * 1000)]
    last_choices = [places[0] for places in (pauses, timed) if len(places)]
    return int(last_choices[0]) if last_choices else fitting


def read_utterances(words: Words, span: Span, tokens: Tokens) -> list[Utterance]:
    """One utterance for each sentence or title; `start` and `end` are milliseconds of the article.

    A sentence too short for a timestamp joins the one before it.
    """
    utterances: list[Utterance] = []
    first, last = span
    new_sentences = np.flatnonzero(words.sentence[first + 1 : last] != words.sentence[first : last - 1]) + first + 1
    for begin, finish in pairwise([first, *new_sentences.tolist(), last]):
        text = clean_text(tokens.text(words.begin[begin], words.finish[finish - 1]))
        if not text:
            continue
        start, end = _times(words, (begin, finish))
        if utterances:
            latest = utterances[-1]
            start = max(start, latest.end)
            if min(end - start, latest.end - latest.start) < SHORTEST_UTTERANCE:
                utterances[-1] = Utterance(latest.start, max(latest.end, end), f"{latest.text} {text}")
                continue
        utterances.append(Utterance(start, end, text))
    return utterances


def _times(words: Words, span: Span) -> tuple[float, float]:
    """When the first of some words begins and the last one ends, in milliseconds of the article."""
    return float(words.start[span[0]]), float(words.end[span[1] - 1])


def _article_fault(timed_ratio: float, rate: float, settings: SegmentationSettings) -> str:
    if timed_ratio < settings.min_timed_ratio:
        return "article_timed_ratio"
    return "" if settings.min_rate <= rate <= settings.max_rate else "article_rate"


def _fault(words: Words, span: Span, text: str, settings: SegmentationSettings) -> str:
    """Why a segment is left out, or an empty string."""
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
    inside = slice(*span)
    characters, is_heard = words.characters[inside], ~np.isnan(words.heard_start[inside])
    timed = (characters - words.head[inside] - words.tail[inside]) @ is_heard
    if timed < settings.min_coverage * characters.sum():
        return "coverage"
    speed = len(text) / max(seconds, 0.001)
    if not settings.min_characters_per_second <= speed <= settings.max_characters_per_second:
        return "characters_per_second"
    return ""


class _SegmentMaker:
    """Makes the records of one article; what they share is computed once."""

    def __init__(
        self,
        article: Article,
        all_words: Words,
        words: Words,
        borders: Sequence[float],
        settings: SegmentationSettings,
    ) -> None:
        self._article = article
        self._words = words
        self._borders = borders
        self._pad = settings.pad * 1000
        self._sections: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._material = ContextMaterial(
            title=clean_text(article.title),
            lead=clean_text(article.lead),
            categories=article.categories,
            keywords=article.keywords,
        )
        # When the sound before each word ends and that after it begins; words outside spans and guessed ones sound too.
        places = np.flatnonzero(~all_words.is_extra)
        starts, ends = all_words.heard_start.copy(), all_words.heard_end.copy()
        starts[places] = np.where(np.isnan(words.start), words.heard_start, words.start)
        ends[places] = np.where(np.isnan(words.end), words.heard_end, words.end)
        latest_end = np.fmax.accumulate(np.append(-math.inf, ends))
        earliest_start = np.fmin.accumulate(np.append(starts, math.inf)[::-1])[::-1]
        # A neighbour in the same sentence, heard at an unknown time, most likely stands right beside the word.
        is_placed = np.append(~np.isnan(starts), True)
        goes_on = np.append(all_words.sentence[1:] == all_words.sentence[:-1], False)
        self._end_before = latest_end[places]
        beside = (~is_placed[places - 1]) & goes_on[places - 1] & (places > 0)
        self._end_before[beside] = np.maximum(self._end_before, words.start)[beside]
        self._start_after = earliest_start[places + 1]
        beside = (~is_placed[places + 1]) & goes_on[places]
        self._start_after[beside] = np.minimum(self._start_after, words.end)[beside]

    def _cleaned(self, titles: tuple[str, ...]) -> tuple[str, ...]:
        if titles not in self._sections:
            self._sections[titles] = tuple(map(clean_text, titles))
        return self._sections[titles]

    def make(self, span: Span, utterances: Sequence[Utterance], text: str, previous: str) -> Segment:
        """The audio is cut in the middle of the pauses around the words, at most `pad` away from them."""
        article, (first, finish) = self._article, span
        first_start, last_end = _times(self._words, span)
        part_number = bisect.bisect_right(self._borders, first_start)
        part = article.audio_parts[part_number]
        middle_before = (float(self._end_before[first]) + first_start) / 2
        middle_after = (float(self._start_after[finish - 1]) + last_end) / 2
        start = math.ceil(max(first_start - self._pad, middle_before, part.offset * 1000))
        end = math.floor(min(last_end + self._pad, middle_after, self._borders[part_number]))
        place = article.tokens.places[self._words.token[first]]

        def inside(time: float) -> float:
            return round(min(max(time, start), end) - start) / 1000

        return Segment(
            id=f"{article.identifier}/{round(first_start):08d}",
            article=article.identifier,
            audio=part.path,
            start=start / 1000,
            end=end / 1000,
            text=text,
            utterances=tuple(Utterance(inside(piece.start), inside(piece.end), piece.text) for piece in utterances),
            context=replace(
                self._material,
                section=self._cleaned(place.section),
                lead="" if place.is_lead else self._material.lead,
                previous=previous,
            ),
            language=article.language,
            speaker=article.reader_key,
            licence=article.licence,
            source=article.source,
        )
