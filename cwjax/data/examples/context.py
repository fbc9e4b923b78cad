"""Context: which part of what is known about a recording is said to the text encoder.

The choice is made when an example is drawn, from a seeded generator, so that one prepared corpus
serves every recipe. A context must never contain what it is meant to help recognise: sentences
that share eight words in a row with the target are left out (the test contamination rule of large
language models, Brown et al. 2020, there with 13 words).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError

ContextKind = Literal["title", "section", "lead", "categories", "previous", "joined"]

SHARED_WORDS = 8
"""A sentence that has this many consecutive words in common with the target is leaked."""
DISTRACTORS = (50, 100)
"""Fewest and most keywords of other articles in a list of keywords (as in Deep Context, Pundak et al. 2018: a model
that only ever sees the right words learns to trust them all)."""
PREVIOUS_WORDS = 50
"""Of what was said before a segment, the last so many words are context."""


@dataclass(frozen=True)
class ContextProbabilities:
    """How often a training example gets which context. Must add up to one.

    Of a kind that is not known of a segment, the title remains.
    """

    title: float = 0.25
    section: float = 0.3
    """Title and section titles."""
    lead: float = 0.3
    """Title and lead."""
    none: float = 0.1
    wrong: float = 0.05
    """Title, section or lead of another article, so that a mistaken user does little harm."""
    categories: float = 0
    """Title and subject headings."""
    keywords: float = 0
    """A list of the article's keywords among 50 to 100 of other articles, shuffled."""
    previous: float = 0
    """Title and what was said directly before."""
    joined: float = 0
    """Title, section titles, lead and subject headings."""

    def __post_init__(self) -> None:
        values = [getattr(self, one.name) for one in fields(self)]
        if min(values) < 0 or abs(sum(values) - 1) > 1e-6:
            raise CwjaxError(f"data.context: probabilities must be in 0..1 and add up to 1, not {sum(values):g}")


def describe(segment: Segment, kind: ContextKind) -> str:
    """The context of `kind` for a segment, without sentences leaked from the segment's text."""
    material = segment.context
    parts = {
        "title": [material.title],
        "section": [material.title, *material.section],
        "lead": [material.title, material.lead],
        "categories": [material.title, *material.categories],
        "previous": [material.title, " ".join(material.previous.split()[-PREVIOUS_WORDS:])],
        "joined": [material.title, *material.section, material.lead, *material.categories],
    }[kind]
    return _sentences(parts, segment)


def describe_for_evaluation(segment: Segment) -> str:
    """Everything a careful user would say: title, section path and lead."""
    material = segment.context
    return _sentences([material.title, *material.section, material.lead], segment)


def _sentences(parts: list[str], segment: Segment) -> str:
    """Parts without leaks; of a corpus that has none of them, subject headings, or else keywords."""
    material = segment.context
    if not any(parts):
        parts = list(material.categories)
        if not parts and (keywords := without_leaks(list(material.keywords), segment.text)):
            return f"keywords: {', '.join(keywords)}."
    return " ".join(_sentence(part) for part in without_leaks(parts, segment.text))


def draw_context(
    segment: Segment,
    probabilities: ContextProbabilities,
    generator: np.random.Generator,
    other_segment: Callable[[np.random.Generator], Segment],
) -> str:
    """Draws the context of a training example.

    Args:
        segment: the example.
        probabilities: of each kind.
        generator: decides; equal state, equal choice.
        other_segment: draws a segment of another article, for the wrong context and for keywords.
    """
    names = [one.name for one in fields(probabilities)]
    kind = generator.choice(names, p=[getattr(probabilities, name) for name in names])
    if kind == "none":
        return ""
    if kind == "wrong":
        other = other_segment(generator)
        text = describe(other, generator.choice(["title", "section", "lead"]))
        return " ".join(without_leaks([text], segment.text))
    if kind == "keywords" and segment.context.keywords:
        return _keyword_list(segment, generator, other_segment)
    return describe(segment, "title" if kind == "keywords" else kind)


def _keyword_list(
    segment: Segment, generator: np.random.Generator, other_segment: Callable[[np.random.Generator], Segment]
) -> str:
    """The segment's keywords among those of other articles, in any order."""
    words = dict.fromkeys(segment.context.keywords)
    for _ in range(generator.integers(*DISTRACTORS, endpoint=True)):
        others = other_segment(generator).context.keywords
        if others:
            words.setdefault(others[generator.integers(len(others))])
    shuffled = [list(words)[place] for place in generator.permutation(len(words))]
    kept = without_leaks(shuffled, segment.text)
    return f"keywords: {', '.join(kept)}." if kept else ""


def without_leaks(parts: list[str], target: str) -> list[str]:
    """The sentences of `parts` that share no run of `SHARED_WORDS` words with `target`, nor are contained in it.

    A title or short sentence below that length is leaked only if the whole target is nothing but it.
    """
    target_words = _words(target)
    target_runs = _runs(target_words)
    kept = []
    for part in parts:
        sentences = [
            sentence
            for sentence in re.split(r"(?<=[.!?])\s+", part.strip())
            if sentence and not (_runs(_words(sentence)) & target_runs) and _words(sentence) != target_words
        ]
        if sentences:
            kept.append(" ".join(sentences))
    return kept


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":", ";")) else text + "."


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)}
