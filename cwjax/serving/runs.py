"""Transcriptions for coroutines: threads decode and prepare, the engine's thread transcribes, events come back here.

Whoever is cancelled waits until no thread uses what belongs to it any more.
"""

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from cwjax.data.audio.decode import audio_blocks
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.errors import CwjaxError
from cwjax.evaluation.explanation import Explanation, explain_by_steps
from cwjax.inference.audio import Recording
from cwjax.inference.jobs import WindowJob, WindowResult
from cwjax.inference.transcript import Transcript
from cwjax.inference.transcription import Event, Request
from cwjax.serving.answers import Result
from cwjax.serving.errors import ApiError
from cwjax.serving.fields import Asked
from cwjax.serving.served import Served

THREADS = 4
"""That decode and prepare."""

OnEvent = Callable[[Event], None]


class Runs:
    """Transcriptions of one model.

    Args:
        served: the model.
        batch_size: most windows at once.
    """

    def __init__(self, served: Served, batch_size: int):
        self._served, self._batch_size = served, batch_size
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cwjax-recording")

    async def decode(self, file: BinaryIO, most_seconds: float) -> Recording | None:
        """A recording; None if it is longer than that.

        Raises:
            ApiError: the file cannot be read as audio.
        """
        stopped = threading.Event()
        try:
            return await self._in_thread(lambda _: None, stopped, _decode, file, most_seconds, stopped)
        except CwjaxError as error:
            raise ApiError(400, str(error), "unreadable_audio", "file") from None

    async def run(self, asked: Asked, recording: Recording, on_event: OnEvent = lambda event: None) -> Result:
        """Transcribes.

        Args:
            asked: how.
            recording: of which.
            on_event: is called with what becomes known.

        Raises:
            ApiError: the model cannot do what is asked.
        """
        if asked.languages:
            asked = replace(asked, options=replace(asked.options, language=await self._likeliest(asked, recording)))
        request = Request(recording, asked.context, asked.options)
        plain = None
        try:
            if "without_context" in asked.include and asked.is_told:
                plain = asyncio.create_task(self._transcript(Request(recording, "", asked.plain_options)))
            transcript = await self._transcript(request, on_event)
            without = transcript if plain is None else await plain
        finally:
            if plain is not None:
                plain.cancel()
                await asyncio.wait([plain])
        explanation = None
        if "context_words" in asked.include:
            explanation = await self._explain(asked, recording, transcript)
        return Result(asked, transcript, without if "without_context" in asked.include else None, explanation)

    async def _likeliest(self, asked: Asked, recording: Recording) -> str:
        """The likeliest of the languages that may be spoken."""
        request = Request(recording, asked.context, replace(asked.options, language=None), only_language=True)
        probabilities = (await self._transcript(request)).language_probabilities
        return max(asked.languages, key=lambda code: probabilities.get(code, 0.0))

    async def _transcript(self, request: Request, on_event: OnEvent = lambda event: None) -> Transcript:
        events: asyncio.Queue[Event] = asyncio.Queue()
        begin = self._served.transcriber.start, request, _into(events), self._batch_size
        try:
            work = await self._in_thread(lambda work: work.cancel(), None, *begin)
        except CwjaxError as error:  # of the options, for the recording has been decoded
            raise ApiError(400, str(error), "unsupported_value") from None
        try:
            while True:
                event = await events.get()
                if event.error is not None:
                    raise event.error
                on_event(event)
                if event.transcript is not None:
                    return event.transcript
        finally:
            work.cancel()

    async def _explain(self, asked: Asked, recording: Recording, transcript: Transcript) -> Explanation:
        if not self._served.takes_context:
            return Explanation(asked.context, (), (), ())
        ends: asyncio.Queue[Any] = asyncio.Queue()
        transcriber, separate = self._served.transcriber, asked.options.independent_windows
        steps = explain_by_steps(transcriber, recording, asked.context, transcript, separate)
        errand = Errand(steps, _into(ends))
        transcriber.engine.add(errand)
        try:
            end = await ends.get()
        finally:
            errand.cancel()
        if isinstance(end, BaseException):
            raise end
        return end

    async def _in_thread(
        self, abandon: Callable[[Any], None], stopped: threading.Event | None, function: Callable[..., Any], *given: Any
    ) -> Any:
        """What a function returns in a thread. If nobody waits for it any more, `stopped` is set, and `abandon` is
        called with what it still returned."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, function, *given)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stopped is not None:
                stopped.set()
            await asyncio.wait([future])
            if not future.cancelled() and future.exception() is None:
                abandon(future.result())
            raise


class Errand:
    """Something else that the engine's thread does, a step between batches; a `Work` without windows.

    Args:
        steps: does it, and returns what comes of it.
        emit: is called with that, or with the exception that ended it.
    """

    batch_size, turn = 1, 0

    def __init__(self, steps: Generator[Any, None, Any], emit: Callable[[Any], None]):
        self._steps, self._emit = steps, emit
        self.finished = False

    def jobs(self) -> Sequence[WindowJob]:
        """Does a step."""
        try:
            if not self.finished:
                next(self._steps)
        except StopIteration as end:
            self.finished = True
            self._emit(end.value)
        return []

    def receive(self, job: WindowJob, result: WindowResult) -> None:
        """Never called."""

    def fail(self, error: BaseException) -> None:
        """Ends with an error."""
        if not self.finished:
            self.finished = True
            self._emit(error)

    def cancel(self) -> None:
        """Makes no more steps."""
        self.finished = True


def _into(queue: asyncio.Queue[Any]) -> Callable[[Any], None]:
    """Puts things into a queue of this loop from any thread; what comes when the loop has ended nobody waits for."""
    loop = asyncio.get_running_loop()

    def put(item: Any) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(queue.put_nowait, item)

    return put


def _decode(file: BinaryIO, most_seconds: float, stopped: threading.Event) -> Recording | None:
    """A file's sound, read no further than is wanted, whatever its header says."""
    samples, most = bytearray(), round(most_seconds * SAMPLING_RATE) * 4
    for block in audio_blocks(file):
        samples += block.tobytes()
        if len(samples) > most or stopped.is_set():
            return None
    if not samples:
        raise CwjaxError("the recording holds no audio; replace the file or leave it out")
    return Recording.open(np.frombuffer(samples, np.float32))
