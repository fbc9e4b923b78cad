"""Window after window of a recording: what each is to be decoded with, and what its result says.

Each begins where the last finished segment of the one before ended, as in openai-whisper (Radford et al. 2022, section
4.5; openai/whisper, transcribe.py), the reference for quality: no word is cut by the end of a window, and every window
knows the text before it.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace

from cwjax.inference.audio import FRAMES_PER_SECOND, frames_of
from cwjax.inference.contexts import Contexts
from cwjax.inference.hallucinations import Surroundings, skip_hallucinations
from cwjax.inference.history import History
from cwjax.inference.jobs import WindowJob, WindowResult
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrases import SURE, PhraseList, is_written
from cwjax.inference.programs import Programs
from cwjax.inference.stretches import Stretch, Stretches
from cwjax.inference.timing import add_words, last_word_end
from cwjax.inference.transcript import Segment, Word

DECODED_AGAIN = 0.7
"""Seconds of speech after the last timestamp of a window for which it is decoded again from there."""

Steps = Generator[WindowJob | Segment | None, WindowResult | None, None]
"""Yields jobs, for which it is sent results, finished segments, and None where the recording has to grow first."""


class Windows:
    """The windows of a recording.

    Args:
        stretches: of the recording.
        context: what is known about it.
        options: of the recording.
        programs: the model.
        contexts: of the model.
        phrases: to look for.

    Attributes:
        language: code, given or detected; None as long as it is not known.
        probabilities: of all languages, where it was detected.
        spotted: phrases that were heard for sure or written.
        done: mel frames of each stretch that are done, by its first one.
    """

    def __init__(
        self,
        stretches: Stretches,
        context: str,
        options: DecodingOptions,
        programs: Programs,
        contexts: Contexts,
        phrases: PhraseList | None,
    ):
        self.probabilities: dict[str, float] = {}
        self.spotted: list[Word] = []
        self.done: dict[int, int] = {}
        self._stretches, self._context, self._options = stretches, context, options
        self._programs, self._tokens, self._contexts, self._phrases = programs, programs.tokens, contexts, phrases
        self._prefix = tuple(self._tokens.encode(options.prefix)) if options.prefix else ()
        self.language = self._tokens.language_code(options.language) if options.language else None
        if self.language is None and not self._tokens.is_multilingual:
            self.language, self.probabilities = "en", {"en": 1.0}

    def detect(self) -> Steps:
        """Finds the language in the first windows: the first that is certain, or the most frequent."""
        found: list[dict[str, float]] = []
        for number in range(self._options.language_detection_segments):
            stretch = yield from self._stretches.to_detect(number)
            if stretch is None:
                break
            first, last = stretch
            job = self._job(first, last - first, self._new_history(), language=None)
            result = yield replace(job, previous=(), prefix=(), decoded=False)
            found.append(result.probabilities)
            if max(result.probabilities.values()) >= self._options.language_detection_threshold:
                found = found[-1:]
                break
        if found:
            likeliest = [next(iter(probabilities)) for probabilities in found]  # they come sorted
            self.language = max(likeliest, key=likeliest.count)
            self.probabilities = found[likeliest.index(self.language)]

    def follow(self, stretches: Iterable[Stretch | None]) -> Steps:
        """The windows of some stretches and their segments."""
        history = self._new_history()
        for stretch in stretches:
            if stretch is None:
                yield None
            else:
                yield from self._through(*stretch, history)

    def _through(self, first: int, last: int, history: History) -> Steps:
        """The windows of a stretch and their segments."""
        stretches, options = self._stretches, self._options
        if stretches.closed:
            history.last_speech = max(history.last_speech, first / FRAMES_PER_SECOND)
        seek = first
        while seek < last:
            self.done[first] = seek - first
            reached = yield from stretches.reach(seek, min(seek + stretches.longest, last))
            if reached <= seek:  # the recording has ended
                last = seek
                break
            if options.no_speech_threshold is not None and stretches.are_silent(seek, reached):
                # A model that is asked what is said there would make something up.
                stretches.skip(seek, reached, "silence")
                seek = reached
                continue
            job = self._job(seek, reached - seek, history, None if options.multilingual else self.language)
            result = yield job
            if not result.cut.segments:
                stretches.skip(seek, reached, f"no speech (probability {result.window.no_speech_prob:.2f})")
                seek = reached
                continue
            segments, following = self._segments(job, result, history)
            self._note_phrases(seek, following, result.spotted, segments or ())
            end = last if stretches.closed else stretches.end_after(seek, job.frames)
            yield from (segment.until(end / FRAMES_PER_SECOND) for segment in segments or ())
            if segments is not None:
                history.add(segments, result.window)
            if stretches.closed:
                following = stretches.speech_after(following, last, DECODED_AGAIN) if following > seek else last
            seek = max(following, seek + 1)
        self.done[first] = last - first

    def _new_history(self) -> History:
        return History(self._options, self._tokens, self._programs.longest_previous)

    def _job(self, seek: int, frames: int, history: History, language: str | None) -> WindowJob:
        stretches = self._stretches
        if self._options.context_from_history:
            context = self._contexts.with_history(self._context, history.text)
        else:
            context = self._contexts.encode(self._context)
        return WindowJob(
            recording=stretches.recording,
            max_log_mel=stretches.max_log_mel,
            seek=seek,
            frames=frames,
            closed=stretches.closed,
            context=context,
            options=self._options,
            language=language,
            previous=history.previous(),
            prefix=self._prefix if stretches.found and seek == stretches.found[0][0] else (),
            phrases=self._phrases,
        )

    def _note_phrases(self, seek: int, following: int, spotted: Sequence[Word], segments: Sequence[Segment]) -> None:
        """Keeps the phrases of a window that were heard for sure or written, and that begin before the next window
        does, which has the others, too."""
        began = seek / FRAMES_PER_SECOND
        for phrase in spotted:
            moved = replace(phrase, start=began + phrase.start, end=began + phrase.end)
            is_kept = phrase.probability >= SURE or is_written(moved, segments)
            if is_kept and seek + frames_of(phrase.start) < following:
                self.spotted.append(moved)

    def _segments(self, job: WindowJob, result: WindowResult, history: History) -> tuple[list[Segment] | None, int]:
        """A window's segments, empty ones without their text, and the mel frame from which to go on; no segments at
        all where the window is to be decoded again from there."""
        segments, following = result.cut.segments, job.seek + result.cut.frames
        if self._options.word_timestamps:
            if result.alignment is not None:
                segments = add_words(
                    segments,
                    result.alignment,
                    self._tokens,
                    result.language,
                    job.seek / FRAMES_PER_SECOND,
                    history.last_speech,
                    self._options,
                )
            if not job.closed:
                segments, following = self._past_words(job, result, segments, history.last_speech)
            history.last_speech = last_word_end(segments or ()) or history.last_speech
        if segments is None:
            return None, following
        kept = segments if not job.closed else [segment for segment in segments if not segment.is_empty]
        return [segment.emptied() if segment.is_empty else segment for segment in kept], following

    def _past_words(
        self, job: WindowJob, result: WindowResult, segments: list[Segment], last_speech: float
    ) -> tuple[list[Segment] | None, int]:
        """Where the next window begins by the times of words, and the segments that stay: not those that look
        invented."""
        began, following = job.seek / FRAMES_PER_SECOND, job.seek + result.cut.frames
        window_end = (job.seek + self._stretches.longest) / FRAMES_PER_SECOND
        threshold, end = self._options.hallucination_silence_threshold, last_word_end(segments)
        if not result.cut.ends_in_silence and end is not None and end > began:
            is_full = threshold is not None and window_end - end <= threshold
            following = job.seek + job.frames if is_full else frames_of(end)
        if threshold is None:
            return segments, following
        frames = self._stretches.end_after(job.seek, job.frames)
        here = Surroundings(
            seek=job.seek,
            began=began,
            ended=window_end,
            length=job.frames / FRAMES_PER_SECOND,
            last_speech=last_speech,
            frames=frames,
            duration=frames / FRAMES_PER_SECOND,
        )
        kept = skip_hallucinations(segments, following, threshold, here)
        return (None, kept) if isinstance(kept, int) else kept
