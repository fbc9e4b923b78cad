"""The prepared form of a corpus: what training and evaluation read, whatever the corpus was.

A folder with `corpus.json` (version, settings, sizes of the files), `shards/` (lhotse's Shar layout, continuous mono
audio at 16 kHz: `lhotse.CutSet.from_shar(in_dir=FOLDER / "shards")`), `articles.jsonl` (what is known of each article,
once; supervisions name it in `custom["article"]`), `index/` (`cwjax.data.prepared.index`), and where a model has scored
the corpus `quality.npy`. Segments are drawn from it as they are wanted. Any number of processes may read it at once.
"""

import io
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import soundfile

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.audio.pcm16 import from_pcm16
from cwjax.data.cuts import Supervision, supervision_of
from cwjax.data.prepared.index import (
    AFTER_GAP,
    ARTICLES_FILE,
    BEGINS_RUN,
    WAV_HEADER,
    PreparedFiles,
    cuts_file,
    hash_of,
    sounds_file,
)
from cwjax.data.prepared.splits import SPLITS
from cwjax.data.prepared.windows import Runs
from cwjax.data.segment import Segment, join_texts, latest_text, segment_of
from cwjax.errors import CwjaxError

QUALITY_FILE = "quality.npy"
"""Character error rates of every supervision, (n, 3) float32: of the whole, and of its first and its last characters,
where a wrong cut would show."""


class PreparedCorpus:
    """A prepared corpus.

    Args:
        directory: where it lies.
        window_seconds: longest duration of a segment, unless one supervision alone is longer; None: that by which the
            corpus was prepared.

    Attributes:
        directory: where it lies.
        settings: of `corpus.json`.
        supervisions: the table of all supervisions, see `cwjax.data.prepared.index`.
        segments: whole supervisions gathered to windows, always the same; read when asked for.

    Raises CwjaxError if the folder is no prepared corpus, or a file of it is missing or has changed.
    """

    def __init__(self, directory: str | Path, window_seconds: float | None = None):
        self._files = PreparedFiles(directory)
        self.directory, self.settings = self._files.directory, self._files.settings
        self.window_seconds = window_seconds or self.settings["segmentation"]["max_duration"]

    @classmethod
    def read(cls, directory: str | Path, window_seconds: float | None = None) -> "PreparedCorpus":
        """Reads a prepared corpus."""
        return cls(directory, window_seconds)

    def __getstate__(self) -> dict[str, Any]:
        """Tables stay behind when the corpus travels to another process."""
        kept = ("_files", "directory", "settings", "window_seconds")
        return {name: value for name, value in vars(self).items() if name in kept}

    @cached_property
    def supervisions(self) -> np.ndarray:
        """The table of all supervisions."""
        return self._files.table("supervisions")

    @cached_property
    def segments(self) -> "Segments":
        """Whole supervisions gathered to windows; read when asked for."""
        return Segments(self)

    @cached_property
    def quality(self) -> np.ndarray | None:
        """Character error rates of every supervision, see `QUALITY_FILE`; None until a model has scored the corpus."""
        path = self.directory / QUALITY_FILE
        if not path.exists():
            return None
        try:
            rates = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise CwjaxError(f"{path}: cannot be read ({error}); delete it and score the corpus again") from None
        if rates.shape != (len(self.supervisions), 3):
            raise CwjaxError(f"{path}: is of another corpus; delete it and score the corpus again")
        return rates

    def positions(self, split: str) -> list[int]:
        """Positions in `segments` of the segments of a split."""
        splits = self.supervisions["split"][self.segments.begins]
        return np.flatnonzero(splits == SPLITS.index(split)).tolist()

    def pcm16(self, position: int) -> np.ndarray:
        """Samples of a segment at 16 kHz, (n,) int16. Raises CwjaxError as `sound` does."""
        first, last = self.segments.supervisions(position)
        rows = self.supervisions
        return self.sound(int(rows["cut"][first]), float(rows["start"][first]), float(rows["end"][last - 1]))

    def audio(self, position: int) -> np.ndarray:
        """Samples of a segment at 16 kHz, (n,) float32 in -1..1. Raises CwjaxError as `sound` does."""
        return from_pcm16(self.pcm16(position))

    def sound(self, recording: int, start: float, end: float) -> np.ndarray:
        """Samples of a stretch of a recording at 16 kHz, (n,) int16.

        Raises:
            CwjaxError: the shard is damaged, or another corpus's.
        """
        shard, at, size, samples, _ = self._files.table("cuts")[recording].tolist()
        first = round(start * SAMPLING_RATE)
        last = min(round(end * SAMPLING_RATE), samples)
        if self.settings["audio"] == "pcm16":
            begin = at + WAV_HEADER
            return self._files.sound_bytes(shard, begin + 2 * first, begin + 2 * last).view("<i2")
        member = _Member(self._files, shard, at, size)
        try:
            with soundfile.SoundFile(member) as file:
                file.seek(first)
                found = file.read(last - first, dtype="int16")
        except soundfile.LibsndfileError as error:
            path = self.directory / sounds_file(shard)
            raise member.failure or CwjaxError(f"{path}: {error.error_string}; {self._files.cure}") from error
        if member.failure:
            raise member.failure
        return found

    def read_supervisions(self, first: int, last: int) -> list[Supervision]:
        """Supervisions `first` to before `last`, all of one recording.

        Raises:
            CwjaxError: they are not in their place.
        """
        rows = self.supervisions[first:last]
        shard, _, _, _, name = self._files.table("cuts")[int(rows["cut"][0])].tolist()
        content = self._files.bytes_of(cuts_file(shard))
        text = content[int(rows["at"][0]) : int(rows["at"][-1]) + int(rows["size"][-1])].tobytes()
        try:
            records = json.loads(b"[" + text + b"]")
            if len(records) != len(rows) or hash_of(records[0]["recording_id"]) != name:
                raise ValueError("not what the index says")
            return [supervision_of(one) for one in records]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            path = self.directory / cuts_file(shard)
            raise CwjaxError(f"{path}: was changed at byte {rows['at'][0]:,} ({error}); {self._files.cure}") from None

    def all_supervisions(self) -> Iterator[Supervision]:
        """All supervisions in the order of their table. Raises CwjaxError as `read_supervisions` does."""
        for shard in self.settings["shards"]:
            path = self.directory / cuts_file(shard)
            try:
                with path.open("rb") as lines:
                    for line in lines:
                        yield from map(supervision_of, json.loads(line)["supervisions"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CwjaxError(f"{path}: was changed ({error}); {self._files.cure}") from None

    def texts(self, split: str) -> Iterator[str]:
        """The texts of a split. Raises CwjaxError as `read_supervisions` does."""
        return (one.text for one in self.all_supervisions() if one.custom["split"] == split)

    def article(self, number: int) -> dict[str, Any]:
        """What is known of an article. Raises CwjaxError if the table is damaged."""
        start, end = self._files.table("articles")[number : number + 2].tolist()
        try:
            return json.loads(self._files.bytes_of(ARTICLES_FILE)[start:end].tobytes())
        except ValueError as error:
            path = self.directory / ARTICLES_FILE
            raise CwjaxError(f"{path}:{number + 1}: was changed ({error}); {self._files.cure}") from None

    def segment(self, first: int, said: Sequence[Supervision], before: str = "", previous: bool = True) -> Segment:
        """Supervisions as one segment.

        Args:
            first: number of the first of them, or of the one that it is a part of.
            said: what is said, in order, of one run.
            before: the parts before, where the first is a part.
            previous: whether what was said before is wanted.
        """
        row = self.supervisions[first]
        text = self._previous(first, said[0], before) if previous else ""
        return segment_of(said, self.article(int(row["article"])), int(row["cut"]), text)

    def _previous(self, first: int, said: Supervision, text: str) -> str:
        """What was said before a text, from a supervision on backwards to a gap, or to what the corpus
        lists itself."""
        flags, longest = self.supervisions["flags"], self.settings["segmentation"]["previous_characters"]
        while "previous" not in said.custom and not flags[first] & AFTER_GAP and len(text) <= longest:
            first -= 1
            (said,) = self.read_supervisions(first, first + 1)
            text = join_texts((said.text, text), said.language)
        return latest_text(join_texts((said.custom.get("previous", ""), text), said.language), longest)


class Segments(Sequence[Segment]):
    """The segments of a corpus; each is read when it is asked for.

    Attributes:
        begins: number of the first supervision of each, (n,).
    """

    def __init__(self, corpus: PreparedCorpus):
        self._corpus = corpus
        rows = corpus.supervisions
        self._runs = Runs(rows["start"], rows["end"], rows["flags"] & BEGINS_RUN > 0)
        self.begins = self._runs.windows(self._runs.furthest(corpus.window_seconds))
        self._ends = np.append(self.begins[1:], len(rows))

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, place: int) -> Segment: ...
    @overload
    def __getitem__(self, place: slice) -> list[Segment]: ...

    def __getitem__(self, place: int | slice) -> Segment | list[Segment]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        first, last = self.supervisions(place)
        return self._corpus.segment(first, self._corpus.read_supervisions(first, last))

    def supervisions(self, place: int) -> tuple[int, int]:
        """The first supervision of a segment, and the one after the last."""
        place = range(len(self))[place]
        return int(self.begins[place]), int(self._ends[place])


class _Member(io.RawIOBase):
    """A file in a shard, whose bytes are compared with their checksums as they are read.

    Attributes:
        failure: what was found wrong with them; libsndfile takes it for the end of the file.
    """

    def __init__(self, files: PreparedFiles, shard: int, at: int, size: int):
        self._files, self._shard, self._at, self._size = files, shard, at, size
        self._place = 0
        self._checked: set[int] = set()
        self.failure: CwjaxError | None = None

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes."""
        first, end = self._at + self._place, self._at + self._size
        try:
            content = self._files.sound_bytes(self._shard, first, min(first + len(buffer), end), self._checked)
        except CwjaxError as error:
            self.failure = error
            return 0
        memoryview(buffer)[: len(content)] = content
        self._place += len(content)
        return len(content)
