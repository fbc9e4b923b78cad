"""From recordings to transcripts.

The windows of a recording follow each other, or, with independent windows, are cut in its pauses and are transcribed
side by side, without the text before them. Either way is a generator that yields window jobs and receives their results
(`cwjax.inference.windows`), so that the engine can batch the windows of any number of recordings, and a transcription
can end at any window.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cwjax.inference.audio import FRAMES_PER_SECOND, Recording, frames_of
from cwjax.inference.contexts import Contexts
from cwjax.inference.growing import GrowingRecording
from cwjax.inference.jobs import WindowJob, WindowResult
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrases import PhraseList
from cwjax.inference.programs import Programs
from cwjax.inference.stretches import GrowingStretches, Stretches
from cwjax.inference.transcript import Segment, Transcript
from cwjax.inference.windows import Steps, Windows


@dataclass(frozen=True, eq=False)
class Request:
    """A recording to transcribe.

    Attributes:
        audio: a file, samples, or a recording; see `Recording.open`.
        context: what is known about it: sentences, or lists such as "names: Ann, Bob".
        options: how.
        name: for messages.
        only_language: ask for the language alone.
    """

    audio: Any
    context: str = ""
    options: DecodingOptions = field(default_factory=DecodingOptions)
    name: str = ""
    only_language: bool = False


@dataclass(frozen=True)
class Event:
    """Something that became known about a request. The last event of each has a transcript or an error.

    Attributes:
        request: the request.
        segment: the next segment of its transcript.
        done, total: seconds of its audio that are done, and that there are to do.
        transcript: all of it.
        error: why there will be none.
    """

    request: Request
    segment: Segment | None = None
    done: float = 0.0
    total: float = 0.0
    transcript: Transcript | None = None
    error: BaseException | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing more will be known."""
        return self.transcript is not None or self.error is not None


class _Strand:
    """Windows that follow each other: a generator with its segments so far, and the job that it waits for, None while
    the recording has to grow and at the end."""

    def __init__(self, steps: Steps):
        self._steps = steps
        self.segments: list[Segment] = []
        self.job: WindowJob | None = None
        self.finished = False
        self.send(None)

    def send(self, result: WindowResult | None) -> None:
        """Goes on to the next job."""
        try:
            self.job = self._steps.send(result)
            while isinstance(self.job, Segment):
                self.segments.append(self.job)
                self.job = next(self._steps)
        except StopIteration:
            self.job, self.finished = None, True


class Transcription:
    """One recording on its way to a transcript; a `Work` of the engine.

    Args:
        request: what is asked for.
        recording: of the request.
        programs: the model.
        contexts: of the model.
        phrases: to look for.
        options: of the request, as they hold for this model.
        emit: is called with events.
        batch_size: most windows at once.
    """

    def __init__(
        self,
        request: Request,
        recording: Recording | GrowingRecording,
        programs: Programs,
        contexts: Contexts,
        phrases: PhraseList | None,
        options: DecodingOptions,
        emit: Callable[[Event], None],
        batch_size: int,
    ):
        self.batch_size, self.turn = batch_size, 0
        self.finished = False
        self._request, self._recording, self._options, self._emit = request, recording, options, emit
        self._programs, self._contexts, self._phrases = programs, contexts, phrases
        self._longest = programs.frames
        if options.chunk_length is not None:
            self._longest = min(self._longest, frames_of(options.chunk_length))
        self._stretches: Stretches | None = None
        self._strands: list[_Strand] | None = None
        self._segments: list[Segment] = []

    @property
    def open_windows(self) -> int:
        """About how many windows could be decoded now."""
        if not self._options.independent_windows:
            return 1
        if self._strands is None:
            return -(-self._recording.frames // self._longest)
        return sum(strand.job is not None for strand in self._strands)

    def jobs(self) -> list[WindowJob]:
        """The next window of every strand."""
        if self.finished:
            return []
        if self._strands is None:
            self._begin()
        for strand in self._strands:
            if strand.job is None and not strand.finished:
                strand.send(None)
        while all(strand.finished for strand in self._strands):
            if not self._is_detecting:
                self._finish()
                return []
            self._transcribe()
        return [strand.job for strand in self._strands if strand.job is not None]

    def receive(self, job: WindowJob, result: WindowResult) -> None:
        """Goes on after a window."""
        if not self.finished:
            next(strand for strand in self._strands if strand.job is job).send(result)
            self._publish()

    def fail(self, error: BaseException) -> None:
        """Ends with an error."""
        if not self.finished:
            self.cancel()
            self._emit(Event(self._request, error=error))

    def cancel(self) -> None:
        """Ends without a result; a window that is being decoded is decoded to its end."""
        self.finished = True
        self._recording.end()

    def prepare(self) -> None:
        """Finds out what of the recording is to be transcribed: seconds of work for hours of sound, which keep nobody
        waiting if done before the engine has it."""
        if self._stretches is None:
            kind = GrowingStretches if isinstance(self._recording, GrowingRecording) else Stretches
            self._stretches = kind(self._recording, self._programs, self._options, self._longest)

    def _begin(self) -> None:
        """What has to be known before the first window."""
        self.prepare()
        self._skipped = self._stretches.skipped
        given = self._request.context, self._options, self._programs, self._contexts, self._phrases
        self._windows = Windows(self._stretches, *given)
        self._is_detecting = self._windows.language is None
        if self._is_detecting:
            self._strands = [_Strand(self._windows.detect())]
        else:
            self._transcribe()

    def _transcribe(self) -> None:
        self._is_detecting = False
        strands = [] if self._request.only_language else self._stretches.strands()
        self._strands = [_Strand(self._windows.follow(some)) for some in strands]

    def _publish(self) -> None:
        """Tells of the segments that no earlier one can precede any more."""
        done, total = sum(self._windows.done.values()) / FRAMES_PER_SECOND, self._stretches.total / FRAMES_PER_SECOND
        for strand in self._strands:
            for segment in strand.segments:
                segment = replace(segment, id=len(self._segments))
                self._segments.append(segment)
                self._emit(Event(self._request, segment, done, total))
            strand.segments.clear()
            if strand.job is not None:
                break
        self._emit(Event(self._request, None, done, total))

    def _finish(self) -> None:
        self._recording.check()
        self.finished = True
        tokens = [token for segment in self._segments for token in segment.tokens]
        transcript = Transcript(
            text=self._programs.tokens.text(tokens),
            segments=tuple(self._segments),
            language=self._windows.language or "en",
            duration=self._recording.duration,
            language_probabilities=self._windows.probabilities,
            skipped=tuple(sorted(self._skipped, key=lambda one: one.start)),
            phrases=tuple(sorted(self._windows.spotted, key=lambda one: one.start)),
        )
        total = self._stretches.total / FRAMES_PER_SECOND
        self._emit(Event(self._request, None, total, total, transcript))
