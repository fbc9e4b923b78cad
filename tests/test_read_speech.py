"""Corpora that are read aloud: text, times, speakers and context come out, and the sound."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_corpora import (
    LIMITS,
    by_id,
    common_voice,
    libriheavy,
    librispeech,
    mls,
    peoples_speech,
    prepare,
    report,
    require_sound,
    words,
)
from sounding import heard, word

from cwjax.data.corpora import libriheavy as libriheavy_reader
from cwjax.data.corpora import librispeech as librispeech_reader
from cwjax.data.corpora.libriheavy import clean as clean_libriheavy
from cwjax.data.corpora.registry import require_corpus
from cwjax.errors import CwjaxError


def test_librispeech(tmp_path: Path) -> None:
    librispeech(tmp_path / "root")
    corpus = prepare("librispeech", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    segments = by_id(corpus)
    first, second, later = (segments[f"19-198-{number:04d}"] for number in (0, 1, 3))
    assert (first.text, first.speaker, first.article, first.language) == (words(0, 1), "19", "19-198", "en")
    assert (first.context.title, first.context.section) == ("Northanger Abbey", ("Chapter 01",))
    assert (first.split, segments["110-2-0000"].split, segments["7-8-0005"].split) == ("train", "validation", "test")
    assert segments["110-2-0000"].context.section == ("In | Fashion",)
    assert segments["7-8-0005"].context.title == ""
    # What was said before only where the numbers follow each other.
    assert [(one.start, one.end) for one in (first, second, later)] == [(0, 1)] * 3
    assert (second.context.previous, second.context.previous_is_approximate) == (words(0, 1), True)
    assert (first.context.previous, first.context.previous_is_approximate) == ("", False)
    assert later.context.previous == ""
    assert first.licence == "CC BY 4.0"
    assert report(tmp_path / "out")["articles"]["LibriSpeech/train-clean-100/19/198"]["reader"] == "Kara Shallenberg"


def test_librispeech_keeps_its_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    librispeech(tmp_path / "root")
    seen = {}
    as_reading = librispeech_reader.as_reading
    monkeypatch.setattr(
        librispeech_reader,
        "as_reading",
        lambda root, article, *rest: seen.setdefault(article.identifier, article) and as_reading(root, article, *rest),
    )
    for unit in librispeech_reader.articles(tmp_path / "root"):
        librispeech_reader.read(tmp_path / "root", unit, LIMITS)
    assert {name: (one.split, one.subset) for name, one in seen.items()} == {
        "19-198": ("train", "train-clean-100"),
        "110-2": ("validation", "dev-clean"),
        "7-8": ("test", "test-other"),
    }


def test_nothing_of_librispeech_test_sets_is_too_long(tmp_path: Path) -> None:
    librispeech(tmp_path / "root")
    limits = replace(LIMITS, max_duration=0.9, min_duration=0.2)
    corpus = prepare("librispeech", tmp_path / "root", tmp_path / "out", limits)
    assert {"110-2-0000", "7-8-0005"} <= set(by_id(corpus))
    assert "too_long" not in report(tmp_path / "out")["dropped"]


def test_librispeech_names_what_is_wrong(tmp_path: Path) -> None:
    librispeech(tmp_path / "root")
    base = tmp_path / "root" / "LibriSpeech"
    (base / "test-other/7/8/7-8.trans.txt").unlink()
    (base / "train-clean-100/19/198/19-198-0001.flac").write_bytes(b"fLaC")
    with (base / "train-clean-100/19/198/19-198.trans.txt").open("a") as lines:
        lines.write("84-1-0001 A LINE OF ANOTHER CHAPTER\n19-198-0009 TONE9\n")
    corpus = prepare("librispeech", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert set(by_id(corpus)) == {"19-198-0000", "19-198-0003", "110-2-0000"}
    said = report(tmp_path / "out")
    assert "7-8.trans.txt: cannot be read" in said["failures"]["LibriSpeech/test-other/7/8"]
    warned = " ".join(said["warnings"]["LibriSpeech/train-clean-100/19/198"])
    for part in ("19-198-0001.flac", "84-1-0001", "19-198-0009.flac"):
        assert part in warned


def test_libriheavy(tmp_path: Path) -> None:
    libriheavy(tmp_path / "root")
    corpus = prepare("libriheavy", tmp_path / "root", tmp_path / "out")
    first, second, test = corpus.segments
    assert first.text == f'"{word(2)}, {word(3)}."'
    assert [word(number) for number, _, _ in heard(corpus.audio(0))] == [word(2), word(3)]
    assert [word(number) for number, _, _ in heard(corpus.audio(1))] == second.text.split() == words(5, 6, 7).split()
    assert (first.start, first.end, second.start, second.end) == (0.9, 1.9, 2.4, 3.8)
    assert (first.speaker, first.context.title, first.context.previous) == (
        "100",
        "Sea Fairies",
        "The sea was calm. He said:",
    )
    assert second.context.previous == f"calm. He said: {words(2, 3)}"
    assert not second.context.previous_is_approximate
    assert first.licence == "public domain"
    assert {first.split, second.split, test.split} == {"test"}, "one recording is in one split, whatever the lists say"
    assert clean_libriheavy("’Tis[FN#12]  “so”") == '\'Tis "so"'


def test_libriheavy_reads_one_tree_of_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    libriheavy(root)
    (root / "raw").mkdir()
    for path in root.glob("*.jsonl.gz"):
        shutil.copy(path, root / "raw")
    shutil.copy(root / "libriheavy_cuts_test_clean.jsonl.gz", root / "libriheavy_cuts_test_clean_large.jsonl.gz")
    corpus = prepare("libriheavy", root, tmp_path / "out")
    assert len({segment.id for segment in corpus.segments}) == len(corpus.segments) == 3
    assert "the lists in raw are not read" in caplog.text
    assert (
        "libriheavy_cuts_test_clean_large.jsonl.gz: 1 of its cuts are left out, for an earlier list has them"
        in caplog.text
    )
    for path in root.glob("*.jsonl.gz"):
        path.rename(root / "raw" / path.name)
    (track,) = (root / "librilight").rglob("*.flac")
    assert {unit.audio for unit in libriheavy_reader.articles(root)} == {(track.relative_to(root).as_posix(),), ()}


def test_libriheavy_without_the_book_and_with_damage(tmp_path: Path) -> None:
    libriheavy(tmp_path / "root")
    path = tmp_path / "root" / "libriheavy_cuts_small.jsonl.gz"
    with gzip.open(path, "rt") as file:
        first, second = file.read().splitlines()
    record = json.loads(first)
    del record["custom"], record["supervisions"][0]["custom"]
    record["supervisions"][0]["text"] = words(2, 3)
    with gzip.open(path, "wt") as file:
        file.write(
            "\n".join([json.dumps(record), second[:-30], '{"id": 1}', second.replace("librilight/", "nowhere/")])
        )
    corpus = prepare("libriheavy", tmp_path / "root", tmp_path / "out")
    assert (corpus.segments[0].text, corpus.segments[0].context.title) == (words(2, 3), "")
    reasons = " ".join(report(tmp_path / "out")["failures"].values())
    for part in ("small.jsonl.gz:2: is no cut", "small.jsonl.gz:3: is no cut", "no such audio file"):
        assert part in reasons

    path.write_bytes(path.read_bytes()[:200])
    prepare("libriheavy", tmp_path / "root", tmp_path / "again")
    assert "cannot be read after line" in " ".join(report(tmp_path / "again")["failures"].values())


def test_common_voice(tmp_path: Path) -> None:
    common_voice(tmp_path / "root")
    corpus = prepare("common_voice", tmp_path / "root", tmp_path / "out")
    assert len(corpus.segments) == 6
    for place, segment in enumerate(corpus.segments):
        tones = [word(number) for number, _, _ in heard(corpus.audio(place))]
        assert tones == segment.text.replace('"', "").rstrip(".").split()
        assert segment.duration == pytest.approx(1.5, abs=0.1)
    segments = by_id(corpus)
    first = segments["common_voice_de_0"]
    assert (first.text, first.speaker, first.language, first.split) == (
        f'{word(0)} "{word(1)}.',
        "traina",
        "de",
        "train",
    )
    assert (first.context.categories, first.context.title, first.context.previous) == (("nature", "news"), "", "")
    assert segments["common_voice_de_20"].split == "validation"
    assert segments["common_voice_de_50"].context.categories == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_common_voice_in_whatever_encoding_and_with_what_each_row_says(tmp_path: Path, encoding: str) -> None:
    folder = common_voice(tmp_path / "root")
    for table in folder.glob("*.tsv"):
        rows = table.read_text().replace('"tone1.', "größer.").splitlines()
        if table.name == "train.tsv":
            rows[1:2] = [rows[1].replace("\tde\t", "\tnb-NO\t"), rows[2].replace("\tde\t", "\teo\t")]
        table.write_text("\n".join(rows), encoding=encoding)
    corpus = prepare("common_voice", tmp_path / "root", tmp_path / "out")
    first = by_id(corpus)["common_voice_de_0"]
    assert (first.text, first.language) == ("tone0 größer.", "no")
    assert by_id(corpus)["common_voice_de_10"].language == "de"
    warnings = " ".join(report(tmp_path / "out")["warnings"]["cv-corpus-17.0-2024-03-15/de/train.tsv:1-3"])
    assert "its language 'eo' is none that Whisper knows" in warnings
    assert ("train.tsv:2: is not UTF-8" in warnings) == (encoding == "cp1252")


def test_common_voice_in_a_language_that_whisper_lacks(tmp_path: Path) -> None:
    folder = common_voice(tmp_path / "root")
    for table in folder.glob("*.tsv"):
        table.write_text(table.read_text().replace("\tde\t", "\teo\t"))
    with pytest.raises(
        CwjaxError, match=r"none of 3 articles can be read; the first: .*its language 'eo' is none that"
    ):
        prepare("common_voice", tmp_path / "root", tmp_path / "out")


def test_that_common_voice_says_nothing_of_itself_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    common_voice(tmp_path / "new")
    require_corpus("common_voice", tmp_path / "new")
    common_voice(tmp_path / "old", ("client_id", "path", "sentence"))
    require_corpus("common_voice", tmp_path / "old")
    said = [record.getMessage() for record in caplog.records]
    assert "no context but the domain of some sentences" in said[0]
    assert "no context at all" in said[1]


def test_common_voice_of_an_old_release_and_with_damage(tmp_path: Path) -> None:
    folder = common_voice(tmp_path / "root", ("client_id", "path", "sentence", "up_votes", "down_votes", "accent"))
    for table in ("dev", "test"):
        (folder / f"{table}.tsv").unlink()
    clips = folder / "clips"
    (clips / "common_voice_de_0.mp3").write_bytes(b"no sound")
    corpus = prepare("common_voice", folder, tmp_path / "out")
    assert [(one.id, one.language) for one in corpus.segments] == [("common_voice_de_10", "de")]
    assert "common_voice_de_0.mp3" in " ".join(report(tmp_path / "out")["warnings"]["train.tsv:1-2"])

    (folder / "train.tsv").write_text("client_id\tpath\nx\ty.mp3\n")
    with pytest.raises(CwjaxError, match=r"train.tsv: has no column 'sentence'"):
        prepare("common_voice", folder, tmp_path / "again")


@pytest.mark.parametrize(("name", "ending"), [("mls_german", "flac"), ("mls_german_opus", "opus")])
def test_mls(tmp_path: Path, name: str, ending: str) -> None:
    mls(tmp_path / "root", name, ending)
    corpus = prepare("mls", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    segments = by_id(corpus)
    first, later, second = (segments[f"10_20_{number:06d}"] for number in range(3))
    assert (first.language, first.split, first.speaker, first.licence) == ("de", "train", "10", "CC BY 4.0")
    assert (first.context.title, first.context.section) == ("Faust", ("Prolog",))
    assert (second.context.previous, later.context.previous) == (words(1), ""), "one ends where the other begins"
    assert segments["11_21_000000"].context.section == (), "one of two chapters"
    assert {one.split for one in corpus.segments} == {"train", "validation", "test"}
    assert "transcripts.txt:4: is no line READER_BOOK_NUMBER" in " ".join(report(tmp_path / "out")["failures"].values())


def test_peoples_speech(tmp_path: Path) -> None:
    peoples_speech(tmp_path / "root")
    corpus = prepare("peoples_speech", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert [(one.text, one.split, one.licence) for one in corpus.segments] == [
        (word(1), "train", "CC BY-SA 4.0"),
        (word(2), "validation", "CC BY 4.0"),
        (word(3), "test", "CC BY 4.0"),
    ]
    said = report(tmp_path / "out")
    assert "clean_sa.json:2: is no recording" in " ".join(said["failures"].values())
    assert "none.flac" in str(said["warnings"])
