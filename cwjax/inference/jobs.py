"""Windows as jobs of the engine, and what it serves.

From a recording to its transcript: `stretches` says what of it is transcribed, `windows` makes jobs of that, the
engine answers each with a result, of which `windows` makes segments, and `transcription` the transcript.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from cwjax.inference.audio import Recording
from cwjax.inference.growing import GrowingRecording
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrases import PhraseList
from cwjax.inference.segments import Cut, DecodedWindow
from cwjax.inference.timing import Alignment
from cwjax.inference.transcript import Word
from cwjax.models.audio_encoder import ProjectedContext


@dataclass(frozen=True, eq=False)
class WindowJob:
    """A window to be decoded.

    Attributes:
        recording: that it is a part of.
        max_log_mel: of the recording, or of what has been heard of it.
        seek: first mel frame.
        frames: mel frames from there on that belong to it.
        closed: it ends in a pause, so that the segment at its end is whole, and its padding is silence.
        context: what is known; None: nothing.
        options: how to decode.
        language: code; None: to be detected in this window.
        previous: tokens of the text before it.
        phrases: to look for; the decoder is shown those that are heard.
        prefix: tokens that the text begins with.
        decoded: False: only the language is asked for.
    """

    recording: Recording | GrowingRecording
    max_log_mel: float
    seek: int
    frames: int
    closed: bool
    context: ProjectedContext | None
    options: DecodingOptions
    language: str | None
    previous: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    phrases: PhraseList | None = None
    decoded: bool = True

    @property
    def key(self) -> tuple[Any, ...]:
        """Jobs with equal keys may share a batch."""
        if not self.decoded:
            return (self.is_compared,)
        options, drawn = self.options, self.options.temperature[0] > 0
        shapes = bool(self.previous), len(self.prefix), self.is_compared, drawn, self.phrases is not None
        return options.decoding_part, options.word_timestamps, *shapes

    @property
    def is_compared(self) -> bool:
        """Whether the window is encoded without its context, too."""
        return self.context is not None and self.options.context_scale not in (0, 1)


class WindowResult(NamedTuple):
    """What became of a job.

    Attributes:
        language: given or detected.
        probabilities: of all languages, the likeliest first; None where the language was given.
        window: its text; None where only the language was asked for.
        cut: its segments; empty where there is no speech.
        alignment: of the text tokens of its segments; None unless word times are asked for and there is a text.
        spotted: phrases that the decoder was shown, with their seconds in the window.
    """

    language: str
    probabilities: dict[str, float] | None
    window: DecodedWindow | None = None
    cut: Cut | None = None
    alignment: Alignment | None = None
    spotted: tuple[Word, ...] = ()


class Work(Protocol):
    """What the engine serves: a transcription. All methods but `cancel` are called on the engine's thread."""

    batch_size: int
    """Most windows of a batch that begins with a job of this one; rounded down to a power of two."""
    turn: int
    """Number of batches that were done when it was last in one, or when it came; the lowest is served next."""

    def jobs(self) -> Sequence[WindowJob]:
        """Jobs that can be done now and were not yet received."""

    def receive(self, job: WindowJob, result: WindowResult) -> None:
        """Takes the result of one of them."""

    def fail(self, error: BaseException) -> None:
        """Takes the news that there will be no results any more."""

    def cancel(self) -> None:
        """Makes it finished, from any thread."""

    @property
    def finished(self) -> bool:
        """Whether there will be no jobs any more."""
