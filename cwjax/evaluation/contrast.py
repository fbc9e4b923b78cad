"""Wrong contexts, which show what the right ones are worth."""

from collections.abc import Sequence

import numpy as np

from cwjax.data.examples.context import describe_for_evaluation
from cwjax.data.segment import Segment
from cwjax.evaluation.homophones import Homophones, partner_articles


def wrong_contexts(
    segments: Sequence[Segment], corpus: Sequence[Segment], homophones: Homophones | None
) -> list[tuple[str, bool]]:
    """For each segment the context of a segment of another article of its split; the same choice at every call.

    Returns:
        The context, empty if there is no other article; and whether it is about the word that sounds the same.
    """
    generator = np.random.default_rng(0)
    by_article: dict[tuple[str, str], list[int]] = {}  # places, for a corpus may be larger than memory
    for place, segment in enumerate(corpus):
        by_article.setdefault((segment.split, segment.article), []).append(place)
    wrong: list[tuple[str, bool]] = []
    for segment in segments:
        here = [name for split, name in by_article if split == segment.split and name != segment.article]
        partners = set(partner_articles(homophones, segment.article)) if homophones else set()
        articles = [name for name in here if name in partners] or here
        if not articles:
            wrong.append(("", False))
            continue
        article = articles[generator.integers(len(articles))]
        candidates = [corpus[place] for place in by_article[segment.split, article]]
        # The lead's own segments say less about their article than the others do.
        candidates = [one for one in candidates if not one.is_lead] or candidates
        wrong.append((describe_for_evaluation(candidates[generator.integers(len(candidates))]), article in partners))
    return wrong
