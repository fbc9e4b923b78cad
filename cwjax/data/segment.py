"""What training and evaluation work on: a stretch of a recording with its text.

A *segment* is drawn from a prepared corpus when it is wanted; an *utterance* is a timed piece of it (a sentence, a
title). The *context material* is everything known about the recording that could be said to the text encoder; which
of it becomes the context of an example is decided when the example is drawn (`cwjax.data.examples.context`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cwjax.data.cuts import Supervision

SPACELESS = ("zh", "ja", "th", "lo", "my", "yue")
"""Languages written without spaces, as Whisper has them."""


def join_texts(texts: Iterable[str], language: str) -> str:
    """Texts that follow each other as one, as the language is written."""
    return ("" if language in SPACELESS else " ").join(filter(None, map(str.strip, texts)))


@dataclass(frozen=True)
class Utterance:
    """A timed piece of a segment. `start` and `end` are seconds from the segment's start."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class ContextMaterial:
    """What is known about a recording besides its sound.

    Attributes:
        title: title of the article, book or talk.
        section: section titles from the outermost to the one this segment starts in.
        lead: the text before the first section, the article's own summary; empty for segments that are
            themselves spoken lead, for then it would be the answer.
        categories: subject headings.
        keywords: names and terms, most telling first.
        previous: what was said directly before this segment, empty after a gap.
        previous_is_approximate: something unknown may have been said between `previous` and the segment.
    """

    title: str = ""
    section: tuple[str, ...] = ()
    lead: str = ""
    categories: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    previous: str = ""
    previous_is_approximate: bool = False


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording with its transcript.

    Attributes:
        id: unique in the corpus and stable between runs.
        article: identifier of the article (book, conversation) it belongs to.
        recording: its number in the corpus.
        start, end: seconds of the recording.
        text: the transcript as written, spacing, case and punctuation kept.
        utterances: timed pieces whose texts joined are `text`.
        context: material from which a context is drawn.
        language: ISO 639-1 code.
        speaker: normalised name, equal for two recordings of one person.
        licence, source: for attribution; licence name and the URL of the article.
        split: "train", "validation" or "test".
        subset: the corpus's own name of a part, such as "test-clean".
    """

    id: str
    article: str
    recording: int
    start: float
    end: float
    text: str
    utterances: tuple[Utterance, ...]
    context: ContextMaterial = field(default_factory=ContextMaterial)
    language: str = "en"
    speaker: str = ""
    licence: str = ""
    source: str = ""
    split: str = ""
    subset: str = ""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    @property
    def is_lead(self) -> bool:
        """Whether the segment starts before the first section."""
        return not self.context.section


def segment_of(said: Sequence[Supervision], article: Mapping[str, Any], recording: int, previous: str = "") -> Segment:
    """Supervisions that follow each other in a recording as one segment.

    Args:
        said: what is said, in order; what is known about the first holds for all.
        article: what is known of the article of the first.
        recording: its number.
        previous: what was said before.
    """
    custom = said[0].custom
    known = {**article, **custom}
    start, end = said[0].start, said[-1].end
    return Segment(
        id=said[0].id,
        article=custom["article"],
        recording=recording,
        start=start,
        end=end,
        text=join_texts((one.text for one in said), said[0].language),
        utterances=tuple(_utterances(said)),
        context=ContextMaterial(
            title=known.get("title", ""),
            section=tuple(custom.get("section", ())),
            lead=known.get("lead", ""),
            categories=tuple(known.get("categories", ())),
            keywords=tuple(known.get("keywords", ())),
            previous=previous,
            previous_is_approximate=bool(custom.get("previous_is_approximate")),
        ),
        language=said[0].language,
        speaker=said[0].speaker,
        licence=known.get("licence", ""),
        source=known.get("source", ""),
        split=custom.get("split", ""),
        subset=custom.get("subset", ""),
    )


def _utterances(said: Sequence[Supervision]) -> Iterator[Utterance]:
    """With the times of their words, where they have any, in seconds from the start of the first; never backwards."""
    latest = said[0].start
    for one in said:
        start, end = (one.words[0].start, one.words[-1].end) if one.words else (one.start, one.end)
        start = max(start, latest)
        latest = max(start, end)
        yield Utterance(round(start - said[0].start, 4), round(latest - said[0].start, 4), one.text)


def latest_text(text: str, characters: int) -> str:
    """The end of a text, at most so many characters and from the beginning of a word."""
    return text if len(text) <= characters else text[len(text) - characters :].partition(" ")[2]
