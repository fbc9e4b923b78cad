"""Decisions between words that sound the same, and the statistics behind the interval."""

import json
import random
from pathlib import Path

import pytest

from cwjax.data.segment import Segment, Utterance
from cwjax.errors import CwjaxError
from cwjax.evaluation.homophones import (
    Homophones,
    clustered_interval,
    decide,
    errors_elsewhere,
    partner_articles,
    shares_by_pair,
)
from cwjax.evaluation.transcription import CONDITIONS, Transcription

HOMOPHONES = Homophones(
    words={"Yachts": "sail", "Regattas": "sail", "Bargains": "sale", "Bread": "flour"},
    partners={"Yachts": "sale", "Regattas": "sale", "Bargains": "sail", "Bread": "flower"},
)


def transcription(article: str, said: str, *heard: str) -> Transcription:
    segment = Segment(
        id=f"{article}/{said}",
        article=article,
        audio="a.ogg",
        start=0,
        end=1,
        text=said,
        utterances=(Utterance(0, 1, said),),
    )
    hypotheses = dict(zip(CONDITIONS, heard * 3 if len(heard) == 1 else heard, strict=False))
    return Transcription(segment, dict.fromkeys(CONDITIONS, ""), hypotheses)


def test_decisions_by_hand() -> None:
    transcriptions = [
        transcription("Yachts", "The sail is big.", "The sail is big."),
        transcription("Yachts", "A sail, a Sail!", "a sale a"),
        transcription("Bargains", "This sale matters.", "This sale matters now."),
        transcription("Bread", "Nobody wants flour.", "Nobody wants flowers."),
        transcription("Bread", "No such word here.", "No such word"),
    ]
    decisions = decide(transcriptions, HOMOPHONES, "right")
    assert (decisions.right, decisions.partner, decisions.count) == (2, 1, 5)
    assert decisions.share == pytest.approx(0.4)
    assert decisions.low < 0.4 < decisions.high
    elsewhere = errors_elsewhere(transcriptions, HOMOPHONES, "right")
    # Inserted "now", deleted "here"; the homophones themselves do not count, however they were heard.
    assert (elsewhere.insertions, elsewhere.deletions, elsewhere.substitutions) == (1, 1, 0)
    assert elsewhere.reference_words == 3 + 2 + 2 + 2 + 4
    assert shares_by_pair(transcriptions, HOMOPHONES, "right") == {
        "flour / flower": 0.0,
        "sail / sale": pytest.approx(0.5),
    }


def test_conditions_are_kept_apart() -> None:
    one = transcription("Yachts", "the sail", "the sail", "the sale", "the snail")
    shares = [decide([one], HOMOPHONES, condition) for condition in CONDITIONS]
    assert [(one.right, one.partner) for one in shares] == [(1, 0), (0, 1), (0, 0)]


def test_partner_articles() -> None:
    assert partner_articles(HOMOPHONES, "Bargains") == ["Yachts", "Regattas"]
    assert partner_articles(HOMOPHONES, "Bread") == []
    assert partner_articles(HOMOPHONES, "Unknown") == []


def test_interval_of_independent_trials_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263, Wilson's score interval 0.2553 to 0.3662; 0 of 20, 0 to 0.1611.
    low, high = clustered_interval([1] * 81 + [0] * 182, [1] * 263)
    assert (low, high) == (pytest.approx(0.2553, abs=5e-4), pytest.approx(0.3662, abs=5e-4))
    assert clustered_interval([0], [20]) == (0, pytest.approx(0.1611, abs=1e-4))
    assert clustered_interval([], []) == (0, 1)


def test_interval_covers_the_truth_when_articles_cluster() -> None:
    """Articles that are mostly right or mostly wrong: an interval for independent trials would cover far less."""
    seeded = random.Random(1)
    covered = naive = 0
    for _ in range(400):
        shares = [seeded.betavariate(1.2, 0.8) for _ in range(60)]
        right = [sum(seeded.random() < share for _ in range(10)) for share in shares]
        low, high = clustered_interval(right, [10] * 60)
        covered += low <= 0.6 <= high
        low, high = clustered_interval([int(trial < sum(right)) for trial in range(600)], [1] * 600)
        naive += low <= 0.6 <= high
    assert covered / 400 > 0.91
    assert naive / 400 < 0.75


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "homophones.json"
    with pytest.raises(CwjaxError, match="cannot be read"):
        Homophones.read(path)
    for content in ("[]", "{", '{"articles": {"A": {"word": "x"}}}'):
        path.write_text(content)
        with pytest.raises(CwjaxError, match=str(path)):
            Homophones.read(path)
    path.write_text(json.dumps({"articles": {"A": {"word": "sail", "partner": "sale"}}}))
    assert Homophones.read(path) == Homophones({"A": "sail"}, {"A": "sale"})
