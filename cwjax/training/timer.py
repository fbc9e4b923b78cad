"""Time that all processes agree on."""

import time

import jax
import numpy as np
from jax.experimental import multihost_utils


class Timer:
    """The question whether so many minutes have passed, by the clock of process 0.

    Args:
        minutes: how many; 0: they never pass.
        every: steps between questions that several processes ask: an answer waits for the devices.
    """

    def __init__(self, minutes: float, every: int):
        self._seconds, self._every = 60 * minutes, every
        self.restart()

    def restart(self) -> None:
        """Begins to count anew."""
        self._since = time.monotonic()

    def passed(self, step: int) -> bool:
        """Whether they have passed. All processes must ask at the same steps."""
        if not self._seconds:
            return False
        passed = time.monotonic() - self._since >= self._seconds
        if jax.process_count() == 1:
            return passed
        return step % self._every == 0 and bool(multihost_utils.broadcast_one_to_all(np.int32(passed)))
