"""Your own recordings, listed in a table: `*.jsonl`, `*.csv` or `*.tsv` at the root, a line an utterance.

| column | what |
|---|---|
| audio | file, relative to the root or absolute |
| text | what is said |
| start, end | seconds in the file; without them the whole file |
| context | what you would say about the recording |
| title, section, lead, categories, keywords | the same in parts; lists are divided by ";", sections by ">" |
| id, article, speaker, channel, language, split, licence, source | where known; language is "en" if not said |

Only `audio` and `text` are needed. Utterances of one article, else of one file, belong together.
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.prepared.splits import SPLITS
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "table of your own (a .jsonl, .csv or .tsv with the columns audio and text)"
NEEDED = ("audio", "text")

Row = dict[str, Any]


def looks_like(root: Path) -> bool:
    """Whether there is a table with the columns that are needed."""
    return bool(_tables(root))


def _tables(root: Path) -> list[Path]:
    """The tables whose first line has the columns that are needed."""
    found = []
    for path in sorted(path for path in root.iterdir() if path.suffix in (".jsonl", ".csv", ".tsv")):
        first = next(_rows(path), None)
        if isinstance(first, dict) and all(name in first for name in NEEDED):
            found.append(path)
    return found


def _rows(path: Path) -> Iterator[Row | str]:
    """The rows of a table, and for a line that is none the reason."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix != ".jsonl":
                yield from csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
                return
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    yield f"{path}:{number}: is no JSON ({error})"
                else:
                    yield row if isinstance(row, dict) else f"{path}:{number}: is no JSON object"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        yield f"{path}: cannot be read after line {number} ({error})"


def articles(root: Path) -> Iterator[Unit]:
    """The rows of every article, and as a unit that cannot be read every line that is no row.

    Raises CwjaxError if a table lacks a column.
    """
    for path in _tables(root):
        by_article: dict[str, list[Row]] = defaultdict(list)
        for row in _rows(path):
            if isinstance(row, str):
                yield Unit(row.partition(": ")[0], (), row)
            else:
                by_article[str(row.get("article") or row.get("audio") or "")].append(row)
        for article, rows in by_article.items():
            audio = tuple(dict.fromkeys(str(row["audio"]) for row in rows if row.get("audio")))
            yield Unit(f"{path.name}: {article}", audio, (article, tuple(rows)))


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of an article's rows; rows that lack something or have times that are none are left out.

    Raises CwjaxError if there is no other row, or the audio is missing.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    name, rows = unit.content
    utterances: list[ListedUtterance] = []
    problems: list[str] = []
    for row in rows:
        try:
            utterances.append(_utterance(unit.name, name, row))
        except CwjaxError as error:
            problems.append(str(error))
    if not utterances:
        raise CwjaxError(problems[0])
    utterances.sort(key=lambda one: (one.audio, one.start))
    first = rows[0]
    split = _text(first, "split")
    if split and split not in SPLITS:
        raise CwjaxError(f"{unit.name}: its split is {split!r}; use one of {', '.join(SPLITS)}, or none")
    article = ListedArticle(
        identifier=name,
        utterances=utterances,
        language=_text(first, "language") or "en",
        licence=_text(first, "licence"),
        source=_text(first, "source"),
        split=split,
        reader=_text(first, "speaker"),
    )
    return as_reading(root, article, limits, problems)


def _utterance(unit: str, article: str, row: Row) -> ListedUtterance:
    audio, start, end = _text(row, "audio"), _seconds(unit, row, "start", 0.0), _seconds(unit, row, "end", math.inf)
    if not audio:
        raise CwjaxError(f"{unit}: a row has no audio: {str(row)[:80]}")
    said = _text(row, "context")
    title = _text(row, "title")
    context = ContextMaterial(
        title=title or said,
        section=tuple(_parts(row, "section", ">")),
        lead=_text(row, "lead") or (said if title else ""),
        categories=tuple(_parts(row, "categories", ";")),
        keywords=tuple(_parts(row, "keywords", ";")),
    )
    channel = _seconds(unit, row, "channel", math.nan)
    return ListedUtterance(
        id=_text(row, "id") or f"{article}/{round(start * 1000):08d}",
        audio=audio,
        start=start,
        end=end,
        text=_text(row, "text"),
        speaker=_text(row, "speaker"),
        channel=None if math.isnan(channel) else int(channel),
        context=context,
    )


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return " ".join(str(value).split()) if value is not None else ""


def _parts(row: Row, column: str, divider: str) -> list[str]:
    value = row.get(column)
    parts = value if isinstance(value, list) else str(value or "").split(divider)
    return [" ".join(str(part).split()) for part in parts if str(part).strip()]


def _seconds(unit: str, row: Row, column: str, otherwise: float) -> float:
    value = row.get(column)
    if value is None or value == "":
        return otherwise
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise CwjaxError(f"{unit}: {column} is {value!r}, which is no number of seconds (or no channel)")
    return number
