"""Cuts: stretches of recordings with what is said in them, in the layout of lhotse's manifests.

A line of `cuts.jsonl.gz` is a cut: a recording, or a part of it, with supervisions, each a stretch in which something
is said. Times of a supervision are seconds from the start of its cut; times of words too. What lhotse has no field for
stands in `custom`, a flat table of JSON values, which lhotse keeps.

Source: lhotse's `MonoCut`, `SupervisionSegment` and `Recording` (https://lhotse.readthedocs.io).
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cwjax.errors import CwjaxError


class TimedWord(NamedTuple):
    """A word; `start` and `end` are seconds from the start of the cut, `score` its confidence in 0..1 if known."""

    text: str
    start: float
    end: float
    score: float | None = None


@dataclass(frozen=True)
class Supervision:
    """A stretch of a cut in which something is said.

    Attributes:
        id: unique in the corpus.
        start, end: seconds from the start of the cut.
        text: as it is written.
        speaker: empty if unknown.
        language: ISO 639-1 code; empty if unknown.
        words: with times; empty if they have none.
        custom: whatever else is known.
    """

    id: str
    start: float
    end: float
    text: str
    speaker: str = ""
    language: str = ""
    words: tuple[TimedWord, ...] = ()
    custom: dict[str, Any] = field(default_factory=dict)

    def as_dict(self, recording: str, channel: int = 0) -> dict[str, Any]:
        """The supervision as lhotse's `SupervisionSegment.to_dict` has it, of the recording with this id."""
        words = [[word.text, word.start, _seconds(word.end - word.start), word.score] for word in self.words]
        optional = {
            "language": self.language,
            "speaker": self.speaker,
            "custom": self.custom,
            "alignment": {"word": words} if words else {},
        }
        return {
            "id": self.id,
            "recording_id": recording,
            "start": self.start,
            "duration": _seconds(self.end - self.start),
            "channel": channel,
            "text": self.text,
            **{name: value for name, value in optional.items() if value},
        }


@dataclass(frozen=True)
class Recording:
    """Sound.

    Attributes:
        id: unique in the corpus.
        sampling_rate: Hz.
        samples: number of them in a channel.
        path: of the file; empty where the sound lies beside the manifest, in a shard.
        channels: how many.
    """

    id: str
    sampling_rate: int
    samples: int
    path: str = ""
    channels: int = 1

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / self.sampling_rate

    def as_dict(self) -> dict[str, Any]:
        """The recording as lhotse's `Recording.to_dict` has it."""
        channels = list(range(self.channels))
        return {
            "id": self.id,
            "sources": [{"type": "file" if self.path else "shar", "channels": channels, "source": self.path}],
            "sampling_rate": self.sampling_rate,
            "num_samples": self.samples,
            "duration": self.duration,
            "channel_ids": channels,
        }


@dataclass(frozen=True)
class Cut:
    """A stretch of a channel of a recording.

    Attributes:
        id: unique in the corpus.
        recording: its sound.
        start, end: seconds of the recording.
        supervisions: in the order of their starts.
        channel: counted from 0.
        custom: whatever else is known.
    """

    id: str
    recording: Recording
    start: float
    end: float
    supervisions: tuple[Supervision, ...] = ()
    channel: int = 0
    custom: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The cut as lhotse's `MonoCut.to_dict` has it."""
        return {
            "id": self.id,
            "start": self.start,
            "duration": _seconds(self.end - self.start),
            "channel": self.channel,
            "supervisions": [one.as_dict(self.recording.id, self.channel) for one in self.supervisions],
            "recording": self.recording.as_dict(),
            **({"custom": self.custom} if self.custom else {}),
            "type": "MonoCut",
        }


def _seconds(value: float) -> float:
    return round(value, 8)


def write_cuts(path: Path, cuts: Iterable[Cut]) -> int:
    """Writes a manifest, compressed if its name ends in `.gz`; the file's own writer, not an atomic one.

    Returns:
        How many cuts it has.
    """
    count = 0
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as lines:
        for count, cut in enumerate(cuts, 1):  # noqa: B007 - counted
            lines.write(json.dumps(cut.as_dict(), ensure_ascii=False) + "\n")
    return count


def cut_of(record: dict[str, Any]) -> Cut:
    """The inverse of `Cut.as_dict`; also reads what lhotse wrote of a `MonoCut`.

    Raises:
        KeyError, TypeError, ValueError: the record is no such cut.
    """
    sound = record["recording"]
    sources = sound["sources"]
    recording = Recording(
        id=str(sound["id"]),
        sampling_rate=int(sound["sampling_rate"]),
        samples=int(sound["num_samples"]),
        path=str(sources[0]["source"]) if sources and sources[0]["type"] == "file" else "",
        channels=len(sound.get("channel_ids") or sources[0]["channels"]),
    )
    start = float(record["start"])
    return Cut(
        id=str(record["id"]),
        recording=recording,
        start=start,
        end=start + float(record["duration"]),
        supervisions=tuple(supervision_of(one) for one in record.get("supervisions") or ()),
        channel=int(record.get("channel") or 0),
        custom=record.get("custom") or {},
    )


def supervision_of(record: dict[str, Any]) -> Supervision:
    """The inverse of `Supervision.as_dict`, and of what lhotse writes of one; raises as `cut_of` does."""
    start = float(record["start"])
    words = (record.get("alignment") or {}).get("word") or ()
    return Supervision(
        id=str(record["id"]),
        start=start,
        end=_seconds(start + float(record["duration"])),
        text=record.get("text") or "",
        speaker=record.get("speaker") or "",
        language=record.get("language") or "",
        words=tuple(TimedWord(word[0], word[1], _seconds(word[1] + word[2]), *word[3:4]) for word in words),
        custom=record.get("custom") or {},
    )


def read_cuts(path: Path) -> Iterator[Cut]:
    """The cuts of a manifest, a line at a time.

    Raises:
        CwjaxError: it cannot be read, or a line is no cut; the message names the line.
    """
    number = 0
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - named in the message
                if line.strip():
                    yield cut_of(json.loads(line))
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise CwjaxError(f"{path}:{number}: is no cut of one channel ({type(error).__name__}: {error})") from error
