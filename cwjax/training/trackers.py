"""Trackers of experiments that are told what `metrics.jsonl` says: TensorBoard, Weights & Biases, Trackio, MLflow.

They are extras: one that is missing or fails never stops a run. After a resume none is told a step twice: how far each
came is in `trackers.json`, with the names that they gave the run.
"""

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cwjax.errors import CwjaxError
from cwjax.files import read_json, write_text
from cwjax.processes import is_first

log = logging.getLogger(__name__)

TRACKERS_FILE = "trackers.json"
PROJECT = "cwjax"


class Tracker(Protocol):
    """What is told the numbers of a run. Whatever it raises is logged, and it is told nothing any more."""

    def start(self, name: str, config: dict[str, Any], workdir: Path, run: str) -> str:
        """Begins, or goes on with the `run` that it named before; gives that name, empty if it needs none."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Takes the numbers of a step."""

    def finish(self) -> None:
        """Ends."""


class _TensorBoard:
    package = "tensorboardX"

    def start(self, name: str, config: dict[str, Any], workdir: Path, run: str) -> str:
        from tensorboardX import SummaryWriter

        # Its files are named by the second, and one that is there would be overwritten.
        self._writer = SummaryWriter(str(workdir / "tensorboard"), filename_suffix=f".{secrets.token_hex(3)}")
        return ""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    package = "wandb"

    def start(self, name: str, config: dict[str, Any], workdir: Path, run: str) -> str:
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(
            project=project, name=name, config=config, dir=str(workdir), id=run or None, resume="allow"
        )
        return self._run.id

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=step)

    def finish(self) -> None:
        self._run.finish()


class _Trackio:
    package = "trackio"

    def start(self, name: str, config: dict[str, Any], workdir: Path, run: str) -> str:
        import trackio

        run = run or f"{name}-{secrets.token_hex(3)}"  # it knows runs by their names alone
        self._module = trackio
        trackio.init(project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=run, config=config, resume="allow")
        return run

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._module.log(numbers, step=step)

    def finish(self) -> None:
        self._module.finish()


class _MLflow:
    package = "mlflow"

    def start(self, name: str, config: dict[str, Any], workdir: Path, run: str) -> str:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if not run:
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._client.get_experiment_by_name(project)
            number = experiment.experiment_id if experiment else self._client.create_experiment(project)
            run = self._client.create_run(number, run_name=name).info.run_id
            for path, value in config.items():
                self._client.log_param(run, path, value)
        self._run = run
        self._client.update_run(run, status="RUNNING")
        return run

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=step)

    def finish(self) -> None:
        self._client.set_terminated(self._run)


TRACKERS = {"tensorboard": _TensorBoard, "wandb": _WeightsAndBiases, "trackio": _Trackio, "mlflow": _MLflow}


class Trackers:
    """The trackers of a run, in the first process alone.

    Args:
        names: of `TRACKERS`.
        workdir: of the run.
        config: of the experiment, by the paths of its fields.
        rows: that `metrics.jsonl` has so far, those to be done again included; the last trackers were told them.
    """

    def __init__(
        self, names: Sequence[str], workdir: Path, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ):
        self._trackers: dict[str, Tracker] = {}
        self._told: dict[str, dict[str, Any]] = {}
        if not is_first():
            return
        path = workdir / TRACKERS_FILE
        with contextlib.suppress(CwjaxError):  # it is missing, or damaged
            self._told = read_json(path)
        for one in self._told.values():
            if one["active"]:
                for row in rows:
                    one[_kind(row)] = max(one[_kind(row)], row["step"])
            one["active"] = False
        for name in names:
            tracker, known = TRACKERS[name](), self._told.get(name, {"run": "", "training": 0, "validation": 0})
            try:
                known["run"] = tracker.start(workdir.resolve().name, dict(config), workdir, known["run"])
            except ImportError:
                log.warning("train.trackers: %s is not installed: pip install %s", name, tracker.package)
            except Exception as error:
                log.warning("train.trackers: %s cannot be started and is left out (%s)", name, _line(error))
            else:
                self._trackers[name], self._told[name] = tracker, {**known, "active": True}
        try:
            write_text(path, json.dumps(self._told) + "\n")
        except OSError as error:
            raise CwjaxError(f"{path}: cannot be written ({error.strerror})") from error

    def log(self, row: Mapping[str, Any]) -> None:
        """Tells all of them a row of `metrics.jsonl`, unless they were told one of its kind and step before."""
        numbers = {name: value for name, value in row.items() if name != "step"}
        for name, tracker in list(self._trackers.items()):
            if row["step"] > self._told[name][_kind(row)]:
                self._try(name, lambda tracker=tracker: tracker.log(row["step"], numbers))

    def _try(self, name: str, work: Any) -> None:
        try:
            work()
        except Exception as error:
            log.warning("train.trackers: %s fails and is told nothing any more (%s)", name, _line(error))
            del self._trackers[name]

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.finish)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by the paths of their fields."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _kind(row: Mapping[str, Any]) -> str:
    return "training" if "loss" in row else "validation"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
