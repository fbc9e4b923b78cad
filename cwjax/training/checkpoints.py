"""Checkpoints with Orbax; the only file that knows it.

`checkpoints/STEP` holds everything that is needed to go on exactly: the state of training, the best parameters so far,
and in `checkpoint.json` the progress, the shapes, and a digest of every file. Every process writes and reads its own
shards, in the background while training goes on. All is written to `STEP.partial` and renamed when it is whole, so a
killed process leaves the checkpoint before intact, and flipped bits are found before they are trained on.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from cwjax.errors import CwjaxError
from cwjax.files import write_text
from cwjax.models.parameters import Parameters, flatten
from cwjax.processes import barrier, first_alone, is_first, shared, tells_of_loss
from cwjax.training.memory import name_out_of_memory
from cwjax.training.train_step import TrainState
from cwjax.weights.sources import file_sha256

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
DESCRIPTION_FILE = "checkpoint.json"
KEPT_FILE = "kept"
"""In a checkpoint that stays for good."""
_LEFT_BEHIND = "*.*"
"""Names of what a killed process was writing or deleting; whole checkpoints are plain numbers."""


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has a checkpoint to go on from, whole or damaged."""
    return bool(_steps(workdir / FOLDER))


def _steps(directory: Path) -> list[int]:
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: of training.
        best: trainable parameters of the best validation; None before the first.
        progress: anything else to be found again, as JSON values.
    """

    state: TrainState
    best: Parameters | None
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
        workdir: of the run.
        kept: latest checkpoints that stay, besides those that stay for good.
    """

    def __init__(self, workdir: Path, kept: int):
        self._workdir = workdir.resolve()
        self._directory = self._workdir / FOLDER
        self._kept = kept
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        first_alone(self._clear)

    def _clear(self) -> None:
        if not is_first():
            return
        for leftover in self._directory.glob(_LEFT_BEHIND):
            shutil.rmtree(leftover, ignore_errors=True)
        self._delete_old()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, earliest first."""
        return _steps(self._directory)

    def save(self, checkpoint: Checkpoint, for_good: bool = False) -> None:
        """Begins to write a checkpoint; its arrays may be given up at once. One `for_good` is never deleted.

        Raises:
            CwjaxError: the disk is full or the directory cannot be written, now or when the checkpoint before was
                still being written; earlier checkpoints remain.
        """
        self.wait()
        step = int(checkpoint.state.step)
        arrays = {"state": checkpoint.state} | ({} if checkpoint.best is None else {"best": checkpoint.best})
        content = {"progress": dict(checkpoint.progress), "arrays": list(arrays), "shapes": _shapes(checkpoint.state)}
        with self._mended(step):
            if not self._workdir.is_dir():
                raise FileNotFoundError("the run's directory is gone")
            with _plain_name(self._directory) as directory:
                response = ocp.save_checkpointables_async(directory / f"{step}.partial", arrays, overwrite=True)
        self._pending = self._thread.submit(self._finish, step, response, content, for_good)

    def _finish(self, step: int, response: Any, content: dict[str, Any], for_good: bool) -> None:
        with self._mended(step):
            response.result()
            if not is_first():
                return
            partial, whole = self._directory / f"{step}.partial", self._directory / str(step)
            content["files"] = {
                str(file.relative_to(partial)): file_sha256(file) for file in partial.rglob("*") if file.is_file()
            }
            text = json.dumps(content)
            digest = hashlib.sha256(text.encode()).hexdigest()
            write_text(partial / DESCRIPTION_FILE, json.dumps({"sha256": digest, "content": text}))
            if for_good:
                (partial / KEPT_FILE).touch()
            self._remove(whole)
            partial.rename(whole)
            self._delete_old()

    def _delete_old(self) -> None:
        passing = [step for step in self.steps() if not (self._directory / str(step) / KEPT_FILE).exists()]
        for step in passing[: -self._kept]:
            self._remove(self._directory / str(step))

    def _remove(self, whole: Path) -> None:
        """Deletes a checkpoint, which never looks whole when it is not any more."""
        if whole.exists():
            doomed = whole.with_name(whole.name + ".deleted")
            whole.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def wait(self) -> None:
        """Waits until all that was saved is on disk.

        Raises:
            CwjaxError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    @contextlib.contextmanager
    def _mended(self, step: int) -> Iterator[None]:
        """Takes away what is left of a checkpoint that cannot be written, and says so."""
        try:
            yield
        except Exception as error:
            for leftover in self._directory.glob(_LEFT_BEHIND):
                shutil.rmtree(leftover, ignore_errors=True)
            remaining = self.steps()
            rest = f"the checkpoint of step {remaining[-1]} remains" if remaining else "there is none before it"
            raise CwjaxError(
                f"{self._directory}: the checkpoint of step {step} cannot be written ({_reason(error)}); "
                f"{rest}; make room and run the same command again"
            ) from error

    def restore(self, abstract_state: TrainState) -> Checkpoint | None:
        """Restores the latest checkpoint whose files are as they were written, straight into its shards.

        One of which bytes are missing or wrong is moved to `damaged/STEP`, named in the log, and the one before is
        taken. Whatever else goes wrong moves nothing.

        Args:
            abstract_state: shapes, dtypes and shardings of the state; the mesh may be another than that of the run
                so far.

        Returns:
            None if there is no checkpoint.

        Raises:
            CwjaxError: there are checkpoints, but none is whole, or they are another model's or optimizer's, or cannot
                be read now.
        """
        damaged = []
        for step in reversed(json.loads(shared(json.dumps(self.steps()))[0])):
            path = self._directory / str(step)
            content, problem = _description(path)
            problem = next(filter(None, shared(problem or _damaged_file(path, content["files"]))), "")
            if not problem:
                return self._load(path, content, abstract_state)
            first_alone(partial(self._move_aside, path, problem))
            damaged.append(step)
        if damaged:
            raise CwjaxError(
                f"{self._directory}: none of the checkpoints of steps {damaged} is whole; they are in "
                f"{self._workdir / 'damaged'}; bring back a copy of one, or use another --workdir"
            )
        return None

    def _load(self, path: Path, content: dict[str, Any], abstract_state: TrainState) -> Checkpoint:
        _require_same_shapes(path, content["shapes"], _shapes(abstract_state))
        wanted = {"state": abstract_state, "best": abstract_state.trainable}
        try:
            with name_out_of_memory("restoring the checkpoint"), _plain_name(path.parent) as directory:
                names = content["arrays"]
                loaded = ocp.load_checkpointables(directory / path.name, {name: wanted[name] for name in names})
        except CwjaxError:
            raise
        except Exception as error:
            log.debug("%s", error)
            raise CwjaxError(
                f"{path}: is whole, but cannot be read ({_reason(error)}); it is left as it is: mend that and run the "
                "same command again"
            ) from error
        return Checkpoint(loaded["state"], loaded.get("best"), content["progress"])

    def _move_aside(self, path: Path, problem: str) -> None:
        if not is_first():
            return
        aside = self._workdir / "damaged" / path.name
        log.warning("%s: damaged (%s), moved to %s, taking the one before", path, problem, aside)
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.move(path, aside)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        lost = tells_of_loss(error)  # what a lost device or process should have written is never written
        try:
            if not lost:
                self.wait()
            if error is None:
                barrier()  # no process ends before the first has named the last checkpoint
        finally:
            self._thread.shutdown(wait=not lost)


def _description(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a checkpoint's description, or what is wrong with it."""
    if not (path / DESCRIPTION_FILE).exists() and (path / "progress").exists():
        raise CwjaxError(
            f"{path}: was written by an earlier version of cwjax; finish the run with that, or use another --workdir"
        )
    try:
        described = json.loads((path / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        text = described["content"]
        if hashlib.sha256(text.encode()).hexdigest() == described["sha256"]:
            return json.loads(text), ""
    except FileNotFoundError:
        return {}, f"{DESCRIPTION_FILE} is missing"
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        pass
    return {}, f"{DESCRIPTION_FILE} has other bytes than were written"


def _damaged_file(path: Path, files: dict[str, str]) -> str:
    """Which file of a checkpoint is not as it was written; every process looks at its share of them."""
    for name in sorted(files)[jax.process_index() :: jax.process_count()]:
        file = path / name
        if not file.exists():
            return f"{name} is missing"
        if file_sha256(file) != files[name]:
            return f"{name} has other bytes than were written"
    return ""


@contextlib.contextmanager
def _plain_name(directory: Path) -> Iterator[Path]:
    """The directory under a name that Orbax can be given: it takes characters such as [ and \\ for patterns."""
    directory.mkdir(parents=True, exist_ok=True)
    if not set("[]*?\\") & set(str(directory)):
        yield directory
        return
    link = Path(tempfile.gettempdir()) / f"cwjax-{hashlib.sha256(str(directory).encode()).hexdigest()[:20]}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(directory)
    if link.resolve() != directory:
        raise CwjaxError(f"{link}: is in the way; delete it, or use a --workdir without the characters [ ] * ? \\")
    yield link


def _reason(error: Exception) -> str:
    """What went wrong, without the places and numbers that a library adds."""
    if "No space left" in str(error):
        return "no space left on the disk"
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _shapes(state: TrainState) -> dict[str, list[Any]]:
    """Shape and dtype of every array, by its path; those of the parameters as everywhere."""

    def described(leaf: Any) -> list[Any]:
        return [*leaf.shape, str(leaf.dtype)]

    opt_state = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    return {path: described(leaf) for path, leaf in flatten(state.trainable)} | {
        f"opt_state{jax.tree_util.keystr(path)}": described(leaf) for path, leaf in opt_state
    }


def _require_same_shapes(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    different = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if different:
        of_optimizer = all(name.startswith("opt_state") for name in different)
        what = "optimizer (of another version of optax?)" if of_optimizer else "model"
        name = different[0]
        raise CwjaxError(
            f"{path}: is a checkpoint of another {what}: {name} is {theirs.get(name)} there and {ours.get(name)} here; "
            "use another --workdir, or that with which it was made"
        )
