"""What evaluation works on: one segment with its transcripts under several contexts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwjax.data.segment import Segment

CONDITIONS = ("right", "none", "wrong")
"""The three contexts every segment is transcribed under: its own, an empty one, another article's."""
LABELS = {"right": "right context", "none": "no context", "wrong": "wrong context"}


@dataclass(frozen=True)
class Transcription:
    """One segment transcribed under every condition.

    Attributes:
        segment: what was said, and where its audio lies.
        contexts: condition -> the context that was given; empty for "none".
        hypotheses: condition -> the transcript that came out.
    """

    segment: Segment
    contexts: dict[str, str]
    hypotheses: dict[str, str]


def transcriptions(
    segments: Sequence[Segment], lines: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[Transcription]:
    """Segments with what was heard, by id and condition. Where no wrong context is known, it was none."""
    found = []
    for segment in segments:
        own = {one: lines.get((segment.id, one)) or lines[segment.id, "none"] for one in CONDITIONS}
        contexts, hypotheses = ({one: own[one][key] for one in CONDITIONS} for key in ("context", "hypothesis"))
        found.append(Transcription(segment, contexts, hypotheses))
    return found
