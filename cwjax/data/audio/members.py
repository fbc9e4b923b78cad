"""Audio inside of archives and tables, by paths that go on inside: `shard.tar/a/b.flac`, `table.parquet/audio/17`.

The latter is the 18th row's content in the column `audio`: bytes, or a struct with `bytes`, as the `datasets` library
writes them, in Parquet or Arrow. An archive's list of members and a table's last group of rows are remembered.
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cwjax.errors import CwjaxError
from cwjax.extras import require_package

TABLES = (".parquet", ".arrow")


def is_sound_file(path: str | Path) -> bool:
    """Whether there is such a file or member."""
    path = Path(path)
    return path.is_file() or _container(path) is not None


def open_sound_file(path: str | Path) -> BinaryIO:
    """The file or member, which can seek. Raises OSError if there is none, CwjaxError if its container is damaged."""
    path = Path(path)
    container = None if path.is_file() else _container(path)
    if container is None:
        return path.open("rb")
    outer, inner = container
    if outer.suffix == ".tar":
        begin, size = tar_members(outer)[inner]
        with outer.open("rb") as file:
            file.seek(begin)
            return io.BytesIO(file.read(size))
    column, row = inner.rsplit("/", 1)
    return io.BytesIO(_cell(outer, column, int(row)))


def sound_size(path: str | Path) -> int:
    """Bytes of a file or member; of a table's row the mean. Raises OSError if there is none."""
    path = Path(path)
    container = None if path.is_file() else _container(path)
    if container is None:
        return path.stat().st_size
    outer, inner = container
    if outer.suffix == ".tar":
        return tar_members(outer)[inner][1]
    return outer.stat().st_size // max(1, sum(_rows_of_groups(outer)))


def _container(path: Path) -> tuple[Path, str] | None:
    """The archive or table that a path goes into, and the rest of the path, if there is such a member."""
    for outer in path.parents:
        if outer.suffix in (".tar", *TABLES) and outer.is_file():
            inner = path.relative_to(outer).as_posix()
            if outer.suffix == ".tar":
                return (outer, inner) if inner in tar_members(outer) else None
            row = inner.rpartition("/")[2]
            return (outer, inner) if row.isdecimal() and int(row) < sum(_rows_of_groups(outer)) else None
    return None


@lru_cache(maxsize=16)
def tar_members(path: Path) -> dict[str, tuple[int, int]]:
    """Where each member of a tar file begins, and its size in bytes, by its name without "./".

    Members that a damaged file does not hold whole are left out.

    Raises:
        CwjaxError: the file is compressed or no tar file.
    """
    members: dict[str, tuple[int, int]] = {}
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isreg() and member.offset_data + member.size <= size:
                    members[PurePosixPath(member.name).as_posix()] = member.offset_data, member.size
    except tarfile.ReadError as error:
        if not members:
            raise CwjaxError(f"{path}: cannot be read as a tar file ({error}); if it is compressed, unzip it") from None
    return members


def is_cut_short(path: Path) -> bool:
    """Whether a tar file lacks the empty block behind its last member: members may be lost with it."""
    with tarfile.open(path, "r:") as archive, suppress(tarfile.ReadError):
        for _ in archive:
            pass
    end = archive.offset
    with path.open("rb") as file:
        file.seek(end)
        return file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE)


def table_groups(path: Path, columns: list[str] | None = None) -> Iterator[Any]:
    """The groups of rows of a table, as pyarrow's tables of some columns.

    Raises:
        CwjaxError: pyarrow is missing, or the table is damaged.
    """
    require_package("pyarrow", str(path))
    import pyarrow

    try:
        yield from (_group(path, number, columns) for number in range(len(_rows_of_groups(path))))
    except (pyarrow.ArrowException, OSError) as error:
        raise CwjaxError(f"{path}: cannot be read ({str(error).splitlines()[0]}); fetch it again") from None


def table_columns(path: Path) -> dict[str, bool]:
    """The columns of a table, and whether each may hold content of files. Raises CwjaxError as `table_groups` does."""
    require_package("pyarrow", str(path))
    import pyarrow
    from pyarrow import parquet, types

    try:
        schema = parquet.read_schema(path) if path.suffix == ".parquet" else _arrow(path)[0].schema
    except (pyarrow.ArrowException, OSError, IndexError) as error:
        raise CwjaxError(f"{path}: cannot be read ({str(error).splitlines()[0]}); fetch it again") from None

    def is_file(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return types.is_binary(kind) or types.is_large_binary(kind)

    return {field.name: is_file(field.type) for field in schema}


@lru_cache(maxsize=16)
def _rows_of_groups(path: Path) -> tuple[int, ...]:
    require_package("pyarrow", str(path))
    if path.suffix == ".parquet":
        from pyarrow import parquet

        about = parquet.read_metadata(path)
        return tuple(about.row_group(number).num_rows for number in range(about.num_row_groups))
    return tuple(batch.num_rows for batch in _arrow(path))


@lru_cache(maxsize=4)
def _arrow(path: Path) -> list[Any]:
    """The batches of an Arrow stream or file, which stay on the disk."""
    import pyarrow
    from pyarrow import ipc

    mapped = pyarrow.memory_map(str(path))
    try:
        return list(ipc.open_stream(mapped))
    except pyarrow.ArrowInvalid:
        mapped.seek(0)
        file = ipc.open_file(mapped)
        return [file.get_batch(number) for number in range(file.num_record_batches)]


def _group(path: Path, number: int, columns: list[str] | None) -> Any:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            return table.read_row_group(number, columns=columns)
    batch = _arrow(path)[number]
    return batch if columns is None else batch.select(columns)


@lru_cache(maxsize=2)
def _column(path: Path, number: int, column: str) -> Any:
    return _group(path, number, [column]).column(column)


def _cell(path: Path, column: str, row: int) -> bytes:
    for number, rows in enumerate(_rows_of_groups(path)):
        if row < rows:
            value = _column(path, number, column)[row].as_py()
            content = value.get("bytes") if isinstance(value, dict) else value
            return content or b""
        row -= rows
    return b""
