"""The evaluation of a model: the measures of a split, and the report of it."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.evaluation.evaluator import Evaluator
from cwjax.evaluation.homophones import Homophones
from cwjax.evaluation.report import summarise, write_report
from cwjax.evaluation.transcription import Transcription
from cwjax.files import write_text
from cwjax.inference.options import DecodingOptions
from cwjax.models.parameters import Parameters
from cwjax.processes import is_first

log = logging.getLogger(__name__)

HYPOTHESES_FILE = "hypotheses.jsonl"
SCORE = "validation/score"
"""In every row of a validation: the measure by which the best parameters are kept."""


def evaluate(
    evaluator: Evaluator,
    parameters: Parameters,
    output: Path,
    split: str,
    examples: int,
    title: str,
    facts: dict[str, Any],
    history: Sequence[dict[str, Any]],
) -> dict[str, Any] | None:
    """Transcribes a split with right, no and wrong context; the first process writes the report and the hypotheses.

    Args:
        evaluator: of the model and the corpus.
        parameters: of the model.
        output: folder of `report.json`, `report.html` and, for `cwjax score`, `hypotheses.jsonl`.
        split: which segments.
        examples: only the first so many; 0: all.
        title: of the report.
        facts: for its table.
        history: rows of `metrics.jsonl` for its curves; empty: none.

    Returns:
        The summary, as in `report.json`; None if it was left because a stop was asked for.

    Raises:
        CwjaxError: the split has no segments, or the report cannot be written.
    """
    corpus = evaluator.corpus
    positions = corpus.positions(split)[: examples or None]
    if not positions:
        raise CwjaxError(f"{corpus.directory}: has no segments in the split '{split}'")
    log.info("transcribing %d segments of the %s split with right, no and wrong context", len(positions), split)
    transcriptions = evaluator.transcribe(parameters, positions, DecodingOptions())
    if transcriptions is None:
        return None
    summary = summarise(transcriptions, evaluator.homophones)
    log_summary(summary)
    if is_first():
        place = {segment.id: position for position, segment in enumerate(corpus.segments)}
        output.mkdir(parents=True, exist_ok=True)
        write_hypotheses(output / HYPOTHESES_FILE, transcriptions, evaluator.homophones)
        write_report(
            output,
            summary,
            transcriptions,
            history,
            lambda segment: corpus.audio(place[segment.id]),
            title=f"{title}: {split} split",
            facts=_presentable(facts),
        )
        log.info("report written to %s", output / "report.html")
    return summary


def write_hypotheses(path: Path, transcriptions: Sequence[Transcription], homophones: Homophones | None) -> None:
    """Writes what was heard under each condition, as `cwjax score` reads it. Raises CwjaxError if it cannot."""
    lines = []
    for one in transcriptions:
        segment, known = one.segment, {}
        if homophones and segment.article in homophones.words:
            words = homophones.words[segment.article], homophones.partners[segment.article]
            known["homophone"] = dict(zip(("word", "partner"), words, strict=True))
        for condition, hypothesis in one.hypotheses.items():
            line = {"id": segment.id, "condition": condition, "reference": segment.text, "hypothesis": hypothesis}
            line |= {"context": one.contexts[condition], "language": segment.language, "speaker": segment.speaker}
            line |= {"recording": segment.article, "subset": segment.split, **known}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    try:
        write_text(path, "".join(lines))
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be written ({error.strerror})") from error


def validate(
    evaluator: Evaluator, parameters: Parameters, positions: Sequence[int], max_target_tokens: int
) -> dict[str, float] | None:
    """Error rates and homophones of parameters in training, by context. None if it was left, as asked for."""
    # Quick and the same at every step: greedy, once. Without timestamps, which a model learns late.
    options = DecodingOptions(
        temperature=0.0,
        sample_len=max_target_tokens - 4,
        without_timestamps=True,
        independent_windows=True,
    )
    transcriptions = evaluator.transcribe(parameters, positions, options, quiet=True)
    if transcriptions is None:
        return None
    summary = summarise(transcriptions, evaluator.homophones)
    log_summary(summary)
    measured = {f"validation/wer/{condition}": rate for condition, rate in summary["wer"].items()}
    for condition, decisions in summary.get("homophones", {}).items():
        measured[f"validation/homophones/{condition}"] = decisions["share"]
    return measured


def scores_of(summary: dict[str, Any], split: str) -> dict[str, dict[str, float]]:
    """The measures of a summary by context, for a model card."""
    scores = {f"word error rate, {split} split": dict(summary["wer"])}
    if "homophones" in summary:
        shares = {condition: decisions["share"] for condition, decisions in summary["homophones"].items()}
        scores[f"homophones spelled as meant, {split} split"] = shares
    return scores


def log_summary(summary: dict[str, Any]) -> None:
    """One line for each condition."""
    for condition, rate in summary["wer"].items():
        decided = summary.get("homophones", {}).get(condition)
        share = f"{100 * decided['share']:5.1f} % of homophones right, " if decided and decided["count"] else ""
        log.info("%5s context: %sWER %.1f %%", condition, share, 100 * rate)


def _presentable(facts: dict[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        match value:
            case bool():
                return "yes" if value else "no"
            case int():
                return f"{value:,}"
            case list():
                return ", ".join(value)
            case _:
                return str(value)

    return {name.replace("_", " "): text(value) for name, value in facts.items()}
