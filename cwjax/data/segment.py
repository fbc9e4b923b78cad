"""The one record type that every corpus reader yields.

A *segment* is a stretch of a recording with its text; an *utterance* is a timed piece of a
segment (a sentence, a title). The *context material* is everything known about the recording
that could be said to the text encoder; which of it becomes the context of an example is decided
when the example is drawn (`cwjax.data.examples.context`), never baked into a prepared corpus.
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
class Quality:
    """How well a model's transcript agrees with a segment's text: character error rates.

    Attributes:
        cer: of the whole.
        start_cer, end_cer: of the first and of the last characters, where a wrong cut would show.
    """

    cer: float
    start_cer: float
    end_cer: float


@dataclass(frozen=True)
class Segment:
    """A stretch of one audio file with its transcript.

    Attributes:
        id: unique in the corpus and stable between runs.
        article: identifier of the article (book, conversation) it belongs to.
        audio: path of the audio file relative to the corpus root, "/" between its parts.
        start, end: seconds on the article's timeline, which may run over several audio files.
        text: the transcript as written, spacing, case and punctuation kept.
        utterances: timed pieces whose texts joined by spaces are `text`.
        context: material from which a context is drawn.
        language: ISO 639-1 code.
        speaker: normalised name, equal for two recordings of one person.
        licence, source: for attribution; licence name and the URL of the article.
        split: "train", "validation" or "test"; empty until assigned, unless the corpus itself has splits.
        quality: None until a model has transcribed it.
    """

    id: str
    article: str
    audio: str
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
    quality: Quality | None = None

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    @property
    def is_lead(self) -> bool:
        """Whether the segment starts before the first section."""
        return not self.context.section

    def as_dict(self) -> dict[str, Any]:
        """The record as plain JSON values, in the order of an index line."""
        record = {name: getattr(self, name) for name in _FIELDS}
        context = asdict(self.context)
        if not self.context.previous_is_approximate:
            del context["previous_is_approximate"]
        quality = {"quality": asdict(self.quality)} if self.quality else {}
        return record | {"utterances": [asdict(piece) for piece in self.utterances], "context": context} | quality

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
                "quality": Quality(**record["quality"]) if record.get("quality") else None,
            }
        )


_FIELDS = (
    "id", "split", "language", "speaker", "article", "audio", "start", "end", "text", "utterances", "context",
    "licence", "source",
)  # fmt: skip


def latest_text(text: str, characters: int) -> str:
    """The end of a text, at most so many characters and from the beginning of a word."""
    return text if len(text) <= characters else text[len(text) - characters :].partition(" ")[2]
