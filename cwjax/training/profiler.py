"""A trace of a few steps, for TensorBoard or https://ui.perfetto.dev."""

import logging
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger(__name__)

SKIPPED, PROFILED = 10, 5
"""Steps after the beginning of a run that are left out, and that are traced: warm ones, few enough for a viewer."""


class Profiler:
    """Traces what host and devices do, in every process.

    Args:
        directory: of the trace; None: there is none.
        first: the step after which the run begins.
    """

    def __init__(self, directory: Path | None, first: int):
        self._directory = directory
        self._begin = first + SKIPPED + 1
        self._is_running = False

    def before(self, step: int, state: Any) -> None:
        """Begins or ends the trace if it is time to."""
        if self._directory and step == self._begin:
            jax.profiler.start_trace(self._directory)
            self._is_running = True
        elif step == self._begin + PROFILED:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            jax.profiler.stop_trace()
            log.info("trace of %d steps written to %s", PROFILED, self._directory)

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()
