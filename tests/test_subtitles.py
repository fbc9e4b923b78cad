"""Subtitles as people have them: nothing said is lost, moved or said twice, and nothing else gets into texts."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from segmented import listed

from cwjax.data.corpora import subtitles
from cwjax.data.corpora.reader import Reading
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.subtitles import read_cues
from cwjax.errors import CwjaxError

LIMITS = SegmentationSettings()


def cues(tmp_path: Path, text: str, name: str = "a.srt", **options) -> list[tuple]:
    (tmp_path / name).write_text(text)
    return [(one.start, one.end, one.text) for one in read_cues(tmp_path / name, **options)]


def one(text: str, number: int = 1) -> str:
    return f"{number}\n00:00:0{number},000 --> 00:00:0{number},900\n{text}\n\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (one("first\n\nsecond part") + one("third", 3), ["first second part", "third"]),
        (one("first\n \nsecond part") + one("third", 3), ["first second part", "third"]),
        ("".join(one(word, place).replace("\n\n", "\n") for place, word in enumerate("abc", 1)), ["a", "b", "c"]),
        ("".join(one(word, place)[2:] for place, word in enumerate("abc", 1)), ["a", "b", "c"]),
        (one("in the year\n1984") + one("so it was\n1985", 2), ["in the year 1984", "so it was 1985"]),
        (one("a").replace("\n", "\n\n") + one("b", 2).replace("\n", "\n\n"), ["a", "b"]),
        (one("I <3 you <i>and</i> them & {\\an8}us"), ["I <3 you and them & us"]),
        (one("\ufeffa"), ["\ufeffa"]),
        (one("x --> y is an arrow"), ["x --> y is an arrow"]),
    ],
)
def test_every_text_stays_in_its_subtitle(tmp_path: Path, text: str, said: list[str]) -> None:
    assert [cue[-1] for cue in cues(tmp_path, text)] == said


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:01 --> 00:00:02", 1.0, 2.0),
        ("0:01 --> 0:02.5", 1.0, 2.5),
        ("-00:00:01,000 --> 00:00:02,000", 0.0, 2.0),
        ("01:02:03,004 --> 01:02:05,5 X1:40", 3723.004, 3725.5),
        ("00:00:01.25-->00:00:02.5", 1.25, 2.5),
    ],
)
def test_times(tmp_path: Path, times: str, start: float, end: float) -> None:
    assert cues(tmp_path, f"1\n{times}\nhello\n") == [(start, end, "hello")]


def test_web_vtt_has_names_notes_and_styles(tmp_path: Path) -> None:
    text = (
        "WEBVTT - a talk\n\nNOTE nobody\nsays this\n\nSTYLE\n::cue { color: red }\n\nthe first\n"
        "00:01.000 --> 00:02.000 align:start\n<v.loud Jo Reader>hi &amp; <c.red>there</c>\n\nNOTE nor this\n\n"
        "the second\n00:03.000 --> 00:04.000\nNOTE it well\n"
    )
    assert cues(tmp_path, text, "a.vtt") == [(1.0, 2.0, "hi & there"), (3.0, 4.0, "NOTE it well")]
    assert read_cues(tmp_path / "a.vtt")[0].speaker == "Jo Reader"


def test_sub_station_alpha(tmp_path: Path) -> None:
    text = (
        "[Script Info]\nScriptType: v4.00+\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not said\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,Default,Jo,0,0,0,,{\\i1}so{\\i0}\\Nit is\n"
    )
    assert cues(tmp_path, text, "a.ass") == [(1.0, 2.0, "so it is")]
    assert read_cues(tmp_path / "a.ass")[0].speaker == "Jo"


def test_what_is_said_twice_stays(tmp_path: Path) -> None:
    text = one("Is it?") + one("Yes.", 2) + one("Yes.", 3) + one("Yes.\nNo.", 4) + one("Oh.", 5) + one("Well.", 6)
    assert [cue[-1] for cue in cues(tmp_path, text)] == ["Is it?", "Yes.", "Yes.", "Yes. No.", "Oh.", "Well."]


def test_what_rolls_is_given_once(tmp_path: Path) -> None:
    lines = ["first words", "second words", "third words", "fourth words"]
    text = "WEBVTT\n\n"
    for place, line in enumerate(lines):
        before = lines[place - 1] if place else " "
        text += f"00:0{place}.010 --> 00:0{place}.990\n{before}\n{line}\n\n"
        text += f"00:0{place}.990 --> 00:0{place + 1}.010\n{line}\n \n\n"
    assert [cue[-1] for cue in cues(tmp_path, text, "a.vtt")] == lines


@pytest.mark.parametrize(
    ("text", "said", "kept"),
    [
        ("JOHN: So it is.", "So it is.", "JOHN: So it is."),
        ("DR. O'NEIL-SMITH:\nSo.", "So.", "DR. O'NEIL-SMITH: So."),
        ("(Applause) Thank you [laughs]", "Thank you", "(Applause) Thank you [laughs]"),
        ("- Is it?\n- Yes.", "Is it? Yes.", "- Is it? - Yes."),
        (">> So.\n-Oh.", "So. Oh.", ">> So. -Oh."),
        ("Note: it is -5 at 10:30", "Note: it is -5 at 10:30", "Note: it is -5 at 10:30"),
        ("-5 degrees", "-5 degrees", "-5 degrees"),
        ("♪ la la ♪", "la la", "la la"),
    ],
)
def test_marks_that_nobody_says(tmp_path: Path, text: str, said: str, kept: str) -> None:
    assert [cue[-1] for cue in cues(tmp_path, one(text))] == [said]
    assert [cue[-1] for cue in cues(tmp_path, one(text), keep_marks=True)] == [kept]


def test_marked_names_are_speakers(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(one("JOHN: So it is."))
    assert read_cues(tmp_path / "a.srt")[0].speaker == "JOHN"


def readings(root: Path, limits: SegmentationSettings = LIMITS) -> tuple[list[Reading], list[str]]:
    found, problems = [], []
    for unit in subtitles.articles(root):
        try:
            found.append(subtitles.read(root, unit, limits))
        except CwjaxError as error:
            problems.append(str(error))
    return found, problems


def film(root: Path, *names: str, audio: str = "film.wav") -> None:
    soundfile.write(root / audio, np.zeros(160_000), 16_000, format="WAV")
    for name in names:
        (root / name).write_text(one(f"from {name.split('.')[-2]}"))


def test_one_language_is_chosen(tmp_path: Path) -> None:
    film(tmp_path, "film.de.srt", "film.en.srt")
    assert readings(tmp_path) == (
        [],
        [f"{tmp_path}/film.wav: has subtitles in several languages (de, en); choose one with --language"],
    )
    for name, code in (("de", "de"), ("English", "en")):
        ((reading,), problems) = readings(tmp_path, dataclasses.replace(LIMITS, language=name))
        assert [(one.text, one.language) for one in listed(reading)] == [(f"from {code}", code)]
        assert not problems


@pytest.mark.parametrize(
    ("name", "audio", "language"),
    [
        ("film.SRT", "film.WAV", "en"),
        ("film.eng.srt", "film.wav", "en"),
        ("Film.pt-BR.srt", "film.wav", "pt"),
        ("film.german.srt", "film.wav", "de"),
        ("film.de.sdh.srt", "film.wav", "de"),
        ("film.forced.srt", "film.wav", "en"),
        ("Dr.No.srt", "Dr.No.wav", "en"),
        ("film.srt", "film.mp4", "en"),
    ],
)
def test_names_that_go_together(tmp_path: Path, name: str, audio: str, language: str) -> None:
    film(tmp_path, name, audio=audio)
    ((reading,), problems) = readings(tmp_path)
    assert [one.language for one in listed(reading)] == [language], problems


def test_two_forms_of_the_same_subtitles_are_one(tmp_path: Path) -> None:
    film(tmp_path, "film.srt", "film.vtt", "other.srt")
    ((reading,), problems) = readings(tmp_path)
    assert len(listed(reading)) == 1
    assert reading.warnings == (f"{tmp_path}/film.vtt: is not read, for another file of the same subtitles is",)
    assert problems == [f"{tmp_path}/other.srt: has no audio beside it (other.wav, .flac, .ogg, .mp3 or the like)"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.srt").write_text(one("Grüße"), encoding=encoding)
    assert read_cues(tmp_path / "a.srt")[0].text == "Grüße"


@pytest.mark.parametrize(
    "text", ["<v a" * 50_000, "<v " + " " * 200_000, "(" * 200_000, "<a" * 100_000, "- " * 100_000]
)
def test_time_grows_with_the_length_of_a_text(tmp_path: Path, text: str) -> None:
    start = time.process_time()
    cues(tmp_path, one(f"so {text}"))
    assert time.process_time() - start < 5, "a hundred times as long if it grew with the square"


@pytest.mark.parametrize(("language", "text"), [("zh", "你好，世界。"), ("en", "你好， 世界。")])
def test_lines_are_joined_as_their_language_is_written(tmp_path, language, text):
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n你好，\n世界。\n", encoding="utf-8")
    assert [one.text for one in read_cues(tmp_path / "a.srt", language=language)] == [text]
