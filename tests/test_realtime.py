"""Realtime sessions, through OpenAI's own client and through websockets that behave badly."""

# ruff: noqa: E402 - what may not be installed is imported after the look whether it is

import base64
import contextlib
import itertools
import json
import socket
import threading
import time
from difflib import SequenceMatcher

import numpy as np
import pytest

for package in ("starlette", "uvicorn", "websockets", "python_multipart", "prometheus_client", "openai", "httpx"):
    pytest.importorskip(package, reason=f"the server's tests need {package}: pip install 'cwjax[test]'")

import httpx
import openai
import soxr
import tones
from hypothesis import given
from hypothesis import strategies as st
from openai.types import realtime as types
from patience import PATIENCE
from pydantic import TypeAdapter
from served import Running, answers, running, served, tone_model, wait_for
from test_serving import Gate, metric
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from cwjax.errors import CwjaxError
from cwjax.inference.transcriber import Transcriber
from cwjax.serving import realtime
from cwjax.serving.agreement import Agreement
from cwjax.serving.app import Access, Limits
from cwjax.serving.turns import Turns
from cwjax.serving.warm_up import WarmUp

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 24_000
ITEM = "conversation.item.input_audio_transcription"
VAD, MANUAL = {"type": "server_vad"}, {"turn_detection": None}
ONE_TRY = {"language": "en", "temperature": 1e-4}
"""So near to the likeliest text as makes no difference, but without the ladder of higher temperatures."""


@pytest.fixture(scope="module")
def transcriber(tmp_path_factory) -> Transcriber:
    return tone_model(tmp_path_factory.mktemp("realtime"))


@pytest.fixture(scope="module")
def server(transcriber):
    with running(served(transcriber)) as server:
        yield server


@pytest.fixture
def patient(monkeypatch):
    """A piece is transcribed when it is over, and not before: half a word is something else to this model."""
    monkeypatch.setattr(realtime, "STEP", 1e9)


def sound(seconds: float, seed: int, pause: float = 0.0) -> tuple[np.ndarray, tones.Spoken]:
    """Words at 16 kHz, then silence, and when each was said."""
    random = np.random.default_rng(seed)
    words = tones.utterances(random, seconds)
    return tones.sound(words, seconds + pause, random), words


def written(words: tones.Spoken, start: float = 0, end: float = 1e9) -> str:
    return "".join(tones.WORDS[word] for first, last, word in words if start <= first and last <= end).strip()


def pcm(samples: np.ndarray) -> bytes:
    """Sound at 16 kHz as clients send it."""
    return (soxr.resample(samples, 16_000, RATE) * 32767).clip(-32768, 32767).astype("<i2").tobytes()


def directly(transcriber: Transcriber, samples: np.ndarray, context: str = "", **options):
    """What the transcriber makes of sound as it is sent."""
    heard = soxr.resample(np.frombuffer(pcm(samples), "<i2").astype(np.float32) / 32768, RATE, 16_000)
    return transcriber.transcribe(heard, context, **{"language": "en", **options})


def text_of(transcriber: Transcriber, samples: np.ndarray) -> str:
    return directly(transcriber, samples, temperature=ONE_TRY["temperature"]).text.strip()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Connection:
    """A websocket that sends and awaits events."""

    def __init__(self, server: Running, query: str = "?intent=transcription", **others):
        url = f"{server.url.replace('http', 'ws')}/v1/realtime{query}"
        self.socket = connect(url, max_size=None, **others)
        self.events: list[dict] = []

    def send(self, kind: str, **values) -> None:
        self.socket.send(json.dumps({"type": kind, **values}))

    def update(self, transcription: dict | None = None, **sound) -> dict:
        self.send("session.update", session={"audio": {"input": {"transcription": transcription or ONE_TRY, **sound}}})
        return self.until("session.updated")["session"]

    def append(self, data: bytes, size: int = 9600) -> None:
        for first in range(0, len(data), size):
            self.send("input_audio_buffer.append", audio=base64_of(data[first : first + size]))

    def until(self, *kinds: str) -> dict:
        while True:
            event = json.loads(self.socket.recv(timeout=PATIENCE))
            self.events.append(event)
            if event["type"] in kinds:
                return event

    def closed(self) -> int | None:
        """The code with which the server ends it, if it came through."""
        try:
            while True:
                self.events.append(json.loads(self.socket.recv(timeout=PATIENCE)))
        except ConnectionClosed as error:
            return None if error.rcvd is None else error.rcvd.code

    def joined(self, item: str) -> str:
        return "".join(one["delta"] for one in self.events if one["type"] == f"{ITEM}.delta" and one["item_id"] == item)


@contextlib.contextmanager
def session(server: Running, transcription: dict | None = None, **sound):
    connection = Connection(server)
    with connection.socket:
        assert connection.until("session.created")["session"]["type"] == "transcription"
        connection.update(transcription, **sound)
        yield connection


def test_turns_through_openais_client(server, transcriber):
    """Somebody speaks; every turn is an item whose deltas are its text: what was said between its beginning and end."""
    samples, words = sound(25, seed=3, pause=1)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    validate = TypeAdapter(types.RealtimeServerEvent).validate_python
    spans, texts, deltas, order = {}, {}, {}, []
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        assert connection.recv().type == "session.created"
        transcription = {"model": "whisper-1", "language": "en", "keywords": ["Ada"]}
        detection = {"type": "server_vad", "silence_duration_ms": 800}
        given = {"transcription": transcription, "turn_detection": detection}
        connection.session.update(session={"type": "transcription", "audio": {"input": given}})
        audio = connection.recv().session.audio.input
        assert (audio.transcription.keywords, audio.turn_detection.silence_duration_ms) == (["Ada"], 800)
        assert audio.turn_detection.prefix_padding_ms == 300, "what is not named stays"
        data = pcm(samples)
        for first in range(0, len(data), 4800):
            connection.input_audio_buffer.append(audio=base64_of(data[first : first + 4800]))
        ended = 0
        while not ended or ended < len(spans):
            event = connection.recv()
            validate(event.to_dict())
            match event.type:
                case "input_audio_buffer.speech_started":
                    spans[event.item_id] = [event.audio_start_ms / 1000]
                case "input_audio_buffer.speech_stopped":
                    spans[event.item_id].append(event.audio_end_ms / 1000)
                case "input_audio_buffer.committed":
                    assert event.previous_item_id == (order[-1] if order else None)
                    order.append(event.item_id)
                case "conversation.item.input_audio_transcription.delta":
                    deltas[event.item_id] = deltas.get(event.item_id, "") + event.delta
                case "conversation.item.input_audio_transcription.completed":
                    texts[event.item_id], ended = event.transcript, ended + 1
                    assert event.usage.seconds == pytest.approx(np.diff(spans[event.item_id])[0], abs=0.02)
                case kind:
                    raise AssertionError(kind)
            if len(order) == len(spans) and ended == len(order) and spans[order[-1]][1] > words[-1][1]:
                break
    assert list(spans) == order
    assert len(order) > 2
    assert texts == {item: deltas.get(item, "") for item in texts}
    assert [texts[item] for item in order] == [written(words, *spans[item]) for item in order]
    assert sum(len(texts[item].split()) for item in order) > 5


def test_text_comes_while_somebody_speaks_and_is_never_taken_back(server):
    samples, words = sound(70, seed=8)
    with session(server, ONE_TRY, **MANUAL) as connection:
        data = pcm(samples)
        half = len(data) // 4 * 2
        connection.append(data[:half])
        early = connection.until(f"{ITEM}.delta")
        connection.append(data[half:])
        connection.send("input_audio_buffer.commit")
        done = connection.until(f"{ITEM}.completed")
        kinds = [event["type"] for event in connection.events]
        assert kinds.index(f"{ITEM}.delta") < kinds.index("input_audio_buffer.committed")
        assert kinds.count(f"{ITEM}.delta") > 2
        assert early["item_id"] == done["item_id"]
        assert connection.joined(done["item_id"]) == done["transcript"]
        right, found = written(words).split(), done["transcript"].split()
        assert SequenceMatcher(None, right, found).ratio() > 0.8
        assert done["usage"]["seconds"] == pytest.approx(70, abs=0.02)


def test_sound_is_whole_however_it_comes(server, transcriber, patient, monkeypatch):
    """Blocks of odd bytes make no clicks, and nothing is lost between the pieces of a turn."""
    heard, start = [], transcriber.start
    monkeypatch.setattr(transcriber, "start", lambda one, *given: heard.append(one.audio) or start(one, *given))
    monkeypatch.setattr(realtime, "FULLEST", 0.3)
    samples, _ = sound(20, seed=4)
    data = pcm(samples)
    with session(server, ONE_TRY, **MANUAL) as connection:
        connection.append(data, 1001)
        connection.send("input_audio_buffer.commit")
        connection.until(f"{ITEM}.completed")
    assert [one.duration <= 9 for one in heard] == [True] * len(heard)
    assert len(heard) > 2
    whole = soxr.resample(np.frombuffer(data, "<i2").astype(np.float32) / 32768, RATE, 16_000)
    found = np.concatenate([one.samples for one in heard])
    assert len(found) == len(whole)
    assert np.abs(found - whole).max() < 1e-3


def test_contexts_and_log_probabilities(server, transcriber, patient):
    samples, _ = sound(15, seed=6)
    seen = set()
    for context in ("the wind in the sail", "price market"):
        expected = directly(transcriber, samples, context, word_timestamps=True)
        with session(server, {"language": "en", "context": context}, **MANUAL) as connection:
            connection.send("session.update", session={"include": ["item.input_audio_transcription.logprobs"]})
            connection.append(pcm(samples))
            connection.send("input_audio_buffer.commit")
            done = connection.until(f"{ITEM}.completed")
        seen.add(done["transcript"])
        assert done["transcript"] == expected.text.strip()
        assert [one["token"] for one in done["logprobs"]] == [w.text for s in expected.segments for w in s.words]
    assert len(seen) == 2, "contexts matter"


def test_languages_are_found(server, transcriber, patient):
    samples, _ = sound(10, seed=6)
    expected = directly(transcriber, samples, language=None)
    with session(server, {"language": ""}, **MANUAL) as connection:
        connection.append(pcm(samples))
        connection.send("input_audio_buffer.commit")
        assert connection.until(f"{ITEM}.completed")["transcript"] == expected.text.strip()


BAD_EVENTS = [
    ("no JSON", "invalid_json", None),
    ("[1]", "invalid_json", None),
    (b"\0\1", "invalid_json", None),
    ('{"type": "response.create"}', "unsupported_value", "type"),
    ("{}", "unsupported_value", "type"),
    ('{"type": "input_audio_buffer.append"}', "unsupported_value", "audio"),
    ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "unsupported_value", "audio"),
    ('{"type": "input_audio_buffer.append", "audio": "é"}', "unsupported_value", "audio"),
    ('{"type": "input_audio_buffer.append", "audio": 7}', "unsupported_value", "audio"),
    ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty", None),
    ('{"type": "session.update"}', "unsupported_value", "session"),
    ('{"type": "session.update", "session": {"type": "realtime"}}', "unsupported_value", "session.type"),
    ('{"type": "session.update", "session": {"include": 5}}', "unsupported_value", "session.include"),
    ('{"type": "session.update", "session": {"audio": null}}', "unsupported_value", "session.audio"),
]
BAD_INPUTS = [
    ({"format": {"type": "audio/pcmu"}}, "session.audio.input.format"),
    ({"turn_detection": {"type": "semantic_vad"}}, "session.audio.input.turn_detection.type"),
    ({"turn_detection": {**VAD, "silence_duration_ms": -1}}, "session.audio.input.turn_detection.silence_duration_ms"),
    (
        {"turn_detection": {**VAD, "prefix_padding_ms": float("nan")}},
        "session.audio.input.turn_detection.prefix_padding_ms",
    ),
    ({"transcription": None}, "session.audio.input.transcription"),
    ({"transcription": {"language": "klingon"}}, "language"),
    ({"transcription": {"model": "gpt-5"}}, "model"),
    ({"transcription": {"prompt": {"a": 1}}}, "session.audio.input.transcription.prompt"),
    ({"transcription": {"prompt": "\ud800"}}, "session.audio.input.transcription"),
    ({"transcription": {"prompt": "x" * (1 << 20)}}, "session.audio.input.transcription"),
    ({"transcription": {"context_scale": 99}}, "context_scale"),
]


def test_bad_events_are_told_and_change_nothing(server, transcriber, patient, caplog):
    samples, _ = sound(8, seed=6)
    with session(server, ONE_TRY, **MANUAL) as connection:
        before = connection.update()
        for sent, code, param in BAD_EVENTS:
            connection.socket.send(sent)
            error = connection.until("error")["error"]
            assert (error["code"], error["param"]) == (code, param), sent
            assert error["type"] == "invalid_request_error"
        for values, param in BAD_INPUTS:
            connection.send("session.update", session={"audio": {"input": values}}, event_id="mine")
            error = connection.until("error")["error"]
            assert (error["param"], error["event_id"]) == (param, "mine"), values
        deep = '{"type": "session.update", "session": ' + '{"a": ' * 900 + "1" + "}" * 901
        for _ in range(2):
            connection.socket.send(deep)
            connection.until("error", "session.updated")
        connection.socket.send("[" * 100_000)
        assert "nested" in connection.until("error")["error"]["message"]
        after = connection.update()
        assert before["audio"] == after["audio"]
        connection.append(pcm(samples))
        connection.send("input_audio_buffer.commit")
        assert connection.until(f"{ITEM}.completed")["transcript"] == text_of(transcriber, samples)
    assert not [record for record in caplog.records if record.exc_info], "no traceback"


def test_what_is_cleared_is_not_told(server, transcriber, patient):
    samples, _ = sound(8, seed=6)
    with session(server, ONE_TRY, **MANUAL) as connection:
        connection.append(pcm(sound(40, seed=7)[0]))
        connection.send("input_audio_buffer.clear")
        connection.until("input_audio_buffer.cleared")
        connection.append(pcm(samples))
        connection.send("input_audio_buffer.commit")
        assert connection.until(f"{ITEM}.completed")["transcript"] == text_of(transcriber, samples)
        assert sum(event["type"] == "input_audio_buffer.committed" for event in connection.events) == 1


def test_silence_has_no_text(server):
    with session(server) as connection:
        connection.append(pcm(0.001 * np.random.default_rng(0).normal(size=16_000)))
        connection.send("input_audio_buffer.commit")
        assert connection.until(f"{ITEM}.completed")["transcript"] == ""
        assert [event["type"] for event in connection.events if "speech" in event["type"]] == []


def test_who_ends_the_turns_may_change(server, transcriber, patient):
    samples, _ = sound(8, seed=6)
    with session(server, ONE_TRY, **MANUAL) as connection:
        connection.append(pcm(samples))
        connection.update(turn_detection={"type": "server_vad"})
        assert connection.until(f"{ITEM}.completed")["transcript"] == text_of(transcriber, samples)
        connection.append(pcm(np.append(samples, np.zeros(16_000))))
        connection.until("input_audio_buffer.speech_stopped")
        connection.update(**MANUAL)
        connection.send("input_audio_buffer.clear")
        connection.append(pcm(samples))
        connection.send("input_audio_buffer.commit")
        item = connection.until("input_audio_buffer.committed")["item_id"]
        while (done := connection.until(f"{ITEM}.completed"))["item_id"] != item:
            pass
        assert done["transcript"] == text_of(transcriber, samples)


def test_events_that_are_too_large(server):
    with session(server) as connection:
        with contextlib.suppress(ConnectionClosed):
            connection.socket.send("x" * (realtime.MOST_BYTES + 1))
        assert connection.closed() in (1009, None), "who still sends is reset"
    wait_for(lambda: metric(server, "cwjax_sessions_active") == 0)


def test_hanging_up_gives_up_what_is_at_work(server, transcriber, monkeypatch):
    gate = Gate(transcriber, monkeypatch)
    cancelled = metric(server, "cwjax_requests_cancelled_total")
    with session(server, ONE_TRY, **MANUAL) as connection:
        connection.append(pcm(sound(40, seed=7)[0]))
        connection.send("input_audio_buffer.commit")
        wait_for(lambda: gate.batches)
    gate.open(1)
    wait_for(lambda: metric(server, "cwjax_sessions_active") == 0)
    wait_for(lambda: not transcriber.engine._works)
    assert len(gate.batches) <= 2
    gate.open()
    assert metric(server, "cwjax_requests_cancelled_total") == cancelled + 1


def test_sound_that_waits_is_bounded(server, transcriber, monkeypatch):
    gate, sessions, serve = Gate(transcriber, monkeypatch), [], realtime.Session.serve
    monkeypatch.setattr(realtime.Session, "serve", lambda self, receive: sessions.append(self) or serve(self, receive))
    monkeypatch.setattr(realtime, "BACKLOG", 30.0)
    samples, _ = sound(300, seed=5)
    with session(server, ONE_TRY, **MANUAL) as connection:
        threading.Thread(target=connection.append, args=(pcm(samples), 200_000), daemon=True).start()
        wait_for(lambda: sum(piece.samples is not None for piece in sessions[0]._pieces) > 1)
        time.sleep(1)
        assert sessions[0]._seconds < 100
        gate.open()
        wait_for(lambda: sessions[0]._seconds == pytest.approx(300, abs=0.1))
        connection.send("input_audio_buffer.commit")
        done = connection.until(f"{ITEM}.completed")
        assert done["usage"]["seconds"] == pytest.approx(300, abs=0.02)
        assert connection.joined(done["item_id"]) == done["transcript"]


def test_a_piece_that_fails_is_told_of(server, transcriber, patient, monkeypatch):
    samples, _ = sound(8, seed=6)

    def fail(*_):
        raise CwjaxError("no more memory; take a smaller model")

    with session(server, ONE_TRY, **MANUAL) as connection:
        with monkeypatch.context() as broken:
            broken.setattr(transcriber.engine, "run", fail)
            connection.append(pcm(samples))
            connection.send("input_audio_buffer.commit")
            failed = connection.until(f"{ITEM}.failed", f"{ITEM}.completed")
        assert failed["error"]["code"] == "internal_error"
        assert "smaller model" in failed["error"]["message"]
        connection.append(pcm(samples))
        connection.send("input_audio_buffer.commit")
        assert connection.until(f"{ITEM}.completed")["transcript"] == text_of(transcriber, samples)


def refused(server: Running, query: str = "?intent=transcription", **others) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        Connection(server, query, **others)
    return caught.value.response.status_code, json.loads(caught.value.response.body)["error"]["code"]


def test_who_may_connect(server, transcriber):
    assert refused(server, "?intent=conversation") == (400, "unsupported_value")
    assert refused(server, "?intent=transcription&model=gpt-5") == (404, "model_not_found")
    assert refused(server, additional_headers={"Origin": "https://evil.example"}) == (403, "unknown_origin")
    with pytest.raises(InvalidStatus):
        connect(f"{server.url.replace('http', 'ws')}/v1/models")
    assert httpx.get(f"{server.url}/v1/realtime").status_code == 404
    rebound = Running(server.url.replace("127.0.0.1", "rebound.example"), None, None)
    with pytest.raises(InvalidStatus) as caught:
        Connection(rebound, sock=socket.create_connection(server.place))
    assert caught.value.response.status_code == 403
    with running(served(transcriber), Limits(batch_size=1, grace=1.0), Access(key="secret")) as guarded:
        assert refused(guarded) == (401, "invalid_api_key")
        assert refused(guarded, subprotocols=["realtime", "openai-insecure-api-key.wrong"]) == (401, "invalid_api_key")
        headers = {"Authorization": "Bearer secret"}
        browser = Connection(guarded, subprotocols=["realtime", "openai-insecure-api-key.secret"])
        assert browser.socket.subprotocol == "realtime"
        with browser.socket, Connection(guarded, additional_headers=headers).socket:
            assert refused(guarded, additional_headers=headers) == (429, "queue_full")
        wait_for(lambda: metric(guarded, "cwjax_sessions_active", **headers) == 0)


def test_nobody_connects_before_the_server_is_ready(transcriber):
    begun = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WarmUp, "first", lambda self: begun.wait())
        with running(served(transcriber), warm=True) as server:
            try:
                wait_for(lambda: answers(server.place))
                assert refused(server) == (503, "warming_up")
            finally:
                begun.set()


def test_the_server_ends_when_what_was_said_is_written(transcriber, monkeypatch):
    gate = Gate(transcriber, monkeypatch)
    samples, _ = sound(8, seed=6)
    with running(served(transcriber), Limits(grace=60.0)) as server, session(server, ONE_TRY, **MANUAL) as connection:
        connection.append(pcm(samples))
        connection.update(**MANUAL)  # all has been read
        wait_for(lambda: gate.batches)
        server.server.stop()
        gate.open()
        done = connection.until(f"{ITEM}.completed")
        assert done["transcript"] == connection.joined(done["item_id"]) != ""
        assert done["usage"]["seconds"] == pytest.approx(8, abs=0.02)
        assert connection.until("error")["error"]["code"] == "stopping"
        assert connection.closed() == 1001
        server.thread.join(30)
        assert not server.thread.is_alive()


def test_sessions_end_when_the_grace_period_does(transcriber, monkeypatch):
    with running(served(transcriber), Limits(grace=0.5)) as server:
        gate = Gate(transcriber, monkeypatch)
        with session(server, ONE_TRY, **MANUAL) as connection:
            connection.append(pcm(sound(8, seed=6)[0]))
            wait_for(lambda: gate.batches)
            server.server.stop()
            assert connection.until("error")["error"]["code"] == "stopping"
            assert connection.closed() == 1001
        gate.open()


def test_sessions_that_are_too_long_or_idle(transcriber, patient, monkeypatch):
    with running(served(transcriber), Limits(minutes=0.1, grace=60.0)) as server:
        samples, _ = sound(6.2, seed=6)
        with session(server, ONE_TRY, **MANUAL) as connection:
            connection.append(pcm(samples))
            assert connection.until(f"{ITEM}.completed")["transcript"] == text_of(transcriber, samples)
            assert connection.until("error")["error"]["code"] == "session_expired"
            assert connection.closed() == 1001
        monkeypatch.setattr(realtime, "IDLE", 0.3)
        with session(server) as connection:
            assert connection.until("error")["error"]["code"] == "session_expired"


WORDS = st.lists(st.sampled_from([" a", " b", " c", " d."]), max_size=8)


@given(st.lists(WORDS, max_size=6), WORDS)
def test_what_is_told_was_heard_twice(transcripts, last):
    agreement, told, before = Agreement(), [], []
    for words in transcripts:
        agreed = agreement.hear(words)
        assert not agreed or (_has(words[:-1], agreed) and _has(before, agreed))
        told, before = told + agreed, words
    assert told == agreement.said, "nothing is taken back"
    rest = agreement.end(last)
    assert rest == last[len(last) - len(rest) :]


def _has(words: list[str], some: list[str]) -> bool:
    return any(words[first : first + len(some)] == some for first in range(len(words)))


def test_agreement_goes_by_the_text_that_follows():
    agreement = Agreement()
    assert agreement.hear([" The", " sail"]) == []
    assert agreement.hear([" The", " sail"]) == [" The"], "the last word may go on"
    assert agreement.hear([" The", " sail", " was"]) == [" sail"]
    assert agreement.hear([" The", " sale", " was", " new."]) == [" was"], "what was told stays, and is not told again"
    assert agreement.hear([" the", " sail,", " was", " new", " and"]) == []
    assert agreement.end([" Well,", " the", " sail", " was", " new", " and", " white."]) == [" new", " and", " white."]


def test_turns_do_not_depend_on_blocks():
    samples, words = sound(60, seed=9, pause=2)
    expected = None
    for size in (160, 999, 16_000, len(samples)):
        turns = Turns(2500)
        turns.pause, turns.padding = 50, 30
        cuts = [
            (cut.frame, None if cut.samples is None else cut.samples.sum(dtype=np.float64), cut.ends)
            for first in range(0, len(samples), size)
            for cut in turns.add(samples[first : first + size])
        ]
        expected = expected or cuts
        assert cuts == expected
    starts, ends = (np.array([cut[0] for cut in expected if cut[2] is kind]) / 100 for kind in (False, True))
    assert len(starts) == len(ends)
    for first, last, _ in words:
        inside = (starts <= first) & (ends >= last)
        assert inside.sum() == 1, "every word is in one turn"
    pauses = [later[0] - word[1] for word, later in itertools.pairwise(words)]
    assert len(starts) == 1 + sum(pause > 0.6 for pause in pauses)


def test_steady_noise_is_no_speech():
    random = np.random.default_rng(1)
    for loudness in (1e-4, 0.01, 0.3):
        turns = Turns(2500)
        turns.pause = 50
        assert not list(turns.add(loudness * random.normal(size=16_000 * 60).astype(np.float32)))
