"""Stretches of an audio file as 16-bit samples at 16 kHz, by decoding the file once, from its start.

Seeking is not sample-exact in compressed formats, and a lossy decoder silently skips what it cannot read, after
which every later word is heard at the wrong place. So the whole file is decoded and its length compared with what
its header says. Memory holds one block, and the stretch that is being gathered.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cwjax.data.audio.decode import audio_blocks, audio_duration
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.audio.pcm16 import to_pcm16
from cwjax.errors import CwjaxError

TOLERANCE = 0.02
"""Seconds by which the decoded length may differ from the header's."""
MPEG_TOLERANCE = 0.2
"""The same for MP3, whose encoders pad and whose headers may not say by how much."""


def read_spans(
    path: str | Path, spans: Sequence[tuple[float, float]], channel: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Decodes stretches of a file.

    Args:
        path: the audio file.
        spans: start and end of each in seconds of the file, in any order; they may overlap.
        channel: counted from 0; None: the mean of all channels.

    Yields:
        The number of a span, and its samples, (n,) int16; by ascending start.

    Raises:
        CwjaxError: the file is missing or damaged, or a span lies outside it. What came before is of no use then,
            for a damaged file may have lost sound anywhere.
    """
    places = [(round(start * SAMPLING_RATE), round(end * SAMPLING_RATE)) for start, end in spans]
    order = sorted(range(len(places)), key=places.__getitem__)
    if order and places[order[0]][0] < 0:
        raise CwjaxError(f"{path}: a segment begins before the file does; are its times right?")
    held = np.zeros(0, np.int16)
    held_from = decoded = done = 0
    for block in audio_blocks(path, channel=channel):
        held = np.concatenate([held, to_pcm16(block)])
        decoded += len(block)
        while done < len(order) and places[order[done]][1] <= decoded:
            start, end = places[order[done]]
            yield order[done], held[start - held_from : end - held_from]
            done += 1
        # Later spans start no earlier than the next one.
        needed_from = min(places[order[done]][0], decoded) if done < len(order) else decoded
        held, held_from = held[max(needed_from - held_from, 0) :], max(needed_from, held_from)
    require_complete(path, decoded / SAMPLING_RATE)
    for number in order[done:]:
        start, end = places[number]
        if end - decoded > tolerance(path) * SAMPLING_RATE or start >= decoded:
            raise CwjaxError(f"{path}: ends at {decoded / SAMPLING_RATE:.2f} s, before a segment of it does")
        yield number, held[start - held_from : end - held_from]


def require_complete(path: str | Path, decoded: float) -> None:
    """Compares the decoded length (s) with the header's."""
    announced = audio_duration(path)
    if abs(announced - decoded) > tolerance(path):
        raise CwjaxError(
            f"{path}: is damaged: of {announced:.2f} s that its header announces, {decoded:.2f} s can be decoded; "
            "fetch it again or leave it out"
        )


def tolerance(path: str | Path) -> float:
    """Seconds by which the length of a file may differ from what its header says."""
    return MPEG_TOLERANCE if Path(path).suffix.lower() == ".mp3" else TOLERANCE
