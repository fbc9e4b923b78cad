"""Tables that people keep: JSON lines, and lines with commas, semicolons or tabs, in whatever encoding.

Every line that is no row is given as the reason why; a quotation mark too many costs its own line, not those after it.
"""

import codecs
import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

csv.field_size_limit(sys.maxsize)

JSON_ENDINGS = (".jsonl", ".ndjson", ".json", ".jsonl.gz")
ENDINGS = (*JSON_ENDINGS, ".csv", ".tsv")
LONGEST_ROW = 50
"""Lines that a row may have between quotation marks."""
_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_FILE = re.compile(r"[\"']?\S.*\.\w{2,5}[\"']?")


class Row(NamedTuple):
    """A row: where it stands, what its columns hold, by their names in small letters, and what is odd about it."""

    place: str
    fields: dict[str, Any]
    warning: str = ""


def table_rows(path: Path) -> Iterator[Row | str]:
    """The rows of a table, and for what is none the reason, with the number of the line."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            lines = decoded_lines(path, file)
            if path.name.endswith(JSON_ENDINGS):
                yield from _json_rows(path, lines)
            else:
                yield from _divided_rows(path, lines)
    except (OSError, EOFError, zlib.error) as error:
        yield f"{path}: cannot be read ({error})"


class Line(NamedTuple):
    """A line of a file, counted from 1, and what is odd about it."""

    number: int
    text: str
    warning: str = ""


def decoded_lines(path: Path, file: BinaryIO) -> Iterator[Line]:
    """Lines as text: in the encoding that a byte order mark says, else as UTF-8, and what is none as Windows-1252."""
    start = file.read(4)
    bom = next((mark for mark in _BOMS if start.startswith(mark)), b"")
    file.seek(len(bom))
    encoding, is_warned = _BOMS.get(bom, "utf-8"), False
    if encoding != "utf-8":
        text = codecs.getreader(encoding)(file, errors="replace")
        yield from (Line(number, line) for number, line in enumerate(text, 1))
        return
    for number, line in enumerate(file, 1):
        try:
            yield Line(number, line.decode())
        except UnicodeDecodeError:
            warning = f"{path}:{number}: is not UTF-8 and is read as Windows-1252, as are lines like it after it"
            yield Line(number, line.decode("cp1252", errors="replace"), "" if is_warned else warning)
            is_warned = True


def _json_rows(path: Path, lines: Iterator[Line]) -> Iterator[Row | str]:
    for line in lines:
        if not line.text.strip():
            continue
        try:
            fields = json.loads(line.text, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            yield f"{path}:{line.number}: is no JSON ({error})"
        else:
            if isinstance(fields, dict):
                fields = {name.strip().lower(): value for name, value in fields.items()}
                yield Row(f"{path}:{line.number}", fields, line.warning)
            else:
                yield f"{path}:{line.number}: is no JSON object"


def _divided_rows(path: Path, lines: Iterator[Line]) -> Iterator[Row | str]:
    """Rows of a table with a head."""
    head = next(lines, None)
    if head is None:
        return
    divider = max(",;\t", key=head.text.count)
    columns = [name.strip().lower() for name in _fields(head.text, divider) or []]
    waiting: list[Line] = []  # lines that were looked at as parts of the row before
    while waiting or (line := next(lines, None)) is not None:
        line = waiting.pop(0) if waiting else line
        if not line.text.strip():
            continue
        # A field between quotation marks may go on over several lines, none of which looks like a row of its own.
        row, taken = _fields(line.text, divider), []
        text = line.text
        while row is None and text.count('"') % 2 and len(taken) < LONGEST_ROW:
            more = waiting.pop(0) if waiting else next(lines, None)
            if more is None:
                break
            taken.append(more)
            if _looks_like_a_row(more.text, divider, columns):
                break
            text += more.text
            row = _fields(text, divider)
        if row is None:
            waiting[:0] = taken
            row = [field.strip() for field in line.text.rstrip("\r\n").split(divider)]
        if any(field.strip() for field in row[len(columns) :]):
            yield f"{path}:{line.number}: has {len(row)} fields, but the head of the table {len(columns)}"
        else:
            yield Row(f"{path}:{line.number}", dict(zip(columns, row, strict=False)), line.warning)


def _fields(text: str, divider: str) -> list[str] | None:
    """The fields of a row, None if its quotation marks are none of a table's."""
    if '"' not in text:
        return text.rstrip("\r\n").split(divider)
    try:
        return next(csv.reader([text], delimiter=divider, strict=True), [])
    except csv.Error:
        return None


def _looks_like_a_row(text: str, divider: str, columns: list[str]) -> bool:
    fields = text.split(divider)
    return len(fields) >= len(columns) > 1 and any(map(_FILE.fullmatch, map(str.strip, fields)))


def plain(value: Any) -> str:
    """A value as a line of text that any file can hold, empty for none."""
    text = "" if value is None else str(value)
    if text.isprintable():  # as nearly all are: no surrogate, no control character, no break of a line
        return " ".join(text.split())
    return " ".join(text.replace("\0", " ").encode(errors="replace").decode().split())
