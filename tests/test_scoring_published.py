"""Counts and rates equal to those of the published scorers, on inputs of our own (tests/data/scoring_golden.json).

The numbers came from is21_deep_bias/score.py (facebookresearch/fbai-speech, 3fc7bb1), ContextASR-Bench's evaluation
(ba318d7), OpenBench's keyword metrics (argmaxinc/OpenBench, eabc87b) with texterrors 0.5.1, ProfASR-Bench's metrics
(499d979) and jiwer 4.0.0, run on the same inputs.
"""

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import whisper.normalizers

from cwjax.scoring import alignment
from cwjax.scoring.biased_errors import biased_errors
from cwjax.scoring.entities import entity_errors
from cwjax.scoring.keywords import align_by_spelling, keyword_counts
from cwjax.scoring.mean_word_errors import mean_word_errors
from cwjax.scoring.normalisers import normaliser
from cwjax.scoring.score import score_files, summarise
from cwjax.scoring.word_errors import errors_by_place

GOLDEN = json.loads((Path(__file__).parent / "data" / "scoring_golden.json").read_text(encoding="utf-8"))


def columns(name: str, *keys: str) -> list[list]:
    return [[case[key] for case in GOLDEN[name]] for key in keys]


def scored(tmp_path: Path, name: str, measures: tuple[str, ...], normaliser: str = "none") -> dict:
    file = tmp_path / "hypotheses.jsonl"
    lines = (json.dumps({"id": str(number), **case}) for number, case in enumerate(GOLDEN[name]))
    file.write_text("\n".join(lines), encoding="utf-8")
    return summarise(score_files([file], normaliser_name=normaliser, measures=measures))["runs"]["hypotheses.jsonl"]


@pytest.mark.parametrize("cells", [alignment.CELLS, 700])
def test_listed_and_other_words_are_counted_as_is21_does(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "CELLS", cells)  # few: costs are worked out anew, a few rows at a time
    references, hypotheses, listed, other, own = columns(
        "is21", "reference", "hypothesis", "bias_words", "other", "listed"
    )
    counts = biased_errors([one.split() for one in references], [one.split() for one in hypotheses], listed)
    np.testing.assert_array_equal(counts, np.concatenate([other, own], axis=1))


def test_rates_of_is21(tmp_path: Path) -> None:
    rates = scored(tmp_path, "is21", ("b-wer",))["rates"]
    found = [100 * rates[name]["rate"] for name in ("is21 WER", "U-WER", "B-WER")]
    assert found == pytest.approx(GOLDEN["is21_rates"], abs=1e-12)


def test_entities_are_counted_as_contextasr_bench_does() -> None:
    for case in GOLDEN["contextasr"]:
        normalise = normaliser("contextasr", case["language"])
        texts = normalise(case["reference"]), normalise(case["hypothesis"])
        entities = [normalise(one) for one in case["entities"]]
        counts = entity_errors([texts[0]], [texts[1]], [entities])[0].tolist()
        if case["left_out"]:
            assert counts == [0, 0, 0, 0, 0, 0, 1]
            continue
        assert texts[0] == case["normalised"]
        assert counts == [*case["ne_wer"], case["missed"], case["total"], 0], case
        errors, _ = errors_by_place(*(text.split() for text in texts))
        assert errors.rate * errors.reference_words == pytest.approx(sum(case["wer"][:3]))


def test_one_batch_of_entities_counts_as_each_alone(tmp_path: Path) -> None:
    counts = scored(tmp_path, "contextasr", ("entities", "wer"), "contextasr")["counts"]
    kept = [case for case in GOLDEN["contextasr"] if not case["left_out"]]
    assert counts["left_out"] == len(GOLDEN["contextasr"]) - len(kept)
    assert counts["entities_missed"] == sum(case["missed"] for case in kept)
    assert counts["entity_words"] == sum(case["ne_wer"][3] for case in kept)


def test_words_are_aligned_by_spelling_as_texterrors_does() -> None:
    basic = normaliser("basic")
    references, hypotheses, aligned = columns("openbench", "reference", "hypothesis", "aligned")
    words = [[basic(text).split() for text in texts] for texts in (references, hypotheses)]
    for found, golden in zip(align_by_spelling(*words), aligned, strict=True):
        assert [list(pair) for pair in found] == golden


def test_keywords_are_counted_as_openbench_does(tmp_path: Path) -> None:
    basic = normaliser("basic")
    references, hypotheses, keywords, *golden = columns(
        "openbench", "reference", "hypothesis", "keywords", "right", "said", "invented"
    )
    lists = [[basic(one) for one in own] for own in keywords]
    counts = keyword_counts([basic(one) for one in references], [basic(one) for one in hypotheses], lists)
    np.testing.assert_array_equal(counts.T, golden)
    rates = scored(tmp_path, "openbench", ("keywords",))["rates"]
    found = [rates[name]["rate"] for name in ("precision", "recall", "F1")]
    assert found == pytest.approx(GOLDEN["openbench_rates"], abs=2e-8)  # OpenBench adds 1e-8 to its denominators


def test_the_mean_of_rates_is_profasr_benchs(tmp_path: Path) -> None:
    for case in GOLDEN["profasr"]:
        assert mean_word_errors(case["reference"], case["hypothesis"]) == case["wer"]
    rates = scored(tmp_path, "profasr", ("mean-wer",))["rates"]
    assert rates["mean WER"]["rate"] == pytest.approx(GOLDEN["profasr_mean"], abs=1e-15)


def test_words_and_characters_are_counted_as_jiwer_does() -> None:
    for case in GOLDEN["jiwer"]:
        texts = case["reference"], case["hypothesis"]
        for kind, units in (("words", [text.split() for text in texts]), ("characters", texts)):
            errors, places = errors_by_place(*units)
            assert [errors.substitutions, errors.deletions, errors.insertions] == case[kind]
            assert places.sum() == sum(case[kind])


def test_whisper_and_basic_are_openai_whispers() -> None:
    chance = random.Random(0)
    words = "the Mr. Dr. St. it's can't y'all he'd one two oh double hundred million 5 3.5 $25 20% fifty-two half point"
    words += " 1960s 274th first colour [noise] (spoken) <unk> um hmm 1,938 Straße café naïve 50¢ minus 's -- . , !"
    english, published = normaliser("whisper", "en"), whisper.normalizers.EnglishTextNormalizer()
    for _ in range(2000):
        text = " ".join(chance.choice(words.split()) for _ in range(chance.randint(0, 9)))
        assert english(text) == published(text)
    basic, published = normaliser("basic", "hi"), whisper.normalizers.BasicTextNormalizer()
    split, characters = normaliser("basic", "zh"), whisper.normalizers.BasicTextNormalizer(split_letters=True)
    for _ in range(2000):
        text = "".join(chr(chance.choice((chance.randrange(32, 0x3000), chance.randrange(32, 256)))) for _ in range(9))
        text = unicodedata.normalize("NFC", text)
        assert (basic(text), split(text)) == (published(text), characters(text))
