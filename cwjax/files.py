"""Paths, and writing files so that an interruption leaves the old one or the new one, never a part."""

import os
import re
import uuid
from pathlib import Path

from cwjax.errors import CwjaxError

_ADDRESS = re.compile(r"(\w{2,}):/")  # a single letter is a drive of Windows


def local_path(path: str | Path) -> Path:
    """The path of a file or folder here. Raises CwjaxError for an address such as that of a bucket."""
    if address := _ADDRESS.match(str(path)):
        raise CwjaxError(
            f"{path}: must be a folder of this machine; mount what lies at {address[1]}:// first, for instance with "
            "Cloud Storage FUSE"
        )
    return Path(path)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file aside, on to the disk, and renames it. Raises OSError as `Path.write_text` does."""
    aside = path.with_name(f".{uuid.uuid4().hex[:12]}.partial")  # short, so that it fits wherever `path` does
    try:
        with aside.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
