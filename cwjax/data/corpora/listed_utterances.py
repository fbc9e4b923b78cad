"""Corpora that list their utterances with times -> segments: what all readers but that of word times share.

Every utterance becomes a segment of its own; short ones are joined when they are trained on
(`cwjax.data.examples.packing`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from cwjax.data.audio.decode import audio_duration
from cwjax.data.corpora.languages import unknown_language, whisper_language
from cwjax.data.corpora.reader import Piece, Reading, Span
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.cuts import TimedWord
from cwjax.data.segment import ContextMaterial, Segment, Utterance, latest_text
from cwjax.errors import CwjaxError

SHORTEST = 0.1
"""Seconds; nothing is said in less."""
OVERSHOOT = 0.25
"""Seconds by which an utterance may be listed to end after its file, which rounding and codecs' padding explain."""
EVALUATED = ("validation", "test")
"""Splits of which every utterance is kept, however long: leaving some out would make another test."""
FASTEST = 40.0
"""Characters per second; a text that is longer belongs to other times."""


@dataclass(frozen=True)
class ListedUtterance:
    """An utterance as a corpus lists it.

    Attributes:
        id: unique in the corpus.
        audio: path relative to the corpus root.
        start, end: seconds of that file; an infinite end is the file's.
        text: clean.
        speaker: who speaks, if known.
        channel: counted from 0; None: the mean of all.
        context: what is known; its `previous` is kept if there is one.
        language, split, licence, source: where they differ from the article's.
        subset: the corpus's own name of a part, such as "test-clean".
        words: with times in seconds of the file, where they are known.
        gap_before: something unknown was said between this utterance and the one listed before.
    """

    id: str
    audio: str
    start: float
    end: float
    text: str
    speaker: str = ""
    channel: int | None = None
    context: ContextMaterial = field(default_factory=ContextMaterial)
    language: str = ""
    split: str = ""
    licence: str = ""
    source: str = ""
    subset: str = ""
    words: tuple[TimedWord, ...] = ()
    gap_before: bool = False


@dataclass(frozen=True)
class ListedArticle:
    """Utterances that belong together, and what holds for all of them.

    If they come from several files, the article's timeline is that of one file after the other.

    Attributes:
        identifier: of the article, book chapter or conversation.
        utterances: in the order in which they were said.
        language: a code or an English name.
        licence, source: for attribution.
        split: if the corpus has splits.
        subset: the corpus's own name of the part that holds the article.
        reader: as the corpus spells the name.
        finds_previous: whether an utterance's previous text is what stands before it in its file; else it is as
            listed.
    """

    identifier: str
    utterances: Sequence[ListedUtterance]
    language: str = "en"
    licence: str = ""
    source: str = ""
    split: str = ""
    subset: str = ""
    reader: str = ""
    finds_previous: bool = True


def as_reading(
    root: Path, article: ListedArticle, limits: SegmentationSettings, warnings: Sequence[str] = ()
) -> Reading:
    """One segment for each utterance that can be right.

    Left out are those whose file is missing ("no_audio"), whose times are no times or outside the file ("times"),
    longer than the model's window unless they are of a validation or test set, which can be decoded in windows
    ("too_long"), shorter than anything said ("duration"), without a letter ("no_letters") or with more text than anyone
    says in the time ("too_fast"), or in a language that Whisper does not know ("language").

    Raises CwjaxError if there is no utterance, none in a language of Whisper's, none of the audio can be read, or the
    times are milliseconds.
    """
    languages = _languages(article)
    durations, problems = _durations(root, article)
    for name in sorted(name for name, code in languages.items() if not code):
        problems.append(unknown_language(article.identifier, name))
    _require_seconds(root, article, durations)
    offsets = dict(zip(durations, accumulate(durations.values(), initial=0.0), strict=False))
    pieces: list[Piece] = []
    dropped: Counter[str] = Counter()
    previous, previous_end, previous_audio = "", -math.inf, ""
    for one in article.utterances:
        duration = durations.get(one.audio, math.nan)
        end = duration if one.end == math.inf or duration < one.end <= duration + OVERSHOOT else one.end
        language = languages[one.language or article.language]
        reason = _fault(one, end, duration, limits, one.split or article.split) if language else "language"
        if reason:
            seconds = end - one.start
            dropped[reason] += max(seconds, 0.0) if math.isfinite(seconds) else 0.0
            previous = ""
            continue
        if one.gap_before:
            previous = ""
        start_there, end_there = (round(offsets[one.audio] + time, 4) for time in (one.start, end))
        context = one.context
        if article.finds_previous and one.audio == previous_audio and start_there - previous_end < limits.previous_gap:
            context = replace(context, previous=previous)
        context = replace(context, previous=latest_text(context.previous, limits.previous_characters))
        segment = Segment(
            id=one.id,
            article=article.identifier,
            audio=one.audio,
            start=start_there,
            end=end_there,
            text=one.text,
            utterances=(Utterance(0.0, round(end_there - start_there, 4), one.text),),
            context=context,
            language=language,
            speaker=one.speaker,
            licence=one.licence or article.licence,
            source=one.source or article.source,
            split=one.split or article.split,
        )
        pieces.append(Piece(segment, Span(one.start, end, one.channel)))
        previous = latest_text(f"{context.previous} {one.text}".strip(), limits.previous_characters)
        previous_end, previous_audio = max(previous_end, end_there), one.audio
    return Reading(tuple(pieces), dict(dropped), reader=article.reader, warnings=(*warnings, *problems))


def as_one_reading(
    root: Path, articles: Iterable[ListedArticle], limits: SegmentationSettings, warnings: Sequence[str] = ()
) -> Reading:
    """The readings of many small articles as one; those that cannot be used are among its warnings.

    Raises CwjaxError, the last of theirs, if none can.
    """
    pieces: list[Piece] = []
    dropped: Counter[str] = Counter()
    problems = list(warnings)
    usable = False
    for article in articles:
        try:
            reading = as_reading(root, article, limits)
        except CwjaxError as error:
            problems.append(str(error))
        else:
            usable = True
            pieces += reading.pieces
            dropped.update(reading.dropped)
            problems += reading.warnings
    if not usable:
        raise CwjaxError(problems[-1] if problems else "holds no utterance")
    return Reading(tuple(pieces), dict(dropped), warnings=tuple(problems))


def _languages(article: ListedArticle) -> dict[str, str]:
    """Whisper's codes of the languages that an article names, empty where Whisper has none, but not for all."""
    names = dict.fromkeys(one.language or article.language for one in article.utterances)
    languages = {name: whisper_language(name) for name in names}
    if names and not any(languages.values()):
        raise CwjaxError(unknown_language(article.identifier, next(iter(names))))
    return languages


def _durations(root: Path, article: ListedArticle) -> tuple[dict[str, float], list[str]]:
    """Seconds of every audio file that can be opened, and what is wrong with the others."""
    durations: dict[str, float] = {}
    problems: list[str] = []
    for audio in dict.fromkeys(one.audio for one in article.utterances):
        try:
            durations[audio] = audio_duration(root / audio)
        except CwjaxError as error:
            problems.append(str(error))
    if not durations:
        raise CwjaxError(problems[0] if problems else f"{article.identifier}: has no utterance")
    return durations, problems


def _require_seconds(root: Path, article: ListedArticle, durations: dict[str, float]) -> None:
    """Refuses times that fit the audio only if they are thousandths of seconds."""
    for audio, duration in durations.items():
        ends = [one.end for one in article.utterances if one.audio == audio and math.isfinite(one.end)]
        late = [end for end in ends if 2 * duration < end <= 1000 * (duration + OVERSHOOT)]
        if len(late) > len(ends) / 2:
            raise CwjaxError(
                f"{root / audio}: lasts {duration:.1f} s, but is said to be spoken until {max(late):g}; "
                "give times in seconds, not milliseconds"
            )


def _fault(one: ListedUtterance, end: float, duration: float, limits: SegmentationSettings, split: str) -> str:
    """Why an utterance is left out, or an empty string."""
    if math.isnan(duration):
        return "no_audio"
    if not 0 <= one.start < end <= duration:
        return "times"
    if end - one.start > limits.max_duration and split not in EVALUATED:
        return "too_long"
    if end - one.start < SHORTEST:
        return "duration"
    if not any(map(str.isalpha, one.text)):
        return "no_letters"
    return "too_fast" if len(one.text) > FASTEST * (end - one.start) else ""
