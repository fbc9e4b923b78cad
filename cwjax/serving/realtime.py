"""`WS /v1/realtime?intent=transcription`: text while somebody speaks, by the events of OpenAI's transcription sessions.

A session is one connection. Its sound is cut into turns, which become items of the conversation, and turns into pieces
that a window holds. The piece that goes on is transcribed again and again, and what the transcripts agree on is told;
when it is over, the rest.
"""

import asyncio
import base64
import json
import logging
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import soxr
from starlette.types import Receive, Scope, Send

from cwjax.data.audio.decode import as_float
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.errors import CwjaxError
from cwjax.inference.audio import FRAMES_PER_SECOND, Recording, amplification
from cwjax.inference.engine import needs_another_try
from cwjax.inference.timing import split_into_words
from cwjax.inference.transcript import Transcript
from cwjax.serving.agreement import Agreement
from cwjax.serving.answers import logprobs
from cwjax.serving.audio import Desk
from cwjax.serving.errors import ApiError, internal_error
from cwjax.serving.fields import unknown_model
from cwjax.serving.replies import refuse_handshake
from cwjax.serving.settings import SAMPLING_RATE as SENT_RATE
from cwjax.serving.settings import Settings, first_settings, updated
from cwjax.serving.turns import Cut, Turns
from cwjax.serving.uploads import HungUpError

log = logging.getLogger(__name__)

MOST_BYTES = 4 << 20
"""Of an event; 48 seconds of sound."""
IDLE = 600.0
"""Seconds without an event after which a session ends."""
BACKLOG = 60.0
"""Seconds of sound that wait to be transcribed; as long as there are more, nothing is read."""
STEP = 1.0
"""Seconds by which a piece has grown when it is transcribed again."""
SHORTEST = 0.1
"""Seconds that can be committed."""
FULLEST = 5 / 6
"""Share of a window that a piece fills at most."""
ITEM = "conversation.item.input_audio_transcription"


@dataclass(eq=False)
class Item:
    """A turn.

    Attributes:
        id: of the conversation's item.
        pieces: how many are over.
        told: what of its text was told.
        seconds: of its pieces that are done.
        language: of its first piece.
        logprobs: of its words, where they are asked for.
        is_given_up: nothing more is to be told.
    """

    id: str = field(default_factory=lambda: f"item_{uuid.uuid4().hex}")
    pieces: int = 0
    told: str = ""
    seconds: float = 0.0
    language: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    is_given_up: bool = False


@dataclass(eq=False)
class Piece:
    """Sound of an item that a window holds.

    Attributes:
        item: that it belongs to.
        samples: all of them, (n,) float32 at 16 kHz; None while it goes on.
        ends: whether it is the item's last.
        is_over: the client knows that it does not go on.
        is_silent: nobody speaks in it.
        agreement: on what was said in it.
        heard: frames of its last transcript.
        before: the item's text before it, once that is known.
    """

    item: Item
    samples: np.ndarray | None = None
    ends: bool = False
    is_over: bool = False
    is_silent: bool = False
    agreement: Agreement = field(default_factory=Agreement)
    heard: int = 0
    before: str | None = None


class RealtimeEndpoint:
    """Transcribes what is said in sessions, as an ASGI application.

    Args:
        desk: what endpoints share.
        most: sessions at once.
    """

    def __init__(self, desk: Desk, most: int):
        self._desk, self._most = desk, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a session to its end, or refuses it."""
        desk, outcome = self._desk, "failed"
        try:
            settings = self._admit(scope)
        except ApiError as error:
            desk.metrics.requests.labels("refused").inc()
            await refuse_handshake(send, error)
            return
        desk.state.sessions += 1
        desk.metrics.sessions.inc()
        try:
            await receive()
            protocol = "realtime" if "realtime" in scope.get("subprotocols", ()) else None
            await send({"type": "websocket.accept", "subprotocol": protocol})
            await Session(desk, settings, send).serve(receive)
            outcome = "ok"
        except HungUpError:
            outcome = "cancelled"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception:
            log.exception("a session failed")
            with suppress(OSError):
                await send({"type": "websocket.close", "code": 1011, "reason": internal_error().message})
        finally:
            desk.state.sessions -= 1
            desk.metrics.sessions.dec()
            desk.metrics.requests.labels(outcome).inc()
            if outcome == "cancelled":
                desk.metrics.cancelled.inc()

    def _admit(self, scope: Scope) -> Settings:
        desk = self._desk
        desk.state.require_ready()
        query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        if query.get("intent", "transcription") != "transcription":
            raise ApiError(400, "intent: only 'transcription' can be had", "unsupported_value", "intent")
        model = query.get("model", desk.served.id)
        if not desk.served.knows(model):
            raise unknown_model(model, desk.served)
        if desk.state.sessions >= self._most:
            raise ApiError(429, f"there are {self._most} sessions; try again later", "queue_full", retry_after=10)
        return first_settings(model, desk.served)


class Session:
    """One connection: reads events, and beside that transcribes what they bring.

    Args:
        desk: what endpoints share.
        settings: to begin with.
        send: of the connection.
    """

    def __init__(self, desk: Desk, settings: Settings, send: Send):
        self._desk, self._send = desk, send
        self._programs = desk.served.transcriber.programs
        self._turns = Turns(int(FULLEST * self._programs.frames))
        self._use(settings)
        self._id = f"sess_{uuid.uuid4().hex}"
        self._item: Item | None = None  # that goes on
        self._previous: str | None = None  # id of the item before
        self._pieces: deque[Piece] = deque()  # of which none but the last goes on
        self._changed, self._freed = asyncio.Event(), asyncio.Event()
        self._ended = False
        self._seconds, self._peak = 0.0, 0.0
        self._gain = 0.0, 1.0  # and the peak that it is for
        self._begin_sound()

    async def serve(self, receive: Receive) -> None:
        """Serves until the client goes, or until it may say nothing more; then what was said is transcribed still.

        Raises:
            HungUpError: the client went while there was something to do.
        """
        await self._tell("session.created", session=self._shown)
        reading = asyncio.create_task(self._read(receive))
        working = asyncio.create_task(self._work())
        stopping = asyncio.create_task(self._desk.state.ended_for(0))
        tasks = [reading, working, stopping]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            if reading.done():
                why = reading.result()
            else:
                reading.cancel()
                await asyncio.wait([reading])
                why = ApiError(503, "the server is stopping", "stopping")
            if why is not None:
                await self._end(why, working)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, why: ApiError, working: asyncio.Task) -> None:
        if self._item is not None:
            await self._end_turn()
        self._ended = True
        self._changed.set()
        await asyncio.wait([working], timeout=self._desk.grace)
        if working.done():
            working.result()
        await self._tell_error(why)
        with suppress(OSError):
            await self._send({"type": "websocket.close", "code": 1001, "reason": why.message})

    # What the client says.

    async def _read(self, receive: Receive) -> ApiError | None:
        """Reads events; gives why no more are read, None if the client has gone and left nothing to do."""
        most = 60 * self._desk.most_minutes
        while self._seconds <= most:
            try:
                message = await asyncio.wait_for(receive(), IDLE)
            except TimeoutError:
                return ApiError(408, f"there was no event for {IDLE:g} seconds", "session_expired")
            if message["type"] == "websocket.disconnect":
                if self._pieces:
                    raise HungUpError
                return None
            event: dict[str, Any] = {}
            try:
                event = _event(message.get("text"))
                await self._handle(event)
            except ApiError as error:
                await self._tell_error(error, event.get("event_id"))
            except RecursionError:
                await self._tell_error(ApiError(400, "the event is nested too deeply", "unsupported_value"))
        return ApiError(413, f"the session is too long: at most {most / 60:g} minutes", "session_expired")

    async def _handle(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "session.update":
                settings = updated(self._settings, event.get("session"), self._desk.served)
                if self._item is not None and (settings.pause is None) != (self._settings.pause is None):
                    await self._end_turn()
                self._use(settings)
                await self._tell("session.updated", session=self._shown)
            case "input_audio_buffer.append":
                await self._append(event.get("audio"))
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                self._clear()
                await self._tell("input_audio_buffer.cleared")
            case kind:
                raise ApiError(400, f"there is no event '{str(kind)[:100]}' here", "unsupported_value", "type")

    def _use(self, settings: Settings) -> None:
        self._settings = settings
        self._turns.pause, self._turns.padding = settings.pause, settings.padding

    @property
    def _shown(self) -> dict[str, Any]:
        ignored = {"ignored": list(self._settings.asked.ignored)} if self._settings.asked.ignored else {}
        return {"id": self._id, "object": "realtime.transcription_session", **self._settings.values, **ignored}

    def _begin_sound(self) -> None:
        self._odd, self._stream = b"", soxr.ResampleStream(SENT_RATE, SAMPLING_RATE, 1, dtype="float32")

    async def _append(self, audio: Any) -> None:
        try:
            data = self._odd + base64.b64decode(audio, validate=True)
        except (ValueError, TypeError):
            raise ApiError(400, "audio: send base64", "unsupported_value", "audio") from None
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2")
        self._seconds += len(samples) / SENT_RATE
        for first in range(0, len(samples), SENT_RATE):
            await self._hear(self._stream.resample_chunk(as_float(samples[first : first + SENT_RATE])))

    async def _hear(self, samples: np.ndarray) -> None:
        """Takes sound at 16 kHz."""
        while sum(len(piece.samples) for piece in self._pieces if piece.samples is not None) > BACKLOG * SAMPLING_RATE:
            self._freed.clear()
            await self._freed.wait()
        self._peak = max(self._peak, float(np.abs(samples).max(initial=0)))
        if self._item is None and self._settings.pause is None:
            self._begin_turn()
        for cut in self._turns.add(samples):
            if cut.samples is None:
                self._begin_turn()
                start = 1000 * cut.frame // FRAMES_PER_SECOND
                await self._tell("input_audio_buffer.speech_started", item_id=self._item.id, audio_start_ms=start)
            else:
                await self._end_piece(cut, has_stopped=cut.ends)
        self._changed.set()

    async def _commit(self) -> None:
        await self._hear(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        self._begin_sound()
        is_more = self._item is not None and self._item.pieces > 0
        if not is_more and len(self._turns.samples) < SHORTEST * SAMPLING_RATE:
            raise ApiError(400, f"commit at least {SHORTEST:g} s of sound", "input_audio_buffer_commit_empty")
        if self._item is None:
            self._begin_turn(is_silent=True)
        await self._end_turn()

    def _clear(self) -> None:
        self._turns.end()
        self._begin_sound()
        if self._item is not None:
            self._item.is_given_up = True
            self._pieces = deque(piece for piece in self._pieces if piece.item is not self._item)
            self._item = None

    def _begin_turn(self, is_silent: bool = False) -> None:
        self._item = Item()
        self._pieces.append(Piece(self._item, is_silent=is_silent))

    async def _end_turn(self) -> None:
        await self._end_piece(self._turns.end(), has_stopped=False)

    async def _end_piece(self, cut: Cut, has_stopped: bool) -> None:
        piece, item = self._pieces[-1], self._item
        piece.samples, piece.ends = cut.samples, cut.ends
        item.pieces += 1
        if not cut.ends:
            self._pieces.append(Piece(item))
        else:
            previous, self._previous, self._item = self._previous, item.id, None
            if has_stopped:
                end = 1000 * cut.frame // FRAMES_PER_SECOND
                await self._tell("input_audio_buffer.speech_stopped", item_id=item.id, audio_end_ms=end)
            await self._tell("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
        piece.is_over = True
        self._changed.set()

    # What it is told.

    async def _work(self) -> None:
        """Transcribes pieces, one after the other."""
        while self._pieces or not self._ended:
            self._changed.clear()
            piece = self._pieces[0] if self._pieces else None
            frames = self._turns.frames
            if piece is not None and piece.is_over:
                await self._finish(piece)
                if piece in self._pieces:
                    self._pieces.remove(piece)
                self._freed.set()
            elif piece is not None and piece.samples is None and frames - piece.heard >= STEP * FRAMES_PER_SECOND:
                piece.heard = frames
                await self._guess(piece)
            else:
                await self._changed.wait()

    async def _guess(self, piece: Piece) -> None:
        """Transcribes a piece that goes on, and tells what is agreed on."""
        try:
            transcript = await self._transcribe(piece, self._turns.samples, is_last=False)
        except (ApiError, CwjaxError) as error:  # which comes again at the end
            log.debug("a piece cannot be transcribed yet: %s", error)
            return
        if not any(needs_another_try(one, self._settings.asked.options) for one in transcript.segments):
            await self._tell_words(piece.item, piece.agreement.hear(self._words(transcript)))

    async def _finish(self, piece: Piece) -> None:
        """Transcribes a piece that is over, and tells what is left to tell."""
        item = piece.item
        try:
            if not (piece.is_silent or item.is_given_up):
                transcript = await self._transcribe(piece, piece.samples, is_last=True)
                item.language = item.language or transcript.language
                item.logprobs += logprobs(transcript.segments)
                await self._tell_words(item, piece.agreement.end(self._words(transcript)))
        except (ApiError, CwjaxError) as error:
            body = (error if isinstance(error, ApiError) else ApiError(500, str(error), "internal_error")).body
            item.is_given_up = True
            await self._tell(f"{ITEM}.failed", item_id=item.id, content_index=0, **body)
        item.seconds += len(piece.samples) / SAMPLING_RATE
        self._desk.metrics.audio_seconds.inc(len(piece.samples) / SAMPLING_RATE)
        if piece.ends and not item.is_given_up:
            others = {"logprobs": item.logprobs} if "logprobs" in self._settings.asked.include else {}
            usage = {"type": "duration", "seconds": item.seconds}
            about = {"item_id": item.id, "content_index": 0, "transcript": item.told, "usage": usage, **others}
            await self._tell(f"{ITEM}.completed", **about)

    async def _transcribe(self, piece: Piece, samples: np.ndarray, is_last: bool) -> Transcript:
        item, asked = piece.item, self._settings.asked
        if piece.before is None:
            piece.before = item.told
        options = replace(
            asked.options,
            language=asked.options.language or item.language,
            initial_prompt=piece.before or asked.options.initial_prompt,
        )
        if not is_last:
            options = replace(options, temperature=options.temperature[:1], word_timestamps=False)
        if self._gain[0] != self._peak:
            self._gain = self._peak, amplification(self._peak, "a session")
        self._desk.state.requests += 1
        try:
            recording = Recording(self._gain[1] * samples, "a session")
            return (await self._desk.runs.run(replace(asked, options=options), recording)).transcript
        finally:
            self._desk.state.requests -= 1

    def _words(self, transcript: Transcript) -> list[str]:
        tokens = self._programs.tokens
        said = [token for segment in transcript.segments for token in segment.tokens if tokens.is_text(token)]
        return [text for text, _ in split_into_words(said, tokens, transcript.language)]

    async def _tell_words(self, item: Item, words: Sequence[str]) -> None:
        text = "".join(words)
        text = text if item.told else text.lstrip()
        if text and not item.is_given_up:
            item.told += text
            await self._tell(f"{ITEM}.delta", item_id=item.id, content_index=0, delta=text)

    async def _tell_error(self, error: ApiError, event_id: Any = None) -> None:
        about = event_id[:100] if isinstance(event_id, str) else None
        await self._tell("error", error={**error.body["error"], "event_id": about})

    async def _tell(self, kind: str, **values: Any) -> None:
        event = {"type": kind, "event_id": f"event_{uuid.uuid4().hex}", **values}
        try:
            await self._send({"type": "websocket.send", "text": json.dumps(event)})
        except OSError:
            raise HungUpError from None


def _event(text: str | None) -> dict[str, Any]:
    """An event of the client."""
    try:
        event = json.loads(text or "")
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise ApiError(400, "send events as JSON objects, in text frames", "invalid_json")
    return event
