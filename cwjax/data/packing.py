"""Segments of one article joined to fill the model's window, so that little of the computation is padding."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cwjax.data.segment import Segment, Utterance

Window = tuple[int, ...]
"""Positions in the corpus of the segments that an example consists of, in the order in which they are said."""


class Candidate(NamedTuple):
    """A segment that may be joined with others.

    Attributes:
        position: in the corpus.
        segment: itself.
        tokens: of its transcript, without prompt and end of text.
    """

    position: int
    segment: Segment
    tokens: int


def pack_segments(candidates: Sequence[Candidate], seconds: float, tokens: int) -> list[Window]:
    """Joins segments that follow each other in an article and are of one speaker, as many as there is room for.

    Every candidate is in exactly one window, alone if it is longer than both limits.

    Args:
        candidates: in any order.
        seconds: of a window.
        tokens: of the transcripts in it.
    """
    windows: list[list[int]] = []
    before: Candidate | None = None
    seconds_left = tokens_left = 0.0
    for one in sorted(candidates, key=lambda one: (*_voice(one.segment), one.segment.start, one.position)):
        duration = one.segment.duration
        goes_on = before is not None and _voice(before.segment) == _voice(one.segment)
        if not (goes_on and duration <= seconds_left + 1e-6 and one.tokens <= tokens_left):
            windows.append([])
            seconds_left, tokens_left = seconds, tokens
        windows[-1].append(one.position)
        seconds_left -= duration
        tokens_left -= one.tokens
        before = one
    return [tuple(window) for window in windows]


def joined(segments: Sequence[Segment]) -> Segment:
    """Segments as one, each directly after the one before; what is known about the first holds for all."""
    first = segments[0]
    if len(segments) == 1:
        return first
    utterances: list[Utterance] = []
    seconds = 0.0
    for segment in segments:
        utterances += [replace(one, start=seconds + one.start, end=seconds + one.end) for one in segment.utterances]
        seconds += segment.duration
    text = " ".join(segment.text for segment in segments)
    return replace(first, end=first.start + seconds, text=text, utterances=tuple(utterances))


def _voice(segment: Segment) -> tuple[str, str, str]:
    return segment.language, segment.article, segment.speaker
