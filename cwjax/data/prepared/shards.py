"""One shard of a prepared corpus: some units of a corpus read, cut and written, by one process.

Beside the shard stand two files from which the whole is put together when all shards are there: `SHARD.lines`, its
part of the index, and `SHARD.json`, what its units gave. The latter is written last: where it is, all is there.
"""

import errno
import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cwjax.data.audio.spans import read_spans
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.registry import CorpusName, reader
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.prepared.corpus import AudioFormat, encode_record, open_shard, shard_name
from cwjax.data.prepared.index import index_line
from cwjax.data.prepared.splits import Member
from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTask:
    """What a process is to do.

    Attributes:
        corpus, root: what is read.
        units: in the order in which they are written.
        directory: receives the shard, an existing folder.
        number: of the shard.
        audio: form of its records.
        limits: by which articles are cut.
    """

    corpus: CorpusName
    root: Path
    units: tuple[Unit, ...]
    directory: Path
    number: int
    audio: AudioFormat
    limits: SegmentationSettings

    @property
    def shard(self) -> str:
        """File name of the shard."""
        return shard_name(self.number, self.audio)


@dataclass
class UnitSummary:
    """What a unit gave: for the report.

    Attributes:
        name: of the unit.
        failure: why it gave nothing; empty if it gave something.
        segments, seconds: kept.
        dropped: seconds left out, by reason.
        holes: number by kind.
        timed_ratio: share of timed words.
        language, reader, licence, source: of its first segment.
        warnings: what is odd about it.
    """

    name: str
    failure: str = ""
    segments: int = 0
    seconds: float = 0.0
    dropped: dict[str, float] = field(default_factory=dict)
    holes: dict[str, int] = field(default_factory=dict)
    timed_ratio: float | None = None
    language: str = ""
    reader: str = ""
    licence: str = ""
    source: str = ""
    warnings: tuple[str, ...] = ()


@dataclass
class ShardSummary:
    """What a shard's units gave.

    Attributes:
        shard: its file name.
        fingerprint: of the units' names.
        units: in order.
        members: which speakers are heard in which articles.
        lengths: number of segments by full seconds.
        speeds: number of segments by full characters per second.
        speaker_seconds, article_seconds, article_segments: by speaker and by article.
    """

    shard: str
    fingerprint: str
    units: list[UnitSummary] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    lengths: Counter[str] = field(default_factory=Counter)
    speeds: Counter[str] = field(default_factory=Counter)
    speaker_seconds: Counter[str] = field(default_factory=Counter)
    article_seconds: Counter[str] = field(default_factory=Counter)
    article_segments: Counter[str] = field(default_factory=Counter)

    @property
    def segments(self) -> int:
        """How many segments the shard holds."""
        return sum(unit.segments for unit in self.units)

    @classmethod
    def read(cls, path: Path) -> "ShardSummary | None":
        """What an earlier run wrote, or None if it did not come so far."""
        try:
            fields: dict[str, Any] = json.loads(path.read_bytes())
            units = [UnitSummary(**{**unit, "warnings": tuple(unit["warnings"])}) for unit in fields.pop("units")]
            members = [Member(*member) for member in fields.pop("members")]
            return cls(fields.pop("shard"), fields.pop("fingerprint"), units, members, **fields)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def lines_file(directory: Path, shard: str) -> Path:
    """Where a shard's part of the index stands, each line behind its article and a tab."""
    return directory / f"{shard}.lines"


def summary_file(directory: Path, shard: str) -> Path:
    """Where stands what a shard's units gave."""
    return directory / f"{shard}.json"


def finished(task: ShardTask) -> ShardSummary | None:
    """What the shard's units gave, if an earlier run has written it from the same units."""
    summary = ShardSummary.read(summary_file(task.directory, task.shard))
    return summary if summary and summary.fingerprint == _fingerprint(task.units) else None


def write_shard(task: ShardTask) -> ShardSummary:
    """Reads the units of a shard and writes it, unless it is there already.

    Raises:
        OSError: it cannot be written.
    """
    if done := finished(task):
        return done
    summary = ShardSummary(task.shard, _fingerprint(task.units))
    members: dict[Member, None] = {}
    shard = task.directory / task.shard
    writer = None
    try:
        # Half a surrogate pair, which JSON may hold, cannot be written as UTF-8.
        with lines_file(task.directory, task.shard).open("w", encoding="utf-8", errors="replace") as lines:
            for unit in task.units:
                result, records = _read_unit(task, unit)
                summary.units.append(result)
                for segment, record in records:
                    writer = writer or open_shard(shard)
                    writer.write(record)
                    # A JSON string holds no tab.
                    lines.write(f"{json.dumps(segment.article)}\t{index_line(segment, task.shard)}")
                    members[Member(segment.article, segment.speaker, segment.split)] = None
                    summary.lengths[str(int(segment.duration))] += 1
                    summary.speeds[str(int(len(segment.text) / segment.duration))] += 1
                    summary.speaker_seconds[segment.speaker] += segment.duration
                    summary.article_seconds[segment.article] += segment.duration
                    summary.article_segments[segment.article] += 1
        if writer:
            writer.close()
    except RuntimeError as error:  # of ArrayRecord, most likely a full disk
        raise OSError(errno.EIO, str(error), str(shard)) from error
    summary.members = list(members)
    aside = task.directory / f"{task.shard}.partial"
    aside.write_text(json.dumps(vars(summary) | {"units": [vars(unit) for unit in summary.units]}), encoding="utf-8")
    aside.replace(summary_file(task.directory, task.shard))
    return summary


def _fingerprint(units: Sequence[Unit]) -> str:
    return hashlib.sha256("\n".join(unit.name for unit in units).encode(errors="surrogateescape")).hexdigest()


def _read_unit(task: ShardTask, unit: Unit) -> tuple[UnitSummary, list[tuple[Segment, bytes]]]:
    """The segments of a unit with their records, but for those whose audio file is damaged."""
    try:
        unit.name.encode()
    except UnicodeEncodeError:
        name = unit.name.encode(errors="backslashreplace").decode()
        return UnitSummary(name, failure=f"{task.root / name}: its name is no UTF-8; rename it"), []
    try:
        reading = reader(task.corpus).read(task.root, unit, task.limits)
        audible, problems = _audible(task, reading)
        if problems and not audible:
            raise CwjaxError(problems[0])
    except CwjaxError as error:
        return UnitSummary(unit.name, failure=str(error)), []
    except Exception as error:  # one article in a thousand must not end the work of a night
        log.debug("%s", unit.name, exc_info=True)
        return UnitSummary(unit.name, failure=f"{unit.name}: cannot be read ({type(error).__name__}: {error})"), []
    segments = [segment for segment, _ in audible]
    first = segments[0] if segments else None
    seconds = sum(segment.duration for segment in segments)
    lost = sum(piece.segment.duration for piece in reading.pieces) - seconds
    summary = UnitSummary(
        name=unit.name,
        segments=len(segments),
        seconds=seconds,
        dropped=reading.dropped | ({"damaged_audio": lost} if problems else {}),
        holes=reading.holes,
        timed_ratio=reading.timed_ratio,
        language=first.language if first else "",
        reader=reading.reader,
        licence=first.licence if first else "",
        source=first.source if first else "",
        warnings=(*reading.warnings, *problems),
    )
    return summary, audible


def _audible(task: ShardTask, reading: Reading) -> tuple[list[tuple[Segment, bytes]], list[str]]:
    """The segments that can be heard with their records, and what is wrong with files that cannot.

    Every file is decoded once for each channel that is wanted of it. Of a damaged file nothing is kept: what can be
    decoded of it may be displaced.
    """
    by_file: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for number, (segment, span) in enumerate(reading.pieces):
        by_file[segment.audio, span.channel].append(number)
    records: dict[int, bytes] = {}
    problems: dict[str, None] = {}
    for (audio, channel), numbers in by_file.items():
        spans = [reading.pieces[number].span[:2] for number in numbers]
        try:
            decoded = {
                numbers[place]: encode_record(samples, task.audio)
                for place, samples in read_spans(task.root / audio, spans, channel)
            }
        except CwjaxError as error:
            problems[str(error)] = None
        else:
            records |= decoded
    return [(reading.pieces[number].segment, records[number]) for number in sorted(records)], list(problems)
