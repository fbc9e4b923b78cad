"""The directory of a run: of one configuration, and of one run at a time."""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cwjax.config import Config, differences, with_defaults
from cwjax.data.examples.processor import TOKENIZER_FOLDER
from cwjax.errors import CwjaxError
from cwjax.files import local_path, read_json, write_text
from cwjax.processes import first_alone, is_first
from cwjax.training.checkpoints import has_checkpoint

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
LOCK_FILE = ".cwjax-lock"

MAY_CHANGE = (
    "workdir",
    "train.steps",
    "train.checkpoint_every",
    "train.checkpoints_kept",
    "train.checkpoint_minutes",
    "train.keep_every",
    "train.export_every",
    "train.exports_kept",
    "train.log_every",
    "train.trackers",
    "train.profile",
    "train.remat",
    "train.accumulation",
    "train.validate_every",
    "train.validation_examples",
    "train.best_by",
    "train.patience",
    "evaluation.",
    "mesh.",
    "data.reading_threads",
    "data.target_lengths",
)
"""Fields in which a run may differ from the one its directory holds: those on which no loss depends, but for rounding,
and the number of steps."""


@contextlib.contextmanager
def opened_workdir(config: Config) -> Iterator[Path]:
    """Makes the run's directory and keeps others out of it; refuses one that belongs to another configuration.

    Raises:
        CwjaxError: it does, or another run is at work in it, or it cannot be written.
    """
    workdir = local_path(config.workdir)
    with contextlib.ExitStack() as stack:
        first_alone(lambda: _open(config, workdir, stack))
        yield workdir


def _open(config: Config, workdir: Path, stack: contextlib.ExitStack) -> None:
    if not is_first():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_lock(workdir))
        path = workdir / CONFIG_FILE
        ours = config.as_dict()
        if not has_checkpoint(workdir):  # nothing has been trained yet, so all may change
            shutil.rmtree(workdir / TOKENIZER_FOLDER, ignore_errors=True)
        elif path.exists():
            _require_same(ours, path)
        write_text(path, json.dumps(ours, indent=2) + "\n")
    except OSError as error:
        raise CwjaxError(f"{workdir}: cannot be written ({error.strerror or error})") from error


def _require_same(ours: dict, path: Path) -> None:
    """Raises `CwjaxError` if the run in a directory has another configuration; says what may differ and does."""
    theirs, unknown = with_defaults(read_json(path, "delete this file alone if nothing has changed since"))
    for name in unknown:
        log.warning("%s: has %s, which this version of cwjax does not know, and leaves out", path, name)
    changed = differences(ours, theirs)
    forbidden = [line for line in changed if not line.startswith(MAY_CHANGE)]
    if forbidden:
        raise CwjaxError(
            f"{path.parent}: holds a run with another configuration ({'; '.join(forbidden[:5])}); "
            "use another --workdir, or delete it to start again"
        )
    for line in changed:
        if not line.startswith("workdir"):
            log.info("changed since the run began: %s", line)


@contextlib.contextmanager
def _lock(workdir: Path) -> Iterator[None]:
    """Keeps other runs out. The lock goes with the process that has it, however that ends."""
    lock = FileLock(workdir / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CwjaxError(
            f"{workdir}: another run is at work in it; wait for its end, or use another --workdir"
        ) from None
    except (OSError, NotImplementedError) as error:  # of file systems without locks
        log.warning("%s: cannot be locked (%s); see to it that no other run works in it", workdir, error)
    try:
        yield
    finally:
        lock.release()
