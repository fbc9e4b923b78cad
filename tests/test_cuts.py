"""Manifests of cuts against lhotse, which reads ours and writes what we read."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cwjax.data.cuts import Cut, Recording, Supervision, TimedWord, read_cuts, write_cuts
from cwjax.errors import CwjaxError


def _cut(folder: Path) -> Cut:
    path = folder / "talk.flac"
    soundfile.write(path, np.linspace(-0.5, 0.5, 48000).astype(np.float32), 16000)
    words = (TimedWord("Hello", 0.25, 0.5, 0.9), TimedWord("there.", 0.6, 1.1))
    said = Supervision("talk-1", 0.25, 1.125, "Hello there.", "Ada", "en", words, {"article": "greetings"})
    return Cut("talk-0", Recording("talk", 16000, 48000, str(path)), 1.0, 3.0, (said,), custom={"subset": "clean"})


def test_lhotse_reads_a_manifest_with_its_sound(tmp_path):
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed")
    cut = _cut(tmp_path)
    write_cuts(tmp_path / "cuts.jsonl.gz", [cut])
    (theirs,) = lhotse.CutSet.from_file(tmp_path / "cuts.jsonl.gz")
    (said,) = theirs.supervisions
    assert (said.text, said.speaker, said.start, said.end) == ("Hello there.", "Ada", 0.25, 1.125)
    assert [(word.symbol, word.start, word.end) for word in said.alignment["word"]] == [
        ("Hello", 0.25, 0.5),
        ("there.", 0.6, 1.1),
    ]
    assert theirs.subset == "clean"
    expected = soundfile.read(tmp_path / "talk.flac", dtype="float32")[0][16000:]
    np.testing.assert_array_equal(theirs.load_audio()[0], expected)


def test_what_lhotse_writes_is_read(tmp_path):
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed")
    cut = _cut(tmp_path)
    write_cuts(tmp_path / "ours.jsonl.gz", [cut])
    lhotse.CutSet.from_file(tmp_path / "ours.jsonl.gz").to_eager().to_file(tmp_path / "theirs.jsonl.gz")
    assert list(read_cuts(tmp_path / "theirs.jsonl.gz")) == [cut]


def test_a_line_that_is_no_cut_is_named(tmp_path):
    path = tmp_path / "cuts.jsonl.gz"
    write_cuts(path, [_cut(tmp_path)])
    for line in ("{}", "[1]", "nonsense", json.dumps({"type": "MixedCut", "tracks": []})):
        with gzip.open(path, "at", encoding="utf-8") as lines:
            lines.write(line + "\n")
        with pytest.raises(CwjaxError, match=r"cuts\.jsonl\.gz:2: is no cut of one channel"):
            list(read_cuts(path))
        write_cuts(path, [_cut(tmp_path)])


def test_a_manifest_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "cuts.jsonl.gz"
    write_cuts(path, [_cut(tmp_path)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CwjaxError, match="is no cut"):
        list(read_cuts(path))
