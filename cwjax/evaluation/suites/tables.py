"""Tables of the `datasets` library with audio inside: Parquet and Arrow's streams, a group of rows at a time."""

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.evaluation.suites.rows import Placed
from cwjax.evaluation.suites.stored import Stored
from cwjax.extras import require_package

AUDIO = "audio"
"""The column of structs with the content of an audio file as `bytes`, or its `path`."""


def table_rows(folder: Path, patterns: Sequence[str], columns: Sequence[str]) -> Iterator[Placed | str]:
    """The rows of all tables of a folder, in the order of their names; content of audio files as `Stored`.

    Args:
        folder: with the tables, at any depth.
        patterns: of their names, as of `Path.rglob`.
        columns: that are needed beside the audio.

    Raises:
        CwjaxError: there is no table, pyarrow is missing, or a table lacks a column.
    """
    files = sorted({path for pattern in patterns for path in folder.rglob(pattern)})
    if not files:
        raise CwjaxError(f"{folder}: has no file {' or '.join(patterns)}; is it the suite's folder?")
    require_package("pyarrow", str(files[0]))
    from pyarrow import ArrowException

    for path in files:
        number = 0
        try:
            for group, chunk in enumerate(_groups(path)):
                names = chunk.schema.names
                if missing := [name for name in (AUDIO, *columns) if name not in names]:
                    raise CwjaxError(f"{path}: has no column {', '.join(missing)}; is it a table of this suite?")
                rows = chunk.select([name for name in names if name != AUDIO]).to_pylist()
                for place, (row, cell) in enumerate(zip(rows, chunk.column(AUDIO), strict=True)):
                    number += 1
                    where = f"{path}, row {number}"
                    load = partial(_content, path, group, place)
                    yield Placed(where, row | {AUDIO: Stored(where, load) if _holds_file(cell) else cell.as_py()})
        except (ArrowException, OSError) as error:
            yield f"{path}: cannot be read after row {number} ({str(error).splitlines()[0]}); fetch it again"


def _groups(path: Path) -> Iterator[Any]:
    """Row groups of Parquet as tables, batches of an Arrow stream, which stay on the disk."""
    import pyarrow
    from pyarrow import ipc, parquet

    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as table:
            yield from map(table.read_row_group, range(table.num_row_groups))
    else:
        with pyarrow.memory_map(str(path)) as source:
            yield from ipc.open_stream(source)


def _holds_file(cell: Any) -> bool:
    """Whether a cell has the content of a file in it."""
    from pyarrow import StructScalar

    content = dict(cell.items()).get("bytes") if isinstance(cell, StructScalar) and cell.is_valid else None
    return bool(content is not None and content.is_valid and content.as_buffer().size)


@lru_cache(maxsize=1)
def _sounds(path: Path, group: int) -> Any:
    from pyarrow import parquet

    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as table:
            return table.read_row_group(group, [AUDIO]).column(AUDIO)
    return next(itertools.islice(_groups(path), group, None)).column(AUDIO)


def _content(path: Path, group: int, place: int) -> bytes:
    """The file in a cell; neighbours are read with it, and kept until another group is asked for."""
    from pyarrow import ArrowException

    try:
        return _sounds(path, group)[place]["bytes"].as_py()
    except (ArrowException, OSError) as error:
        raise CwjaxError(f"{path}: can no longer be read ({str(error).splitlines()[0]})") from error
