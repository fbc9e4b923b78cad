"""Which stretches of a recording are transcribed: its clips, or what of them lies between pauses; the rest is skipped.

Of a complete recording all is known before the first window. Of one that grows nothing is known but what has come.
"""

from collections.abc import Generator, Iterator

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
from cwjax.inference.growing import GrowingRecording
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import Programs
from cwjax.inference.transcript import Skipped

FOREVER = 1 << 40
"""Mel frames of a recording that grows."""
PAUSE, STEP = 100, 50
"""Mel frames after which a pause ends a window of a recording that grows, and between looks for one."""

Stretch = tuple[int, int]
"""First mel frame of what is to be transcribed, and the one after its last."""


class Stretches:
    """The stretches of a complete recording, and what its windows have to know of it.

    Args:
        recording: to be transcribed.
        programs: the model.
        options: of the recording.
        longest: mel frames of a window.

    Attributes:
        closed: whether stretches end in pauses.
        found: the stretches so far.
        speech: where there is speech, if they end in pauses.
        skipped: what is left out.
        max_log_mel: of the recording, as far as it has come.
        total: mel frames that are to be done.
    """

    _step = FOREVER

    def __init__(
        self, recording: Recording | GrowingRecording, programs: Programs, options: DecodingOptions, longest: int
    ):
        self.recording, self.longest = recording, longest
        self.closed = options.independent_windows or options.vad != "none"
        self.found: list[Stretch] = []
        self.speech: list[Stretch] = []
        self.skipped: list[Skipped] = []
        self.total = 0
        self._programs, self._options = programs, options
        self._detector = "energy" if options.vad == "none" else options.vad
        self._begin()

    def _begin(self) -> None:
        self._levels = level(self.recording)
        self._silent = silent_frames(self._levels)
        if self.closed:
            self.speech = speech_spans(self._levels, voice(self.recording, self._detector))
        self.max_log_mel = self._programs.max_log_mel(self.recording)
        self.found = list(self._cut(self.recording.frames))
        self.total = sum(last - first for first, last in self.found)

    def strands(self) -> list[Iterator[Stretch | None]]:
        """Those that follow each other together; None where the recording has to grow first."""
        if self._options.independent_windows:
            return [iter([stretch]) for stretch in self.found]
        return [iter(self.found)]

    def reach(self, first: int, last: int) -> Generator[None, None, int]:
        """Waits until some mel frames have come, all from `first` on being needed still; how far they reach."""
        yield from ()
        return last

    def are_silent(self, first: int, last: int) -> bool:
        """Whether nothing sounds in mel frames that have been reached."""
        return bool(self._silent[first:last].all())

    def to_detect(self, number: int) -> Generator[None, None, Stretch | None]:
        """The mel frames of the window of that number in which to look for the language."""
        if self.closed or not self.found:
            return self.found[number] if number < len(self.found) else None
        # openai-whisper encodes the silence after a short recording here, too.
        first = number * self.longest
        yield from self.reach(0, first + self.longest)
        return (first, first + self.longest) if not number or first < self.recording.frames else None

    def end_after(self, seek: int, frames: int) -> int:
        """Mel frames of the recording that a window is in; of one that grows, up to where no window's times reach."""
        return self.recording.frames

    def speech_after(self, following: int, last: int, shortest: float) -> int:
        """Where from a mel frame on there is speech again for so many seconds, or else `last`."""
        for begin, end in self.speech:
            begin, end = max(begin, following), min(end, last)
            if end - begin >= shortest * FRAMES_PER_SECOND:
                return begin
        return last

    def skip(self, first: int, last: int, reason: str) -> None:
        """Notes that some mel frames are left out."""
        if first >= last:
            return
        start, end = first / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND
        if self.skipped and (self.skipped[-1].end, self.skipped[-1].reason) == (start, reason):
            start = self.skipped.pop().start
        self.skipped.append(Skipped(start, end, reason))

    def _cut(self, frames: int) -> Iterator[Stretch | None]:
        """The stretches of a recording of so many mel frames."""
        for clip in clips(self._options, frames):
            yield from self._between_pauses(*clip) if self.closed else [clip]

    def _between_pauses(self, first: int, last: int) -> Iterator[Stretch | None]:
        """Stretches of speech that fit into a window, each as soon as a pause ends it or the window is full."""
        reached = done = first
        while reached < last:
            reached = min(reached + self._step, last)
            while not self.recording.reaches(reached):
                yield None
            if self.recording.frames < reached:
                reached = last = self.recording.frames
            levels, spans = self._speech_between(done, reached)
            windows = pack_windows(spans, levels, self.longest, reached - len(levels))
            goes_on = reached < last and windows and reached - windows[-1][1] < PAUSE and windows.pop()
            for begin, end in windows:
                self.skip(done, begin, "no voice activity")
                done = end
                yield begin, end
            quiet = reached - PAUSE if reached < last else last
            if not goes_on and quiet > done:
                self.skip(done, quiet, "no voice activity")
                done = quiet
                self.recording.move(done, reached)

    def _speech_between(self, done: int, reached: int) -> tuple[np.ndarray, list[Stretch]]:
        """The levels of the mel frames before `reached`, and the speech from `done` to there."""
        spans = [(max(begin, done), min(end, reached)) for begin, end in self.speech if begin < reached and end > done]
        return self._levels[:reached], spans


class GrowingStretches(Stretches):
    """The stretches of a recording that grows."""

    _step = STEP

    def _begin(self) -> None:
        self.max_log_mel = -np.inf

    def strands(self) -> list[Iterator[Stretch | None]]:
        """All in one: they are not known beforehand."""
        return [self._coming()]

    def _coming(self) -> Iterator[Stretch | None]:
        for stretch in self._cut(FOREVER):
            if stretch is not None:
                self.found.append(stretch)
            yield stretch

    def reach(self, first: int, last: int) -> Generator[None, None, int]:
        """As of a complete one."""
        while not self.recording.reaches(last):
            yield
        last = min(last, self.recording.frames)
        if last > first:
            self.recording.move(first, last)
            self.max_log_mel = max(self.max_log_mel, self._programs.max_log_mel(self.recording, first, last))
            self.total = self.recording.frames
        return last

    def are_silent(self, first: int, last: int) -> bool:
        """Whether nothing sounds there, compared with what has come."""
        return bool(silent_frames(self.recording.levels(last))[first - last :].all())

    def to_detect(self, number: int) -> Generator[None, None, Stretch | None]:
        """As of a complete one without pauses, as far as it goes."""
        first = number * self.longest
        yield from self.reach(0, first + self.longest)
        return (first, first + self.longest) if first < self.recording.frames else None

    def end_after(self, seek: int, frames: int) -> int:
        """Where it ends, or else what no window's times reach."""
        return self.recording.frames if frames < self.longest else seek + self._programs.frames + self.longest

    def _speech_between(self, done: int, reached: int) -> tuple[np.ndarray, list[Stretch]]:
        levels, likely = self.recording.levels(reached), None
        began = reached - len(levels)
        if self._detector != "energy":
            likely = voice(Recording(self.recording.samples(done, reached)), self._detector)
            likely = np.append(np.zeros(done - began), likely)
        spans = [(max(begin + began, done), end + began) for begin, end in speech_spans(levels, likely)]
        self.speech = [span for span in spans if span[1] - span[0] > PADDING * FRAMES_PER_SECOND]
        return levels, self.speech


def clips(options: DecodingOptions, frames: int) -> Iterator[Stretch]:
    """The clips of a recording that are to be transcribed."""
    points = [frames_of(seconds) for seconds in options.clip_timestamps] or [0]
    if len(points) % 2:
        points.append(frames)
    for first, last in zip(points[::2], points[1::2], strict=True):
        if first < min(last, frames):
            yield first, min(last, frames)
