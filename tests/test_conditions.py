"""What each condition of an evaluation tells the model, what it cannot tell, and items of a corpus."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
from segmented import ListedSegments, supervisions_of

from cwjax.data.segment import ContextMaterial, Segment
from cwjax.errors import CwjaxError
from cwjax.evaluation.conditions import Condition, Given, Others, served
from cwjax.evaluation.corpus_items import corpus_items
from cwjax.evaluation.homophones import ArticleHomophones
from cwjax.evaluation.items import Item
from cwjax.inference.options import DecodingOptions

TEXTS = {
    "topic": "It is about yachts.",
    "title": "Yachts",
    "lead": "Yachts. They sail.",
    "previous": "and then we saw",
    "wrong": "It is about bargains.",
    "homophone": "It is about a sale.",
}
ITEM = Item("1", None, "Ada saw the sail of Mr. Xu", texts=TEXTS, phrases=("Xu", "Ada"), distractors=("Bo", "Cy"))
OTHER = Item("2", None, "Dora was here", texts={"topic": "It is about bread."}, phrases=("Dora", "sail"))
PLAIN = Item("3", None, "nothing of the kind")


def give(name: str, item: Item = ITEM, items: Sequence[Item] = (ITEM, OTHER, PLAIN)) -> Given:
    return Condition.named(name).give(item, Others(items))


@pytest.mark.parametrize(
    ("name", "context", "options"),
    [
        ("none", "", {}),
        ("right", TEXTS["topic"], {}),
        *((name, text, {}) for name, text in TEXTS.items()),
        ("unrelated", "It is about bread.", {}),
        ("topic:prompt", "", {"initial_prompt": TEXTS["topic"], "carry_initial_prompt": True}),
        ("title:hotwords", "", {"hotwords": "Yachts"}),
        (
            "previous:context+prompt",
            "and then we saw",
            {"initial_prompt": "and then we saw", "carry_initial_prompt": True},
        ),
        (
            "topic:prompt+hotwords",
            "",
            {"initial_prompt": TEXTS["topic"], "carry_initial_prompt": True, "hotwords": TEXTS["topic"]},
        ),
    ],
)
def test_texts_are_told_in_the_way_that_the_name_says(name: str, context: str, options: dict) -> None:
    given = give(name)
    assert (given.context, given.options, given.phrases) == (context, options, ())
    assert given.text == (context or options.get("initial_prompt") or options.get("hotwords", ""))
    DecodingOptions(**given.options)


def test_lists_hold_what_is_said_then_the_suites_own_then_what_others_say() -> None:
    assert set(give("phrases:0").phrases) == {"Ada", "Xu"}
    assert set(give("phrases:3").phrases) == {"Ada", "Xu", "Bo"}
    assert set(give("phrases:5").phrases) == {"Ada", "Xu", "Bo", "Cy", "Dora"}
    assert set(give("phrases:50").phrases) == {"Ada", "Xu", "Bo", "Cy", "Dora"}, "the sail is said, so it is none"
    assert set(give("phrases:own").phrases) == {"Ada", "Xu", "Bo", "Cy"}, "the suite's own list and nothing else"
    assert give("phrases:own:prompt").options["initial_prompt"] == ", ".join(give("phrases:own").phrases)
    assert not Condition.named("phrases:own").serves(PLAIN, Others([ITEM, PLAIN]))
    assert give("phrases:0", PLAIN) == Given()
    assert len(give("phrases:4", PLAIN).phrases) == 4


def test_lists_are_told_in_the_way_that_the_name_says() -> None:
    listed = give("phrases:5").phrases
    text = ", ".join(listed)
    assert give("phrases:5").options == {"phrases": listed}
    assert give("phrases:5:hotwords").options == {"hotwords": text}
    prompt = {"initial_prompt": text, "carry_initial_prompt": True}
    assert give("phrases:5:prompt").options == prompt
    assert give("phrases:5:prompt+hotwords").options == prompt | {"hotwords": text}
    assert give("phrases:5:context").context == f"keywords: {text}."
    assert give("phrases:5:context").options == {}


def test_long_lists_hold_the_short_ones_and_are_the_same_at_every_call() -> None:
    items = [Item(str(n), None, f"this is name{n}", phrases=(f"name{n}",)) for n in range(300)]
    shorter: set[str] = set()
    for count in (0, 20, 100, 250):
        listed = give(f"phrases:{count}", items[7], items).phrases
        assert listed == give(f"phrases:{count}", items[7], list(items)).phrases
        assert "name7" in listed
        assert len(set(listed)) == len(listed) == max(count, 1)
        assert shorter <= set(listed)
        shorter = set(listed)
    first, second = (set(give("phrases:100", item, items).phrases) for item in items[7:9])
    assert len(first & second) < 100
    places = [give("phrases:100", item, items).phrases.index(*item.phrases) for item in items]
    assert 30 < np.mean(places) < 70, "what is said must not stand first"


def test_shuffled_words_are_the_same_words() -> None:
    long = Item("1", None, "", texts={"topic": "one two three four five six seven"})
    given = give("shuffled", long)
    assert sorted(given.context.split()) == sorted(long.texts["topic"].split())
    assert given.context != long.texts["topic"]
    assert given == give("shuffled", long)


def test_without_a_wrong_text_of_its_own_another_items_is_taken() -> None:
    assert give("wrong", OTHER).context == TEXTS["topic"]
    alone = Item("1", None, "", texts={"topic": "one"})
    assert not Condition.named("wrong").serves(alone, Others([alone, alone, PLAIN]))


@pytest.mark.parametrize(
    "name",
    ["", "topics", "none:prompt", "phrases", "phrases:many", "phrases:-1", "topic:5", "topic:phrases",
     "topic:prompt:hotwords", "phrases:5:loud", "phrases:5:prompt+", "topic:", "phrases:own:5", "topic:own"],
)  # fmt: skip
def test_what_is_no_condition_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(CwjaxError, match=r"^no condition is called '.*': use none, right.*phrases:N.*hotwords"):
        Condition.named(name)


def test_what_cannot_be_served_is_said(caplog: pytest.LogCaptureFixture) -> None:
    items = [ITEM, OTHER, PLAIN]
    names = ["none", "topic", "title", "topic:prompt", "phrases:100", "phrases:100:prompt", "none"]
    with caplog.at_level(logging.WARNING):
        kept = served(names, items, takes_context=False, spots_phrases=False)
    assert [one.name for one in kept] == ["none", "topic:prompt", "phrases:100:prompt"]
    assert caplog.messages == [
        "topic: left out for all 3 items: the model takes no context",
        "title: left out for all 3 items: the model takes no context",
        "topic:prompt: left out for 1 of 3 items without it",
        "phrases:100: left out for all 3 items: the model has no phrase spotter",
    ]
    caplog.clear()
    assert [one.name for one in served(["none", "homophone", "phrases:5"], [PLAIN])] == ["none"]
    assert caplog.messages == [
        "homophone: left out for all 1 items: no item has such a text",
        "phrases:5: left out for all 1 items: no item has phrases",
    ]
    with pytest.raises(CwjaxError, match="topic can be served"):
        served(["topic"], [PLAIN])


class Corpus:
    """In a prepared corpus's place."""

    def __init__(self, *segments: Segment):
        self.segments = ListedSegments(segments)
        self.supervisions = supervisions_of(segments)

    def audio(self, position: int) -> np.ndarray:
        return np.full(10 + position, 0.5, np.float32)


def segment(article: str, lead: str = "", **material: object) -> Segment:
    context = ContextMaterial(title=article, section=("Use",), lead=lead, **material)
    return Segment(article, article, "a.wav", 0, 1, f"Old {article} by Ada.", (), context, speaker="Bo", split="test")


def test_segments_become_items() -> None:
    corpus = Corpus(
        segment("Sails", "They are of cloth. They move ships.", keywords=("Ada", "mast"), previous="It was late."),
        segment("Sales", "They are cheap."),
        segment("Bread"),
    )
    homophones = ArticleHomophones({"Sails": "sail", "Sales": "sale"}, {"Sails": "sale", "Sales": "sail"})
    first, second, third = corpus_items(corpus, [0, 1, 2], homophones)
    assert first.texts == {
        "right": "Sails. Use. They are of cloth. They move ships.",
        "topic": "They are of cloth.",
        "title": "Sails.",
        "lead": "Sails. They are of cloth. They move ships.",
        "previous": "It was late.",
        "wrong": "Sales. Use. They are cheap.",
        "homophone": "Sales. Use. They are cheap.",
    }
    assert (first.id, first.reference, first.language) == ("Sails", "Old Sails by Ada.", "en")
    assert (first.phrases, first.distractors) == (("Ada",), ("mast",))
    assert first.fields == {
        "speaker": "Bo",
        "recording": "Sails",
        "subset": "test",
        "homophone": {"word": "sail", "partner": "sale"},
    }
    assert second.texts["homophone"] == first.texts["right"]
    assert "homophone" not in third.texts
    assert "homophone" not in third.fields
    assert third.texts["wrong"] in (first.texts["right"], second.texts["right"])
    assert [len(np.asarray(item.audio)) for item in (first, second, third)] == [10, 11, 12]
