"""The prepared form: what goes in comes out, and damage is noticed."""

import json
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from cwjax.data.prepared import corpus as prepared
from cwjax.data.prepared.corpus import PreparedCorpus, write_prepared
from cwjax.data.prepared.index import INDEX_FILE
from cwjax.data.segment import ContextMaterial, Segment, Utterance
from cwjax.errors import CwjaxError

FIELDS = [
    "id", "shard", "split", "language", "speaker", "article", "audio", "start", "end", "text", "utterances", "context",
    "licence", "source",
]  # fmt: skip


def make_segment(number: int) -> Segment:
    return Segment(
        id=f'Öl "{number}"',
        article="Öl",
        audio="Öl/audio.ogg",
        start=number,
        end=number + 1,
        text=f"Text “{number}”",
        utterances=(Utterance(0.0, 0.5, "Text"), Utterance(0.5, 1.0, f"“{number}”")),
        context=ContextMaterial(title="Öl", section=("A", "B"), categories=("x",), keywords=("y", "z")),
        speaker="jo",
        split="train" if number % 2 else "test",
    )


def samples(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(-1, 1, 1000 + number).astype(np.float32)


@pytest.fixture(params=["pcm16", "flac"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedCorpus:
    monkeypatch.setattr(prepared, "SEGMENTS_PER_SHARD", 3)
    write_prepared(tmp_path, ((make_segment(n), samples(n)) for n in range(8)), list, request.param)
    return PreparedCorpus.read(tmp_path)


def test_round_trip(corpus: PreparedCorpus) -> None:
    assert list(corpus.segments) == [make_segment(n) for n in range(8)]
    assert corpus.segments[-1] == make_segment(7)
    assert corpus.segments[2:5] == [make_segment(n) for n in (2, 3, 4)]
    assert len(corpus.segments.shards) == 3
    assert corpus.positions("train") == [1, 3, 5, 7]
    assert corpus.positions("validation") == []
    for n in (7, 0, 3):
        np.testing.assert_allclose(corpus.audio(n), samples(n), atol=1 / 32768)
        assert corpus.pcm16(n).dtype == np.int16


def test_lines_have_the_fields_that_others_read(corpus: PreparedCorpus) -> None:
    line = json.loads((corpus.directory / INDEX_FILE).read_text().splitlines()[4])
    assert list(line) == FIELDS
    assert list(line["context"]) == ["title", "section", "lead", "categories", "keywords", "previous"]
    assert list(line["utterances"][0]) == ["start", "end", "text"]
    assert (corpus.directory / line["shard"]).is_file()


def test_lines_written_by_others_are_read(corpus: PreparedCorpus) -> None:
    index = corpus.directory / INDEX_FILE
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("\n".join(json.dumps(dict(sorted(line.items()))) for line in lines))
    again = PreparedCorpus.read(corpus.directory)
    assert list(again.segments) == [make_segment(n) for n in range(8)]
    np.testing.assert_allclose(again.audio(5), samples(5), atol=1 / 32768)


def test_loud_samples_are_clipped_not_wrapped(tmp_path: Path) -> None:
    write_prepared(tmp_path, [(make_segment(0), np.array([2.0, -2.0, 1.0], np.float32))], list)
    np.testing.assert_allclose(PreparedCorpus.read(tmp_path).audio(0), [1, -1, 1], atol=1e-4)


def test_travels_to_another_process_without_its_segments(corpus: PreparedCorpus) -> None:
    corpus.audio(0)
    assert len(pickle.dumps(corpus)) < 500
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(corpus.audio, (4,)), corpus.audio(4))


def test_damage_is_named(corpus: PreparedCorpus) -> None:
    index = corpus.directory / INDEX_FILE
    content = index.read_bytes()
    lines = content.splitlines()
    index.write_bytes(b"\n".join([lines[0], lines[1][:40]]))
    with pytest.raises(CwjaxError, match=r"index.jsonl:2: damaged"):
        PreparedCorpus.read(corpus.directory)
    index.write_bytes(content.replace(b'"context": {"title"', b'"context": {"toitle"', 1))
    with pytest.raises(CwjaxError, match=r"index.jsonl:1: damaged"):
        PreparedCorpus.read(corpus.directory).segments[0]
    index.write_bytes(content)
    with pytest.raises(CwjaxError, match=r"is .* a prepared corpus"):
        PreparedCorpus.read(corpus.directory / "nowhere")


def test_damaged_audio_is_never_given(corpus: PreparedCorpus) -> None:
    shard = corpus.directory / corpus.segments.shards[0]
    content = shard.read_bytes()
    wanted = [corpus.pcm16(place) for place in range(3)]
    generator = np.random.default_rng(0)
    refused = []
    for _ in range(30):
        damaged = bytearray(content)
        # In the first 8 KiB lie the three records; most of the rest fills ArrayRecord's last block.
        damaged[generator.integers(8192)] ^= 0xFF
        shard.write_bytes(damaged)
        fresh = PreparedCorpus.read(corpus.directory)
        for place in range(3):
            try:
                given = fresh.pcm16(place)
            except CwjaxError as error:
                refused.append(str(error))
            else:
                np.testing.assert_array_equal(given, wanted[place])
    assert len(refused) >= 15
    assert all(shard.name in reason for reason in refused)
    shard.unlink()
    with pytest.raises(CwjaxError, match=rf"{shard.name}: is missing"):
        PreparedCorpus.read(corpus.directory).audio(0)
