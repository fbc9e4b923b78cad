"""Tables as people keep them: odd encodings, marks and values lose no row but their own, and say which."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from segmented import listed

from cwjax.data.corpora import manifest
from cwjax.data.corpora.registry import require_corpus
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError


def recordings(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.zeros(32_000), 16_000)


def read_all(root: Path) -> tuple[list[Segment], list[str]]:
    """All segments of a folder, and everything that is said to be wrong."""
    require_corpus("manifest", root)
    segments, problems = [], []
    for unit in manifest.articles(root):
        try:
            reading = manifest.read(root, unit, SegmentationSettings())
            segments += [
                (track.audio, segment)
                for track in reading.tracks
                for segment in listed(replace(reading, tracks=(track,)))
            ]
            problems += [*reading.warnings, *(f"{unit.name}: {reason}" for reason in reading.dropped)]
        except CwjaxError as error:
            problems.append(str(error))
    return [segment for _, segment in sorted(segments, key=lambda one: one[0])], problems


def texts(root: Path) -> list[str]:
    return [segment.text for segment in read_all(root)[0]]


@pytest.mark.parametrize(
    ("name", "row", "text"),
    [
        ("t.csv", 'b.wav,"it goes on', '"it goes on'),
        ("t.tsv", 'b.wav\t"it goes on', '"it goes on'),
        ("t.tsv", 'b.wav\tand "so" on', 'and "so" on'),
        ("t.tsv", 'b.wav\t"so" he said', '"so" he said'),
        ("t.csv", 'b.wav,"one,\ntwo\n\nthree"', "one, two three"),
        ("t.csv", 'b.wav,"it said ""so"""', 'it said "so"'),
    ],
)
def test_quotation_marks_stay_in_their_rows(tmp_path: Path, name: str, row: str, text: str) -> None:
    recordings(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    divider = "\t" if name.endswith("tsv") else ","
    lines = [f"audio{divider}text", f"a.wav{divider}first", row, f"c.wav{divider}third", f'd.wav{divider}"fourth"']
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    assert texts(tmp_path) == ["first", text, "third", "fourth"]


def test_a_comma_too_many_is_named(tmp_path: Path) -> None:
    recordings(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("audio,text\na.wav,well, yes\nb.wav,no\n")
    segments, problems = read_all(tmp_path)
    assert [one.text for one in segments] == ["no"]
    assert problems == [f"{tmp_path}/t.csv:2: has 3 fields, but the head of the table 2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
@pytest.mark.parametrize("divider", [",", ";", "\t"])
def test_encodings_and_dividers(tmp_path: Path, encoding: str, divider: str) -> None:
    recordings(tmp_path, "a.wav", "b.wav")
    lines = [("Audio ", "TEXT"), ("a.wav", "Grüße über"), ("b.wav", "naïve")]
    (tmp_path / "t.csv").write_text("\r\n".join(map(divider.join, lines)), encoding=encoding)
    segments, problems = read_all(tmp_path)
    assert [one.text for one in segments] == ["Grüße über", "naïve"]
    assert [one for one in problems if "Windows-1252" in one] == problems
    assert len(problems) == (encoding in ("cp1252", "latin-1")), "said once"


def test_what_no_file_can_hold(tmp_path: Path) -> None:
    recordings(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = [
        {"audio": "a\0.wav", "text": "nul"},
        {"audio": "a\ud800.wav", "text": "surrogate"},
        {"audio": "a.wav", "text": "half \ud800 of\0 it", "title": "a \udfff title"},
        {"audio": "b.wav", "text": float("nan"), "title": float("nan")},
        {"audio": "c.wav", "text": "words", "title": float("nan"), "split": None, "keywords": [None, "oar"]},
        {"audio": {"path": "c.wav"}, "text": "nested", "start": 1},
        {"audio": ["c.wav"], "text": "a list"},
    ]
    (tmp_path / "t.jsonl").write_text("{half a line\n" + "\n".join(map(json.dumps, rows)))
    segments, problems = read_all(tmp_path)
    assert [one.text for one in segments] == ["half ? of it", "words", "nested"]
    assert [one.context.title for one in segments] == ["a ? title", "", ""]
    assert segments[1].context.keywords == ("oar",)
    for part in ("t.jsonl:1: is no JSON", "t.jsonl:2: the name of its audio", "t.jsonl:3: the name of its audio"):
        assert part in " ".join(problems)
    assert any("no_letters" in problem for problem in problems)
    for unit in manifest.articles(tmp_path):
        assert (unit.name + "".join(unit.audio)).encode().find(b"\0") < 0


def test_a_field_that_is_longer_than_python_expects(tmp_path: Path) -> None:
    recordings(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text(f"audio,text\na.wav,{'long ' * 40_000}\nb.wav,short\n")
    segments, problems = read_all(tmp_path)
    assert [one.text for one in segments] == ["short"]
    assert problems == ["t.csv: a.wav: too_fast"]


def test_rows_of_one_audio_have_their_own_facts(tmp_path: Path) -> None:
    recordings(tmp_path, "a.wav")
    rows = [
        {"audio": "a.wav", "start": 0.0, "end": 0.5, "text": "one", "split": "train", "licence": "CC0"},
        {"audio": "a.wav", "start": 0.5, "end": 1.0, "text": "two", "split": "dev", "language": "German"},
        {"audio": "a.wav", "start": 1.0, "end": 1.5, "text": "three", "split": "train", "source": "here"},
        {"audio": "a.wav", "start": 1.5, "end": 2.0, "text": "four", "split": "holdout"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    segments, problems = read_all(tmp_path)
    assert sorted((one.text, one.split, one.language, one.licence, one.source) for one in segments) == [
        ("one", "train", "en", "CC0", ""),
        ("three", "train", "en", "", "here"),
        ("two", "validation", "de", "", ""),
    ]
    assert len({one.article for one in segments if one.split == "train"}) == 1
    assert len({one.article for one in segments}) == 2, "what is in two splits are two articles"
    assert "t.jsonl:4: its split is 'holdout'" in problems[0]


def test_nemo(tmp_path: Path) -> None:
    recordings(tmp_path, "clips/a.wav")
    rows = [
        {"audio_filepath": "clips/a.wav", "offset": 0.0, "duration": 0.75, "text": "one", "lang": "de"},
        {"audio_filepath": str(tmp_path / "clips/a.wav"), "duration": 2.0, "text": "all"},
    ]
    (tmp_path / "train_manifest.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "settings.json").write_text('{\n"audio_filepath": "x", "text": "no table"}')
    segments, problems = read_all(tmp_path)
    assert sorted((one.text, one.start, one.end, one.language) for one in segments) == [
        ("all", 0.0, 2.0, "en"),
        ("one", 0.0, 0.75, "de"),
    ]
    assert not problems


def test_audio_folders_of_hugging_face(tmp_path: Path) -> None:
    recordings(tmp_path, "train/a.wav", "test/sub/b.wav", "data/validation/c.wav")
    (tmp_path / "train/metadata.csv").write_text("file_name,transcription\na.wav,one\n")
    (tmp_path / "test/metadata.jsonl").write_text('{"file_name": "sub/b.wav", "text": "two"}\n')
    (tmp_path / "data/validation/metadata.csv").write_text("file_name,sentence\nc.wav,three\n")
    segments, problems = read_all(tmp_path)
    assert [(one.text, one.split) for one in segments] == [
        ("three", "validation"),
        ("two", "test"),
        ("one", "train"),
    ], "by the names of their files"
    assert not problems


def test_what_a_table_does_not_say_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text("audio,text\na.wav,so\n")
    (tmp_path / "b.csv").write_text("audio,text,keywords\na.wav,so,oar\n")
    (tmp_path / "c.csv").write_text("file,words\na.wav,so\n")
    require_corpus("manifest", tmp_path)
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert [one.partition(" ")[::2] for one in said] == [
        ("a.csv", said[0].removeprefix("a.csv ")),
        ("c.csv", "is not read: it has no columns audio and text"),
    ]
    assert said[0].startswith("a.csv says nothing about its recordings")


def test_a_million_rows_are_not_held_at_once(tmp_path: Path) -> None:
    """What waits is what belongs to articles that are not complete, not the table."""
    with (tmp_path / "t.csv").open("w") as table:
        table.write("audio,text\n")
        table.writelines(f"{number}.wav,word\n" for number in range(3000))
    units = manifest.articles(tmp_path)
    assert next(units).audio == ("0.wav",)
    waiting = units.gi_frame.f_locals["waiting"]
    assert sum(1 for _ in units) == 2999
    assert len(waiting) == 0
    (tmp_path / "t.csv").write_text("audio,text\na.wav,one\nb.wav,two\na.wav,three\n")
    assert [unit.audio for unit in manifest.articles(tmp_path)] == [("b.wav",), ("a.wav",)]
