"""Segments of one article joined to fill the model's window, so that little of the computation is padding."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cwjax.data.segment import Segment, Utterance

Window = tuple[int, ...]
"""Positions in the corpus of the segments that an example consists of, in the order in which they are said."""


class Candidate(NamedTuple):
    """What has to be known of a segment to join it with others; not its texts, for a corpus may have millions.

    Attributes:
        position: in the corpus.
        voice: language, article and speaker.
        start: seconds on the article's timeline.
        duration: seconds.
        tokens: of its transcript, without prompt and end of text.
        previous: tokens of the text before it, which may stand in its prompt.
    """

    position: int
    voice: tuple[str, str, str]
    start: float
    duration: float
    tokens: int
    previous: int = 0

    @classmethod
    def of(cls, position: int, segment: Segment, tokens: int, previous: int = 0) -> "Candidate":
        """The candidate that a segment is."""
        voice = segment.language, segment.article, segment.speaker
        return cls(position, voice, segment.start, segment.duration, tokens, previous)


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
    for one in sorted(candidates, key=lambda one: (one.voice, one.start, one.position)):
        goes_on = before is not None and before.voice == one.voice
        if not (goes_on and one.duration <= seconds_left + 1e-6 and one.tokens <= tokens_left):
            windows.append([])
            seconds_left, tokens_left = seconds, tokens
        windows[-1].append(one.position)
        seconds_left -= one.duration
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
