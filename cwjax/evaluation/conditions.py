"""What a model is told about an item before it listens: the conditions of an evaluation.

A condition is named WHAT[:N][:WAY[+WAY...]], such as `topic`, `phrases:100` or `topic:prompt+hotwords`:

| WHAT | what is told |
|---|---|
| `none` | nothing |
| `right` | all that a careful user would say, or else the topic, or title and lead, or the title |
| `topic`, `title`, `lead`, `previous` | a sentence on it; its title; title and summary; what was said before |
| `wrong` | the topic of another item, that of the word that sounds the same if there is one |
| `homophone` | the same, only where there is such a word |
| `unrelated` | the topic of any other item but that |
| `shuffled` | the words of `right` in another order |
| `phrases:N` | what is said and hard to spell among what is not said, N in all; 0: alone |
| `phrases:own` | what is said and hard to spell among all that the suite lists with the item |

Ways: `context` (of the text encoder; usual for texts), `phrases` (of the spotter; usual for lists), `prompt`
(openai-whisper's `initial_prompt`, before every window) and `hotwords` (faster-whisper's).
"""

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.scoring.normalisers import plain_words

log = logging.getLogger(__name__)

WAYS = ("context", "phrases", "prompt", "hotwords")
LIST, OWN = "phrases", "own"


@dataclass(frozen=True)
class Given:
    """What is told about an item.

    Attributes:
        text: of sentences; empty for lists.
        phrases: of lists.
        context: what the text encoder reads.
        options: fields of `DecodingOptions`.
    """

    text: str = ""
    phrases: tuple[str, ...] = ()
    context: str = ""
    options: dict[str, Any] = field(default_factory=dict)


class Others:
    """All items, among which those are that an item is not; the same choice at every call."""

    def __init__(self, items: Sequence[Item]):
        self._items = items

    @cached_property
    def have_phrases(self) -> bool:
        """Whether anything is known to be hard to spell."""
        return any(item.phrases or item.distractors for item in self._items)

    def unrelated(self, item: Item) -> str:
        """What is right of an item of another recording and topic; empty if there is none."""
        shunned = {right(item), item.texts.get("homophone", ""), ""}
        chance = random.Random(f"unrelated {item.id}")
        for other in chance.sample(self._rights, len(self._rights)):
            if other not in shunned:
                return other
        return ""

    def phrases(self, item: Item, count: int) -> tuple[str, ...]:
        """An item's phrases among others up to `count` in all, in any order.

        Those come first that the suite lists with it, then those of other items, of which none is said in it. Longer
        lists hold the shorter ones.
        """
        chosen = dict.fromkeys(item.phrases)
        for phrase in self._distractors(item) if len(chosen) < count else ():
            if len(chosen) >= count:
                break
            chosen.setdefault(phrase)
        shuffled = list(chosen)
        random.Random(f"order {item.id}").shuffle(shuffled)
        return tuple(shuffled)

    def _distractors(self, item: Item) -> Iterator[str]:
        yield from item.distractors
        said = f" {_plain(item.reference, item.language)} "
        first = random.Random(f"phrases {item.id}").randrange(max(1, len(self._pool)))
        for phrase, plain in itertools.chain(self._pool[first:], self._pool[:first]):
            if plain and f" {plain} " not in said:
                yield phrase

    @cached_property
    def _pool(self) -> list[tuple[str, str]]:
        """The phrases of all items, in any order, and what is compared of them."""
        found = {phrase: item.language for item in self._items for phrase in (*item.phrases, *item.distractors)}
        phrases = [(phrase, _plain(phrase, language)) for phrase, language in found.items()]
        random.Random("phrases").shuffle(phrases)
        return phrases

    @cached_property
    def _rights(self) -> list[str]:
        return list(dict.fromkeys(map(right, self._items)))


def right(item: Item) -> str:
    """The best that is known about an item; empty if nothing is."""
    return next((item.texts[kind] for kind in ("right", "topic", "lead", "title") if item.texts.get(kind)), "")


def _shuffled(item: Item) -> str:
    words = right(item).split()
    return " ".join(random.Random(f"shuffled {item.id}").sample(words, len(words)))


TEXTS: dict[str, Callable[[Item, Others], str]] = {
    "right": lambda item, _: right(item),
    **{
        name: lambda item, _, name=name: item.texts.get(name, "")
        for name in ("topic", "title", "lead", "previous", "homophone")
    },
    "wrong": lambda item, others: item.texts.get("wrong") or others.unrelated(item),
    "unrelated": lambda item, others: others.unrelated(item),
    "shuffled": lambda item, _: _shuffled(item),
}


@dataclass(frozen=True)
class Condition:
    """One way to tell a model something.

    Attributes:
        name: as it was asked for.
        what: "none", "phrases" or one of `TEXTS`.
        count: of the phrases; None: `OWN`.
        ways: of `WAYS`.
    """

    name: str
    what: str = "none"
    count: int | None = 0
    ways: tuple[str, ...] = ()

    @classmethod
    def named(cls, name: str) -> "Condition":
        """A condition by its name. Raises CwjaxError, which lists what there is, if that is none."""
        what, *rest = name.split(":")
        count = rest.pop(0) if what == LIST and rest else ""
        ways = tuple(rest.pop(0).split("+")) if rest else (LIST if what == LIST else "context",)
        known = WAYS if what == LIST else [way for way in WAYS if way != LIST]
        fits = what == "none" and name == "none"
        counted = what == LIST and (count == OWN or count.isdecimal())
        fits |= (what in TEXTS or counted) and not rest and set(ways) <= set(known)
        if not fits:
            raise CwjaxError(
                f"no condition is called {name!r}: use none, {', '.join(TEXTS)}, phrases:N or phrases:{OWN}, each but "
                f"none also with :WAY or :WAY+WAY behind it, of {', '.join(WAYS)} (phrases: only of lists)"
            )
        number = None if count == OWN else int(count or 0)
        return cls(name, what, number, () if what == "none" else tuple(dict.fromkeys(ways)))

    def serves(self, item: Item, others: Others) -> bool:
        """Whether what it tells is known of an item. Of items without phrases, lists hold those of others."""
        if self.what == LIST:
            return bool(item.phrases or item.distractors) if self.count is None else others.have_phrases
        return self.what == "none" or bool(TEXTS[self.what](item, others))

    def give(self, item: Item, others: Others) -> Given:
        """What it tells about an item that it serves."""
        if self.what == "none":
            return Given()
        count = len({*item.phrases, *item.distractors}) if self.count is None else self.count
        listed = others.phrases(item, count) if self.what == LIST else ()
        text = TEXTS[self.what](item, others) if self.what in TEXTS else ""
        told = text or ", ".join(listed)
        options: dict[str, Any] = {}
        if listed and "phrases" in self.ways:
            options["phrases"] = listed
        if told and "prompt" in self.ways:
            options |= {"initial_prompt": told, "carry_initial_prompt": True}
        if told and "hotwords" in self.ways:
            options["hotwords"] = told
        context = (f"keywords: {told}." if listed else told) if "context" in self.ways else ""
        return Given(text, listed, context, options)


def served(
    names: Sequence[str], items: Sequence[Item], takes_context: bool = True, spots_phrases: bool = True
) -> list[Condition]:
    """The conditions of these names that model and items can serve; one line is logged of each that they cannot.

    Raises:
        CwjaxError: a name is none, or no condition is left.
    """
    others = Others(items)
    kept = []
    for condition in map(Condition.named, dict.fromkeys(names)):
        count = sum(condition.serves(item, others) for item in items)
        lacks = ""
        if "context" in condition.ways and not takes_context:
            lacks = "the model takes no context"
        elif "phrases" in condition.ways and not spots_phrases:
            lacks = "the model has no phrase spotter"
        elif not count:
            lacks = "no item has phrases" if condition.what == LIST else "no item has such a text"
        if lacks:
            log.warning("%s: left out for all %d items: %s", condition.name, len(items), lacks)
            continue
        if count < len(items):
            log.warning("%s: left out for %d of %d items without it", condition.name, len(items) - count, len(items))
        kept.append(condition)
    if not kept:
        raise CwjaxError(f"none of the conditions {', '.join(names)} can be served; add the condition none")
    return kept


def _plain(text: str, language: str) -> str:
    return " ".join(plain_words(text, language))
