"""What reaches the terminal: no control characters of names and texts, and no complaint where nobody reads on."""

import logging
import os
import re
import sys

from tqdm import tqdm

log = logging.getLogger(__name__)

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Text in which control characters and bytes that are no UTF-8 are escaped, as `\x1b`."""
    return _CONTROLS.sub(_escape, str(text))


def say(text: str) -> None:
    """Prints a line at once, beside progress bars; without complaint once the reader has gone, as `| head` does."""
    try:
        with tqdm.external_write_mode():
            print(text, flush=True)
    except BrokenPipeError:
        mute(sys.stdout)
    except OSError as error:
        mute(sys.stdout)
        log.error("nothing more can be printed (%s); the files are still written", error.strerror)


def say_error(text: object) -> None:
    """Prints `cwjax: error:` and a text on one line to stderr."""
    try:
        with tqdm.external_write_mode():
            print(f"cwjax: error: {printable(text)}", file=sys.stderr, flush=True)
    except OSError:
        mute(sys.stderr)


def mute_closed_streams() -> None:
    """Before Python ends: it would fail where it cannot flush what nobody reads."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            mute(stream)
        except OSError:
            pass  # Python will say so, by its exit status too


def mute(stream: object) -> None:
    """Sends what is still printed to a stream nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class InOrder:
    """Prints lines about several things that are worked on at once: those of one after those of another.

    Args:
        headings: of the things, by their keys, in order; printed before their lines, unless empty.
    """

    def __init__(self, headings: dict[str, str]):
        self._lines: dict[str, list[str]] = {key: [] for key in headings}
        self._current = next(iter(headings), None)
        self._headings = dict(headings)
        self._closed: set[str] = set()

    def add(self, key: str, line: str) -> None:
        """Prints a line now, or when all that comes before it is complete."""
        if heading := self._headings.pop(key, ""):
            line = f"{heading}:\n{line}"
        if key == self._current:
            say(line)
        else:
            self._lines[key].append(line)

    def close(self, key: str) -> None:
        """There are no more lines about a thing."""
        self._closed.add(key)
        while self._current in self._closed:
            del self._lines[self._current]
            self._current = next(iter(self._lines), None)
            for line in self._lines.get(self._current, ()):
                say(line)


class TerminalHandler(logging.StreamHandler):
    """Logs beside progress bars, and no control characters save line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        """As it will be seen."""
        return "\n".join(map(printable, super().format(record).split("\n")))

    def emit(self, record: logging.LogRecord) -> None:
        """Takes bars away while it writes."""
        with tqdm.external_write_mode():
            super().emit(record)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code & 0xFF:02x}" if code < 0x100 or 0xDC80 <= code < 0xDD00 else f"\\u{code:04x}"
