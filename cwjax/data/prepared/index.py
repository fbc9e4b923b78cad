"""Where everything lies in a prepared corpus: tables of numbers that are mapped, not read, and checksums.

`index/*.bin` are rows without a header, little-endian; `corpus.json` names every file with its size, so that one that
was changed, cut short or exchanged is noticed.
"""

import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.files import local_path, read_json

AudioFormat = Literal["pcm16", "flac"]
WAV_HEADER = 44
"""Bytes before the samples of 16 bits."""
CORPUS_FILE = "corpus.json"
ARTICLES_FILE = "articles.jsonl"
FORMAT, VERSION = "cwjax prepared corpus", 2
BLOCK = 1 << 16
"""Bytes of a shard that have a checksum."""
BEGINS_RUN, AFTER_GAP, LISTS_PREVIOUS = 1, 2, 4
"""Flags of a supervision: no window holds it and the one before; it is not known what was said before; that is listed
with it."""

TABLES = {
    "supervisions": np.dtype(
        [
            ("cut", "<u4"),
            ("start", "<f8"),
            ("end", "<f8"),
            ("at", "<u8"),  # of its text in the file of cuts
            ("size", "<u4"),
            ("article", "<u4"),
            ("split", "u1"),
            ("flags", "u1"),
        ]
    ),
    "cuts": np.dtype([("shard", "<u4"), ("at", "<u8"), ("size", "<u8"), ("samples", "<u8"), ("name", "<u4")]),
    "articles": np.dtype("<u8"),  # where the lines begin, and where the last one ends
    "blocks": np.dtype("<u4"),
}


def cuts_file(shard: int) -> str:
    """Where the cuts of a shard stand, in a corpus's folder."""
    return f"shards/cuts.{shard:06d}.jsonl"


def sounds_file(shard: int) -> str:
    """Where their sound is."""
    return f"shards/recording.{shard:06d}.tar"


def table_file(name: str) -> str:
    """Where a table of `TABLES` stands."""
    return f"index/{name}.bin"


def hash_of(name: str) -> int:
    """What the index knows of a recording's id."""
    return zlib.crc32(name.encode(errors="replace"))


def checksums(path: Path) -> np.ndarray:
    """Of the blocks of a file, (blocks,) uint32."""
    with path.open("rb") as file:
        return np.array([zlib.crc32(block) for block in iter(lambda: file.read(BLOCK), b"")], TABLES["blocks"])


class PreparedFiles:
    """The files of a prepared corpus, mapped when they are needed.

    Attributes:
        directory: where it lies.
        settings: of `corpus.json`.

    Raises CwjaxError if the folder is no prepared corpus of this version, or a file is missing or has another size.
    """

    def __init__(self, directory: str | Path):
        self.directory = local_path(directory)
        if (self.directory / "index.jsonl").exists():
            raise CwjaxError(f"{self.directory}: was prepared by an earlier version; delete it and prepare it again")
        is_one = f"is {self.directory} a prepared corpus?"
        self.settings: dict[str, Any] = read_json(self.directory / CORPUS_FILE, is_one)
        if (self.settings.get("format"), self.settings.get("version")) != (FORMAT, VERSION):
            raise CwjaxError(
                f"{self.directory / CORPUS_FILE}: is not of {FORMAT}, version {VERSION}; delete the folder and prepare "
                "the corpus again"
            )
        for name, size in self.settings["files"].items():
            path = self.directory / name
            try:
                found = path.stat().st_size
            except OSError as error:
                raise CwjaxError(f"{path}: {error.strerror}; {self.cure}") from None
            if found != size:
                raise CwjaxError(f"{path}: has {found:,} bytes, not {size:,} as when it was prepared; {self.cure}")

    @property
    def cure(self) -> str:
        """What to do about damage."""
        return f"delete {self.directory} and prepare the corpus again"

    def __getstate__(self) -> dict[str, Any]:
        """What is mapped stays behind when the files travel to another process."""
        return {"directory": self.directory, "settings": self.settings}

    @cached_property
    def _mapped(self) -> dict[str, np.ndarray]:
        return {}

    def bytes_of(self, name: str) -> np.ndarray:
        """The bytes of a file, (n,) uint8."""
        if name not in self._mapped:
            path = self.directory / name
            try:
                empty = not path.stat().st_size  # cannot be mapped
                self._mapped[name] = np.zeros(0, np.uint8) if empty else np.asarray(np.memmap(path, np.uint8, "r"))
            except OSError as error:
                raise CwjaxError(f"{path}: {error.strerror}; {self.cure}") from None
        return self._mapped[name]

    def table(self, name: str) -> np.ndarray:
        """A table of `TABLES`."""
        return self.bytes_of(table_file(name)).view(TABLES[name])

    @cached_property
    def _first_blocks(self) -> dict[int, int]:
        """Of each shard, which is its first block in the table of checksums."""
        first, found = 0, {}
        for shard in self.settings["shards"]:
            found[shard] = first
            first += -(-self.settings["files"][sounds_file(shard)] // BLOCK)
        return found

    def sound_bytes(self, shard: int, start: int, end: int, checked: set[int] | None = None) -> np.ndarray:
        """Bytes of a shard's sound, (n,) uint8.

        Args:
            shard, start, end: which.
            checked: blocks that are known to be sound; receives those that are found to be.

        Raises:
            CwjaxError: they are not those that were written.
        """
        name = sounds_file(shard)
        content, blocks = self.bytes_of(name), self.table("blocks")
        checked = set() if checked is None else checked
        for block in {*range(start // BLOCK, -(-end // BLOCK))} - checked:
            if zlib.crc32(content[block * BLOCK : (block + 1) * BLOCK]) != blocks[self._first_blocks[shard] + block]:
                raise CwjaxError(
                    f"{self.directory / name}: is damaged or another corpus's, at byte {block * BLOCK:,}; {self.cure}"
                )
            checked.add(block)
        return content[start:end]


def sizes_of(directory: Path, names: Iterable[str]) -> dict[str, int]:
    """Of files, as `corpus.json` has them."""
    return {name: (directory / name).stat().st_size for name in names}
