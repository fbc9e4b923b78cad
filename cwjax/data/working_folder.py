"""A folder in which one process at a time puts something together, until it takes its place as a whole."""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_LOCK_FILE = "in-use"


@contextlib.contextmanager
def only_process(output: Path) -> Iterator[Path | None]:
    """A folder beside the output to work in, by one process at a time; None if another one has done the work.

    What was finished stays in it when the work is stopped; if nothing was, the folder goes.
    """
    aside = output.with_name(output.name + ".partial")
    while (lock := _locked(aside, output)) is None:
        if output.exists():
            yield None
            return
    with lock:
        try:
            yield aside
        finally:
            (aside / _LOCK_FILE).unlink(missing_ok=True)
            if not any(aside.glob("audio-*.json")):
                shutil.rmtree(aside, ignore_errors=True)


def _locked(aside: Path, output: Path) -> IO[str] | None:
    """The open lock of the folder, once no other process has it; None if the folder went meanwhile."""
    aside.mkdir(parents=True, exist_ok=True)
    path = aside / _LOCK_FILE
    try:
        lock = path.open("w")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("waiting for another process that prepares %s", output)
        fcntl.flock(lock, fcntl.LOCK_EX)
    if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
        return lock
    lock.close()
    return None


def publish(aside: Path, output: Path) -> None:
    """Puts the folder into its place."""
    (aside / _LOCK_FILE).unlink()
    aside.rename(output)
