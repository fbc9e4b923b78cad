"""Audio files of any common format -> mono float32 samples at the rate that models hear."""

import logging
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr

from cwjax.data.log_mel import SAMPLING_RATE
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

BLOCK_FRAMES = 1 << 20
"""Decoded, mixed and resampled at a time, so that only the samples that are returned are ever whole."""
MISSING_SECONDS = 1.0
"""A file may end so much sooner than its header says: lossy formats only estimate their length."""


def read_audio(path: str | Path, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Decode a whole audio file, mix its channels to one by their mean, and resample it.

    Reads what libsndfile reads (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and others) and, if `ffmpeg` is on the
    PATH, the sound of anything that ffmpeg reads. Takes little more memory than what it returns.

    Returns: (N,) float32, full scale is 1.

    Raises CwjaxError, naming the file, if it is missing, empty, damaged, ends before its header says, or holds
    samples that are not finite. Those are no silence: what made them has most likely spoilt the rest too.
    """
    samples = bytearray()  # grows in place, where joining blocks would hold everything twice
    for block in audio_blocks(path, sampling_rate):
        samples += block.tobytes()
    if not samples:
        raise _silent(path)
    return np.frombuffer(samples, np.float32)


def audio_blocks(
    path: str | Path, sampling_rate: int = SAMPLING_RATE, channel: int | None = None
) -> Iterator[np.ndarray]:
    """The samples of `read_audio` block by block, or those of one channel, counted from 0, instead of the mean.

    Raises CwjaxError as `read_audio` does, and if there is no such channel.
    """
    _require_readable(path)
    with _decoded(path) as (rate, blocks):
        yield from _resampled(_mixed(path, blocks, rate, channel), rate, sampling_rate)


def audio_duration(path: str | Path) -> float:
    """Length in seconds, from the header, of a file that libsndfile reads. Raises CwjaxError as `read_audio` does."""
    _require_readable(path)
    with _opened(path) as file:
        if file.frames <= 0:
            raise _silent(path)
        return file.frames / file.samplerate


def _require_readable(path: str | Path) -> None:
    if not Path(path).is_file():
        raise CwjaxError(f"{path}: no such audio file; check the path")
    try:
        with open(path, "rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from None
    if is_empty:
        raise CwjaxError(f"{path}: cannot be read as audio (the file is empty); replace it or leave it out")


def _opened(path: str | Path) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(str(path))
    except (soundfile.LibsndfileError, TypeError) as error:
        # Raw formats without a header need a sampling rate, which soundfile asks for by a TypeError.
        raise _damaged(path, str(getattr(error, "error_string", error))) from None


@contextmanager
def _decoded(path: str | Path) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """The file's sampling rate and blocks of its frames, (frames, channels) float32."""
    try:
        file = _opened(path)
    except CwjaxError as error:
        if not shutil.which("ffmpeg"):
            raise CwjaxError(f"{error}, or install ffmpeg") from None
        with _decoded_by_ffmpeg(path) as decoded:
            yield decoded
    else:
        with file:
            yield file.samplerate, _blocks(path, file)


def _blocks(path: str | Path, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Not by `SoundFile.blocks`, which repeats itself where a file ends early."""
    frames = 0
    try:
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            frames += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        raise _damaged(path, error.error_string) from None
    if file.frames - frames > MISSING_SECONDS * file.samplerate:
        raise CwjaxError(
            f"{path}: ends after {frames / file.samplerate:.1f} s, but its header says "
            f"{file.frames / file.samplerate:.1f} s; is it damaged, or did it vanish while it was read?"
        )


@contextmanager
def _decoded_by_ffmpeg(path: str | Path) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """As `_decoded`, by way of AU, the format with the shortest header; ffmpeg may open no other file than this."""
    source = ["-protocol_whitelist", "file", "-i", f"file:{path}"]
    output = ["-vn", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", *source, *output]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints) as process,
    ):
        try:
            header = process.stdout.read(24)
            rate, channels = SAMPLING_RATE, 1
            if len(header) == 24:
                data_start, _, _, rate, channels = struct.unpack(">4x5I", header)
                process.stdout.read(data_start - 24)
            yield rate, _samples(process.stdout, channels)
        except BaseException:
            process.kill()
            raise
        status = process.wait()
        complaints.seek(0)
        said = [line.rpartition("] ")[2] for line in complaints.read().decode(errors="replace").splitlines()]
        if status:
            raise _damaged(path, f"ffmpeg: {said[0] if said else f'status {status}'}")
        if said:
            log.warning("%s: ffmpeg read it, but said: %s", path, said[0])


def _samples(stream: IO[bytes], channels: int) -> Iterator[np.ndarray]:
    while data := stream.read(4 * channels * BLOCK_FRAMES):
        frames = len(data) // (4 * channels)
        yield np.frombuffer(data, ">f4", frames * channels).reshape(frames, channels).astype(np.float32)


def _mixed(path: str | Path, blocks: Iterator[np.ndarray], rate: int, channel: int | None) -> Iterator[np.ndarray]:
    """One channel, or the mean of all, all of whose samples are finite."""
    frames = 0
    for block in blocks:
        if channel is not None and channel >= block.shape[1]:
            raise CwjaxError(f"{path}: has {block.shape[1]} channels, so there is no channel {channel + 1}")
        mono = block.mean(axis=1) if channel is None else block[:, channel]
        wrong = np.flatnonzero(~np.isfinite(mono))
        if len(wrong):
            raise CwjaxError(
                f"{path}: holds samples that are not finite numbers, the first at {(frames + wrong[0]) / rate:.2f} s; "
                "replace the file or leave it out"
            )
        frames += len(mono)
        yield mono


def _resampled(blocks: Iterator[np.ndarray], rate: int, sampling_rate: int) -> Iterator[np.ndarray]:
    if rate == sampling_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sampling_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _silent(path: str | Path) -> CwjaxError:
    return CwjaxError(f"{path}: holds no audio; replace the file or leave it out")


def _damaged(path: str | Path, reason: str) -> CwjaxError:
    reason = " ".join(reason.split()).rstrip(".")
    return CwjaxError(f"{path}: cannot be read as audio ({reason}); convert it to WAV, FLAC or Ogg")
