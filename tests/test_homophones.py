"""Decisions between words that sound the same, and the statistics behind the interval."""

import json
import random
from pathlib import Path

import pytest

from cwjax.data.segment import Segment, Utterance
from cwjax.errors import CwjaxError
from cwjax.evaluation.homophones import (
    ArticleHomophones,
    decide,
    errors_elsewhere,
    partner_articles,
    shares_by_pair,
)
from cwjax.evaluation.transcription import CONDITIONS, Transcription

HOMOPHONES = ArticleHomophones(
    words={"Yachts": "sail", "Regattas": "sail", "Bargains": "sale", "Bread": "flour"},
    partners={"Yachts": "sale", "Regattas": "sale", "Bargains": "sail", "Bread": "flower"},
)


def transcription(article: str, said: str, *heard: str) -> Transcription:
    segment = Segment(
        id=f"{article}/{said}",
        article=article,
        recording=0,
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


def test_interval_covers_the_truth_when_articles_share_a_pair() -> None:
    """24 pairs behind 96 articles: a model knows the pair or does not, whatever article speaks of it."""
    seeded = random.Random(1)
    words = {f"article {number}": f"word{number // 4}" for number in range(96)}
    homophones = ArticleHomophones(words, {name: f"partner{word}" for name, word in words.items()})
    segments = [transcription(name, word, word) for name, word in words.items()]
    covered = 0
    for _ in range(300):
        known = {word: seeded.betavariate(1.2, 0.8) for word in dict.fromkeys(words.values())}
        heard = [
            Transcription(one.segment, {}, {"none": word if seeded.random() < known[word] else "other"})
            for one in segments
            for word in [homophones.words[one.segment.article]]
        ]
        decisions = decide(heard, homophones, "none")
        covered += decisions.low <= 0.6 <= decisions.high
    assert 0.92 <= covered / 300 <= 0.98


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "homophones.json"
    with pytest.raises(CwjaxError, match="cannot be read"):
        ArticleHomophones.read(path)
    for content in ("[]", "{", '{"articles": {"A": {"word": "x"}}}'):
        path.write_text(content)
        with pytest.raises(CwjaxError, match=str(path)):
            ArticleHomophones.read(path)
    path.write_text(json.dumps({"articles": {"A": {"word": "sail", "partner": "sale"}}}))
    assert ArticleHomophones.read(path) == ArticleHomophones({"A": "sail"}, {"A": "sale"})
