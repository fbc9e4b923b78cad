"""A recording of any length as Whisper hears it: windows of its log-mel spectrogram.

Legend: B windows, F mel frames of a window, M mels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cwjax.data.audio import read_audio
from cwjax.data.log_mel import HOP_LENGTH, MARGIN, SAMPLING_RATE
from cwjax.errors import CwjaxError

FRAMES_PER_SECOND = SAMPLING_RATE // HOP_LENGTH


@dataclass(frozen=True)
class Recording:
    """The samples of a whole recording; spectrograms are made window by window and not kept.

    Attributes:
        samples: (n,) float32 at 16 kHz.
        name: of the file, for messages.
    """

    samples: np.ndarray
    name: str = "the recording"

    @classmethod
    def open(cls, audio: str | Path | np.ndarray) -> "Recording":
        """Reads a file, or takes samples at 16 kHz.

        Raises:
            CwjaxError: the file cannot be read, or the samples are no mono float signal of finite numbers.
        """
        if isinstance(audio, str | Path):
            return cls(read_audio(audio), str(audio))
        samples = np.asarray(audio)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise CwjaxError(
                f"the recording is an array of shape {samples.shape} and type {samples.dtype}: "
                "give mono samples, (n,) float32 in -1..1 at 16 kHz"
            )
        if not len(samples):
            raise CwjaxError("the recording holds no samples")
        if not np.isfinite([samples.min(), samples.max()]).all():  # without an array as long as the recording
            raise CwjaxError("the recording holds samples that are not finite numbers")
        return cls(samples.astype(np.float32, copy=False))

    @property
    def frames(self) -> int:
        """Whole mel frames of 10 ms."""
        return len(self.samples) // HOP_LENGTH

    @property
    def duration(self) -> float:
        """Seconds, in whole frames."""
        return self.frames / FRAMES_PER_SECOND

    def window(self, first_frame: int, frames: int) -> np.ndarray:
        """The samples of F = `frames` mel frames and a margin of 200 on either side, (160 F + 400,).

        Before the recording stands its mirror image, as in Whisper's spectrogram, and behind it silence.
        """
        first = first_frame * HOP_LENGTH - MARGIN
        last = first + frames * HOP_LENGTH + 2 * MARGIN
        inside = self.samples[max(first, 0) : last]
        if first < 0:
            beginning = self.samples[1 : MARGIN + 1]
            mirrored = np.pad(beginning, (0, MARGIN - len(beginning)))[::-1]
            inside = np.concatenate([mirrored[first:], inside])
        return np.pad(inside, (0, last - first - len(inside)))


def frames_of(seconds: float) -> int:
    """The mel frame nearest to a time."""
    return round(seconds * FRAMES_PER_SECOND)
