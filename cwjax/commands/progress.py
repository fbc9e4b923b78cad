"""How far a transcription has come, in audio time."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


def clock(seconds: float) -> str:
    """A length of time as [H:]MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"


class AudioProgress:
    """A bar on a terminal; elsewhere a line every half minute.

    Call it with the seconds of audio that are done and those in all.

    Args:
        name: of what is transcribed.
    """

    def __init__(self, name: str):
        self._name = name
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            total=1,
            desc=name,
            bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def __call__(self, done: float, total: float) -> None:
        """Shows how much is done."""
        done = min(done, total)
        state = f"{clock(done)} of {clock(total)} of audio"
        if not self._bar.disable:
            self._bar.n, self._bar.total = done, total
            self._bar.set_postfix_str(state)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            log.info("%s: %s", self._name, state)

    def __enter__(self) -> "AudioProgress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.close()
