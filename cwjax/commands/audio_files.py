"""Which audio files a command is about, each with its context and the name of its transcripts."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cwjax.errors import CwjaxError


@dataclass(frozen=True)
class AudioFile:
    """A recording to transcribe.

    Attributes:
        path: of the audio or video.
        context: what is known about it; empty: nothing.
        name: of its transcripts without their suffix; no two files share one.
    """

    path: Path
    context: str
    name: str


def gather_audio_files(audio: Sequence[str], list_file: str | None, context: str) -> list[AudioFile]:
    """The files named on the command line, then those of a list.

    Transcripts are named after the audio without its suffix; a name that is taken gets a number, as in `talk-2`.

    Args:
        audio: paths.
        list_file: JSON, `[{"audio": PATH, "context": TEXT}, ...]`, or CSV with the columns `audio` and `context`;
            paths are relative to the list's folder.
        context: of all files for which the list has none.

    Raises:
        CwjaxError: the list is unreadable.
    """
    entries = [(Path(path), context) for path in audio]
    if list_file is not None:
        folder = Path(list_file).parent
        entries += [(folder / path, context if own is None else own) for path, own in _read_list(Path(list_file))]
    taken: set[str] = set()
    files = []
    for path, own in entries:
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        files.append(AudioFile(path, own, name))
    return files


def read_text(path: str | Path) -> str:
    """Text of a file in UTF-8, with or without byte order mark.

    Raises:
        CwjaxError: it is missing, or no such text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise CwjaxError(f"{path}: is no UTF-8 text; save it as UTF-8") from error


def _read_list(path: Path) -> list[tuple[str, str | None]]:
    """Audio and context of every entry; the context is None where the entry has none."""
    text = read_text(path)
    if path.suffix.lower() == ".json":
        try:
            entries = json.loads(text)
        except ValueError as error:
            raise CwjaxError(f"{path}: is no valid JSON ({error})") from error
    elif path.suffix.lower() == ".csv":
        # Strict, so that a quote without its end is an error and does not swallow the lines behind it.
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            entries = [{name: value or None for name, value in row.items()} for row in rows]
        except csv.Error as error:
            raise CwjaxError(f"{path}: is no valid CSV ({error} in line {rows.line_num})") from error
    else:
        raise CwjaxError(f"{path}: --list reads .json and .csv; name it after what it is")
    if not isinstance(entries, list):
        raise CwjaxError(f'{path}: must be a list such as [{{"audio": "talk.ogg", "context": "bee keeping"}}]')
    return [_entry(path, number, entry) for number, entry in enumerate(entries, 1)]


def _entry(path: Path, number: int, entry: object) -> tuple[str, str | None]:
    known = isinstance(entry, dict) and entry.keys() <= {"audio", "context"}
    if not known or not isinstance(entry.get("audio"), str) or not isinstance(entry.get("context"), str | None):
        raise CwjaxError(f"{path}: entry {number} needs 'audio', a path, and may have 'context', a text; nothing else")
    return entry["audio"], entry.get("context")
