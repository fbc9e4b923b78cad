"""`report.html` of a prepared corpus: what was kept and left out, and ten segments to listen to."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.segment import Segment
from cwjax.pages import render

PAGE_FILE = "report.html"
EXAMPLES = 10
_SHOWN = 30
"""Keywords of an example that may have thousands."""


def write_page(corpus: PreparedCorpus, title: str, report: dict[str, Any]) -> None:
    """Writes the page into the corpus's folder.

    Args:
        corpus: whose index and shards are complete.
        title: of the page.
        report: of `cwjax.data.prepared.report`.
    """
    ratios = [facts["timed_ratio"] for facts in report["articles"].values() if "timed_ratio" in facts]
    page = render(
        "preparation.html",
        title=title,
        report=report,
        split_heads=["", *next(iter(report["splits"].values()))],
        splits=_rows(report["splits"]),
        subsets=_rows(report["subsets"]),
        languages=_rows(report["languages"], "utterances", "hours"),
        lengths=_bars(report["lengths"]),
        speeds=_bars(report["characters_per_second"]),
        timed=_bars(_percents(ratios)) if ratios else [],
        speakers=[(name or "unknown", hours) for name, hours in report["speakers"].items()],
        warnings=[(name, "; ".join(texts)) for name, texts in report["warnings"].items()],
        examples=_examples(corpus),
    )
    (corpus.directory / PAGE_FILE).write_text(page, encoding="utf-8", errors="replace")


def _rows(table: dict[str, dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [(name, *(facts[column] for column in columns or facts)) for name, facts in table.items()]


def _percents(ratios: Sequence[float]) -> dict[str, int]:
    counts, _ = np.histogram(ratios, bins=np.linspace(0, 1, 21))
    return {str(5 * place): int(count) for place, count in enumerate(counts)}


def _bars(counts: dict[str, int]) -> list[tuple[int, int]]:
    """(place, count) for every place from the least to the greatest that occurs, at a distance that meets all."""
    places = sorted(map(int, counts))
    step = math.gcd(*(place - places[0] for place in places)) or 1
    return [(place, counts.get(str(place), 0)) for place in range(places[0], places[-1] + 1, step)]


def _examples(corpus: PreparedCorpus) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    places = generator.choice(len(corpus.segments), min(EXAMPLES, len(corpus.segments)), replace=False)
    return [_example(corpus.segments[int(place)], corpus.pcm16(int(place))) for place in sorted(places)]


def _example(segment: Segment, samples: np.ndarray) -> dict[str, Any]:
    context = segment.context
    facts = {
        "title": context.title,
        "section": " > ".join(context.section),
        "lead": context.lead,
        "categories": ", ".join(context.categories),
        "keywords": ", ".join(context.keywords[:_SHOWN]),
        "previous" + " (approximate)" * context.previous_is_approximate: context.previous,
        "speaker": segment.speaker,
        "source": " ".join(filter(None, (segment.source, segment.licence))),
    }
    return {
        "id": segment.id,
        "split": segment.split,
        "duration": segment.duration,
        "text": segment.text,
        "samples": samples,
        "facts": facts,
    }
