"""The files that a command writes: none of them was an input, and none that someone else made is replaced."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from cwjax.commands.audio_files import AudioFile
from cwjax.errors import CwjaxError
from cwjax.machine import cache_directory
from cwjax.weights.sources import file_sha256

log = logging.getLogger(__name__)

NAME_BYTES = 255
"""No file system of today allows longer names."""


class Outputs:
    """Where transcripts go.

    Args:
        folder: of all.
        suffixes: of the files of each recording.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str]):
        self._folder, self._suffixes = folder, suffixes
        cache = cache_directory()
        self._record = cache / "transcripts" if cache else None

    def of(self, file: AudioFile) -> list[Path]:
        """The paths of a recording's transcripts, in the order of the suffixes. Names too long end in a hash."""
        place = self._folder / file.name
        room = NAME_BYTES - 1 - max(map(len, self._suffixes))
        name = place.name
        if len(os.fsencode(name)) > room:
            ending = f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
            while len(os.fsencode(name + ending)) > room:
                name = name[:-1]
            name += ending
        return [place.with_name(f"{name}.{suffix}") for suffix in self._suffixes]

    def exist(self, file: AudioFile) -> bool:
        """Whether the recording has all of its transcripts."""
        return all(map(os.path.exists, self.of(file)))

    def prepare(self, files: Iterable[AudioFile], inputs: Iterable[Path], overwrite: bool) -> None:
        """Makes the folders, and makes sure that nothing will be lost.

        Args:
            files: that will be transcribed.
            inputs: that must stay as they are.
            overwrite: replace files, other than `inputs`, that this command did not write or that were changed since.

        Raises:
            CwjaxError: an output would replace an input or such a file, or a folder cannot be written.
        """
        paths = [path for file in files for path in self.of(file)]
        for folder in dict.fromkeys([self._folder, *(path.parent for path in paths)]):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                raise CwjaxError(
                    f"--output-dir {folder}: cannot be written ({error.strerror}); choose another"
                ) from error
        kept = {key for path in inputs for key in _keys(path)}
        for path in paths:
            if not kept.isdisjoint(_keys(path)):
                raise CwjaxError(f"{path}: is an input and would be overwritten; choose another --output-dir")
        known = self._written()
        strange = [path for path in paths if os.path.lexists(path) and not (path.is_file() and _digest(path) in known)]
        if strange and not (overwrite and all(map(os.path.isfile, strange))):
            more = f" and {len(strange) - 1} more files" if strange[1:] else ""
            raise CwjaxError(
                f"{strange[0]}{more}: would be replaced, but not written by this command or changed since; give "
                "--overwrite, --skip-existing or another --output-dir"
            )

    def note(self, path: Path) -> None:
        """Remembers that this command wrote a file as it is, so that the same command may write it again."""
        if self._record is None:
            return
        try:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with self._record.open("a", encoding="ascii") as record:
                record.write(f"{_digest(path)}\n")
        except OSError as error:
            log.info("%s: cannot be written (%s); the same command will need --overwrite", self._record, error.strerror)
            self._record = None

    def _written(self) -> set[str]:
        try:
            return set(self._record.read_text(encoding="ascii").split()) if self._record else set()
        except (OSError, ValueError):
            return set()


def _digest(path: Path) -> str:
    return file_sha256(path)[:24]


def _keys(path: Path) -> list[object]:
    """What a path and another have in common if they are one file, on any file system."""
    keys: list[object] = [os.path.realpath(path).casefold()]
    try:
        found = os.stat(path)
    except OSError:
        return keys
    return [*keys, (found.st_dev, found.st_ino)]
