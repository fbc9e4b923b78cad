"""Corpora that list their utterances with times: what all readers but that of word times share.

Every utterance becomes a supervision of its recording.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cwjax.data.audio.decode import audio_duration
from cwjax.data.corpora.languages import unknown_language, whisper_language
from cwjax.data.corpora.reader import Facts, Reading, Track, differing, facts_of
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.cuts import Supervision, TimedWord
from cwjax.data.segment import ContextMaterial, latest_text
from cwjax.errors import CwjaxError

SHORTEST = 0.1
"""Seconds; nothing is said in less."""
OVERSHOOT = 0.25
"""Seconds by which an utterance may be listed to end after its file, which rounding and codecs' padding explain."""
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

    Attributes:
        identifier: of the article, book chapter or conversation.
        utterances: in the order in which they were said.
        language: a code or an English name.
        licence, source: for attribution.
        split: if the corpus has splits.
        subset: the corpus's own name of the part that holds the article.
        reader: as the corpus spells the name.
        finds_previous: whether an utterance's previous text is what is said before it in its recording; else it is
            as listed.
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
    """One supervision for each utterance that can be right.

    Left out are those whose file is missing ("no_audio"), whose times are no times or outside the file ("times"),
    shorter than anything said ("duration"), without a letter ("no_letters"), with more text than anyone says in the
    time ("too_fast"), or in a language that Whisper does not know ("language").

    Raises CwjaxError if there is no utterance, none in a language of Whisper's, none of the audio can be read, or the
    times are milliseconds.
    """
    languages = _languages(article)
    durations, problems = _durations(root, article)
    for name in sorted(name for name, code in languages.items() if not code):
        problems.append(unknown_language(article.identifier, name))
    _require_seconds(root, article, durations)
    listed: dict[tuple[str, int | None], list[ListedUtterance]] = defaultdict(list)
    for one in article.utterances:
        listed[one.audio, one.channel].append(one)
    facts = _facts(article, article.utterances[0])
    tracks: list[Track] = []
    dropped: Counter[str] = Counter()
    for (audio, channel), utterances in listed.items():
        duration = durations.get(audio, math.nan)
        supervisions: list[Supervision] = []
        is_gap = False
        for one in sorted(utterances, key=lambda one: one.start):
            end = duration if one.end == math.inf or duration < one.end <= duration + OVERSHOOT else one.end
            language = languages[one.language or article.language]
            if reason := _fault(one, end, duration) if language else "language":
                seconds = end - one.start
                dropped[reason] += max(seconds, 0.0) if math.isfinite(seconds) else 0.0
                is_gap = True
                continue
            late = supervisions and one.start - supervisions[-1].end >= limits.previous_gap
            custom = {
                "article": article.identifier,
                "section": list(one.context.section),
                "split": one.split,
                "subset": one.subset or article.subset,
                "gap_before": bool(supervisions) and bool(is_gap or late or one.gap_before),
                "previous_is_approximate": one.context.previous_is_approximate,
            }
            custom = {name: value for name, value in custom.items() if value} | differing(_facts(article, one), facts)
            if one.context.previous or not article.finds_previous:
                custom["previous"] = latest_text(one.context.previous, limits.previous_characters)
            supervisions.append(Supervision(one.id, one.start, end, one.text, one.speaker, language, one.words, custom))
            is_gap = False
        if supervisions:
            tracks.append(Track(audio, tuple(supervisions), channel))
    if article.finds_previous:
        tracks = _with_other_sides(tracks, limits)
    articles = {article.identifier: facts}
    splits = {article.identifier: article.split} if article.split else {}
    warned = (*warnings, *problems)
    return Reading(tuple(tracks), articles, splits, dict(dropped), reader=article.reader, warnings=warned)


def _with_other_sides(tracks: Sequence[Track], limits: SegmentationSettings) -> list[Track]:
    """Tracks of which those of one file, the sides of a call, name as said before what was said on either side."""
    before: dict[tuple[str, str], str] = {}
    sides = Counter(track.audio for track in tracks)
    for audio in (audio for audio, count in sides.items() if count > 1):
        text, end = "", -math.inf
        said = [one for track in tracks if track.audio == audio for one in track.supervisions]
        for one in sorted(said, key=lambda one: one.start):
            text = "" if one.start - end >= limits.previous_gap else text
            before[audio, one.id] = text
            text = latest_text(f"{text} {one.text}".strip(), limits.previous_characters)
            end = max(end, one.end)
    return [
        track._replace(
            supervisions=tuple(
                replace(one, custom={"previous": before[track.audio, one.id]} | one.custom)
                if (track.audio, one.id) in before
                else one
                for one in track.supervisions
            )
        )
        for track in tracks
    ]


def _facts(article: ListedArticle, one: ListedUtterance) -> Facts:
    return facts_of(one.context, one.licence or article.licence, one.source or article.source)


def as_one_reading(
    root: Path, articles: Iterable[ListedArticle], limits: SegmentationSettings, warnings: Sequence[str] = ()
) -> Reading:
    """The readings of many small articles as one; those that cannot be used are among its warnings.

    Raises CwjaxError, the last of theirs, if none can.
    """
    tracks: list[Track] = []
    facts: dict[str, Facts] = {}
    splits: dict[str, str] = {}
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
            tracks += reading.tracks
            facts |= reading.articles
            splits |= reading.splits
            dropped.update(reading.dropped)
            problems += reading.warnings
    if not usable:
        raise CwjaxError(problems[-1] if problems else "holds no utterance")
    return Reading(tuple(tracks), facts, splits, dict(dropped), warnings=tuple(problems))


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


def _fault(one: ListedUtterance, end: float, duration: float) -> str:
    """Why an utterance is left out, or an empty string."""
    if math.isnan(duration):
        return "no_audio"
    if not 0 <= one.start < end <= duration:
        return "times"
    if end - one.start < SHORTEST:
        return "duration"
    if not any(map(str.isalpha, one.text)):
        return "no_letters"
    return "too_fast" if len(one.text) > FASTEST * (end - one.start) else ""
