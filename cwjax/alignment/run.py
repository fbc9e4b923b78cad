"""Books -> `cuts.jsonl.gz`, `report.json` and `report.html`: all of an alignment but the command's options."""

import gzip
import heapq
import io
import json
import logging
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from filelock import FileLock, Timeout

from cwjax.alignment.books import Book
from cwjax.alignment.heard import heard
from cwjax.alignment.hearing import HEARD_FILE, Ear, Hearing
from cwjax.alignment.page import PAGE_FILE, Place, alignment_page, clock
from cwjax.alignment.placing import place
from cwjax.alignment.report import REPORT_FILE, Report
from cwjax.alignment.supervisions import LEAST_CONFIDENCE, account, unplaced_words
from cwjax.data.audio.spans import read_spans
from cwjax.data.cuts import Cut, Recording, Supervision
from cwjax.errors import CwjaxError
from cwjax.files import write_text

log = logging.getLogger(__name__)

CUTS_FILE = "cuts.jsonl.gz"
OUTPUTS = (CUTS_FILE, REPORT_FILE, PAGE_FILE)
EXAMPLES = 10
LEAST_PLACED = 0.05
"""Share of the words heard, or of those written, that has to be placed: fewer are found in any other book."""


@contextmanager
def output_folder(output: Path, inputs: Sequence[Path]) -> Iterator[None]:
    """Makes the folder, for this process alone.

    Raises:
        CwjaxError: it cannot be written, another process writes it, or something in it would be overwritten that is an
            input or was not written by an alignment.
    """
    lock = FileLock(output.resolve().with_name(f".{output.resolve().name}.cwjax-lock"))
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
        lock.acquire(timeout=0)
    except Timeout:
        raise CwjaxError(f"{output}: another process aligns into it; wait, or choose another --output") from None
    except OSError as error:
        raise CwjaxError(f"{output}: cannot be written ({error.strerror}); choose another --output") from error
    try:
        given = {os.path.realpath(path) for path in inputs}
        for path in (output / name for name in (*OUTPUTS, HEARD_FILE)):
            if os.path.realpath(path) in given:
                raise CwjaxError(f"{path}: is an input and would be overwritten; choose another --output")
            if os.path.lexists(path) and not (output / HEARD_FILE).is_file():
                raise CwjaxError(f"{path}: was not written by an alignment and stays as it is; choose another --output")
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@dataclass
class _Example:
    """A supervision that may be listened to."""

    path: Path
    one: Supervision


class _Examples:
    """The half with the lowest confidence, and as many of the others by chance."""

    def __init__(self) -> None:
        self._lowest: list[tuple[float, int, _Example]] = []
        self._others: list[_Example] = []
        self._draw, self._seen = random.Random(0), 0

    def add(self, path: Path, one: Supervision) -> None:
        """Considers one."""
        self._seen += 1
        example = _Example(path, one)
        entry = -one.custom["confidence"], self._seen, example
        if len(self._lowest) < EXAMPLES // 2:
            heapq.heappush(self._lowest, entry)
            return
        *_, example = heapq.heappushpop(self._lowest, entry)
        if len(self._others) < EXAMPLES // 2:
            self._others.append(example)
        elif (number := self._draw.randrange(self._seen)) < EXAMPLES // 2:
            self._others[number] = example

    def places(self) -> Iterator[Place]:
        """All of them with their sound, by file and time."""
        chosen: dict[Path, list[Supervision]] = {}
        for example in [one for *_, one in self._lowest] + self._others:
            chosen.setdefault(example.path, []).append(example.one)
        for path in sorted(chosen):
            ones = chosen[path]
            for number, samples in read_spans(path, [(one.start, one.end) for one in ones]):
                one = ones[number]
                confidence = one.custom["confidence"]
                yield Place(one.id, clock(one.start), one.text, confidence, samples.astype(np.float32) / 2**15)


def align_books(
    books: Sequence[Book], failures: dict[str, str], output: Path, ear: Ear, least_confidence: float = LEAST_CONFIDENCE
) -> Report:
    """Aligns books and writes the results.

    Args:
        books: to align.
        failures: what has been left out before, by name.
        output: folder, of `output_folder`.
        ear: hears the recordings.
        least_confidence: of supervisions that are kept.

    Raises:
        CwjaxError: nothing could be aligned, or the results cannot be written.
    """
    report, examples = Report(failures=dict(failures)), _Examples()
    aside = output / f".{CUTS_FILE}.partial"
    try:
        with _cuts_file(aside) as lines:
            for book in books:
                try:
                    for cut, path in _aligned(book, ear, report, least_confidence):
                        lines.write(json.dumps(cut.as_dict(), ensure_ascii=False) + "\n")
                        for one in cut.supervisions:
                            examples.add(path, one)
                except CwjaxError as error:
                    if len(books) == 1:
                        raise
                    report.failures[book.name] = str(error)
                    log.warning("left out: %s", error)
        content = report.as_dict()
        if not content["supervisions"]:
            reasons = "; ".join(report.failures.values()) or "no phrase is sure enough, see --least-confidence"
            raise CwjaxError(f"nothing could be aligned: {reasons}")
        write_text(output / PAGE_FILE, alignment_page("Alignment", content, list(examples.places())))
        write_text(output / REPORT_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        aside.replace(output / CUTS_FILE)
    except OSError as error:
        raise CwjaxError(
            f"{output}: cannot be written ({error.strerror}); make room and give the same command"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return report


@contextmanager
def _cuts_file(path: Path) -> Iterator[TextIO]:
    """A compressed file, on the disk when it is closed; equal content gives equal bytes."""
    with path.open("wb") as raw:
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed, io.TextIOWrapper(packed, "utf-8") as lines:
            yield lines
        raw.flush()
        os.fsync(raw.fileno())


def _aligned(book: Book, ear: Ear, report: Report, least_confidence: float) -> Iterator[tuple[Cut, Path]]:
    """The cuts of a book, each with its file."""
    text, known = book.read()
    hearings: list[Hearing | None] = []
    for one in book.recordings:
        try:
            hearings.append(ear.hear(one.path))
        except CwjaxError as error:
            if len(book.recordings) == 1:
                raise
            hearings.append(None)
            report.failures[one.name] = str(error)
            log.warning("left out: %s", error)
    if not any(hearings):
        raise CwjaxError(f"{report.failures[book.recordings[0].name]} (and no other recording of the text can be read)")
    said = [heard(one.words, one.pauses) if one else heard((), ()) for one in hearings]
    placement = place(text, said, known)
    placed, in_all = int(placement.is_placed.sum()), sum(map(len, said))
    if not placed or placed < LEAST_PLACED * min(in_all, len(text)):
        raise CwjaxError(f"{book.text_path}: nothing of the text is heard in the audio; is it another book's?")
    doubtful = np.zeros(len(text), bool)
    for number, (one, hearing) in enumerate(zip(book.recordings, hearings, strict=True)):
        if hearing is None:
            continue
        about = hearing.duration, one.name, hearing.language, least_confidence
        found = account(text, placement, number, said[number], *about)
        doubtful |= found.doubtful
        report.add_recording(one.name, hearing.duration, found, [(word.start, word.text) for word in hearing.words])
        samples = round(hearing.duration * hearing.sampling_rate)
        sound = Recording(one.name, hearing.sampling_rate, samples, os.path.abspath(one.path))
        custom = {"text_file": os.path.abspath(book.text_path)}
        yield Cut(one.name, sound, 0.0, sound.duration, tuple(found.supervisions), custom=custom), one.path
    report.add_text(book.name, text, unplaced_words(text, placement, doubtful))
