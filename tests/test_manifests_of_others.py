"""What other libraries write is read: manifests of lhotse, WebDataset, tables of `datasets`, archives of NeMo."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounding import RATE, heard, sound, word

from cwjax.data.audio.decode import audio_duration, read_audio
from cwjax.data.corpora import huggingface, lhotse, webdataset
from cwjax.data.corpora.registry import READERS, CorpusName, require_corpus
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.cuts import Cut, Recording, Supervision, TimedWord, write_cuts
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError

LIMITS = SegmentationSettings()


def words(*numbers: int) -> str:
    return " ".join(map(word, numbers))


def spoken(*numbers: int, seconds: float = 0.0) -> np.ndarray:
    """Half a second a word, the first after 0.1 s."""
    said = [(number, 0.1 + 0.5 * place, 0.3 + 0.5 * place) for place, number in enumerate(numbers)]
    return sound(said, seconds or 0.5 * len(numbers), RATE)


def flac(*numbers: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, spoken(*numbers), RATE, format="FLAC")
    return file.getvalue()


def require_sound(corpus: PreparedCorpus) -> None:
    for place, segment in enumerate(corpus.segments):
        assert [word(number) for number, _, _ in heard(corpus.audio(place))] == segment.text.split(), segment.id


def facts(corpus: PreparedCorpus) -> list[tuple[str, str, str]]:
    return sorted((one.text, one.split, one.context.title) for one in corpus.segments)


def write_tar(path: Path, **files: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_lhotse_audio(root: Path) -> None:
    root.mkdir()
    soundfile.write(root / "a.wav", spoken(1, 2, 3, 4), RATE)
    soundfile.write(root / "b.wav", np.stack([spoken(5, 6), spoken(7, 8)], axis=1), RATE)


def cuts_of_lhotse(root: Path):
    from lhotse import CutSet, MonoCut, SupervisionSegment
    from lhotse import Recording as LhotseRecording
    from lhotse.supervision import AlignmentItem

    one, two = (LhotseRecording.from_file(root / f"{name}.wav", recording_id=name) for name in "ab")
    supervisions = [
        SupervisionSegment("s1", "a", 0.0, 0.5, text=word(2), speaker="Jo", language="German").with_alignment(
            "word", [AlignmentItem(word(2), 0.1, 0.2, 0.9)]
        ),
        SupervisionSegment("s2", "a", 0.5, 1.0, text=words(3, 4), custom={"gap_before": True, "title": "Lake"}),
    ]
    cuts = [
        MonoCut("c1", 0.5, 1.5, 0, supervisions=supervisions, recording=one, custom={"title": "Boats", "offset": 9})
    ]
    for channel, said in ((0, words(5, 6)), (1, words(7, 8))):
        supervision = SupervisionSegment(f"s{channel}b", "b", 0.0, 1.0, channel=channel, text=said)
        cuts.append(MonoCut(f"c{channel}b", 0.0, 1.0, channel, supervisions=[supervision], recording=two))
    return CutSet.from_cuts(cuts)


def test_cuts_that_lhotse_wrote(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_lhotse_audio(root)
    cuts_of_lhotse(root).to_file(root / "cuts_train.jsonl.gz")
    corpus = prepare("lhotse", root, tmp_path / "out")
    require_sound(corpus)
    assert facts(corpus) == sorted([
        (word(2), "train", "Boats"), (words(3, 4), "train", "Lake"),
        (words(5, 6), "train", ""), (words(7, 8), "train", ""),
    ])  # fmt: skip
    first = next(one for one in corpus.segments if one.id == "s1")
    assert (first.start, first.end, first.speaker, first.language, first.article) == (0.5, 1.0, "Jo", "de", "a")
    after = next(one for one in corpus.segments if one.id == "s2")
    assert after.context.previous == "", "something unknown was said before"


def test_words_keep_their_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    write_lhotse_audio(root)
    cuts_of_lhotse(root).to_file(root / "cuts.jsonl")
    listed = []
    monkeypatch.setattr(lhotse, "as_reading", lambda root, article, *rest: listed.append(article))
    lhotse.read(root, next(lhotse.articles(root)), LIMITS)
    assert listed[0].utterances[0].words == (TimedWord(word(2), 0.6, 0.8, 0.9),), "seconds of the file"


def test_shar(tmp_path: Path) -> None:
    write_lhotse_audio(tmp_path / "audio")
    root = tmp_path / "root"
    (root / "test").mkdir(parents=True)
    cuts_of_lhotse(tmp_path / "audio").to_shar(root / "test", fields={"recording": "flac"}, shard_size=2)
    (tmp_path / "audio").rename(tmp_path / "gone")
    corpus = prepare("lhotse", root, tmp_path / "out")
    require_sound(corpus)
    assert facts(corpus) == sorted([
        (word(2), "test", "Boats"), (words(3, 4), "test", "Lake"),
        (words(5, 6), "test", ""), (words(7, 8), "test", ""),
    ])  # fmt: skip


@pytest.mark.parametrize("is_damaged", [False, True])
def test_recordings_with_supervisions(tmp_path: Path, is_damaged: bool) -> None:
    root = tmp_path / "root"
    write_lhotse_audio(root)
    recordings, supervisions, _ = cuts_of_lhotse(root).decompose()
    recordings.to_file(root / "x_recordings_dev.jsonl.gz")
    supervisions.to_file(root / "x_supervisions_dev.jsonl")
    if is_damaged:
        with (root / "x_supervisions_dev.jsonl").open("a") as lines:
            lines.write('{"recording_id": "nowhere", "id": "z", "start": 0, "duration": 1}\n{half\n')
    corpus = prepare("lhotse", root, tmp_path / "out")
    require_sound(corpus)
    assert [one.split for one in corpus.segments] == ["validation"] * 4
    reasons = " ".join(json.loads((tmp_path / "out" / "report.json").read_text())["failures"].values())
    assert ("x_supervisions_dev.jsonl:6: is no JSON" in reasons) == is_damaged
    assert ("1 supervisions are of recordings that x_recordings_dev.jsonl.gz does not have" in reasons) == is_damaged


def test_cuts_that_cwjax_wrote_and_lines_that_are_none(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_lhotse_audio(root)
    sound = Recording("a", RATE, 32_000, "a.wav")
    said = Supervision("s", 0.5, 1.0, word(2), custom={"keywords": ["oar", "lake"]})
    write_cuts(root / "cuts.jsonl.gz", [Cut("c", sound, 0.0, 2.0, (said,))])
    (root / "more_cuts.jsonl").write_text(
        json.dumps(Cut("d", sound, 0.0, 2.0, (said,)).as_dict()) + '\n{"type": "MixedCut", "id": "m"}\n[]\n'
    )
    corpus = prepare("lhotse", root, tmp_path / "out")
    require_sound(corpus)
    assert [one.context.keywords for one in corpus.segments] == [("oar", "lake")] * 2
    reasons = " ".join(json.loads((tmp_path / "out" / "report.json").read_text())["failures"].values())
    assert "more_cuts.jsonl:2: is no cut of a recording" in reasons
    assert "more_cuts.jsonl:3: is no JSON object" in reasons


def web_dataset(root: Path) -> None:
    write_tar(root / "train-000000.tar", **{
        "./one.flac": flac(1, 2), "./one.txt": words(1, 2), "a/two.flac": flac(3),
        "a/two.json": json.dumps({"text": word(3), "title": "Boats", "language": "de", "duration": 99}),
        "three.flac": flac(4), "notes.txt": "no audio",
    })  # fmt: skip
    write_tar(root / "dev" / "0.tar", **{"x.y.flac": flac(5), "x.y.transcript": word(5)})


def test_web_dataset(tmp_path: Path) -> None:
    web_dataset(tmp_path / "root")
    corpus = prepare("webdataset", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert facts(corpus) == sorted(
        [(words(1, 2), "train", ""), (word(3), "train", "Boats"), (word(5), "validation", "")]
    )
    assert {one.text: one.language for one in corpus.segments}[word(3)] == "de"
    reasons = " ".join(json.loads((tmp_path / "out" / "report.json").read_text())["failures"].values())
    assert "train-000000.tar: 2 names have no audio or no text beside it" in reasons


def test_a_tar_that_was_cut_or_compressed(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "0.tar", **{"1.flac": flac(1), "1.txt": word(1), "2.flac": flac(2), "2.txt": word(2)})
    content = (tmp_path / "a" / "0.tar").read_bytes()
    (tmp_path / "a" / "0.tar").write_bytes(content[: content.index(b"2.flac") + 1000])
    (tmp_path / "a" / "1.tar").write_bytes(b"\x1f\x8b" + content)
    cut, whole, compressed = webdataset.articles(tmp_path / "a")
    assert (cut.audio, whole.audio, compressed.audio) == ((), ("0.tar/1.flac",), ())
    assert "0.tar: ends after 1.txt, without the mark of its end; fetch it again" in cut.content
    assert "1.tar: cannot be read as a tar file" in compressed.content


def hugging_face(root: Path, kind: str) -> None:
    import pyarrow
    from pyarrow import ipc, parquet

    for split, numbers in (("train", (1, 2, 3)), ("test", (4,))):
        table = pyarrow.table({
            "audio": [{"bytes": flac(number), "path": f"{number}.flac"} for number in numbers],
            "sentence": [word(number) for number in numbers],
            "title": [f"The {number}" for number in numbers],
            "duration": [99.0 for _ in numbers],
        })  # fmt: skip
        (root / split).mkdir(parents=True)
        if kind == "parquet":
            parquet.write_table(table, root / split / "0000.parquet", row_group_size=2)
        else:
            opened = ipc.new_stream if kind == "stream" else ipc.new_file
            with opened(root / split / "data-00000-of-00001.arrow", table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
            (root / split / "cache-1.arrow").write_bytes(b"of another program")


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_tables_of_datasets(tmp_path: Path, kind: str) -> None:
    hugging_face(tmp_path / "root", kind)
    corpus = prepare("huggingface", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert facts(corpus) == sorted(
        (word(number), "test" if number == 4 else "train", f"The {number}") for number in (1, 2, 3, 4)
    )


def test_tables_of_datasets_that_hold_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    from pyarrow import parquet

    hugging_face(tmp_path, "parquet")
    parquet.write_table(pyarrow.table({"text": ["so"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 is not all")
    units = {unit.name: unit.content for unit in huggingface.articles(tmp_path)}
    assert "a.parquet: has no column with audio files" in units["a.parquet"]
    assert "b.parquet: cannot be read" in units["b.parquet"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CwjaxError, match="needs the package pyarrow, not installed here: pip install"):
        list(huggingface.articles(tmp_path))


def test_archives_of_nemo(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tar(root / "audio_0.tar", **{"a.flac": flac(1, 2)})
    write_tar(root / "audio_1.tar", **{"b.flac": flac(3)})
    rows = [
        {"audio_filepath": "a.flac", "duration": 1.0, "text": words(1, 2), "shard_id": 0},
        {"audio_filepath": "b.flac", "duration": 0.5, "text": word(3), "shard_id": 1},
    ]
    (root / "tarred_audio_manifest.json").write_text("\n".join(map(json.dumps, rows)))
    corpus = prepare("manifest", root, tmp_path / "out")
    require_sound(corpus)
    assert len(corpus.segments) == 2


def test_members_are_files(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", **{"b/c.flac": flac(1, 2)})
    assert audio_duration(tmp_path / "a.tar/b/c.flac") == 1.0
    assert len(read_audio(str(tmp_path / "a.tar/b/c.flac"))) == RATE
    for path in ("a.tar/c.flac", "a.tar/b", "b.tar/c.flac"):
        with pytest.raises(CwjaxError, match="no such audio file"):
            audio_duration(tmp_path / path)


@pytest.mark.parametrize("name", ["webdataset", "lhotse", "huggingface"])
def test_only_its_reader_recognises_it(tmp_path: Path, name: CorpusName) -> None:
    if name == "webdataset":
        web_dataset(tmp_path / "root")
    elif name == "huggingface":
        hugging_face(tmp_path / "root", "parquet")
    else:
        write_lhotse_audio(tmp_path / "audio")
        (tmp_path / "root").mkdir()
        cuts_of_lhotse(tmp_path / "audio").to_shar(tmp_path / "root", fields={"recording": "flac"}, shard_size=2)
    require_corpus(name, tmp_path / "root")
    for other in READERS.keys() - {name}:
        with pytest.raises(CwjaxError, match=f"that one is called {name}"):
            require_corpus(other, tmp_path / "root")
