"""Metrics of a run: one JSON object a line in `metrics.jsonl`, which trackers are told too, and progress."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cwjax.errors import CwjaxError
from cwjax.evaluation.evaluate import SCORE
from cwjax.files import write_text
from cwjax.processes import is_first
from cwjax.training.trackers import Trackers

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends to `metrics.jsonl`, in the first process alone.

    Args:
        workdir: of the run.
        resumed_step: from which it continues; later rows are dropped first.
        validated_step: of the last validation that the run knows of; later validations are dropped, too.
        trackers: are told every row after it is written.
    """

    def __init__(self, workdir: Path, resumed_step: int, validated_step: int, trackers: Trackers):
        self._path = workdir / METRICS_FILE
        self._file = None
        self._trackers = trackers
        if not is_first():
            return
        kept = [
            row for row in read_metrics(workdir) if row["step"] <= (validated_step if SCORE in row else resumed_step)
        ]
        try:
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise CwjaxError(f"{self._path}: cannot be written ({error.strerror})") from error

    def write(self, row: dict[str, Any]) -> None:
        """Writes one row; it has `step` and numbers under plain names."""
        if not self._file:
            return
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise CwjaxError(f"{self._path}: cannot be written ({error.strerror})") from error
        self._trackers.log(row)

    def close(self) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """All rows of a run's `metrics.jsonl`; lines that a kill cut short, or that are damaged, are left out and counted.

    Raises:
        CwjaxError: the file cannot be read.
    """
    path = Path(workdir) / METRICS_FILE
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror})") from error
    rows = [row for row in map(_row, lines) if row]
    if len(rows) < len(lines):
        log.warning("%s: left out %d lines that are cut short or damaged", path, len(lines) - len(rows))
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """A row with its `step` and numbers, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    numbers = isinstance(row, dict) and all(type(value) in (int, float) for value in row.values())
    return row if numbers and type(row.get("step")) is int else None


class Progress:
    """A progress bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, first: int, total: int):
        self._total = total
        self._is_terminal = sys.stderr.isatty() and is_first()
        self._bar = tqdm(
            total=total, initial=first, desc="training", unit="step", disable=not self._is_terminal, dynamic_ncols=True
        )

    def advance(self) -> None:
        """One step more has been started."""
        self._bar.update()

    def report(self, row: dict[str, Any]) -> None:
        """Shows the numbers of a metrics row."""
        shown = {
            "loss": f"{row['loss']:.3f}",
            "examples/s": f"{row['examples_per_second']:.0f}",
            "audio s/s": f"{row['audio_seconds_per_second']:.0f}",
        }
        if self._is_terminal:
            self._bar.set_postfix(shown)
            return
        left = (self._total - row["step"]) * row["seconds_per_step"]
        log.info(
            "step %d of %d  loss %s  %s examples/s  %s s of audio/s  data wait %.1f %%  %d:%02d left",
            row["step"],
            self._total,
            *shown.values(),
            100 * row["data_wait"],
            *divmod(math.ceil(left), 60),
        )

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()
