"""The training loop: batches in, steps out, nothing lost on the way.

A run is continued by running it again: state, optimizer and data position come from the latest
checkpoint that can be read, so every later loss equals that of a run that was never interrupted. The
mesh and the number of processes may have changed in between.
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
from jax.experimental import multihost_utils

from cwjax.config import TrainSettings
from cwjax.errors import CwjaxError
from cwjax.models.parameters import Parameters, merge
from cwjax.training.checkpoints import Checkpoints
from cwjax.training.groups import require_open_way, split_parameters
from cwjax.training.metrics import MetricsWriter, Progress
from cwjax.training.processes import is_first
from cwjax.training.program import TrainProgram
from cwjax.training.sharding import put_batch
from cwjax.training.step import TrainState, init_state

log = logging.getLogger(__name__)

Validate = Callable[[Parameters], dict[str, float]]
"""Measures parameters; the lower `validation/score`, the better."""

PROFILED_STEPS = range(10, 15)
"""Steps after the beginning of a run that are traced when asked for: warm ones, few enough for a viewer."""

STOPPED_FILE = "stopped"
"""In the run's directory after a signal stopped it, until it goes on; launchers start such a run again."""


class StoppedBySignal(Exception):  # noqa: N818 - a request that was carried out, not an error
    """SIGTERM or SIGINT came, and the run was saved; running the same command again continues it."""


@dataclass(frozen=True)
class Run:
    """What the loop needs beside settings.

    Attributes:
        workdir: of the run.
        program: the step.
        start: gives all parameters before the first step, float32, in their shards.
        freeze: groups and patterns that are not trained.
        batches: gives this process's share of every batch, from the example of that number on; host arrays, `seconds`
            among them.
        validate: measures the whole tree of parameters, or None.
    """

    workdir: Path
    program: TrainProgram
    start: Callable[[], Parameters]
    freeze: tuple[str, ...]
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    validate: Validate | None


def fit(run: Run, settings: TrainSettings) -> Parameters:
    """Trains to `settings.steps` and gives all parameters: the best validated, or else the last.

    Raises:
        CwjaxError: the loss is not finite, the disk is full, or checkpoints cannot be read.
        StoppedBySignal: a signal asked to stop; everything is saved.
    """
    if is_first():
        (run.workdir / STOPPED_FILE).unlink(missing_ok=True)
    with Checkpoints(run.workdir, settings.checkpoints_kept) as checkpoints:
        return _fit(run, settings, checkpoints)


def _fit(run: Run, settings: TrainSettings, checkpoints: Checkpoints) -> Parameters:
    program = run.program
    state, frozen, progress = _begin(run, checkpoints)
    best = progress["best"] or None
    frozen = program.rounded(frozen)
    first = int(state.step)
    batches = run.batches(progress["examples"])
    writer = MetricsWriter(run.workdir, first)
    meter = _Meter(settings, writer, Progress(first, settings.steps))
    trace = _Trace(run.workdir / "profile", first) if settings.profile else None
    with _stop_noted() as stop_asked, contextlib.closing(meter), trace or contextlib.nullcontext():
        for step in range(first + 1, settings.steps + 1):
            if trace:
                trace.before(step, state)
            batch, waited = _next_batch(batches)
            seconds = float(np.sum(batch.pop("seconds")))
            state, metrics = program.step(state, frozen, put_batch(batch, program.mesh))
            meter.dispatched(step, metrics, waited, seconds)
            last = step == settings.steps
            stopping = stop_asked(step) and not last
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
                checkpoints.save(state, {"best": best or {}, "examples": step * settings.batch_size})
            meter.restart()
            if stopping:
                checkpoints.wait()
                if is_first():
                    (run.workdir / STOPPED_FILE).write_text(f"{step}\n", encoding="utf-8")
                raise StoppedBySignal(f"stopped after step {step}, which is saved; run the same command to continue")
    trained = state.trained
    del state, frozen
    chosen = checkpoints.restore_best(program.state.trained) if best else None
    if chosen:
        log.info("keeping the parameters of step %d, the best in validation", chosen[0])
        trained = chosen[1]
    # From the disk: those in use may have been rounded.
    return merge(trained, checkpoints.restore_frozen(program.frozen))


def _begin(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Parameters, dict[str, Any]]:
    """State, frozen parameters and progress, of the latest checkpoint or of the start."""
    program = run.program
    restored = checkpoints.restore(program.state)
    if restored:
        state, progress = restored
        log.info("continuing after step %d", int(state.step))
        return state, checkpoints.restore_frozen(program.frozen), progress
    trained, frozen = split_parameters(run.start(), run.freeze)
    require_open_way(trained, frozen)
    checkpoints.save_frozen(frozen)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, program.state)
    return init_state(trained, program.optimizer, shardings), frozen, {"best": {}, "examples": 0}


def _next_batch(batches: Iterator[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], float]:
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


class _Trace:
    """A trace of what host and devices do during `PROFILED_STEPS`, one per process."""

    def __init__(self, directory: Path, first: int):
        self._directory = directory
        self._steps = range(first + 1 + PROFILED_STEPS.start, first + 1 + PROFILED_STEPS.stop)
        self._is_running = False

    def __enter__(self) -> "_Trace":
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()

    def before(self, step: int, state: TrainState) -> None:
        """Begins or ends the trace if it is time to."""
        if step == self._steps.start:
            jax.profiler.start_trace(self._directory)
            self._is_running = True
        elif step == self._steps.stop:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            jax.profiler.stop_trace()
            log.info("trace of %d steps written to %s", len(self._steps), self._directory)


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
def _stop_noted() -> Iterator[Callable[[int], bool]]:
    """Gives the question whether to stop after a step, which must be asked after every step.

    One process notes SIGTERM and SIGINT instead of dying; a second SIGINT interrupts at once. Among several, JAX takes
    SIGTERM (and what the platform announces) wherever it comes and lets all stop after the same step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    noted: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)
        log.warning("%s: saving after this step", signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda _step: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
