"""The segments of a window, from the timestamps among its tokens."""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from cwjax.data.examples.whisper_tokens import TIMESTAMP_STEP, WhisperTokens
from cwjax.inference.audio import FRAMES_PER_SECOND, frames_of
from cwjax.inference.transcript import Segment

FRAMES_PER_STEP = round(TIMESTAMP_STEP * FRAMES_PER_SECOND)
"""Mel frames between neighbouring timestamps."""


@dataclass(frozen=True)
class DecodedWindow:
    """The text of one window.

    Attributes:
        tokens: without prompt and end of text.
        text: of the tokens, without timestamps.
        avg_logprob: mean log-probability of the tokens and the end of text.
        no_speech_prob: probability that there is no speech.
        temperature: at which it was decoded.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text over those of its zlib compression."""
        encoded = self.text.encode()
        return len(encoded) / len(zlib.compress(encoded))


class Cut(NamedTuple):
    """A window cut into segments.

    Attributes:
        segments: numbered from 0, unfinished ones left out.
        frames: mel frames after which the next window begins.
        ends_in_silence: whether the tokens end in a single timestamp: nothing is said from there to the end.
        rest: the segment that the window's end cut off, as if it ended there; None if there is none.
    """

    segments: list[Segment]
    frames: int
    ends_in_silence: bool
    rest: Segment | None

    def closed(self) -> "Cut":
        """The cut of a window that ends in a pause: its last segment is whole, and what is after that was not said."""
        segments = [*self.segments, self.rest] if self.rest and self.rest.text.strip() else self.segments
        began = self.segments[0].seek
        return Cut(segments, frames_of(segments[-1].end) - began, self.ends_in_silence, None)


def cut_into_segments(window: DecodedWindow, vocabulary: WhisperTokens, seek: int, frames: int) -> Cut:
    """Cuts a window's tokens between neighbouring timestamps.

    Where there are no two neighbours, the window is one segment, which ends at the last timestamp if there is one
    and it is not 0.00.

    Args:
        window: decoded.
        vocabulary: knows the timestamps.
        seek: mel frame of the recording where the window begins.
        frames: mel frames of the window that were encoded.
    """
    tokens = list(window.tokens)
    began = seek / FRAMES_PER_SECOND
    ended = began + frames / FRAMES_PER_SECOND
    stamped = [vocabulary.is_timestamp(token) for token in tokens]
    ends_in_silence = stamped[-2:] == [False, True]

    def time(token: int) -> float:
        return began + (token - vocabulary.first_timestamp) * TIMESTAMP_STEP

    def segment(number: int, start: float, end: float, part: list[int]) -> Segment:
        return Segment(
            id=number,
            seek=seek,
            start=start,
            end=end,
            text=vocabulary.text(part),
            tokens=tuple(part),
            temperature=window.temperature,
            avg_logprob=window.avg_logprob,
            compression_ratio=window.compression_ratio,
            no_speech_prob=window.no_speech_prob,
        )

    bounds = [place for place in range(1, len(tokens)) if stamped[place - 1] and stamped[place]]
    if not bounds:
        last = next((token for token in reversed(tokens) if vocabulary.is_timestamp(token)), None)
        end = ended if last in (None, vocabulary.first_timestamp) else time(last)
        return Cut([segment(0, began, end, tokens)], frames, ends_in_silence, None)
    if ends_in_silence:
        bounds.append(len(tokens))
    parts = [tokens[first:last] for first, last in zip([0, *bounds], bounds, strict=False)]
    segments = [segment(number, time(part[0]), time(part[-1]), part) for number, part in enumerate(parts)]
    if ends_in_silence:
        return Cut(segments, frames, ends_in_silence, None)
    rest = tokens[bounds[-1] :]
    frames = (parts[-1][-1] - vocabulary.first_timestamp) * FRAMES_PER_STEP
    return Cut(segments, frames, ends_in_silence, segment(len(segments), min(time(rest[0]), ended), ended, rest))
