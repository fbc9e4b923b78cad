"""The segments of a window, from the timestamps among its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cwjax.data.whisper_tokens import TIMESTAMP_STEP, WhisperTokens
from cwjax.inference.recognizer import DecodedWindow
from cwjax.inference.recording import FRAMES_PER_SECOND
from cwjax.inference.transcript import TranscribedSegment, Word

FRAMES_PER_STEP = round(TIMESTAMP_STEP * FRAMES_PER_SECOND)
"""Mel frames between neighbouring timestamps."""


@dataclass
class Draft:
    """A segment that word times may still change.

    Attributes:
        start, end: seconds in the recording.
        tokens: timestamps included.
        text: of the tokens.
        words: None as long as nobody has looked for them.
    """

    start: float
    end: float
    tokens: list[int]
    text: str
    words: list[Word] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it takes no time or says nothing."""
        return self.start == self.end or not self.text.strip()

    def finish(self, number: int, seek: int, window: DecodedWindow) -> TranscribedSegment:
        """The segment for the transcript; an empty one keeps its times only."""
        words = None if self.words is None else tuple(self.words)
        return TranscribedSegment(
            id=number,
            seek=seek,
            start=self.start,
            end=self.end,
            text="" if self.is_empty else self.text,
            tokens=() if self.is_empty else tuple(self.tokens),
            temperature=window.temperature,
            avg_logprob=window.avg_logprob,
            compression_ratio=window.compression_ratio,
            no_speech_prob=window.no_speech_prob,
            words=() if self.is_empty else words,
        )


class Cut(NamedTuple):
    """A window cut into segments.

    Attributes:
        drafts: the segments, unfinished ones left out.
        frames: mel frames after which the next window begins.
        ends_in_silence: whether the tokens end in a single timestamp: nothing is said from there to the end.
        rest: the segment that the window's end cut off, as if it ended there; None if there is none.
    """

    drafts: list[Draft]
    frames: int
    ends_in_silence: bool
    rest: Draft | None


def cut_into_segments(tokens: Sequence[int], vocabulary: WhisperTokens, seek: int, frames: int) -> Cut:
    """Cuts a window's tokens between neighbouring timestamps.

    Where there are no two neighbours, the window is one segment, which ends at the last timestamp if there is one
    and it is not 0.00.

    Args:
        tokens: of the window.
        vocabulary: knows the timestamps.
        seek: mel frame of the recording where the window begins.
        frames: mel frames of the window that were heard.
    """
    tokens = list(tokens)
    began = seek / FRAMES_PER_SECOND
    ended = began + frames / FRAMES_PER_SECOND
    stamped = [token >= vocabulary.first_timestamp for token in tokens]
    ends_in_silence = stamped[-2:] == [False, True]

    def time(token: int) -> float:
        return began + (token - vocabulary.first_timestamp) * TIMESTAMP_STEP

    def draft(start: float, end: float, part: list[int]) -> Draft:
        return Draft(start, end, part, vocabulary.text(part))

    bounds = [place for place in range(1, len(tokens)) if stamped[place - 1] and stamped[place]]
    if not bounds:
        last = next((token for token in reversed(tokens) if token >= vocabulary.first_timestamp), None)
        end = ended if last in (None, vocabulary.first_timestamp) else time(last)
        return Cut([draft(began, end, tokens)], frames, ends_in_silence, None)
    if ends_in_silence:
        bounds.append(len(tokens))
    parts = [tokens[first:last] for first, last in zip([0, *bounds], bounds, strict=False)]
    drafts = [draft(time(part[0]), time(part[-1]), part) for part in parts]
    if ends_in_silence:
        return Cut(drafts, frames, ends_in_silence, None)
    rest = tokens[bounds[-1] :]
    frames = (parts[-1][-1] - vocabulary.first_timestamp) * FRAMES_PER_STEP
    return Cut(drafts, frames, ends_in_silence, draft(min(time(rest[0]), ended), ended, rest))
