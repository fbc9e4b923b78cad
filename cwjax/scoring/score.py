"""Scoring of files: counts of every utterance, a batch at a time, then rates, their intervals, and what differs."""

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.scoring.homophones import pair_name
from cwjax.scoring.measures import MEASURES, Measure, Rate, Texts
from cwjax.scoring.normalisers import normaliser
from cwjax.scoring.readers import LISTS, Utterance, doubled, read_ids, read_rows
from cwjax.scoring.uncertainty import cluster_sums, difference, mapsswe, rate_intervals

log = logging.getLogger(__name__)

BATCH = 1000
FEW_CLUSTERS = 8
"""With fewer, utterances are grouped more finely if they can be."""
MOST = 32_767
"""Errors at one reference word beyond which MAPSSWE counts no more."""
NAMED = 5
"""Ids that a message names at most."""
FIELDS = ("speaker", "recording", "subset", "language", "topic")


@dataclass
class Run:
    """What one system heard under one condition, as counts.

    Attributes:
        name: of its file, with the condition.
        places: id -> number of the utterance.
        references: hashes of the utterances' references.
        fields: name -> values of the utterances.
        lacking: measure -> how many utterances it could not count.
        counts: measure -> (n, columns).
        errors: at each reference word and each utterance's end, in a row, (n,) int.
        ends: where each utterance ends in these.

    Before `finish`, the last three are lists of batches, `ends` of lengths.
    """

    name: str
    places: dict[str, int] = field(default_factory=dict)
    references: list[int] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    errors: Any = field(default_factory=list)
    ends: Any = field(default_factory=list)

    def finish(self, measures: Sequence[str]) -> None:
        """Joins the batches."""
        self.counts = {name: np.concatenate(self.counts[name]) for name in measures}
        if self.errors:
            self.errors, self.ends = np.concatenate(self.errors), np.cumsum(np.concatenate(self.ends))


@dataclass(frozen=True)
class Scores:
    """All runs with their counts, and what was left out of them."""

    runs: list[Run]
    measures: dict[str, Measure]
    normaliser: str
    notes: list[str]


def score_files(
    hypotheses: Sequence[Path],
    references: Path | None = None,
    bias_lists: Path | None = None,
    normaliser_name: str = "whisper",
    measures: Sequence[str] = (),
    language: str = "en",
) -> Scores:
    """Counts what the measures ask for in every utterance of some files.

    Args:
        hypotheses: one or more systems, with their references unless `references` has them.
        references: by id.
        bias_lists: rare words, entities or keywords by id.
        normaliser_name: of `NORMALISERS`.
        measures: of `MEASURES`; none: all that the utterances have the fields for, but the mean of rates.
        language: of utterances that do not name theirs.

    Raises:
        CwjaxError: a file cannot be read or understood, an id is there twice, two runs have unequal references for an
            id, nothing can be compared, or a measure's fields are missing.
    """
    known = read_ids(references) if references else {}
    lists = read_ids(bias_lists) if bias_lists else {}
    chosen = {name: MEASURES[name] for name in measures or MEASURES if measures or name != "mean-wer"}
    runs: list[Run] = []
    notes: list[str] = []
    has: set[str] = set()
    names = [path.name for path in hypotheses]
    for path, name in zip(hypotheses, names, strict=True):
        own: dict[str, Run] = {}
        title = name if names.count(name) == 1 else str(path)
        missing: list[str] = []
        for batch in _batched(_utterances(path, known, lists, language, missing, bool(references))):
            for condition in dict.fromkeys(one.condition for one in batch):
                run = own.setdefault(condition, Run(f"{title}: {condition}" if condition else title))
                _count(run, [one for one in batch if one.condition == condition], chosen, normaliser_name, has)
        _note(notes, f"{path}: {{}} of its ids without a reference, left out", missing)
        if not own:
            raise CwjaxError(f"{path}: none of its ids has a reference; expected the ids of {references}")
        for run in own.values():
            _note(notes, f"{references}: {{}} of its ids not in {run.name}, left out", known.keys() - run.places.keys())
            log.debug("%s: %d utterances", run.name, len(run.places))
        runs += own.values()
    for name, measure in chosen.items():
        if measures and measure.field and measure.field not in has:
            raise CwjaxError(f"--measures {name}: no utterance has {measure.field}; expected them in the files, by id")
    kept = {name: measure for name, measure in chosen.items() if not measure.field or measure.field in has}
    for run in runs:
        run.finish(list(kept))
        for name in kept:
            if run.lacking[name]:
                notes.append(
                    f"{run.name}: {run.lacking[name]} utterances without {kept[name].field}, left out of {name}"
                )
        if "entities" in kept and (out := int(run.counts["entities"][:, -1].sum())):
            notes.append(f"{run.name}: {out} utterances whose reference lacks one of its entities, left out of NE-WER")
    return Scores(runs, kept, normaliser_name, notes)


def summarise(scores: Scores, by: str = "", against: str = "") -> dict[str, Any]:
    """Rates in 0..1 with 95 % intervals, by run, and what differs between each two runs, as JSON values.

    Numbers that are none, such as the interval of a difference on one cluster, are None.

    Args:
        scores: of `score_files`.
        by: one of `FIELDS`, for rates of each of its values as well.
        against: name of the run that all others are compared with, and only with that; empty: all with all.
    """
    found: dict[str, Any] = {"normaliser": scores.normaliser, "notes": [*scores.notes], "runs": {}, "pairs": []}
    for run in scores.runs:
        found["runs"][run.name] = _rates(run, scores.measures, np.arange(len(run.places)))
        if by:
            values = np.array(run.fields[by])
            found["runs"][run.name]["by"] = {
                str(value or "(none)"): _rates(run, scores.measures, np.flatnonzero(values == value))
                for value in np.unique(values)
            }
    runs = sorted(scores.runs, key=lambda run: run.name != against)
    pairs = ((runs[0], other) for other in runs[1:]) if against else itertools.combinations(runs, 2)
    for first, second in pairs:
        found["pairs"].append(_compare(first, second, scores.measures, found["notes"]))
    return _finite(found)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clusters_of(fields: dict[str, Sequence[str]]) -> tuple[str, np.ndarray]:
    """What counts as one trial, and its number for each utterance.

    What the file names as `cluster` if it does, or else the coarser of speakers and recordings that makes at least
    `FEW_CLUSTERS`; utterances where neither is known.
    """
    choices = []
    for name in ("cluster", "speaker", "recording"):
        values = fields[name]
        if all(values):
            numbers = np.unique(np.array(values), return_inverse=True)[1]
            choices.append((name, numbers))
            if name == "cluster":
                return choices[0]
    counts = {name: int(numbers.max(initial=-1)) + 1 for name, numbers in choices}
    enough = [one for one in choices if counts[one[0]] >= FEW_CLUSTERS]
    if enough:
        return min(enough, key=lambda one: counts[one[0]])
    several = [one for one in choices if counts[one[0]] > 1]
    return max(several, key=lambda one: counts[one[0]]) if several else ("utterance", np.arange(len(fields["cluster"])))


def _utterances(
    path: Path,
    known: dict[str, dict[str, Any]],
    lists: dict[str, dict[str, Any]],
    language: str,
    missing: list[str],
    apart: bool,
) -> Iterator[Utterance]:
    """Utterances of a file with what other files say of them; ids without a reference go to `missing`."""
    seen: dict[tuple[str, str], int] = {}
    for line, row in read_rows(path):
        name, condition = row["id"], row.get("condition", "")
        if (name, condition) in seen:
            raise doubled(path, line, name, seen[name, condition], condition)
        seen[name, condition] = line
        heard = row.pop("text", None)
        row.setdefault("hypothesis", heard)
        if row["hypothesis"] is None:
            raise CwjaxError(f"{path}, line {line}: has no hypothesis; expected a text under 'hypothesis' or 'text'")
        listed = lists.get(name, {})
        if apart:
            other = dict(known.get(name, {}))
            text = other.pop("text", None)
            row["reference"] = other.pop("reference", text)
        else:
            other = {}
            row.setdefault("reference", listed.get("reference", listed.get("text")))
        if row["reference"] is None:
            if not apart:
                raise CwjaxError(
                    f"{path}, line {line}: has no reference; expected one under 'reference', or a file of --references"
                )
            missing.append(name)
            continue
        listed = {key: listed[key] for key in LISTS if key in listed}
        merged = {"language": language, **{key: other[key] for key in other if key != "hypothesis"}, **row, **listed}
        if merged.get("homophone") and not merged.get("cluster"):
            merged["cluster"] = pair_name(*merged["homophone"])
        yield Utterance(**merged)


def _batched(utterances: Iterator[Utterance]) -> Iterator[list[Utterance]]:
    while batch := list(itertools.islice(utterances, BATCH)):
        yield batch


def _count(run: Run, batch: list[Utterance], measures: dict[str, Measure], name: str, has: set[str]) -> None:
    for one in batch:
        run.places[one.id] = len(run.places)
        run.references.append(hash(one.reference))
        for key in ("cluster", *FIELDS):
            run.fields.setdefault(key, []).append(getattr(one, key))
    said, heard = (
        [normaliser(name, one.language)(getattr(one, side)).split() for one in batch]
        for side in ("reference", "hypothesis")
    )
    places: list[np.ndarray] = []
    for key, measure in measures.items():
        rows = [row for row, one in enumerate(batch) if not measure.field or getattr(one, measure.field) is not None]
        counts = np.zeros((len(batch), len(measure.columns)))
        run.lacking[key] = run.lacking.get(key, 0) + len(batch) - len(rows)
        if rows:
            has.add(measure.field)
            of_these = [[texts[row] for row in rows] for texts in (batch, said, heard)]
            counts[rows] = measure.count(Texts(*of_these, name, places))
        run.counts.setdefault(key, []).append(counts)
    if places:
        run.errors.append(np.minimum(np.concatenate(places), MOST).astype(np.int16))
        run.ends.append([len(one) for one in places])


def _rates(run: Run, measures: dict[str, Measure], rows: np.ndarray) -> dict[str, Any]:
    kind, clusters = clusters_of({name: [values[row] for row in rows] for name, values in run.fields.items()})
    found: dict[str, Any] = {
        "utterances": len(rows),
        "clusters": {"kind": kind, "count": int(clusters.max(initial=-1)) + 1},
        "rates": {},
    }
    for name, measure in measures.items():
        counts = run.counts[name][rows]
        sums = cluster_sums(counts, clusters)
        over, under = (
            np.stack([_column(sums, measure, rate, side) for rate in measure.rates], 1) for side in ("over", "under")
        )
        intervals = rate_intervals(over, under)
        for column, rate in enumerate(measure.rates):
            total = under[:, column].sum()
            if not total and name != "wer":
                continue
            low, high = map(float, intervals[column])
            found["rates"][rate.name] = {
                "rate": float(over[:, column].sum() / max(total, 1)),
                "low": low,
                "high": high,
                "of": _whole(total),
            }
            if rate.errors:
                each = counts[:, [measure.columns.index(one) for one in rate.errors]].sum(0)
                found["rates"][rate.name]["errors"] = [int(one) for one in each]
        found.setdefault("counts", {}).update(
            {column: _whole(total) for column, total in zip(measure.columns, counts.sum(0), strict=True)}
        )
    return found


def _column(counts: np.ndarray, measure: Measure, rate: Rate, side: str) -> np.ndarray:
    return counts[:, [measure.columns.index(one) for one in getattr(rate, side)]].sum(1)


def _whole(number: float) -> float | int:
    return int(number) if float(number).is_integer() else float(number)


def _compare(first: Run, second: Run, measures: dict[str, Measure], notes: list[str]) -> dict[str, Any]:
    """What the second run does better or worse than the first, on the utterances that both have."""
    shared = [name for name in first.places if name in second.places]
    rows, others = (np.array([run.places[name] for name in shared], int) for run in (first, second))
    alone = first.places.keys() ^ second.places.keys()
    _note(notes, f"{first.name} and {second.name}: {{}} utterances in one only, left out of the comparison", alone)
    unequal = [n for n in shared if first.references[first.places[n]] != second.references[second.places[n]]]
    if unequal:
        raise CwjaxError(
            f"{first.name} and {second.name}: unequal references for {_named(unequal)}; expected the same to compare"
        )
    kind, clusters = clusters_of({key: [values[row] for row in rows] for key, values in first.fields.items()})
    found: dict[str, Any] = {
        "first": first.name,
        "second": second.name,
        "utterances": len(shared),
        "clusters": {"kind": kind, "count": int(clusters.max(initial=-1)) + 1},
        "rates": {},
    }
    if not shared:
        return found
    for name, measure in measures.items():
        both = [cluster_sums(run.counts[name][own], clusters) for run, own in ((first, rows), (second, others))]
        for rate in measure.rates:
            over, under = (tuple(_column(sums, measure, rate, side) for sums in both) for side in ("over", "under"))
            if not all(one.sum() for one in under):
                continue
            apart, low, high, p = difference(over, under)
            found["rates"][rate.name] = {"difference": float(apart), "low": float(low), "high": float(high), "p": p}
    if "wer" in measures:
        found["mapsswe"] = dict(zip(("p", "segments"), _segments(first, second, rows, others), strict=True))
        found["recordings"] = _better(first, second, rows, others, measures["wer"], clusters)
    return found


def _segments(first: Run, second: Run, rows: np.ndarray, others: np.ndarray) -> tuple[float, int]:
    def picked(run: Run, own: np.ndarray) -> np.ndarray:
        starts = np.concatenate([[0], run.ends[:-1]])
        lengths = (run.ends - starts)[own]
        at = np.repeat(starts[own] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        return run.errors[at + np.arange(lengths.sum())]

    ends = np.cumsum(np.diff(np.concatenate([[0], first.ends]))[rows])
    return mapsswe(picked(first, rows), picked(second, others), ends)


def _better(
    first: Run, second: Run, rows: np.ndarray, others: np.ndarray, measure: Measure, clusters: np.ndarray
) -> dict[str, Any]:
    """On how many recordings (utterances where they are unknown) the second makes fewer, as many, more errors.

    Their shares have intervals over the clusters, or over the recordings if these are fewer.
    """
    recordings = [first.fields["recording"][row] for row in rows]
    known = all(recordings)
    numbers = np.unique(np.array(recordings), return_inverse=True)[1] if known else np.arange(len(rows))
    own, other = (
        _column(cluster_sums(run.counts["wer"][at], numbers), measure, measure.rates[0], "over")
        for run, at in ((first, rows), (second, others))
    )
    counts = np.stack([own > other, own == other, own < other], axis=1).astype(float)
    groups = clusters[np.unique(numbers, return_index=True)[1]] if clusters.max() < len(own) else np.arange(len(own))
    sums = cluster_sums(counts, np.unique(groups, return_inverse=True)[1])
    intervals = rate_intervals(sums, np.repeat(sums.sum(1, keepdims=True), 3, axis=1)).tolist()
    names = ("better", "equal", "worse")
    found = {"of": "recordings" if known else "utterances", **dict(zip(names, map(int, counts.sum(0)), strict=True))}
    return found | {"intervals": dict(zip(names, intervals, strict=True))}


def _note(notes: list[str], text: str, ids: Sequence[str]) -> None:
    if ids:
        notes.append(f"{text.format(len(ids))}: {_named(sorted(ids))}")


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
