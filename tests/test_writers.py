"""Output formats: byte for byte openai-whisper's, and nothing half written."""

import csv
import dataclasses
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwjax.errors import CwjaxError
from cwjax.inference.transcript import Segment, Transcript, Word
from cwjax.inference.writers import FORMATS, OPENAI_FORMATS, SubtitleLayout, save_transcript, timestamp

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
    paths = [save_transcript(transcript, ours / f"talk.2.{suffix}", layout) for suffix in OPENAI_FORMATS]
    utils.get_writer("all", str(theirs))(
        transcript.to_dict(),
        "folder/talk.2.ogg",
        max_line_width=layout.max_line_width,
        max_line_count=layout.max_line_count,
        max_words_per_line=layout.max_words_per_line,
        highlight_words=layout.highlight_words,
    )

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
    path = save_transcript(speech("the queen bee lays", "her eggs"), tmp_path / "bees.srt", layout)
    assert path.read_text(encoding="utf-8") == (
        "1\n00:00:00,000 --> 00:00:04,000\nthe queen\nbee lays\n\n2\n00:00:04,000 --> 00:00:08,000\nher eggs\n\n"
    )
    path = save_transcript(speech("a b"), tmp_path / "bees.VTT", SubtitleLayout(highlight_words=True))
    assert path.read_text(encoding="utf-8") == (
        "WEBVTT\n\n00:00.000 --> 00:02.000\n<u>a</u> b\n\n00:02.000 --> 00:04.000\na <u>b</u>\n\n"
    )


def test_segments_of_which_one_lacks_word_times_are_left_whole(tmp_path):
    first, second = speech("the queen bee").segments[0], speech("a", "b", words=False).segments[1]
    mixed = Transcript("", (first, second), "en")
    path = save_transcript(mixed, tmp_path / "mixed.vtt", SubtitleLayout(max_words_per_line=1))
    assert path.read_text() == "WEBVTT\n\n00:00.000 --> 00:04.000\nthe queen bee\n\n00:04.000 --> 00:08.000\nb\n\n"


def written(transcript: Transcript, folder: Path, suffix: str, **layout) -> str:
    with transcript.save(folder / f"talk.{suffix}", **layout).open(encoding="utf-8", newline="") as file:
        return file.read()


def two_speakers(words: bool = True) -> Transcript:
    segments = speech('the "queen"\tbee', "lays", "eggs, many", words=words).segments
    names = ("left", "left", "channel 3")
    said = tuple(dataclasses.replace(one, speaker=name) for one, name in zip(segments, names, strict=True))
    return Transcript("".join(one.text for one in said), said, "en")


def test_tables_can_be_read_back(tmp_path):
    text = written(two_speakers(), tmp_path, "csv")
    assert text == (
        'start,end,text,speaker\n0,4000,"the ""queen""\tbee","left"\n4000,8000,"lays","left"\n'
        '8000,12000,"eggs, many","channel 3"\n'
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["text"] for row in rows] == [one.text.strip() for one in two_speakers().segments]
    assert written(speech("a", "b"), tmp_path, "csv") == 'start,end,text\n0,4000,"a"\n4000,8000,"b"\n'
    assert written(two_speakers(), tmp_path, "tsv").splitlines() == [
        "start\tend\ttext\tspeaker",
        '0\t4000\tthe "queen" bee\tleft',
        "4000\t8000\tlays\tleft",
        "8000\t12000\teggs, many\tchannel 3",
    ]


def test_lyrics(tmp_path):
    first, second, third = speech("the\nqueen", "bee", "lays").segments
    late = dataclasses.replace(third, start=6059.999, speaker="left")
    transcript = Transcript("", (first, dataclasses.replace(second, start=59.996), late), "en")
    assert written(transcript, tmp_path, "lrc") == "[00:00.00]the queen\n[01:00.00]bee\n[101:00.00]left: lays\n"


@pytest.mark.parametrize("words", [True, False])
def test_speakers_in_subtitles_and_text(tmp_path, words):
    transcript = two_speakers(words)
    assert written(transcript, tmp_path, "txt") == 'left: the "queen"\tbee\nleft: lays\nchannel 3: eggs, many\n'
    blank = '"queen"' + (" " if words else "\t") + "bee"
    assert written(transcript, tmp_path, "vtt") == (
        f"WEBVTT\n\n00:00.000 --> 00:04.000\n<v left>the {blank}\n\n"
        "00:04.000 --> 00:08.000\n<v left>lays\n\n00:08.000 --> 00:12.000\n<v channel 3>eggs, many\n\n"
    )
    assert written(transcript, tmp_path, "srt").split("\n\n")[2] == (
        "3\n00:00:08,000 --> 00:00:12,000\nchannel 3: eggs, many"
    )
    odd = dataclasses.replace(transcript.segments[1], speaker="a>\nb")
    assert "<v a b>lays" in written(Transcript("", (odd,), "en"), tmp_path, "vtt")


def test_no_subtitle_holds_two_speakers(tmp_path):
    """Where words flow from one subtitle into the next."""
    text = written(two_speakers(), tmp_path, "srt", max_line_width=80, max_line_count=2)
    cues = [cue.split("\n")[2:] for cue in text.rstrip().split("\n\n")]
    assert cues == [['left: the "queen" bee', "lays"], ["channel 3: eggs, many"]] or cues == [
        ['left: the "queen" bee lays'],
        ["channel 3: eggs, many"],
    ]


def test_an_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    save_transcript(speech("old"), tmp_path / "talk.txt")

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CwjaxError, match=r"talk\.txt: cannot be written \(No space left on device\)"):
        save_transcript(speech("new and longer"), tmp_path / "talk.txt")
    monkeypatch.undo()
    assert (tmp_path / "talk.txt").read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["talk.txt"]


def test_the_longest_name_of_a_file_can_be_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    assert save_transcript(speech("a"), path).read_text() == "a\n"
    umask = os.umask(0o022)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(CwjaxError, match="choose another folder") as caught:
            save_transcript(speech("a"), directory / "talk.json")
        assert str(directory) in str(caught.value)
        assert "\n" not in str(caught.value)
    for name in ("talk.doc", "talk"):
        with pytest.raises(CwjaxError, match=rf"{name}: is no format of transcripts; end the name in \.txt, \.vtt"):
            save_transcript(speech("a"), tmp_path / name)
    assert set(OPENAI_FORMATS) < FORMATS.keys()


@pytest.mark.parametrize("name", ["max_line_width", "max_line_count", "max_words_per_line"])
def test_limits_are_at_least_one(name):
    with pytest.raises(CwjaxError, match="--" + name.replace("_", "-")):
        SubtitleLayout(**{name: 0})
