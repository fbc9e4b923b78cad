"""Every public suite, written small in its own layout: items come out field by field, and `cwjax score` counts them.

Words are tones, so that what an item's reference says can be heard in its audio.
"""

import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sounding import RATE, heard, sound, word, write_sound

from cwjax.data.prepared.build import prepare
from cwjax.errors import CwjaxError
from cwjax.evaluation.conditions import Condition, Others
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites import SUITES, open_suite
from cwjax.evaluation.suites.tables import table_rows
from cwjax.inference.audio import Recording
from cwjax.scoring.readers import Utterance as Scored
from cwjax.scoring.score import score_files, summarise

SECONDS = 0.6


def tone(number: int, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """A word that is heard from 0.1 s on for 0.3 s."""
    return sound([(number, 0.1, 0.4)], seconds, rate)


def audio(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sound(path, tone(number), RATE)
    return path


def content(number: int, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(number, rate=rate), rate, format="WAV")
    return file.getvalue()


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table as `datasets` writes it: Parquet, or an Arrow stream."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    made = pyarrow.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        parquet.write_table(made, path, row_group_size=2)
    else:
        with ipc.new_stream(str(path), made.schema) as stream:
            stream.write_table(made, max_chunksize=2)
    return path


def cell(number: int, rate: int = RATE) -> dict[str, Any]:
    return {"bytes": content(number, rate), "path": f"{number}.wav"}


def is21(root: Path) -> str:
    base = root / "LibriSpeech"
    text(
        base / "CHAPTERS.TXT",
        "; ID | READER | MINUTES | SUBSET | PROJ. | BOOK ID | CH. TITLE | PROJECT TITLE",
        "121726 | 121 | 8.42 | test-clean | 219 | 121 | Chapter 01 | Northanger Abbey",
    )
    for number in range(3):
        audio(base / "test-clean" / "121" / "121726" / f"121-121726-000{number}.flac", number)
    text(
        root / "is21_deep_bias" / "ref" / "test-clean.biasing_100.tsv",
        '121-121726-0000\tthe tone0 of morland\t["tone0", "morland"]\t["zebra", "tone0", "apse", "morland"]',
        '121-121726-0001\ttone1 again\t[]\t["apse"]',
        '121-121726-0002\tonly tone2\t["tone2"]\t["tone2", "zebra"]',
    )
    return "is21/test-clean.biasing_100"


def contextasr(root: Path) -> str:
    names = "FNED-000001_EN", "FNED-000002_EN"
    row = {"language": "English", "duration": SECONDS, "domain_label": "Medicine"}
    text(
        root / "ContextASR-Speech_English.jsonl",
        *(
            json.dumps(
                {
                    "uniq_id": name,
                    **row,
                    "audio": f"audio/ContextASR-Speech/English/{name}.wav",
                    "text": f"Dr. Vogt said tone{number}.",
                    "entity_list": ["Dr. Vogt", f"tone{number}", "Dr.  Vogt", " "],
                }
            )
            for number, name in enumerate(names)
        ),
    )
    audio(root / "audio" / "ContextASR-Speech" / "English" / f"{names[0]}.wav", 0)
    with tarfile.open(root / "audio/ContextASR-Speech/English/ContextASR-Speech_English_1.tar", "w") as archive:
        member = tarfile.TarInfo(f"./{names[1]}.wav")
        member.size = len(content(1))
        archive.addfile(member, io.BytesIO(content(1)))
    return "contextasr/Speech_English"


def profasr(root: Path) -> str:
    table(
        root / "data" / "train" / "data-00000-of-00003.arrow",
        [
            {
                "utterance_id": f"fin_{number}",
                "audio": cell(number, 22_050),
                "text": f"We met. It was tone{number}.",
                "profile": "mid-thirties analyst from Toronto",
                "domain": "FINANCIAL",
                "voice": "emma",
                "asr_difficulty": 0.4,
                "sentences": ["We met.", f"It was tone{number}."],
                "prompt": ["We met."],
                "truth": f"It was tone{number}.",
            }
            for number in range(3)
        ],
    )
    return "profasr"


def contextual_earnings22(root: Path) -> str:
    table(
        root / "data" / "test-00000-of-00001.parquet",
        [
            {
                "audio": cell(number),
                "file_id": "4468654_chunk45",
                "audio_start": 15.0 * number,
                "audio_end": 15.0 * number + 15,
                "duration": 15.0,
                "text": f"At Aberdeen we saw tone{number}.",
                "norm_text": f"at aberdeen we saw tone{number}",
                "transcript": ["at", "aberdeen"],
                "dictionary": ["Aberdeen", f"tone{number}"],
                "keywords": ["Aberdeen", "Zurich", f"tone{number}", "Jane Roe"],
                "is_flagged": False,
            }
            for number in range(2)
        ],
    )
    return "contextual-earnings22"


NLP = "token|speaker|ts|endTs|punctuation|case|tags|wer_tags"


def earnings21(root: Path) -> str:
    conec, speech = root / "ConEC" / "earnings21", root / "speech-datasets" / "earnings21"
    text(
        conec / "transcripts" / "nlp_references" / "4320211.nlp",
        NLP,
        "Good|0||||UC|[]|[]",
        "morning|0|||,|LC|['4:TIME']|['4']",
        "<inaudible>|0||||LC|[]|[]",
        "Maureen|0||||UC|['7:PERSON']|['7']",
        "D'Ambrosia|1|||,|UC|['7:PERSON']|['7']",
        "tone3|1|||.|LC|['8:ORG']|['8', '9']",
    )
    text(conec / "contexts" / "4320211.txt", "undercar 1", "dambrosia 1", "morning 2")
    text(
        conec / "contexts" / "participant_names" / "4320211.names.txt",
        "Maureen D'Ambrosia - CFO",
        "Bret Jordan - Jefferies",
    )
    audio(speech / "media" / "4320211.wav", 3)
    text(
        speech / "earnings21-file-metadata.csv",
        "file_id,audio_length,sample_rate,company_name,financial_quarter,sector",
        "4320211,3600,44100,Monro Inc,3,Consumer Goods",
    )
    return "earnings21"


def m3av(root: Path) -> str:
    text(root / "set_split.json", json.dumps({"CHI-0B493": "test", "CHI-003EC": "dev", "CHI-004BD": "train"}))
    path = root / "dataset_v1.0_onlyaudio" / "CHI-0B493.flac"
    path.parent.mkdir(parents=True)
    write_sound(path, sound([(0, 0.6, 0.9), (1, 1.3, 1.6)], 2.0, RATE), RATE)
    segments = [
        {"timestr": "0000500_0001000", "final_spoken": "this is tone0", "final_written": "This is tone0."},
        {"timestr": "0001200_0001900", "final_spoken": "and tone1", "final_written": "And tone1."},
    ]
    text(root / "dataset_v1.0_noaudio/CHI-0B493/speech/final+timestamps.json", json.dumps(segments))
    about = {"id": "WmGob4", "title": "Tether", "description": "A pocket sensor.", "tags": ["chi", "touch"]}
    text(root / "info" / "CHI-0B493.info.json", json.dumps(about))
    return "m3av/test"


def spoken_wikipedia(root: Path) -> str:
    rows = []
    for number, split in enumerate(("test", "train")):
        (root / "speech").mkdir(exist_ok=True)
        write_sound(root / "speech" / f"{number}.wav", tone(number, 3.0), RATE)
        rows.append(
            {
                "id": f"north/{number}",
                "article": f"Northanger {number}",
                "audio": f"{number}.wav",
                "text": f"He heard, he heard, he heard, he said tone{number}.",
                "title": "Northanger",
                "section": "Plot",
                "lead": "It is a novel. He heard, he heard, he heard, he said tone0. It ends well.",
                "keywords": "tone0;Bath",
                "speaker": f"ann {number}",
                "split": split,
            }
        )
    text(root / "speech" / "table.jsonl", "\n".join(map(json.dumps, rows)))
    prepare("manifest", root / "speech", root / "prepared", audio="flac")
    for path in [*(root / "prepared").iterdir()]:
        path.rename(root / path.name)
    return "spoken-wikipedia"


def open_asr(root: Path) -> str:
    said = "tone0 okay", "ignore time segment in scoring", "", "tone3 yes"
    rows = [
        {"audio": cell(number), "dataset": "ami", "text": one, "id": f"AMI_{number}", "audio_length_s": SECONDS}
        for number, one in enumerate(said)
    ]
    table(root / "ami" / "test-00000-of-00002.parquet", rows[:3])
    table(root / "ami" / "test-00001-of-00002.parquet", rows[3:])
    return "open-asr/ami/test"


def mlperf(root: Path) -> str:
    clips = []
    for number in range(2):
        clip = audio(root / "dev-all-repack" / f"1272-128104_{number}.wav", number)
        file = {
            "channels": 1,
            "sample_rate": 16000.0,
            "duration": SECONDS,
            "fname": f"/data/dev-all-repack/{clip.name}",
        }
        clips.append(
            {"transcript": f"tone{number} was he", "files": [file | {"speed": 1}], "original_duration": SECONDS}
        )
    text(root / "dev-all-repack.json", json.dumps(clips, indent=2))
    return "mlperf"


MAKERS: tuple[Callable[[Path], str], ...] = (
    is21,
    contextasr,
    profasr,
    contextual_earnings22,
    earnings21,
    m3av,
    spoken_wikipedia,
    open_asr,
    mlperf,
)


def read(make: Callable[[Path], str], root: Path) -> list[Item]:
    return list(open_suite(make(root), root))


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_references_say_what_is_heard_and_fields_can_be_scored(make: Callable[[Path], str], tmp_path: Path) -> None:
    items = read(make, tmp_path)
    assert items
    for item in items:
        said = [one.strip(".,").lower() for one in item.reference.split()]
        recording = Recording.open(item.audio)
        assert [word(number) for number, _, _ in heard(recording.samples)] == [one for one in said if "tone" in one]
        assert set(item.texts) <= {"right", "topic", "title", "lead", "previous", "wrong"}
        assert all(item.texts.values())
        assert set(item.fields) <= set(Scored.__dataclass_fields__)
        json.dumps(item.fields)
        assert not set(item.phrases) & set(item.distractors)
    assert read_limited(tmp_path, make.__name__) == [item.id for item in items[:1]]


def read_limited(root: Path, name: str) -> list[str]:
    suite = {"is21": "is21/test-clean.biasing_100", "contextasr": "contextasr/speech_english", "m3av": "m3av/TEST"}
    suite |= {"open_asr": "open-asr/ami/test"}
    return [item.id for item in open_suite(suite.get(name, name.replace("_", "-")), root, limit=1)]


def test_all_suites_are_tested() -> None:
    assert {make.__name__.replace("_", "-") for make in MAKERS} == set(SUITES)


def test_is21(tmp_path: Path) -> None:
    first, second, third = read(is21, tmp_path)
    assert first.id == "121-121726-0000"
    assert first.reference == "the tone0 of morland"
    assert first.phrases == ("tone0", "morland")
    assert first.distractors == ("zebra", "apse")
    assert first.texts == {"title": "Northanger Abbey", "topic": "Chapter 01, Northanger Abbey"}
    assert first.fields == {
        "bias_words": ["tone0", "morland"],
        "speaker": "121",
        "recording": "121-121726",
        "subset": "test-clean",
    }
    assert second.fields["bias_words"] == []
    assert second.texts["previous"] == first.reference
    lines = (tmp_path / "is21_deep_bias/ref/test-clean.biasing_100.tsv").read_text().splitlines()
    items, own = (first, second, third), Condition.named("phrases:own")
    told = [set(own.give(item, Others(items)).phrases) for item in items]
    assert told == [set(json.loads(line.split("\t")[3])) for line in lines], "the list of the file, all of it alone"


def test_contextasr(tmp_path: Path) -> None:
    unpacked, packed = read(contextasr, tmp_path)
    assert unpacked.id == "FNED-000001_EN"
    assert unpacked.language == "en"
    assert unpacked.texts == {"topic": "Medicine"}
    assert unpacked.phrases == ("Dr. Vogt", "tone0")
    assert unpacked.fields == {"entities": ["Dr. Vogt", "tone0"], "subset": "Speech_English", "topic": "Medicine"}
    assert isinstance(unpacked.audio, Path)
    assert np.abs(np.asarray(packed.audio) - tone(1)).max() < 1e-4


def test_mandarin_and_dialogues_of_contextasr(tmp_path: Path) -> None:
    clip = audio(tmp_path / "audio" / "ContextASR-Dialogue" / "Mandarin" / "d1.wav", 0)
    turns = [{"text": "你好", "start": 0.0, "end": 0.4}]
    row = {"uniq_id": "d1", "language": "Mandarin", "text": "你好", "entity_list": [], "dialogue": turns}
    row["audio"] = str(clip.relative_to(tmp_path))
    text(tmp_path / "ContextASR-Dialogue_Mandarin.jsonl", json.dumps(row, ensure_ascii=False))
    (item,) = open_suite("contextasr/Dialogue_Mandarin", tmp_path)
    assert (item.language, item.reference, dict(item.texts)) == ("zh", "你好", {})


def test_profasr(tmp_path: Path) -> None:
    item = read(profasr, tmp_path)[1]
    profile = "mid-thirties analyst from Toronto"
    assert (item.id, item.reference) == ("fin_1", "It was tone1.")
    assert item.texts == {"title": profile, "topic": f"Financial. {profile}", "previous": "We met."}
    assert item.fields == {"cluster": "It was tone1.", "topic": "financial", "subset": "financial", "speaker": "emma"}


def test_contextual_earnings22(tmp_path: Path) -> None:
    item = read(contextual_earnings22, tmp_path)[1]
    assert (item.id, item.reference) == ("4468654_chunk45@15.00", "At Aberdeen we saw tone1.")
    assert item.phrases == ("Aberdeen", "tone1")
    assert item.distractors == ("Zurich", "Jane Roe")
    assert item.fields == {"keywords": ["Aberdeen", "tone1"], "recording": "4468654"}


def test_earnings21(tmp_path: Path) -> None:
    (item,) = read(earnings21, tmp_path)
    assert item.reference == "Good morning, Maureen D'Ambrosia, tone3."
    assert item.phrases == ("Maureen D'Ambrosia", "tone3")
    assert item.distractors == ("Bret Jordan", "undercar")
    assert item.texts == {
        "title": "Monro Inc",
        "topic": "Earnings call of Monro Inc. Consumer Goods",
        "lead": "Maureen D'Ambrosia - CFO; Bret Jordan - Jefferies",
    }
    assert item.fields == {"keywords": list(item.phrases), "recording": "4320211", "topic": "Consumer Goods"}


def test_m3av(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = read(m3av, tmp_path)
    # Nothing of the lectures of other splits, which are not there.
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert (first.id, second.id) == ("CHI-0B493_0000", "CHI-0B493_0001")
    assert first.reference == "this is tone0"
    assert first.texts == {
        "title": "Tether",
        "lead": "A pocket sensor.",
        "topic": "Tether A pocket sensor. chi, touch",
    }
    assert second.texts["previous"] == "This is tone0."
    assert len(np.asarray(second.audio)) == 0.7 * RATE
    assert first.fields == {"recording": "CHI-0B493", "subset": "CHI", "topic": "Tether"}


def test_spoken_wikipedia(tmp_path: Path) -> None:
    (item,) = read(spoken_wikipedia, tmp_path)
    assert (item.id, item.reference, item.phrases, item.distractors) == (
        "north/0",
        "He heard, he heard, he heard, he said tone0.",
        ("tone0",),
        ("Bath",),
    )
    assert item.texts["topic"] == "It is a novel."
    assert item.texts["lead"] == "Northanger. It is a novel. It ends well."
    assert item.fields == {"speaker": "ann 0", "recording": "Northanger 0", "subset": "test"}


def test_open_asr_leaves_out_what_the_leaderboard_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = read(open_asr, tmp_path)
    assert [item.id for item in items] == ["AMI_0", "AMI_3"]
    assert items[0].fields == {"subset": "ami/test"}
    assert "test-00000-of-00002.parquet, row 2: is not to be scored" in caplog.text
    assert "test-00000-of-00002.parquet, row 3: text is ''" in caplog.text
    assert "2 items, 2 left out" in caplog.text


def test_mlperf(tmp_path: Path) -> None:
    item = read(mlperf, tmp_path)[1]
    assert (item.id, item.reference) == ("1272-128104_1", "tone1 was he")
    assert item.fields == {"recording": "1272-128104", "speaker": "1272"}


def rates(items: Iterable[Item], heard_as: dict[str, str], path: Path, **options: Any) -> dict[str, Any]:
    """What `cwjax score` says of made-up hypotheses, from a file as `cwjax evaluate` writes it."""
    lines = [
        {"id": item.id, "reference": item.reference, "hypothesis": heard_as.get(item.id, item.reference)}
        | {"language": item.language, **item.fields}
        for item in items
    ]
    text(path, *map(json.dumps, lines))
    return next(iter(summarise(score_files([path], **options))["runs"].values()))["rates"]


def test_is21_scored(tmp_path: Path) -> None:
    items = read(is21, tmp_path)
    wrong = {"121-121726-0000": "the tone0 of moreland", "121-121726-0001": "tone9 again"}
    found = rates(items, wrong, tmp_path / "hypotheses.jsonl", normaliser_name="none")
    assert found["B-WER"]["rate"] == pytest.approx(1 / 3)  # of tone0, morland and tone2
    assert found["U-WER"]["rate"] == pytest.approx(1 / 5)
    assert found["WER"]["rate"] == pytest.approx(2 / 8)


def test_contextasr_scored(tmp_path: Path) -> None:
    pytest.importorskip("contractions")
    items = read(contextasr, tmp_path)
    found = rates(
        items,
        {"FNED-000001_EN": "Dr. Vogt said tune."},
        tmp_path / "hypotheses.jsonl",
        normaliser_name="contextasr",
        measures=["wer", "entities"],
    )
    assert found["NE-FNR"]["rate"] == pytest.approx(1 / 4)
    assert found["WER"]["rate"] == pytest.approx(1 / 8)


def test_keywords_scored(tmp_path: Path) -> None:
    items = read(contextual_earnings22, tmp_path)
    wrong = {"4468654_chunk45@0.00": "At Aberdien we saw tone0."}
    found = rates(items, wrong, tmp_path / "hypotheses.jsonl", measures=["keywords"])
    assert found["recall"]["rate"] == pytest.approx(3 / 4)
    assert found["precision"]["rate"] == 1


def test_homogeneous_clusters_of_profasr(tmp_path: Path) -> None:
    items = read(profasr, tmp_path)
    found = rates(items, {"fin_0": "it was"}, tmp_path / "hypotheses.jsonl", measures=["mean-wer"])
    assert found["mean WER"]["rate"] == pytest.approx(1 / 9)


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
