"""Checkpoints with Orbax; the only file that knows it.

A run directory holds `checkpoints/STEP` (trained parameters, optimizer, step, data position), `frozen`
(parameters that never change, written once) and `best/STEP` (trained parameters of the best
validation). Every process writes and reads its own shards, in the background while training goes on.
Orbax writes aside and renames, so a killed process leaves the checkpoint before intact.
"""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from cwjax.errors import CwjaxError
from cwjax.models.parameters import Parameters, flatten
from cwjax.training.processes import all_agree, is_first
from cwjax.training.step import TrainState

log = logging.getLogger(__name__)

_training = ocp.training
_every_call = _training.save_decision_policies.FixedIntervalPolicy(1)


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, workdir: str | Path, kept: int):
        self._workdir = Path(workdir).resolve()
        self._latest = self._open("checkpoints", kept)
        self._best = self._open("best", 1)
        self._pending: tuple[Any, int, Any] | None = None

    def _open(self, name: str, kept: int) -> Any:
        return _training.Checkpointer(
            self._workdir / name,
            save_decision_policy=_every_call,
            preservation_policy=_training.preservation_policies.LatestN(kept),
        )

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Begins to write everything that is needed to continue exactly; the state may be given up at once.

        Args:
            state: of training.
            progress: anything else to be found again, as JSON values.

        Raises:
            CwjaxError: the disk is full or the directory cannot be written, now or when the checkpoint before was
                still being written; earlier checkpoints remain.
        """
        step = int(state.step)
        shapes = json.dumps(_shapes(state.trained))  # as text: Orbax would write an array for every number
        self._begin(self._latest, step, {"state": state, "progress": progress | {"shapes": shapes}})

    def save_best(self, step: int, trained: Parameters) -> None:
        """Begins to write the trained parameters of the best validation so far."""
        self._begin(self._best, step, {"trained": trained})

    def _begin(self, checkpointer: Any, step: int, content: dict[str, Any]) -> None:
        self.wait()
        with self._mended(checkpointer, step):
            response = checkpointer.save_checkpointables_async(step, content, force=True, overwrite=True)
        self._pending = checkpointer, step, response

    def wait(self) -> None:
        """Waits until all that was saved is on disk.

        Raises:
            CwjaxError: it could not be written.
        """
        if self._pending:
            checkpointer, step, response = self._pending
            self._pending = None
            with self._mended(checkpointer, step):
                response.result()

    @contextlib.contextmanager
    def _mended(self, checkpointer: Any, step: int) -> Iterator[None]:
        """Takes away what is left of a checkpoint that cannot be written, and says so."""
        try:
            yield
        except Exception as error:
            for partial in (str(step), f"{step}.*"):
                for place in checkpointer.directory.glob(partial):
                    shutil.rmtree(place, ignore_errors=True)
            remaining = self.steps()
            rest = f"the checkpoint of step {remaining[-1]} remains" if remaining else "there is none before it"
            raise CwjaxError(
                f"{checkpointer.directory}: the checkpoint of step {step} cannot be written ({_reason(error)}); "
                f"{rest}; make room and run the same command again"
            ) from error

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, earliest first."""
        return sorted(metadata.step for metadata in self._latest.checkpoints)

    def restore(self, abstract_state: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Restores the latest checkpoint that can be read, straight into its shards.

        Damaged ones are renamed to `damaged-STEP`, named in the log, and the one before is taken.

        Args:
            abstract_state: shapes, dtypes and shardings of the state; the mesh may be another than that of the run
                so far.

        Returns:
            The state and the progress saved with it; None if there is no checkpoint.

        Raises:
            CwjaxError: there are checkpoints, but none can be read, or they are another model's.
        """
        damaged = []
        for step in reversed(self.steps()):
            place = self._latest.directory / str(step)
            try:
                progress = self._latest.load_checkpointables(step, {"progress": None})["progress"]
                _require_same_shapes(place, json.loads(progress.pop("shapes")), _shapes(abstract_state.trained))
                state = self._latest.load_checkpointables(step, {"state": abstract_state})["state"]
            except CwjaxError:
                raise
            except Exception as error:
                log.debug("%s", error)
                state = None
            if all_agree(state is not None):
                return state, progress
            aside = self._workdir / "damaged" / str(step)
            log.warning("%s: damaged, moved to %s, taking the one before", place, aside)
            if is_first():
                aside.parent.mkdir(exist_ok=True)
                shutil.rmtree(aside, ignore_errors=True)
                shutil.move(place, aside)
            all_agree(True)  # that it is moved
            self._latest.reload()
            damaged.append(step)
        if damaged:
            raise CwjaxError(
                f"{self._latest.directory}: none of the checkpoints of steps {damaged} can be read; "
                f"delete {self._workdir} to start again"
            )
        return None

    def restore_best(self, abstract_trained: Parameters) -> tuple[int, Parameters] | None:
        """Step and trained parameters of the best validation; None if there was no validation."""
        self.wait()
        latest = self._best.latest
        if latest is None:
            return None
        try:
            loaded = self._best.load_checkpointables(latest.step, {"trained": abstract_trained})
        except Exception as error:
            raise CwjaxError(f"{self._best.directory / str(latest.step)}: cannot be read; delete it") from error
        return latest.step, loaded["trained"]

    def save_frozen(self, frozen: Parameters) -> None:
        """Writes the frozen parameters once per run.

        Raises:
            CwjaxError: the disk is full or the directory cannot be written.
        """
        place = self._workdir / "frozen"
        if not place.exists() and frozen:
            try:
                ocp.save(place, frozen)
            except Exception as error:
                for partial in self._workdir.glob("frozen.*"):
                    shutil.rmtree(partial, ignore_errors=True)
                raise CwjaxError(
                    f"{place}: the frozen parameters cannot be written ({_reason(error)}); make room and run the same "
                    "command again"
                ) from error

    def restore_frozen(self, abstract_frozen: Parameters) -> Parameters:
        """The frozen parameters this run began with."""
        if not abstract_frozen:
            return {}
        place = self._workdir / "frozen"
        try:
            return ocp.load(place, abstract_frozen)
        except Exception as error:
            raise CwjaxError(f"{place}: the frozen parameters cannot be read; delete {self._workdir}") from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # What a lost device or process should have written is never written.
        if kind is None or not issubclass(kind, jax.errors.JaxRuntimeError):
            self.close()

    def close(self) -> None:
        """Waits for what is still being written.

        Raises:
            CwjaxError: it could not be written.
        """
        try:
            self.wait()
        finally:
            for checkpointer in (self._latest, self._best):
                with contextlib.suppress(Exception):  # a save that failed fails once more here, and was reported
                    checkpointer.close()


def _reason(error: Exception) -> str:
    """What went wrong, without the places and numbers that a library adds."""
    if "No space left" in str(error):
        return "no space left on the disk"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _shapes(parameters: Parameters) -> dict[str, list[int]]:
    return {path: list(leaf.shape) for path, leaf in flatten(parameters)}


def _require_same_shapes(place: Path, theirs: dict[str, list[int]], ours: dict[str, list[int]]) -> None:
    different = sorted(path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path))
    if different:
        path = different[0]
        raise CwjaxError(
            f"{place}: is a checkpoint of another model: {path} has shape {theirs.get(path)} there and "
            f"{ours.get(path)} here; use another --workdir, or the model it was made with"
        )
