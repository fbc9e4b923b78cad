"""Tables of the `datasets` library with audio inside: Parquet and Arrow's streams, a few rows at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.evaluation.suites.rows import Placed
from cwjax.extras import require_package

ROWS = 16
"""Read at a time; a row may hold a minute of audio."""


def table_rows(folder: Path, patterns: Sequence[str], columns: Sequence[str]) -> Iterator[Placed | str]:
    """The rows of all tables of a folder, in the order of their names.

    Args:
        folder: with the tables, at any depth.
        patterns: of their names, as of `Path.rglob`.
        columns: that are needed.

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
            for batch in _batches(path):
                if missing := [name for name in columns if name not in batch.schema.names]:
                    raise CwjaxError(f"{path}: has no column {', '.join(missing)}; is it a table of this suite?")
                for start in range(0, batch.num_rows, ROWS):
                    for row in batch.slice(start, ROWS).to_pylist():
                        number += 1
                        yield Placed(f"{path}, row {number}", row)
        except (ArrowException, OSError) as error:
            yield f"{path}: cannot be read after row {number} ({str(error).splitlines()[0]}); fetch it again"


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import ipc, parquet

    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as table:
            yield from table.iter_batches(batch_size=ROWS)
        return
    with pyarrow.memory_map(str(path)) as source:
        yield from ipc.open_stream(source)
