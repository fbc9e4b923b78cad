"""Paths, and writing files so that an interruption leaves the old one or the new one, never a part."""

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

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


def read_json(file: Path, cure: str = "fetch it again") -> dict[str, Any]:
    """The JSON object in a file. Raises CwjaxError, which names the `cure`, if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CwjaxError(f"{file}: cannot be read ({error.strerror}); {cure}") from error
    except (ValueError, RecursionError) as error:
        raise CwjaxError(f"{file}: is no valid JSON ({error}); {cure}") from error
    if not isinstance(content, dict):
        raise CwjaxError(f"{file}: holds no JSON object; {cure}")
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes settings as people can read them."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
