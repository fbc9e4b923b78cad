"""The files that a corpus was prepared from, by which is noticed that they have changed since.

All that lies in the corpus but sound, which is large, and whose texts and times would change with it.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SOUND = {
    ".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg",
    ".opus", ".sph", ".tar", ".wav", ".webm", ".wma",
}  # fmt: skip

Noted = dict[str, tuple[int, int, int]]
"""Size, time of the last change (ns) and CRC-32 of files by their paths."""


def note_sources(root: Path, without: Sequence[Path]) -> Noted:
    """What a corpus is made of, but for what lies in some folders; hidden files and folders are not looked at."""
    noted: Noted = {}
    for name, path, status in _files(root, without):
        noted[name] = (status.st_size, status.st_mtime_ns, _checksum(path))
    return noted


def changed_source(root: Path, noted: Noted, without: Sequence[Path]) -> str:
    """A file that is new, gone or has another content than when it was noted, or an empty string."""
    missing = dict(noted)
    for name, path, status in _files(root, without):
        size, time, checksum = missing.pop(name, (-1, 0, 0))
        if size != status.st_size or (time != status.st_mtime_ns and checksum != _checksum(path)):
            return name
    return next(iter(missing), "")


def _files(root: Path, without: Sequence[Path]) -> Iterator[tuple[str, Path, os.stat_result]]:
    shunned = {path.resolve() for path in without}
    for folder, folders, names in os.walk(root.resolve()):
        place = Path(folder)
        folders[:] = sorted(name for name in folders if name[0] != "." and place / name not in shunned)
        for name in sorted(names):
            path = place / name
            if name[0] != "." and path.suffix.lower() not in SOUND and path.is_file():
                shown = os.fsencode(path.relative_to(root.resolve())).decode(errors="backslashreplace")
                yield shown, path, path.stat()


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found
