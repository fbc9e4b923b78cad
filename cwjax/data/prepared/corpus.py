"""The prepared form of a corpus: what training reads, whatever the corpus was.

A folder with `index.jsonl`, a segment a line: the fields of `Segment` and `shard`, the ArrayRecord file that holds
its audio. The records of a shard are in the order of their lines, each the samples of one segment at 16 kHz, as a FLAC
file or as bare little-endian 16-bit numbers; the shard's name says which. ArrayRecord keeps a checksum of every record
and compares it when the record is read. Any number of processes may read the folder at once, in any order.
"""

import importlib
import io
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import soundfile

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.audio.pcm16 import from_pcm16, to_pcm16
from cwjax.data.prepared.index import INDEX_FILE, SegmentIndex, index_line
from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError
from cwjax.files import local_path

if TYPE_CHECKING:
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from array_record.python.array_record_module import ArrayRecordWriter

CORPUS_FILE = "corpus.json"
SEGMENTS_PER_SHARD = 2048

AudioFormat = Literal["pcm16", "flac"]


class PreparedCorpus:
    """A prepared corpus.

    Attributes:
        directory: where it lies.
        segments: all segments in the order of the index, parsed when asked for.
    """

    def __init__(self, directory: str | Path):
        self.directory = local_path(directory)
        self.segments = SegmentIndex(self.directory / INDEX_FILE)

    @classmethod
    def read(cls, directory: str | Path) -> "PreparedCorpus":
        """Reads the index; the audio is read when asked for.

        Raises:
            CwjaxError: the folder is no prepared corpus, its index is damaged, or the package array_record is missing.
        """
        require_array_record()
        return cls(directory)

    def __getstate__(self) -> dict[str, Any]:
        """Open files stay behind when the corpus travels to another process."""
        return {"directory": self.directory, "segments": self.segments}

    def positions(self, split: str) -> list[int]:
        """Positions in `segments` of the segments of a split."""
        return self.segments.positions(split)

    def pcm16(self, position: int) -> np.ndarray:
        """Samples of a segment at 16 kHz, (n,) int16.

        Raises:
            CwjaxError: the shard is missing or damaged.
        """
        name, number = self.segments.shard(position), self.segments.record(position)
        try:
            record = self._sources[name][number]
            return decode_record(record, shard_format(name))
        except Exception as error:
            shard = self.directory / name
            state = f"record {number} is damaged" if shard.exists() else "is missing"
            raise CwjaxError(f"{shard}: {state}; delete {self.directory} and prepare the corpus again") from error

    def audio(self, position: int) -> np.ndarray:
        """Samples of a segment at 16 kHz, (n,) float32 in -1..1. Raises CwjaxError as `pcm16` does."""
        return from_pcm16(self.pcm16(position))

    @cached_property
    def _sources(self) -> "_Shards":
        return _Shards(self.directory)


class _Shards(dict[str, "ArrayRecordDataSource"]):
    """The shards that were needed so far, open."""

    def __init__(self, directory: Path):
        super().__init__()
        self._directory = directory

    def __missing__(self, name: str) -> "ArrayRecordDataSource":
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self[name] = ArrayRecordDataSource([str(self._directory / name)])
        return self[name]


def shard_name(number: int, audio: AudioFormat) -> str:
    """File name of a shard."""
    return f"audio-{number:05d}.{audio}.array_record"


def shard_format(name: str) -> AudioFormat:
    """What the records of a shard hold, by its name."""
    return "flac" if name.endswith(".flac.array_record") else "pcm16"


def require_array_record() -> None:
    """Raises CwjaxError if the package that reads and writes shards is missing, as it is on Windows."""
    try:
        importlib.import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise CwjaxError(
            f"prepared corpora need the package array_record, which cannot be imported here ({error}); it exists for "
            "Linux and for macOS on Apple silicon: pip install array_record; on Windows, prepare, train and evaluate "
            "in WSL 2"
        ) from error


def open_shard(path: Path) -> "ArrayRecordWriter":
    """A shard to be written; every record can be read without its neighbours."""
    from array_record.python.array_record_module import ArrayRecordWriter

    return ArrayRecordWriter(str(path), "group_size:1,uncompressed")


def encode_record(samples: np.ndarray, audio: AudioFormat) -> bytes:
    """The record of (n,) int16 samples."""
    if audio == "pcm16":
        return samples.astype("<i2").tobytes()
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_record(record: bytes, audio: AudioFormat) -> np.ndarray:
    """The inverse of `encode_record`."""
    if audio == "pcm16":
        return np.frombuffer(record, "<i2")
    return soundfile.read(io.BytesIO(record), dtype="int16")[0]


def write_prepared(
    directory: str | Path,
    segments: Iterable[tuple[Segment, np.ndarray]],
    with_splits: Callable[[list[Segment]], list[Segment]],
    audio: AudioFormat = "pcm16",
) -> list[Segment]:
    """Writes shards and index into an existing folder, holding no more audio than one segment.

    Args:
        directory: receives the files.
        segments: each with its samples at 16 kHz, (n,) float32 in -1..1.
        with_splits: gives all segments, in the same order, their splits once all are known.
        audio: form of the records.

    Returns:
        The segments as the index has them.
    """
    directory = Path(directory)
    written: list[Segment] = []
    writer = None
    for segment, samples in segments:
        if len(written) % SEGMENTS_PER_SHARD == 0:
            if writer:
                writer.close()
            writer = open_shard(directory / shard_name(len(written) // SEGMENTS_PER_SHARD, audio))
        writer.write(encode_record(to_pcm16(samples), audio))
        written.append(segment)
    if writer:
        writer.close()
    written = with_splits(written)
    with (directory / INDEX_FILE).open("w", encoding="utf-8") as index:
        for place, segment in enumerate(written):
            index.write(index_line(segment, shard_name(place // SEGMENTS_PER_SHARD, audio)))
    return written
