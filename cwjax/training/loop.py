"""The training loop: batches in, steps out, nothing lost on the way.

A run is continued by running it again: state, optimizer and data position come from the latest
checkpoint that can be read, so every later loss equals that of a run that was never interrupted.
"""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from grain import DatasetIterator
from jax.sharding import Mesh

from cwjax.config import TrainSettings
from cwjax.errors import CwjaxError
from cwjax.models.parameters import Parameters, merge
from cwjax.training.checkpoints import Checkpoints, abstract
from cwjax.training.metrics import MetricsWriter, Progress
from cwjax.training.sharding import put_batch
from cwjax.training.step import TrainState

log = logging.getLogger(__name__)

Validate = Callable[[Parameters], dict[str, float]]
"""Measures parameters; the lower `validation/score`, the better."""


class StoppedBySignal(Exception):  # noqa: N818 - a request that was carried out, not an error
    """SIGTERM or SIGINT came, and the run was saved; running the same command again continues it."""


@dataclass(frozen=True)
class Run:
    """What the loop needs beside settings.

    Attributes:
        workdir: of the run.
        state: before the first step, on its devices.
        frozen: parameters that do not change, on their devices.
        step: the jitted `(state, frozen, batch) -> (state, metrics)`.
        batches: this process's batches; host arrays, `seconds` among them.
        mesh: of the devices.
        validate: measures the whole tree of parameters, or None.
    """

    workdir: Path
    state: TrainState
    frozen: Parameters
    step: Callable[..., Any]
    batches: DatasetIterator
    mesh: Mesh
    validate: Validate | None


def fit(run: Run, settings: TrainSettings) -> Parameters:
    """Trains to `settings.steps` and gives all parameters: the best validated, or else the last.

    Raises:
        CwjaxError: the loss is not finite, the disk is full, or checkpoints cannot be read.
        StoppedBySignal: a signal asked to stop; everything is saved.
    """
    with contextlib.closing(Checkpoints(run.workdir, settings.checkpoints_kept)) as checkpoints:
        return _fit(run, settings, checkpoints)


def _fit(run: Run, settings: TrainSettings, checkpoints: Checkpoints) -> Parameters:
    state, frozen, best = run.state, run.frozen, None
    restored = checkpoints.restore(abstract(state), run.batches)
    if restored:
        state, progress = restored
        best = progress["best"] or None
        frozen = checkpoints.restore_frozen(abstract(frozen))
        log.info("continuing after step %d", int(state.step))
    else:
        checkpoints.save_frozen(frozen)
    first = int(state.step)
    writer = MetricsWriter(run.workdir, first)
    meter = _Meter(settings, writer, Progress(first, settings.steps))
    with _signals_noted() as stop, contextlib.closing(meter):
        for step in range(first + 1, settings.steps + 1):
            batch, waited = _next_batch(run.batches)
            seconds = float(np.sum(batch.pop("seconds")))
            state, metrics = run.step(state, frozen, put_batch(batch, run.mesh))
            meter.dispatched(step, metrics, waited, seconds)
            last = step == settings.steps
            stopping = bool(stop) and not last
            saves = stopping or last or step % settings.checkpoint_every == 0
            validates = run.validate and settings.validate_every and (last or step % settings.validate_every == 0)
            if not (saves or validates):
                continue
            meter.flush()
            if validates:
                measured = run.validate(merge(state.trained, frozen))
                writer.write({"step": step, **measured})
                if best is None or measured["validation/score"] < best["score"]:
                    best = {"step": step, "score": measured["validation/score"]}
                    checkpoints.save_best(step, state.trained)
            if saves:
                checkpoints.save(step, state, run.batches, {"best": best or {}})
            meter.restart()
            if stopping:
                raise StoppedBySignal(f"stopped after step {step}, which is saved; run the same command to continue")
    chosen = checkpoints.restore_best(abstract(state.trained)) if best else None
    if chosen:
        log.info("keeping the parameters of step %d, the best in validation", chosen[0])
    return merge(chosen[1] if chosen else state.trained, frozen)


def _next_batch(batches: DatasetIterator) -> tuple[dict[str, np.ndarray], float]:
    """The next batch, and the seconds the loop waited for it."""
    began = time.perf_counter()
    try:
        batch = next(batches)
    except Exception as error:
        raise CwjaxError(_innermost(error)) from error
    return batch, time.perf_counter() - began


class _Meter:
    """Reads metrics one step late, so that the host prepares a step while the device runs one."""

    def __init__(self, settings: TrainSettings, writer: MetricsWriter, progress: Progress):
        self._settings = settings
        self._writer = writer
        self._progress = progress
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self.restart()

    def restart(self) -> None:
        """Begins to measure the pace anew, leaving out what was no training."""
        self._began = time.perf_counter()
        self._steps, self._waited, self._audio_seconds = 0, 0.0, 0.0

    def dispatched(self, step: int, metrics: dict[str, jax.Array], waited: float, audio_seconds: float) -> None:
        """A step has been handed to the device."""
        self._read_pending()
        self._pending = step, metrics
        self._steps += 1
        self._waited += waited
        self._audio_seconds += audio_seconds * jax.process_count()
        self._progress.advance()

    def flush(self) -> None:
        """Waits for the last step and reads its metrics."""
        self._read_pending()

    def close(self) -> None:
        self._progress.close()
        self._writer.close()

    def _read_pending(self) -> None:
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise CwjaxError(
                f"step {step}: loss {values['loss']}, gradient norm {values['gradient_norm']}: training has diverged; "
                "the last checkpoint is kept; try a lower --optim.learning-rate or a longer --optim.warmup-steps"
            )
        if step % self._settings.log_every and step != self._settings.steps:
            return
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        steps = max(self._steps, 1)
        row = {
            "step": step,
            **values,
            "examples_per_second": steps * self._settings.batch_size / elapsed,
            "audio_seconds_per_second": self._audio_seconds / elapsed,
            "seconds_per_step": elapsed / steps,
            "data_wait": self._waited / elapsed,
        }
        self._writer.write(row)
        self._progress.report(row)
        self.restart()


def _innermost(error: BaseException) -> str:
    """The message of our own error that a library wrapped in its own, or of the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CwjaxError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"reading training data failed: {lines[0] if lines else type(error).__name__}"


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Notes SIGTERM and SIGINT in a list instead of dying; a second SIGINT interrupts at once."""
    noted: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)
        log.warning("%s: saving after this step", signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
