"""Explanations: sums over words that lose nothing, and a page that holds an answer of the server, safely."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from lxml import html as lxml_html
from test_writers import speech
from tolerance import assert_close

from cwjax.evaluation.explanation import WORDS_KEPT, Explanation, explain_window
from cwjax.evaluation.explanation_page import explanation_page
from cwjax.inference.transcript import Transcript, Word
from cwjax.pages import audio_uri, script
from cwjax.serving.answers import Result, body
from cwjax.serving.fields import Asked

RANDOM = np.random.default_rng(0)


def test_nothing_is_lost_from_tokens_to_words():
    contributions = RANDOM.gamma(0.5, size=(3, 50, 40))
    owners = np.repeat(np.arange(-1, 19), 2)
    window = explain_window(4.0, 33, contributions, owners, 19)
    assert window.influence.shape == (3, WORDS_KEPT, 7)
    assert (window.start, round(window.end, 3)) == (4.0, 4.7)
    widths = np.array([5] * 6 + [3])
    total = (window.influence.sum(axis=1) + window.others) @ widths
    assert_close(total, contributions[:, :33].sum(axis=(1, 2)), terms=33 * 40)
    by_word = np.stack([contributions[:, :33, owners == word].sum() for word in range(19)])
    assert list(window.words) == sorted(np.argsort(by_word)[-WORDS_KEPT:])
    kept = contributions[:, 30:33, owners == window.words[2]].sum(axis=2).mean(axis=1)
    assert_close(window.influence[:, 2, 6], kept, terms=3 * 2)


def test_contexts_of_a_few_words_and_of_none():
    window = explain_window(0.0, 10, RANDOM.random((2, 10, 4)), [-1, 0, 1, -1], 2)
    assert window.words == (0, 1)
    nothing = explain_window(0.0, 10, np.zeros((2, 10, 1)), [-1], 0)
    assert nothing.influence.shape == (2, 0, 2)


CONTEXT = "Bees <script>alert('x')</script> & \"wax\""
WITH = speech("the queen bee <b>lays</b> eggs", "in the hive's </script> wax", "and now")
WITHOUT = speech("the clean bee <b>lays</b> eggs", "hive's </script> wax", "and now")


def explanation(peak_at: float = 5.0) -> Explanation:
    """Bees matter everywhere a little; at one moment the second word does, in layer 3."""
    words = tuple(CONTEXT.split())
    contributions = np.full((2, 600, 7), 1e-3)
    contributions[:, :, 1] = 0.1
    contributions[1, round(peak_at * 50) : round(peak_at * 50) + 5, 2] = 3.0
    owners = [-1, *range(len(words)), -1]
    parts = [(0.0, 250), (5.0, 350)]
    windows = [
        explain_window(start, count, contributions[:, round(start * 50) :, : len(owners)], owners, len(words))
        for start, count in parts
    ]
    return Explanation(CONTEXT, words, (1, 3), tuple(windows))


def page_of(with_context: Transcript = WITH, without: Transcript = WITHOUT) -> str:
    samples = np.sin(np.arange(12 * 16_000) / 9).astype(np.float32)
    return explanation_page("talk <1>", "a'b.ogg", samples, with_context, without, explanation())


@pytest.fixture(scope="module")
def page() -> str:
    return page_of()


def data_of(page: str) -> dict:
    return json.loads(lxml_html.fromstring(page).get_element_by_id("data").text)


def test_nothing_from_outside_becomes_markup(page):
    tree = lxml_html.fromstring(page)
    scripts = tree.findall(".//script")
    assert [script.get("type") for script in scripts] == ["application/json", None], "the data, and the page's own"
    assert tree.find(".//title").text == tree.find(".//h1").text == "talk <1>"
    assert tree.find(".//audio").get("src") == "a'b.ogg"
    assert not tree.findall(".//b")
    data = data_of(page)
    assert data["context"] == CONTEXT
    assert data["answer"]["context_words"]["words"] == CONTEXT.split()
    for match in re.findall(r"(?:src|href|url)\s*[=(]\s*['\"]?([^'\"\s>),}]*)", page[: page.index('"use strict"')]):
        assert match == "a&#39;b.ogg", "nothing comes from the network"


def test_readers_without_scripts_have_the_transcript(page):
    said = [part.text for part in lxml_html.fromstring(page).find(".//noscript").findall("p")]
    assert said == [segment.text for segment in WITH.segments]


def test_the_data_of_the_page_is_an_answer_of_the_server():
    phrases = (Word("queen", 1.0, 1.5, 0.9),)
    asked = Asked(
        context=CONTEXT,
        response_format="verbose_json",
        granularities=("word", "segment"),
        include=("without_context", "context_words"),
    )
    told = replace(WITH, phrases=phrases)
    answer = json.loads(body(Result(asked, told, WITHOUT, explanation()))[0])
    answer = {name: answer[name] for name in answer.keys() - {"task", "language", "duration", "usage"}}
    ours = data_of(page_of(told))["answer"]
    assert ours["context_words"].pop("layers") == [1, 3]
    for window in ours["context_words"]["windows"]:
        assert np.shape(window.pop("layers")) == (2, 4, len(window["others"]))
    assert ours == answer


def test_waveforms_have_the_lowest_and_highest_sample_of_each_column():
    samples = RANDOM.normal(size=16_000 + 7).astype(np.float32)
    text = explanation_page("t", "a.ogg", samples, WITH, WITHOUT, explanation())
    wave = data_of(text)["waveform"]
    columns = np.pad(samples, (0, 393), mode="edge").reshape(-1, 400)
    scale = 127 / np.abs(samples).max()
    assert wave["seconds"] == 400 / 16_000
    np.testing.assert_allclose(wave["low"], scale * columns.min(axis=1), atol=0.51)
    np.testing.assert_allclose(wave["high"], scale * columns.max(axis=1), atol=0.51)
    silent = Transcript("", (), "en")
    nothing = explanation_page("t", "a", np.zeros(0, np.float32), silent, silent, Explanation("", (), (), ()))
    assert data_of(nothing)["waveform"]["low"] == []


def test_modules_become_one_script_in_which_every_import_is_known():
    text = script("transcript")
    assert not re.search(r"^(import|export)\b", text, re.MULTILINE)
    for found in re.finditer(r"^const \{(.*)\} = (\w+);$", text, re.MULTILINE):
        before = text[: found.start()]
        module = before[before.index(f"const {found[2]} = (() => {{") :]
        exported = re.search(r"^return \{ (.*) \};$", module, re.MULTILINE)[1].split(", ")
        assert {name.split(":")[0].strip() for name in found[1].split(",")} <= set(exported)


def test_sound_in_the_page_is_as_long_and_nearly_as_the_samples():
    """Its words would stand in wrong places if the sound began later, as that of MP3 may."""
    samples = np.sin(np.cumsum(np.linspace(0.05, 1.2, 20_000))).astype(np.float32) / 2
    kind, data = audio_uri(samples).split(",")
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert (kind, rate, len(heard)) == ("data:audio/mpeg;base64", 16_000, len(samples))
    assert np.square(heard - samples).mean() < 0.005 * np.square(samples).mean()
