"""Which validation was the best so far, and how many came since."""

import logging
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.evaluation.evaluate import SCORE

log = logging.getLogger(__name__)

HIGHER_IS_BETTER = ("homophones/", "token_accuracy")
"""Beginnings of the names of measures of which more is better; of all others less is."""
NOTHING_VALIDATED = {"validated": 0, "score": None, "best_step": 0, "best": None, "stale": 0}
"""The progress of validation: the step of the last; score, step and measures of the best; how many came since."""


def note_validation(progress: dict[str, Any], step: int, measured: dict[str, float], by: str) -> bool:
    """Notes the measures of a validation in the progress of a run, and its score among the measures.

    Returns:
        Whether it is the best so far.
    """
    score = measured[SCORE] = measured[f"validation/{by}"]
    best = progress["score"]
    is_best = best is None or (score > best if by.startswith(HIGHER_IS_BETTER) else score < best)
    progress |= {"validated": step, "stale": 0 if is_best else progress["stale"] + 1}
    if is_best:
        progress |= {"score": score, "best_step": step, "best": dict(measured)}
    return is_best


def rescore(progress: dict[str, Any], by: str) -> bool:
    """Takes the score of the best validation so far by another measure, if a run goes on with one.

    Returns:
        Whether that measure is known of it; if not, it is forgotten.
    """
    if progress["score"] is None:
        return True
    # Before there was a choice, it was the error rate, and all that was kept.
    known = progress["best"] or {"validation/wer/right": progress["score"]}
    progress["score"] = known.get(f"validation/{by}")
    if progress["score"] is None:
        log.warning("train.best_by is %s, which was not measured before: the best of the next validations is kept", by)
        progress |= {"best": None, "best_step": 0, "stale": 0}
    return progress["score"] is not None


def require_measure(by: str, has_homophones: bool, has_loss: bool, corpus: Path) -> None:
    """Raises `CwjaxError` if a corpus does not have what the best is to be chosen by."""
    if by.startswith("homophones/") and not has_homophones:
        raise CwjaxError(f"train.best_by is {by}, but {corpus} has no homophones.json; use wer/right or loss")
    if by in ("loss", "token_accuracy") and not has_loss:
        raise CwjaxError(
            f"train.best_by is {by}, but no validation segment of {corpus} fits; raise data.max_target_tokens"
        )
