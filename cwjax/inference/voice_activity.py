"""Where in a recording somebody speaks, by loudness, and windows that are cut in the pauses.

Speech rises and falls by 20 to 50 dB between syllables and pauses. A frame counts as speech above a threshold that
lies between the quiet and the loud of the recording itself; gaps within words are closed, and stretches of speech get
a margin. This needs no model, and where it errs towards speech the decoder still hears that there is none.
"""

import numpy as np

from cwjax.data.log_mel import HOP_LENGTH
from cwjax.inference.recording import FRAMES_PER_SECOND, Recording

QUIET, LOUD = 10, 95
"""Percentiles of the frames' level that stand for the recording's quiet and its loud."""
RISE = 1 / 3
"""How far from the quiet to the loud the threshold lies, in decibels."""
DEEPEST = 35.0
"""Decibels below the loud where the threshold lies at the lowest: pauses may be digital silence."""
INAUDIBLE = -60.0
"""Decibels of full scale below which nothing is speech."""
SHORTEST_PAUSE = 0.5
SHORTEST_SPEECH = 0.1
MARGIN = 0.2
LONGEST_PAUSE = 3.0
"""Seconds: pauses that part stretches of speech, stretches that count, what is added on either side, and pauses
that a window may span."""


def level(recording: Recording) -> np.ndarray:
    """Level of each mel frame's 10 ms in decibels of full scale, (F,), -100 for silence."""
    samples = recording.samples[: recording.frames * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    power = np.einsum("ij,ij->i", samples, samples) / HOP_LENGTH  # without a squared copy of the recording
    return 10 * np.log10(np.maximum(power, 1e-10))


def speech_spans(level: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of speech, each from its first frame to the one behind its last.

    Args:
        level: (F,), decibels of every 10 ms.
    """
    if not len(level):
        return []
    quiet, loud = np.percentile(level, [QUIET, LOUD])
    threshold = max(quiet + RISE * (loud - quiet), loud - DEEPEST, INAUDIBLE)
    spans = _runs(level >= threshold)
    spans = _joined(spans, SHORTEST_PAUSE)
    spans = [(first, last) for first, last in spans if last - first >= SHORTEST_SPEECH * FRAMES_PER_SECOND]
    margin = round(MARGIN * FRAMES_PER_SECOND)
    return _joined([(max(first - margin, 0), min(last + margin, len(level))) for first, last in spans], 0)


def pack_windows(spans: list[tuple[int, int]], level: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Windows of at most `longest` frames that hold all spans.

    Neighbouring spans share a window. A span that is too long is cut at the quietest moment of the second half of
    what fits.
    """
    short: list[tuple[int, int]] = []
    for first, last in spans:
        while last - first > longest:
            cut = first + longest // 2 + _quietest(level[first + longest // 2 : first + longest])
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
