"""Many windows of many recordings at once: the way to speed.

Recordings are cut in their pauses into windows that do not depend on each other, so that they can be decoded side by
side. What is given up is the text before each window; timestamps within windows are used as they are.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.inference.contexts import stack_contexts
from cwjax.inference.decoding import Heard
from cwjax.inference.decoding_options import DecodingOptions
from cwjax.inference.fallback import decode_with_fallback, is_silent
from cwjax.inference.recognizer import DecodedWindow, Recognizer
from cwjax.inference.recording import FRAMES_PER_SECOND, Recording
from cwjax.inference.segments import Draft, cut_into_segments
from cwjax.inference.sequential import Progress, add_word_times, clips
from cwjax.inference.transcript import TranscribedSegment, Transcript
from cwjax.inference.voice_activity import level, pack_windows, speech_spans
from cwjax.models.audio_encoder import ProjectedContext

UNPROMPTED = ("context_from_history", "hallucination_silence_threshold")
"""Options that need one window after the other."""


class Window(NamedTuple):
    """A stretch of a recording that is decoded at once.

    Attributes:
        recording: its number.
        seek: its first mel frame.
        frames: mel frames of it.
    """

    recording: int
    seek: int
    frames: int


class BatchedTranscription:
    """The transcription of several recordings.

    Args:
        recognizer: the model.
        recordings: to transcribe.
        contexts: of each.
        options: how; `condition_on_previous_text` has no meaning here, and `initial_prompt` is given to every window.
        batch_size: windows at once.

    Raises:
        CwjaxError: an option needs one window after the other.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        recordings: Sequence[Recording],
        contexts: Sequence[ProjectedContext | None],
        options: DecodingOptions,
        batch_size: int,
    ):
        for name in UNPROMPTED:
            if getattr(options, name):
                raise CwjaxError(
                    f"{name} needs one window after the other: leave it out, or transcribe sequentially, which takes a "
                    "model that has learned timestamps"
                )
        if batch_size < 1:
            raise CwjaxError(f"batch_size is {batch_size}: it must be at least 1")
        self._recognizer = recognizer
        self._recordings = recordings
        self._contexts = contexts
        self._options = options
        self._batch_size = batch_size
        self._loudest = [recognizer.loudest(recording) for recording in recordings]
        self._prompt = recognizer.tokens.encode(options.initial_prompt) if options.initial_prompt else []

    def run(self, progress: Progress | None = None) -> list[Transcript]:
        """Transcribes all recordings; their transcripts in their order."""
        windows = [
            Window(number, first, last - first)
            for number, recording in enumerate(self._recordings)
            for first, last in self._windows_of(recording)
        ]
        languages = self._languages(windows)
        segments: list[list[TranscribedSegment]] = [[] for _ in self._recordings]
        total = sum(window.frames for window in windows) / FRAMES_PER_SECOND
        done = 0.0
        for batch, heard in self._batches(windows):
            for window, finished in zip(batch, self._transcribe(batch, heard, languages), strict=True):
                for draft, decoded in finished:
                    number = len(segments[window.recording])
                    segments[window.recording].append(draft.finish(number, window.seek, decoded))
                done += window.frames / FRAMES_PER_SECOND
            if progress is not None:
                progress(done, total)
        return [
            Transcript(
                self._recognizer.tokens.text([token for segment in parts for token in segment.tokens]),
                tuple(parts),
                language,
            )
            for parts, language in zip(segments, languages, strict=True)
        ]

    def _windows_of(self, recording: Recording) -> Iterator[tuple[int, int]]:
        loudness = level(recording)
        for first, last in clips(self._options, recording.frames):
            part = loudness[first:last]
            for begin, end in pack_windows(speech_spans(part), part, self._recognizer.frames):
                yield first + begin, first + end

    def _languages(self, windows: Sequence[Window]) -> list[str]:
        """The language of each recording, by its first window if it is not given."""
        options, tokens = self._options, self._recognizer.tokens
        if options.language is not None or not tokens.is_multilingual:
            return [tokens.language_code(options.language or "en")] * len(self._recordings)
        languages = ["en"] * len(self._recordings)  # for those without speech
        firsts = {window.recording: window for window in reversed(windows)}
        for batch, heard in self._batches([firsts[number] for number in sorted(firsts)]):
            for window, probabilities in zip(batch, self._recognizer.language_probabilities(heard), strict=False):
                languages[window.recording] = max(probabilities, key=probabilities.__getitem__)
        return languages

    def _batches(self, windows: Sequence[Window]) -> Iterator[tuple[Sequence[Window], Heard]]:
        """The windows in batches and what is heard in them, each batch filled up with its last window.

        The samples of the next batch are put together while one is decoded.
        """
        if not windows:
            return
        size = min(self._batch_size, 1 << math.ceil(math.log2(len(windows))))
        batches = [windows[first : first + size] for first in range(0, len(windows), size)]
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(self._samples, batches[0], size)
            for number, batch in enumerate(batches):
                samples = following.result()
                if number + 1 < len(batches):
                    following = ahead.submit(self._samples, batches[number + 1], size)
                filled = _filled(batch, size)
                yield (
                    batch,
                    self._recognizer.hear(
                        samples,
                        [self._loudest[window.recording] for window in filled],
                        [window.frames for window in filled],
                        stack_contexts([self._contexts[window.recording] for window in filled]),
                        self._options.context_scale,
                        then_silence=True,
                    ),
                )

    def _samples(self, batch: Sequence[Window], size: int) -> np.ndarray:
        frames = self._recognizer.frames
        return np.stack([self._recordings[one.recording].window(one.seek, frames) for one in _filled(batch, size)])

    def _transcribe(
        self, batch: Sequence[Window], heard: Heard, languages: Sequence[str]
    ) -> list[list[tuple[Draft, DecodedWindow]]]:
        """The segments of each window of a batch."""
        options, recognizer = self._options, self._recognizer
        filled = _filled(batch, heard.audio.value[0].shape[0] // (1 if heard.scale is None else 2))
        spoken = [languages[window.recording] for window in filled]
        seeds = [window.seek for window in filled]
        decoded = decode_with_fallback(recognizer, heard, spoken, [self._prompt] * len(filled), options, seeds)
        drafts = [self._segments_of(window, text) for window, text in zip(filled, decoded, strict=True)]
        if options.word_timestamps:
            seeks, frames = [window.seek for window in filled], [window.frames for window in filled]
            began = [seek / FRAMES_PER_SECOND for seek in seeks]
            add_word_times(recognizer, heard, drafts, spoken, seeks, frames, began, options)
        return [
            [(draft, text) for draft in parts if not draft.is_empty]
            for parts, text in zip(drafts[: len(batch)], decoded, strict=False)
        ]

    def _segments_of(self, window: Window, decoded: DecodedWindow) -> list[Draft]:
        """A window's segments, none in silence; they end with the window, where the next one may begin."""
        if is_silent(decoded, self._options):
            return []
        cut = cut_into_segments(decoded.tokens, self._recognizer.tokens, window.seek, window.frames)
        drafts = cut.drafts + ([cut.rest] if cut.rest else [])
        ended = (window.seek + window.frames) / FRAMES_PER_SECOND
        for draft in drafts:
            draft.start, draft.end = min(draft.start, ended), min(draft.end, ended)
        return drafts


def _filled(batch: Sequence[Window], size: int) -> list[Window]:
    return [*batch, *[batch[-1]] * (size - len(batch))]
