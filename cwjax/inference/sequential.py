"""A long recording window by window, each beginning where the last finished segment of the one before ended.

The algorithm is openai-whisper's (Radford et al. 2022, section 4.5; openai/whisper, transcribe.py), the reference for
quality: no word is cut by the end of a window, and every window knows the text before it.
"""

from collections.abc import Callable, Iterator

from cwjax.inference.decoding import Heard
from cwjax.inference.decoding_options import DecodingOptions
from cwjax.inference.fallback import decode_with_fallback, is_silent
from cwjax.inference.hallucinations import Surroundings, last_word_end, skip_hallucinations
from cwjax.inference.recognizer import Recognizer
from cwjax.inference.recording import FRAMES_PER_SECOND, Recording, frames_of
from cwjax.inference.segments import Cut, Draft, cut_into_segments
from cwjax.inference.transcript import TranscribedSegment, Transcript
from cwjax.inference.voice_activity import INAUDIBLE, level
from cwjax.inference.words import add_words, time_words
from cwjax.models.audio_encoder import ProjectedContext

Progress = Callable[[float, float], None]
"""Is told the seconds done and the seconds in all."""
ContextAfter = Callable[[str], ProjectedContext | None]
"""The context of a window, given the text before it."""


class SequentialTranscription:
    """The transcription of one recording.

    Args:
        recognizer: the model.
        recording: to transcribe.
        context_after: says what is known in a window.
        options: how.
    """

    def __init__(
        self, recognizer: Recognizer, recording: Recording, context_after: ContextAfter, options: DecodingOptions
    ):
        self._recognizer = recognizer
        self._tokens = recognizer.tokens
        self._recording = recording
        self._context_after = context_after
        self._options = options
        self._loudest = recognizer.loudest(recording)
        self._level = level(recording)
        self._segments: list[TranscribedSegment] = []
        self._initial = self._tokens.encode(options.initial_prompt) if options.initial_prompt else []
        self._said = list(self._initial)  # with the initial prompt, as if it had been said before
        self._prompt_since = 0
        self._last_speech = 0.0
        self._language = ""

    def run(self, progress: Progress | None = None) -> Transcript:
        """Transcribes the whole recording."""
        options, recording = self._options, self._recording
        self._language = self._tokens.language_code(options.language) if options.language else self._detect()
        for seek, end in clips(options, recording.frames):
            while seek < end:
                following = self._transcribe_window(seek, min(self._recognizer.frames, end - seek))
                seek = max(following, seek + 1)
                if progress is not None:
                    progress(min(seek, recording.frames) / FRAMES_PER_SECOND, recording.duration)
        text = self._tokens.text(self._said[len(self._initial) :])
        return Transcript(text, tuple(self._segments), self._language)

    def _detect(self) -> str:
        """The likeliest language of the first window."""
        if not self._tokens.is_multilingual:
            return "en"
        # openai-whisper hears the silence behind a short recording here, too.
        probabilities = self._recognizer.language_probabilities(self._hear(0, self._recognizer.frames))[0]
        return max(probabilities, key=probabilities.__getitem__)

    def _hear(self, seek: int, frames: int) -> Heard:
        context = self._context_after(self._tokens.text(self._said[len(self._initial) :]))
        samples = self._recording.window(seek, self._recognizer.frames)[None]
        return self._recognizer.hear(samples, [self._loudest], [frames], context, self._options.context_scale)

    def _transcribe_window(self, seek: int, frames: int) -> int:
        """Transcribes the `frames` mel frames from `seek` on, and says from which to go on."""
        options = self._options
        if options.no_speech_threshold is not None and (self._level[seek : seek + frames] < INAUDIBLE).all():
            return seek + frames  # a model asked what it hears there would make something up
        heard = self._hear(seek, frames)
        prompt = self._previous_text()
        window = decode_with_fallback(self._recognizer, heard, [self._language], [prompt], options, [seek])[0]
        if is_silent(window, options):
            return seek + frames
        cut = cut_into_segments(window.tokens, self._tokens, seek, frames)
        drafts, following = cut.drafts, seek + cut.frames
        if options.word_timestamps:
            timed = self._time_words(heard, cut, seek, frames)
            if isinstance(timed, int):
                return timed
            drafts, following = timed
        for draft in drafts:
            self._segments.append(draft.finish(len(self._segments), seek, window))
            self._said += self._segments[-1].tokens
        if not options.condition_on_previous_text or window.temperature > 0.5:
            self._prompt_since = len(self._said)
        return following

    def _previous_text(self) -> list[int]:
        """The tokens that prompt the next window."""
        if not self._options.carry_initial_prompt:
            return self._said[self._prompt_since :]
        room = self._recognizer.longest_previous - len(self._initial)
        said = self._said[max(len(self._initial), self._prompt_since) :]
        return [*self._initial, *(said[-room:] if room > 0 else [])]

    def _time_words(self, heard: Heard, cut: Cut, seek: int, frames: int) -> tuple[list[Draft], int] | int:
        """Gives the window's segments their words.

        Returns:
            The segments that stay, and the mel frame where the next window begins; or only that, if nothing stays.
        """
        options, drafts = self._options, cut.drafts
        add_word_times(
            self._recognizer, heard, [drafts], [self._language], [seek], [frames], [self._last_speech], options
        )
        began = seek / FRAMES_PER_SECOND
        following = seek + cut.frames
        end = last_word_end(drafts)
        goes_by_words = not cut.ends_in_silence and end is not None and end > began
        if goes_by_words:
            following = frames_of(end)
        threshold = options.hallucination_silence_threshold
        if threshold is not None:
            window_end = (seek + self._recognizer.frames) / FRAMES_PER_SECOND
            if goes_by_words and window_end - end <= threshold:
                following = seek + frames
            here = Surroundings(
                seek=seek,
                began=began,
                ended=window_end,
                heard=frames / FRAMES_PER_SECOND,
                last_speech=self._last_speech,
                frames=self._recording.frames,
                duration=self._recording.duration,
            )
            kept = skip_hallucinations(drafts, following, threshold, here)
            if isinstance(kept, int):
                return kept
            drafts, following = kept
        end = last_word_end(drafts)
        if end is not None:
            self._last_speech = end
        return drafts, following


def add_word_times(
    recognizer: Recognizer,
    heard: Heard,
    windows: list[list[Draft]],
    languages: list[str],
    seeks: list[int],
    frames: list[int],
    last_speech: list[float],
    options: DecodingOptions,
) -> None:
    """Finds the words of windows and when they were said, and gives them to the segments.

    Args:
        recognizer: the model.
        heard: the windows.
        windows: the segments of each, changed in place.
        languages: code of each.
        seeks: mel frame where each begins.
        frames: mel frames of each that were heard.
        last_speech: seconds where the last word before each ended.
        options: task and punctuation.
    """
    end_of_text = recognizer.tokens.end_of_text
    texts = [[[token for token in draft.tokens if token < end_of_text] for draft in drafts] for drafts in windows]
    joined = [[token for text in parts for token in text] for parts in texts]
    alignments = recognizer.align(heard, languages, joined, frames, options.task)
    for row, (drafts, alignment) in enumerate(zip(windows, alignments, strict=True)):
        words = time_words(joined[row], alignment, recognizer.tokens, languages[row])
        add_words(
            drafts,
            words,
            [len(text) for text in texts[row]],
            seeks[row] / FRAMES_PER_SECOND,
            last_speech[row],
            options.prepend_punctuations,
            options.append_punctuations,
        )


def clips(options: DecodingOptions, frames: int) -> Iterator[tuple[int, int]]:
    """First mel frame of each stretch to transcribe, and the one behind its last."""
    points = [frames_of(seconds) for seconds in options.clip_timestamps] or [0]
    if len(points) % 2:
        points.append(frames)
    for first, last in zip(points[::2], points[1::2], strict=True):
        if first < min(last, frames):
            yield first, min(last, frames)
