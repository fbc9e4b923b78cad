"""The view of a transcript in a real browser, in the page of an explanation; `test_page` has that of the server."""

import difflib
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import is_dark, launched, sticks_out
from playwright.sync_api import Browser, Page, expect
from test_explain import CONTEXT, WITH, WITHOUT, explanation, page_of
from test_writers import speech

from cwjax.evaluation.explanation import ExplainedWindow, Explanation, explain_window
from cwjax.evaluation.explanation_page import explanation_page
from cwjax.inference.transcript import Segment, Transcript, Word
from cwjax.inference.writers import FORMATS, SubtitleLayout
from cwjax.pages import audio_uri

SILENT = Transcript("", (), "en")
NOTHING = Explanation("", (), (), ())


@pytest.fixture(scope="module")
def browser():
    with launched("--autoplay-policy=no-user-gesture-required") as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, tmp_path: Path):
    """Opens the text of a page as a file; what it asks for besides itself and complains of is an error."""
    contexts, complaints = [], []

    def open_page(text: str, **look) -> Page:
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_text(text, encoding="utf-8")
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **look}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if asks_elsewhere(request.url) else None)
        page.goto(path.as_uri())
        return page

    def asks_elsewhere(url: str) -> bool:
        return not url.startswith(("data:", "blob:", tmp_path.as_uri()))

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def page(opened) -> Page:
    return opened(page_of())


def page_with(transcript: Transcript, without: Transcript, seconds: float = 12.0, told: Explanation = NOTHING) -> str:
    samples = np.resize(np.sin(np.arange(16_000) / 9).astype(np.float32), round(seconds * 16_000))
    return explanation_page("t", "data:,", samples, transcript, without, told)


def said(*words: Word) -> Transcript:
    text = "".join(word.text for word in words)
    segment = Segment(0, 0, 0.0, words[-1].end, text, (), 0.0, 0.0, 1.0, 0.0, words)
    return Transcript(text, (segment,), "en")


def spread(text: str, seconds: float = 10.0) -> list[Word]:
    """The words of a text, evenly."""
    words = text.split(" ")
    each = seconds / len(words)
    return [Word(f" {word}", i * each, (i + 1) * each, 1.0) for i, word in enumerate(words)]


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_text_contents()]


def test_words_stand_where_they_are_said(page):
    rows = page.locator(".row")
    assert rows.evaluate_all("all => all.map((one) => [one.dataset.from, one.dataset.to])") == [
        ["0", "10"],
        ["10", "12"],
    ]
    starts = page.locator(".row .word").evaluate_all("all => all.map((one) => one.dataset.start)")
    assert starts == [f"{word.start:.2f}" for segment in WITH.segments for word in segment.words]
    assert page.locator(".row .place").nth(1).evaluate("one => one.style.left") == "8%", "at 0.8 s"
    left, lane = (page.locator(one).first.bounding_box() for one in (".row .place:nth-child(2)", ".row .lane"))
    assert left["x"] == pytest.approx(lane["x"] + 0.08 * lane["width"], abs=1)


@pytest.mark.parametrize("seconds", [3.0, 10.0])
@pytest.mark.parametrize("width", [400, 1200, 2000])
def test_nothing_overprints_anything_nor_leaves_the_page(opened, seconds, width):
    names = ["Ruttner,", "Ada,", "Lovelace-Byron,", "Bo", "وشكرا", "Friedrich-Wilhelm", "明天我們去參觀博物館"]
    times = [seconds - late for late in (1.5, 1.0, 0.6, 0.4, 0.2, 0.1, 0.01)]
    words = [Word(f" {name}", start, start + 0.1, 1.0) for name, start in zip(names, times, strict=True)]
    other = [replace(word, text=f" {name[::-1]}x") for word, name in zip(words, names, strict=True)]
    page = opened(page_with(said(*words), said(*other), seconds), viewport={"width": width, "height": 900})
    page.locator(".row .wave").scroll_into_view_if_needed()
    boxes = page.locator(".row .said, .row small, .row .wave").evaluate_all(
        """all => all.map((one) => one.getBoundingClientRect())
            .map(({ left, right, top, bottom }) => [left, right, top, bottom])"""
    )
    assert len(boxes) > len(names) + 1, "with what was heard without"
    row, lane = page.locator(".row").bounding_box(), page.locator(".row .lane").first.bounding_box()
    room = max(row["width"], 52 * 16) - 16
    for place, (left, right, top, bottom) in enumerate(boxes):
        assert left >= lane["x"] - 0.5
        assert right <= row["x"] + room + (112 if width < 1000 else 0)
        for others_left, others_right, others_top, others_bottom in boxes[:place]:
            apart = right <= others_left + 0.5 or others_right <= left + 0.5
            assert apart or bottom <= others_top + 3 or others_bottom <= top + 3
    assert not sticks_out(page)


def test_changes_are_told_without_colour(opened, page):
    expect(page.locator("#headline")).to_have_text("The context changes 3 of 12 words that were heard.")
    assert texts(page, "#changes li") == ["00:00 “queen” instead of “clean”", "00:04 “in the” instead of nothing"]
    assert texts(page, "#with .changed") == texts(page, ".row mark") == ["queen", "in", "the"]
    assert texts(page, "#without .changed") == ["clean"]
    assert page.get_attribute("#with .changed >> nth=0", "aria-label") == "queen, differs"
    assert texts(page, ".row small") == ["without: clean", "without: –", "without: –"]
    # What only the transcript without context has is told at the word behind it.
    swapped = opened(page_of(WITHOUT, WITH))
    assert texts(swapped, ".row small") == ["without: queen", "without: in the"]
    assert texts(swapped, "#changes li")[1] == "00:04 nothing instead of “in the”"
    same = opened(page_of(WITH, WITH))
    expect(same.locator("#headline")).to_have_text("The context changes none of the 12 words that were heard.")
    assert same.locator(".changed, mark").count() == 0
    assert texts(same, "#changes") == ["Nothing."]


def test_case_and_punctuation_are_no_changes_and_marks_are(opened):
    page = opened(page_with(said(*spread("In Bath, the किताब")), said(*spread("in bath the कतब"))))
    assert texts(page, "#with .changed") == ["किताब"]


def opacity(page: Page, place: int) -> np.ndarray:
    """Of a map, (words, columns of 0.01 s)."""
    rows, columns, values = (
        page.locator("canvas")
        .nth(place)
        .evaluate(
            """one => [one.height, one.width, Array.from(
            one.getContext("2d").getImageData(0, 0, one.width, one.height).data.filter((_, at) => at % 4 === 3))]"""
        )
    )
    return np.reshape(values, (rows, columns)) / 255


def test_maps_show_the_word_at_its_moment(page):
    row = page.locator(".row").first
    assert texts(page, ".row:first-child > .labels li") == CONTEXT.split()
    label = row.locator("canvas").get_attribute("aria-label")
    assert label.startswith("Most attended from 00:00 to 00:10: Bees")
    assert "<script>alert('x')</script>" in label
    row.get_by_text("layer by layer").click()
    expect(row.locator("canvas")).to_have_count(3)
    summed, first_layer, last_layer = (opacity(page, place) for place in range(3))
    assert summed.shape == first_layer.shape == (4, 1000)
    assert (summed[1, 500:510] == 1).all()
    assert (last_layer[1, 500:510] == 1).all()
    assert summed[1, 510:].max() < 0.1
    assert summed[1, :500].max() < 0.1
    assert first_layer[1].max() < 0.1
    row.get_by_text("as a table").click()
    told = ["00:05.600", "hive's", "", "Bees 95 %, <script>alert('x')</script> below 1 %, & below 1 %"]
    expect(row.locator("table tr").nth(8).locator("td")).to_have_text(told)


def test_the_context_is_tinted_by_what_a_word_drew_on(page):
    assert texts(page, "#shares tr")[0].startswith("Bees")
    shares = page.locator(".used").evaluate_all("all => all.map((one) => one.style.getPropertyValue('--share'))")
    assert [float(share) > 0.05 for share in shares] == [True, True, False, False]
    page.locator("#with .word", has_text="the").nth(1).hover()  # spoken when the second word of the context matters
    told = page.locator("#strongest").text_content()
    assert told.startswith("While “the” was said: <script>alert('x')</script> ")
    page.locator("h1").hover()
    assert "Point at" in page.locator("#strongest").text_content()


def test_a_word_draws_on_nothing_that_came_later(opened):
    """Windows that begin after a word have no part in it."""
    ones, none = np.ones((1, 1, 50), np.float32), np.zeros((1, 50), np.float32)
    windows = tuple(ExplainedWindow(5.0 * place, (place,), ones, none) for place in range(3))
    told = Explanation("a b c", ("a", "b", "c"), (0,), windows)
    page = opened(page_with(said(*spread("one two three", 15.0)), WITHOUT, 15.0, told))
    for place, word in enumerate("abc"):
        page.locator("#with .word").nth(place).hover()
        assert page.locator("#strongest").text_content().endswith(f"was said: {word} 100 %")


def test_silence_closed_gates_and_segments_without_word_times(opened):
    words = tuple(CONTEXT.split())
    window = explain_window(0.0, 100, np.zeros((2, 100, 4)), range(4), 4)
    page = opened(page_with(SILENT, SILENT, 2, Explanation(CONTEXT, words, (0, 1), (window,))))
    assert "gates are closed" in page.locator("#strongest").text_content()
    expect(page.locator("#headline")).to_have_text("The context changes none of the 0 words that were heard.")
    page.get_by_text("as a table").click()
    expect(page.get_by_text("No word was heard.")).to_be_visible()
    assert texts(page, "#with") == ["Nothing was heard."]
    whole = opened(page_of(speech("a b", words=False), speech("a c", words=False)))
    assert texts(whole, ".row mark") == texts(whole, "#with .word") == ["a b"]
    lost = opened(page_with(SILENT, WITH))
    expect(lost.locator("#headline")).to_have_text("With phrases none of the 12 words is heard.")
    assert len(texts(lost, "#without .changed")) == 12
    opened(page_with(SILENT, SILENT, 0))


def test_a_segment_too_long_for_a_row_stays_in_it(opened):
    long = "a long sentence without the times of its words " * 9
    page = opened(page_of(speech(long, "b", words=False), speech("c", "b", words=False)))
    said, lane = (page.locator(one).first.bounding_box() for one in (".row .said", ".row .lane"))
    assert said["x"] + said["width"] <= lane["x"] + lane["width"] + 1
    assert texts(page, "#with .word")[0] == long.strip()


def test_phrases_are_shown_where_they_were_heard_with_what_they_changed(opened):
    """A stock Whisper that was given phrases and no context."""
    heard = speech("the queen <b>lays</b> eggs", "in Ada's Hive Two for queens")
    plain = speech("the clean <b>lays</b> eggs", "in a dose hive too for queens")
    starts = {word.text.strip(): word.start for one in heard.segments for word in one.words}
    phrases = (
        Word("Queen", starts["queen"] + 0.2, starts["queen"] + 0.5, 0.93),
        Word("<b>gs", starts["eggs"], starts["eggs"] + 0.3, 0.51),
        Word("hive two", starts["Hive"], starts["Two"] + 0.3, 0.8),
    )
    windows = (explain_window(0.0, 600, np.empty((0, 600, 0)), [], 0),)
    page = opened(page_with(replace(heard, phrases=phrases), plain, 12, Explanation("", (), (), windows)))
    expect(page.locator("#headline")).to_have_text("The phrases change 3 of 10 words that were heard.")
    assert [row.locator("td").all_text_contents()[1:] for row in page.locator("#heard tr").all()[1:]] == [
        ["Queen", "93 %", "queen", "clean"],
        ["<b>gs", "51 %", "eggs", "eggs"],
        ["hive two", "80 %", "Hive Two", "Hive too"],
    ]
    assert float(page.get_attribute("#heard .word >> nth=0", "data-start")) == pytest.approx(phrases[0].start, abs=0.01)
    for side in ("#with", ".row"):
        written = page.locator(f"{side} .word.phrase").evaluate_all(
            "all => all.map((one) => one.firstChild.textContent)"
        )
        assert written == ["queen", "Hive", "Two"], "neither what is a part of longer words nor what is not written"
    assert texts(page, ".row .phrases .place") == ["Queen 93 %", "<b>gs 51 %", "hive two 80 %"]
    band = page.locator(".row rect").first
    assert float(band.get_attribute("x")) == pytest.approx(40 * phrases[0].start, abs=0.1), (
        "400 columns are ten seconds"
    )
    assert page.locator("canvas, .labels, #used:visible, #map-legend:visible").count() == 0
    both = opened(page_of(replace(WITH, phrases=phrases)))
    expect(both.locator("#headline")).to_contain_text("The context and phrases change 3")
    assert texts(both, "h3") == ["Without context and phrases", "With context and phrases", *texts(page, "h3")[2:]]
    expect(opened(page_of()).locator("#heard-section")).to_be_hidden()


def test_scripts_that_run_the_other_way_and_scripts_without_spaces(opened):
    arabic, chinese = (
        spread("ذهبت الملكة إلى السوق"),
        [Word(one, i, i + 1.0, 1.0) for i, one in enumerate("明天我們去參觀博物館")],
    )
    page = opened(page_with(said(*arabic), said(*arabic[:2])))
    boxes = [page.locator("#with .word").nth(place).bounding_box()["x"] for place in range(4)]
    assert boxes == sorted(boxes, reverse=True)
    page.locator("#with .word").first.focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.textContent") == "الملكة"
    phrases = (Word("博物館", 7.0, 10.0, 0.7),)
    page = opened(page_with(replace(said(*chinese), phrases=phrases), said(*chinese[:5])))
    assert texts(page, "#with p") == ["明天我們去參觀博物館"]
    assert texts(page, "#with .phrase") == list("博物館")
    assert page.locator("#heard tr").nth(1).locator("td").all_text_contents()[3] == "博物館"


def test_words_play_and_are_followed(opened):
    samples = np.sin(np.arange(12 * 16_000) / 9).astype(np.float32)
    page = opened(explanation_page("t", audio_uri(samples), samples, WITH, WITHOUT, explanation()))
    for word in (page.locator("#with .word").nth(6), page.locator(".row .word").nth(9)):
        start = float(word.get_attribute("data-start"))
        word.click()
        page.wait_for_function(f"() => document.querySelector('audio').currentTime >= {start}")
        page.evaluate("document.querySelector('audio').pause()")
        page.evaluate(f"document.querySelector('audio').currentTime = {start + 0.1}")
        expect(word).to_have_attribute("aria-current", "true")
        expect(page.locator("[aria-current]")).to_have_count(2)  # in the text and on the time axis
        left = "parseFloat(document.querySelector('.playhead').style.left)"
        page.wait_for_function(f"() => Math.abs({left} - {10 * (start + 0.1)}) < 0.1")


def test_the_keyboard_reaches_everything(page):
    page.locator(".row .word").first.focus()
    for key, word in (("ArrowRight", "queen"), ("End", "and"), ("ArrowLeft", "wax"), ("Home", "the")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.querySelector('.said').textContent") == word
    stops = page.locator(".words").evaluate_all(
        "all => all.map((one) => one.querySelectorAll('[tabindex=\"0\"]').length)"
    )
    assert set(stops) == {1}
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, button, audio, section, canvas, svg")]
            .filter((one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label")
                || one.getAttribute("aria-labelledby"))).map((one) => one.outerHTML)"""
    )
    assert not nameless


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones_and_darkness(opened, scheme):
    page = opened(page_of(), viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert not sticks_out(page)
    assert is_dark(page) == (scheme == "dark")
    below = page.locator("#with").bounding_box()
    assert below["y"] > page.locator("#without").bounding_box()["y"]
    ink = page.locator("#with .changed").first.evaluate("one => getComputedStyle(one).color")
    assert (sum(map(int, ink[4:-1].split(","))) > 500) == (scheme == "dark")


def test_print_has_all_and_nothing_to_press(opened):
    many = said(*spread("word " * 600, 300.0))
    page = opened(page_with(many, many, 300))
    assert page.locator(".row .wave").count() < 30, "rows are drawn when they come into view"
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".row .wave").count() == 30
    expect(page.locator("audio")).to_be_hidden()
    expect(page.locator(".save").first).to_be_hidden()
    assert page.locator("#with").evaluate("one => one.scrollHeight <= one.clientHeight + 1"), "nothing is cut off"


def test_saved_files_are_those_of_the_command(opened):
    page = opened(page_of())
    whole = replace(WITH, segments=tuple(replace(one, words=None) for one in WITH.segments))
    for name in ("srt", "vtt", "txt", "json"):
        with page.expect_download() as download:
            page.click(f".save[data-format={name}]")
        assert download.value.suggested_filename.endswith(f".{name}")
        saved = Path(download.value.path()).read_text(encoding="utf-8")
        if name == "json":
            assert json.loads(saved)["context_words"]["words"] == CONTEXT.split()
        else:
            assert saved == FORMATS[name](whole, SubtitleLayout())


def test_without_scripts_the_transcript_is_read(opened):
    page = opened(page_of(), java_script_enabled=False)
    assert [one.strip() for one in page.locator("p").all_inner_texts()] == [one.text.strip() for one in WITH.segments]


def test_hostile_text_stays_text(opened):
    hostile = "</script><img/src=x> <!--<script> {{a}} ${b} \u2028&amp; \ud800".encode("utf-8", "replace").decode()
    words = tuple(hostile.split(" "))
    window = explain_window(0.0, 100, np.ones((1, 100, len(words))), range(len(words)), len(words))
    transcript = replace(said(*spread(hostile)), phrases=(Word(hostile, 0.0, 1.0, 0.5),))
    text = explanation_page(
        hostile,
        "data:,",
        np.ones(16_000, np.float32),
        transcript,
        WITHOUT,
        Explanation(hostile, words, (0,), (window,)),
    )
    page = opened(text)
    assert texts(page, "h1") == [" ".join(hostile.split())] or page.locator("h1").text_content() == hostile
    assert [one.strip() for one in page.locator("#with .word").all_text_contents()] == [one.strip() for one in words]
    assert texts(page, ".used") == [one.strip() for one in words]
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def test_hours_open_in_seconds_and_are_compared_to_the_end(opened):
    """Three hours in which every seventh word changes: more edits than are looked for at once."""
    random_words = random.Random(0)
    said_words = [f"w{random_words.randrange(3000)}" for _ in range(27_000)]
    other = [word if place % 7 else f"x{place}" for place, word in enumerate(said_words)]
    times = np.linspace(0, 3 * 3600, len(said_words) + 1)
    transcripts = [
        said(*(Word(f" {word}", times[i], times[i + 1], 1.0) for i, word in enumerate(words)))
        for words in (said_words, other)
    ]
    names = tuple(f"name{place}" for place in range(40))
    influence = np.random.default_rng(0).random((1, 12, 300), np.float32).round(2)
    windows = tuple(
        ExplainedWindow(30.0 * place, tuple(range(12)), influence, influence.sum(axis=1)) for place in range(360)
    )
    text = page_with(*transcripts, 3 * 3600, Explanation(" ".join(names), names, (0,), windows))
    began = time.monotonic()
    page = opened(text)
    expect(page.locator("#headline")).to_contain_text("of 27000 words")
    changed = int(page.locator("#headline b").first.text_content())
    assert changed == pytest.approx(27_000 / 7, rel=0.01)
    page.locator("#with .word").nth(20_000).hover()
    assert "was said: name" in page.locator("#strongest").text_content()
    page.locator(".row").last.scroll_into_view_if_needed()
    expect(page.locator(".row").last.locator("canvas")).to_have_count(1)
    assert time.monotonic() - began < 60
    assert page.locator(".row canvas").count() < 50


@pytest.mark.parametrize("size", [0, 5, 40, 1500])
def test_differences_are_a_common_subsequence_nearly_as_long_as_the_longest(page, size):
    draw = random.Random(size)
    for _ in range(20 if size < 1000 else 2):
        first, second = ([draw.choice("abcdefgh") for _ in range(draw.randint(size // 2, size))] for _ in range(2))
        kept = page.evaluate("lists => differences.same(...lists)", [first, second])
        chosen = [
            [one for one, same in zip(words, marks, strict=True) if same]
            for words, marks in zip((first, second), kept, strict=True)
        ]
        assert chosen[0] == chosen[1]
        matched = sum(
            block.size for block in difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
        )
        assert len(chosen[0]) >= 0.95 * matched


def test_a_phrase_is_not_written_where_it_stands_elsewhere(opened):
    text = said(*spread("one two three four five six seven eight nine bee"))  # a second each
    page = opened(page_with(replace(text, phrases=(Word("bee", 1.0, 2.0, 0.9),)), text))
    cells = page.locator("#heard tr").nth(1).locator("td")
    expect(cells).to_have_text(["00:01", "bee", "90 %", "two", "two"])
