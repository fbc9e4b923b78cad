"""What a preparation kept and left out: the content of its `report.json`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from cwjax.data.prepared.assembly import Portion
from cwjax.data.prepared.shards import ShardSummary, UnitSummary
from cwjax.data.prepared.splits import SPLITS

REPORT_FILE = "report.json"


def report(summaries: Sequence[ShardSummary], portions: dict[str, dict[str, Portion]]) -> dict[str, Any]:
    """The report as JSON values; times are hours unless a name says otherwise.

    Args:
        summaries: of all shards.
        portions: of `Assembly`.

    Returns:
        `utterances` and `hours` kept; `splits`, `subsets` and `languages`, each with its own; `dropped` hours by
        reason; `holes` by kind; `lengths` and `characters_per_second`, numbers of utterances by full seconds and
        characters; `speakers` with their hours; `failures` and `warnings` by unit; `articles`, each with what it gave.
    """
    units = [unit for summary in summaries for unit in summary.units]
    return {
        "utterances": sum(unit.utterances for unit in units),
        "hours": _hours(sum(unit.seconds for unit in units)),
        "splits": {name: portions["splits"][name].as_dict() for name in SPLITS if name in portions["splits"]},
        "subsets": {name: portion.as_dict() for name, portion in portions["subsets"].items()},
        "languages": _languages(units),
        "dropped": _added(unit.dropped for unit in units),
        "holes": dict(sum((Counter(unit.holes) for unit in units), Counter())),
        "lengths": _histogram(summary.lengths for summary in summaries),
        "characters_per_second": _histogram(summary.speeds for summary in summaries),
        "speakers": _added(summary.speaker_seconds for summary in summaries),
        "failures": {unit.name: unit.failure for unit in units if unit.failure},
        "warnings": {unit.name: list(unit.warnings) for unit in units if unit.warnings},
        "articles": {unit.name: _article(unit) for unit in units if not unit.failure},
        "unused": [unit.name for unit in units if not unit.failure and not unit.utterances],
    }


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)


def _added(counts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Sums by name, in hours, the largest first."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return {name: _hours(seconds) for name, seconds in total.most_common()}


def _histogram(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return {name: total[name] for name in sorted(total, key=int)}


def _languages(units: Sequence[UnitSummary]) -> dict[str, dict[str, Any]]:
    by_language: dict[str, list[UnitSummary]] = defaultdict(list)
    for unit in units:
        if not unit.failure:
            by_language[unit.language or "unknown"].append(unit)
    return {
        language: {
            "utterances": sum(unit.utterances for unit in its_units),
            "hours": _hours(sum(unit.seconds for unit in its_units)),
            "dropped": _added(unit.dropped for unit in its_units),
        }
        for language, its_units in sorted(by_language.items())
    }


def _article(unit: UnitSummary) -> dict[str, Any]:
    facts: dict[str, Any] = {"utterances": unit.utterances, "seconds": round(unit.seconds, 2)}
    if unit.timed_ratio is not None:
        facts["timed_ratio"] = round(unit.timed_ratio, 3)
    if unit.dropped:
        facts["dropped_seconds"] = {reason: round(seconds, 2) for reason, seconds in unit.dropped.items()}
    if unit.holes:
        facts["holes"] = unit.holes
    texts = {"reader": unit.reader, "licence": unit.licence, "source": unit.source}
    return facts | {name: text for name, text in texts.items() if text}
