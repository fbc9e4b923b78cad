"""What corpora of telephone calls share: a SPHERE file with a channel for each side, and the LDC's way of writing."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.listed_utterances import ListedUtterance
from cwjax.data.corpora.reader import Unit
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

SIDES = "AB"
"""Of a call; the first is on the first channel."""

_TURN = re.compile(r"(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+([AB])\d?:(.*)")
_NOT_SAID = re.compile(r'<(?:[^<>"]|"[^"]*")*>|\{[^{}]*\}|\[[^\[\]]*\]|\(\(|\)\)|//|[%&^*#+~]')


class Turn(NamedTuple):
    """What one side says: start and end in seconds, the side, the words."""

    start: float
    end: float
    side: str
    text: str


def turns(path: Path, problems: list[str]) -> Iterator[Turn]:
    """The turns of a transcript with lines `START END SIDE: WORDS` in which something is said.

    `problems` receives lines that are neither turns nor comments. Raises CwjaxError if the file cannot be read.
    """
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        turn = _TURN.fullmatch(line.strip())
        if not turn:
            problems.append(f"{path}:{number}: is no line START END SIDE: WORDS: {line.strip()[:60]!r}")
        elif text := clean(turn[4]):
            yield Turn(float(turn[1]), float(turn[2]), turn[3], text)


def both_sides(
    root: Path, transcript: str, unit: Unit, callers: tuple[str, str], context: ContextMaterial, problems: list[str]
) -> Iterator[ListedUtterance]:
    """The turns of a call's transcript as utterances, each on the channel of its side; raises and notes as `turns`."""
    for turn in turns(root / transcript, problems):
        channel, name = SIDES.index(turn.side), f"{unit.name}-{turn.side}"
        identifier, speaker = f"{name}-{round(turn.start * 100):06d}", callers[channel] or name
        said = identifier, unit.audio[0], turn.start, turn.end, turn.text, speaker, channel
        yield ListedUtterance(*said, context=context)


def clean(words: str) -> str:
    """What was said: without noises, tags of contractions and marks of names, doubts and hesitations.

    Letters that are spelt are written together ("t._v." is "t.v.").
    """
    return " ".join(_NOT_SAID.sub(" ", words).replace("._", ".").split())


def read_lines(path: Path) -> list[str]:
    """The lines of a file. Raises CwjaxError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror})") from None


def rows(path: Path) -> list[list[str]]:
    """The rows of a table with commas. Raises CwjaxError if it cannot be read."""
    try:
        table = csv.reader(read_lines(path), skipinitialspace=True)
        return [[field.strip() for field in row] for row in table if row]
    except csv.Error as error:
        raise CwjaxError(f"{path}: cannot be read ({error}); leave it out or unpack it again") from None


def sphere_files(root: Path) -> dict[str, str]:
    """The SPHERE files at any depth, relative to the root, by their names in small letters without ending."""
    return {path.stem.lower(): path.relative_to(root).as_posix() for path in sorted(root.rglob("*.[sS][pP][hH]"))}


def require_readable(audio: Path) -> None:
    """Refuses the compression that no library reads. Raises CwjaxError for it, and where there is no file."""
    try:
        with audio.open("rb") as file:
            header = file.read(1024)
    except OSError as error:
        raise CwjaxError(f"{audio}: cannot be read ({error.strerror}); put the audio below the root") from None
    if b"shorten" in header:
        raise CwjaxError(f"{audio}: is compressed with shorten; unpack it with the LDC's sph2pipe (sph2pipe -f sph)")
