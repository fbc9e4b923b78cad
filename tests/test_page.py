"""The page in a real browser, with a tiny model behind it."""

# ruff: noqa: E402 - what may not be installed is imported after the look whether it is

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

for package in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package, reason=f"the page's tests need {package}: pip install 'cwjax[test]'")
from browsing import is_dark, launched, sticks_out, view_of
from playwright.sync_api import Page, expect
from served import let_spot, running, served, spoken, tone_model, wav

from cwjax.evaluation.explanation_page import explanation_page
from cwjax.inference.writers import FORMATS, SubtitleLayout
from cwjax.pages import audio_uri
from cwjax.serving import runs
from cwjax.serving.app import Access

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONTEXT, OTHER = "the wind in the sail", "price market"
SOUND = spoken(20, seed=6)
PATIENCE = 120_000
"""Milliseconds; programs are compiled meanwhile."""


@pytest.fixture(scope="module")
def transcriber(tmp_path_factory):
    return tone_model(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def server(transcriber):
    with running(served(transcriber)) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    microphone = tmp_path_factory.mktemp("microphone") / "tones.wav"
    microphone.write_bytes(SOUND)
    with launched(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--autoplay-policy=no-user-gesture-required",
    ) as browser:
        yield browser


class Watched:
    """A page, what it asked for, and what it complained of."""

    def __init__(self, page: Page, server):
        self.page, self.requests, self.complaints = page, [], []
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.requests.append(request))
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(server.url)

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and "status of 4" not in text:
            self.complaints.append(text)

    def choose(self, content: bytes = SOUND, name: str = "talk.wav") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": "audio/wav", "buffer": content})

    def transcribe(self, context: str) -> None:
        self.page.fill("#context", context)
        self.page.fill("#language", "en")
        self.page.click("#go")
        expect(self.page.locator("#status")).to_have_text(re.compile("done|failed"), timeout=PATIENCE)

    def words(self, side: str) -> list[str]:
        return self.page.locator(f"#{side} .word").all_text_contents()

    def posted(self) -> list:
        return [one for one in self.requests if one.method == "POST"]


@pytest.fixture
def watched(browser, server):
    context = browser.new_context(permissions=["microphone"], accept_downloads=True)
    watched = Watched(context.new_page(), server)
    yield watched
    assert not watched.complaints
    assert {re.match(r"blob:|data:|" + re.escape(server.url), one.url) is not None for one in watched.requests} == {
        True
    }
    context.close()


def expected_words(transcriber, context: str) -> list[str]:
    found = transcriber.transcribe(SOUND, context, language="en", word_timestamps=True)
    return [word.text.strip() for word in shown_words(found)]


def shown_words(transcript) -> list:
    """Its words, and segments that have none as a whole."""
    return [one for segment in transcript.segments for one in segment.words or [segment] if one.text.strip()]


def test_a_file_is_transcribed_without_and_with_context(watched, transcriber):
    page = watched.page
    expect(page.locator("#go")).to_be_disabled()
    watched.choose()
    watched.transcribe(CONTEXT)
    expect(page.locator("#status")).to_have_text("done")
    mine, plain = expected_words(transcriber, CONTEXT), expected_words(transcriber, "")
    assert watched.words("with") == mine
    assert watched.words("without") == plain
    assert mine != plain
    changed = page.locator("#with .word.changed").all_text_contents()
    kept = [word for word in watched.words("with") if word not in changed]
    assert changed or len(mine) < len(plain)
    assert set(kept) <= set(plain)
    assert page.locator("#changes li").count() >= 1
    assert page.locator("#used .used").all_text_contents() == CONTEXT.split()
    shares = page.locator("#used .used").evaluate_all(
        "all => all.map(one => Number(one.style.getPropertyValue('--share')))"
    )
    assert max(shares) == 1
    assert min(shares) > 0
    tint = page.locator("#used .used").first.evaluate("one => getComputedStyle(one).backgroundColor")
    assert tint not in ("rgba(0, 0, 0, 0)", "transparent"), "the tint is allowed by the page's own policy"
    assert page.locator("#shares tr").last.text_content().startswith("all else")
    page.locator("#with .word").nth(1).hover()
    assert page.locator("#strongest").text_content().startswith(f"While “{mine[1]}” was said")


def test_words_play(watched):
    page = watched.page
    watched.choose()
    watched.transcribe(CONTEXT)
    word = page.locator("#with .word").nth(2)
    start = float(word.get_attribute("data-start"))
    assert start > 1
    word.click()
    page.wait_for_function(f"() => Math.abs(document.querySelector('audio').currentTime - {start}) < 0.5")
    expect(word).to_have_attribute("aria-current", "true")
    page.evaluate("document.querySelector('audio').pause()")


def test_an_edited_context_needs_no_new_file(watched, transcriber):
    watched.choose()
    watched.transcribe(CONTEXT)
    first = watched.words("with")
    watched.transcribe(OTHER)
    expect(watched.page.locator("#status")).to_have_text("done")
    assert watched.words("with") == expected_words(transcriber, OTHER) != first
    assert len(watched.posted()) == 2
    watched.page.click("#examples button >> nth=0")
    assert watched.page.input_value("#context").startswith("A yacht race")


def test_saved_files_are_those_of_the_command(watched, transcriber):
    watched.choose()
    watched.transcribe(CONTEXT)
    page = watched.page
    saved = {}
    for name in ("srt", "vtt", "json", "txt"):
        with page.expect_download() as download:
            page.click(f".save[data-format={name}]")
        assert download.value.suggested_filename == f"talk.{name}"
        saved[name] = Path(download.value.path()).read_text(encoding="utf-8")
    content = json.loads(saved["json"])
    assert [one["word"] for one in content["words"]] == watched.words("with")
    found = transcriber.transcribe(SOUND, CONTEXT, language="en", word_timestamps=True)
    whole = replace(found, segments=tuple(replace(one, words=None) for one in found.segments if one.text.strip()))
    for name in ("srt", "vtt", "txt"):
        assert saved[name] == FORMATS[name](whole, SubtitleLayout())


def test_phrases_stand_where_they_were_heard(watched, transcriber, monkeypatch):
    let_spot(transcriber, monkeypatch)
    watched.choose()
    watched.page.fill("#phrases", "Ada, honey")
    watched.transcribe(CONTEXT)
    expect(watched.page.locator("#status")).to_have_text("done")
    heard = [row.locator("td").all_text_contents() for row in watched.page.locator("#heard tr").all()[1:]]
    assert {row[1] for row in heard} == {"Ada", "honey"}
    assert {row[2] for row in heard} == {"50 %"}
    expect(watched.page.locator("#headline")).to_contain_text("The context and phrases change")
    watched.page.locator("#heard .word").first.click()
    start = float(watched.page.locator("#heard .word").first.get_attribute("data-start"))
    watched.page.wait_for_function(f"() => Math.abs(document.querySelector('audio').currentTime - {start}) < 1")


@pytest.fixture
def heard(monkeypatch):
    """The recordings that the server gets, as files, and what it makes of them."""
    files, results = [], []
    decode, run = runs._decode, runs.Runs.run

    def keep(file, *given):
        files.append(file.read())
        file.seek(0)
        return decode(file, *given)

    async def note(*given):
        results.append(await run(*given))
        return results[-1]

    monkeypatch.setattr(runs, "_decode", keep)
    monkeypatch.setattr(runs.Runs, "run", note)
    return files, results


def test_the_page_of_an_explanation_shows_the_same(watched, heard, browser, tmp_path):
    page = watched.page
    watched.choose()
    watched.transcribe(CONTEXT)
    page.locator("#rows").scroll_into_view_if_needed()
    expect(page.locator(".row .wave path").first).to_be_attached(timeout=PATIENCE)
    _, (result,) = heard
    samples = samples_of(SOUND) / np.float32(32768)
    path = tmp_path / "talk.html"
    text = explanation_page(
        "talk.wav", audio_uri(samples), samples, result.transcript, result.without, result.explanation
    )
    path.write_text(text, encoding="utf-8")
    context = browser.new_context()
    other = context.new_page()
    other.goto(path.as_uri())
    ours, theirs = view_of(page), view_of(other)
    assert ours.pop("rows") == [row.replace("layer by layer", "") for row in theirs.pop("rows")]
    assert ours == theirs
    assert len(ours["maps"]) == 2
    assert ours["marked"]
    waves = [
        np.array([float(number) for number in re.findall(r"[\d.]+", one.get_attribute("d"))])
        for one in (page.locator(".wave path").first, other.locator(".wave path").first)
    ]
    np.testing.assert_allclose(*waves, atol=1)
    context.close()


def samples_of(content: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(content), dtype="int16")[0]


def record(watched, more: int = 0) -> list[str]:
    """Records until words are shown, and some milliseconds more; gives those words."""
    page = watched.page
    page.fill("#language", "en")
    page.click("#record")
    expect(page.locator("#status")).to_have_text("recording")
    expect(page.locator("#record")).to_have_attribute("aria-pressed", "true")
    page.fill("#context", "what is typed meanwhile is for later")
    expect(page.locator("#with .word, #error:not([hidden])")).not_to_have_count(0, timeout=PATIENCE)
    early = watched.words("with")
    page.wait_for_timeout(more)
    expect(page.locator("#status")).to_have_text("recording")
    page.click("#record")
    expect(page.locator("#status")).to_have_text(re.compile("done|failed"), timeout=PATIENCE)
    expect(page.locator("#record")).to_have_attribute("aria-pressed", "false")
    return early


def test_what_a_microphone_hears_is_transcribed_while_it_goes_on(watched, heard):
    files, results = heard
    page = watched.page
    page.fill("#context", CONTEXT)
    page.fill("#phrases", "Ada, honey")
    early = record(watched, 8000)
    expect(page.locator("#status")).to_have_text("done")
    shown = watched.words("with")
    starts = page.locator("#with .word").evaluate_all("all => all.map(one => Number(one.dataset.start))")
    pieces = list(files)
    assert len(pieces) >= 3
    expected, began = [], 0.0
    for piece, result in zip(pieces, results, strict=True):
        expected += [(word.text.strip(), began + word.start) for word in shown_words(result.transcript)]
        began += len(samples_of(piece)) / 16_000
    assert shown == [word for word, _ in expected]
    np.testing.assert_allclose(starts, [start for _, start in expected], atol=0.01)
    assert early == shown[: len(early)]
    assert len(early) < len(shown)
    with page.expect_download() as download:
        page.click(".save[data-format=json]")
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [segment["id"] for segment in saved["segments"]] == list(range(len(saved["segments"])))
    assert saved["text"].split() == "".join(segment["text"] for segment in saved["segments"]).split()
    windows = saved["context_words"]["windows"]
    ends = [one["start"] + len(one["others"]) * saved["context_words"]["column_seconds"] for one in windows]
    assert all(end <= one["start"] + 0.1 for end, one in zip(ends, windows[1:], strict=False)), "none is counted twice"

    watched.transcribe(CONTEXT)
    expect(page.locator("#status")).to_have_text("done")
    assert len(files) == len(pieces) + 1
    whole = samples_of(files[-1])
    np.testing.assert_array_equal(np.concatenate([*map(samples_of, pieces)]), whole, "nothing is lost or doubled")
    for cut in np.cumsum([len(samples_of(piece)) for piece in pieces])[:-1]:
        assert np.abs(whole[cut - 1600 : cut + 1600]).max() < 1000, "cut in pauses"
    assert {one.asked.context for one in results} == {f"{CONTEXT}\nnames: Ada, honey"}
    assert watched.words("with") == [word.text.strip() for word in shown_words(results[-1].transcript)]


def test_a_recording_survives_what_goes_wrong_meanwhile(watched):
    page = watched.page
    asked = []
    error = json.dumps({"error": {"message": "broken", "type": "server_error", "param": None, "code": None}})

    def refuse(route):
        asked.append(route.request)
        route.fulfill(status=500, content_type="application/json", body=error)

    page.route("**/v1/audio/transcriptions", refuse)
    record(watched, 4000)
    expect(page.locator("#status")).to_have_text("failed")
    expect(page.locator("#error")).to_have_text("broken")
    assert len(asked) == 1
    page.unroute("**/v1/audio/transcriptions")
    watched.complaints.clear()
    watched.transcribe("")
    expect(page.locator("#status")).to_have_text("done")
    assert watched.words("with"), "the tones were heard"


@pytest.mark.parametrize("sound", ["0", "Math.random() - 0.5", "Math.sin(i / 9) * (1.1 + Math.sin(i / 50000))"])
def test_what_has_no_pauses_is_cut_all_the_same(watched, sound):
    pieces = watched.page.evaluate(
        f"""async () => {{
            const {{ Pauses, BLOCK }} = await import("/static/pauses.js");
            const pauses = new Pauses();
            const cuts = [];
            for (let i = 0; i < 16000 * 100; i += BLOCK) {{
                cuts.push(pauses.add(Float32Array.from({{ length: BLOCK }}, (_, j) => ((i) => {sound})(i + j))));
            }}
            return [cuts.filter(Boolean), pauses.levels.length, cuts.length];
        }}"""
    )
    cuts, left, blocks = pieces
    assert sum(cuts) + left == blocks
    assert max(*cuts, left) * 128 / 16_000 <= 25
    assert min(cuts) * 128 / 16_000 > 2


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [([" Hello there.", "", " And on."], "Hello there. And on."), (["你好", "，世界", ""], "你好，世界")],
)
def test_pieces_are_joined_as_their_language_is_written(watched, pieces, whole):
    joined = watched.page.evaluate(
        """async (pieces) => {
            const { Live } = await import("/static/live.js");
            const answer = (text) => ({
                type: "transcript.text.done", text: text.trim(), words: [], usage: {},
                segments: text ? [{ text, start: 0, end: 1, seek: 0 }] : [],
                without_context: { text: text.trim(), words: [] }, context_words: { words: [], windows: [] },
            });
            const left = pieces.map((text) => `data: ${JSON.stringify(answer(text))}\n\n`);
            window.fetch = async () => new Response(left.shift());
            let told;
            const live = new Live([], "", new AbortController().signal, (one) => (told = one));
            for (const place of pieces.keys()) await live.add(new File([], "piece.wav"), 10 * place);
            return [told.text, told.without_context.text];
        }""",
        pieces,
    )
    assert joined == [whole, whole]


def test_files_that_only_the_browser_can_read(watched, server):
    """The server refuses the first, which the browser then sends as WAV."""
    page = watched.page
    refused = []

    def refuse_once(route):
        if not refused:
            refused.append(route.request)
            error = {"message": "cannot be read", "type": "invalid_request_error", "param": "file"}
            body = json.dumps({"error": {**error, "code": "unreadable_audio"}})
            route.fulfill(status=400, content_type="application/json", body=body)
        else:
            route.continue_()

    page.route("**/v1/audio/transcriptions", refuse_once)
    buffer = io.BytesIO()
    samples, rate = soundfile.read(io.BytesIO(SOUND), dtype="float32")
    soundfile.write(buffer, np.stack([samples, samples], 1), rate, format="OGG")
    watched.choose(buffer.getvalue(), "talk.ogg")
    watched.transcribe(CONTEXT)
    expect(page.locator("#status")).to_have_text("done")
    assert refused
    assert len(watched.posted()) == 2
    assert watched.words("with")


def test_what_is_no_sound(watched):
    watched.choose(b"no sound at all", "text.txt")
    watched.transcribe(CONTEXT)
    expect(watched.page.locator("#status")).to_have_text("failed")
    expect(watched.page.locator("#error")).to_contain_text("cannot be read as audio")
    watched.choose()
    expect(watched.page.locator("#error")).to_be_hidden()
    watched.choose(wav(np.zeros(32_000)))
    watched.transcribe(CONTEXT)
    expect(watched.page.locator("#with")).to_have_text("Nothing was heard.")


def test_dropping_a_file(watched):
    page = watched.page
    data = page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.wav", { type: "audio/wav" }));
            return data;
        }""",
        list(SOUND[:50_000]),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(page.locator("#chosen")).to_contain_text("dropped.wav")


def test_the_keyboard_alone(watched, transcriber):
    page = watched.page
    watched.choose()
    page.focus("#context")
    page.keyboard.type(CONTEXT)
    page.fill("#language", "en")
    page.focus("#context")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_have_text("done", timeout=PATIENCE)
    page.locator("#with .word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == expected_words(transcriber, CONTEXT)[2]
    assert page.locator("#with .word[tabindex='0']").count() == 1, "one stop for the tabulator"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.textContent") == expected_words(transcriber, CONTEXT)[-1]


def test_everything_has_a_name_for_screen_readers(watched):
    watched.choose()
    watched.transcribe(CONTEXT)
    nameless = watched.page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, button, audio, progress, meter, section")]
            .filter(one => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label")
                || one.getAttribute("aria-labelledby")))
            .map(one => one.outerHTML)"""
    )
    assert not nameless
    assert watched.page.locator("h1").count() == 1
    assert watched.page.get_attribute("html", "lang") == "en"
    assert watched.page.get_by_role("status").get_attribute("id") == "status"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones_and_darkness(browser, server, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    watched = Watched(context.new_page(), server)
    watched.choose()
    watched.transcribe(CONTEXT)
    page = watched.page
    assert not sticks_out(page)
    assert is_dark(page) == (scheme == "dark")
    beside = page.evaluate("find => document.querySelector(find).getBoundingClientRect().top", "#with")
    assert beside > page.evaluate("find => document.querySelector(find).getBoundingClientRect().bottom", "#without")
    context.close()


def test_a_key_is_asked_for(browser, transcriber):
    with running(served(transcriber), access=Access("Sesame")) as server:
        context = browser.new_context()
        watched = Watched(context.new_page(), server)
        expect(watched.page.locator("#error")).to_contain_text("API key")
        watched.page.fill("#key", "Sesame")
        watched.choose()
        watched.transcribe(CONTEXT)
        expect(watched.page.locator("#status")).to_have_text("done")
        context.close()


def test_stopping(browser, server, transcriber, monkeypatch):
    import threading

    go_on = threading.Event()
    run = transcriber.engine.run
    monkeypatch.setattr(transcriber.engine, "run", lambda jobs: go_on.wait() and run(jobs))
    context = browser.new_context()
    watched = Watched(context.new_page(), server)
    watched.choose()
    watched.page.click("#go")
    watched.page.click("#cancel")
    expect(watched.page.locator("#status")).to_have_text("stopped")
    go_on.set()
    context.close()


def test_nothing_from_elsewhere_may_run(server):
    import httpx

    answer = httpx.get(server.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", answer.text)
    assert not re.search(r"<[^>]+\son\w+=|<[^>]+\sstyle=|<script>", answer.text), "what the policy forbids"
    assert httpx.get(f"{server.url}/static/page.js").headers["content-type"].startswith("text/javascript")
    assert httpx.get(f"{server.url}/static/..%2f..%2fapp.py").status_code == 404
