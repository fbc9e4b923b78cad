"""The server as an ASGI application: its addresses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from cwjax.pages import STATIC
from cwjax.serving.audio import AudioEndpoint, Desk
from cwjax.serving.errors import ApiError, internal_error
from cwjax.serving.fields import unknown_model
from cwjax.serving.guard import Guard
from cwjax.serving.metrics import CONTENT_TYPE, Metrics
from cwjax.serving.queue import Queue
from cwjax.serving.realtime import RealtimeEndpoint
from cwjax.serving.runs import Runs
from cwjax.serving.served import Served
from cwjax.serving.state import State

PLACES = 2
"""Short recordings at work, and sessions, for each window of a batch, so that windows that can share one are found."""
PAGE = Path(__file__).with_name("page")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        batch_size: most windows at once.
        queue: most requests that wait.
        upload_mb: of a file, in MiB.
        minutes: of a recording.
        grace: seconds that streams have when the server ends.
    """

    batch_size: int = 8
    queue: int = 64
    upload_mb: int = 512
    minutes: float = 180.0
    grace: float = 30.0


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        key: that clients have to bring; None: none.
        origins: whose pages may ask.
        names: that the server answers to besides its own.
    """

    key: str | None = None
    origins: Sequence[str] = ()
    names: Sequence[str] = ()


def build_app(served: Served, limits: Limits, access: Access, state: State, with_page: bool = True) -> ASGIApp:
    """The application; to be called in its event loop."""
    metrics = Metrics()
    served.transcriber.engine.on_batch = metrics.batch_windows.observe
    runs = Runs(served, limits.batch_size)
    queue = Queue(PLACES * limits.batch_size, limits.queue, state, metrics)
    desk = Desk(served, runs, queue, state, metrics, limits.upload_mb << 20, limits.minutes, limits.grace)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(served, served.id)]})

    async def model(request: Request) -> Response:
        name = request.path_params["id"]
        if not served.knows(name):
            raise unknown_model(name, served)
        return JSONResponse(_model(served, name))

    async def health(_: Request) -> Response:
        state.require_ready()
        return JSONResponse({"status": "ok"})

    async def numbers(_: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    routes = [
        Route("/v1/audio/transcriptions", AudioEndpoint(desk, "transcribe"), methods=["POST"]),
        Route("/v1/audio/translations", AudioEndpoint(desk, "translate"), methods=["POST"]),
        WebSocketRoute("/v1/realtime", RealtimeEndpoint(desk, PLACES * limits.batch_size)),
        Route("/v1/models", models),
        Route("/v1/models/{id:path}", model),
        Route("/health", health),
        Route("/metrics", numbers),
        *(page_routes() if with_page else ()),
    ]
    handlers = {ApiError: _answer_error, HTTPException: _answer_http, Exception: _answer_fault}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), access.key, access.origins, access.names)


def page_routes() -> list[Route]:
    """The page and its files, which are read once."""
    routes = []
    for file in sorted([*PAGE.iterdir(), *STATIC.iterdir()]):
        if file.suffix in KINDS:
            address = "/" if file.name == "index.html" else f"/static/{file.name}"
            routes.append(Route(address, _file(file.read_bytes(), KINDS[file.suffix])))
    return routes


def _file(content: bytes, kind: str):
    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind, headers=SECURITY)

    return answer


def _model(served: Served, name: str) -> dict[str, object]:
    facts = {"takes_context": served.takes_context, "spots_phrases": served.spots_phrases}
    return {"id": name, "object": "model", "created": served.created, "owned_by": "cwjax", **facts}


def _answer_error(_: Request, error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, error.headers)


def _answer_http(request: Request, error: HTTPException) -> Response:
    known = {
        404: ("there is nothing at this address", "not_found"),
        405: (f"{request.method} does not go with this address", "method_not_allowed"),
    }
    answer = ApiError(error.status_code, *known.get(error.status_code, (error.detail, None)))
    return JSONResponse(answer.body, answer.status, {**answer.headers, **(error.headers or {})})


def _answer_fault(request: Request, _: Exception) -> Response:
    return _answer_error(request, internal_error())
