"""What a transcription gives: text, segments with their times, words when asked for."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Word:
    """A word and when it was said, or a phrase of a list that was heard.

    Attributes:
        text: with the space before it, as Whisper's tokens have it; a phrase as it is to be written.
        start, end: seconds in the recording.
        probability: mean probability of a word's tokens; that a phrase was said there.
    """

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
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
        speaker: who speaks, where that is known; empty otherwise.
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
    speaker: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it takes no time or says nothing."""
        return self.start == self.end or not self.text.strip()

    def emptied(self) -> "Segment":
        """Its times only."""
        return dataclasses.replace(self, text="", tokens=(), words=())

    def to_dict(self) -> dict[str, Any]:
        """The segment as JSON values, under the keys of openai-whisper's; words and speaker where they are known."""
        values = vars(self) | {"tokens": list(self.tokens)}
        if self.words is None:
            del values["words"]
        else:
            values["words"] = [
                {"word": word.text, "start": word.start, "end": word.end, "probability": word.probability}
                for word in self.words
            ]
        if not self.speaker:
            del values["speaker"]
        return values

    def until(self, end: float) -> "Segment":
        """The segment with no time beyond that many seconds."""

        def clipped(part: "Segment | Word", **others: Any) -> Any:
            return dataclasses.replace(part, start=min(part.start, end), end=min(part.end, end), **others)

        return clipped(self, words=self.words and tuple(map(clipped, self.words)))


@dataclass(frozen=True)
class Skipped:
    """A stretch of a recording of which nothing was written.

    Attributes:
        start, end: seconds in the recording.
        reason: why, such as "digital silence".
    """

    start: float
    end: float
    reason: str


@dataclass(frozen=True)
class Transcript:
    """The transcript of a recording.

    Attributes:
        text: all of it.
        segments: in order of time.
        language: ISO 639-1 code, given or detected.
        duration: seconds of the recording.
        language_probabilities: code -> probability, the likeliest first; empty where the language was given.
        skipped: what was left out, in order of time.
        phrases: those of a list that were shown to the decoder and written, or heard for sure, in order of time.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str
    duration: float = 0.0
    language_probabilities: dict[str, float] = dataclasses.field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    phrases: tuple[Word, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The transcript as JSON values, under the keys of openai-whisper's result."""
        return {
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
            "language": self.language,
        }

    def save(self, path: str | Path, **layout: Any) -> Path:
        """Writes the transcript as a file of the kind its suffix names.

        Args:
            path: such as "talk.srt"; see `cwjax.inference.writers.FORMATS`.
            layout: fields of `SubtitleLayout`.

        Raises:
            CwjaxError: the suffix names no format, or the file cannot be written.
        """
        from cwjax.inference.writers import SubtitleLayout, save_transcript

        return save_transcript(self, path, SubtitleLayout(**layout))
