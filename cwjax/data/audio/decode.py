"""Audio files of any common format -> mono float32 samples at the rate that models hear.

libsndfile decodes what it is sure to read whole. Its lengths of MP3, Ogg and FLAC are estimates, or end with the first
of several joined files, so they are compared with what the packets of the file add up to; wherever the two disagree,
and for all formats that libsndfile does not know, FFmpeg (PyAV) decodes until the file ends.
"""

import logging
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
import soxr

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.audio.members import is_sound_file, open_sound_file
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

LENIENT = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""What keeps PyAV from failing over the letters of titles; since its version 19 it does not."""

Source = str | Path | BinaryIO
"""A file's path, which may go into an archive (`members`), or a binary file that can seek, read from its start."""
Blocks = Iterator[tuple[int, np.ndarray]]
"""Sampling rates and frames, (frames, channels) float32."""

BLOCK_FRAMES = 1 << 20
"""Samples decoded, mixed and resampled at a time, so that only the samples that are returned are ever whole."""
PIPED_FRAMES = 1 << 11
"""The same where they come through a pipe, and are wanted soon."""
MISSING_SECONDS = 1.0
"""A file may end so much sooner than its header says: encoders pad."""
AGREEMENT = 0.2
"""Seconds by which libsndfile's length and that of the packets may differ: MP3 packets hold the encoder's delay."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
LONGEST = 1e8
"""Seconds; libsndfile says 2^63 frames where it does not know."""
MOST_CHUNKS = 1000
"""That are looked through for the one with the samples."""
LONGEST_PACKET = 60
"""Seconds; FFmpeg says -128 samples as 2^32 - 128 where the only page of an Ogg ends early."""
UNSURE = ("FLAC", "MP3", "NIST", "OGG")
"""Formats whose length libsndfile may get wrong."""
HEADED = ("flac", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere")
"""FFmpeg's formats whose length it reads from the header, where for others it may estimate."""
_MP3_FRAMES = re.compile(rb"(?:(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI.{10})(.{4})", re.DOTALL)


def read_audio(source: Source, sampling_rate: int = SAMPLING_RATE, channel: int | None = None) -> np.ndarray:
    """Decode a whole audio file, mix its channels to one, and resample it.

    Reads what libsndfile and FFmpeg read. Takes little more memory than what it returns. The mix is the mean of the
    channels, before which those of opposite polarity, which would cancel the speech, are inverted.

    Args:
        source: the file.
        sampling_rate: of the samples.
        channel: counted from 0, instead of the mix.

    Returns: (N,) float32, full scale is 1.

    Raises CwjaxError, naming the file, if it is missing, empty, damaged, ends before its header says, has no such
    channel, or holds samples that are not finite. Those are no silence: what made them has most likely spoilt the rest.
    """
    samples = bytearray()  # grows in place, where joining blocks would hold everything twice
    for block in audio_blocks(source, sampling_rate, channel):
        samples += block.tobytes()
    if not samples:
        raise _silent(source)
    return np.frombuffer(samples, np.float32)


def audio_blocks(
    source: Source, sampling_rate: int = SAMPLING_RATE, channel: int | None = None
) -> Iterator[np.ndarray]:
    """The samples of `read_audio` block by block. Raises CwjaxError as `read_audio` does."""
    _require_readable(source)
    yield from mono(_decoded(source), name_of(source), sampling_rate, channel)


def piped_audio(pipe: Any, pcm: str | None = None, channel: int | None = None) -> Iterator[np.ndarray]:
    """The samples of audio that comes through a pipe, as it comes: (n,) float32 at 16 kHz, in blocks of about 0.1 s.

    Args:
        pipe: a binary file, which need not be able to seek.
        pcm: "FORMAT:RATE:CHANNELS" of samples without a header, such as "s16le:16000:1", its default, FORMAT being
            one of FFmpeg's or ALSA's; None: the audio tells its format itself, as WAV, FLAC, MP3 and Ogg do.
        channel: counted from 0, instead of the mix.

    Raises CwjaxError, naming the pipe, if `pcm` is impossible or what comes is no audio, breaks off or cannot be read.
    """
    how = {} if pcm is None else raw_format(pcm)
    yield from mono(_decoded_by_ffmpeg(_Pipe(pipe), PIPED_FRAMES, **how), name_of(pipe), SAMPLING_RATE, channel)


def raw_format(pcm: str) -> dict[str, Any]:
    """How FFmpeg reads samples without a header. Raises CwjaxError if `piped_audio` does not know the format."""
    pcm = pcm.lower().replace("_", "").replace("float", "f32")
    known = re.fullmatch(
        r"((?:[su]8|mulaw|alaw)|(?:[su](?:16|24|32)|f(?:32|64))[lb]e)(?::(\d{4,6})(?::(\d\d?))?)?", pcm
    )
    if not known:
        raise CwjaxError(
            f'pcm is "{pcm}": give FORMAT:RATE:CHANNELS, such as s16le:16000:1 (s16le, s24le, s32le, f32le)'
        )
    return {
        "format": known[1],
        "options": {"sample_rate": known[2] or str(SAMPLING_RATE), "ch_layout": f"{known[3] or 1}c"},
    }


def audio_duration(source: Source) -> float:
    """Length of an audio file in seconds: of its header where that is right, else by decoding the file.

    Raises CwjaxError as `read_audio` does.
    """
    _require_readable(source)
    seconds = _sure_length(source)
    if seconds is None:
        seconds = sum(len(block) / rate for rate, block in _decoded_by_ffmpeg(source))
    if not seconds:
        raise _silent(source)
    return seconds


def channels_of(source: Source) -> int:
    """How many channels a file has. Raises CwjaxError as `read_audio` does."""
    _require_readable(source)
    with _opened(source) as file:
        if file is not None:
            return file.channels
    with _container(source) as container:
        return _sound_of(container, source).codec_context.channels


def mono(blocks: Blocks, name: str, sampling_rate: int, channel: int | None) -> Iterator[np.ndarray]:
    """Frames of any rates as one signal, (n,) float32 blocks: one channel, or the mix as in `read_audio`."""
    for rate, group in groupby(blocks, key=itemgetter(0)):
        _require_sane(name, rate)
        yield from _resampled(_mixed(name, (block for _, block in group), rate, channel), rate, sampling_rate)


def as_float(samples: np.ndarray) -> np.ndarray:
    """Samples as float32; integers are divided by their full scale."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    full_scale = np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    return samples.astype(np.float32) / full_scale - (samples.dtype.kind == "u")


def name_of(source: Source) -> str:
    """What messages call a file."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    return str(name) if isinstance(name, str | Path) else "the recording"


def _require_readable(source: Source) -> None:
    if isinstance(source, str | Path) and not is_sound_file(source):
        raise CwjaxError(f"{source}: no such audio file; check the path")
    try:
        with _stream(source) as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise CwjaxError(f"{name_of(source)}: cannot be opened ({error.strerror}); check its permissions") from None
    if is_empty:
        raise CwjaxError(f"{name_of(source)}: cannot be read as audio (the file is empty); replace it or leave it out")


class _Lenient:
    """A file in which seeking to an impossible place, as damaged files ask for, leads nowhere instead of raising."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return self._file.tell()


class _Pipe:
    """What can be read but once: FFmpeg does not seek where there is no way to."""

    def __init__(self, file: BinaryIO):
        self.name = name_of(file)
        self.read = getattr(file, "read1", file.read)  # what there is, however little


@contextmanager
def _stream(source: Source | _Pipe) -> Iterator[BinaryIO]:
    if isinstance(source, _Pipe):
        yield source
    elif isinstance(source, str | Path):
        with open_sound_file(source) as file:
            yield _Lenient(file)
    else:
        source.seek(0)
        yield _Lenient(source)


@contextmanager
def _opened(source: Source) -> Iterator[soundfile.SoundFile | None]:
    """The file as libsndfile sees it, None where it does not know it."""
    with _stream(source) as stream:
        try:
            file = soundfile.SoundFile(stream)
        except (soundfile.LibsndfileError, TypeError):  # the latter for raw formats, whose sampling rate nobody knows
            yield None
            return
        with file:
            yield file


@contextmanager
def _container(
    source: Source | _Pipe, format: str | None = None, options: dict[str, str] | None = None
) -> Iterator[av.container.InputContainer]:
    """The file as FFmpeg sees it, which may open no other file and no connection, whatever the file says."""
    with _stream(source) as stream:
        try:
            options = {"protocol_whitelist": "none", **(options or {})}
            container = av.open(stream, "r", format, options=options, **LENIENT)
        except (av.FFmpegError, ValueError) as error:
            raise _damaged(source, getattr(error, "strerror", None) or str(error)) from None
        with container:
            try:
                yield container
            except (av.FFmpegError, OSError, ValueError) as error:
                raise _damaged(source, getattr(error, "strerror", None) or str(error)) from None


def _sound_of(container: av.container.InputContainer, source: Source) -> av.AudioStream:
    stream = container.streams.best("audio")
    if stream is None or stream.codec_context is None or not stream.time_base:
        raise _damaged(source, "it holds no sound that FFmpeg can decode")
    return stream


def _sure_length(source: Source) -> float | None:
    """Seconds that libsndfile reads if that is all there is, else None. Raises CwjaxError if the file is cut short."""
    seconds, unsure, name = None, True, name_of(source)
    with _opened(source) as file:
        if file is not None:
            _require_sane(name, file.samplerate)
            if 0 < file.frames < LONGEST * file.samplerate:
                seconds = file.frames / file.samplerate
            unsure = file.format in UNSURE or "MPEG" in file.subtype
    held, promised = seconds or 0.0, 0.0
    if seconds is None or unsure:
        held, promised = _length_of_packets(source)
    _require_whole(name, held, max(promised, held * _declared_to_held(source)))
    return seconds if seconds is not None and abs(seconds - held) <= AGREEMENT else None


def _length_of_packets(source: Source) -> tuple[float, float]:
    """Seconds of sound that a file holds, and that its header says, 0 where it says nothing."""
    with _container(source) as container:
        stream = _sound_of(container, source)
        base = stream.time_base
        packets = (
            (one.pts, one.duration if one.duration and one.duration * base < LONGEST_PACKET else 0, one.pos)
            for one in container.demux(stream)
            if one.pts is not None
        )
        began, length, place = next(packets, (0, 0, 0))
        held, ended = 0, began + length
        for start, duration, _ in packets:
            if (ended - start) * base > AGREEMENT:  # the next of several joined files
                held, began, ended = held + ended - began, start, start
            ended = max(ended, start + duration)
        promised = 0
        if container.format.name in HEADED:
            promised = stream.duration or 0
        elif container.format.name == "mp3" and place is not None:
            promised = length * _mp3_frames(source, place)
    return float((held + ended - began) * base), float(promised * base)


def _mp3_frames(source: Source, first: int) -> int:
    """How many frames an MP3 has by the Xing or VBRI header before its first packet, 0 where there is none."""
    with _stream(source) as stream:
        stream.seek(max(0, first - 2000))
        found = _MP3_FRAMES.search(stream.read(min(first, 2000)))
        return int.from_bytes(found[1], "big") if found else 0


def _declared_to_held(source: Source) -> float:
    """How many times as many bytes of samples as it holds a file of chunks declares, 1 where that is unknown."""
    with _stream(source) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        start = stream.read(40)
        at, declared = size, 0
        if start[:4] == b".snd":
            at, declared = int.from_bytes(start[4:8], "big"), int.from_bytes(start[8:12], "big")
        elif start[:19] == b"Creative Voice File" and start[26:27] in (b"\1", b"\x09"):
            at, declared = 30, int.from_bytes(start[27:30], "little")
        elif start[:4] in _CHUNKS:
            at, layout, padding, own = _CHUNKS[start[:4]]
            header, long_size = struct.Struct(layout), 0
            for _ in range(MOST_CHUNKS):
                stream.seek(at)
                chunk = stream.read(header.size)
                if len(chunk) < header.size:
                    return 1.0
                kind, declared = header.unpack(chunk)
                at += header.size
                if kind in (b"data", b"SSND", b"BODY"):
                    declared = long_size if long_size and declared == 2**32 - 1 else declared - own
                    break
                if kind == b"ds64":
                    long_size = int.from_bytes(stream.read(16)[8:], "little")
                at = min(at + max(0, declared - own + -declared % padding), size)
    is_known = 0 < declared < 2**62 and declared not in _PLACEHOLDERS and size > at
    return max(1.0, declared / (size - at)) if is_known else 1.0


_CHUNKS = {
    b"RIFF": (12, "<4sI", 2, 0),
    b"RF64": (12, "<4sI", 2, 0),
    b"BW64": (12, "<4sI", 2, 0),
    b"FORM": (12, ">4sI", 2, 0),
    b"caff": (8, ">4sQ", 1, 0),
    b"riff": (40, "<4s12xQ", 8, 24),
}
"""Of WAV, RF64, AIFF, CAF and W64: where the first chunk begins, its header, and what chunks are padded to; the last
number of the header's bytes that count as the chunk's."""
_PLACEHOLDERS = {0x7FFFF000, 0x7FFFFFFF, 0x80000000, *range(2**32 - 256, 2**32)}
"""What programs that write to a pipe declare because they do not know the length."""


def _decoded(source: Source) -> Blocks:
    if _sure_length(source) is None:
        yield from _decoded_by_ffmpeg(source)
        return
    with _opened(source) as file:
        # Not by `SoundFile.blocks`, which repeats itself where a file ends early.
        frames, size = 0, max(1, BLOCK_FRAMES // file.channels)
        try:
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                frames += len(block)
                yield file.samplerate, block
        except soundfile.LibsndfileError as error:
            raise _damaged(source, error.error_string) from None
        _require_whole(name_of(source), frames / file.samplerate, file.frames / file.samplerate)


def _decoded_by_ffmpeg(source: Source | _Pipe, block_size: int = BLOCK_FRAMES, **how: Any) -> Blocks:
    gathered: list[np.ndarray] = []
    kind, size, lost = (0, 0), 0, 0.0
    with _container(source, **how) as container:
        stream = _sound_of(container, source)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                lost += float((packet.duration or 0) * stream.time_base)
                continue
            for frame in frames:
                samples = frame.to_ndarray()
                channels = frame.layout.nb_channels
                samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
                if gathered and (kind != (frame.sample_rate, channels) or size >= block_size):
                    yield kind[0], np.concatenate(gathered)
                    gathered, size = [], 0
                kind, size = (frame.sample_rate, channels), size + samples.size
                gathered.append(as_float(samples))
    if gathered:
        yield kind[0], np.concatenate(gathered)
    if lost > MISSING_SECONDS:
        raise _damaged(source, f"{lost:.1f} s of it cannot be decoded")
    if lost:
        log.warning("%s: %.2f s of it cannot be decoded and are left out", name_of(source), lost)


def _mixed(name: str, blocks: Iterator[np.ndarray], rate: int, channel: int | None) -> Iterator[np.ndarray]:
    """One channel, or the mean of all, all of whose samples are finite."""
    frames, signs = 0, None
    for block in blocks:
        if channel is not None and not 0 <= channel < block.shape[1]:
            raise CwjaxError(f"{name}: has {block.shape[1]} channels, so there is no channel {channel + 1}")
        if channel is not None or block.shape[1] == 1:
            mono = block[:, channel or 0]
        else:
            signs = _signs(block, signs, name)
            mono = (block if (signs > 0).all() else block * signs).mean(axis=1)
        wrong = np.flatnonzero(~np.isfinite(mono))
        if len(wrong):
            raise CwjaxError(
                f"{name}: holds samples that are not finite numbers, the first at {(frames + wrong[0]) / rate:.2f} s; "
                "replace the file or leave it out"
            )
        frames += len(mono)
        yield mono


def _signs(block: np.ndarray, before: np.ndarray | None, name: str) -> np.ndarray:
    """1 for each channel, (channels,) float32, or -1 if it would cancel those before it.

    That is if their correlation is below -1/2. A block that does not say otherwise keeps the signs of the one before.
    """
    signs = np.ones(block.shape[1], np.float32) if before is None or len(before) != block.shape[1] else before.copy()
    total = np.zeros(len(block), np.float32)
    for number in range(len(signs)):
        one = signs[number] * (block[:, number] - block[:, number].mean())
        if one @ total < -0.5 * np.sqrt((one @ one) * (total @ total)):
            signs[number], one = -signs[number], -one
        total += one
    if (signs < 0).any() and (before is None or (before > 0).all()):
        inverted = ", ".join(str(number + 1) for number in np.flatnonzero(signs < 0))
        log.warning("%s: has channels of opposite polarity, which would cancel; inverted: %s", name, inverted)
    return signs


def _resampled(blocks: Iterator[np.ndarray], rate: int, sampling_rate: int) -> Iterator[np.ndarray]:
    if rate == sampling_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sampling_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _require_sane(name: str, rate: float) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise CwjaxError(f"{name}: says that its sampling rate is {rate} Hz; replace the file or leave it out")


def _require_whole(name: str, held: float, promised: float) -> None:
    if promised - held > MISSING_SECONDS:
        raise CwjaxError(
            f"{name}: ends after {held:.1f} s, but its header says {promised:.1f} s; "
            "is it damaged, or did it change while it was read?"
        )


def _silent(source: Source) -> CwjaxError:
    return CwjaxError(f"{name_of(source)}: holds no audio; replace the file or leave it out")


def _damaged(source: Source, reason: str) -> CwjaxError:
    reason = " ".join(reason.split()).rstrip(".")
    return CwjaxError(f"{name_of(source)}: cannot be read as audio ({reason}); convert it to WAV, FLAC or Ogg")
