"""How far a transcription has come, in audio time."""

import logging
import sys
import time
from collections.abc import Hashable
from types import TracebackType

from tqdm import tqdm

from cwjax.commands.terminal import printable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


def clock(seconds: float) -> str:
    """A length of time as [H:]MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"


class AudioProgress:
    """A bar on a terminal; elsewhere a line every half minute.

    Call it with the seconds of audio that are done and those in all, of one recording.

    Args:
        name: of what is transcribed.
        recordings: how many there are. The bar moves by recordings, whose lengths are not known before they are read.
    """

    def __init__(self, name: str, recordings: int = 1):
        self._name, self._recordings = printable(name), recordings
        self._states: dict[Hashable, tuple[float, float]] = {}
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            total=recordings,
            desc=self._name,
            bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def __call__(self, done: float, total: float, recording: Hashable = None) -> None:
        """Shows how much is done; `recording` is the key of the one that it is about."""
        self._states[recording] = (min(done, total), total)
        if self._bar.disable and time.monotonic() < self._next_line:
            return
        done, known = (sum(seconds) for seconds in zip(*self._states.values(), strict=True))
        state = f"{clock(done)} of {clock(known)} of audio"
        if self._recordings > 1:
            finished = sum(done == total for done, total in self._states.values())
            state = f"{finished} of {self._recordings} done, {clock(done)} of audio"
        if not self._bar.disable:
            self._bar.n = sum(done / total if total else 1.0 for done, total in self._states.values())
            self._bar.set_postfix_str(state)
            return
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        log.info("%s: %s", self._name, state)

    def __enter__(self) -> "AudioProgress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.close()
