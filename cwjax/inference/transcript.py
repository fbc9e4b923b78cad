"""What a transcription gives: text, segments with their times, words when asked for."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Word:
    """A word and when it was said.

    Attributes:
        text: with the space before it, as Whisper's tokens have it.
        start, end: seconds in the recording.
        probability: mean probability of its tokens.
    """

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class TranscribedSegment:
    """A stretch of speech between two timestamps.

    Attributes:
        id: place among the recording's segments, from 0.
        seek: mel frame (10 ms) of the recording where the segment's window began.
        start, end: seconds in the recording.
        text: with the space before it, as Whisper's tokens have it.
        tokens: those of the text, with the timestamps around them.
        temperature: at which its window was decoded.
        avg_logprob: mean log-probability of the window's tokens.
        compression_ratio: of the window's text; high when it repeats itself.
        no_speech_prob: probability that the window holds no speech.
        words: None unless word times were asked for.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class Transcript:
    """The transcript of a recording.

    Attributes:
        text: all of it.
        segments: in order of time.
        language: ISO 639-1 code, given or detected.
    """

    text: str
    segments: tuple[TranscribedSegment, ...]
    language: str

    def to_dict(self) -> dict[str, Any]:
        """The transcript as JSON values, under the keys of openai-whisper's result."""
        return {
            "text": self.text,
            "segments": [_segment_dict(segment) for segment in self.segments],
            "language": self.language,
        }


def _segment_dict(segment: TranscribedSegment) -> dict[str, Any]:
    names = ("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio")
    values = {name: getattr(segment, name) for name in (*names, "no_speech_prob")}
    values["tokens"] = list(segment.tokens)
    if segment.words is not None:
        values["words"] = [
            {"word": word.text, "start": word.start, "end": word.end, "probability": word.probability}
            for word in segment.words
        ]
    return values
