"""Who is let in, and whose turn it is: as many recordings are in memory as there are places."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from cwjax.serving.errors import ApiError
from cwjax.serving.metrics import Metrics
from cwjax.serving.state import State

SHORT_MINUTES = 10.0
"""Recordings up to this length have places of their own, so that none waits for hours of sound to be done."""
LONG_PLACES = 2
LONGEST_RETRY = 60


class Queue:
    """Places for requests, taken in the order in which they come.

    Args:
        places: for short recordings, that are at work together.
        waiting: most requests beyond those.
        state: counts those inside.
        metrics: are told how long requests wait.
    """

    def __init__(self, places: int, waiting: int, state: State, metrics: Metrics):
        self._most, self._places, self._state = places + waiting, places, state
        self._short, self._long = asyncio.Semaphore(places), asyncio.Semaphore(LONG_PLACES)
        self._metrics = metrics
        self._usual = 1.0  # seconds that requests take

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Lets a request in.

        Raises:
            ApiError: too many are waiting.
        """
        if self._state.requests >= self._most:
            seconds = min(LONGEST_RETRY, math.ceil(self._usual * self._state.requests / self._places))
            raise ApiError(429, "too many requests are waiting; try again later", "queue_full", retry_after=seconds)
        self._state.requests += 1
        self._metrics.active.inc()
        began = time.monotonic()
        try:
            yield
        finally:
            self._state.requests -= 1
            self._metrics.active.dec()
            self._usual += 0.1 * (time.monotonic() - began - self._usual)

    @asynccontextmanager
    async def turn(self, is_long: bool) -> AsyncIterator[None]:
        """Waits for a place among short or long recordings, and keeps it."""
        began = time.monotonic()
        async with self._long if is_long else self._short:
            self._metrics.queue_seconds.observe(time.monotonic() - began)
            yield
