"""A folder in which one process at a time puts something together, until it takes its place as a whole."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5


@contextlib.contextmanager
def only_process(output: Path) -> Iterator[Path | None]:
    """A folder beside the output to work in, by one process at a time; None if another one has done the work.

    What was finished stays in it when the work is stopped; if nothing was, the folder goes.
    """
    aside = aside_of(output)
    with _locked(output):
        if output.exists():
            yield None
            return
        aside.mkdir(exist_ok=True)
        try:
            yield aside
        finally:
            if not any(aside.glob("parts/*.json")):
                shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Waits for other processes. The lock goes with the process that has it, however that ends.

    It lies beside the folder: Windows renames no folder in which a file is open.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}.cwjax-lock")  # no name that a file of the user's could have
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that prepares %s", output)
        lock.acquire(poll_interval=_SECONDS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        # Whoever waits finds that the file it opened has no name any more, and takes a new one. Windows lets nobody
        # delete an open file; there it goes with the lock.
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)
        lock.release()


def aside_of(output: Path) -> Path:
    """Where an output is put together."""
    return output.with_name(output.name + ".partial")


def publish(folder: Path, output: Path) -> None:
    """Puts a folder of the working folder into its place, and takes what is left away."""
    folder.rename(output)
    shutil.rmtree(aside_of(output), ignore_errors=True)
