"""The evaluation of a model: what it hears under each condition, the measures of that, and the report."""

import contextlib
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.evaluation.condition_sections import compared, condition_sections
from cwjax.evaluation.conditions import served
from cwjax.evaluation.corpus_items import corpus_items
from cwjax.evaluation.evaluator import Evaluator
from cwjax.evaluation.hypotheses import HypothesesFile
from cwjax.evaluation.items import Item
from cwjax.evaluation.report import summarise, write_report
from cwjax.evaluation.seen_words import score_unseen
from cwjax.evaluation.transcription import CONDITIONS, Transcription, transcriptions
from cwjax.inference.options import DecodingOptions
from cwjax.models.parameters import Parameters
from cwjax.processes import is_first
from cwjax.scoring.score import score_files
from cwjax.weights.hub_card import model_index

log = logging.getLogger(__name__)

SCORE = "validation/score"
"""In every row of a validation: the measure by which the best parameters are kept."""


@dataclass(frozen=True)
class Ladder:
    """Under which conditions items are transcribed, and how.

    Attributes:
        conditions: names, see `cwjax.evaluation.conditions`.
        options: how to decode.
        takes_context, spots_phrases: whether the model does.
        model: tells it from others, for lines that are there already.
        resume: take over such lines.
        dataset, split: as a model card names them; empty: no `model-index.yml` is written.
        seen: words that the model has met in training, for error rates of those and of others; none: not known.
    """

    conditions: Sequence[str] = CONDITIONS
    options: DecodingOptions = field(default_factory=DecodingOptions)
    takes_context: bool = True
    spots_phrases: bool = True
    model: str = ""
    resume: bool = False
    dataset: str = ""
    split: str = ""
    seen: Set[str] = frozenset()


def evaluate(
    evaluator: Evaluator,
    parameters: Parameters,
    output: Path,
    split: str,
    examples: int,
    title: str,
    facts: dict[str, Any],
    history: Sequence[dict[str, Any]],
    ladder: Ladder = Ladder(),
) -> dict[str, Any] | None:
    """Transcribes a split of the evaluator's corpus, with right, no and wrong context if nothing else is said.

    Args:
        split: which segments.
        examples: only the first so many; 0: all.

    The others, the result and the errors are as of `evaluate_items`; and CwjaxError if the split has no segments.
    """
    corpus = evaluator.corpus
    positions = corpus.positions(split)[: examples or None]
    if not positions:
        raise CwjaxError(f"{corpus.directory}: has no segments in the split '{split}'")
    items = corpus_items(corpus, positions, evaluator.homophones)
    title = f"{title}: {split} split"
    return evaluate_items(evaluator, parameters, items, output, title, facts, history, ladder, positions)


def evaluate_items(
    evaluator: Evaluator,
    parameters: Parameters,
    items: Sequence[Item],
    output: Path,
    title: str,
    facts: dict[str, Any],
    history: Sequence[dict[str, Any]],
    ladder: Ladder = Ladder(),
    positions: Sequence[int] = (),
) -> dict[str, Any] | None:
    """Transcribes items under conditions; the first process writes the report and the hypotheses.

    Args:
        evaluator: of the model.
        parameters: of the model.
        items: any number but none.
        output: folder of `report.json`, `report.html`, for `cwjax score` `hypotheses.jsonl`, and `model-index.yml`.
        title: of the report.
        facts: for its table.
        history: rows of `metrics.jsonl` for its curves; empty: none.
        ladder: the conditions.
        positions: of the items in the evaluator's corpus, if they are of it.

    Returns:
        The summary, as in `report.json`, but for `conditions`, which the first process knows; None if it was left
        because a stop was asked for.

    Raises:
        CwjaxError: a name is no condition or none can be served, an item cannot be transcribed, or the report cannot
            be written.
    """
    conditions = served(ladder.conditions, items, ladder.takes_context, ladder.spots_phrases)
    names = [condition.name for condition in conditions]
    log.info("transcribing %d items under the conditions %s", len(items), ", ".join(names))
    with contextlib.closing(HypothesesFile(output, ladder.resume)) as file:
        lines = evaluator.hear(parameters, items, conditions, ladder.options, file, ladder.model)
        if lines is None:
            return None
        keys = [(item.id, name) for item in items for name in names if (item.id, name) in lines]
        file.finish([lines[key] for key in keys] if is_first() else None)
    segments = [evaluator.corpus.segments[position] for position in positions]
    heard: list[Transcription] = []
    summary: dict[str, Any] = {"segments": len(items)}
    if segments and set(CONDITIONS) <= set(ladder.conditions) and {"right", "none"} <= set(names):
        heard = transcriptions(segments, lines)
        summary = summarise(heard, evaluator.homophones)
    if is_first():
        scores = score_files([file.path])
        found = compared(scores, lines, score_unseen(file.path, items, ladder.seen) if ladder.seen else None)
        rates = {name: run["rates"]["WER"]["rate"] for name, run in found["runs"].items()}
        summary |= {"wer": rates | summary.get("wer", {}), "conditions": found}
        scored = {"corpus": ladder.dataset, "scores": scores_of(summary, ladder.split)}
        place = dict(zip((segment.id for segment in segments), positions, strict=True))
        write_report(
            output,
            summary,
            heard,
            history,
            lambda segment: evaluator.corpus.audio(place[segment.id]),
            title=title,
            facts=_presentable(facts),
            sections=condition_sections(scores, found, lines, items),
            model_index=model_index(title, scored) if ladder.dataset else "",
        )
        log_summary(summary)
        log.info("report written to %s", output / "report.html")
    return summary


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
    measured = {f"validation/{rate}/{one}": value for rate in ("wer", "cer") for one, value in summary[rate].items()}
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
        name = f"{condition:>5} context" if condition in CONDITIONS else condition
        log.info("%s: %sWER %.1f %%", name, share, 100 * rate)


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

    own = {name: value for name, value in facts.items() if not isinstance(value, dict)}  # but for earlier scores
    return {name.replace("_", " "): text(value) for name, value in own.items()}
