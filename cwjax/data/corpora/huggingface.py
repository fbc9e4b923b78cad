"""Tables of Hugging Face's `datasets` with audio inside: Parquet, or Arrow as `save_to_disk` writes it.

One column holds the files' content, as bytes or as a struct with `bytes`, and one the text; others are read as those of
a table of your own (`manifest`). A table is of the split that its path names (`train-00000-of-00010.parquet`).
"""

from collections.abc import Iterator
from pathlib import Path

from cwjax.data.audio.members import TABLES, table_columns, table_groups
from cwjax.data.corpora.manifest import ALIASES, named
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import Row
from cwjax.data.corpora.webdataset import read_rows, split_of
from cwjax.errors import CwjaxError

TITLE = "tables of the datasets library (*.parquet or *.arrow with audio inside)"
TEXTS = ("text", *(name for name, meant in ALIASES.items() if meant == "text"), "raw_text", "normalized_text")
ROWS_PER_UNIT = 200


def looks_like(root: Path) -> bool:
    """Whether there are tables; what they hold is looked at when they are read."""
    return bool(_tables(root))


def _tables(root: Path) -> list[Path]:
    found = (path for ending in TABLES for path in root.rglob(f"*{ending}"))
    return sorted(path for path in found if not path.name.startswith("cache-"))


def articles(root: Path) -> Iterator[Unit]:
    """Some hundred rows of a table at a time.

    Raises CwjaxError if the package pyarrow is missing.
    """
    for path in _tables(root):
        place = path.relative_to(root).as_posix()
        try:
            yield from _units(path, place)
        except CwjaxError as error:
            if "pyarrow" in str(error):
                raise
            yield Unit(place, (), str(error))


def _units(path: Path, place: str) -> Iterator[Unit]:
    columns = table_columns(path)
    audio = next((name for name in ("audio", *columns) if columns.get(name)), None)
    text = next((name for name in TEXTS if name in columns), None)
    if audio is None or text is None:
        raise CwjaxError(f"{path}: has no column with {'a text' if audio else 'audio files'} (it has: {list(columns)})")
    plain_columns = [name for name, is_file in columns.items() if not is_file]
    first, rows = 0, []
    for group in table_groups(path, plain_columns):
        for fields in group.to_pylist():
            number = first + len(rows)
            lower = {name.lower(): value for name, value in fields.items()}
            lower |= {"audio": f"{place}/{audio}/{number}", "text": fields[text]}
            lower.setdefault("id", f"{Path(place).with_suffix('').as_posix()}/{number}")
            # A file's length is no place in it.
            lower = {name: value for name, value in lower.items() if name not in ("start", "end", "offset", "duration")}
            rows.append(named(Row(f"{path}, row {number}", lower)))
            if len(rows) == ROWS_PER_UNIT:
                yield _unit(place, first, rows)
                first, rows = number + 1, []
    if rows:
        yield _unit(place, first, rows)


def _unit(place: str, first: int, rows: list[Row]) -> Unit:
    audio = tuple(row.fields["audio"] for row in rows)
    return Unit(f"{place}:{first}-{first + len(rows) - 1}", audio, (place, tuple(rows)))


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads rows, each an article of its own unless a column names one.

    Raises CwjaxError if none can be used.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    place, rows = unit.content
    return read_rows(root, unit.name, list(rows), split_of(Path(place)), limits, [])
