"""Output formats: byte for byte openai-whisper's, and nothing half written."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwjax.errors import CwjaxError
from cwjax.inference.transcript import Segment, Transcript, Word
from cwjax.inference.writers import FORMATS, SubtitleLayout, timestamp, write_transcript

PIECES = [" ", "a", " bee", " keeping", "-->", " --> ", "\t", "\n", "\r\n", " zwölf", "養", "蜂", "🐝", "<b>", " &"]
CHARACTERS = st.characters(exclude_categories=("Cs",))
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(CHARACTERS, max_size=4)), max_size=5).map("".join)
times = st.one_of(st.floats(0, 20_000), st.integers(0, 4_000_000).map(lambda step: step * 0.0005))
limits = st.one_of(st.none(), st.integers(1, 30))
layouts = st.builds(SubtitleLayout, limits, st.one_of(st.none(), st.integers(1, 3)), limits, st.booleans())


@st.composite
def transcripts(draw: st.DrawFn, max_words: int = 12) -> Transcript:
    with_words = draw(st.booleans())
    segments, now = [], 0.0
    for number in range(draw(st.integers(0, 4))):
        words = []
        for _ in range(draw(st.integers(0, max_words)) if with_words else 0):
            start = now + draw(st.sampled_from([0, 0.0004, 0.2, 3.0, 3.1, 3600]))
            now = start + draw(st.sampled_from([0, 0.0005, 0.31, 1.7]))
            words.append(Word(draw(texts), start, now, draw(st.floats(0, 1))))
        start = draw(times)
        segments.append(
            Segment(
                id=number,
                seek=draw(st.integers(0, 10**6)),
                start=start,
                end=start + draw(st.floats(0, 30)),
                text=draw(texts),
                tokens=tuple(draw(st.lists(st.integers(0, 51865), max_size=4))),
                temperature=draw(st.sampled_from([0.0, 0.2, 1.0])),
                avg_logprob=draw(st.floats(-20, 0)),
                compression_ratio=draw(st.floats(0, 40)),
                no_speech_prob=draw(st.floats(0, 1)),
                words=tuple(words) if with_words else None,
            )
        )
    return Transcript("".join(one.text for one in segments), tuple(segments), draw(st.sampled_from(["en", "de"])))


@given(transcript=transcripts(), layout=layouts)
def test_every_format_is_byte_for_byte_openai_whispers(tmp_path_factory, transcript, layout):
    utils = pytest.importorskip("whisper.utils")
    ours, theirs = (tmp_path_factory.getbasetemp() / name for name in ("ours", "theirs"))
    for directory in (ours, theirs):
        directory.mkdir(exist_ok=True)
    paths = write_transcript(transcript, ours, "talk.2", list(FORMATS), layout)
    utils.get_writer("all", str(theirs))(
        transcript.to_dict(),
        "folder/talk.2.ogg",
        max_line_width=layout.max_line_width,
        max_line_count=layout.max_line_count,
        max_words_per_line=layout.max_words_per_line,
        highlight_words=layout.highlight_words,
    )
    assert [path.name for path in paths] == [f"talk.2.{suffix}" for suffix in ("txt", "vtt", "srt", "tsv", "json")]
    for path in paths:
        assert path.read_bytes() == (theirs / path.name).read_bytes(), path.suffix


@given(seconds=times, always_hours=st.booleans(), marker=st.sampled_from(",."))
def test_timestamps_are_openai_whispers(seconds, always_hours, marker):
    utils = pytest.importorskip("whisper.utils")
    assert timestamp(seconds, marker, always_hours) == utils.format_timestamp(seconds, always_hours, marker)


def speech(*texts: str, words: bool = True) -> Transcript:
    """Segments of four seconds, their words evenly in them."""
    segments = []
    for number, text in enumerate(texts):
        said = text.split()
        each = 4 / max(len(said), 1)
        begin = 4.0 * number
        timed = tuple(Word(f" {one}", begin + i * each, begin + (i + 1) * each, 0.9) for i, one in enumerate(said))
        segments.append(
            Segment(number, 0, begin, begin + 4, f" {text}", (1,), 0.0, -0.1, 1.0, 0.0, timed if words else None)
        )
    return Transcript("".join(one.text for one in segments), tuple(segments), "en")


def test_a_subtitle_by_hand(tmp_path):
    """What openai-whisper would write is known here without it."""
    layout = SubtitleLayout(max_line_width=9, max_line_count=2)
    (path,) = write_transcript(speech("the queen bee lays", "her eggs"), tmp_path, "bees", ["srt"], layout)
    assert path.read_text(encoding="utf-8") == (
        "1\n00:00:00,000 --> 00:00:04,000\nthe queen\nbee lays\n\n2\n00:00:04,000 --> 00:00:08,000\nher eggs\n\n"
    )
    (path,) = write_transcript(speech("a b"), tmp_path, "bees", ["vtt"], SubtitleLayout(highlight_words=True))
    assert path.read_text(encoding="utf-8") == (
        "WEBVTT\n\n00:00.000 --> 00:02.000\n<u>a</u> b\n\n00:02.000 --> 00:04.000\na <u>b</u>\n\n"
    )


def test_segments_of_which_one_lacks_word_times_are_left_whole(tmp_path):
    first, second = speech("the queen bee").segments[0], speech("a", "b", words=False).segments[1]
    mixed = Transcript("", (first, second), "en")
    (path,) = write_transcript(mixed, tmp_path, "mixed", ["vtt"], SubtitleLayout(max_words_per_line=1))
    assert path.read_text() == "WEBVTT\n\n00:00.000 --> 00:04.000\nthe queen bee\n\n00:04.000 --> 00:08.000\nb\n\n"


def test_an_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    write_transcript(speech("old"), tmp_path, "talk", ["txt"])
    real = Path.write_text

    def half(path: Path, text: str, **options) -> int:
        real(path, text[:3], **options)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(CwjaxError, match=r"talk\.txt: cannot be written \(No space left on device\)"):
        write_transcript(speech("new and longer"), tmp_path, "talk", ["txt"])
    monkeypatch.undo()
    assert (tmp_path / "talk.txt").read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["talk.txt"]


def test_a_directory_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(CwjaxError, match="--output-dir") as caught:
            write_transcript(speech("a"), directory, "talk", ["json"])
        assert str(directory) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["max_line_width", "max_line_count", "max_words_per_line"])
def test_limits_are_at_least_one(name):
    with pytest.raises(CwjaxError, match="--" + name.replace("_", "-")):
        SubtitleLayout(**{name: 0})
