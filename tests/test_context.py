"""Which context an example gets, and that it never holds its answer."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cwjax.data.examples.context import (
    ContextProbabilities,
    describe,
    describe_for_evaluation,
    draw_context,
    without_leaks,
)
from cwjax.data.segment import ContextMaterial, Segment, Utterance
from cwjax.errors import CwjaxError

LEAD = "Bees live in hives. A keeper opens one in spring and looks for the queen."


def segment(text: str = "They came back late.", lead: str = LEAD, article: str = "Bees") -> Segment:
    return Segment(
        id=f"{article}/1",
        article=article,
        recording=0,
        start=0,
        end=2,
        text=text,
        utterances=(Utterance(0, 2, text),),
        context=ContextMaterial(
            title=article,
            section=("Spring", "The queen"),
            lead=lead,
            categories=("Insects", "Agriculture"),
            keywords=(f"{article} hive", f"{article} smoker"),
            previous="They opened it. " + "Then they waited. " * 20,
        ),
    )


def test_forms() -> None:
    assert describe(segment(), "title") == "Bees."
    assert describe(segment(), "section") == "Bees. Spring. The queen."
    assert describe(segment(), "lead") == f"Bees. {LEAD}"
    assert describe(segment(), "categories") == "Bees. Insects. Agriculture."
    assert describe(segment(), "previous") == "Bees. they waited. " + " ".join(["Then they waited."] * 16)
    assert describe(segment(), "joined") == f"Bees. Spring. The queen. {LEAD} Insects. Agriculture."
    assert describe_for_evaluation(segment()) == f"Bees. Spring. The queen. {LEAD}"


def test_without_a_lead_the_title_remains() -> None:
    assert describe(segment(lead=""), "lead") == "Bees."
    assert describe_for_evaluation(segment(lead="")) == "Bees. Spring. The queen."


def test_sentences_that_share_eight_words_with_the_target_are_left_out() -> None:
    leaked = "so a keeper opens one in spring and looks, they said"
    assert describe(segment(leaked), "lead") == "Bees. Bees live in hives."
    seven = "a keeper opens one in spring and sings"
    assert describe(segment(seven), "lead") == f"Bees. {LEAD}"
    assert without_leaks(["The queen"], "the queen!") == []
    assert segment().text not in describe_for_evaluation(segment("Bees live in hives."))


def test_no_context_ever_shares_eight_words_with_its_target() -> None:
    generator = np.random.default_rng(0)
    words = ["a", "b", "c"]
    for _ in range(300):
        parts = [" ".join(generator.choice(words, 12)) + "." for _ in range(3)]
        target = " ".join(generator.choice(words, 40))
        kept = " ".join(without_leaks([" ".join(parts)], target)).replace(".", " . ").split(".")
        for sentence in kept:
            run = sentence.split()
            assert not any(" ".join(run[i : i + 8]) in target for i in range(len(run) - 7))


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    probabilities = ContextProbabilities(title=0.1, section=0.2, lead=0.3, none=0.25, wrong=0.15)
    other = segment(article="Yachts")

    def draws(seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        return [draw_context(segment(), probabilities, generator, lambda _: other) for _ in range(4000)]

    seen = Counter(
        "wrong" if text.startswith("Yachts") else {"Bees.": "title", "": "none"}.get(text, text[6:10])
        for text in draws(1)
    )
    shares = {"title": 0.1, "Spri": 0.2, "Bees": 0.3, "none": 0.25, "wrong": 0.15}
    assert seen.keys() == shares.keys()
    for kind, share in shares.items():
        # Five standard deviations of a binomial.
        assert abs(seen[kind] / 4000 - share) < 5 * (share * (1 - share) / 4000) ** 0.5
    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


@pytest.mark.parametrize("values", [{"title": 0.5}, {"title": -0.1, "section": 0.65}])
def test_probabilities_must_add_up(values: dict[str, float]) -> None:
    with pytest.raises(CwjaxError, match="add up to 1"):
        ContextProbabilities(**values)


def test_keywords_stand_among_those_of_other_articles() -> None:
    only = ContextProbabilities(title=0, section=0, lead=0, none=0, wrong=0, keywords=1)
    names = [f"Article {number}" for number in range(400)]
    lists = []
    for seed in range(40):
        text = draw_context(
            segment(), only, np.random.default_rng(seed), lambda generator: segment(article=generator.choice(names))
        )
        assert text.startswith("keywords: ")
        words = text.removeprefix("keywords: ").removesuffix(".").split(", ")
        assert len(words) == len(set(words))
        assert 40 <= len(words) <= 102  # the same may be drawn twice
        lists.append(words)
    assert all({"Bees hive", "Bees smoker"} < set(words) for words in lists)
    assert len({words.index("Bees hive") for words in lists}) > 10  # anywhere
    bare = replace(segment(), context=ContextMaterial(title="Bees"))
    assert draw_context(bare, only, np.random.default_rng(0), lambda _: bare) == "Bees."
    spoken = segment(text="Bees hive")
    assert "Bees hive," not in draw_context(spoken, only, np.random.default_rng(0), lambda _: spoken)


def test_a_corpus_of_keywords_has_a_right_context() -> None:
    only = replace(segment(), context=ContextMaterial(keywords=("hive", "smoker")))
    assert describe_for_evaluation(only) == "keywords: hive, smoker."
    for kind in ("title", "section", "lead", "categories", "previous", "joined"):
        assert describe(only, kind) == "keywords: hive, smoker."
    assert describe_for_evaluation(replace(only, context=ContextMaterial(categories=("Insects",)))) == "Insects."
    assert describe_for_evaluation(replace(only, context=ContextMaterial())) == ""
    spoken = replace(only, text="smoker")
    assert describe_for_evaluation(spoken) == "keywords: hive."
