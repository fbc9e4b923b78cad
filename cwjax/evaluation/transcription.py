"""What evaluation works on: one segment with its transcripts under several contexts."""

from dataclasses import dataclass

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
