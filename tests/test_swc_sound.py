"""Two real German articles, their sound made of tones at the times of their words.

What a segment's audio holds is heard in it, and compared with the document, read here by other means than the reader's.
"""

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from lxml import etree
from sounding import RATE, heard, sound, write_sound

from cwjax.data import SWCDataset
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc import reader as swc_corpus
from cwjax.data.corpora.swc.article import read_article
from cwjax.data.corpora.swc.reader import articles
from cwjax.data.corpora.swc.word_times import find_spans, forget_bad_times, read_words, speaking_rate
from cwjax.data.prepared.windows import gathered
from cwjax.data.segment import Segment, segment_of

GERMAN = Path(__file__).resolve().parents[1].parent / "shared/fixtures/swc/german"
TONES = 60
LONGEST_OVERLAP = 0.1


class Spoken(NamedTuple):
    """A form that is spoken: seconds, tone, and the letters of the document before its token and up to its end."""

    start: float
    end: float
    tone: int
    first_letter: int
    last_letter: int


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def read_document(folder: Path) -> tuple[str, list[Spoken]]:
    """The letters of the text that is read, and all timed forms, in the order of the document."""
    document = etree.parse(folder / "aligned.swc").getroot().find("d")
    etree.strip_elements(document, "ignored", "extra", with_tail=False)
    text, forms = "", []
    for token in document.iter("t"):
        own = letters(token.text or "")
        for form in token.iterfind("n"):
            if form.get("start"):
                start, end = (int(form.get(edge)) / 1000 for edge in ("start", "end"))
                forms.append(Spoken(start, end, len(forms) % TONES, len(text), len(text) + len(own)))
        text += own
    return text, forms


def trusted(folder: Path, forms: list[Spoken]) -> list[Spoken]:
    """Without the times that cannot be right, which nobody can have spoken."""
    article = read_article(folder, folder.parent, require_audio=False)
    words = read_words(article.tokens)
    borders = [*(part.offset * 1000 for part in article.audio_parts[1:]), float("inf")]
    forget_bad_times(words, speaking_rate(words), borders, SegmentationSettings())
    kept = {
        (norm.start_ms / 1000, norm.end_ms / 1000)
        for word in words
        for norm in article.tokens[word.token].norms
        if word.is_heard and not word.is_extra and norm.start_ms is not None
    }
    return [form for form in forms if (form.start, form.end) in kept]


class Case(NamedTuple):
    root: Path
    folder: Path
    text: str
    forms: list[Spoken]


@pytest.fixture(scope="module", params=["Radio", "Philosophie"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    source = GERMAN / request.param
    if not source.is_dir():
        pytest.skip("the real German articles are not here")
    root = tmp_path_factory.mktemp("german")
    folder = shutil.copytree(source, root / request.param, copy_function=shutil.copyfile)
    text, forms = read_document(folder)
    forms = trusted(folder, forms)
    offsets = [part["offset"] for part in json.loads((folder / "info.json").read_text())["audio_files"]]
    ends = [*offsets[1:], forms[-1].end + 4.0]
    for number, (offset, end) in enumerate(zip(offsets, ends, strict=True), 1):
        rate, channels = ((22_050, 2), (RATE, 1))[number % 2]
        here = [(form.tone, form.start - offset, form.end - offset) for form in forms if offset <= form.start < end]
        name = f"audio{number if len(offsets) > 1 else ''}.flac"
        write_sound(folder / name, sound(here, end - offset, rate), rate, channels)
    return Case(root, folder, text, forms)


class Piece(NamedTuple):
    """A segment, and where it begins in its audio file, both in seconds of the article."""

    segment: Segment
    start: float


def reading(case: Case) -> list[Piece]:
    """Windows of the sentences, as long as they may be."""
    (unit,) = articles(case.root)
    read = swc_corpus.read(case.root, unit, SegmentationSettings())
    offsets = [part.offset for part in read_article(case.folder, case.root).audio_parts]
    (facts,) = read.articles.values()
    found = []
    for offset, track in zip(offsets, read.tracks, strict=True):
        for said in gathered(track.supervisions, 30.0):
            segment = segment_of(said, facts, 0)
            found.append(Piece(replace(segment, start=offset + segment.start, end=offset + segment.end), segment.start))
    return found


def test_most_of_it_is_kept(case: Case) -> None:
    read = reading(case)
    segments = [piece.segment for piece in read]
    assert all(segment.duration <= 30 for segment in segments)
    for before, after in pairwise(segments):
        assert before.end <= after.start
    for segment in segments:
        edges = [time for piece in segment.utterances for time in (piece.start, piece.end)]
        assert edges == sorted(edges)
        assert edges[0] >= 0
        assert edges[-1] <= segment.duration + 1e-6
        assert segment.text == " ".join(piece.text for piece in segment.utterances)
    assert all(start >= 0 for _, start in read)
    # By letters: in segments, of the text from the first timed word to the last.
    first, last = case.forms[0].first_letter, case.forms[-1].last_letter
    assert sum(len(letters(segment.text)) for segment in segments) / (last - first) >= 0.95
    words = [word for word in read_words(read_article(case.folder, case.root).tokens) if not word.is_extra]
    rate = speaking_rate(words)
    forget_bad_times(words, rate, [float("inf")], SegmentationSettings())
    spans, _ = find_spans(words, rate, [float("inf")], SegmentationSettings())
    spoken = case.forms[-1].end - case.forms[0].start
    assert (
        sum(words[finish - 1].heard_end - words[begin].heard_start for begin, finish in spans) / 1000 / spoken >= 0.895
    )
    assert sum(segment.duration for segment in segments) / spoken >= 0.87


def audible(wanted: list[Spoken], found: list[tuple[int, float, float]]) -> list[Spoken]:
    """Without those of less than 60 ms that were not heard: the corpus times single sounds with 10 ms."""
    kept: list[Spoken] = []
    tones = [tone for tone, _, _ in found]
    for form in wanted:
        if form.end - form.start >= 0.06 or form.tone == (tones[len(kept)] if len(kept) < len(tones) else None):
            kept.append(form)
    return kept


def test_every_segment_holds_exactly_the_words_of_its_text(case: Case) -> None:
    """No ignored and no guessed text, every timed word of the text in the sound within 20 ms, and no other."""
    position = compared = 0
    waveforms = iter(SWCDataset(case.root)[0].waveforms)
    for segment, _ in reading(case):
        own = letters(re.sub(r"[\[(]?\[ ?\d+ ?\]", "", segment.text))
        place = case.text.find(own, position)
        assert 0 <= place < position + 3000, f"not in the document where it should be: {segment.text}"
        position = place + len(own)
        wanted = [form for form in case.forms if place <= form.first_letter and form.last_letter <= position]
        found = heard(next(waveforms))
        wanted = audible(wanted, found)
        assert [tone for tone, _, _ in found] == [form.tone for form in wanted], segment.text
        neighbours = [(None, -1.0, -1.0), *found, (None, 1e9, 1e9)]
        for form, (_, start, end), before, after in zip(wanted, found, neighbours, neighbours[2:], strict=False):
            compared += 1
            # Where words overlap, the louder tone hides the other one's edge.
            if start - before[2] > LONGEST_OVERLAP:
                assert segment.start + start == pytest.approx(form.start, abs=0.02)
            if after[1] - end > LONGEST_OVERLAP:
                assert segment.start + end == pytest.approx(form.end, abs=0.02)
    assert compared > 0.93 * len(case.forms)


def test_context_is_what_the_article_offers(case: Case) -> None:
    article = read_article(case.folder, case.root)
    for piece in reading(case):
        context = piece.segment.context
        assert context.title == case.folder.name
        assert context.categories == article.categories
        assert len(context.keywords) > 20
        assert piece.segment.language == "de"
        assert piece.segment.licence == "CC-BY-SA"
        assert piece.segment.source == f"https://de.wikipedia.org/wiki/{case.folder.name}"
        assert piece.segment.speaker in ("ahoek", "cartaphilus")
        assert not (piece.segment.is_lead and context.lead)
