"""`index.jsonl`, one segment a line, read where it is needed: a corpus may have millions of segments."""

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError

INDEX_FILE = "index.jsonl"

_HEAD = re.compile(rb'\{"id": "(?:[^"\\]|\\.)*", "shard": "([^"\\]*)", "split": "([^"\\]*)", .*\}\s*$', re.DOTALL)


def index_line(segment: Segment, shard: str) -> str:
    """The line of a segment, whose audio is in the named file."""
    record = segment.as_dict()
    return json.dumps({"id": record.pop("id"), "shard": shard, **record}, ensure_ascii=False) + "\n"


class SegmentIndex(Sequence[Segment]):
    """The segments of an index file; a line is parsed each time it is asked for.

    Travels to other processes as its path alone.

    Args:
        path: of `index.jsonl`, a local file.

    Raises CwjaxError if the file cannot be read, or has a line that is no segment.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._scan  # noqa: B018 - damage is found now, not in the middle of training

    @cached_property
    def _content(self) -> mmap.mmap | bytes:
        try:
            with self.path.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.path.stat().st_size else b""
        except OSError as error:
            raise CwjaxError(f"{self.path}: cannot be read; is {self.path.parent} a prepared corpus?") from error

    @cached_property
    def _scan(self) -> tuple[np.ndarray, list[str], np.ndarray, list[str], np.ndarray]:
        """Where each line begins; names of shards, and of each line which it is; names of splits, and the same."""
        starts, shards, splits = [0], [], []
        shard_numbers: dict[bytes, int] = {}
        split_numbers: dict[bytes, int] = {}
        for line in self._lines():
            shard, split = self._head(line, len(starts))
            shards.append(shard_numbers.setdefault(shard, len(shard_numbers)))
            splits.append(split_numbers.setdefault(split, len(split_numbers)))
            starts.append(starts[-1] + len(line))
        names = ([name.decode() for name in numbers] for numbers in (shard_numbers, split_numbers))
        shard_names, split_names = names
        return np.array(starts), shard_names, np.array(shards, np.int32), split_names, np.array(splits, np.int8)

    def _lines(self) -> Iterator[bytes]:
        if isinstance(self._content, mmap.mmap):
            self._content.seek(0)
            yield from iter(self._content.readline, b"")

    def _head(self, line: bytes, number: int) -> tuple[bytes, bytes]:
        """Shard and split of a line; quickly, if it was written by `index_line`."""
        if match := _HEAD.match(line):
            return match[1], match[2]
        fields = self._parse(line, number)
        return fields["shard"].encode(), fields["split"].encode()

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            fields = json.loads(line)
            return {**fields, "shard": str(fields["shard"]), "split": str(fields["split"])}
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(number, error) from error

    def _damaged(self, number: int, error: Exception) -> CwjaxError:
        return CwjaxError(
            f"{self.path}:{number}: damaged ({type(error).__name__}: {error}); delete {self.path.parent} and prepare "
            "again"
        )

    def __len__(self) -> int:
        return len(self._scan[0]) - 1

    @overload
    def __getitem__(self, place: int) -> Segment: ...
    @overload
    def __getitem__(self, place: slice) -> list[Segment]: ...

    def __getitem__(self, place: int | slice) -> Segment | list[Segment]:
        """The segment of a line, counted from 0."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        starts = self._scan[0]
        fields = self._parse(self._content[starts[place] : starts[place + 1]], place + 1)
        del fields["shard"]
        try:
            return Segment.from_dict(fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise self._damaged(place + 1, error) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def shard(self, place: int) -> str:
        """Name of the file that holds a segment's audio."""
        _, names, numbers, _, _ = self._scan
        return names[numbers[place]]

    @property
    def shards(self) -> list[str]:
        """Names of all files that hold audio."""
        return self._scan[1]

    @cached_property
    def _first_of_shard(self) -> np.ndarray:
        """Of each shard, its first line; the lines of a shard follow each other."""
        numbers = self._scan[2]
        _, first = np.unique(numbers, return_index=True)
        return first

    def record(self, place: int) -> int:
        """Which record of its shard a segment is."""
        return int(place - self._first_of_shard[self._scan[2][place]])

    def positions(self, split: str) -> list[int]:
        """The places of a split's segments."""
        _, _, _, names, numbers = self._scan
        return np.flatnonzero(numbers == names.index(split)).tolist() if split in names else []
