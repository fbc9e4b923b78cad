"""Uvicorn with the application, from the start to a graceful end."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from cwjax.errors import CwjaxError
from cwjax.serving.app import Access, Limits, build_app
from cwjax.serving.realtime import MOST_BYTES
from cwjax.serving.served import Served
from cwjax.serving.state import State
from cwjax.serving.warm_up import WarmUp

log = logging.getLogger(__name__)

POLL = 0.05
"""Seconds between looks at what somebody waits for."""
PATIENCE = 300.0
"""Seconds in which a client of a session answers a ping: while much of its sound waits, nothing is read."""


def bind(host: str, port: int) -> socket.socket:
    """A place to listen at, before the model is loaded.

    Raises:
        CwjaxError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CwjaxError(f"cannot listen at {host}, port {port} ({reason}); choose another by --port") from None
    return listening


class Server:
    """A server that runs until it is told to stop.

    Args:
        served: the model.
        limits: what it takes.
        access: who may ask.
        with_page: whether the page is served.
        warm: whether to warm up: for one request first, for the rest while there are none.

    Attributes:
        ready: is set when requests are answered.
        warmed: is set when nothing is left to warm up.
    """

    def __init__(self, served: Served, limits: Limits, access: Access, with_page: bool = True, warm: bool = True):
        self._served, self._limits, self._access = served, limits, access
        self._with_page, self._warm = with_page, warm
        self._stopped: Callable[[], None] | None = None
        self.ready, self.warmed = threading.Event(), threading.Event()

    def run(self, listening: socket.socket) -> None:
        """Serves at a bound socket, until a signal or `stop`."""
        asyncio.run(self._serve(listening))

    def stop(self) -> None:
        """Ends gracefully, from any thread."""
        if self._stopped is not None:
            self._stopped()

    async def _serve(self, listening: socket.socket) -> None:
        state, loop = State(), asyncio.get_running_loop()
        app = build_app(self._served, self._limits, self._access, state, self._with_page)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="websockets-sansio",
            ws_max_size=MOST_BYTES,
            ws_ping_timeout=PATIENCE,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        server = _Uvicorn(config, lambda: loop.call_soon_threadsafe(state.stop), lambda: state.sessions > 0)
        self._stopped = server.end
        warming = asyncio.ensure_future(self._become_ready(state))
        host, port = listening.getsockname()[:2]
        log.info("%s at http://%s:%d", self._served.id, f"[{host}]" if ":" in host else host, port)
        await server.serve([listening])
        warming.cancel()
        self._stopped = None
        self._served.transcriber.engine.stop()

    async def _become_ready(self, state: State) -> None:
        try:
            if self._warm:
                warm_up = WarmUp(self._served, self._limits.batch_size)
                await asyncio.to_thread(warm_up.first)
                threading.Thread(target=self._warm_others, args=(warm_up, state), name="cwjax-warm-up").start()
        except Exception as error:
            self._end_warming(error)
        state.ready = True
        self.ready.set()
        log.info("ready")

    def _warm_others(self, warm_up: WarmUp, state: State) -> None:
        """In a thread of its own, so that no request waits for a compiler."""
        try:
            steps, more = warm_up.others(), True
            while more and not state.is_stopping:
                if state.requests:
                    time.sleep(POLL)
                else:
                    more = next(steps, self) is not self
            self._end_warming(None)
        except Exception as error:
            self._end_warming(error)

    def _end_warming(self, error: BaseException | None) -> None:
        if error is not None:
            log.error("warming up failed; the first requests will take longer", exc_info=error)
        self.warmed.set()


class _Uvicorn(uvicorn.Server):
    """Ends when what is at work is done; at a second signal at once. Its process then ends as usual."""

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None], has_sessions: Callable[[], bool]):
        super().__init__(config)
        self._on_end, self._has_sessions = on_end, has_sessions

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        while self._has_sessions() and not self.force_exit:  # uvicorn would cut them off
            await asyncio.sleep(POLL)
        await super().shutdown(sockets)

    def end(self) -> None:
        self.force_exit, self.should_exit = self.should_exit, True
        self._on_end()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.end()
