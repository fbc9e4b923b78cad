"""From recordings to transcripts.

A recording is transcribed window after window, each beginning where the last finished segment of the one before ended.
The algorithm is openai-whisper's (Radford et al. 2022, section 4.5; openai/whisper, transcribe.py), the reference for
quality: no word is cut by the end of a window, and every window knows the text before it. With independent windows the
recording is cut in its pauses into stretches that are each transcribed in the same way, but side by side and without
the text before them.

Either way is a generator that yields window jobs and receives their results, so that the engine can batch the windows
of any number of recordings, and a transcription can end at any window.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cwjax.inference.audio import (
    FRAMES_PER_SECOND,
    PADDING,
    Recording,
    frames_of,
    level,
    pack_windows,
    silent_frames,
    speech_spans,
    voice,
)
from cwjax.inference.contexts import Contexts
from cwjax.inference.engine import WindowJob, WindowResult
from cwjax.inference.growing import GrowingRecording
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrases import SURE, PhraseList, is_written
from cwjax.inference.programs import Programs
from cwjax.inference.segments import Cut
from cwjax.inference.timing import Surroundings, add_words, last_word_end, skip_hallucinations
from cwjax.inference.transcript import Segment, Skipped, Transcript, Word

DECODED_AGAIN = 0.7
"""Seconds of speech after the last timestamp of a window for which it is decoded again from there."""

FOREVER = 1 << 40
"""Mel frames of a recording that grows."""
PAUSE, STEP = 100, 50
"""Mel frames after which a pause ends a window of a recording that grows, and between looks for one."""

Windows = Generator[WindowJob | Segment | None, WindowResult | None, None]
"""Yields jobs, for which it is sent results, finished segments, and None where the recording has to grow first."""
Stretch = tuple[int, int]
"""First mel frame of what is to be transcribed, and the one after its last."""


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


@dataclass
class _History:
    """What was said before a window.

    Attributes:
        said: tokens, those of the initial prompt first.
        prompt_since: place of the first one that prompts the next window.
        last_speech: seconds where the last word ended.
    """

    said: list[int]
    prompt_since: int = 0
    last_speech: float = 0.0


class _Strand:
    """Windows that follow each other: a generator with its segments so far, and the job that it waits for, None while
    the recording has to grow and at the end."""

    def __init__(self, windows: Windows):
        self._windows = windows
        self.segments: list[Segment] = []
        self.job: WindowJob | None = None
        self.finished = False
        self.send(None)

    def send(self, result: WindowResult | None) -> None:
        """Goes on to the next job."""
        try:
            self.job = self._windows.send(result)
            while isinstance(self.job, Segment):
                self.segments.append(self.job)
                self.job = next(self._windows)
        except StopIteration:
            self.job, self.finished = None, True


class Transcription:
    """One recording on its way to a transcript; a `Work` of the engine.

    Args:
        request: what is asked for.
        recording: of the request.
        programs: the model.
        contexts: of the model.
        phrases: of the model.
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
        self.batch_size = batch_size
        self.finished = False
        self._request, self._recording, self._options = request, recording, options
        self._grows = isinstance(recording, GrowingRecording)
        self._programs, self._tokens, self._contexts = programs, programs.tokens, contexts
        self._phrases = phrases
        self._emit = emit
        self._window = programs.frames
        if options.chunk_length is not None:
            self._window = min(self._window, frames_of(options.chunk_length))
        self._closed = options.independent_windows or options.vad != "none"
        self._detector = "energy" if options.vad == "none" else options.vad
        self._language = self._tokens.language_code(options.language) if options.language else None
        self._probabilities: dict[str, float] = {}
        if self._language is None and not self._tokens.is_multilingual:
            self._language, self._probabilities = "en", {"en": 1.0}
        self._initial = self._initial_tokens()
        self._hotwords = self._tokens.encode(options.hotwords)[: programs.longest_previous] if options.hotwords else []
        self._prefix = tuple(self._tokens.encode(options.prefix)) if options.prefix else ()
        self._strands: list[_Strand] | None = None
        self._detecting = False
        self._segments: list[Segment] = []
        self._speech: list[tuple[int, int]] = []
        self._skipped: list[Skipped] = []
        self._spotted: list[Word] = []
        self._done: dict[int, int] = {}
        self._total = 0

    # What the engine asks.

    @property
    def open_windows(self) -> int:
        """About how many windows could be decoded now."""
        if not self._options.independent_windows:
            return 1
        if self._strands is None:
            return -(-self._recording.frames // self._window)
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
        if all(strand.finished for strand in self._strands):
            if not self._detecting:
                self._finish()
                return []
            self._transcribe()
        return [strand.job for strand in self._strands if strand.job is not None]

    def receive(self, job: WindowJob, result: WindowResult) -> None:
        """Goes on after a window."""
        if self.finished:
            return
        strand = next(one for one in self._strands if one.job is job)
        strand.send(result)
        self._publish()

    def fail(self, error: BaseException) -> None:
        """Ends with an error."""
        if not self.finished:
            self.cancel()
            self._emit(Event(self._request, error=error))

    def cancel(self) -> None:
        """Ends without a result; a window that is being decoded is decoded to its end."""
        self.finished = True
        if self._grows:
            self._recording.end()

    # From windows to segments.

    def _begin(self) -> None:
        """What has to be known before the first window."""
        if self._grows:
            self._max_log_mel = -np.inf
            self._stretches: list[Stretch] = []
        else:
            loudness = level(self._recording)
            self._is_silent = silent_frames(loudness)
            if self._closed:
                self._speech = speech_spans(loudness, voice(self._recording, self._detector))
            self._max_log_mel = self._programs.max_log_mel(self._recording)
            self._stretches = list(self._cut_into_stretches(loudness))
            self._total = sum(last - first for first, last in self._stretches)
        if self._language is None and (self._stretches or self._grows):
            self._detecting = True
            self._strands = [_Strand(self._detect())]
        else:
            self._transcribe()

    def _transcribe(self) -> None:
        self._detecting = False
        stretches: Iterable[Iterable[Stretch | None]] = [self._stretches]
        if self._request.only_language:
            stretches = []
        elif self._grows:
            stretches = [self._coming_stretches()]
        elif self._options.independent_windows:
            stretches = ([stretch] for stretch in self._stretches)
        self._strands = [_Strand(self._windows(some)) for some in stretches]

    def _arrive(self, first: int, last: int) -> Generator[None, None, int]:
        """Waits until some mel frames have come, all from `first` on being needed still; how far they reach."""
        while not self._recording.reaches(last):
            yield
        if not self._grows:
            return last
        last = min(last, self._recording.frames)
        if last > first:
            self._recording.move(first, last)
            self._is_silent = silent_frames(self._recording.levels(last))[first - last :]
            self._max_log_mel = max(self._max_log_mel, self._programs.max_log_mel(self._recording, first, last))
            self._total = self._recording.frames
        return last

    def _coming_stretches(self) -> Iterator[Stretch | None]:
        """The stretches of a recording that grows, None where it has to grow first."""
        for stretch in clips(self._options, FOREVER):
            for some in self._until_pauses(*stretch) if self._closed else [stretch]:
                if some is not None:
                    self._stretches.append(some)
                yield some

    def _until_pauses(self, first: int, last: int) -> Iterator[Stretch | None]:
        """Stretches of speech of a recording that grows, each as soon as a pause ends it or a window is full."""
        recording, heard, done = self._recording, first, first
        while heard < last:
            heard = min(heard + STEP, last)
            while not recording.reaches(heard):
                yield None
            if recording.frames < heard:
                heard = last = recording.frames
            loudness = recording.levels(heard)
            began = heard - len(loudness)
            likely = None
            if self._detector != "energy":
                likely = voice(Recording(recording.samples(done, heard)), self._detector)
                likely = np.append(np.zeros(done - began), likely)
            spans = [(max(begin + began, done), end + began) for begin, end in speech_spans(loudness, likely)]
            self._speech = [span for span in spans if span[1] - span[0] > PADDING * FRAMES_PER_SECOND]
            spans = [(begin - began, end - began) for begin, end in self._speech]
            windows = [(begin + began, end + began) for begin, end in pack_windows(spans, loudness, self._window)]
            goes_on = heard < last and windows and heard - windows[-1][1] < PAUSE and windows.pop()
            for begin, end in windows:
                self._skip(done, begin, "no voice activity")
                done = end
                yield begin, end
            quiet = heard - PAUSE if heard < last else last
            if not goes_on and quiet > done:
                self._skip(done, quiet, "no voice activity")
                done = quiet
                recording.move(done, heard)

    def _cut_into_stretches(self, loudness: np.ndarray) -> Iterator[tuple[int, int]]:
        """First mel frame of each stretch to transcribe, and the one after its last."""
        for first, last in clips(self._options, self._recording.frames):
            if not self._closed:
                yield first, last
                continue
            spans = [(max(begin, first), min(end, last)) for begin, end in self._speech if begin < last and end > first]
            reached = first
            for begin, end in pack_windows(spans, loudness, self._window):
                self._skip(reached, begin, "no voice activity")
                reached = end
                yield begin, end
            self._skip(reached, last, "no voice activity")

    def _skip(self, first: int, last: int, reason: str) -> None:
        if first >= last:
            return
        start, end = first / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND
        if self._skipped and (self._skipped[-1].end, self._skipped[-1].reason) == (start, reason):
            start = self._skipped.pop().start
        self._skipped.append(Skipped(start, end, reason))

    def _detect(self) -> Windows:
        """Finds the language in the first windows: the first that is certain, or the most frequent."""
        options, found = self._options, []
        for number in range(options.language_detection_segments):
            if self._closed and not self._grows:
                if number == len(self._stretches):
                    break
                first, last = self._stretches[number]
            else:
                # openai-whisper encodes the silence after a short recording here, too.
                first, last = number * self._window, (number + 1) * self._window
                yield from self._arrive(0, last)
                if (number or self._grows) and first >= self._recording.frames:
                    break
            job = self._job(first, min(last - first, self._window), _History([]), language=None)
            result = yield dataclasses.replace(job, previous=(), prefix=(), decoded=False)
            found.append(result.probabilities)
            if max(result.probabilities.values()) >= options.language_detection_threshold:
                found = found[-1:]
                break
        if not found:
            return
        likeliest = [next(iter(probabilities)) for probabilities in found]  # they come sorted
        self._language = max(likeliest, key=likeliest.count)
        self._probabilities = found[likeliest.index(self._language)]

    def _windows(self, stretches: Iterable[Stretch | None]) -> Windows:
        """Window after window of some stretches, and their segments."""
        options = self._options
        history = _History(list(self._initial))
        for stretch in stretches:
            if stretch is None:
                yield None
                continue
            first, last = stretch
            if self._closed:
                history.last_speech = max(history.last_speech, first / FRAMES_PER_SECOND)
            seek = first
            while seek < last:
                self._done[first] = seek - first
                frames = (yield from self._arrive(seek, min(seek + self._window, last))) - seek
                if frames <= 0:  # the recording has ended
                    last = seek
                    break
                is_silent = self._is_silent if self._grows else self._is_silent[seek : seek + frames]
                if options.no_speech_threshold is not None and is_silent.all():
                    # A model that is asked what is said there would make something up.
                    self._skip(seek, seek + frames, "silence")
                    seek += frames
                    continue
                job = self._job(seek, frames, history, None if options.multilingual else self._language)
                result = yield job
                if not result.cut.segments:
                    self._skip(seek, seek + frames, f"no speech (probability {result.window.no_speech_prob:.2f})")
                    seek += frames
                    continue
                segments, following = self._segments_of(job, result, history)
                self._note_phrases(seek, following, result.spotted, segments or ())
                for segment in segments or ():
                    yield self._within(segment, last if self._closed else self._length(job))
                    history.said += segment.tokens
                if segments is not None and (not options.condition_on_previous_text or result.window.temperature > 0.5):
                    history.prompt_since = len(history.said)
                if self._closed:
                    following = self._where_speech_goes_on(seek, following, last)
                seek = max(following, seek + 1)
            self._done[first] = last - first

    def _note_phrases(self, seek: int, following: int, spotted: Sequence[Word], segments: Sequence[Segment]) -> None:
        """Keeps the phrases of a window that were heard for sure or written, and that begin before the next window
        does, which has the others, too."""
        began = seek / FRAMES_PER_SECOND
        for phrase in spotted:
            moved = dataclasses.replace(phrase, start=began + phrase.start, end=began + phrase.end)
            is_kept = phrase.probability >= SURE or is_written(moved, segments)
            if is_kept and seek + frames_of(phrase.start) < following:
                self._spotted.append(moved)

    def _job(self, seek: int, frames: int, history: _History, language: str | None) -> WindowJob:
        context = self._contexts.encode(self._request.context)
        if self._options.context_from_history:
            said = self._tokens.text(history.said[len(self._initial) :])
            context = self._contexts.with_history(self._request.context, said)
        return WindowJob(
            recording=self._recording,
            max_log_mel=self._max_log_mel,
            seek=seek,
            frames=frames,
            closed=self._closed,
            context=context,
            options=self._options,
            language=language,
            previous=tuple(self._previous_text(history)),
            prefix=self._prefix if self._stretches and seek == self._stretches[0][0] else (),
            phrases=self._phrases,
        )

    def _initial_tokens(self) -> list[int]:
        prompt = self._options.initial_prompt
        if not prompt:
            return []
        return self._tokens.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def _previous_text(self, history: _History) -> list[int]:
        """The tokens that prompt the next window."""
        always = [] if self._options.prefix else list(self._hotwords)
        said = history.said[history.prompt_since :]
        if self._options.independent_windows:
            said = self._initial
        elif self._options.carry_initial_prompt:
            always += self._initial
            said = history.said[max(len(self._initial), history.prompt_since) :]
        room = self._programs.longest_previous - len(always)
        return [*always, *(said[-room:] if room > 0 else [])]

    def _segments_of(self, job: WindowJob, result: WindowResult, history: _History) -> tuple[list[Segment] | None, int]:
        """A window's segments, empty ones without their text, and the mel frame from which to go on; no segments at
        all where the window is to be decoded again from there."""
        segments, following = result.cut.segments, job.seek + result.cut.frames
        if self._options.word_timestamps:
            segments, following = self._with_words(job, result, history)
        if segments is None:
            return None, following
        if self._closed:
            segments = [segment for segment in segments if not segment.is_empty]
        return [segment.emptied() if segment.is_empty else segment for segment in segments], following

    def _with_words(self, job: WindowJob, result: WindowResult, history: _History) -> tuple[list[Segment] | None, int]:
        """The window's segments with their words, those left out that look invented."""
        options, cut = self._options, result.cut
        began = job.seek / FRAMES_PER_SECOND
        segments = cut.segments
        if result.alignment is not None:
            segments = add_words(
                segments, result.alignment, self._tokens, result.language, began, history.last_speech, options
            )
        following = job.seek + cut.frames
        if not self._closed:
            segments, following = self._past_words(job, cut, segments, following, history.last_speech)
        history.last_speech = last_word_end(segments or ()) or history.last_speech
        return segments, following

    def _past_words(
        self, job: WindowJob, cut: Cut, segments: list[Segment], following: int, last_speech: float
    ) -> tuple[list[Segment] | None, int]:
        """Where the next window begins by the times of words, and the segments that stay."""
        began = job.seek / FRAMES_PER_SECOND
        end = last_word_end(segments)
        goes_by_words = not cut.ends_in_silence and end is not None and end > began
        if goes_by_words:
            following = frames_of(end)
        threshold = self._options.hallucination_silence_threshold
        if threshold is None:
            return segments, following
        window_end = (job.seek + self._window) / FRAMES_PER_SECOND
        if goes_by_words and window_end - end <= threshold:
            following = job.seek + job.frames
        here = Surroundings(
            seek=job.seek,
            began=began,
            ended=window_end,
            length=job.frames / FRAMES_PER_SECOND,
            last_speech=last_speech,
            frames=self._length(job),
            duration=self._length(job) / FRAMES_PER_SECOND,
        )
        kept = skip_hallucinations(segments, following, threshold, here)
        return (None, kept) if isinstance(kept, int) else kept

    def _length(self, job: WindowJob) -> int:
        """Mel frames of the recording; of one that grows, up to where no window's times reach."""
        is_last = not self._grows or job.frames < self._window
        return self._recording.frames if is_last else job.seek + self._programs.frames + self._window

    def _where_speech_goes_on(self, seek: int, following: int, last: int) -> int:
        """The mel frame from which on a window has to be decoded again, because the model stopped before its speech
        did; or the end of its stretch."""
        for begin, end in self._speech:
            begin, end = max(begin, following), min(end, last)
            if end - begin >= DECODED_AGAIN * FRAMES_PER_SECOND and following > seek:
                return begin
        return last

    def _within(self, segment: Segment, last: int) -> Segment:
        """A segment whose times do not reach beyond a mel frame."""
        end = last / FRAMES_PER_SECOND
        if segment.end <= end and all(word.end <= end for word in segment.words or ()):
            return segment
        words = segment.words and tuple(
            dataclasses.replace(word, start=min(word.start, end), end=min(word.end, end)) for word in segment.words
        )
        return dataclasses.replace(segment, start=min(segment.start, end), end=min(segment.end, end), words=words)

    # What others are told.

    def _publish(self) -> None:
        """Tells of the segments that no earlier one can precede any more."""
        done = sum(self._done.values()) / FRAMES_PER_SECOND
        for strand in self._strands:
            for segment in strand.segments:
                segment = dataclasses.replace(segment, id=len(self._segments))
                self._segments.append(segment)
                self._emit(Event(self._request, segment, done, self._total / FRAMES_PER_SECOND))
            strand.segments.clear()
            if strand.job is not None:
                break
        self._emit(Event(self._request, None, done, self._total / FRAMES_PER_SECOND))

    def _finish(self) -> None:
        if self._grows:
            self._recording.check()
        self.finished = True
        transcript = Transcript(
            text=self._tokens.text([token for segment in self._segments for token in segment.tokens]),
            segments=tuple(self._segments),
            language=self._language or "en",
            duration=self._recording.duration,
            language_probabilities=self._probabilities,
            skipped=tuple(sorted(self._skipped, key=lambda one: one.start)),
            phrases=tuple(sorted(self._spotted, key=lambda one: one.start)),
        )
        total = self._total / FRAMES_PER_SECOND
        self._emit(Event(self._request, None, total, total, transcript))


def clips(options: DecodingOptions, frames: int) -> Iterator[tuple[int, int]]:
    """First mel frame of each clip of a recording to transcribe, and the one after its last."""
    points = [frames_of(seconds) for seconds in options.clip_timestamps] or [0]
    if len(points) % 2:
        points.append(frames)
    for first, last in zip(points[::2], points[1::2], strict=True):
        if first < min(last, frames):
            yield first, min(last, frames)
