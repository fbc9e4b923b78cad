"""Items of every public suite come out field by field, and `cwjax score` counts them."""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_suites import (
    audio,
    contextasr,
    contextual_earnings22,
    earnings21,
    is21,
    m3av,
    mlperf,
    open_asr,
    profasr,
    read,
    spoken_wikipedia,
    text,
    tone,
)
from sounding import RATE, heard, word

from cwjax.evaluation.conditions import Condition, Others
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites import SUITES, open_suite
from cwjax.inference.audio import Recording
from cwjax.scoring.readers import Utterance as Scored
from cwjax.scoring.score import score_files, summarise

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
