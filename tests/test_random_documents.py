"""Random documents, drawn from the schema of the Spoken Wikipedia: what holds for the segments of any of them."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.article import read_article
from cwjax.data.corpora.swc.segmentation import segment_article
from cwjax.data.prepared.windows import gathered
from cwjax.data.segment import segment_of
from cwjax.errors import CwjaxError

SCHEMA = Path(__file__).parent / "data" / "swc.rng"


class DocumentWriter:
    """Draws a document that the schema allows; every word of its text is a running number."""

    def __init__(self, draw) -> None:
        self._draw = draw
        self._clock = 0
        self.words = 0

    def some(self, most: int) -> int:
        return self._draw(st.integers(0, most))

    def odds(self, one_in: int) -> bool:
        return self._draw(st.integers(1, one_in)) == one_in

    def times(self) -> str:
        """Mostly plausible times, some missing, some far too short or long, some overlapping."""
        if self.odds(5):
            self._clock += 300
            return ""
        start = max(0, self._clock + self._draw(st.sampled_from([0, 0, 50, 200, 400, -40, 2500, 9000])))
        length = self._draw(st.sampled_from([200, 300, 400, 300, 10, 4000]))
        self._clock = start + length
        return f' start="{start}" end="{start + length}"'

    def token(self, kind: str) -> str:
        if self.odds(6):
            return self._draw(st.sampled_from(["<t>,</t>", "<t>–<n pronunciation='–'/></t>", "<t>“</t>"]))
        if kind == "text":
            self.words += 1
            surface = f"w{self.words}"
        else:
            surface = kind
        times = self.times if kind == "text" else str
        norms = "".join(f'<n pronunciation="norm"{times()}/>' for _ in range(1 + self.some(1)))
        return f"<t>{surface}{norms}</t>"

    def sentence(self, kind: str) -> str:
        space = self._draw(st.sampled_from([" ", "\n", "\u00a0"]))
        tokens = space.join(self.token(kind) for _ in range(1 + self.some(6)))
        return f"<s>{tokens}<t>.</t></s>" + self._draw(st.sampled_from(["", " "]))

    def extra(self) -> str:
        return "<extra text='EXTRA'><s text='EXTRA'><t text='EXTRA'><n pronunciation='EXTRA'/></t></s></extra>"

    def section(self, kind: str, depth: int) -> str:
        edit = f"<ignored>{self.token('IGNORED')}</ignored>" if self.odds(2) else ""
        title = self.token(kind)
        content = self.blocks(["s", "p", "ignored", "section"], kind, depth - 1)
        return (
            f"<section level='{4 - depth}'><sectiontitle>{title}{edit}</sectiontitle>"
            f"<sectioncontent>{content}</sectioncontent></section>"
        )

    def blocks(self, allowed: list[str], kind: str, depth: int) -> str:
        blocks = []
        for _ in range(1 + self.some(3)):
            block = self._draw(st.sampled_from(allowed if depth > 0 else ["s"]))
            if block == "s":
                blocks.append(self.sentence(kind))
            elif block == "p":
                blocks.append(f"<p>{self.blocks(['s', 's', 'ignored', 'p'], kind, depth - 1)}</p>")
            elif block == "ignored":
                blocks.append(f"<ignored>{self.blocks(['s', 'p', 'section'], 'IGNORED', depth - 1)}</ignored>")
            elif block == "section":
                blocks.append(self.section(kind, depth))
            else:
                blocks.append(self.extra())
        return "".join(blocks)


@st.composite
def documents(draw) -> tuple[str, int]:
    """An `aligned.swc`, and how many words its text has."""
    writer = DocumentWriter(draw)
    body = writer.blocks(["s", "p", "p", "ignored", "section", "extra"], "text", 3)
    body += writer.sentence("text")
    second = draw(st.sampled_from(["5.0", "12.345", "60.0"]))
    meta = "".join(
        f'<prop key="DC.source.audio.offset" value="{value}" group="audio{number}"/>'
        for number, value in ((1, "0.0"), (2, second))
    )
    return f"<article><meta>{meta}</meta><d>{body}</d></article>", writer.words


@settings(max_examples=40)
@given(documents(), st.sampled_from([2.5, 8.0, 30.0]))
def test_random_documents(document_and_words, max_duration):
    document, words = document_and_words
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    plain = "".join(" " if letter.isspace() else letter for letter in document)
    assert schema.validate(etree.fromstring(plain.encode())), schema.error_log
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "aligned.swc").write_text(document, encoding="utf-8")
        if not words:
            with pytest.raises(CwjaxError, match="no words"):
                read_article(Path(folder), require_audio=False)
            return
        article = read_article(Path(folder), require_audio=False)
    assert numbers_in(article.text) == list(range(1, words + 1))

    limits = SegmentationSettings(
        max_duration=max_duration,
        min_timed_ratio=0,
        min_coverage=0,
        min_rate=0,
        max_rate=1e9,
        min_characters_per_second=0,
        max_characters_per_second=1e9,
    )
    result = segment_article(article, limits)
    border = article.audio_parts[1].offset
    segments = []
    for track in result.tracks:
        offset = 0.0 if track.audio == article.audio_parts[0].path else border
        for said in gathered(track.supervisions, max_duration):
            one = segment_of(said, result.facts, int(offset > 0))
            segments.append(replace(one, start=one.start + offset, end=one.end + offset))
            for each in said:
                assert 0 <= each.start < each.end
                times = [time for timed in each.words for time in (timed.start, timed.end)]
                assert all(each.start <= time <= each.end for time in times)
                assert numbers_in(" ".join(timed.text for timed in each.words)) == numbers_in(each.text)
    last_word, last_end = 0, 0.0
    for one in segments:
        assert one.duration <= max_duration + 1e-6
        assert 0 <= one.start < one.end
        assert one.start >= border - 1e-6 if one.recording else one.end <= border + 1e-6
        assert one.start >= last_end - 1e-6, "segments share no sound"
        assert "IGNORED" not in one.text
        assert "EXTRA" not in one.text
        inside = numbers_in(one.text)
        assert inside == list(range(inside[0], inside[-1] + 1))
        assert inside[0] > last_word
        last_word, last_end = inside[-1], one.end
        assert one.text == " ".join(piece.text for piece in one.utterances)
        edges = [time for piece in one.utterances for time in (piece.start, piece.end)]
        assert edges == sorted(edges)
        assert edges[0] >= 0
        assert edges[-1] <= one.duration + 1e-6
    assert len({one.id for one in segments}) == len(segments)


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"w(\d+)", text)]
