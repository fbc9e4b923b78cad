"""What the report tells of conditions: rates with intervals, what context changes and costs, what to listen to."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from cwjax.evaluation.conditions import LIST, Condition
from cwjax.evaluation.differences import compare
from cwjax.evaluation.hypotheses import Line
from cwjax.evaluation.items import Item
from cwjax.scoring.score import Run, Scores, summarise

PLAIN = "none"
"""What the other conditions are compared with."""
SHOWN = 3
"""Recordings that gained most by what was told, and as many that lost most."""
LONGEST_SOUND = 60.0
"""Seconds of a recording that the page holds."""
SAME_WORDS = 24
"""Of a longer stretch without differences, the middle is left out."""
LEFT_OUT = ("CER", "is21 WER")
"""Rates that are not on the page."""

Lines = Mapping[tuple[str, str], Line]


def compared(scores: Scores, lines: Lines, unseen: Scores | None = None) -> dict[str, Any]:
    """What `cwjax.scoring.score.summarise` finds, by condition, each compared with none; and what it took.

    Args:
        scores: of the lines.
        lines: by id and condition.
        unseen: rates of the same runs that are added to those of `scores`.

    Returns:
        `runs` and `pairs` as there, with the condition in place of the run's name; of each run also `phrases`, the
        median length of its lists, and `seconds_per_minute` of audio, median of the items.
    """
    names = {run.name: condition_of(run) for run in scores.runs}
    against = next((name for name, condition in names.items() if condition == PLAIN), "")
    found = summarise(scores, against=against or scores.runs[0].name)
    if unseen:
        more = summarise(unseen, against=against or scores.runs[0].name)
        for one, other in zip(
            [*found["runs"].values(), *found["pairs"]], [*more["runs"].values(), *more["pairs"]], strict=True
        ):
            one["rates"] |= other["rates"]
    runs = {names[name]: run for name, run in found["runs"].items()}
    for condition, run in runs.items():
        own = [line for (_, name), line in lines.items() if name == condition]
        run["phrases"] = median(line["phrases"] for line in own)
        speeds = [60 * line["seconds"] / line["duration"] for line in own if line["duration"]]
        run["seconds_per_minute"] = median(speeds) if speeds else None
    pairs = [pair | {side: names[pair[side]] for side in ("first", "second")} for pair in found["pairs"]]
    return found | {"runs": runs, "pairs": pairs}


def condition_of(run: Run) -> str:
    """The condition of a run of a file of hypotheses."""
    return run.name.partition(": ")[2]


def condition_sections(scores: Scores, found: dict[str, Any], lines: Lines, items: Sequence[Item]) -> dict[str, Any]:
    """What the page's template shows of the conditions; tables as heads and rows.

    Args:
        scores: of the lines.
        found: of `compared`.
        lines: by id and condition.
        items: that were asked for.
    """
    kinds = dict.fromkeys(f"{run['clusters']['count']:,} {run['clusters']['kind']}s" for run in found["runs"].values())
    return {
        "clusters": ", ".join(kinds),
        "normaliser": found["normaliser"],
        "rates": _rates(found["runs"]),
        "against": found["pairs"][0]["first"] if found["pairs"] else "",
        "differences": _differences(found["pairs"]),
        "notes": found["notes"],
        "curves": _curves(found["runs"]),
        "recordings": [
            _recording(item, [lines[item.id, name] for name in names], why)
            for item, names, why in _telling(scores, items)
        ],
    }


def _rates(runs: dict[str, dict[str, Any]]) -> tuple[list[Any], list[list[Any]]]:
    rates = _names(runs.values())
    rows: list[list[Any]] = []
    for name, run in runs.items():
        phrases = f"{run['phrases']:,.0f}" if run["phrases"] else ""
        figures = [_figure(run["rates"][rate]) if rate in run["rates"] else "" for rate in rates]
        rows.append([name, phrases, *figures, "" if (work := run["seconds_per_minute"]) is None else work])
    return ["", "phrases", *(f"{rate}, %" for rate in rates), "work, s/min"], rows


def _differences(pairs: Sequence[dict[str, Any]]) -> tuple[list[Any], list[list[Any]]]:
    rates = _names(pairs)
    rows: list[list[Any]] = []
    for pair in pairs:
        recordings = _counts(pair["recordings"]) if "recordings" in pair else ""
        figures = [_figure(one, "difference", "+") if one else "" for one in map(pair["rates"].get, rates)]
        rows.append([pair["second"], pair["utterances"], recordings, *figures])
    kind = next((pair["recordings"]["of"] for pair in pairs if "recordings" in pair), "")
    return ["", "items", [kind, "better / equal / worse"], *(f"{rate}, points" for rate in rates)], rows


def _counts(recordings: dict[str, Any]) -> list[str]:
    counts = " / ".join(f"{recordings[name]:,}" for name in ("better", "equal", "worse"))
    shares = {name: recordings["intervals"][name] for name in ("better", "worse")}
    return [counts, *(f"{name} {100 * low:.0f} to {100 * high:.0f} %" for name, (low, high) in shares.items())]


def _names(having_rates: Any) -> list[str]:
    return [
        name for name in dict.fromkeys(name for one in having_rates for name in one["rates"]) if name not in LEFT_OUT
    ]


def _figure(one: dict[str, float | None], key: str = "rate", sign: str = "") -> list[str]:
    value, low, high = (
        one[name] if one[name] is None else f"{100 * one[name]:{sign}.1f}" for name in (key, "low", "high")
    )
    p = "" if "p" not in one else f", p {one['p']:.3f}" if one["p"] >= 0.001 else ", p < 0.001"
    return [f"{value or ''}{p}", f"({low or '?'} to {high or '?'})"]


def _curves(runs: dict[str, dict[str, Any]]) -> str:
    """A chart, as SVG, of the rates over the lengths of lists, if there are several."""
    from cwjax.evaluation.charts import as_svg, list_curves  # slow to import: matplotlib

    named = {name: Condition.named(name) for name in runs}
    lists = {name: one for name, one in named.items() if one.what == LIST and one.count is not None}
    if len({one.count for one in lists.values()}) < 2:
        return ""
    shown = [rate for rate in ("B-WER", "U-WER") if all(rate in runs[name]["rates"] for name in lists)] or ["WER"]
    curves: dict[str, dict[str, list[tuple[int, float, float, float]]]] = {rate: {} for rate in shown}
    for name, one in sorted(lists.items(), key=lambda entry: entry[1].count):
        for rate in shown:
            own = runs[name]["rates"][rate]
            figures = (100 * (own["rate"] if own[part] is None else own[part]) for part in ("rate", "low", "high"))
            curves[rate].setdefault("as " + " and ".join(one.ways), []).append((one.count, *figures))
    plain = {rate: 100 * runs[PLAIN]["rates"][rate]["rate"] for rate in shown} if PLAIN in runs else {}
    return as_svg(list_curves(curves, plain))


def _telling(scores: Scores, items: Sequence[Item]) -> Iterator[tuple[Item, tuple[str, ...], str]]:
    """Items that gained most and lost most by one condition, with it and none; or else those with most errors."""
    errors = {
        condition_of(run): {name: run.counts["wer"][place, :3].sum() for name, place in run.places.items()}
        for run in scores.runs
    }
    plain = errors.pop(PLAIN, {}) if len(errors) > 1 else {}
    known = {item.id: item for item in items}
    changes = [
        (int(count - plain.get(name, 0)), name, condition)
        for condition, counts in errors.items()
        for name, count in counts.items()
        if not plain or name in plain
    ]
    changes.sort(key=lambda one: one[0])
    seen: set[str] = set()
    for ordered, sign in ((changes, -1), (reversed(changes), 1)):
        shown: list[str] = []  # conditions, so that one alone does not fill the page
        for change, name, condition in ordered:
            if len(shown) == SHOWN or change * sign <= 0:
                break
            if name in seen or shown.count(condition) >= -(-SHOWN // len(errors)):
                continue
            seen.add(name)
            shown.append(condition)
            count = f"{abs(change)} error{'s' * (abs(change) > 1)}"
            why = f"{count} {'fewer' if sign < 0 else 'more'} with {condition}" if plain else count
            yield known[name], (PLAIN, condition) if plain else (condition,), why


def _recording(item: Item, lines: Sequence[Line], why: str) -> dict[str, Any]:
    samples, about = None, f"{item.id}, {lines[0]['duration']:,.0f} s, too long for this page"
    if lines[0]["duration"] <= LONGEST_SOUND:
        samples, about = item.open(again=True).samples, ""
    told = [line["context"] or (f"{line['phrases']:,} phrases" if line["phrases"] else "") for line in lines]
    rows = [(line["condition"], one, line["hypothesis"]) for line, one in zip(lines, told, strict=True)]
    return example(samples, about, why, item.reference, rows)


def example(
    samples: np.ndarray | None, about: str, why: str, reference: str, rows: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    """A recording and what was heard in it, for the template, with the words told apart that differ.

    Args:
        samples: at 16 kHz, (n,); None: the page does not hold the sound.
        about: the recording.
        why: it is shown.
        reference: what was said.
        rows: condition, what was told, what was heard.
    """
    return {
        "samples": samples,
        "about": about,
        "why": why,
        "said": reference if len(reference) < 1000 else reference[:1000] + " …",
        "rows": [
            {"condition": condition, "told": told, "heard": marked(reference, heard)} for condition, told, heard in rows
        ],
    }


def marked(reference: str, hypothesis: str) -> list[tuple[str, bool]]:
    """The transcript as stretches, and whether each is as in the reference; of long equal ones the ends."""
    heard = hypothesis.split()
    pieces = []
    for stretch in compare(reference.split(), heard):
        words = [heard[place] for place in stretch.second]
        if stretch.same and len(words) > SAME_WORDS:
            words = [*words[: SAME_WORDS // 2], "…", *words[-SAME_WORDS // 2 :]]
        pieces.append((" ".join(words) or "…", stretch.same))
    return pieces or [("…", False)]
