"""Loss and pace of training, read one step late, so that the host prepares a step while the device runs one."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from cwjax.config import TrainSettings
from cwjax.errors import CwjaxError
from cwjax.training.metrics import MetricsWriter, Progress


class Meter:
    """Writes a row every `log_every` steps, and after the last.

    Args:
        settings: of the loop.
        writer: receives the rows.
        progress: shows them.
        shares: among which a batch is divided, so many times as much audio as this process reads.
    """

    def __init__(self, settings: TrainSettings, writer: MetricsWriter, progress: Progress, shares: int):
        self._settings = settings
        self._writer = writer
        self._progress = progress
        self._shares = shares
        self._pending: tuple[int, dict[str, jax.Array], float] | None = None
        self.restart()

    def restart(self) -> None:
        """Begins to measure the pace anew, leaving out what was no training."""
        self._began = time.perf_counter()
        self._steps, self._waited, self._audio_seconds = 0, 0.0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures how long the loop waits for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def dispatched(self, step: int, metrics: dict[str, jax.Array], audio_seconds: float) -> None:
        """A step has been handed to the device."""
        self.flush()
        self._pending = step, metrics, audio_seconds
        self._progress.advance()

    def flush(self) -> None:
        """Waits for the last step and reads its metrics.

        Raises:
            CwjaxError: training has diverged.
        """
        if self._pending is None:
            return
        (step, metrics, audio_seconds), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise CwjaxError(
                f"step {step}: loss {values['loss']}, gradient norm {values['gradient_norm']}: training has diverged; "
                "the last checkpoint is kept; try a lower --optim.learning-rate or a longer --optim.warmup-steps"
            )
        self._steps += 1
        self._audio_seconds += audio_seconds * self._shares
        if step % self._settings.log_every == 0 or step == self._settings.steps:
            row = {"step": step, **values, **self._pace()}
            self._writer.write(row)
            self._progress.report(row)
            self.restart()

    def _pace(self) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        return {
            "examples_per_second": self._steps * self._settings.batch_size / elapsed,
            "audio_seconds_per_second": self._audio_seconds / elapsed,
            "seconds_per_step": elapsed / self._steps,
            "data_wait": self._waited / elapsed,
        }

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.close()
        self._writer.close()
