"""Tables and subtitles of one's own recordings as a corpus: text, times and context come out, and the sound."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_corpora import LIMITS, own_files, prepare, recording, report, require_sound, words
from sounding import heard, word

from cwjax.data.corpora.subtitles import read_cues
from cwjax.data.prepared import build


@pytest.mark.parametrize("table", ["list.jsonl", "list.csv", "list.tsv"])
def test_own_table(tmp_path: Path, table: str) -> None:
    own_files(tmp_path / "root", table)
    corpus = prepare("manifest", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    first, later, whole = corpus.segments
    assert (first.text, first.start, first.end, first.article) == (words(1, 2), 0.4, 1.3, "talks/bees.wav")
    assert (first.context.title, first.context.lead, first.language) == ("Bee keeping", "", "en")
    assert later.context.previous == words(1, 2)
    assert (whole.id, whole.start, whole.end, whole.speaker, whole.split) == ("b1", 0.0, 0.8, "Jo", "test")
    context = whole.context
    assert (context.title, context.lead, context.section) == ("Boats", "Said by the lake.", ("Lake", "Pier"))
    assert (context.categories, context.keywords) == (("Water", "Wood"), ("Lake Como", "oar"))
    assert (whole.language, whole.licence, whole.source) == ("de", "CC0", "https://example.org")


def test_own_table_names_what_is_wrong(tmp_path: Path) -> None:
    root = tmp_path / "root"
    own_files(root)
    recording(root / "b.wav", (1, 0.5), (2, 1.5))
    rows = [
        {"audio": "b.wav", "start": 0.4, "end": 0.9, "text": word(1)},
        {"audio": "b.wav", "start": "soon", "end": 0.9, "text": "what"},
        {"audio": "b.wav", "start": 1.4, "end": 900, "text": "too late"},
        {"audio": "b.wav", "start": 1.9, "end": 1.4, "text": "backwards"},
        {"audio": "b.wav", "start": 1.4, "end": 1.9, "text": "12 …"},
        {"audio": "b.wav", "start": 1.4, "end": 1.9, "text": "words " * 40},
        {"audio": "nowhere.wav", "text": "lost"},
        {"audio": "b.wav", "article": "ms", "start": 400, "end": 900, "text": word(1)},
        {"audio": "b.wav", "article": "ms", "start": 1400, "end": 1900, "text": word(2)},
        {"audio": "b.wav", "article": "odd", "text": word(2), "split": "holdout"},
    ]
    lines = [json.dumps(row) for row in rows]
    (root / "list.jsonl").write_text("\n".join([*lines[:3], "{no json", "[1]", *lines[3:]]) + "\n")
    corpus = prepare("manifest", root, tmp_path / "out")
    require_sound(corpus)
    assert [segment.text for segment in corpus.segments] == [word(1)]
    said = report(tmp_path / "out")
    article = said["articles"]["list.jsonl: b.wav"]
    assert set(article["dropped_seconds"]) == {"times", "no_letters", "too_fast"}
    assert "start is 'soon'" in said["warnings"]["list.jsonl: b.wav"][0]
    reasons = said["failures"]
    assert "not milliseconds" in reasons["list.jsonl: ms"]
    assert "its split is 'holdout'" in reasons["list.jsonl: odd"]
    assert "no such audio file" in reasons["list.jsonl: nowhere.wav"]
    assert {name.rpartition(":")[2] for name in reasons if "root/list.jsonl:" in name} == {"4", "5"}


SUBRIP = """1
00:00:00,400 --> 00:00:01,300
<i>{one}</i>
{two}

2
00:00:01,400 --> 00:00:02,000
[Music] ♪

3
00:00:02,400 --> 00:00:02,900 X1:40
{{\\an8}}{three} &amp; {{\\an8}}
"""


WEBVTT = """WEBVTT

NOTE nobody says this

STYLE
::cue {{ color: red }}

first
00:00.400 --> 00:02.400 align:start
<v Jo Reader>{one}</v>
<c.red>{two}</c>

00:02.400 --> 00:02.900
{two}
{three}
"""


def test_own_subtitles(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a/Bee_keeping.wav", "Boats.flac"):
        recording(root / name, (1, 0.5), (2, 1.0), (3, 2.5))
    names = {"one": word(1), "two": word(2), "three": word(3)}
    (root / "a" / "Bee_keeping.de.srt").write_bytes(SUBRIP.format(**names).replace("\n", "\r\n").encode("utf-8-sig"))
    (root / "a" / "Bee_keeping.txt").write_text("A keeper tells\nof bees.")
    (root / "Boats.vtt").write_text(WEBVTT.format(**names))
    (root / "lonely.srt").write_text(SUBRIP.format(**names))
    (root / "Boats.srt").write_text("nothing to see")
    corpus = prepare("subtitles", root, tmp_path / "out")
    segments = list(corpus.segments)
    assert [one.text for one in segments] == [words(1, 2), words(3), words(1, 2), f"{word(3)} &"]
    assert [(one.start, one.end) for one in segments] == [(0.4, 2.4), (2.4, 2.9), (0.4, 1.3), (2.4, 2.9)]
    for place in range(4):
        tones = [word(number) for number, _, _ in heard(corpus.audio(place))]
        assert tones == segments[place].text.replace(" &", "").split()
    boats, bees = segments[0], segments[2]
    assert (boats.speaker, segments[1].speaker, boats.language) == ("Boats/Jo Reader", "", "en")
    assert (bees.context.title, bees.context.lead, bees.language) == ("Bee keeping", "A keeper tells of bees.", "de")
    assert (segments[1].context.previous, boats.article) == (words(1, 2), "Boats")
    failures = report(tmp_path / "out")["failures"]
    assert "has no audio beside it" in failures["lonely.srt"]
    assert "holds no subtitles" in report(tmp_path / "out")["warnings"]["Boats.srt"][0]


def test_subtitles_of_more_than_an_hour(tmp_path: Path) -> None:
    (tmp_path / "x.srt").write_text("1\n01:02:03,004 --> 01:02:05,5\nHello\n")
    assert read_cues(tmp_path / "x.srt")[0][:2] == (3723.004, 3725.5)


def test_windows_hold_as_much_as_the_model_hears(tmp_path: Path) -> None:
    """What alone is longer is not lost, for it may be of a test set."""
    own_files(tmp_path / "root")
    whole = build.prepare("manifest", tmp_path / "root", tmp_path / "out")
    assert [(one.text, one.start, one.end) for one in whole.segments] == [(words(1, 2, 3), 0.4, 2.9), (word(7), 0, 0.8)]
    short = build.prepare("manifest", tmp_path / "root", tmp_path / "out", replace(LIMITS, max_duration=1.5))
    assert [one.text for one in short.segments] == [words(1, 2), word(3), word(7)]
