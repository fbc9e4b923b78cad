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
from cwjax.data.segment import Segment


class Span(NamedTuple):
    """Where a segment is heard in its audio file.

    Attributes:
        start, end: seconds of the file.
        channel: counted from 0; None: the mean of all channels.
    """

    start: float
    end: float
    channel: int | None = None


class Piece(NamedTuple):
    """A segment, and where it is heard."""

    segment: Segment
    span: Span


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
        pieces: its segments.
        dropped: seconds of speech left out, by reason.
        holes: number of holes by kind, where a reader looks for any.
        timed_ratio: share of the words that have trusted times, where words have times.
        reader: who speaks, as the corpus spells it, for attribution.
        warnings: what is odd but no reason to leave the unit out.
    """

    pieces: tuple[Piece, ...]
    dropped: dict[str, float] = field(default_factory=dict)
    holes: dict[str, int] = field(default_factory=dict)
    timed_ratio: float | None = None
    reader: str = ""
    warnings: tuple[str, ...] = ()


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
