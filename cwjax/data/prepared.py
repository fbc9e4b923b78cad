"""The prepared form of a corpus: what training reads, whatever the corpus was.

A folder of ArrayRecord shards, each record the PCM16 samples of one segment at 16 kHz, and
`index.jsonl` with one segment a line: the fields of `Segment` plus `shard`, `record` (its place in
the shard) and `crc32` of the record. Any number of processes may read it at once, in any order.
"""

import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError

INDEX_FILE = "index.jsonl"
CORPUS_FILE = "corpus.json"
SEGMENTS_PER_SHARD = 2048


@dataclass(frozen=True)
class PreparedCorpus:
    """A prepared corpus on disk.

    Attributes:
        directory: where it lies.
        segments: all segments in the order of the index.
        shards: of each segment, its shard's file name.
        records: of each segment, its place in the shard.
        checksums: of each segment, the CRC-32 of its record.
    """

    directory: Path
    segments: tuple[Segment, ...]
    shards: tuple[str, ...]
    records: tuple[int, ...]
    checksums: tuple[int, ...]

    @classmethod
    def read(cls, directory: str | Path) -> "PreparedCorpus":
        """Reads the index; the audio is read when asked for.

        Raises:
            CwjaxError: the folder is no prepared corpus, or its index is damaged.
        """
        index = Path(directory) / INDEX_FILE
        segments, shards, records, checksums = [], [], [], []
        number = 0
        try:
            with index.open(encoding="utf-8") as lines:
                for line in lines:
                    number += 1
                    fields = json.loads(line)
                    shards.append(fields.pop("shard"))
                    records.append(fields.pop("record"))
                    checksums.append(fields.pop("crc32"))
                    segments.append(Segment.from_dict(fields))
        except OSError as error:
            raise CwjaxError(f"{index}: cannot be read; is {directory} a prepared corpus?") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CwjaxError(f"{index}:{number}: damaged ({error}); delete {directory} and prepare again") from error
        return cls(Path(directory), tuple(segments), tuple(shards), tuple(records), tuple(checksums))

    @cached_property
    def _sources(self) -> dict[str, ArrayRecordDataSource]:
        return {shard: ArrayRecordDataSource([str(self.directory / shard)]) for shard in sorted(set(self.shards))}

    def __getstate__(self) -> dict[str, Any]:
        """Open files stay behind when the corpus travels to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_sources"}

    def positions(self, split: str) -> list[int]:
        """Positions in `segments` of the segments of a split."""
        return [place for place, segment in enumerate(self.segments) if segment.split == split]

    def audio(self, position: int) -> np.ndarray:
        """Samples of a segment at 16 kHz, (n,) float32 in -1..1.

        Raises:
            CwjaxError: the shard is missing or the record is damaged.
        """
        shard = self.directory / self.shards[position]
        try:
            record = self._sources[shard.name][self.records[position]]
        except Exception as error:
            raise CwjaxError(f"{shard}: cannot be read; delete {self.directory} and prepare again") from error
        if zlib.crc32(record) != self.checksums[position]:
            raise CwjaxError(f"{shard}: record {self.records[position]} is damaged; prepare the corpus again")
        return np.frombuffer(record, "<i2").astype(np.float32) / 32768


def write_prepared(
    directory: str | Path,
    segments: Iterable[tuple[Segment, np.ndarray]],
    with_splits: Callable[[list[Segment]], list[Segment]],
) -> list[Segment]:
    """Writes shards and index into an existing folder, holding no more audio than one segment.

    Args:
        directory: receives the files.
        segments: each with its samples at 16 kHz, (n,) float32 in -1..1.
        with_splits: gives all segments, in the same order, their splits once all are known.

    Returns:
        The segments as the index has them.
    """
    directory = Path(directory)
    written: list[Segment] = []
    places: list[dict[str, Any]] = []
    writer, shard = None, ""
    for segment, samples in segments:
        record_number = len(written) % SEGMENTS_PER_SHARD
        if record_number == 0:
            if writer:
                writer.close()
            shard = f"audio-{len(written) // SEGMENTS_PER_SHARD:05d}.array_record"
            writer = ArrayRecordWriter(str(directory / shard), "group_size:1,uncompressed")
        record = np.round(np.clip(samples, -1, 32767 / 32768) * 32768).astype("<i2").tobytes()
        writer.write(record)
        places.append({"shard": shard, "record": record_number, "crc32": zlib.crc32(record)})
        written.append(segment)
    if writer:
        writer.close()
    written = with_splits(written)
    with (directory / INDEX_FILE).open("w", encoding="utf-8") as index:
        for segment, place in zip(written, places, strict=True):
            index.write(json.dumps(segment.as_dict() | place, ensure_ascii=False) + "\n")
    return written
