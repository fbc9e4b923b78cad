"""Rows of a suite's lists with their places, so that what is wrong with one of them names file and line.

What cannot be used is yielded as the reason, a text, instead of raised: the rest of a suite is still worth measuring.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.stored import Stored

Row = dict[str, Any]
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Placed:
    """A row and where it stands, such as "FILE, line 3". Its methods raise CwjaxError, naming the place."""

    where: str
    values: Row

    def text(self, name: str, otherwise: str | None = None) -> str:
        """A text with single spaces; `otherwise` where there is none, or an error if that is None."""
        value = self.values.get(name)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
        if otherwise is not None and (value is None or isinstance(value, str)):
            return otherwise
        raise CwjaxError(f"{self.where}: {name} is {value!r}; expected a text")

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, each once; empty where there is none."""
        value = self.values.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise CwjaxError(f"{self.where}: {name} is {str(value)[:60]!r}; expected a list of texts")
        return tuple(dict.fromkeys(" ".join(one.split()) for one in value or () if one.strip()))

    def number(self, name: str) -> float:
        """A number."""
        value = self.values.get(name)
        if not isinstance(value, int | float):
            raise CwjaxError(f"{self.where}: {name} is {value!r}; expected a number")
        return float(value)

    def audio(self, folder: Path) -> Stored | Path:
        """What the column `audio` of a table holds, or the file that it names."""
        cell = self.values.get("audio")
        if isinstance(cell, Stored):
            return cell
        if isinstance(cell, dict) and isinstance(cell.get("path"), str):
            return audio_file(self.where, folder / cell["path"])
        raise CwjaxError(f"{self.where}: audio holds nothing; fetch the file again")


def audio_file(where: str, *places: Path) -> Path:
    """The first of some places with a file. Raises CwjaxError, naming `where`, if there is none or it is a pointer."""
    found = next(filter(os.path.isfile, places), None)
    if found is None:
        raise CwjaxError(f"{where}: there is no audio file {places[0]}")
    if found.stat().st_size < 1000 and found.read_bytes().startswith(LFS_POINTER):
        raise CwjaxError(f"{where}: {found} is a pointer of Git LFS; run: git lfs pull")
    return found


def items(rows: Iterable[Placed | str], build: Callable[[Placed], Item]) -> Iterator[Item | str]:
    """The item of each row, or why there is none; a second one with the same id is left out."""
    places: dict[str, str] = {}
    for row in rows:
        if isinstance(row, str):
            yield row
            continue
        try:
            item = build(row)
        except CwjaxError as error:
            yield str(error)
            continue
        first = places.setdefault(item.id, row.where)
        yield item if first == row.where else f"{row.where}: the id {item.id!r} stands in {first}, too"


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, and their places; one that is no UTF-8 has U+FFFD in it.

    Raises:
        CwjaxError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.decode(errors="replace").removeprefix("\ufeff").rstrip("\r\n")
                if text.strip():
                    yield f"{path}, line {number}", text
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror}); is it the suite's folder?") from error


def json_lines(path: Path) -> Iterator[Placed | str]:
    """The objects of a file of JSON lines. Raises CwjaxError if it cannot be read."""
    for where, line in lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"{where}: is no JSON ({error})"
        else:
            yield Placed(where, row) if isinstance(row, dict) else f"{where}: is no JSON object"


def json_list(path: Path) -> Iterator[Placed | str]:
    """The objects of a JSON file that is a list of them. Raises CwjaxError if it is none."""
    content = json_file(path)
    if not isinstance(content, list):
        raise CwjaxError(f"{path}: is no JSON list; fetch it again")
    for number, row in enumerate(content, 1):
        where = f"{path}, entry {number}"
        yield Placed(where, row) if isinstance(row, dict) else f"{where}: is no JSON object"


def json_file(path: Path) -> Any:
    """What a JSON file holds. Raises CwjaxError if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror}); is it the suite's folder?") from error
    except (ValueError, RecursionError) as error:
        raise CwjaxError(f"{path}: is no valid JSON ({error}); fetch it again") from error


def known(**texts: str) -> dict[str, str]:
    """Those texts that are not empty."""
    return {kind: text for kind, text in texts.items() if text}
