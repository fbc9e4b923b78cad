"""Prepared corpora in the layouts of others: read again by lhotse and by our readers of those layouts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cwjax.cli import main
from cwjax.data.prepared import shards
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.prepared.exporting import export
from cwjax.errors import CwjaxError

FORMATS = {"lhotse": "lhotse", "nemo": "manifest", "hf": "manifest"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    root = tmp_path_factory.mktemp("root")
    random = np.random.default_rng(0)
    rows = []
    for name, split in (("a", "train"), ("b", "validation"), ("ü/c", "test")):
        path = root / f"{name}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, random.normal(0, 0.1, 48_000), 16_000)
        for start, text in ((0.25, f"{name} says one"), (1.5, f"{name} says two")):
            known = {
                "title": f"On {name}",
                "keywords": [name, "saying"],
                "speaker": f"speaker {name}",
                "language": "de",
            }
            place = {"audio": f"{name}.flac", "start": start, "end": start + 1.0, "text": text, "split": split}
            rows.append(place | known | {"id": f"{name}-{start}"})
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return PreparedCorpus.read(prepare("manifest", root, root.parent / "prepared").directory, 0.001)


def contents(corpus: PreparedCorpus) -> list[tuple]:
    return sorted(
        (
            one.id,
            one.split,
            one.text,
            one.speaker,
            one.language,
            one.context.title,
            one.context.keywords,
            sound.tolist(),
        )
        for one, sound in ((one, corpus.pcm16(place)) for place, one in enumerate(corpus.segments))
    )


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_holds_all_that_the_corpus_does(corpus: PreparedCorpus, form: str, tmp_path: Path) -> None:
    assert export(corpus, form, tmp_path / "out") == {"train": 2, "validation": 2, "test": 2}
    again = prepare(FORMATS[form], tmp_path / "out", tmp_path / "again")
    assert contents(PreparedCorpus.read(again.directory, 0.001)) == contents(corpus)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_lhotse_hears_what_it_reads(corpus: PreparedCorpus, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed")
    export(corpus, "lhotse", tmp_path / "out")
    cuts = lhotse.CutSet.from_file(tmp_path / "out/cuts_test.jsonl").trim_to_supervisions()
    found = {cut.supervisions[0].text: np.round(cut.load_audio()[0] * 2**15).astype(int).tolist() for cut in cuts}
    expected = {
        one.text: corpus.pcm16(place).tolist() for place, one in enumerate(corpus.segments) if one.split == "test"
    }
    assert found == expected


def test_the_command_exports_and_overwrites_nothing(corpus: PreparedCorpus, tmp_path: Path, capsys) -> None:
    root = next(path for path in corpus.directory.parent.iterdir() if (path / "list.jsonl").exists())
    command = ["prepare", "manifest", "--root", str(root), "--output", str(tmp_path / "prepared"), "--export"]
    assert main([*command, "nemo", str(tmp_path / "out")]) == 0
    assert len((tmp_path / "out/train_manifest.json").read_text(encoding="utf-8").splitlines()) == 2
    assert main([*command, "nemo", str(tmp_path / "out")]) == 1
    assert "exists; name a new folder" in capsys.readouterr().err
    assert main([*command, "kaldi", str(tmp_path / "other")]) == 1
    assert "--export kaldi: is no format; use one of lhotse, nemo, hf" in capsys.readouterr().err


def test_a_damaged_corpus_leaves_no_half_of_an_export(corpus: PreparedCorpus, tmp_path: Path) -> None:
    damaged = shutil.copytree(corpus.directory, tmp_path / "damaged")
    tar = next((damaged / "shards").glob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 255
    tar.write_bytes(content)
    with pytest.raises(CwjaxError):
        export(PreparedCorpus.read(damaged), "hf", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_recording_that_is_too_long_leaves_nothing_in_the_shard(tmp_path: Path, monkeypatch) -> None:
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed")
    rows = []
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.full(32_000, 0.25), 16_000)
        rows.append({"audio": f"{name}.wav", "text": f"{name} is said"})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    decode = shards._decode
    # A WAV of more than 4 GiB holds fewer samples than were written.
    monkeypatch.setattr(shards, "_decode", lambda path, *given: decode(path, *given) + (path.name == "a.wav"))
    prepared = prepare("manifest", tmp_path, tmp_path / "out")
    assert "a.wav: is too long for a WAV" in str(json.loads((tmp_path / "out/report.json").read_text())["failures"])
    assert [one.text for one in prepared.segments] == ["b is said"]
    (cut,) = lhotse.CutSet.from_shar(in_dir=tmp_path / "out/shards")
    assert cut.load_audio().shape == (1, 32_000)
