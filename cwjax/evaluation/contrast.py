"""Wrong contexts, which show what the right ones are worth: of another article, of the partner word's if possible."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cwjax.data.examples.context import describe_for_evaluation
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.segment import Segment
from cwjax.evaluation.homophones import ArticleHomophones, partner_articles

TRIES = 20
"""Segments of an article that are drawn in search of one that is not of its lead."""


class _Articles(NamedTuple):
    """The articles of a split: their numbers, ascending, and the segments of each."""

    numbers: np.ndarray
    segments: list[np.ndarray]


def wrong_contexts(
    corpus: PreparedCorpus, positions: Sequence[int], homophones: ArticleHomophones | None
) -> list[tuple[str, bool]]:
    """For each segment the context of a segment of another article of its split; the same choice at every call.

    Takes time in proportion to the segments, and reads of the corpus only what it gives.

    Returns:
        The context, empty if there is no other article; and whether it is about the word that sounds the same.
    """
    generator = np.random.default_rng(0)
    columns = corpus.supervisions[corpus.segments.begins]
    splits = {int(split): _articles(columns, split) for split in np.unique(columns["split"][list(positions)])}
    numbers_by_name = _numbers_by_name(corpus, splits) if homophones else {}
    wrong: list[tuple[str, bool]] = []
    for position in positions:
        split, own = columns["split"][position], columns["article"][position]
        articles = splits[int(split)]
        partners = _partners(corpus.segments[position], homophones, numbers_by_name) if homophones else []
        partners = [number for number in partners if number in articles.numbers and number != own]
        if partners:
            place = int(np.searchsorted(articles.numbers, partners[generator.integers(len(partners))]))
        elif len(articles.numbers) > 1:
            place = int(generator.integers(len(articles.numbers) - 1))
            place += place >= np.searchsorted(articles.numbers, own)
        else:
            wrong.append(("", False))
            continue
        wrong.append((describe_for_evaluation(_drawn(corpus, articles.segments[place], generator)), bool(partners)))
    return wrong


def _articles(columns: np.ndarray, split: int) -> _Articles:
    places = np.flatnonzero(columns["split"] == split)
    places = places[np.argsort(columns["article"][places], kind="stable")]
    numbers, first = np.unique(columns["article"][places], return_index=True)
    return _Articles(numbers, np.split(places, first[1:]))


def _numbers_by_name(corpus: PreparedCorpus, splits: dict[int, _Articles]) -> dict[str, int]:
    return {
        corpus.segments[int(segments[0])].article: int(number)
        for articles in splits.values()
        for number, segments in zip(*articles, strict=True)
    }


def _partners(segment: Segment, homophones: ArticleHomophones, numbers: dict[str, int]) -> list[int]:
    """The articles about the word that sounds like that of a segment's article."""
    return sorted(numbers[name] for name in partner_articles(homophones, segment.article) if name in numbers)


def _drawn(corpus: PreparedCorpus, places: np.ndarray, generator: np.random.Generator) -> Segment:
    """A segment of an article; the lead's own say less about it than the others do."""
    for _ in range(TRIES):
        segment = corpus.segments[int(places[generator.integers(len(places))])]
        if not segment.is_lead:
            break
    return segment
