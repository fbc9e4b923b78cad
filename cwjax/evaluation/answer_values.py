"""Transcripts, and what a context did to them, as the JSON that the API answers and that the page of both shows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cwjax.evaluation.explanation import COLUMN_SECONDS, Explanation
from cwjax.inference.transcript import Segment, Transcript, Word

DIGITS = 4
"""Significant ones of influences."""


def text_of(segments: Sequence[Segment]) -> str:
    """The text of segments, of which that of the first begins without a space."""
    return "".join(segment.text for segment in segments).strip()


def segment_values(segment: Segment) -> dict[str, Any]:
    """A segment under OpenAI's ten keys."""
    values = segment.to_dict()
    values.pop("words", None)
    return {name: _number(value) for name, value in values.items()}


def words_of(transcript: Transcript) -> list[dict[str, Any]]:
    """Words with their times, without the spaces around them; of a segment without word times all text as one."""
    return [
        {"word": one.text.strip(), "start": one.start, "end": one.end}
        for segment in transcript.segments
        for one in [word for word in segment.words or () if word.text.strip()] or [segment]
        if one.text.strip()
    ]


def text_and_words(transcript: Transcript) -> dict[str, Any]:
    """What `without_context` is in an answer."""
    return {"text": text_of(transcript.segments), "words": words_of(transcript)}


def phrase_values(phrases: Sequence[Word]) -> list[dict[str, Any]]:
    """The phrases that were heard."""
    return [{"phrase": one.text, "start": one.start, "end": one.end, "probability": one.probability} for one in phrases]


def context_word_values(explanation: Explanation) -> dict[str, Any]:
    """How far each word of the context moved each column of sound, summed over layers."""
    windows = [
        {
            "start": window.start,
            "words": list(window.words),
            "influence": _rounded(window.influence.sum(axis=0)),
            "others": _rounded(window.others.sum(axis=0)),
        }
        for window in explanation.windows
    ]
    return {"words": list(explanation.words), "column_seconds": COLUMN_SECONDS, "windows": windows}


def _rounded(values: np.ndarray) -> Any:
    """Values as lists of numbers that are short as JSON."""
    short = np.array([float(f"{value:.{DIGITS}g}") for value in values.ravel()])
    return short.reshape(values.shape).tolist()


def _number(value: Any) -> Any:
    """JSON has no infinities."""
    return 0.0 if isinstance(value, float) and not math.isfinite(value) else value
