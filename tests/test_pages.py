"""All HTML pages: what comes from data stays text, nothing comes from the network, nothing is missing silently."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from jinja2 import UndefinedError
from lxml import html
from test_evaluate import Hearing, items
from test_explain import explanation
from test_homophones import HOMOPHONES, transcription
from test_writers import speech

from cwjax.alignment.page import Place, alignment_page
from cwjax.data.prepared.page import PAGE_FILE, write_page
from cwjax.data.segment import ContextMaterial, Segment
from cwjax.evaluation.evaluate import Ladder, evaluate_items
from cwjax.evaluation.evaluator import Evaluator
from cwjax.evaluation.explanation_page import explanation_page
from cwjax.evaluation.report import summarise, write_report
from cwjax.pages import render

HOSTILE = "</title><script src=\"http://a.example/x.js\">alert('1')</script>&amp; <b>.ogg"
SOURCE = "https://wiki.example/a"
TONE = np.sin(np.arange(8000) / 8).astype(np.float32) / 2


def preparation(folder: Path) -> str:
    context = ContextMaterial(HOSTILE, (HOSTILE, "b"), HOSTILE, (HOSTILE,), (HOSTILE,), HOSTILE, True)
    segment = Segment(HOSTILE, HOSTILE, HOSTILE, 0.0, 0.5, HOSTILE, (), context, source=SOURCE)
    corpus = SimpleNamespace(directory=folder, segments=[segment] * 3, pcm16=lambda _: (TONE * 32_000).astype(np.int16))
    report = {
        "utterances": 1234,
        "hours": 2.5,
        "splits": {"train": {"utterances": 1234, "hours": 2.5, "articles": 1, "speakers": 2}},
        "subsets": {HOSTILE: {"utterances": 1234, "hours": 2.5, "articles": 1, "speakers": 2}},
        "languages": {HOSTILE: {"utterances": 1234, "hours": 2.5, "dropped": {}}},
        "dropped": {HOSTILE: 0.25},
        "holes": {"pause": 7},
        "lengths": {"1": 3, "3": 5, "6": 1001},
        "characters_per_second": {str(number): number**2 for number in range(1, 40)},
        "speakers": {HOSTILE: 1.5, "": 1.0},
        "failures": {f"{HOSTILE} {number}": HOSTILE for number in range(41)},
        "warnings": {HOSTILE: [HOSTILE, "odd"]},
        "articles": {HOSTILE: {"segments": 3, "timed_ratio": 0.97}},
    }
    write_page(corpus, HOSTILE, report)
    return (folder / PAGE_FILE).read_text(encoding="utf-8")


def alignment(_: Path) -> str:
    report = {
        "seconds": 7200.0,
        "supervised_seconds": 3600.0,
        "supervisions": 1500,
        "left_out_seconds": {HOSTILE: 3600.0},
        "text_words": 20_000,
        "supervised_words": 5000,
        "left_out_words": {HOSTILE: 15_000},
        "failures": {HOSTILE: HOSTILE},
        "recordings": {HOSTILE: {"seconds": 7200.0, "supervisions": 1500, "supervised_seconds": 3600.0}},
        "longest_left_out_sound": [
            {"recording": HOSTILE, "start": 61.0, "end": 75.5, "reason": HOSTILE, "heard": HOSTILE}
        ],
        "longest_left_out_text": [{"text": HOSTILE, "words": 1200, "reason": HOSTILE, "written": HOSTILE}],
    }
    return alignment_page(HOSTILE, report, [Place(HOSTILE, "0:01.0", HOSTILE, 0.5, TONE)])


def conditions(folder: Path) -> str:
    asked = [
        replace(one, id=f"{HOSTILE} {one.id}", reference=f"{one.reference} {HOSTILE}", texts={"topic": HOSTILE})
        for one in items()
    ]
    evaluator = Evaluator(lambda _: Hearing(), jnp.float32, None, 4)
    ladder = Ladder(("none", "topic", "phrases:4", "phrases:8"))
    evaluate_items(evaluator, {"kernel": jnp.ones(3)}, asked, folder, HOSTILE, {"steps": HOSTILE}, [], ladder)
    return (folder / "report.html").read_text(encoding="utf-8")


def contrast(folder: Path) -> str:
    heard = [
        transcription("Yachts", "The sail is big.", "The sail is big.", "The sale is big.", "The sale is big."),
        transcription(HOSTILE, HOSTILE, HOSTILE, "", f"something {HOSTILE}"),
    ]
    heard = [replace(one, contexts=one.contexts | {"right": HOSTILE}) for one in heard]
    history = [{"step": step, "loss": 1 / step, "gate": 0.1, "learning_rate": 1e-3} for step in range(1, 9)]
    summary = summarise(heard, HOMOPHONES)
    summary["pairs"][HOSTILE] = dict.fromkeys(("right", "none", "wrong"), 0.5)
    write_report(folder, summary, heard, history, lambda _: TONE, HOSTILE, {HOSTILE: HOSTILE, "source": SOURCE})
    return (folder / "report.html").read_text(encoding="utf-8")


def explained(_: Path) -> str:
    words = speech(f"the queen {HOSTILE} lays", "eggs"), speech("the clean bee lays", "eggs")
    return explanation_page(HOSTILE, f"./{HOSTILE}", np.tile(TONE, 24), *words, explanation())


PAGES = (preparation, alignment, conditions, contrast, explained)


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.__name__)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return request.param(tmp_path_factory.mktemp("page"))


def addresses(tree: html.HtmlElement) -> Iterator[str]:
    for element in tree.iter():
        for name, value in element.items():
            if re.fullmatch(r"(.*:)?(src|href|srcset|data|poster|action|background)", name):
                yield value
            yield from re.findall(r"url\(([^)]*)\)", value)
        if element.tag == "style":
            yield from re.findall(r"url\(([^)]*)\)|@import (.*)", element.text)


def test_text_of_data_stays_text(page: str) -> None:
    tree = html.fromstring(page)
    data, *scripts = tree.findall(".//script") or [None]
    assert tree.find(".//title").text == tree.find(".//h1").text_content() == HOSTILE
    assert ".ogg" not in {bold.text for bold in tree.iter("b")}
    if data is None:
        assert tree.find(".//main").text_content().count(HOSTILE) > 5
    else:  # that of an explanation, as data and for readers without scripts
        assert [script.text.strip().startswith('"use strict"') for script in scripts] == [True]
        assert json.loads(data.text)["name"] == HOSTILE
        assert HOSTILE in tree.find(".//noscript").text_content()
        assert tree.find(".//audio").get("src") == f"./{HOSTILE}"


def test_nothing_comes_from_the_network(page: str) -> None:
    for address in addresses(html.fromstring(page)):
        assert address.startswith(("data:", "#", f"./{HOSTILE}")), address
    known = r"http://(www\.w3\.org|purl\.org|creativecommons\.org|a\.example)/"  # namespaces of SVG, and the data's
    assert set(re.findall(r"https?://[^\s<\"']*", re.sub(known, "", page))) <= {SOURCE}


def test_every_page_is_light_and_dark_and_fits_a_phone(page: str) -> None:
    style = html.fromstring(page).find(".//style").text
    assert "@media (prefers-color-scheme: dark)" in style
    colours = re.findall(r"--(\w+):", style[: style.index("@media")])
    assert {"ink", "paper", "mark"} <= set(colours)
    dark = style[style.index("(prefers-color-scheme: dark)") : style.index("body {")]
    assert set(re.findall(r"--(\w+):", dark)) == set(colours), "none is left as it is in light"
    assert 'content="width=device-width' in page
    assert 'lang="en"' in page or "lang=en" in page


def test_a_player_holds_its_sound(page: str) -> None:
    players = html.fromstring(page).findall(".//audio")
    assert players
    assert all(one.get("controls") is not None for one in players)
    assert all(one.get("src").startswith(("data:audio/mpeg;base64,", f"./{HOSTILE}")) for one in players)


@pytest.mark.parametrize("template", ["preparation", "alignment", "evaluation", "explanation"])
def test_what_a_page_is_not_given_is_an_error(template: str) -> None:
    with pytest.raises(UndefinedError):
        render(f"{template}.html", title="x")
    with pytest.raises(UndefinedError, match="title"):
        render("base.html")


def test_tables_say_what_they_leave_out_and_charts_leave_out_nothing(tmp_path: Path) -> None:
    tree = html.fromstring(preparation(tmp_path))
    assert "and 11 more in report.json" in tree.text_content()
    titles = [bar.text for bar in tree.findall(".//svg")[0].iter("title")]
    assert titles == ["1: 3", "2: 0", "3: 5", "4: 0", "5: 0", "6: 1,001"], "though 6 is no multiple of 2 from 1"
    rows = {row[0].text_content(): [cell.text for cell in row[1:]] for row in tree.iter("tr")}
    assert rows["train"] == ["1,234", "2.50", "1", "2"]
    assert rows["unknown"] == ["1.00"], "a speaker without a name"
