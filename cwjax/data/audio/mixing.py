"""Noises and rooms of the user's, mixed into training audio on the host."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy.signal import oaconvolve

from cwjax.data.audio.decode import audio_duration
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

LONGEST_RESPONSE = 2.0
"""Seconds of a room's impulse response that are used."""

Files = Sequence[tuple[Path, float]]
"""Audio files and their lengths in seconds."""


@dataclass(frozen=True)
class MixingSettings:
    """Folders of sounds, and how often and how loud they are mixed in."""

    noise: str = ""
    """Folder of noises (any formats that libsndfile reads, folders in it too), such as MUSAN's; empty: none."""
    noise_share: float = 0.5
    """Share of training examples with a noise."""
    signal_to_noise: tuple[float, float] = (5.0, 30.0)
    """Lowest and highest ratio of speech to noise, in decibels."""
    rooms: str = ""
    """Folder of rooms' impulse responses; empty: none."""
    rooms_share: float = 0.3
    """Share of training examples that are heard in a room."""

    def __post_init__(self) -> None:
        for name in ("noise_share", "rooms_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise CwjaxError(f"data.mixing.{name} is {getattr(self, name)}: use a share in 0..1")
        if self.signal_to_noise[0] > self.signal_to_noise[1]:
            raise CwjaxError(f"data.mixing.signal_to_noise is {self.signal_to_noise}: give the lower ratio first")


@dataclass(frozen=True)
class Mixer:
    """Puts speech into rooms and noise, each by chance.

    Attributes:
        settings: how often and how loud.
        noises, rooms: files found in the settings' folders.
    """

    settings: MixingSettings
    noises: Files
    rooms: Files

    @classmethod
    def open(cls, settings: MixingSettings) -> "Mixer | None":
        """Looks through the folders; None if none is set.

        Raises:
            CwjaxError: a folder is missing or holds no audio.
        """
        if not (settings.noise or settings.rooms):
            return None
        return cls(settings, _files(settings.noise, "data.mixing.noise"), _files(settings.rooms, "data.mixing.rooms"))

    def __call__(self, samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Mixes (n,) float32 samples at 16 kHz; the speech keeps its length, its time and about its loudness."""
        if self.rooms and generator.random() < self.settings.rooms_share:
            path, _ = self.rooms[generator.integers(len(self.rooms))]
            samples = reverberate(samples, _impulse_response(path))
        if self.noises and generator.random() < self.settings.noise_share:
            path, seconds = self.noises[generator.integers(len(self.noises))]
            start = generator.random() * max(0.0, seconds - len(samples) / SAMPLING_RATE)
            noise = _excerpt(path, start, len(samples))
            samples = add_noise(samples, noise, generator.uniform(*self.settings.signal_to_noise))
        return samples


def add_noise(samples: np.ndarray, noise: np.ndarray, signal_to_noise: float) -> np.ndarray:
    """Speech with a noise behind it.

    Args:
        samples: (n,) float32.
        noise: (m,) float32; a shorter one is repeated.
        signal_to_noise: ratio of their mean powers in decibels.
    """
    noise = np.resize(noise, len(samples))
    speech_power, noise_power = (float(np.mean(np.square(one, dtype=np.float64))) for one in (samples, noise))
    if not noise_power:
        return samples
    return samples + noise * np.float32(np.sqrt(speech_power / noise_power / 10 ** (signal_to_noise / 10)))


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Speech as it sounds in a room.

    Args:
        samples: (n,) float32.
        response: (m,) float32, the room's impulse response from the direct sound on.

    Returns:
        (n,) float32 of the same mean power; what sounds on beyond the end is cut off.
    """
    heard = oaconvolve(samples, response)[: len(samples)]
    power, heard_power = (float(np.mean(np.square(one, dtype=np.float64))) for one in (samples, heard))
    return (heard * np.sqrt(power / heard_power) if heard_power else heard).astype(np.float32)


def _files(folder: str, option: str) -> Files:
    if not folder:
        return ()
    if not Path(folder).is_dir():
        raise CwjaxError(f"{folder}: no such folder ({option})")
    formats = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".opus"}
    found, damaged = [], 0
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in formats and path.is_file():
            try:
                found.append((path, audio_duration(path)))
            except CwjaxError as error:
                log.debug("%s", error)
                damaged += 1
    if damaged:
        log.warning("%s: %d files cannot be read as audio and are not used (%s)", folder, damaged, option)
    if not found:
        raise CwjaxError(f"{folder}: holds no audio ({option})")
    return tuple(found)


def _excerpt(path: Path, start: float, length: int) -> np.ndarray:
    """A stretch of a file from `start` seconds on, at most `length` samples at 16 kHz."""
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(min(int(start * file.samplerate), file.frames - 1))
            block = file.read(int(np.ceil(length / SAMPLING_RATE * file.samplerate)), dtype="float32", always_2d=True)
            rate = file.samplerate
    except (OSError, soundfile.LibsndfileError) as error:
        raise CwjaxError(f"{path}: cannot be read ({error}); put it back, or take it out of the folder") from error
    mono = block.mean(axis=1)
    return (mono if rate == SAMPLING_RATE else soxr.resample(mono, rate, SAMPLING_RATE))[:length]


@lru_cache(maxsize=256)
def _impulse_response(path: Path) -> np.ndarray:
    """From the direct sound on, so that words are heard no later than before."""
    response = _excerpt(path, 0.0, round(LONGEST_RESPONSE * SAMPLING_RATE))
    return response[np.abs(response).argmax() :]
