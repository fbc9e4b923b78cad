"""Being asked to stop: SIGTERM, SIGINT, and what a platform announces before it takes a machine away."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from cwjax.processes import is_first

log = logging.getLogger(__name__)

STOPPED_FILE = "stopped"
"""In the run's directory after a signal stopped it, until it goes on; launchers start such a run again."""


class StoppedBySignal(BaseException):
    """A signal came, and nothing is lost; running the same command again continues. Like KeyboardInterrupt it is no
    Exception, which libraries would take for an error of theirs."""


class StopSignal:
    """The question whether to stop.

    One process ends at once wherever it is, or, while stops are `deferred`, when it next asks; a second SIGINT
    interrupts in any case. Among several, JAX takes SIGTERM wherever it comes, and lets all stop at the same question.

    Args:
        workdir: where a file is left that says that the run is to go on.
    """

    def __init__(self, workdir: Path):
        self._file = workdir / STOPPED_FILE
        self._noted = self._deferred = False
        self._questions = 0
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether to stop now. All processes must ask equally often."""
        self._questions += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._questions)
        return self._noted

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Stops wait for the next question while the body runs."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _note(self, number: int, _frame: Any) -> None:
        if number == signal.SIGINT and (self._noted or not self._deferred):
            raise KeyboardInterrupt
        self._noted = True
        if not self._deferred:
            raise StoppedBySignal(f"{signal.Signals(number).name}: stopped; run the same command to continue")
        log.warning("%s: saving and stopping", signal.Signals(number).name)

    def __enter__(self) -> "StopSignal":
        if is_first():
            self._file.unlink(missing_ok=True)
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is not None and issubclass(kind, StoppedBySignal) and is_first():
            self._file.touch()
