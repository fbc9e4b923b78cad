"""Sound that goes on -> turns of speech, in pieces that a window holds: the rule of `page/pauses.js`."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cwjax.data.audio.log_mel import HOP_LENGTH
from cwjax.inference.audio import FRAMES_PER_SECOND, Recording, level

SMOOTHING = 0.3
"""Share that a frame of 10 ms has in the energy that is looked at."""
DRIFT = 2 / FRAMES_PER_SECOND
"""Decibels a frame, by which what was loudest and quietest is forgotten."""
SILENCE = -70.0
"""Decibels of full scale; below that all is alike."""
RISE, SHARE = 6.0, 0.3
"""Decibels that speech is above noise, at least, and this share of the way from the quietest to the loudest."""
SHORTEST = 5
"""Loud frames in a row that are speech."""
MOMENT = 30
"""Frames of a quiet moment in which speech without pauses is cut."""


class Cut(NamedTuple):
    """A place in the sound where a turn begins or a piece of it ends.

    Attributes:
        frame: counted from the beginning of all sound.
        samples: of the piece that ends there, (n,) float32 at 16 kHz; None where a turn begins.
        ends: whether the turn ends with it.
    """

    frame: int
    samples: np.ndarray | None = None
    ends: bool = False


class Turns:
    """Finds turns of speech.

    Args:
        longest: frames of 10 ms that a piece may have.

    Attributes:
        pause: frames without speech that end a turn; None: nothing does but `end`, and all sound belongs to it.
        padding: frames before speech that belong to its turn.
        speaks: whether a turn goes on that a pause will end.
    """

    def __init__(self, longest: int):
        self.pause: int | None = None
        self.padding = 0
        self.speaks = False
        self._longest = longest
        self._first = 0  # frame that those kept begin with
        self._frames: list[np.ndarray] = []
        self._levels: list[float] = []
        self._rest = np.zeros(0, np.float32)  # less than a frame
        self._energy: float | None = None
        self._quietest, self._loudest = math.inf, -math.inf
        self._loud = self._quiet = 0  # frames in a row

    @property
    def frames(self) -> int:
        """How many are kept: those of the piece that goes on, or before the next turn."""
        return len(self._frames)

    @property
    def samples(self) -> np.ndarray:
        """What is kept, (n,) float32."""
        return np.concatenate([*self._frames, self._rest])

    def add(self, samples: np.ndarray) -> Iterator[Cut]:
        """Takes sound at 16 kHz, (n,) float32; gives the places in it."""
        samples = np.concatenate([self._rest, samples])
        frames = samples[: len(samples) // HOP_LENGTH * HOP_LENGTH].reshape(-1, HOP_LENGTH)
        self._rest = samples[frames.size :]
        for frame, loudness in zip(frames, level(Recording(frames.ravel())).tolist(), strict=True):
            self._frames.append(frame)
            self._levels.append(self._hear(loudness))
            if self.pause is not None and not self.speaks:
                self.speaks = self._loud >= SHORTEST
                self._forget(self.frames - SHORTEST - self.padding)
                if self.speaks:
                    yield Cut(self._first)
            elif self.pause is not None and self._quiet >= self.pause:
                self.speaks = False
                yield self._cut(self.frames - self.pause // 2, ends=True)
            elif self.frames >= self._longest:
                yield self._cut(self._quietest_moment(), ends=False)

    def end(self) -> Cut:
        """Ends the turn here."""
        self.speaks, self._loud = False, 0
        cut = self._cut(self.frames, ends=True)
        samples, self._rest = np.append(cut.samples, self._rest), self._rest[:0]
        return cut._replace(samples=samples)

    def _hear(self, loudness: float) -> float:
        """Takes the level of a frame; gives it with those before it smoothed."""
        energy = 10 ** (loudness / 10)
        self._energy = energy if self._energy is None else self._energy + SMOOTHING * (energy - self._energy)
        smooth = max(SILENCE, 10 * math.log10(self._energy))
        self._quietest = min(smooth, self._quietest + DRIFT)
        self._loudest = max(smooth, self._loudest - DRIFT)
        is_loud = smooth > self._quietest + max(RISE, SHARE * (self._loudest - self._quietest))
        self._loud, self._quiet = (self._loud + 1, 0) if is_loud else (0, self._quiet + 1)
        return smooth

    def _quietest_moment(self) -> int:
        """The middle of it, in the later half."""
        half = self.frames // 2
        sums = np.convolve(self._levels[half:], np.ones(min(MOMENT, half)), mode="valid")
        return half + int(sums.argmin()) + min(MOMENT, half) // 2

    def _cut(self, frames: int, ends: bool) -> Cut:
        samples = np.concatenate([self._rest[:0], *self._frames[:frames]])
        self._forget(frames)
        return Cut(self._first, samples, ends)

    def _forget(self, frames: int) -> None:
        if frames > 0:
            self._first += frames
            del self._frames[:frames], self._levels[:frames]
