"""One shard of a prepared corpus: some units of a corpus read and written, by one process.

The sound goes to where it stays. Until all shards are put together (`cwjax.data.prepared.assembly`), there are also
`parts/NUMBER.cuts`, `.articles` and `.blocks`, and `parts/NUMBER.json`, what the units gave. That is written last:
where it is, all is there.
"""

import hashlib
import io
import json
import logging
import os
import re
import tarfile
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import soundfile

from cwjax.data.audio.decode import audio_blocks
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.audio.pcm16 import to_pcm16
from cwjax.data.audio.spans import require_complete, tolerance
from cwjax.data.corpora.reader import Facts, Reading, Track, Unit, of_article
from cwjax.data.corpora.registry import CorpusName, reader
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.cuts import Cut, Recording
from cwjax.data.prepared.index import WAV_HEADER, AudioFormat, checksums, sounds_file
from cwjax.data.prepared.splits import Member
from cwjax.errors import CwjaxError
from cwjax.files import write_text

log = logging.getLogger(__name__)

ENDINGS: dict[AudioFormat, str] = {"pcm16": "wav", "flac": "flac"}

_IN_MEMORY = 1 << 26
"""Bytes of a recording that are not put on the disk before it goes into the shard."""


@dataclass(frozen=True)
class ShardTask:
    """What a process is to do.

    Attributes:
        corpus, root: what is read.
        units: in the order in which they are written.
        directory: in which the corpus is put together, with its folders.
        number: of the shard.
        audio: form of its sound.
        limits: by which articles are cut.
    """

    corpus: CorpusName
    root: Path
    units: tuple[Unit, ...]
    directory: Path
    number: int
    audio: AudioFormat
    limits: SegmentationSettings

    def part(self, ending: str) -> Path:
        """A file that is needed until all shards are put together."""
        return part_file(self.directory, self.number, ending)

    @property
    def sounds(self) -> Path:
        """The shard's sound."""
        return corpus_folder(self.directory) / sounds_file(self.number)


def corpus_folder(directory: Path) -> Path:
    """What becomes the prepared corpus, in the folder in which it is put together."""
    return directory / "corpus"


def part_file(directory: Path, shard: int, ending: str) -> Path:
    """A file of a shard that is needed until all are put together."""
    return directory / "parts" / f"{shard:06d}.{ending}"


@dataclass
class UnitSummary:
    """What a unit gave: for the report.

    Attributes:
        name: of the unit.
        failure: why it gave nothing; empty if it gave something.
        utterances, seconds: kept; supervisions, and how long they are.
        dropped: seconds left out, by reason.
        holes: number by kind.
        timed_ratio: share of timed words.
        language, reader, licence, source: of its first supervision.
        warnings: what is odd about it.
    """

    name: str
    failure: str = ""
    utterances: int = 0
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
        fingerprint: of the units.
        recordings: how many it holds.
        units: in order.
        members: which speakers are heard in which articles.
        lengths: number of supervisions by full seconds.
        speeds: number of supervisions by full characters per second.
        speaker_seconds: by speaker.
    """

    fingerprint: str
    recordings: int = 0
    units: list[UnitSummary] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    lengths: Counter[str] = field(default_factory=Counter)
    speeds: Counter[str] = field(default_factory=Counter)
    speaker_seconds: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path) -> "ShardSummary | None":
        """What an earlier run wrote, or None if it did not come so far."""
        try:
            fields: dict[str, Any] = json.loads(path.read_bytes())
            units = [UnitSummary(**{**unit, "warnings": tuple(unit["warnings"])}) for unit in fields.pop("units")]
            members = [Member(*member) for member in fields.pop("members")]
            return cls(units=units, members=members, **fields)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_shard(task: ShardTask) -> ShardSummary:
    """Reads the units of a shard and writes it, unless an earlier run has done so.

    Raises:
        OSError: it cannot be written.
    """
    fingerprint = hashlib.sha256("\n".join(unit.name for unit in task.units).encode(errors="surrogateescape"))
    done = ShardSummary.read(task.part("json"))
    if done and done.fingerprint == fingerprint.hexdigest():
        return done
    writer = _ShardWriter(task, fingerprint.hexdigest())
    for unit in task.units:
        writer.summary.units.append(writer.add(unit))
    writer.finish()
    return writer.summary


class _ShardWriter:
    def __init__(self, task: ShardTask, fingerprint: str) -> None:
        self._task = task
        self.summary = ShardSummary(fingerprint)
        # Half a surrogate pair, which JSON may hold, cannot be written as UTF-8.
        self._cuts = task.part("cuts").open("w", encoding="utf-8", errors="replace")
        self._articles: dict[str, Facts] = {}
        self._members: dict[Member, None] = {}
        self._aside = task.part("tar")
        self._sounds = self._aside.open("wb")
        self._tar = tarfile.open(fileobj=self._sounds, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - as well

    def add(self, unit: Unit) -> UnitSummary:
        """Writes what is in a unit, but for recordings that are damaged."""
        task = self._task
        try:
            unit.name.encode()
        except UnicodeEncodeError:
            name = unit.name.encode(errors="backslashreplace").decode()
            return UnitSummary(name, failure=f"{task.root / name}: its name is no UTF-8; rename it")
        try:
            reading = reader(task.corpus).read(task.root, unit, task.limits)
        except CwjaxError as error:
            return UnitSummary(unit.name, failure=str(error))
        except Exception as error:  # one article in a thousand must not end the work of a night
            log.debug("%s", unit.name, exc_info=True)
            return UnitSummary(unit.name, failure=f"{unit.name}: cannot be read ({type(error).__name__}: {error})")
        summary = UnitSummary(
            unit.name,
            dropped=dict(reading.dropped),
            holes=reading.holes,
            timed_ratio=reading.timed_ratio,
            reader=reading.reader,
        )
        problems: dict[str, None] = {}
        for track in reading.tracks:
            try:
                self._add_track(track, reading, summary)
            except CwjaxError as error:
                problems[str(error)] = None
                lost = sum(one.end - one.start for one in track.supervisions)
                summary.dropped["damaged_audio"] = summary.dropped.get("damaged_audio", 0.0) + lost
        if problems and not summary.utterances:
            return UnitSummary(unit.name, failure=next(iter(problems)))
        summary.warnings = (*reading.warnings, *problems)
        return summary

    def _add_track(self, track: Track, reading: Reading, unit: UnitSummary) -> None:
        path = self._task.root / track.audio
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=self._aside.parent) as sound:
            samples = _decode(path, track.channel, sound, self._task.audio)
            if self._task.audio == "pcm16" and sound.seek(0, os.SEEK_END) != WAV_HEADER + 2 * samples:
                raise CwjaxError(f"{path}: is too long for a WAV; keep it as FLAC (--audio flac)")
            track = _inside(path, track, samples)
            number = self.summary.recordings
            name = f"{self._task.number:06d}-{number:05d}-{re.sub(r'[^0-9A-Za-z_-]+', '_', path.stem)[:40]}"
            size, checksum = self._add_file(f"{name}.{ENDINGS[self._task.audio]}", sound)
        offset = self._tar.offset - -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        recording = Recording(name, SAMPLING_RATE, samples)
        self._add_file(f"{name}.json", io.BytesIO(json.dumps(recording.as_dict()).encode()))
        custom = {"source": track.audio, "offset": offset, "size": size, "crc32": checksum}
        if track.channel is not None:
            custom["channel"] = track.channel
        supervisions = []
        for one in track.supervisions:
            article = one.custom["article"]
            facts = reading.articles[article]
            first = self._articles.setdefault(article, facts)
            supervisions.append(replace(one, custom=of_article(one.custom, facts, first)))
            member = Member(article, one.speaker, one.custom.get("split") or reading.splits.get(article, ""))
            self._members[member] = None
            seconds = one.end - one.start
            self.summary.lengths[str(int(seconds))] += 1
            self.summary.speeds[str(int(len(one.text) / max(seconds, 0.02)))] += 1
            self.summary.speaker_seconds[one.speaker] += seconds
            if not unit.utterances:
                unit.language = one.language
                unit.licence, unit.source = (one.custom.get(x, facts.get(x, "")) for x in ("licence", "source"))
            unit.utterances += 1
            unit.seconds += seconds
        cut = Cut(name, recording, 0.0, recording.duration, tuple(supervisions), custom=custom)
        self._cuts.write(json.dumps(cut.as_dict(), ensure_ascii=False) + "\n")
        self.summary.recordings += 1

    def _add_file(self, name: str, content: BinaryIO) -> tuple[int, int]:
        """Puts a file at the end of the shard; its size and CRC-32."""
        checksum, size = 0, content.seek(0, os.SEEK_END)
        content.seek(0)
        while block := content.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
        content.seek(0)
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        self._tar.addfile(member, content)
        return size, checksum

    def finish(self) -> None:
        """Puts everything on the disk, the summary last."""
        task = self._task
        self._tar.close()
        lines = (json.dumps({"id": name, **facts}, ensure_ascii=False) + "\n" for name, facts in self._articles.items())
        with task.part("articles").open("w", encoding="utf-8", errors="replace") as file:
            file.writelines(lines)
            _sync(file)
        with self._cuts as file:
            _sync(file)
        with self._sounds as file:
            _sync(file)
        task.part("blocks").write_bytes(checksums(self._aside).tobytes())
        self._aside.replace(task.sounds)
        self.summary.members = list(self._members)
        content = vars(self.summary) | {"units": [vars(unit) for unit in self.summary.units]}
        write_text(task.part("json"), json.dumps(content))


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _decode(path: Path, channel: int | None, file: BinaryIO, audio: AudioFormat) -> int:
    """Writes a recording, decoded once from its start, and returns how many samples it has.

    Raises CwjaxError if it is damaged: what can be decoded of it may be displaced.
    """
    samples = 0
    form = {"format": ENDINGS[audio].upper(), "subtype": "PCM_16"}
    with soundfile.SoundFile(file, "w", SAMPLING_RATE, 1, **form) as sound:
        for block in audio_blocks(path, channel=channel):
            sound.write(to_pcm16(block))
            samples += len(block)
    require_complete(path, samples / SAMPLING_RATE)
    return samples


def _inside(path: Path, track: Track, samples: int) -> Track:
    """The track, no supervision of which ends after its sound."""
    seconds = samples / SAMPLING_RATE
    late = max(one.end for one in track.supervisions) - seconds
    if late > tolerance(path) or min(one.start for one in track.supervisions) < 0:
        raise CwjaxError(f"{path}: ends at {seconds:.2f} s, before a segment of it does; are its times right?")
    if late <= 0:
        return track
    return track._replace(supervisions=tuple(replace(one, end=min(one.end, seconds)) for one in track.supervisions))
