"""Splits share neither speakers nor articles and stay stable."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwjax.data.prepared.splits import HEAVY_GROUP_ARTICLES, Member, article_splits
from cwjax.data.segment import Segment, Utterance
from cwjax.errors import CwjaxError


def segment(article: str, speaker: str, number: int = 0) -> Segment:
    return Segment(
        f"{article}/{number:08d}", article, 0, 0.0, 1.0, "x", (Utterance(0, 1, "x"),),
        speaker=speaker,
    )  # fmt: skip


def assign_splits(segments: list[Segment], *arguments, **options) -> list[Segment]:
    """The segments, each in the split of its article."""
    members = dict.fromkeys(Member(one.article, one.speaker, one.split) for one in segments)
    splits = article_splits(members, *arguments, **options)
    return [replace(one, split=splits[one.article]) for one in segments]


def corpus(speakers: int, articles_each: int = 1) -> list[Segment]:
    return [segment(f"a{s}-{a}", f"s{s}") for s in range(speakers) for a in range(articles_each)]


pairs = st.lists(
    st.tuples(st.integers(0, 30).map(lambda n: f"article {n}"), st.sampled_from(["", *"abcdefghijkl"])),
    max_size=60,
)


@settings(max_examples=40)
@given(pairs, st.integers(0, 5))
def test_no_speaker_and_no_article_crosses_splits(found, seed):
    segments = [segment(article, speaker, number) for number, (article, speaker) in enumerate(found)]
    assigned = assign_splits(segments, validation=0.3, test=0.3, seed=seed)
    assert [one.id for one in assigned] == [one.id for one in segments]
    for key in ("article", "speaker"):
        splits: dict[str, set[str]] = {}
        for one in assigned:
            splits.setdefault(getattr(one, key), set()).add(one.split)
        splits.pop("", None)
        assert all(len(names) == 1 for names in splits.values())


def test_shares_are_those_asked_for():
    assigned = assign_splits(corpus(2000), validation=0.1, test=0.2)
    counts = {split: sum(one.split == split for one in assigned) for split in ("train", "validation", "test")}
    assert counts["train"] == pytest.approx(1400, abs=80)
    assert counts["validation"] == pytest.approx(200, abs=50)
    assert counts["test"] == pytest.approx(400, abs=60)


def test_growing_the_corpus_moves_nothing():
    small = {one.id: one.split for one in assign_splits(corpus(100), 0.2, 0.2)}
    large = {one.id: one.split for one in assign_splits(corpus(300)[::-1], 0.2, 0.2)}
    assert small.items() <= large.items()
    assert set(small.values()) == {"train", "validation", "test"}


def test_seed_changes_the_assignment():
    first, second = (assign_splits(corpus(100), 0.2, 0.2, seed=seed) for seed in (0, 1))
    assert [one.split for one in first] != [one.split for one in second]


def test_heavy_speakers_train():
    heavy = assign_splits(corpus(30, HEAVY_GROUP_ARTICLES + 1), validation=0.5, test=0.5)
    assert {one.split for one in heavy} == {"train"}
    light = assign_splits(corpus(30, HEAVY_GROUP_ARTICLES), validation=0.5, test=0.5)
    assert {one.split for one in light} == {"validation", "test"}


def test_unknown_speakers_are_not_one_person():
    assigned = assign_splits([segment(f"a{number}", "") for number in range(100)], 0.3, 0.3)
    assert {one.split for one in assigned} == {"train", "validation", "test"}


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.6, 0.5)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(CwjaxError, match="shares"):
        assign_splits(corpus(3), *shares)


SEGMENTS = [segment("A", "ann"), segment("B", "bob"), segment("C", "ann"), segment("D", "")]


def test_fixed_splits_are_used(tmp_path):
    lists = {"train": ["A", "C"], "validation": ["B"], "test": ["D", "absent"]}
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    assigned = assign_splits(SEGMENTS, root=tmp_path)
    assert [one.split for one in assigned] == ["train", "validation", "train", "test"]


def test_without_a_file_the_root_changes_nothing(tmp_path):
    assert assign_splits(SEGMENTS, root=tmp_path) == assign_splits(SEGMENTS)


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ({"train": ["A", "B"], "test": ["C", "D"]}, "speaker ann is in train and, with article C, in test"),
        ({"train": ["A", "C", "B"], "test": ["B", "D"]}, "article B is in train and in test"),
        ({"train": ["A", "C", "B"]}, "article D is in no split"),
        ({"train": ["A"], "dev": []}, "must hold"),
        ({"train": "A"}, "list of article identifiers"),
        (["A"], "must hold"),
    ],
)
def test_unsound_fixed_splits_are_refused(tmp_path, lists, reason):
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    with pytest.raises(CwjaxError, match=reason) as caught:
        assign_splits(SEGMENTS, root=tmp_path)
    assert "splits.json" in str(caught.value)


def test_broken_fixed_splits_are_refused(tmp_path):
    (tmp_path / "splits.json").write_text("{")
    with pytest.raises(CwjaxError, match=r"splits\.json: cannot be read as JSON"):
        assign_splits(SEGMENTS, root=tmp_path)
