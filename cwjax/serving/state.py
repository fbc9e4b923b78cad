"""Whether the server is warming up, ready or ending."""

import asyncio

from cwjax.serving.errors import ApiError

WARMING_RETRY, STOPPING_RETRY = 5, 30


class State:
    """Of a server; belongs to its event loop."""

    def __init__(self):
        self.ready = False
        self.requests = 0  # at work or waiting
        self.sessions = 0
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether the server is ending."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Takes no new requests."""
        self._stopping.set()

    def require_ready(self) -> None:
        """Raises ApiError while the server is warming up or ending."""
        if self.is_stopping:
            raise ApiError(503, "the server is stopping", "stopping", retry_after=STOPPING_RETRY)
        if not self.ready:
            raise ApiError(503, "the server is warming up", "warming_up", retry_after=WARMING_RETRY)

    async def ended_for(self, seconds: float) -> None:
        """Waits until the server has been ending for so long."""
        await self._stopping.wait()
        await asyncio.sleep(seconds)
