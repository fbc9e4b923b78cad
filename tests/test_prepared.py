"""The prepared form: others read it, what goes in comes out, and nothing that was changed is taken for what it was."""

import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cwjax.data.prepared import survey
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.segment import Utterance
from cwjax.errors import CwjaxError

RATE = 16_000
RECORDINGS = 8
GAPS = (0.5, 0.5, 9.0, 0.5)
"""Seconds of silence before each utterance of a recording; before the third one something else may have been said."""


def sound(number: int) -> np.ndarray:
    """(n,) int16, an utterance of 1 s of loud noise."""
    return np.random.default_rng(number).integers(-20_000, 20_000, RATE).astype(np.int16)


def write_corpus(root: Path) -> list[dict]:
    """Recordings of four utterances by one speaker, the last by another."""
    rows = []
    for recording in range(RECORDINGS):
        samples = np.zeros(0, np.int16)
        for place, gap in enumerate(GAPS):
            number = 4 * recording + place
            samples = np.concatenate([samples, np.zeros(round(gap * RATE), np.int16)])
            start = len(samples) / RATE
            samples = np.concatenate([samples, sound(number)])
            rows.append(
                {
                    "id": f'Öl "{number}"',
                    "audio": f"{recording}.wav",
                    "start": start,
                    "end": start + 1,
                    "text": f"Text “{number:02d}”",
                    "title": f"Öl {recording}" if place else "Anfang",
                    "section": "A > B",
                    "categories": "x",
                    "keywords": "y;z",
                    "speaker": f"{recording} jo" if place < 3 else f"{recording} ann",
                }
            )
        soundfile.write(root / f"{recording}.wav", samples, RATE, subtype="PCM_16")
    (root / "table.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    names = [f"{recording}.wav" for recording in range(RECORDINGS)]
    splits = {"train": names[:5], "validation": names[5:6], "test": names[6:]}
    (root / "splits.json").write_text(json.dumps(splits))
    return rows


@pytest.fixture(scope="module", params=["pcm16", "flac"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and what was prepared of it, in two shards."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "root").mkdir()
    write_corpus(folder / "root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "SHORTEST_SHARD", 60)
        prepare("manifest", folder / "root", folder / "prepared", audio=request.param)
    return folder / "prepared"


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "prepared")


def single(directory: Path) -> PreparedCorpus:
    """The corpus, every utterance of which is a segment."""
    return PreparedCorpus.read(directory, 0.001)


def test_what_goes_in_comes_out(directory: Path, tmp_path: Path) -> None:
    rows = write_corpus(tmp_path)
    corpus = single(directory)
    assert len(corpus.segments) == len(rows) == 4 * RECORDINGS
    for number, (segment, row) in enumerate(zip(corpus.segments, rows, strict=True)):
        assert (segment.id, segment.text, segment.speaker) == (row["id"], row["text"], row["speaker"])
        assert (segment.start, segment.end) == pytest.approx((row["start"], row["end"]))
        assert segment.utterances == (Utterance(0.0, 1.0, row["text"]),)
        assert (segment.context.title, segment.context.section) == (row["title"], ("A", "B"))
        assert (segment.context.categories, segment.context.keywords) == (("x",), ("y", "z"))
        assert segment.article == row["audio"]
        # Before the third utterance something else may have been said; who speaks does not matter.
        before = rows[number // 4 * 4 + 2 * (number % 4 // 2) : number]
        assert segment.context.previous == " ".join(one["text"] for one in before)
        np.testing.assert_array_equal(corpus.pcm16(number), sound(number))
    assert corpus.segments[-1] == corpus.segments[4 * RECORDINGS - 1]
    assert corpus.segments[2:5] == [corpus.segments[n] for n in (2, 3, 4)]
    assert corpus.positions("validation") == [20, 21, 22, 23]
    assert [len(corpus.positions(split)) for split in ("train", "test")] == [20, 8]


def test_windows_go_over_pauses_but_not_over_gaps_or_speakers(directory: Path) -> None:
    corpus = PreparedCorpus.read(directory)
    texts = [segment.text for segment in corpus.segments]
    assert texts[:4] == ["Text “00” Text “01”", "Text “02”", "Text “03”", "Text “04” Text “05”"]
    silence = np.zeros(RATE // 2, np.int16)
    np.testing.assert_array_equal(corpus.pcm16(0), np.concatenate([sound(0), silence, sound(1)]))
    assert corpus.segments[0].utterances[1] == Utterance(1.5, 2.5, "Text “01”")


def test_lhotse_reads_it(directory: Path) -> None:
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed")
    corpus = single(directory)
    cuts = list(lhotse.CutSet.from_shar(in_dir=directory / "shards"))
    assert len(cuts) == RECORDINGS
    segments = enumerate(corpus.segments)
    for number, cut in enumerate(cuts):
        (samples,) = cut.load_audio()
        whole = (samples * 32768).round().astype(np.int16)
        np.testing.assert_array_equal(whole, corpus.sound(number, 0.0, cut.duration))
        for said in cut.supervisions:
            place, ours = next(segments)
            assert (said.id, said.text, said.speaker, said.language) == (ours.id, ours.text, ours.speaker, "en")
            assert (said.start, said.end) == pytest.approx((ours.start, ours.end))
            assert (said.custom["split"], said.custom["section"]) == (ours.split, ["A", "B"])
            np.testing.assert_array_equal(whole[round(said.start * RATE) : round(said.end * RATE)], sound(place))
    facts = [json.loads(line) for line in (directory / "articles.jsonl").read_text().splitlines()]
    assert [one["id"] for one in facts] == [cut.supervisions[0].custom["article"] for cut in cuts]


def test_travels_to_another_process_without_its_tables(directory: Path) -> None:
    corpus = single(directory)
    corpus.audio(0)
    assert len(pickle.dumps(corpus)) < 4000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(corpus.audio, (4,)), corpus.audio(4))


def read_all(directory: Path) -> None:
    """Reads everything; what is read must be what was written."""
    corpus = single(directory)
    for number in range(len(corpus.segments)):
        segment, samples = corpus.segments[number], corpus.pcm16(number)
        assert segment.text == f"Text “{number:02d}”"
        assert segment.context.title == ("Anfang" if number % 4 == 0 else f"Öl {number // 4}")
        np.testing.assert_array_equal(samples, sound(number))


def without_a_line(shards: Path) -> str:
    lines = (shards / "cuts.000000.jsonl").read_text().splitlines(keepends=True)
    (shards / "cuts.000000.jsonl").write_text("".join(lines[:1] + lines[2:]))
    return r"cuts\.000000\.jsonl: has [\d,]+ bytes, not [\d,]+"


def lines_exchanged(shards: Path) -> str:
    """Texts of another recording in their layout."""
    path = shards / "cuts.000000.jsonl"
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first.replace("00000-0", "00001-1"), second.replace("00001-1", "00000-0"), *rest]))
    return r"cuts\.000000\.jsonl: was changed at byte"


def files_exchanged(first: str, second: str) -> Callable[[Path], str]:
    def exchange(shards: Path) -> str:
        (shards / first).rename(shards / "other")
        (shards / second).rename(shards / first)
        (shards / "other").rename(shards / second)
        return first.replace(".", r"\.")

    return exchange


def records_exchanged(shards: Path) -> str:
    """The sounds of two recordings of one size, or else of one of them with other samples."""
    path = shards / "recording.000000.tar"
    content = bytearray(path.read_bytes())
    cut = [json.loads(line)["custom"] for line in (shards / "cuts.000000.jsonl").read_text().splitlines()]
    size = min(cut[0]["size"], cut[1]["size"])
    places = [slice(one["offset"], one["offset"] + size) for one in cut[:2]]
    content[places[0]], content[places[1]] = content[places[1]], content[places[0]]
    path.write_bytes(content)
    return r"recording\.000000\.tar: is damaged or another corpus's"


def truncated(name: str) -> Callable[[Path], str]:
    def cut(shards: Path) -> str:
        os.truncate(shards / name, (shards / name).stat().st_size - 100)
        return Path(name).name.replace(".", r"\.") + r": has [\d,]+ bytes, not [\d,]+"

    return cut


def missing(name: str) -> Callable[[Path], str]:
    def remove(shards: Path) -> str:
        (shards / name).unlink()
        return Path(name).name.replace(".", r"\.") + ": No such file"

    return remove


def another_article(shards: Path) -> str:
    path = shards.parent / "articles.jsonl"
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([second + first[:-1], "\n", *rest])[::-1])
    return r"articles\.jsonl:1: was changed"


def of_another_version(shards: Path) -> str:
    path = shards.parent / "corpus.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    return r"corpus\.json: is not of cwjax prepared corpus, version 2"


def of_the_first_version(shards: Path) -> str:
    shutil.rmtree(shards)
    (shards.parent / "index.jsonl").write_text("{}")
    (shards.parent / "audio-00000.pcm16.array_record").write_bytes(b"")
    return "was prepared by an earlier version; delete it and prepare it again"


@pytest.mark.parametrize(
    "harm",
    [
        without_a_line,
        lines_exchanged,
        files_exchanged("cuts.000000.jsonl", "cuts.000001.jsonl"),
        files_exchanged("recording.000000.tar", "recording.000001.tar"),
        records_exchanged,
        truncated("recording.000001.tar"),
        truncated("../index/supervisions.bin"),
        missing("recording.000001.tar"),
        missing("../index/blocks.bin"),
        another_article,
        of_another_version,
        of_the_first_version,
    ],
)
def test_what_was_changed_is_noticed_and_named(directory: Path, harm: Callable[[Path], str]) -> None:
    read_all(directory)
    named = harm(directory / "shards")
    with pytest.raises(CwjaxError, match=named) as refused:
        read_all(directory)
    assert "\n" not in str(refused.value)
    assert "prepare" in str(refused.value), "the cure"


def test_damaged_sound_is_never_given(directory: Path) -> None:
    shard = directory / "shards" / "recording.000000.tar"
    content = shard.read_bytes()
    generator = np.random.default_rng(0)
    refused = []
    for _ in range(30):
        damaged = bytearray(content)
        damaged[generator.integers(len(damaged))] ^= 1 << int(generator.integers(8))
        shard.write_bytes(damaged)
        try:
            read_all(directory)  # sound, where nobody looks: what fills the archive up
        except CwjaxError as error:
            refused.append(str(error))
    assert len(refused) >= 10
    assert all(f"{shard.name}: is damaged" in reason for reason in refused)


def test_loud_samples_are_clipped_not_wrapped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile([2.0, -2.0, 1.0], 4000).astype(np.float32), RATE, subtype="FLOAT")
    (tmp_path / "table.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "loud"}))
    corpus = prepare("manifest", tmp_path, tmp_path / "prepared")
    np.testing.assert_allclose(corpus.audio(0)[:3], [1, -1, 1], atol=1e-4)


@pytest.mark.parametrize("change", ["split", "row", "new table", "gone"])
def test_what_it_was_made_of_must_not_change(tmp_path: Path, change: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_corpus(root)
    prepare("manifest", root, root / "prepared")
    for path in root.glob("*.json*"):
        os.utime(path)  # as a copy would have it
    assert len(prepare("manifest", root, root / "prepared").supervisions) == 4 * RECORDINGS
    table = root / "table.jsonl"
    if change == "split":
        splits = json.loads((root / "splits.json").read_text())
        (root / "splits.json").write_text(json.dumps(splits | {"test": splits["test"][::-1]}))
    elif change == "row":
        table.write_text(table.read_text().replace("Text", "Word", 1))
    elif change == "new table":
        (root / "more.jsonl").write_text(json.dumps({"audio": "0.wav", "text": "all of it"}))
    else:
        (root / "splits.json").unlink()
    name = {"row": "table.jsonl", "new table": "more.jsonl"}.get(change, "splits.json")
    with pytest.raises(CwjaxError, match=rf"prepared: was prepared before .*{name} changed; delete it and prepare"):
        prepare("manifest", root, root / "prepared")
