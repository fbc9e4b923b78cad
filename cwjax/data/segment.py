"""The one record type that every corpus reader yields.

A *segment* is a stretch of a recording with its text; an *utterance* is a timed piece of a
segment (a sentence, a title). The *context material* is everything known about the recording
that could be said to the text encoder; which of it becomes the context of an example is decided
when the example is drawn (`cwjax.data.context`), never baked into a prepared corpus.
"""

from dataclasses import asdict, dataclass, field
from typing import Any


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
        lead: the text before the first section, the article's own summary.
        categories: subject headings.
        keywords: names and terms, most telling first.
        previous: what was said directly before this segment, empty after a gap.
    """

    title: str = ""
    section: tuple[str, ...] = ()
    lead: str = ""
    categories: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    previous: str = ""


@dataclass(frozen=True)
class Segment:
    """A stretch of one audio file with its transcript.

    Attributes:
        id: unique in the corpus and stable between runs.
        article: identifier of the article (book, conversation) it belongs to.
        audio: path of the audio file relative to the corpus root, "/" between its parts.
        audio_offset: seconds, where that file begins on the article's timeline.
        start, end: seconds on the article's timeline, `audio_offset <= start < end`.
        text: the transcript as written, spacing, case and punctuation kept.
        utterances: timed pieces whose texts joined by spaces are `text`.
        context: material from which a context is drawn.
        language: ISO 639-1 code.
        speaker: normalised name, equal for two recordings of one person.
        is_lead: the segment is spoken text of the lead, which then is no context for it.
        licence, source: for attribution; licence name and the URL of the article.
        split: "train", "validation" or "test"; empty until assigned.
    """

    id: str
    article: str
    audio: str
    audio_offset: float
    start: float
    end: float
    text: str
    utterances: tuple[Utterance, ...]
    context: ContextMaterial = field(default_factory=ContextMaterial)
    language: str = "en"
    speaker: str = ""
    is_lead: bool = False
    licence: str = ""
    source: str = ""
    split: str = ""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    def as_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Segment":
        """The inverse of `as_dict`, also after a trip through JSON."""
        context = dict(record["context"])
        for name in ("section", "categories", "keywords"):
            context[name] = tuple(context[name])
        return cls(
            **{
                **record,
                "utterances": tuple(Utterance(**piece) for piece in record["utterances"]),
                "context": ContextMaterial(**context),
            }
        )
