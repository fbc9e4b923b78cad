"""A transcript as it comes: server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from cwjax.inference.transcript import Segment
from cwjax.inference.transcription import Event
from cwjax.serving.answers import Result, done_event, logprobs
from cwjax.serving.errors import ApiError

HEARTBEAT = 5.0
"""Seconds after which progress is told, so that nobody takes the connection for dead. As a comment: OpenAI's client
does not survive events that it does not know."""
DONE = "data: [DONE]\n\n"

Run = Callable[[Callable[[Event], None]], Awaitable[Result]]


class Deltas:
    """What each window adds to the text. Joined, that is the text without the spaces around it."""

    def __init__(self, with_logprobs: bool):
        self._with_logprobs = with_logprobs
        self._segments: list[Segment] = []
        self._space: str | None = None  # held back: the text may end with it; None at its beginning

    def add(self, segment: Segment) -> None:
        """Takes a segment of the window."""
        self._segments.append(segment)

    def window(self) -> dict[str, Any] | None:
        """What the segments so far add."""
        text = "".join(segment.text for segment in self._segments)
        said = text.strip()
        segments, self._segments = self._segments, []
        if not said:
            self._space = None if self._space is None else self._space + text
            return None
        before = "" if self._space is None else self._space + text[: len(text) - len(text.lstrip())]
        self._space = text[len(text.rstrip()) :]
        event: dict[str, Any] = {"type": "transcript.text.delta", "delta": before + said}
        if self._with_logprobs:
            event["logprobs"] = logprobs(segments)
        return event


async def server_sent_events(run: Run, with_logprobs: bool) -> AsyncIterator[str]:
    """The events of a transcription, to its end; a failure is the last of them, and raised."""
    queue: asyncio.Queue[Event] = asyncio.Queue()
    deltas, progress, told = Deltas(with_logprobs), "0.0/0.0", time.monotonic()
    task = asyncio.ensure_future(run(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), HEARTBEAT)
            except TimeoutError:
                yield f": {progress}\n\n"
                continue
            if event is None:
                break
            if event.segment is not None:
                deltas.add(event.segment)
                continue
            if event.total:
                progress = f"{event.done:.1f}/{event.total:.1f}"
            if (delta := deltas.window()) is not None:
                yield _data(delta)
            if time.monotonic() - told > 1 or event.is_last:
                told = time.monotonic()
                yield f": {progress}\n\n"
        yield _data(done_event(task.result()))
        yield DONE
    finally:
        task.cancel()
        await asyncio.wait([task])


def error_event(error: ApiError) -> str:
    """A failure after the answer has begun, which OpenAI's client raises."""
    return _data(error.body)


def _data(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
