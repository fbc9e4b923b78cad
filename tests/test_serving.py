"""The server, through OpenAI's own client and through sockets that behave badly."""

# ruff: noqa: E402 - what may not be installed is imported after the look whether it is

import contextlib
import gc
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

for package in ("starlette", "uvicorn", "websockets", "python_multipart", "prometheus_client", "openai", "httpx"):
    pytest.importorskip(package, reason=f"the server's tests need {package}: pip install 'cwjax[test]'")

import httpx
import openai
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import Transcription, TranscriptionVerbose
from patience import end_when_hung
from served import Running, let_spot, running, served, spoken, tone_model, wait_for, wav

from cwjax.cli import main
from cwjax.commands import serve
from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcription import Request
from cwjax.inference.writers import FORMATS, SubtitleLayout
from cwjax.serving import queue, uploads
from cwjax.serving.app import Access, Limits
from cwjax.serving.errors import ApiError
from cwjax.serving.fields import read_fields
from cwjax.serving.runs import Errand
from cwjax.serving.streams import Deltas
from cwjax.serving.warm_up import WarmUp

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHILD = Path(__file__).with_name("child.py")
SPEC = importlib.util.spec_from_file_location("serving", Path(__file__).parents[1] / "benchmarks" / "serving.py")
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)
CONTEXTS = ("the wind in the sail", "a bear in the forest", "price market", "")
SECONDS = 20
SHORT, LONG = spoken(SECONDS, seed=6), spoken(75, seed=7)
ONE_TRY = {"temperature": 1e-4}
"""So near to the likeliest text as makes no difference, but without the ladder of higher temperatures."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def transcriber(folder) -> Transcriber:
    return tone_model(folder)


@pytest.fixture(scope="module")
def server(transcriber):
    with running(served(transcriber)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    return client_of(server)


def client_of(server: Running, **others) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", **{"api_key": "none", "max_retries": 0, **others})


def ask(client: openai.OpenAI, audio: bytes = SHORT, **fields):
    asked = {"model": "whisper-1", "language": "en", "file": ("talk.wav", audio)} | fields
    return client.audio.transcriptions.create(**asked)


def post(server: Running, fields: dict | None = None, audio: bytes | None = SHORT, **others) -> httpx.Response:
    files = {} if audio is None else {"file": ("talk.wav", audio)}
    fields = {"model": "whisper-1", "language": "en"} | (fields or {})
    return httpx.post(f"{server.url}/v1/audio/transcriptions", data=fields, files=files, timeout=60, **others)


def directly(transcriber: Transcriber, audio: bytes = SHORT, context: str = "", **options):
    return transcriber.transcribe(audio, context, DecodingOptions(language="en", **options))


class Gate:
    """Lets the engine do batches one by one."""

    def __init__(self, transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch):
        self.batches: list[list] = []
        self._allowed = threading.Semaphore(0)
        self._run = transcriber.engine.run
        monkeypatch.setattr(transcriber.engine, "run", self._wait)

    def _wait(self, jobs):
        self.batches.append(jobs)
        self._allowed.acquire(timeout=60)  # that a test may fail, and not wait for ever
        return self._run(jobs)

    def open(self, batches: int = 10_000) -> None:
        self._allowed.release(batches)


@pytest.fixture
def gate(transcriber, monkeypatch):
    gate = Gate(transcriber, monkeypatch)
    yield gate
    gate.open()


def metric(server: Running, name: str, **headers) -> float:
    text = httpx.get(f"{server.url}/metrics", headers=headers).text
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def test_what_is_served(server, client):
    assert [model.id for model in client.models.list()] == ["tones"]
    for name in ("tones", "whisper-1", "gpt-4o-mini-transcribe", "gpt-transcribe"):
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_every_format_is_what_the_transcriber_gives(server, client, transcriber):
    expected = directly(transcriber)
    assert len(expected.text.split()) > 3
    answer = ask(client)
    assert answer.text == expected.text.strip()
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == expected.duration == SECONDS
    assert ask(client, response_format="text") == expected.text.strip() + "\n"
    for name in ("srt", "vtt"):
        assert ask(client, response_format=name) == FORMATS[name](expected, SubtitleLayout())
    verbose = ask(client, response_format="verbose_json")
    assert (verbose.text, verbose.language, verbose.duration) == (answer.text, "english", SECONDS)
    assert [one.tokens for one in verbose.segments] == [list(one.tokens) for one in expected.segments]
    assert verbose.words is None, "nobody asked for words"


def test_answers_are_those_that_the_client_knows(server, transcriber):
    asked = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    content = post(server, asked).json()
    TranscriptionVerbose.model_validate(content, strict=True)
    assert set(content["segments"][0]) == {
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
        "no_speech_prob",
    }  # fmt: skip
    segments = directly(transcriber, word_timestamps=True).segments
    assert any(not one.words for one in segments if one.text.strip()), "they stand there as a whole"
    words = [word for one in segments for word in one.words or [one] if word.text.strip()]
    assert content["words"] == [{"word": w.text.strip(), "start": w.start, "end": w.end} for w in words]
    Transcription.model_validate(post(server).json(), strict=True)
    only_words = post(server, {**asked, "timestamp_granularities[]": "word"}).json()
    assert "segments" not in only_words
    assert only_words["words"] == content["words"]


def test_log_probabilities_of_words(client, transcriber):
    answer = ask(client, include=["logprobs"])
    words = [word for one in directly(transcriber, word_timestamps=True).segments for word in one.words]
    assert [round(np.exp(one.logprob), 6) for one in answer.logprobs] == [round(one.probability, 6) for one in words]
    assert [one.token for one in answer.logprobs] == [word.text for word in words]
    assert [bytes(map(int, one.bytes)).decode() for one in answer.logprobs] == [word.text for word in words]


def test_contexts_reach_the_model_and_are_shown(client, transcriber):
    plain = directly(transcriber, word_timestamps=True)
    seen = set()
    for context in CONTEXTS[:3]:
        expected = directly(transcriber, context=context, word_timestamps=True)
        answer = ask(
            client,
            response_format="verbose_json",
            extra_body={"context": context, "prompt": "overruled"},
            include=["without_context", "context_words"],
        )
        seen.add(answer.text)
        assert answer.text == expected.text.strip()
        assert answer.without_context["text"] == plain.text.strip()
        assert answer.without_context["words"][0].keys() == {"word", "start", "end"}
        influence = answer.context_words
        assert influence["words"] == context.split()
        assert influence["column_seconds"] == 0.1
        columns = sum(len(window["others"]) for window in influence["windows"])
        assert 10 * SECONDS <= columns < 10 * SECONDS + len(influence["windows"])
        for window in influence["windows"]:
            assert np.array(window["influence"]).shape == (len(window["words"]), len(window["others"]))
            assert np.array(window["influence"]).min() > 0
    assert len(seen - {plain.text.strip()}) > 1, "contexts matter here"
    assert ask(client, prompt=CONTEXTS[0]).text == directly(transcriber, context=CONTEXTS[0]).text.strip()
    told = directly(transcriber, context="a bear\nnames: wind, sail").text.strip()
    assert ask(client, prompt="a bear", keywords=["wind", "sail"]).text == told
    assert ask(client, prompt="a bear", extra_body={"hotwords": "wind, sail"}).text == told
    nothing = ask(client, extra_body={"context": CONTEXTS[0], "context_scale": 0})
    assert nothing.text == directly(transcriber).text.strip()


def test_the_servers_own_context(transcriber):
    with running(served(transcriber, context=CONTEXTS[0])) as server:
        client = client_of(server)
        assert ask(client).text == directly(transcriber, context=CONTEXTS[0]).text.strip()
        assert ask(client, prompt=CONTEXTS[2]).text == directly(transcriber, context=CONTEXTS[2]).text.strip()


def kind_of_model(transcriber, spots: bool, takes: bool) -> SimpleNamespace:
    return SimpleNamespace(
        transcriber=transcriber, knows=lambda name: True, takes_context=takes, spots_phrases=spots, context=""
    )


@pytest.mark.parametrize(
    ("spots", "takes", "context", "phrases", "hotwords", "ignored"),
    [
        (True, True, "a talk", ("Ada", "Bo"), None, ()),
        (True, False, "", ("Ada", "Bo"), None, ("prompt",)),
        (False, True, "a talk\nnames: Ada, Bo", (), None, ()),
        (False, False, "", (), "Ada, Bo", ("prompt",)),
    ],
)
def test_names_go_where_the_model_can_use_them(transcriber, spots, takes, context, phrases, hotwords, ignored):
    pairs = [("model", "m"), ("prompt", "a talk"), ("keywords[]", "Ada"), ("keywords[]", "Bo"), ("phrases", "Ada\n")]
    asked = read_fields(pairs, kind_of_model(transcriber, spots, takes), "transcribe")
    assert (asked.context, asked.options.phrases, asked.options.hotwords) == (context, phrases, hotwords)
    assert asked.ignored == ignored
    assert asked.plain_options.phrases == ()
    assert asked.plain_options.hotwords is None


def test_phrases_that_were_heard(server, client, transcriber, monkeypatch):
    let_spot(transcriber, monkeypatch)
    assert client.models.retrieve("tones").spots_phrases
    answer = ask(client, prompt="a bear", keywords=["Ada", "Bo"], include=["without_context"])
    expected = directly(transcriber, context="a bear", phrases=("Ada", "Bo"), word_timestamps=True)
    assert {one["phrase"] for one in answer.phrases} == {"Ada", "Bo"}
    assert [(one["phrase"], one["start"], one["end"], one["probability"]) for one in answer.phrases] == [
        (one.text, one.start, one.end, one.probability) for one in expected.phrases
    ]
    assert answer.without_context["text"] == directly(transcriber, word_timestamps=True).text.strip()


def test_fields_of_all_writings(transcriber):
    def read(*pairs):
        return read_fields([("model", "m"), *pairs], kind_of_model(transcriber, False, True), "translate")

    assert read().options == DecodingOptions(task="translate", initial_prompt=None)
    assert read(("language", "German")).options.language == "de"
    assert read(("languages[]", "de"), ("languages[]", "fr")).languages == ("de", "fr")
    assert read(("languages", "de,fr")).languages == ("de", "fr")
    assert read(("temperature", "0")).options.temperature == DecodingOptions().temperature
    assert read(("temperature", "0.3")).options.temperature == (0.3,)
    assert read(("initial_prompt", "Dr. Who")).options.initial_prompt == "Dr. Who"
    assert not read().options.independent_windows
    for strategy in ("auto", "server_vad", '{"type": "server_vad", "threshold": 0.4}'):
        assert read(("chunking_strategy", strategy)).options.independent_windows
    asked = read(("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.4"), ("x\r\ny: z", ""))
    assert asked.options.independent_windows
    assert asked.ignored == ("chunking_strategy[threshold]", "x??y??z")


def test_unknown_fields_are_named(server):
    answer = post(server, {"response_format": "srt", "include[]": "context_words"})
    assert answer.headers["x-cwjax-ignored"] == "include", "subtitles have no room for it"
    answer = post(server, {"vad_filter": "true", "user": "me"})
    assert answer.status_code == 200
    assert answer.headers["x-cwjax-ignored"] == "vad_filter, user"


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": ""}, 400, "missing_required_parameter", "model"),
        ({"model": "gpt-5"}, 404, "model_not_found", "model"),
        ({"response_format": "xml"}, 400, "unsupported_value", "response_format"),
        ({"response_format": "diarized_json"}, 400, "unsupported_value", "response_format"),
        ({"temperature": "warm"}, 400, "unsupported_value", "temperature"),
        ({"temperature": "1.1"}, 400, "unsupported_value", "temperature"),
        ({"temperature": "nan"}, 400, "unsupported_value", "temperature"),
        ({"language": "klingon"}, 400, "unsupported_value", "language"),
        ({"languages[]": ["en", "klingon"]}, 400, "unsupported_value", "languages"),
        ({"timestamp_granularities[]": "word"}, 400, "unsupported_value", "timestamp_granularities"),
        (
            {"timestamp_granularities[]": "page", "response_format": "verbose_json"},
            400, "unsupported_value", "timestamp_granularities",
        ),
        ({"include[]": "everything"}, 400, "unsupported_value", "include"),
        ({"stream": "perhaps"}, 400, "unsupported_value", "stream"),
        ({"stream": "true", "response_format": "srt"}, 400, "unsupported_value", "stream"),
        ({"chunking_strategy": "by taste"}, 400, "unsupported_value", "chunking_strategy"),
        ({"context_scale": "-1"}, 400, "unsupported_value", "context_scale"),
        ({"context_scale": "1e300"}, 400, "unsupported_value", "context_scale"),
    ],
)  # fmt: skip
def test_impossible_fields(server, fields, status, code, param):
    answer = post(server, fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


def test_files_that_are_no_audio(server, client):
    for audio in (b"", b"no sound", SHORT[:40], b"\0" * 5000, wav(np.zeros(0))):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, audio)
        assert (caught.value.code, caught.value.param) == ("unreadable_audio", "file"), audio[:10]
    missing = post(server, audio=None)
    assert missing.status_code == 400
    twice = [("file", ("a", SHORT)), ("file", ("b", SHORT))]
    answer = httpx.post(f"{server.url}/v1/audio/transcriptions", data={"model": "whisper-1"}, files=twice)
    assert answer.json()["error"]["param"] == "file"
    for kind in ("application/json", "multipart/form-data", "text/plain"):
        answer = post(server, headers={"content-type": kind})
        assert answer.status_code == 400, kind
        assert "multipart" in answer.json()["error"]["message"]


def test_silence_is_an_empty_text(client):
    answer = ask(client, wav(np.zeros(16_000)), response_format="verbose_json")
    assert (answer.text, answer.segments) == ("", [])
    events = list(ask(client, wav(np.zeros(16_000)), stream=True))
    assert [event.type for event in events] == ["transcript.text.done"]


def test_other_addresses_and_methods(server, client):
    for method, path, status in (("GET", "/v1/audio/transcriptions", 405), ("POST", "/v1/completions", 404)):
        answer = httpx.request(method, server.url + path)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_translations(client, transcriber):
    answer = client.audio.translations.create(
        file=("talk.wav", SHORT), model="whisper-1", response_format="verbose_json"
    )
    assert answer.language == "english"
    expected = transcriber.transcribe(SHORT, "", DecodingOptions(task="translate"))
    assert answer.text == expected.text.strip()


def test_one_of_several_languages(client, transcriber):
    probabilities = transcriber.detect_language(SHORT)
    likeliest = next(iter(probabilities))
    second = next(code for code in probabilities if code != likeliest)
    answer = ask(client, response_format="verbose_json", language="", languages=[second, list(probabilities)[-1]])
    assert answer.text == transcriber.transcribe(SHORT, "", DecodingOptions(language=second)).text.strip()


@pytest.mark.parametrize("chunking", [None, "auto"])
def test_streams_are_the_text_window_by_window(server, client, chunking):
    fields = {"include": ["logprobs"], **ONE_TRY, **({"chunking_strategy": chunking} if chunking else {})}
    whole = ask(client, LONG, **fields)
    events = list(ask(client, LONG, stream=True, **fields))
    *deltas, done = events
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) >= 2
    assert "".join(event.delta for event in deltas) == done.text
    assert done.text == whole.text
    assert done.usage.type == "tokens"
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    assert len(done.segments) > 2
    assert [one.token for event in deltas for one in event.logprobs] == [one.token for one in whole.logprobs]
    with httpx.stream(
        "POST",
        f"{server.url}/v1/audio/transcriptions",
        data={"model": "whisper-1", "stream": "true", "language": "en"},
        files={"file": LONG},
        timeout=60,
    ) as raw:
        lines = [line for line in raw.iter_lines() if line]
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert all(line.startswith(("data: ", ": ")) for line in lines), "no event names, which the client does not survive"
    assert lines[-1] == "data: [DONE]"
    assert ": 75.0/75.0" in lines


@given(windows=st.lists(st.lists(st.text(" \nab", max_size=4), max_size=3), max_size=5))
def test_joined_deltas_are_the_text_whatever_spaces_it_has(windows):
    deltas, joined = Deltas(with_logprobs=False), ""
    for texts in windows:
        for text in texts:
            deltas.add(SimpleNamespace(text=text))
        event = deltas.window()
        assert event is None or event["delta"].strip()
        joined += event["delta"] if event else ""
    assert joined == "".join(text for texts in windows for text in texts).strip()


def test_a_slow_stream_tells_how_far_it_is(server, gate, monkeypatch):
    monkeypatch.setattr("cwjax.serving.streams.HEARTBEAT", 0.05)
    with httpx.stream(
        "POST",
        f"{server.url}/v1/audio/transcriptions",
        data={"model": "whisper-1", "stream": "true", "language": "en"},
        files={"file": SHORT},
        timeout=60,
    ) as raw:
        chunks = raw.iter_raw()
        assert [next(chunks) for _ in range(3)][-1].startswith(b": ")
        gate.open()
        assert b"[DONE]" in b"".join(chunks)


def test_what_fails_on_the_way(server, client, transcriber, monkeypatch):
    def fail(jobs):
        raise ValueError("the device burns")

    monkeypatch.setattr(transcriber.engine, "run", fail)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client_of(server, max_retries=2))
    assert "burns" not in str(caught.value), "what went wrong is for the log"
    assert caught.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, stream=True))
    assert caught.value.code == "internal_error"


def test_keys(transcriber):
    with running(served(transcriber), access=Access("Sesame")) as server:
        assert ask(client_of(server, api_key="Sesame")).text
        for key in ("sesame", "Sesam", "Sesame2", "Ünicode"):
            answer = post(server, headers={"authorization": f"Bearer {key}".encode()})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert post(server).status_code == 401
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert metric(server, "cwjax_requests_active", authorization="Bearer Sesame") == 0
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/health", headers={"host": "evil.example"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:80"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "192.168.1.7"}, 200),
        ({"host": "cwjax"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://good.example"}, 200),
    ],
)
def test_pages_of_other_sites(transcriber, headers, status):
    with running(served(transcriber), access=Access(origins=["https://good.example/"])) as server:
        answer = httpx.get(f"{server.url}/v1/models", headers=headers)
        assert answer.status_code == status
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == ("https://good.example" if headers.get("origin") and status == 200 else None)
        before = httpx.options(f"{server.url}/v1/audio/transcriptions", headers=headers)
        assert (before.status_code == 200) == (allowed is not None)


def raw(server: Running, *parts: bytes, **how) -> bytes:
    return bench.say(server.place, *parts, **how)


def request_head(server: Running, length: int) -> bytes:
    return bench.request_head(server.place[1], length)


def test_limits_hold_before_the_body_is_read(transcriber):
    limits = Limits(upload_mb=1, minutes=0.5, grace=1.0)
    with running(served(transcriber), limits) as server:
        assert b" 413 " in raw(server, request_head(server, 50 << 20)), "no byte of the body has been sent"
        big = post(server, audio=SHORT + bytes(3 << 20))
        assert big.json()["error"]["code"] == "file_too_large"
        client = client_of(server)
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, SHORT + bytes(3 << 20))
        assert caught.value.status_code == 413

        def endless():
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            yield from [bytes(1 << 16)] * 100

        kind = {"content-type": "multipart/form-data; boundary=b"}
        with contextlib.suppress(httpx.TransportError):
            unsized = httpx.post(f"{server.url}/v1/audio/transcriptions", content=endless(), headers=kind)
            assert unsized.status_code == 413
        assert ask(client, spoken(25)).text
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, spoken(31))
        assert "too long" in str(caught.value)
        many = post(server, {"keywords[]": ["name"] * 6000})
        assert many.json()["error"]["code"] == "form_too_large"
        assert post(server, {"context": "x" * (2 << 20)}).status_code == 413
        wait_for(lambda: metric(server, "cwjax_requests_active") == 0)


def test_slow_bodies(transcriber, monkeypatch):
    monkeypatch.setattr(uploads, "PATIENCE", 0.5)
    with running(served(transcriber)) as server:
        began = time.monotonic()
        answer = raw(server, request_head(server, 5000), b"--b\r\n", *[b"X"] * 30, pause=0.05)
        assert b" 408 " in answer
        assert b"too slowly" in answer
        assert time.monotonic() - began < 8


def test_a_full_queue(transcriber, gate):
    limits = Limits(batch_size=1, queue=1, grace=1.0)
    with running(served(transcriber), limits) as server, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(post, server) for _ in range(3)]
        wait_for(lambda: metric(server, "cwjax_requests_active") == 3)
        refused = post(server)
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert httpx.get(f"{server.url}/health").status_code == 200
        patient = pool.submit(ask, client_of(server, max_retries=5))
        gate.open()
        assert {one.result().status_code for one in waiting} == {200}
        assert patient.result().text == waiting[0].result().json()["text"], "the client tries again by itself"
        assert metric(server, 'cwjax_requests_total{outcome="refused"}') >= 1
        assert metric(server, "cwjax_queue_seconds_count") == 4
        assert metric(server, "cwjax_batch_windows_sum") >= 4
        assert metric(server, "cwjax_audio_seconds_total") == 4 * SECONDS


def test_six_at_once_are_each_as_alone(transcriber, monkeypatch):
    recordings = [spoken(6 + 5 * number, seed=number) for number in range(6)]
    asked = [
        {
            "audio": audio,
            "prompt": CONTEXTS[number % 4],
            **ONE_TRY,
            **({"chunking_strategy": "auto"} if number % 3 == 2 else {}),
            **({"response_format": "verbose_json"} if number % 2 else {}),
        }
        for number, audio in enumerate(recordings)
    ]
    with running(served(transcriber), Limits(batch_size=4, grace=1.0)) as server, ThreadPoolExecutor(6) as pool:
        client = client_of(server)
        alone = [ask(client, **one) for one in asked]
        sizes = []
        monkeypatch.setattr(transcriber.engine, "on_batch", sizes.append)
        together = list(pool.map(lambda one: ask(client, **one), asked))
    assert [one.text for one in together] == [one.text for one in alone]
    assert len({one.text for one in alone}) > 4
    for one, other in zip(together[1::2], alone[1::2], strict=True):
        assert [segment.tokens for segment in one.segments] == [segment.tokens for segment in other.segments]
    assert max(sizes) > 1, "some windows shared a batch"


def test_what_else_the_engine_does_takes_turns(transcriber, gate):
    """Explanations are made a window at a time, between batches of others."""
    ends, order = [], []

    def steps():
        for step in range(3):
            order.append(len(gate.batches))
            yield step
        return "done"

    errand = Errand(steps(), ends.append)
    transcriber.start(Request(LONG, options=DecodingOptions(language="en", temperature=0)), lambda event: None)
    wait_for(lambda: len(gate.batches) == 1)
    transcriber.engine.add(errand)
    gate.open()
    wait_for(lambda: ends == ["done"])
    assert order == sorted(set(order)), "no two steps without a batch between them"
    wait_for(lambda: transcriber.engine._thread is None)

    def failing():
        raise ValueError("no")
        yield

    transcriber.engine.add(Errand(failing(), ends.append))
    wait_for(lambda: len(ends) == 2)
    assert isinstance(ends[1], ValueError)


@pytest.mark.parametrize("chunking", [None, "auto"])
def test_a_dictation_does_not_wait_for_a_long_recording(transcriber, gate, monkeypatch, chunking):
    monkeypatch.setattr(queue, "SHORT_MINUTES", 0.5)
    monkeypatch.setattr("cwjax.serving.audio.SHORT_MINUTES", 0.5)
    fields = ONE_TRY | ({"chunking_strategy": chunking} if chunking else {})
    limits = Limits(batch_size=2, grace=1.0)
    with running(served(transcriber), limits) as server, ThreadPoolExecutor(2) as pool:
        client = client_of(server)
        long = pool.submit(ask, client, spoken(100), **fields)
        wait_for(lambda: len(gate.batches) == 1)
        dictation = pool.submit(ask, client, **ONE_TRY)
        wait_for(lambda: metric(server, "cwjax_queue_seconds_count") and metric(server, "cwjax_requests_active") == 2)
        time.sleep(0.5)  # for it to reach the engine
        at_work = len(gate.batches)
        gate.open(1)
        wait_for(lambda: len(gate.batches) > at_work)
        assert SECONDS in [job.recording.duration for job in gate.batches[at_work]], "its own after that at work"
        assert not long.done()
        gate.open()
        assert dictation.result().text
        assert long.result().text


def file_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what is open in /proc")
@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_ends_the_work_at_the_next_window(server, transcriber, gate, stream):
    cancelled = metric(server, "cwjax_requests_cancelled_total")
    fields = {"model": "whisper-1", "language": "en", "stream": str(stream).lower(), "include[]": "without_context"}
    before = file_descriptors()
    sent = httpx.Client().build_request(
        "POST", f"{server.url}/v1/audio/transcriptions", data=fields, files={"file": spoken(200) + bytes(2 << 20)}
    )
    head = request_head(server, int(sent.headers["content-length"])).replace(
        b"multipart/form-data; boundary=b", sent.headers["content-type"].encode()
    )
    with socket.create_connection(server.place) as connection:
        connection.sendall(head + sent.read())
        wait_for(lambda: len(gate.batches) == 1)
        recording = weakref.ref(gate.batches[0][0].recording)
    wait_for(lambda: metric(server, "cwjax_requests_cancelled_total") == cancelled + 1)
    gate.open()
    wait_for(lambda: transcriber.engine._thread is None)
    assert len(gate.batches) == 1, "no window after the one at work"
    assert metric(server, "cwjax_requests_active") == 0
    gate.batches.clear()
    gc.collect()
    assert recording() is None, "nothing keeps the recording"
    wait_for(lambda: file_descriptors() <= before)


def test_hanging_up_during_the_upload(server):
    before = metric(server, "cwjax_requests_cancelled_total")
    with socket.create_connection(server.place) as connection:
        connection.sendall(request_head(server, 5000) + b"--b\r\n")
    wait_for(lambda: metric(server, "cwjax_requests_cancelled_total") == before + 1)
    assert metric(server, "cwjax_requests_active") == 0


def test_a_graceful_end(transcriber, gate):
    with running(served(transcriber), Limits(grace=0.3)) as server, ThreadPoolExecutor(4) as pool:
        plain = pool.submit(post, server)
        cut = pool.submit(lambda: list(ask(client_of(server), LONG, stream=True)))
        wait_for(lambda: metric(server, "cwjax_requests_active") == 2 and gate.batches)
        server.server.stop()
        with pytest.raises(openai.APIError) as caught:
            cut.result(30)
        assert caught.value.code == "stopping"
        with pytest.raises(httpx.TransportError):
            post(server)
        assert not plain.done()
        gate.open()
        assert plain.result(30).status_code == 200
        server.thread.join(30)
        assert not server.thread.is_alive()


def compiled(transcriber: Transcriber) -> list[int]:
    programs = transcriber.programs
    return [one._cache_size() for one in (programs._decode, programs._align, programs._encode, programs._language)]


def test_warming_up(folder, monkeypatch):
    """First for a request alone, then, step by step and never beside a request, for the rest."""
    transcriber = tone_model(folder / "cold")
    first, go_on, steps = threading.Event(), threading.Event(), []
    original, others = WarmUp.first, WarmUp.others

    def slowly(self):
        first.wait()
        original(self)

    def counted(self):
        go_on.wait()
        for step in others(self):
            steps.append(compiled(transcriber))
            yield step

    monkeypatch.setattr(WarmUp, "first", slowly)
    monkeypatch.setattr(WarmUp, "others", counted)
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word", "context": "a talk"}
    with running(served(transcriber), Limits(batch_size=2), warm=True) as server:
        answer = httpx.get(f"{server.url}/health")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert post(server).json()["error"]["code"] == "warming_up"
        first.set()
        wait_for(lambda: httpx.get(f"{server.url}/health").status_code == 200)
        assert not server.server.warmed.is_set()
        ready = compiled(transcriber)
        with contextlib.closing(socket.create_connection(server.place)) as uploading:
            head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            uploading.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
            wait_for(lambda: metric(server, "cwjax_requests_active") == 1)
            go_on.set()
            assert post(server, fields).status_code == 200
            assert not server.server.warmed.wait(2)
            assert len(steps) <= 1, "a request waits for one step at most"
            assert compiled(transcriber)[1:] == ready[1:]
        assert server.server.warmed.wait(60)
        warm = compiled(transcriber)
        assert warm[0] > ready[0]
        for more in ({}, {"language": ""}, {"include[]": ["without_context", "context_words"]}):
            assert post(server, fields | more).status_code == 200
        assert compiled(transcriber) == warm


def test_the_first_request_finds_its_programs(folder, monkeypatch):
    transcriber = tone_model(folder / "cold too")
    monkeypatch.setattr(WarmUp, "others", lambda self: iter(()))
    monkeypatch.setattr("cwjax.inference.engine.needs_another_try", lambda *given: False)
    with running(served(transcriber), warm=True) as server:
        wait_for(lambda: httpx.get(f"{server.url}/health").status_code == 200)
        ready = compiled(transcriber)
        assert min(ready) >= 1
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word", "language": ""}
        for audio in (SHORT, LONG):
            assert post(server, fields | {"context": "a talk"}, audio).status_code == 200
        assert compiled(transcriber) == ready


def test_no_request_waits_for_the_warm_up(transcriber, monkeypatch):
    began, go_on = threading.Event(), threading.Event()

    def slowly(self):
        began.set()
        go_on.wait()
        yield

    monkeypatch.setattr(WarmUp, "first", lambda self: None)
    monkeypatch.setattr(WarmUp, "others", slowly)
    with running(served(transcriber), warm=True) as server:
        try:
            began.wait()
            assert post(server).status_code == 200
        finally:
            go_on.set()


def test_a_failed_warm_up_is_no_end(transcriber, monkeypatch, caplog):
    def failing(self):
        raise ValueError("no")
        yield

    monkeypatch.setattr(WarmUp, "others", failing)
    with running(served(transcriber), Limits(batch_size=1), warm=True) as server:
        assert server.server.warmed.wait(60)
        wait_for(lambda: httpx.get(f"{server.url}/health").status_code == 200)
        assert post(server).status_code == 200
    assert "warming up failed" in caplog.text


def test_hundreds_of_bad_requests(server, client, caplog):
    expected, before = ask(client).text, file_descriptors()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: raw(server, one, wait=0.3), bench.bad_requests(server.place[1], 420)))
    statuses = {answer[9:12] for answer in answers if answer}
    assert statuses <= {b"400", b"403", b"404", b"405", b"408", b"413", b"100"}, statuses
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"application/json" in head and body:
            assert json.loads(body)["error"]["message"]
    assert not [record for record in caplog.records if record.exc_info], "no traceback"
    wait_for(lambda: metric(server, "cwjax_requests_active") == 0)
    assert ask(client).text == expected
    wait_for(lambda: file_descriptors() <= before + 2)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_command_ends_by_a_signal_when_it_has_answered(folder, transcriber):
    process = subprocess.Popen(
        [sys.executable, CHILD, "serve", "--model", folder / "model", "--port", "0", "--no-warm-up"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHILD.parents[1])},
    )
    hung = end_when_hung(process)
    try:
        address = next(match[1] for line in process.stderr if (match := re.search(r"(http://\S+)", line)))
        server = Running(address, None, None)
        wait_for(lambda: _is_healthy(address))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(post, server)
            wait_for(lambda: metric(server, "cwjax_requests_active") == 1)
            process.terminate()
            assert answer.result().json()["text"] == directly(transcriber).text.strip()
        _, said = process.communicate()
        assert process.returncode == 0
        assert "Traceback" not in said
    finally:
        hung.cancel()
        process.kill()


def _is_healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines ask"),
        (["--host", "0.0.0.0", "--api-key-file", "missing"], "cannot be read as the API key"),
        (["--host", "0.0.0.0", "--api-key-file", "empty"], "holds no API key"),
        (["--port", "99999"], "--port is 99999: it must be 0 to 65535"),
        (["--host", "no.such.host.invalid", "--open"], "cannot listen at"),
        (["--batch-size", "0"], "--batch-size is 0: it must be at least 1"),
        (["--max-minutes", "nan"], "--max-minutes is nan"),
    ],
)
def test_commands_that_cannot_be(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(serve.KEY_VARIABLE, raising=False)
    (tmp_path / "empty").write_text("\n")
    assert main(["serve", "--model", "none", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cwjax: error: ")
    assert reason in line


def test_a_port_that_is_taken(server, capsys):
    assert main(["serve", "--model", "none", "--port", str(server.place[1])]) == 1
    assert "choose another by --port" in capsys.readouterr().err


def test_without_the_extra(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "starlette" else object())
    assert main(["serve", "--model", "none"]) == 1
    assert "pip install 'cwjax[serve]'" in capsys.readouterr().err


def test_errors_have_all_keys_of_openais():
    body = ApiError(400, "no", "code", "param").body
    assert body == {"error": {"message": "no", "type": "invalid_request_error", "param": "param", "code": "code"}}


def test_long_recordings_find_their_place(server, client, transcriber, monkeypatch):
    monkeypatch.setattr("cwjax.serving.audio.SHORT_MINUTES", 0.2)
    assert ask(client, spoken(20)).text == directly(transcriber, spoken(20)).text.strip()


def test_what_is_not_started_is_not_kept(transcriber):
    """Whoever begins a request that cannot be leaves nothing behind on the engine."""
    options = replace(DecodingOptions(), language="en", phrases=("Ada",))
    with pytest.raises(CwjaxError, match="no phrase spotter"):
        transcriber.start(Request(SHORT, "", options), print)
    assert not transcriber.engine._works
