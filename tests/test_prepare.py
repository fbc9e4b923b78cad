"""From a corpus on disk to a prepared one, whatever is wrong with single articles."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cwjax.data.demo_corpus import DemoCorpusSettings, write_demo_corpus
from cwjax.data.prepare import prepare_swc
from cwjax.data.segmentation_settings import SegmentationSettings
from cwjax.errors import CwjaxError

pytest.importorskip("espeakng_loader", reason="the demo's speech needs the extra 'demo'")

SETTINGS = SegmentationSettings(max_duration=2.4, pad=0.1)

BOMB = """<?xml version="1.0"?><!DOCTYPE article [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<article><meta/><d>&b;</d></article>"""
OUTSIDE = """<?xml version="1.0"?><!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<article><meta/><d><p><s><t>&x;</t></s></p></d></article>"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "demo"
    settings = DemoCorpusSettings(
        pairs=2, train_articles=2, test_articles=1, sentences=(3, 3), two_files=0.5, headings_read=1
    )
    write_demo_corpus(root, 0, settings, processes=1)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "demo")


def folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.rglob("aligned.swc"))


def report(output: Path) -> dict:
    return json.loads((output / "report.json").read_text())


def test_segments_hold_the_sound_of_their_place(root: Path, tmp_path: Path) -> None:
    corpus = prepare_swc(root, tmp_path / "prepared", SETTINGS)
    assert {segment.split for segment in corpus.segments} == {"train", "validation", "test"}
    assert (tmp_path / "prepared" / "homophones.json").exists()
    assert not report(tmp_path / "prepared")["failures"]
    for place, segment in enumerate(corpus.segments):
        assert segment.duration <= 2.4
        samples = corpus.audio(place)
        assert len(samples) == pytest.approx(segment.duration * 16000, abs=1)
        # The same stretch cut from the file itself, at the file's own rate, sounds as loud.
        whole, rate = soundfile.read(root / segment.audio, always_2d=True)
        first, last = (round((time - segment.audio_offset) * rate) for time in (segment.start, segment.end))
        loudness = np.sqrt(np.mean(whole[first:last].mean(axis=1) ** 2))
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(loudness, rel=0.05)


def test_damaged_articles_are_named_and_the_others_kept(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    articles = folders(root)
    harm = {
        "malformed": lambda folder: (folder / "aligned.swc").write_text("<article><d>"),
        "bomb": lambda folder: (folder / "aligned.swc").write_text(BOMB),
        "outside": lambda folder: (folder / "aligned.swc").write_text(OUTSIDE),
        "empty": lambda folder: (folder / "aligned.swc").write_text("<article><meta/><d/></article>"),
        "no audio": lambda folder: [path.unlink() for path in folder.glob("audio*.ogg")],
        "no sound": lambda folder: [os.truncate(path, 100) for path in folder.glob("audio*.ogg")],
        "no bytes": lambda folder: [os.truncate(path, 0) for path in folder.glob("audio*.ogg")],
    }
    for folder, damage in zip(articles, harm.values(), strict=False):
        damage(folder)
    corpus = prepare_swc(root, tmp_path / "prepared", SETTINGS)
    failures = report(tmp_path / "prepared")["failures"]
    harmed = {folder.relative_to(root).as_posix() for folder in articles[: len(harm)]}
    assert set(failures) == harmed
    for name, reason in failures.items():
        assert name in reason
        assert "\n" not in reason
        assert reason in caplog.text
    kept = {Path(segment.audio).parent.as_posix() for segment in corpus.segments}
    assert kept == {folder.relative_to(root).as_posix() for folder in articles} - harmed


def test_nothing_usable_is_an_error_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    for folder in folders(root):
        (folder / "aligned.swc").write_text("no XML")
    with pytest.raises(CwjaxError, match=r"none of \d+ articles can be read; the first: .*aligned.swc"):
        prepare_swc(root, tmp_path / "prepared", SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]
    with pytest.raises(CwjaxError, match="holds no article"):
        prepare_swc(tmp_path / "nowhere", tmp_path / "prepared", SETTINGS)


def test_prepared_once(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    first = prepare_swc(root, output, SETTINGS)
    stamp = (output / "index.jsonl").stat().st_mtime_ns
    assert prepare_swc(root, output, SETTINGS).segments == first.segments
    assert (output / "index.jsonl").stat().st_mtime_ns == stamp
    with pytest.raises(CwjaxError, match="other window lengths"):
        prepare_swc(root, output, SegmentationSettings())
    (tmp_path / "mine").mkdir()
    with pytest.raises(CwjaxError, match="no prepared corpus"):
        prepare_swc(root, tmp_path / "mine", SETTINGS)
