"""What every corpus reader offers: units that can be read on their own, and what reading one gives.

A reader is a module (`CorpusReader` names its functions; it may also have `remarks(root)`, lines that whoever prepares
the corpus should read at the start); `cwjax.data.corpora.registry` lists them all. A unit that
cannot be used is a `CwjaxError` of `read`, which is named in the report and ends nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.cuts import Supervision
from cwjax.data.segment import ContextMaterial

Facts = dict[str, Any]
"""What is known of an article, JSON values: those of `FACTS` that are not empty."""
FACTS = ("title", "lead", "categories", "keywords", "licence", "source")


class Track(NamedTuple):
    """A channel of an audio file, and what is said in it.

    Attributes:
        audio: path relative to the corpus root, "/" between its parts.
        supervisions: by ascending start, in seconds of the file; ids are unique in the corpus. Their `custom` has
            `article`, and where known `section` (titles, outermost first), `split`, `subset`, `gap_before` (unknown or
            untrusted speech lies between this one and the one before), `previous` (what was said before, if the corpus
            lists it itself) with `previous_is_approximate`, and facts that differ from those of the article.
        channel: counted from 0; None: the mean of all channels.
    """

    audio: str
    supervisions: tuple[Supervision, ...]
    channel: int | None = None


@dataclass(frozen=True)
class Unit:
    """What a reader reads at a time: an article, a chapter, a conversation.

    Attributes:
        name: unique in the corpus and stable between runs; reports name it.
        audio: paths of its audio files relative to the corpus root, by which the work is estimated.
        content: what the reader wants to know when it reads the unit; travels to another process.
    """

    name: str
    audio: tuple[str, ...] = ()
    content: Any = None


@dataclass(frozen=True)
class Reading:
    """What a unit gave.

    Attributes:
        tracks: its recordings.
        articles: facts of every article that the supervisions name.
        splits: of articles, where the corpus has splits; a supervision's own comes first.
        dropped: seconds of speech left out, by reason.
        holes: number of holes by kind, where a reader looks for any.
        timed_ratio: share of the words that have trusted times, where words have times.
        reader: who speaks, as the corpus spells it, for attribution.
        warnings: what is odd but no reason to leave the unit out.
    """

    tracks: tuple[Track, ...]
    articles: dict[str, Facts] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, float] = field(default_factory=dict)
    holes: dict[str, int] = field(default_factory=dict)
    timed_ratio: float | None = None
    reader: str = ""
    warnings: tuple[str, ...] = ()


def facts_of(context: ContextMaterial, licence: str = "", source: str = "") -> Facts:
    """What a context's material says of its article."""
    facts = {name: getattr(context, name) for name in FACTS[:4]}
    facts |= {"licence": licence, "source": source}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items() if value}


def differing(facts: Facts, article: Facts) -> Facts:
    """The facts that are others than an article's; an empty text where only the article has one."""
    return {name: facts.get(name, "") for name in {**article, **facts} if facts.get(name) != article.get(name)}


def of_article(custom: dict[str, Any], facts: Facts, article: Facts) -> dict[str, Any]:
    """A supervision's `custom`, so far beside `facts`, beside those of another article of that name."""
    if facts == article:
        return custom
    return custom | differing(facts | {name: custom[name] for name in FACTS if name in custom}, article)


class CorpusReader(Protocol):
    """The functions of a module that reads one kind of corpus."""

    TITLE: str
    """What the corpus is called, and what is to be found at its root."""

    def looks_like(self, root: Path) -> bool:
        """Whether a folder looks like a corpus of this kind; quick."""

    def articles(self, root: Path) -> Iterator[Unit]:
        """The units of a corpus in a fixed order, without reading audio.

        Raises CwjaxError if a file that all units depend on is missing or damaged.
        """

    def read(self, root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
        """Reads a unit, again without its audio but for the lengths of the files.

        Raises CwjaxError if the unit cannot be used; the message names the file and the reason.
        """
