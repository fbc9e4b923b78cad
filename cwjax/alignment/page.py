"""`report.html` of an alignment: what was placed and left out, and ten places to listen to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cwjax.pages import render

PAGE_FILE = "report.html"


@dataclass(frozen=True)
class Place:
    """A supervision to listen to, with its samples, (n,) at 16 kHz."""

    id: str
    when: str
    text: str
    confidence: float
    samples: np.ndarray


def alignment_page(title: str, report: dict[str, Any], places: Sequence[Place]) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        report: of `Report.as_dict`.
        places: to listen to.
    """
    seconds, words = max(report["seconds"], 1e-9), max(report["text_words"], 1)
    recordings = [
        (name, one["seconds"] / 60, one["supervisions"], _share(one["supervised_seconds"], max(one["seconds"], 1e-9)))
        for name, one in report["recordings"].items()
    ]
    sound = [(name, value / 60, _share(value, seconds)) for name, value in report["left_out_seconds"].items()]
    text = [(name, value, _share(value, words)) for name, value in report["left_out_words"].items()]
    return render(
        "alignment.html",
        title=title,
        report=report,
        seconds=seconds,
        words=words,
        sound=sound,
        text=text,
        recordings=recordings,
        longest_sound=[
            (f"{one['recording']} {clock(one['start'])}", one["end"] - one["start"], one["reason"], one["heard"])
            for one in report["longest_left_out_sound"]
        ],
        longest_text=[
            (one["text"], one["words"], one["reason"], one["written"]) for one in report["longest_left_out_text"]
        ],
        places=places,
    )


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"
