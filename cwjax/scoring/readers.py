"""Hypotheses and references of any system as utterances: JSON lines, tables, and NIST's trn and ctm.

| format | a line |
|---|---|
| jsonl | an object with `id`, `hypothesis` and `reference`, or `text` for either; other fields as in `Utterance` |
| tsv, txt | `id<TAB>text`; a JSON list of bias words may follow, as in is21's references |
| trn | `text (id)` |
| ctm | `id channel start duration word [confidence]`, a line a word |
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError

Row = tuple[int, dict[str, Any]]
"""Number of a line and its fields, checked; `text` is a hypothesis or a reference."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with what was said and what a system heard.

    Attributes:
        id: unique in its file and condition.
        reference, hypothesis: what was said, what was heard.
        condition: under which it was heard, such as a kind of context; empty if there is one only.
        speaker, recording, subset, language, topic: what it belongs to, where known.
        cluster: of utterances that are one trial, such as the item that a made-up corpus varies.
        bias_words: rare words for B-WER.
        entities: named entities of the reference.
        keywords: words and phrases that the system was told of.
        homophone: a word that was said and the one that sounds the same.

    The last four are None where they are unknown, which is not the same as an empty list.
    """

    id: str
    reference: str
    hypothesis: str
    condition: str = ""
    speaker: str = ""
    recording: str = ""
    subset: str = ""
    language: str = "en"
    topic: str = ""
    cluster: str = ""
    bias_words: tuple[str, ...] | None = None
    entities: tuple[str, ...] | None = None
    keywords: tuple[str, ...] | None = None
    homophone: tuple[str, str] | None = None


LISTS = ("bias_words", "entities", "keywords", "homophone")
_TEXTS = tuple(one.name for one in fields(Utterance) if one.name not in LISTS)
_ALIASES = {"uniq_id": "id", "file_id": "id", "entity_list": "entities"}
"""What ContextASR-Bench and Contextual Earnings-22 call them."""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one at a time but for ctm; its suffix names the format, or else its first line tells.

    Raises:
        CwjaxError: the file cannot be read, is empty, or a line is not what its format wants.
    """
    try:
        with path.open("rb") as file:
            lines = _lines(path, file)
            first = next(lines, None)
            if first is None:
                raise CwjaxError(f"{path}: has no lines; expected one for each utterance")
            read = FORMATS.get(path.suffix.lower()) or _told_by(first[1])
            yield from read(path, _again(first, lines))
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror})") from error


def read_ids(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file by their ids. Raises CwjaxError as `read_rows` does, and if an id is there twice."""
    found: dict[str, dict[str, Any]] = {}
    lines: dict[str, int] = {}
    for line, row in read_rows(path):
        if row["id"] in found:
            raise doubled(path, line, row["id"], lines[row["id"]])
        found[row["id"]], lines[row["id"]] = row, line
    return found


def doubled(path: Path, line: int, name: str, before: int, condition: str = "") -> CwjaxError:
    """What to say of an id that is there twice."""
    under = f" under the condition {condition!r}" if condition else ""
    return CwjaxError(
        f"{path}, line {line}: the id {name!r} stands in line {before}{under}, too; expected every id once"
    )


def _again(first: tuple[int, str], others: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from others


def _lines(path: Path, file: Iterator[bytes]) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty, without their ends."""
    for number, raw in enumerate(file, 1):
        if number == 1:
            if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise CwjaxError(f"{path}, line 1: is UTF-16; expected UTF-8, save it so")
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if b"\0" in raw:
            raise CwjaxError(f"{path}, line {number}: holds a NUL byte; expected text in UTF-8")
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            place = error.start + 1
            raise CwjaxError(f"{path}, line {number}: byte {place} is no UTF-8; expected text in UTF-8") from error
        if text.strip():
            yield number, text


def _told_by(line: str) -> Callable[..., Iterator[Row]]:
    if line.lstrip().startswith("{"):
        return _read_jsonl
    return _read_tsv if "\t" in line else _read_trn if _TRN.fullmatch(line) else _read_ctm


def _read_jsonl(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CwjaxError(f"{where}: is no JSON ({error}); expected an object with id and hypothesis") from error
        if not isinstance(row, dict):
            raise CwjaxError(f"{where}: is no JSON object; expected one with id and hypothesis")
        for name, meant in _ALIASES.items():
            if name in row:
                row.setdefault(meant, row[name])
        if type(row.get("id")) is int:
            row["id"] = str(row["id"])
        kept = {name: _text(where, name, row[name]) for name in (*_TEXTS, "text") if row.get(name) is not None}
        if not kept.get("id"):
            raise CwjaxError(f"{where}: has no id; expected a text under 'id'")
        kept |= {name: _list(where, name, row[name]) for name in LISTS if row.get(name) is not None}
        yield number, kept


def _text(where: str, name: str, value: object) -> str:
    if not isinstance(value, str):
        raise CwjaxError(f"{where}: {name} is {value!r}; expected a text")
    return value


def _list(where: str, name: str, value: object) -> tuple[str, ...]:
    if name == "homophone" and isinstance(value, dict):
        value = [value.get("word"), value.get("partner")]
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if not texts or (name == "homophone" and len(value) != 2):
        wanted = "a word and its partner" if name == "homophone" else "a list of texts"
        raise CwjaxError(f"{where}: {name} is {value!r}; expected {wanted}")
    return tuple(value)


def _read_tsv(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        name, tab, rest = line.partition("\t")
        if not tab and len(name.split()) != 1:
            raise CwjaxError(f"{path}, line {number}: has no tab; expected id<TAB>text")
        text, *more = rest.split("\t")
        row: dict[str, Any] = {"id": name.strip(), "text": text}
        if not row["id"]:
            raise CwjaxError(f"{path}, line {number}: has no id before its tab; expected id<TAB>text")
        if more:
            try:
                row["bias_words"] = _list(f"{path}, line {number}", "bias_words", json.loads(more[0]))
            except (ValueError, RecursionError) as error:
                raise CwjaxError(
                    f"{path}, line {number}: its third column is no JSON list; expected id<TAB>text, and bias words as "
                    'in ["one", "two"] behind it or nothing'
                ) from error
        yield number, row


_TRN = re.compile(r"(.*?)\s*\(([^()\s]+)\)\s*")


def _read_trn(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        found = _TRN.fullmatch(line)
        if not found:
            raise CwjaxError(f"{path}, line {number}: does not end in an id; expected text (id)")
        yield number, {"id": found[2], "text": found[1]}


def _read_ctm(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    words: dict[str, list[tuple[float, str]]] = {}
    first: dict[str, int] = {}
    for number, line in lines:
        if line.startswith(";;"):
            continue
        columns = line.split()
        try:
            name, _, start, _, word, *_ = columns
            words.setdefault(name, []).append((float(start), word))
        except ValueError as error:
            raise CwjaxError(
                f"{path}, line {number}: is {line.strip()[:60]!r}; expected id channel start duration word"
            ) from error
        first.setdefault(name, number)
    for name, own in words.items():
        yield first[name], {"id": name, "text": " ".join(word for _, word in sorted(own, key=lambda one: one[0]))}


FORMATS: dict[str, Callable[[Path, Iterator[tuple[int, str]]], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".tsv": _read_tsv,
    ".trn": _read_trn,
    ".ctm": _read_ctm,
}
"""By suffix."""
