"""`/v1/audio/transcriptions` and `/v1/audio/translations`."""

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from cwjax.errors import CwjaxError
from cwjax.inference.audio import Recording
from cwjax.inference.options import Task
from cwjax.serving.answers import Result, body
from cwjax.serving.errors import ApiError, internal_error
from cwjax.serving.fields import Asked, read_fields
from cwjax.serving.metrics import Metrics
from cwjax.serving.queue import SHORT_MINUTES, Queue
from cwjax.serving.replies import refuse, reply
from cwjax.serving.runs import Runs
from cwjax.serving.served import Served
from cwjax.serving.state import State
from cwjax.serving.streams import error_event, server_sent_events
from cwjax.serving.uploads import HungUpError, boundary_of, read_form

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """What the endpoints share.

    Attributes:
        served: the model.
        runs: its transcriptions.
        queue: who is let in.
        state: of the server.
        metrics: of the server.
        most_bytes: of a file.
        most_minutes: of a recording.
        grace: seconds that streams have when the server ends.
    """

    served: Served
    runs: Runs
    queue: Queue
    state: State
    metrics: Metrics
    most_bytes: int
    most_minutes: float
    grace: float


class AudioEndpoint:
    """Transcribes or translates what is sent, as an ASGI application.

    Args:
        desk: what endpoints share.
        task: "transcribe" or "translate".
    """

    def __init__(self, desk: Desk, task: Task):
        self._desk, self._task = desk, task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; whatever goes wrong, the client is told in OpenAI's form."""
        answer, outcome = _Answer(self._desk, send), "failed"
        try:
            await self._serve(Headers(scope=scope), receive, answer)
            outcome = "ok"
        except HungUpError:
            outcome = "cancelled"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except ApiError as error:
            outcome = "refused" if error.status < 500 else "failed"
            await answer.fail(receive, error)
        except CwjaxError as error:
            log.error("a request failed: %s", error)
            await answer.fail(receive, ApiError(500, str(error), "internal_error"))
        except Exception:
            log.exception("a request failed")
            await answer.fail(receive, internal_error())
        finally:
            self._desk.metrics.requests.labels(outcome).inc()
            if outcome == "cancelled":
                self._desk.metrics.cancelled.inc()

    async def _serve(self, headers: Headers, receive: Receive, answer: "_Answer") -> None:
        desk = self._desk
        desk.state.require_ready()
        boundary = boundary_of(headers, desk.most_bytes)
        with desk.queue.enter():
            async with read_form(boundary, receive, desk.most_bytes) as form:
                asked = read_fields(form.fields, desk.served, self._task)
                if form.file is None:
                    raise ApiError(400, "'file' is missing", "missing_required_parameter", "file")
                await _unless_hung_up(receive, self._transcribe(asked, form.file, answer))

    async def _transcribe(self, asked: Asked, file: BinaryIO, answer: "_Answer") -> None:
        """Takes the recording's turn: among short ones, or, if it turns out to be long, among those."""
        short = min(SHORT_MINUTES, self._desk.most_minutes)
        for is_long, minutes in ((False, short), (True, self._desk.most_minutes)):
            async with self._desk.queue.turn(is_long):
                recording = await self._desk.runs.decode(file, 60 * minutes)
                if recording is not None:
                    await self._answer(asked, recording, answer)
                    return
            if minutes == self._desk.most_minutes:
                break
        raise ApiError(413, f"the recording is too long: at most {minutes:g} minutes", "file_too_large", "file")

    async def _answer(self, asked: Asked, recording: Recording, answer: "_Answer") -> None:
        began = time.monotonic()
        if asked.stream:
            await answer.stream(asked, partial(self._desk.runs.run, asked, recording))
        else:
            await answer.whole(await self._desk.runs.run(asked, recording))
        self._desk.metrics.audio_seconds.inc(recording.duration)
        log.info("%.1f s of audio in %.1f s", recording.duration, time.monotonic() - began)


class _Answer:
    """The answer to a request, which may have begun when something goes wrong."""

    def __init__(self, desk: Desk, send: Send):
        self._desk, self._send = desk, send
        self._begun = False

    async def whole(self, result: Result) -> None:
        """All at once."""
        content, kind = body(result)
        self._begun = True
        await reply(self._send, 200, content, kind, _ignored(result.asked))

    async def stream(self, asked: Asked, run: "partial[Result]") -> None:
        """Event by event; once the server ends, no longer than the grace period."""
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", **_ignored(asked)}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})
        cut = asyncio.create_task(self._desk.state.ended_for(self._desk.grace))
        here = asyncio.current_task()
        cut.add_done_callback(lambda done: None if done.cancelled() else here.cancel("grace"))
        try:
            async with aclosing(server_sent_events(run, "logprobs" in asked.include)) as events:
                async for event in events:
                    await self._write(event, more=True)
        except asyncio.CancelledError:
            if not cut.done():
                raise
            raise ApiError(503, "the server is stopping", "stopping") from None
        finally:
            cut.cancel()
        await self._write("", more=False)

    async def fail(self, receive: Receive, error: ApiError) -> None:
        """An error instead of the answer, or at its end."""
        if self._begun:
            await self._write(error_event(error), more=False)
        else:
            await refuse(receive, self._send, error)

    async def _write(self, text: str, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})


def _ignored(asked: Asked) -> dict[str, str]:
    return {"x-cwjax-ignored": ", ".join(asked.ignored)} if asked.ignored else {}


async def _unless_hung_up(receive: Receive, work) -> None:
    """Does something as long as the client is there, then cancels it and waits for its end."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        has_gone = not task.done()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})
    if has_gone:
        raise HungUpError
    task.result()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
