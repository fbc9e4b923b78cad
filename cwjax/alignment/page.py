"""`report.html` of an alignment: what was placed and left out, and ten places to listen to."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cwjax.evaluation.page import audio_uri, frame

PAGE_FILE = "report.html"
SHOWN = 20
"""Rows of a table that may have thousands."""
_STYLE = "audio { width:100% } td:first-child { white-space:nowrap }"


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
    hours, seconds = report["supervised_seconds"] / 3600, max(report["seconds"], 1e-9)
    words = max(report["text_words"], 1)
    recordings = [
        (name, one["seconds"] / 60, one["supervisions"], f"{_percent(one['supervised_seconds'], one['seconds'])} %")
        for name, one in report["recordings"].items()
    ]
    sound = [(name, value / 60, _share(value, seconds)) for name, value in report["left_out_seconds"].items()]
    text = [(name, value, _share(value, words)) for name, value in report["left_out_words"].items()]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=lead><b>{hours:.2f} hours</b> in {report['supervisions']:,} supervisions: "
        f"{_percent(report['supervised_seconds'], seconds)} % of the sound and "
        f"{_percent(report['supervised_words'], words)} % of the text's {report['text_words']:,} words.</p>",
        _table("Left out as a whole", ["", "why"], list(report["failures"].items())),
        _table("Sound left out", ["", "minutes", "of all"], sound),
        _table("Text left out", ["", "words", "of all"], text),
        _table("Recordings", ["", "minutes", "supervisions", "used"], recordings),
        _table(
            "The longest sound left out",
            ["where", "seconds", "why", "heard there"],
            [
                (f"{one['recording']} {clock(one['start'])}", one["end"] - one["start"], one["reason"], one["heard"])
                for one in report["longest_left_out_sound"]
            ],
        ),
        _table(
            "The longest text left out",
            ["text", "words", "why", "begins"],
            [(one["text"], one["words"], one["reason"], one["written"]) for one in report["longest_left_out_text"]],
        ),
        "<h2>Ten places to listen to</h2><p>The half of lowest confidence, and others. Does the text begin and end "
        "where the sound does?</p>" * bool(places),
        *map(_listen, places),
    ]
    return frame(title, _STYLE, "\n".join(filter(None, parts)))


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _percent(part: float, whole: float) -> int:
    return round(100 * part / max(whole, 1e-9))


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _listen(place: Place) -> str:
    return (
        f"<section><p><b>{html.escape(place.id)}</b>, {place.when}, confidence {place.confidence:.2f}</p>"
        f"<audio controls preload=none src='{audio_uri(place.samples)}'></audio>"
        f"<p>{html.escape(place.text)}</p></section>"
    )


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = ["<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"]
    for row in rows[:SHOWN]:
        lines.append("<tr>" + "".join(f"<td>{html.escape(_shown(cell))}</td>" for cell in row) + "</tr>")
    more = f"<p>and {len(rows) - SHOWN:,} more in report.json</p>" if len(rows) > SHOWN else ""
    return f"<h2>{html.escape(title)}</h2><figure><table>{''.join(lines)}</table></figure>{more}"


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.1f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
