"""Audio files of any common format -> mono float32 samples at the rate that models hear."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from cwjax.data.log_mel import SAMPLING_RATE
from cwjax.errors import CwjaxError

BLOCK_FRAMES = 1 << 20  # decoded and mixed at a time, so that only the mono signal is ever whole


def read_audio(path: str | Path, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Decode a whole audio file, mix its channels to one by their mean, and resample it.

    Reads what libsndfile reads: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and others.

    Returns: (N,) float32, full scale is 1.

    Raises CwjaxError, naming the file, if it is missing, empty, damaged, or holds samples that are
    not finite.
    """
    blocks: list[np.ndarray] = []
    with _opened(path) as file:
        rate = file.samplerate
        try:
            for block in file.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
                blocks.append(block.mean(axis=1))
        except soundfile.LibsndfileError as error:
            raise _damaged(path, error) from None
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(samples):
        raise CwjaxError(f"{path}: holds no audio; replace the file or leave it out")
    if not np.isfinite(samples).all():
        raise CwjaxError(f"{path}: holds samples that are not finite numbers; replace the file or leave it out")
    if rate == sampling_rate:
        return samples
    return soxr.resample(samples, rate, sampling_rate, quality="HQ")


def audio_duration(path: str | Path) -> float:
    """Length of an audio file in seconds, from its header. Raises CwjaxError as `read_audio` does."""
    with _opened(path) as file:
        return file.frames / file.samplerate


def _opened(path: str | Path) -> soundfile.SoundFile:
    if not Path(path).is_file():
        raise CwjaxError(f"{path}: no such audio file; check the path")
    try:
        file = soundfile.SoundFile(str(path))
    except (soundfile.LibsndfileError, TypeError) as error:
        # Raw formats without a header need a sampling rate, which soundfile asks for by a TypeError.
        raise _damaged(path, error) from None
    if file.frames <= 0:
        file.close()
        raise CwjaxError(f"{path}: holds no audio; replace the file or leave it out")
    return file


def _damaged(path: str | Path, error: Exception) -> CwjaxError:
    reason = " ".join(str(getattr(error, "error_string", error)).split())
    return CwjaxError(f"{path}: cannot be read as audio ({reason}); convert it to WAV, FLAC or Ogg")
