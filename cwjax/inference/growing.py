"""A recording that still grows: a microphone, a pipe, samples that a program makes.

Windows are decoded while it goes on, so they know nothing of what comes after them: what a recording's level is, how
loud its loudest moment and where the speech in it, is what has been heard so far.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cwjax.data.audio.decode import as_float, mono, piped_audio
from cwjax.data.audio.log_mel import HOP_LENGTH, SAMPLING_RATE
from cwjax.errors import CwjaxError
from cwjax.inference.audio import FRAMES_PER_SECOND, Recording, amplification, as_frames, level, offset

log = logging.getLogger(__name__)

AHEAD = 600
"""Seconds of audio that are taken in before they are asked for, as while a model loads; a source that comes faster has
to wait."""
REMEMBERED = 600
"""Seconds whose levels tell what is speech, noise and silence."""
POLL = 0.02
"""Seconds between looks at what somebody waits for."""
FRAME_BYTES = 4 * HOP_LENGTH
EDGE = 2
"""Mel frames on either side of a window that its spectrogram reaches into."""


class GrowingRecording:
    """A recording whose samples a thread takes in as they come, and forgets behind the window that is decoded.

    Args:
        blocks: samples at 16 kHz, (n,) float32 each; the recording ends with them, or by `end`.
        name: for messages.
    """

    def __init__(self, blocks: Iterable[np.ndarray], name: str = "the recording"):
        self.name = name
        self._samples = bytearray()  # float32; one thread appends, another takes away
        self._first = 0  # mel frame that these begin with
        self._awaited = 0
        self._ended = False
        self._error: BaseException | None = None
        self._levels = np.zeros(0)
        self._levelled = 0  # mel frame up to which they reach
        self._offset: float | None = None
        self._peak, self._gain = 0.0, 1.0
        self._window: Recording | None = None
        threading.Thread(target=self._receive, args=(iter(blocks),), name="cwjax-recording", daemon=True).start()

    @classmethod
    def of(
        cls, source: Any, *, sampling_rate: int = SAMPLING_RATE, pcm: str | None = None, channel: int | None = None
    ) -> "GrowingRecording":
        """A recording of what comes from a source.

        Args:
            source: a binary file that is read as it comes, such as a pipe; or blocks of samples, each (n,) or
                (n, channels), floats in -1..1 or integers of any full scale.
            sampling_rate: of blocks, in hertz; files know theirs.
            pcm: format of a file of samples without a header, see `piped_audio`.
            channel: counted from 0, instead of the mix of all.
        """
        if hasattr(source, "read"):
            return cls(piped_audio(source, pcm, channel), str(getattr(source, "name", "the recording")))
        frames = ((sampling_rate, as_float(as_frames(np.asarray(block)))) for block in source)
        return cls(mono(frames, "the recording", SAMPLING_RATE, channel))

    def _receive(self, blocks: Iterator[np.ndarray]) -> None:
        try:
            for block in blocks:
                if self._ended:
                    return
                self._samples += np.asarray(block, np.float32).tobytes()
                while not self._ended and self.frames > max(self._awaited, self._first + AHEAD * FRAMES_PER_SECOND):
                    time.sleep(POLL)
        except BaseException as error:  # told where the recording is waited for
            self._error = error
        finally:
            self._ended = True

    def end(self) -> None:
        """Takes no more samples; those that have come still count."""
        self._ended = True

    def check(self) -> None:
        """Raises what broke the source off; where that is a fault of the audio, what came before it is enough.

        Raises:
            CwjaxError: nothing came, or no audio.
        """
        error = self._error
        if isinstance(error, CwjaxError) and self.frames:
            log.warning("%s; the %.1f s before are transcribed", error, self.duration)
        elif error is not None:
            raise error
        elif not self._first and not self._samples:
            raise CwjaxError(f"{self.name}: holds no audio")

    @property
    def frames(self) -> int:
        """Whole mel frames of 10 ms so far."""
        return self._first + len(self._samples) // FRAME_BYTES

    @property
    def duration(self) -> float:
        """Seconds so far, in whole frames."""
        return self.frames / FRAMES_PER_SECOND

    def reaches(self, frame: int) -> bool:
        """Whether all that windows up to a mel frame need has come, or nothing more will."""
        self._awaited = frame + EDGE
        return self._ended or self.frames >= frame + EDGE

    def levels(self, last: int) -> np.ndarray:
        """Levels of the mel frames before `last`, of the last ten minutes at most; see `level`."""
        if last > self._levelled:
            samples = self.samples(self._levelled, last)
            if self._offset is None:
                self._offset = offset(samples, self.name)
            self._levels = np.append(self._levels, level(Recording(samples)))[-REMEMBERED * FRAMES_PER_SECOND :]
            peak = float(np.abs(samples - self._offset).max())
            if peak > self._peak:
                self._peak, self._gain = peak, amplification(peak, self.name)
            self._levelled = last
        return self._levels[: len(self._levels) - self._levelled + last]

    def samples(self, first: int, last: int) -> np.ndarray:
        """Samples of some mel frames as they came, (n,) float32; fewer where the recording ends."""
        first, last = ((frame - self._first) * FRAME_BYTES for frame in (first, last))
        return np.frombuffer(bytes(self._samples[first:last]), np.float32)

    def move(self, first: int, last: int) -> None:
        """Goes on to the mel frames from `first` to `last`, and forgets what is before them."""
        self.levels(last)
        begin = max(self._first, first - EDGE)
        del self._samples[: (begin - self._first) * FRAME_BYTES]
        self._first = begin
        samples = self._gain * (self.samples(begin, last + EDGE) - (self._offset or 0))
        self._window = Recording(samples.astype(np.float32), self.name)

    def window(self, first_frame: int, frames: int) -> np.ndarray:
        """As `Recording.window`, of what `move` has gone on to; what comes after that is not heard."""
        return self._window.window(first_frame - self._first, frames)


def opened(audio: Any) -> Recording | GrowingRecording:
    """Audio of any kind as a recording; an iterator of blocks of samples is one that grows.

    Raises:
        CwjaxError: see `Recording.open`; or a recording that grows has been transcribed, and forgotten, before.
    """
    if isinstance(audio, GrowingRecording):
        if audio._first > 0:
            raise CwjaxError(f"{audio.name}: was transcribed while it came, and cannot be heard again")
        return audio
    if hasattr(audio, "__next__") and not hasattr(audio, "read"):
        return GrowingRecording.of(audio)
    return Recording.open(audio)
