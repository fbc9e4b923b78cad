"""Explanations: sums over words that lose nothing, and a page that is safe, complete and readable without colour."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
import soundfile
from lxml import html as lxml_html
from test_writers import speech
from tolerance import assert_close

from cwjax.evaluation.explanation import WORDS_KEPT, Explanation, explain_window
from cwjax.evaluation.explanation_page import SECONDS_OF_A_LETTER, explanation_page
from cwjax.inference.transcript import Transcript, Word
from cwjax.pages import audio_uri

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


class TagChecker(HTMLParser):
    """Every element is closed where it was opened; those may stay open that HTML closes by itself."""

    empty = frozenset({"meta", "img", "input", "br", "path"})
    closes_itself = frozenset({"li", "p", "tr", "td", "th", "html"})

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in self.empty:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.empty:
            return
        while self.open[-1] != tag:
            assert self.open.pop() in self.closes_itself, tag
        self.open.pop()


def test_the_page_is_well_formed_and_nothing_from_outside_becomes_markup(page):
    checker = TagChecker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    assert checker.seen.count("script") == 1, "only the page's own"
    assert "b" in checker.seen, "the headline's"
    tree = lxml_html.fromstring(page)
    assert tree.find(".//blockquote").text == CONTEXT
    assert tree.find(".//title").text == "talk <1>"
    assert tree.find(".//audio").get("src") == "a'b.ogg"
    assert not tree.findall(".//button//b")
    for match in re.findall(r"(?:src|href|url)\s*[=(]\s*['\"]?([^'\"\s>)]*)", page):
        assert match.startswith(("data:", "a&#39;b.ogg")), "nothing comes from the network"


def test_words_stand_where_they_are_said(page):
    tree = lxml_html.fromstring(page)
    rows = tree.find_class("row")
    assert [(row.get("data-from"), row.get("data-to")) for row in rows] == [("0.00", "5.00"), ("5.00", "12.00")]
    said = [[button.get("data-start") for button in row.find_class("word")] for row in rows]
    starts = [f"{word.start:.2f}" for segment in WITH.segments for word in segment.words]
    assert [*said[0], *said[1]] == starts
    assert said[1][0] == "5.60"
    queen = rows[0].find_class("place")[1]
    assert queen.get("style").split(";")[0] == "left:16.00%"


def boxes(row) -> list[tuple[float, float, float]]:
    """Left and right end in seconds, and top in rem, of all that stands over the waveform of a row."""
    seconds = float(row.get("data-to")) - float(row.get("data-from"))
    found = []
    for place in row.find_class("place"):
        style = dict(part.split(":") for part in place.get("style").split(";"))
        left, top = float(style["left"].rstrip("%")) * seconds / 100, float(style["top"].removesuffix("rem"))
        (button,) = place.find_class("word")
        notes = button.findall("small")
        word = button.text_content().removesuffix("".join(note.text for note in notes))
        found.append((left, left + SECONDS_OF_A_LETTER * len(word), top))
        for note in notes:
            below = float(note.get("style").removeprefix("top:").removesuffix("rem"))
            found.append((left, left + SECONDS_OF_A_LETTER * len(note.text), round(top + below, 3)))
    return found


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_nothing_overprints_anything_nor_leaves_the_page(seconds):
    names = ["Ruttner,", "Ada,", "Lovelace-Byron,", "Bo", "and", "Friedrich-Wilhelm"]
    times = [seconds - 1.5, seconds - 1.0, seconds - 0.6, seconds - 0.4, seconds - 0.2, seconds - 0.01]
    words = [Word(f" {name}", start, start + 0.1, 1.0) for name, start in zip(names, times, strict=True)]
    other = [replace(word, text=f" {name[::-1].strip(',')}") for word, name in zip(words, names, strict=True)]
    transcripts = [Transcript("", (replace(WITH.segments[0], words=tuple(said)),), "en") for said in (words, other)]
    window = explain_window(0.0, round(seconds * 50), np.ones((2, round(seconds * 50), 2)), [0, 1], 2)
    text = explanation_page(
        "t", "a.ogg", np.zeros(160_000, np.float32), *transcripts, Explanation("a b", ("a", "b"), (0, 1), (window,))
    )
    (row,) = lxml_html.fromstring(text).find_class("row")
    found = boxes(row)
    assert len(found) > len(names), "with what was heard without context"
    assert all(left >= 0 and right <= 10.0 for left, right, _ in found)
    for place, (left, right, top) in enumerate(found):
        for others_left, others_right, others_top in found[:place]:
            assert top != others_top or right <= others_left or others_right <= left
    height = float(row.find_class("words")[0].get("style").removeprefix("height:").removesuffix("rem"))
    assert height >= max(top for *_, top in found) + 1.4 - 1e-6


def test_changes_are_told_without_colour(page):
    tree = lxml_html.fromstring(page)
    text = " ".join(tree.text_content().split())
    assert "The context changes 3 of 12 words" in text
    assert "“queen”, without context “clean”" in text
    assert [mark.text for mark in tree.findall(".//mark")] == ["queen", "in", "the"]
    assert [small.text for small in tree.findall(".//small")] == ["without: clean", "without: –", "without: –"]
    # What only the transcript without context has is told at the word behind it.
    swapped = lxml_html.fromstring(page_of(WITHOUT, WITH))
    assert [small.text for small in swapped.findall(".//small")] == ["without: queen", "without: in the"]
    same = page_of(WITH, WITH)
    assert "changes none of the <b>12</b>" in same
    assert "<mark>" not in same


def test_maps_show_the_word_at_its_moment(page):
    tree = lxml_html.fromstring(page)
    row = tree.find_class("row")[1]
    summed, first_layer, last_layer = row.findall(".//img")
    labels = [item.text for item in row.find_class("labels")[0]]
    assert labels == CONTEXT.split()
    assert "<script>alert('x')</script>" in summed.get("alt")
    assert "Most attended from 00:05.0 to 00:12.0: Bees" in summed.get("alt")
    opacity = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(one.get("src").split(",")[1])))[..., 3]
        for one in (summed, first_layer, last_layer)
    ]
    for picture in opacity:
        assert picture.shape == (4, 70)
    assert opacity[0][1, 0] == opacity[2][1, 0] == 1
    assert opacity[1][1, 0] < 0.1
    assert opacity[0][1, 1] < 0.1
    cells = [cell.text_content() for cell in row.findall(".//table//td")]
    assert cells[:4] == ["00:05.600", "hive's", "", "Bees 95 %, <script>alert('x')</script> below 1 %, & below 1 %"]


def test_silence_closed_gates_and_segments_without_word_times():
    silent = Transcript("", (), "en")
    words = tuple(CONTEXT.split())
    window = explain_window(0.0, 100, np.zeros((2, 100, 4)), range(4), 4)
    closed = Explanation(CONTEXT, words, (0, 1), (window,))
    text = explanation_page("t", "a.ogg", np.zeros(32_000, np.float32), silent, silent, closed)
    assert "gates are closed" in text
    assert "No word was heard." in text
    assert "none of the <b>0</b>" in text
    whole = lxml_html.fromstring(page_of(speech("a b", words=False), speech("a c", words=False)))
    assert [mark.text for mark in whole.findall(".//mark")] == ["a b"]
    explanation_page("t", "a.ogg", np.zeros(0, np.float32), silent, silent, Explanation("", (), (), ()))


def test_phrases_are_shown_where_they_were_heard_with_what_they_changed():
    """A stock Whisper that was given phrases and no context."""
    said = speech("the queen <b>lays</b> eggs", "in Ada's Hive Two for queens")
    plain = speech("the clean <b>lays</b> eggs", "in a dose hive too for queens")
    starts = {word.text.strip(): word.start for one in said.segments for word in one.words}
    phrases = (
        Word("Queen", starts["queen"] + 0.2, starts["queen"] + 0.5, 0.93),
        Word("<b>gs", starts["eggs"], starts["eggs"] + 0.3, 0.51),
        Word("hive two", starts["Hive"], starts["Two"] + 0.3, 0.8),
    )
    windows = (explain_window(0.0, 600, np.empty((0, 600, 0)), [], 0),)
    nothing = Explanation("", (), (), windows)
    text = explanation_page("t", "a.ogg", np.zeros(192_000, np.float32), replace(said, phrases=phrases), plain, nothing)
    tree = lxml_html.fromstring(text)
    assert "The phrases change 3 of 10 words" in " ".join(tree.text_content().split())
    table, *_ = tree.findall(".//table")
    rows = [[cell.text_content() for cell in row] for row in table.findall("tr")[1:]]
    assert [row[1:] for row in rows] == [
        ["Queen", "93 %", "queen", "clean"],
        ["<b>gs", "51 %", "eggs", "eggs"],
        ["hive two", "80 %", "Hive Two", "Hive too"],
    ]
    assert float(table.find(".//button").get("data-start")) == pytest.approx(phrases[0].start, abs=0.01)
    marked = [button.text_content().split("without")[0] for button in tree.find_class("word phrase")]
    assert marked == ["queen", "Hive", "Two"], "neither what is a part of longer words nor what is not written"
    (first, *_), labels = tree.findall(".//rect"), [place.text for place in tree.find_class("phrases")[0]]
    assert labels == ["Queen 93 %", "<b>gs 51 %", "hive two 80 %"]
    assert float(first.get("x")) == pytest.approx(40 * phrases[0].start, abs=0.1), "400 columns are ten seconds"
    assert not tree.find_class("map")
    assert not tree.find_class("labels")
    assert "attended" not in tree.text_content()
    both = explanation_page("t", "a", np.zeros(9, np.float32), replace(WITH, phrases=phrases), WITHOUT, explanation())
    assert "The context and phrases change <b>3</b>" in both
    assert "Phrases that were heard" in both
    assert "Phrases that were heard" not in page_of()


def test_sound_in_the_page_is_as_long_and_nearly_as_the_samples():
    """Its words would stand in wrong places if the sound began later, as that of MP3 may."""
    samples = np.sin(np.cumsum(np.linspace(0.05, 1.2, 20_000))).astype(np.float32) / 2
    kind, data = audio_uri(samples).split(",")
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert (kind, rate, len(heard)) == ("data:audio/mpeg;base64", 16_000, len(samples))
    assert np.square(heard - samples).mean() < 0.005 * np.square(samples).mean()
