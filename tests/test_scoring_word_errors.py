"""Word errors against a second implementation and by hand."""

import random

import pytest

from cwjax.scoring.word_errors import WordErrors, align, count_errors, errors_by_place


def edit_distance(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein's distance, by the recurrence."""
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, 1):
        above, row = row, [i]
        for j, heard in enumerate(hypothesis, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (said != heard)))
    return row[-1]


def test_alignment_by_hand() -> None:
    assert align(["a", "b", "c", "d"], ["a", "x", "c", "e", "d"]) == [
        ("a", "a"),
        ("b", "x"),
        ("c", "c"),
        (None, "e"),
        ("d", "d"),
    ]
    assert align([], ["x"]) == [(None, "x")]
    assert align(["x"], []) == [("x", None)]
    assert align([], []) == []


def test_counts_equal_a_second_implementation() -> None:
    seeded = random.Random(0)
    for _ in range(300):
        reference, hypothesis = ([seeded.choice("abcd") for _ in range(seeded.randint(0, 9))] for _ in range(2))
        pairs = align(reference, hypothesis)
        assert [said for said, _ in pairs if said is not None] == reference
        assert [heard for _, heard in pairs if heard is not None] == hypothesis
        errors = count_errors(pairs)
        assert errors.reference_words == len(reference)
        assert errors.substitutions + errors.deletions + errors.insertions == edit_distance(reference, hypothesis)


def test_rates_of_a_corpus_weigh_by_length() -> None:
    pairs = (("abcdefghi", "abcdefghi"), ("x", "yz"))
    total = sum((errors_by_place(reference, hypothesis)[0] for reference, hypothesis in pairs), WordErrors())
    assert total == WordErrors(substitutions=1, insertions=1, reference_words=10)
    assert total.rate == pytest.approx(0.2)
    assert WordErrors().rate == 0
    assert errors_by_place([], ["invented", "words"])[0].rate == 2


def test_errors_have_places() -> None:
    errors, places = errors_by_place(list("abcd"), list("xabd"))
    assert errors == WordErrors(deletions=1, insertions=1, reference_words=4)
    assert places.tolist() == [1, 0, 1, 0, 0]
    assert errors_by_place(list("ab"), list("abz"))[1].tolist() == [0, 0, 1]
