"""Which audio files a command is about, each with its context and the name of its transcripts."""

import csv
import glob
import io
import json
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from cwjax.commands.terminal import printable
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

AUDIO_SUFFIX = re.compile(
    r"\.(3gp|aac|ac3|aif[cf]?|aiff|amr|ape|au|avi|caf|flac|flv|m4[abv]|mk[av]|mov|mp[234]|mpe?g|mpga|mts|og[agv]|opus|ra|snd"
    r"|ts|tta|w64|wav|webm|wm[av]|wv)",
    re.IGNORECASE,
)
"""What is taken for a recording in a folder; a file that is named itself may have any suffix."""


@dataclass(frozen=True)
class AudioFile:
    """A recording to transcribe.

    Attributes:
        path: of the audio or video.
        context: what is known about it; empty: nothing.
        name: of its transcripts without their suffix, below the output folder; no two recordings share one.
        label: what messages call it, without control characters.
    """

    path: Path
    context: str
    name: str
    label: str = field(default="", compare=False)


class AudioFiles:
    """The recordings named on the command line, then those of a list.

    A name may be a file, a folder (all recordings below it), a pattern such as `talks/*.mp3`, a pipe, or `-` for stdin.
    Transcripts are named after the recording without its suffix, `talk.mp3` as `talk`; where `talk.wav` lies beside it,
    given or not, as `talk.mp3`. Those of a folder or list keep their place below it. Recordings of one name from
    several folders keep their place below what these have in common; what is still of one name gets a number.

    Args:
        audio: names.
        list_file: JSON, `[{"audio": PATH, "context": TEXT}, ...]`, or CSV with the columns `audio` and `context`;
            paths are relative to the list's folder.
        context: of all files for which the list has none.

    Attributes:
        files: that can be read, each audio with the same context once.
        missing: what is wrong with others, a line each.

    Raises:
        CwjaxError: the list is unreadable.
    """

    def __init__(self, audio: Sequence[str], list_file: str | None, context: str):
        self.missing: list[str] = []
        self._spooled = tempfile.TemporaryDirectory(prefix="cwjax-")
        self._stems: dict[Path, Counter[str]] = {}
        entries = [(name, None, context) for name in audio]
        if list_file is not None:
            folder = Path(list_file).parent
            for name, own in _read_list(Path(list_file)):
                place = name if _ADDRESS.match(name) else folder / name
                entries.append((place, folder, context if own is None else own))
        found: dict[tuple[str, str], AudioFile] = {}
        for name, root, own in entries:
            before, missing = len(found), len(self.missing)
            for file in self._files_of(name, root, own):
                found.setdefault((os.path.realpath(file.path), own), file)
            if len(found) == before and len(self.missing) == missing:
                log.info("%s: is named twice and transcribed once", printable(name))
        self.files = _named_apart(list(found.values()))

    def close(self) -> None:
        """Removes what was read from pipes."""
        self._spooled.cleanup()

    def _files_of(self, name: str | Path, root: Path | None, context: str) -> Iterator[AudioFile]:
        """All that a name stands for."""
        label, path = printable(name) or "''", Path(name)
        try:
            if name == "-":
                if sys.stdin.isatty():
                    raise CwjaxError("stdin is a terminal: pipe a recording into it")
                yield AudioFile(self._spool("stdin", sys.stdin.buffer), context, "stdin", "stdin")
                return
            if _ADDRESS.match(str(name)):
                raise CwjaxError("is an address: download it first, and name the file")
            kind = os.stat(name).st_mode
            if stat.S_ISDIR(kind):
                yield from self._below(path, root or path, context)
            elif not stat.S_ISREG(kind):
                with path.open("rb") as pipe:
                    yield AudioFile(self._spool(path.name, pipe), context, path.name, label)
            else:
                with path.open("rb") as file:
                    file.read(1)
                yield AudioFile(path, context, self._name(path, root), label)
        except FileNotFoundError:
            matches = sorted(glob.glob(str(name), recursive=True))
            for match in matches:
                yield from self._files_of(match, root, context)
            if not matches:
                pattern = ", and as a pattern it matches nothing" * glob.has_magic(str(name))
                self.missing.append(f"{label}: no such audio file{pattern}; check the path")
        except CwjaxError as error:
            self.missing.append(f"{label}: {error}")
        except OSError as error:
            self.missing.append(f"{label}: cannot be read ({error.strerror}); check the path and its permissions")
        except ValueError as error:
            self.missing.append(f"{label}: is no path ({error}); check it")

    def _below(self, folder: Path, root: Path, context: str) -> Iterator[AudioFile]:
        """All recordings in a folder and those in it; hidden ones are left out, as shells do."""
        count, others = 0, 0
        for place, folders, names in os.walk(folder, onerror=lambda error: self.missing.append(_unreadable(error))):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            for path in (Path(place, name) for name in sorted(names)):
                if AUDIO_SUFFIX.fullmatch(path.suffix) and not path.name.startswith("."):
                    count += 1
                    yield from self._files_of(path, root, context)
                else:
                    others += 1
            others += sum(os.path.islink(os.path.join(place, one)) for one in folders)
        log.info("%s: %d recordings, %d other files", printable(folder), count, others)
        if not count:
            raise CwjaxError("no recordings in this folder; files of unusual suffixes have to be named one by one")

    def _spool(self, name: str, stream: BinaryIO) -> Path:
        """Keeps what can be read but once in a file."""
        path = Path(tempfile.mkdtemp(dir=self._spooled.name), name)
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file)
        return path

    def _name(self, path: Path, root: Path | None) -> str:
        """Of a recording's transcripts, whatever else is transcribed."""
        if path.parent not in self._stems:
            recordings = (one for one in _listed(path.parent) if AUDIO_SUFFIX.fullmatch(one.suffix))
            self._stems[path.parent] = Counter(_key(one.stem) for one in recordings)
        others = self._stems[path.parent][_key(path.stem)] - bool(AUDIO_SUFFIX.fullmatch(path.suffix))
        name = path.name if others > 0 else path.stem
        if root is None or not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
            return name
        return str(path.relative_to(root).with_name(name))


def read_text(path: str | Path) -> str:
    """Text of a file in UTF-8, with or without byte order mark, or in UTF-16 with one.

    Raises:
        CwjaxError: it is missing, or no such text.
    """
    try:
        content = Path(path).read_bytes()
        text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CwjaxError(f"{path}: is no UTF-8 text (line {line}); save it as UTF-8") from error
    if "\0" in text:
        raise CwjaxError(f"{path}: is no text, for it has bytes that are zero; save it as UTF-8")
    return text


_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def _named_apart(files: list[AudioFile]) -> list[AudioFile]:
    """The files, no two of them with names that are one where letters and capitals are not told apart."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(_key(file.name), []).append(_folder(file))
    taken = {name for name, of_name in folders.items() if len(of_name) == 1}
    apart = []
    for file in files:
        of_name, name = folders[_key(file.name)], file.name
        if len(of_name) > 1:
            below = os.path.relpath(_folder(file), os.path.commonpath(of_name))
            plain = name = os.path.normpath(os.path.join(below, os.path.basename(name)))
            number = 1
            while _key(name) in taken:
                number += 1
                name = f"{plain}-{number}"
            taken.add(_key(name))
        apart.append(replace(file, name=name))
    return apart


def _folder(file: AudioFile) -> str:
    """Where a recording lies; one that came through a pipe: here."""
    return os.path.realpath(file.path.parent if printable(file.path) == file.label else ".")


def _key(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _listed(folder: Path) -> list[Path]:
    try:
        return [folder / entry.name for entry in os.scandir(folder)]
    except OSError:
        return []  # its files may be readable all the same


def _unreadable(error: OSError) -> str:
    return f"{printable(error.filename)}: cannot be read ({error.strerror}); check its permissions"


def _read_list(path: Path) -> list[tuple[str, str | None]]:
    """Audio and context of every entry; the context is None where the entry has none."""
    text = read_text(path)
    if path.suffix.lower() == ".json":
        try:
            entries = json.loads(text)
        except ValueError as error:
            raise CwjaxError(f"{path}: is no valid JSON ({error})") from error
    elif path.suffix.lower() == ".csv":
        # Strict, so that a quote without its end is an error and does not swallow the lines after it.
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
    audio = entry.get("audio") if known else None
    if not isinstance(audio, str) or not audio or not isinstance(entry.get("context"), str | None):
        raise CwjaxError(f"{path}: entry {number} needs 'audio', a path, and may have 'context', a text; nothing else")
    return audio, entry.get("context")
