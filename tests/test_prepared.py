"""The prepared form: what goes in comes out, and damage is noticed."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from cwjax.data import prepared
from cwjax.data.prepared import INDEX_FILE, PreparedCorpus, write_prepared
from cwjax.data.segment import ContextMaterial, Segment, Utterance
from cwjax.errors import CwjaxError


def make_segment(number: int) -> Segment:
    return Segment(
        id=f"Öl/{number}",
        article="Öl",
        audio="Öl/audio.ogg",
        audio_offset=0.0,
        start=number,
        end=number + 1,
        text=f"Text “{number}”",
        utterances=(Utterance(0.0, 0.5, "Text"), Utterance(0.5, 1.0, f"“{number}”")),
        context=ContextMaterial(title="Öl", section=("A", "B"), categories=("x",), keywords=("y", "z")),
        speaker="jo",
        is_lead=number == 0,
        split="train" if number % 2 else "test",
    )


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedCorpus:
    monkeypatch.setattr(prepared, "SEGMENTS_PER_SHARD", 3)
    write_prepared(tmp_path, ((make_segment(n), samples(n)) for n in range(8)), list)
    return PreparedCorpus.read(tmp_path)


def samples(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(-1, 1, 1000 + number).astype(np.float32)


def test_round_trip(corpus: PreparedCorpus) -> None:
    assert list(corpus.segments) == [make_segment(n) for n in range(8)]
    assert len({*corpus.shards}) == 3
    assert corpus.positions("train") == [1, 3, 5, 7]
    for n in (7, 0, 3):
        np.testing.assert_allclose(corpus.audio(n), samples(n), atol=1 / 32768)


def test_loud_samples_are_clipped_not_wrapped(tmp_path: Path) -> None:
    write_prepared(tmp_path, [(make_segment(0), np.array([2.0, -2.0, 1.0], np.float32))], list)
    np.testing.assert_allclose(PreparedCorpus.read(tmp_path).audio(0), [1, -1, 1], atol=1e-4)


def test_travels_to_another_process(corpus: PreparedCorpus) -> None:
    corpus.audio(0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(corpus.audio, (4,)), corpus.audio(4))


def test_damage_is_named(corpus: PreparedCorpus) -> None:
    index = corpus.directory / INDEX_FILE
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[0], lines[1][:40]]))
    with pytest.raises(CwjaxError, match=r"index.jsonl:2: damaged"):
        PreparedCorpus.read(corpus.directory)
    index.write_text(json.dumps({**json.loads(lines[0]), "crc32": 1}))
    with pytest.raises(CwjaxError, match="record 0 is damaged"):
        PreparedCorpus.read(corpus.directory).audio(0)
    (corpus.directory / corpus.shards[0]).unlink()
    index.write_text(lines[0])
    with pytest.raises(CwjaxError, match=corpus.shards[0]):
        PreparedCorpus.read(corpus.directory).audio(0)
    with pytest.raises(CwjaxError, match=r"is .* a prepared corpus"):
        PreparedCorpus.read(corpus.directory / "nowhere")
