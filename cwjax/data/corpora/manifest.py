"""Your own recordings, listed in a table: `*.jsonl`, `*.csv` or `*.tsv` at the root, a line an utterance.

| column | also called | what |
|---|---|---|
| audio | audio_filepath, audio_path, file_name | file, absolute or relative to the table |
| text | transcript, transcription, sentence | what is said |
| start, end | offset, duration | seconds in the file; without them the whole file |
| context | | what you would say about the recording |
| title, section, lead, categories, keywords | | the same in parts; lists are divided by ";", sections by ">" |
| id, article, speaker, channel, language, split, licence, source | lang, license | where known |

Only `audio` and `text` are needed; a language is "en" if not said. Utterances of one article, else of one file, belong
together. So NeMo's manifests (also `*.json` with a line an utterance) are read, and folders of Hugging Face's
(`metadata.csv` or `metadata.jsonl`, also in `train/`, `validation/` and `test/`, which are splits then).
"""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import ENDINGS, Row, plain, table_rows
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "table of your own (a .jsonl, .csv or .tsv with the columns audio and text), NeMo manifest or audio folder"
NEEDED = ("audio", "text")
ALIASES = {
    "audio_filepath": "audio", "audio_path": "audio", "file_name": "audio", "transcript": "text",
    "transcription": "text", "sentence": "text", "offset": "start", "lang": "language", "license": "licence",
    "speaker_id": "speaker",
}  # fmt: skip
CONTEXT_COLUMNS = ("context", "title", "section", "lead", "categories", "keywords")
SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "": "",
}  # fmt: skip
"""Splits by the names that people give them."""
LOOKED_AT = 1000
"""Rows at the start of a table in which its columns are looked for."""


def looks_like(root: Path) -> bool:
    """Whether there is a table with the columns that are needed."""
    return bool(_tables(root))


def _tables(root: Path) -> list[Path]:
    """The tables with the columns that are needed."""
    return [path for path in _candidates(root) if any(set(NEEDED) <= row.fields.keys() for row in _start(path))]


def _candidates(root: Path) -> list[Path]:
    listed = [path for path in root.iterdir() if path.name.endswith(ENDINGS)]
    folders = [path for depth in ("*", "*/*") for path in root.glob(f"{depth}/metadata.*") if path.suffix in ENDINGS]
    return sorted(path for path in (*listed, *folders) if path.is_file() and not _is_one_json(path))


def _is_one_json(path: Path) -> bool:
    """Whether a `.json` is no list of lines but a single value, which may be too large to be read."""
    with path.open("rb") as file:
        return path.suffix == ".json" and not file.readline(1 << 16).rstrip().endswith(b"}")


def _start(path: Path) -> list[Row]:
    return [row for row in islice(map(named, table_rows(path)), LOOKED_AT) if isinstance(row, Row)]


def named(row: Row | str) -> Row | str:
    """The row with its columns by the names that are used here."""
    if isinstance(row, str):
        return row
    if row.fields.keys().isdisjoint(ALIASES):
        return row
    meant = {ALIASES[name]: value for name, value in row.fields.items() if name in ALIASES}
    return row._replace(fields=meant | row.fields)


def remarks(root: Path) -> Iterator[str]:
    """Tables that are not read, and those that say nothing about their recordings."""
    tables = _tables(root)
    for path in _candidates(root):
        if path not in tables and path.suffix != ".json":
            yield f"{path.name} is not read: it has no columns audio and text"
        elif path in tables and not any(row.fields.get(name) for row in _start(path) for name in CONTEXT_COLUMNS):
            yield (
                f"{path.name} says nothing about its recordings ({', '.join(CONTEXT_COLUMNS)}): "
                "the only context is what was said before"
            )


def articles(root: Path) -> Iterator[Unit]:
    """The rows of every article, and as a unit that cannot be read every line that is no row."""
    for path in _tables(root):
        folder = path.parent.relative_to(root).as_posix()
        # Only numbers are kept of what comes later: a table may have millions of rows.
        left: Counter[int] = Counter()
        splits: dict[int, str] = {}
        for row in map(named, table_rows(path)):
            if isinstance(row, Row):
                article, split = _article(folder, row)
                left[hash((article, split))] += 1
                splits.setdefault(hash(article), split)
        waiting: dict[tuple[str, str], list[Row]] = {}
        for row in map(named, table_rows(path)):
            if isinstance(row, str):
                yield Unit(row.partition(": ")[0], (), row)
                continue
            article, split = key = _article(folder, row)
            waiting.setdefault(key, []).append(row)
            left[hash(key)] -= 1
            if not left[hash(key)]:
                name = article if split == splits[hash(article)] else f"{article} [{split or 'no split'}]"
                yield _unit(folder, path.name, name, split, waiting.pop(key))
        for (name, split), rows in waiting.items():
            yield _unit(folder, path.name, name, split, rows)


def _article(folder: str, row: Row) -> tuple[str, str]:
    """To what a row belongs: an article in a split, which may be that of the table's folder."""
    fields = row.fields
    split = plain(fields.get("split"))
    split = SPLITS.get(split, split) or SPLITS.get(folder.rpartition("/")[2], "")
    return plain(fields.get("article")) or plain(fields.get("audio")), split


def _unit(folder: str, table: str, name: str, split: str, rows: list[Row]) -> Unit:
    audio = dict.fromkeys(_audio(folder, row) for row in rows if row.fields.get("audio"))
    table = table if folder == "." else f"{folder}/{table}"
    return Unit(f"{table}: {name}", tuple(audio), (folder, name, split, tuple(rows)))


def _audio(folder: str, row: Row) -> str:
    """Path of a row's audio file, relative to the root or absolute; NeMo's tarred manifests number their archives."""
    value = row.fields.get("audio")
    name = plain(value.get("path") if isinstance(value, dict) else value)
    if row.fields.get("shard_id") is not None:
        name = f"audio_{plain(row.fields['shard_id'])}.tar/{name}"
    return name if folder == "." else (Path(folder) / name).as_posix()


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of an article's rows; rows that lack something or have times that are none are left out.

    Raises CwjaxError if there is no other row, or the audio is missing.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    folder, name, split, rows = unit.content
    utterances: list[ListedUtterance] = []
    problems = [row.warning for row in rows if row.warning]
    for row in rows:
        try:
            if split not in SPLITS:
                raise CwjaxError(f"{row.place}: its split is {split!r}; use train, validation or test, or none")
            utterances.append(utterance(row, name, _audio(folder, row)))
        except CwjaxError as error:
            problems.append(str(error))
    if not utterances:
        raise CwjaxError(problems[-1])
    utterances.sort(key=lambda one: (one.audio, one.start))
    article = ListedArticle(name, utterances, split=split, reader=plain(rows[0].fields.get("speaker")))
    return as_reading(root, article, limits, problems)


def utterance(row: Row, article: str, audio: str) -> ListedUtterance:
    """The utterance that a row describes, whose columns have the names of this module.

    Raises CwjaxError if it has no audio, or times that are no numbers.
    """
    start, duration = _seconds(row, "start", 0.0), _seconds(row, "duration", math.inf)
    end = _seconds(row, "end", start + duration)
    if not row.fields.get("audio"):
        raise CwjaxError(f"{row.place}: the row has no audio: {str(row.fields)[:80]}")
    if isinstance(row.fields["audio"], str) and plain(row.fields["audio"]) != " ".join(row.fields["audio"].split()):
        raise CwjaxError(f"{row.place}: the name of its audio holds what no file's name does: {audio!r}")
    said, title = (plain(row.fields.get(name)) for name in ("context", "title"))
    context = ContextMaterial(
        title=title or said,
        section=tuple(_parts(row, "section", ">")),
        lead=plain(row.fields.get("lead")) or (said if title else ""),
        categories=tuple(_parts(row, "categories", ";")),
        keywords=tuple(_parts(row, "keywords", ";")),
    )
    channel = _seconds(row, "channel", math.nan)
    return ListedUtterance(
        id=plain(row.fields.get("id")) or f"{article}/{round(start * 1000):08d}",
        audio=audio,
        start=start,
        end=end,
        text=plain(row.fields.get("text")),
        channel=None if math.isnan(channel) else int(channel),
        context=context,
        **{name: plain(row.fields.get(name)) for name in ("speaker", "language", "licence", "source", "subset")},
    )


def _parts(row: Row, column: str, divider: str) -> list[str]:
    value = row.fields.get(column)
    parts = value if isinstance(value, list) else str("" if value is None else value).split(divider)
    return list(filter(None, map(plain, parts)))


def _seconds(row: Row, column: str, otherwise: float) -> float:
    value: Any = row.fields.get(column)
    if value is None or value == "":
        return otherwise
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise CwjaxError(f"{row.place}: {column} is {value!r}, which is no number of seconds (or no channel)")
    return number
