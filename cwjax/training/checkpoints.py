"""Checkpoints with Orbax; the only file that knows it.

A run directory holds `checkpoints/STEP` (trained parameters, optimizer, step, data position), `frozen`
(parameters that never change, written once) and `best/STEP` (trained parameters of the best
validation). Orbax writes aside and renames, so a killed process leaves the checkpoint before intact.
"""

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
from grain import DatasetIterator
from orbax.checkpoint import v1 as ocp

from cwjax.errors import CwjaxError
from cwjax.models.parameters import Parameters

log = logging.getLogger(__name__)

_training = ocp.training
_every_call = _training.save_decision_policies.FixedIntervalPolicy(1)


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, workdir: str | Path, kept: int):
        self._workdir = Path(workdir).resolve()
        self._latest = self._open("checkpoints", kept)
        self._best = self._open("best", 1)

    def _open(self, name: str, kept: int) -> Any:
        return _training.Checkpointer(
            self._workdir / name,
            save_decision_policy=_every_call,
            preservation_policy=_training.preservation_policies.LatestN(kept),
        )

    def save(self, step: int, state: Any, data: DatasetIterator, progress: dict[str, Any]) -> None:
        """Writes everything that is needed to continue exactly after `step`.

        Raises:
            CwjaxError: the disk is full or the directory cannot be written; earlier checkpoints remain.
        """
        self._write(self._latest, step, {"state": state, "data": data, "progress": progress})

    def save_best(self, step: int, trained: Parameters) -> None:
        """Keeps the trained parameters of the best validation so far."""
        self._write(self._best, step, {"trained": trained})

    def _write(self, checkpointer: Any, step: int, content: dict[str, Any]) -> None:
        try:
            checkpointer.save_checkpointables(step, content, force=True, overwrite=True)
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

    def restore(self, abstract_state: Any, data: DatasetIterator) -> tuple[Any, dict[str, Any]] | None:
        """Restores the latest checkpoint that can be read, the iterator's position included.

        Damaged ones are renamed to `damaged-STEP`, named in the log, and the one before is taken.

        Args:
            abstract_state: shapes, dtypes and shardings of the state.
            data: a fresh iterator, which is moved to the saved position.

        Returns:
            The state and the progress saved with it; None if there is no checkpoint.

        Raises:
            CwjaxError: there are checkpoints, but none can be read.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                loaded = self._latest.load_checkpointables(
                    step, {"state": abstract_state, "data": data, "progress": None}
                )
            except Exception as error:
                place = self._latest.directory / str(step)
                aside = self._workdir / "damaged" / str(step)
                log.warning("%s: damaged, moved to %s, taking the one before (%s)", place, aside, type(error).__name__)
                log.debug("%s", error)
                aside.parent.mkdir(exist_ok=True)
                shutil.rmtree(aside, ignore_errors=True)
                shutil.move(place, aside)
                self._latest.reload()
                damaged.append(step)
                continue
            return loaded["state"], loaded["progress"]
        if damaged:
            raise CwjaxError(
                f"{self._latest.directory}: none of the checkpoints of steps {damaged} can be read; "
                f"delete {self._workdir} to start again"
            )
        return None

    def restore_best(self, abstract_trained: Parameters) -> tuple[int, Parameters] | None:
        """Step and trained parameters of the best validation; None if there was no validation."""
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

    def close(self) -> None:
        """Waits for what is still being written."""
        for checkpointer in (self._latest, self._best):
            with contextlib.suppress(Exception):  # a save that failed fails once more here, and was reported
                checkpointer.close()


def _reason(error: Exception) -> str:
    """What went wrong, without the places and numbers that a library adds."""
    if "No space left" in str(error):
        return "no space left on the disk"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of arrays, as `restore` wants them."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)
