"""What is wrong with a suite, or not here, is named and counted; the hub is asked for no more than is needed."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_suites import (
    NLP,
    SECONDS,
    audio,
    cell,
    contextasr,
    contextual_earnings22,
    earnings21,
    is21,
    m3av,
    profasr,
    read,
    table,
    text,
)

from cwjax.errors import CwjaxError
from cwjax.evaluation.suites import SUITES, open_suite
from cwjax.evaluation.suites.tables import table_rows
from cwjax.inference.audio import Recording


def test_bad_lines_are_named_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    name = contextasr(tmp_path)
    path = tmp_path / "ContextASR-Speech_English.jsonl"
    good = path.read_text("utf-8").splitlines()
    row = json.loads(good[0])
    text(
        path,
        good[0],
        '{"uniq_id": "broken',
        "[1]",
        good[0],
        json.dumps(row | {"uniq_id": "gone", "audio": "audio/gone.wav"}),
        json.dumps(row | {"uniq_id": 7}),
        json.dumps(row | {"uniq_id": "list", "entity_list": "Dr. Vogt"}),
        json.dumps(row | {"uniq_id": "mute", "text": None}),
    )
    assert [item.id for item in open_suite(name, tmp_path)] == ["FNED-000001_EN"]
    for line, reason in enumerate(
        (
            "is no JSON",
            "is no JSON object",
            f"the id 'FNED-000001_EN' stands in {path}, line 1, too",
            "there is no audio file",
            "uniq_id is 7; expected a text",
            "entity_list is 'Dr. Vogt'; expected a list of texts",
            "text is None; expected a text",
        ),
        2,
    ):
        assert f"{path}, line {line}: {reason}" in caplog.text
    assert "contextasr/Speech_English: 1 items, 7 left out" in caplog.text


def test_many_bad_lines_are_named_no_more_but_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = contextasr(tmp_path)
    path = tmp_path / "ContextASR-Speech_English.jsonl"
    text(path, *path.read_text("utf-8").splitlines(), *["{"] * 100)
    assert len(list(open_suite(name, tmp_path))) == 2
    assert caplog.text.count("is no JSON") == 20
    assert "2 items, 100 left out" in caplog.text


def test_unequal_ids_of_list_and_audio(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = is21(tmp_path)
    path = tmp_path / "is21_deep_bias" / "ref" / "test-clean.biasing_100.tsv"
    lines = path.read_text("utf-8").splitlines()
    text(path, lines[0], lines[1].replace("0001", "0009"), "121-121726-0002\tno lists", lines[2].replace("[", "", 1))
    assert [item.id for item in open_suite(name, tmp_path)] == ["121-121726-0000"]
    assert f"{path}, line 2: there is no audio file" in caplog.text
    assert f"{path}, line 3: is no line of four columns" in caplog.text
    assert f"{path}, line 4: its lists are no JSON" in caplog.text
    assert f"{path}: has no line for 121-121726-0001, which has audio" in caplog.text


def damaged_arrow(root: Path) -> None:
    path = next(root.rglob("*.arrow"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_column(root: Path) -> None:
    table(next(root.rglob("*.parquet")), [{"audio": cell(0), "text": "tone0"}])


def pointer(root: Path) -> None:
    text(next(root.rglob("*.wav")), "version https://git-lfs.github.com/spec/v1", "oid sha256:1", "size 3")


def short_line(root: Path) -> None:
    path = next(root.rglob("*.nlp"))
    text(path, NLP, "Good|0||||UC|[]")


def late_segment(root: Path) -> None:
    path = next(root.rglob("final+timestamps.json"))
    path.write_text(path.read_text("utf-8").replace("0001900", "0009900"), "utf-8")


def odd_times(root: Path) -> None:
    path = next(root.rglob("final+timestamps.json"))
    path.write_text(path.read_text("utf-8").replace("0001900", "00019²0"), "utf-8")


def long_name(root: Path) -> None:
    path = next(root.rglob("*.jsonl"))
    path.write_text(path.read_text("utf-8").replace("FNED-000002_EN.wav", "a" * 300), "utf-8")


def stray(root: Path) -> None:
    text(root / "speech-datasets" / "earnings21" / "media" / ".DS_Store", "no audio")
    audio(root / "speech-datasets" / "earnings21" / "media" / "4330115.wav", 0)


def odd_number(root: Path) -> None:
    path = next(root.rglob("*.tsv"))
    path.write_text(path.read_text("utf-8").replace("121-121726-0002", "121-121726-000²"), "utf-8")


def cut_tar(root: Path) -> None:
    path = next(root.rglob("*.tar"))
    path.write_bytes(path.read_bytes()[:700])


@pytest.mark.parametrize(
    ("make", "spoil", "said"),
    [
        (profasr, damaged_arrow, "cannot be read after row"),
        (contextual_earnings22, without_column, "has no column file_id, audio_start, dictionary, keywords"),
        (earnings21, pointer, "is a pointer of Git LFS; run: git lfs pull"),
        (earnings21, short_line, "4320211.nlp, line 2: has 7 columns; expected 8"),
        (earnings21, stray, "4330115.wav: ConEC has no transcript of it"),
        (is21, odd_number, "line 3: is no line of four columns"),
        (m3av, late_segment, "entry 2: ends at 9.9 s of 2 s of audio"),
        (m3av, odd_times, "entry 2: timestr is '0001200_00019²0'"),
        (contextasr, long_name, "line 2: there is no audio file"),
        (contextasr, cut_tar, "ContextASR-Speech_English_1.tar: cannot be read"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_damage_ends_in_a_line(
    make: Callable[[Path], str],
    spoil: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = make(tmp_path)
    spoil(tmp_path)
    assert said in complaints(name, tmp_path, caplog)


def complaints(name: str, root: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What is logged of a suite, and the error that reading it ends in, if it does."""
    try:
        list(open_suite(name, root))
    except CwjaxError as error:
        return f"{caplog.text}{error}"
    return caplog.text


@pytest.mark.parametrize("name", SUITES)
def test_an_empty_folder_is_none(name: str, tmp_path: Path) -> None:
    part = "".join(f"/{one}" for one in SUITES[name].variants[-1:])
    with pytest.raises(CwjaxError, match=str(tmp_path)):
        list(open_suite(name + part, tmp_path))


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CwjaxError, match=r"no suite is called 'imagenet'; there are: is21, contextasr"):
        open_suite("imagenet", tmp_path)
    with pytest.raises(CwjaxError, match=r"say is21/test-clean\.biasing_100, "):
        open_suite("is21", tmp_path)
    with pytest.raises(CwjaxError, match="is no part of LibriSpeech packed"):
        open_suite("mlperf/all", tmp_path)
    with pytest.raises(CwjaxError, match=r"no such folder; is21/test-clean\.biasing_100 comes from: https"):
        open_suite("is21/test-clean.biasing_100", tmp_path / "gone")
    with pytest.raises(CwjaxError, match="earnings21: give its folder with --data; get it so: https"):
        open_suite("earnings21", None)


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks for no more than what a variant needs; where there is no network, one line says what to fetch."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        if repository == "MrSupW/ContextASR-Bench":
            raise OSError("no network")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    name = contextasr(tmp_path)
    with pytest.raises(CwjaxError) as caught:
        open_suite(name, None)
    assert "--include '*ContextASR-Speech_English*' --local-dir DIR, and give --data DIR" in str(caught.value)
    assert len(list(open_suite(name, "me/mirror"))) == 2
    wanted = {"repo_type": "dataset", "allow_patterns": ["*ContextASR-Speech_English*"]}
    assert asked == [("MrSupW/ContextASR-Bench", wanted), ("me/mirror", wanted)]


def test_pyarrow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = profasr(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        CwjaxError, match=r"needs the package pyarrow, not installed here: pip install 'cwjax\[suites\]'"
    ):
        list(open_suite(name, tmp_path))


def test_audio_beside_a_table(tmp_path: Path) -> None:
    """As tables are that were written without the audio inside."""
    audio(tmp_path / "clips" / "a.wav", 2)
    row = {"dataset": "ami", "audio_length_s": SECONDS, "text": "tone2"}
    cells = ("clips/a.wav", "clips/gone.wav", None)
    rows = [row | {"id": f"a{number}", "audio": {"bytes": None, "path": path}} for number, path in enumerate(cells)]
    table(tmp_path / "ami" / "test-00000-of-00001.parquet", rows)
    (item,) = open_suite("open-asr/ami/test", tmp_path)
    assert item.audio == tmp_path / "clips" / "a.wav"


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    name = contextasr(tmp_path)
    text(tmp_path / "ContextASR-Speech_English.jsonl", "{", "[]")
    with pytest.raises(
        CwjaxError, match=r"no item of contextasr/Speech_English can be used; the first: .*line 1: is no"
    ):
        list(open_suite(name, tmp_path))


@pytest.mark.parametrize("name", ["test-00000-of-00001.parquet", "data-00000-of-00001.arrow"])
def test_tables_larger_than_memory(name: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    noise = np.random.default_rng(0).bytes(1 << 20)
    content = [noise + bytes([number]) for number in range(40)]
    table(tmp_path / name, [{"audio": {"bytes": one, "path": None}, "text": "hello"} for one in content])
    before = pyarrow.total_allocated_bytes()
    cells = [row.audio(tmp_path) for row in table_rows(tmp_path, ["*.*"], ["text"])]
    assert all(cells[number].load() == content[number] for number in (39, 0, 21))
    assert pyarrow.total_allocated_bytes() - before < 20 << 20  # of 40


def test_audio_that_is_gone_when_its_turn_comes(tmp_path: Path) -> None:
    for number, make in enumerate((contextasr, profasr, contextual_earnings22, m3av)):
        root = tmp_path / str(number)
        item = read(make, root)[-1]
        for path in [*root.rglob("*.tar"), *root.rglob("*.arrow"), *root.rglob("*.parquet"), *root.rglob("*.flac")]:
            path.unlink()
        with pytest.raises(CwjaxError, match=f"{root}.*(can no longer be read|no such audio file)"):
            Recording.open(item.audio)


def test_audio_that_is_none_is_named(tmp_path: Path) -> None:
    row = {"dataset": "ami", "audio_length_s": SECONDS, "text": "tone2", "id": "a"}
    path = table(tmp_path / "ami" / "test-0.parquet", [row | {"audio": {"bytes": b"no sound", "path": None}}])
    (item,) = open_suite("open-asr/ami/test", tmp_path)
    with pytest.raises(CwjaxError, match=f"{path}, row 1: "):
        Recording.open(item.audio)
