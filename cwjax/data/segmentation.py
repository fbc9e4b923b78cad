"""An article with word times -> segments of limited length with the text that is spoken in them.

Whole sentences are gathered until the longest duration is reached, and the audio is cut in the pauses.
Segments lie inside the spans of `cwjax.data.word_times`, so their text is what is heard; those
that are too short, badly timed or implausibly fast or slow are rejected.
"""

import bisect
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from cwjax.data.segment import ContextMaterial, Segment, Utterance, latest_text
from cwjax.data.segmentation_settings import SegmentationSettings
from cwjax.data.swc import Article
from cwjax.data.swc_text import Token, surface_text
from cwjax.data.word_times import (
    Word,
    estimate_times,
    find_spans,
    forget_bad_times,
    measured_range,
    read_words,
    speaking_rate,
)
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

    Raises CwjaxError if the offset of an audio file is unknown (see `cwjax.data.swc.with_durations`).
    """
    for part in article.audio_parts:
        if part.offset is None:
            raise CwjaxError(f"{part.path}: its offset is unknown; measure the article's audio files first")
    last = article.audio_parts[-1]
    audio_end = math.inf if last.duration is None else (last.offset + last.duration) * 1000
    borders = [*(part.offset * 1000 for part in article.audio_parts[1:]), audio_end]

    all_words = read_words(article.tokens)
    words = [word for word in all_words if not word.is_extra]
    rate = speaking_rate(words)
    forget_bad_times(all_words, rate, borders, settings)
    spans, holes = find_spans(words, rate, borders, settings)
    for span in spans:
        estimate_times(span, rate)
    timed_words = sum(word.is_timed for word in words)

    maker = _SegmentMaker(article, all_words, borders, settings)
    fault = _article_fault(timed_words / max(1, len(words)), rate, settings)
    segments: list[Segment] = []
    rejected: list[Rejected] = []
    segment_words = 0
    for span in spans:
        begin, finish = measured_range(span)
        for edge in (span[:begin], span[finish:]):
            if edge:
                text = " ".join(piece.text for piece in read_utterances(edge, article.tokens))
                rejected.append(Rejected("edge", edge[0].start / 1000, edge[-1].end / 1000, text))
        previous, previous_end = "", -math.inf
        for packed in pack(span[begin:finish], settings):
            utterances = read_utterances(packed, article.tokens)
            text = " ".join(utterance.text for utterance in utterances)
            start, end = packed[0].start, packed[-1].end
            reason = fault or _fault(packed, text, settings)
            if reason:
                rejected.append(Rejected(reason, start / 1000, end / 1000, text))
                previous = ""
                continue
            if start - previous_end >= settings.previous_gap * 1000:
                previous = ""
            segments.append(maker.make(packed, utterances, text, previous))
            segment_words += len(packed)
            previous = latest_text(f"{previous} {text}".strip(), settings.previous_characters)
            previous_end = end
    return Segmentation(tuple(segments), tuple(rejected), dict(holes), len(words), timed_words, segment_words, rate)


def clean_text(text: str) -> str:
    """Text as Whisper would write it: plain spaces and quotation marks, no footnote marks or [ ]."""
    text = _FOOTNOTE.sub("", " ".join(text.split()))
    text = _TYPOGRAPHIC.sub(lambda mark: _PLAIN[mark[0]], text)
    return _LEADING_MARKS.sub("", " ".join(text.split()))


def pack(span: Sequence[Word], settings: SegmentationSettings) -> Iterator[Sequence[Word]]:
    """As many whole sentences at a time as fit with their padding; one that alone does not is cut."""
    longest = (settings.max_duration - 2 * settings.pad) * 1000
    first = 0
    while first < len(span):
        fitting = first + 1
        while fitting < len(span) and span[fitting].end - span[first].start <= longest:
            fitting += 1
        cut = fitting if fitting == len(span) else _cut(span, first, fitting, settings)
        yield span[first:cut]
        first = cut


def _cut(span: Sequence[Word], first: int, fitting: int, settings: SegmentationSettings) -> int:
    """Where to cut `span[first:fitting]`, the most that fits.

    After its last whole sentence; else in the last pause between two timed words, if that leaves
    enough; else between the last two timed words that adjoin; else after the last word.
    """
    cuts = range(fitting, first, -1)
    for cut in cuts:
        if span[cut - 1].sentence != span[cut].sentence:
            return cut
    timed = [cut for cut in cuts if span[cut - 1].is_timed and span[cut].is_timed]
    for cut in timed:
        pause = span[cut].start - span[cut - 1].end
        duration = span[cut - 1].end - span[first].start
        if pause >= settings.cut_pause * 1000 and duration >= settings.min_duration * 1000:
            return cut
    return timed[0] if timed else fitting


def read_utterances(words: Sequence[Word], tokens: Sequence[Token]) -> list[Utterance]:
    """One utterance for each sentence or title; `start` and `end` are milliseconds of the article.

    A sentence too short for a timestamp joins the one before it.
    """
    utterances: list[Utterance] = []
    for _, group in groupby(words, key=lambda word: word.sentence):
        sentence = list(group)
        written = [token for token in tokens[sentence[0].begin : sentence[-1].finish] if token.kind != "extra"]
        text = clean_text(surface_text(written))
        if not text:
            continue
        start, end = sentence[0].start, sentence[-1].end
        if utterances:
            last = utterances[-1]
            start = max(start, last.end)
            if min(end - start, last.end - last.start) < SHORTEST_UTTERANCE:
                utterances[-1] = Utterance(last.start, max(last.end, end), f"{last.text} {text}")
                continue
        utterances.append(Utterance(start, end, text))
    return utterances


def _article_fault(timed_ratio: float, rate: float, settings: SegmentationSettings) -> str:
    if timed_ratio < settings.min_timed_ratio:
        return "article_timed_ratio"
    return "" if settings.min_rate <= rate <= settings.max_rate else "article_rate"


def _fault(words: Sequence[Word], text: str, settings: SegmentationSettings) -> str:
    """Why a segment is left out, or an empty string."""
    first, last = words[0], words[-1]
    seconds = (last.end - first.start) / 1000
    if seconds < settings.min_duration:
        return "duration"
    if seconds > settings.max_duration - 2 * settings.pad:
        return "too_long"
    if len(words) < settings.min_words:
        return "few_words"
    if not any(map(str.isalpha, text)):
        return "no_letters"
    timed = sum(word.characters - word.head - word.tail for word in words if word.heard_start is not None)
    if timed < settings.min_coverage * sum(word.characters for word in words):
        return "coverage"
    speed = len(text) / max(seconds, 0.001)
    if not settings.min_characters_per_second <= speed <= settings.max_characters_per_second:
        return "characters_per_second"
    return ""


def _adjoins(other: Word, word: Word) -> bool:
    """Whether `other`, heard at an unknown time, most likely stands right beside `word`."""
    return word.start is not None and other.start is None and other.sentence == word.sentence


class _SegmentMaker:
    """Makes the records of one article; what they share is computed once."""

    def __init__(
        self,
        article: Article,
        words: Sequence[Word],
        borders: Sequence[float],
        settings: SegmentationSettings,
    ) -> None:
        self._article = article
        self._borders = borders
        self._pad = settings.pad * 1000
        self._material = ContextMaterial(
            title=clean_text(article.title),
            lead=clean_text(article.lead),
            categories=article.categories,
            keywords=article.keywords,
        )
        # Where the neighbours of each word are heard; those outside spans and the guessed ones count too.
        self._words = words
        self._places = {word.token: place for place, word in enumerate(words)}
        ends = [word.heard_end if word.end is None else word.end for word in words]
        starts = [word.heard_start if word.start is None else word.start for word in words]
        known_ends = (-math.inf if end is None else end for end in ends)
        known_starts = (math.inf if start is None else start for start in reversed(starts))
        self._last_end = list(accumulate(known_ends, max, initial=-math.inf))
        self._next_start = list(accumulate(known_starts, min, initial=math.inf))[::-1]

    def _end_before(self, word: Word) -> float:
        place = self._places[word.token]
        adjoins = place > 0 and _adjoins(self._words[place - 1], word)
        return max(self._last_end[place], word.start) if adjoins else self._last_end[place]

    def _start_after(self, word: Word) -> float:
        place = self._places[word.token] + 1
        adjoins = place < len(self._words) and _adjoins(self._words[place], word)
        return min(self._next_start[place], word.end) if adjoins else self._next_start[place]

    def make(self, words: Sequence[Word], utterances: Sequence[Utterance], text: str, previous: str) -> Segment:
        """The audio is cut in the middle of the pauses around the words, at most `pad` away from them."""
        article, first, last = self._article, words[0], words[-1]
        part_number = bisect.bisect_right(self._borders, first.start)
        part = article.audio_parts[part_number]
        middle_before = (self._end_before(first) + first.start) / 2
        middle_after = (self._start_after(last) + last.end) / 2
        start = math.ceil(max(first.start - self._pad, middle_before, part.offset * 1000))
        end = math.floor(min(last.end + self._pad, middle_after, self._borders[part_number]))
        token = article.tokens[first.token]

        def inside(time: float) -> float:
            return round(min(max(time, start), end) - start) / 1000

        return Segment(
            id=f"{article.identifier}/{round(first.start):08d}",
            article=article.identifier,
            audio=part.path,
            start=start / 1000,
            end=end / 1000,
            text=text,
            utterances=tuple(Utterance(inside(piece.start), inside(piece.end), piece.text) for piece in utterances),
            context=replace(
                self._material,
                section=tuple(clean_text(title) for title in token.section),
                lead="" if token.is_lead else self._material.lead,
                previous=previous,
            ),
            language=article.language,
            speaker=article.reader_key,
            licence=article.licence,
            source=article.source,
        )
