"""The report of an evaluation: `report.json` for programs, one self-contained `report.html` for people."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError
from cwjax.evaluation.condition_sections import example
from cwjax.evaluation.homophones import ArticleHomophones, decide, errors_elsewhere, shares_by_pair
from cwjax.evaluation.transcription import CONDITIONS, LABELS, Transcription
from cwjax.files import write_text
from cwjax.pages import render
from cwjax.scoring.normalisers import joined_characters, normaliser
from cwjax.scoring.word_errors import WordErrors, errors_by_place

EXAMPLES = 8
"""Segments shown side by side."""


def summarise(transcriptions: Sequence[Transcription], homophones: ArticleHomophones | None) -> dict[str, Any]:
    """The numbers of an evaluation, shares and rates in 0..1; words as the normaliser "whisper" has them.

    Returns:
        `wer` and `cer` by condition, `segments`, `reference_words`; with homophones also `homophones` by condition
        (`share`, `low`, `high`, `count`, `partner`), `wer_elsewhere` by condition and `pairs` (pair -> share by
        condition).
    """
    errors = {condition: _total_errors(transcriptions, condition) for condition in CONDITIONS}
    summary: dict[str, Any] = {
        "segments": len(transcriptions),
        "reference_words": errors["right"][0].reference_words,
        "wer": {condition: words.rate for condition, (words, _) in errors.items()},
        "cer": {condition: characters.rate for condition, (_, characters) in errors.items()},
    }
    if homophones is None:
        return summary
    decisions = {condition: decide(transcriptions, homophones, condition) for condition in CONDITIONS}
    pairs: dict[str, dict[str, float]] = {}
    for condition in CONDITIONS:
        for pair, share in shares_by_pair(transcriptions, homophones, condition).items():
            pairs.setdefault(pair, {})[condition] = share
    summary["homophones"] = {
        condition: {
            "share": one.share,
            "low": one.low,
            "high": one.high,
            "count": one.count,
            "partner": one.partner / max(one.count, 1),
        }
        for condition, one in decisions.items()
    }
    summary["wer_elsewhere"] = {
        condition: errors_elsewhere(transcriptions, homophones, condition).rate for condition in CONDITIONS
    }
    summary["pairs"] = pairs
    return summary


def write_report(
    directory: Path,
    summary: dict[str, Any],
    transcriptions: Sequence[Transcription],
    history: Sequence[dict[str, Any]],
    read_audio: Callable[[Segment], np.ndarray],
    title: str,
    facts: dict[str, str],
    sections: dict[str, Any] | None = None,
    model_index: str = "",
) -> None:
    """Writes `report.json`, `report.html` and, if there are homophones, their chart as `homophones.svg`.

    Args:
        directory: an existing folder.
        summary: of `summarise`.
        transcriptions: from which examples are chosen.
        history: rows of `metrics.jsonl`; empty: no curves.
        read_audio: samples of a segment at 16 kHz, (n,) float32.
        title: of the page.
        facts: label -> value, shown as a table.
        sections: of `condition_sections`.
        model_index: for the header of a model card; empty: none is written.

    Raises:
        CwjaxError: the files cannot be written.
    """
    from cwjax.evaluation.charts import homophone_chart, save_chart  # slow to import: matplotlib

    page = _page(title, summary, _chosen(transcriptions), history, read_audio, facts, sections)
    try:
        write_text(
            directory / "report.json", json.dumps({**summary, "facts": facts}, indent=2, ensure_ascii=False) + "\n"
        )
        write_text(directory / "report.html", page)
        if model_index:
            write_text(directory / "model-index.yml", model_index)
        if "homophones" in summary:
            save_chart(homophone_chart(summary), directory / "homophones.svg")
    except OSError as error:
        raise CwjaxError(f"{directory}: the report cannot be written ({error.strerror})") from error


def _total_errors(transcriptions: Sequence[Transcription], condition: str) -> tuple[WordErrors, WordErrors]:
    """Errors of words and of characters."""
    words = characters = WordErrors()
    for one in transcriptions:
        both = _words(one, condition)
        words += errors_by_place(*both)[0]
        characters += errors_by_place(*(joined_characters(side, one.segment.language) for side in both))[0]
    return words, characters


def _words(one: Transcription, condition: str) -> tuple[list[str], list[str]]:
    """What was said and what was heard."""
    normalise = normaliser("whisper", one.segment.language)
    return normalise(one.segment.text).split(), normalise(one.hypotheses[condition]).split()


def _chosen(transcriptions: Sequence[Transcription]) -> list[Transcription]:
    """Telling examples of different articles: first where context decided, then two where it failed."""

    def is_right(one: Transcription, condition: str) -> bool:
        said, heard = _words(one, condition)
        return said == heard

    telling = [one for one in transcriptions if is_right(one, "right") and not is_right(one, "wrong")]
    failed = [one for one in transcriptions if not is_right(one, "right")]
    chosen: list[Transcription] = []
    for candidates, limit in ((telling, EXAMPLES - 2), (failed, EXAMPLES), (list(transcriptions), EXAMPLES)):
        # Spread over the corpus rather than all from its beginning.
        stride = max(1, len(candidates) // EXAMPLES)
        for one in [*candidates[::stride], *candidates]:
            if len(chosen) >= limit:
                break
            if one.segment.article not in {other.segment.article for other in chosen}:
                chosen.append(one)
    return chosen


def _page(
    title: str,
    summary: dict[str, Any],
    examples: Sequence[Transcription],
    history: Sequence[dict[str, Any]],
    read_audio: Callable[[Segment], np.ndarray],
    facts: dict[str, str],
    conditions: dict[str, Any] | None,
) -> str:
    from cwjax.evaluation.charts import as_svg, error_rate_chart, homophone_chart, training_curves

    rates = summary["wer"]
    contrasted = set(CONDITIONS) <= rates.keys()
    named = [*["none"] * ("none" in rates), min(rates, key=rates.get), max(rates, key=rates.get)]
    return render(
        "evaluation.html",
        title=title,
        summary=summary,
        labels=LABELS,
        contrasted=contrasted,
        named=list(dict.fromkeys(named)),
        homophone_chart=as_svg(homophone_chart(summary)) if "homophones" in summary else "",
        error_rate_chart=as_svg(error_rate_chart(summary)) if contrasted else "",
        conditions=conditions,
        curves=as_svg(training_curves(history)) if any("loss" in row for row in history) else "",
        examples=[_example(one, read_audio) for one in examples],
        pairs=sorted(summary.get("pairs", {}).items(), key=lambda entry: (-entry[1]["right"], entry[0])),
        facts=facts,
    )


def _example(one: Transcription, read_audio: Callable[[Segment], np.ndarray]) -> dict[str, Any]:
    rows = [(condition, one.contexts[condition], one.hypotheses[condition]) for condition in CONDITIONS]
    return example(read_audio(one.segment), "", "", one.segment.text, rows)
