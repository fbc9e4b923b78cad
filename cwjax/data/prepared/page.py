"""`report.html` of a prepared corpus: what was kept and left out, and ten segments to listen to."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.segment import Segment

PAGE_FILE = "report.html"
EXAMPLES = 10

_SHOWN = 30
"""Rows of a table that may have thousands."""


def write_page(corpus: PreparedCorpus, title: str, report: dict[str, Any]) -> None:
    """Writes the page into the corpus's folder.

    Args:
        corpus: whose index and shards are complete.
        title: of the page.
        report: of `cwjax.data.prepared.report`.
    """
    ratios = [facts["timed_ratio"] for facts in report["articles"].values() if "timed_ratio" in facts]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{report['utterances']:,} utterances, {report['hours']:.1f} hours, {len(report['articles']):,} articles; "
        f"{len(report['failures']):,} articles left out.</p>",
        _table("Splits", ["", *next(iter(report["splits"].values()))], _rows(report["splits"])),
        _table("Subsets", ["", *next(iter(report["splits"].values()))], _rows(report["subsets"])),
        _table("Languages", ["", "utterances", "hours"], _rows(report["languages"], "utterances", "hours")),
        _chart("Length of the utterances", "seconds", report["lengths"]),
        _chart("Speed", "characters per second", report["characters_per_second"]),
        _chart("Words with times that are trusted, by article", "per cent", _percents(ratios)) if ratios else "",
        _table("Left out, by reason", ["", "hours"], list(report["dropped"].items())),
        _table("Holes in the alignment", ["", "number"], list(report["holes"].items())),
        _table("Speakers", ["", "hours"], list(report["speakers"].items())),
        _table("Articles left out", ["", "reason"], list(report["failures"].items())),
        _table("Odd", ["", ""], [(name, "; ".join(texts)) for name, texts in report["warnings"].items()]),
        "<h2>Ten segments</h2>",
        *_examples(corpus),
    ]
    body = "\n".join(part for part in parts if part)
    page = (
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )
    (corpus.directory / PAGE_FILE).write_text(page, encoding="utf-8", errors="replace")


def _rows(table: dict[str, dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [(name, *(facts[column] for column in columns or facts)) for name, facts in table.items()]


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = ["<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"]
    for row in rows[:_SHOWN]:
        lines.append("<tr>" + "".join(f"<td>{html.escape(_shown(cell))}</td>" for cell in row) + "</tr>")
    more = f"<p>and {len(rows) - _SHOWN:,} more in report.json</p>" if len(rows) > _SHOWN else ""
    return f"<h2>{html.escape(title)}</h2><table>{''.join(lines)}</table>{more}"


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell or "unknown"


def _percents(ratios: Sequence[float]) -> dict[str, int]:
    counts, _ = np.histogram(ratios, bins=np.linspace(0, 1, 21))
    return {str(5 * place): int(count) for place, count in enumerate(counts)}


def _chart(title: str, axis: str, counts: dict[str, int]) -> str:
    """A bar for every number from the least to the greatest that occurs."""
    lowest, highest = min(map(int, counts)), max(map(int, counts))
    step = min((b - a for a, b in zip(sorted(map(int, counts)), sorted(map(int, counts))[1:], strict=False)), default=1)
    places = range(lowest, highest + 1, step)
    width, height = 640 / max(len(places), 8), 150
    tallest = max(counts.values()) or 1
    bars, labels = [], []
    for number, place in enumerate(places):
        count = counts.get(str(place), 0)
        tall = height * count / tallest
        bars.append(
            f'<rect x="{number * width:.1f}" y="{height - tall:.1f}" width="{max(width - 1, 1):.1f}" '
            f'height="{tall:.1f}"><title>{place}: {count:,}</title></rect>'
        )
        if len(places) <= 16 or place % (5 * step) == 0:
            labels.append(f'<text x="{(number + 0.5) * width:.1f}" y="{height + 16}">{place}</text>')
    return (
        f"<h2>{html.escape(title)}</h2>"
        f'<svg viewBox="0 0 {len(places) * width:.0f} {height + 40}" role="img">{"".join(bars)}{"".join(labels)}'
        f'<text x="{len(places) * width / 2:.0f}" y="{height + 36}">{html.escape(axis)}; the tallest bar is '
        f"{tallest:,}</text></svg>"
    )


def _examples(corpus: PreparedCorpus) -> list[str]:
    generator = np.random.default_rng(0)
    places = generator.choice(len(corpus.segments), min(EXAMPLES, len(corpus.segments)), replace=False)
    return [_example(corpus.segments[int(place)], corpus.pcm16(int(place))) for place in sorted(places)]


def _example(segment: Segment, samples: np.ndarray) -> str:
    context = segment.context
    facts = {
        "title": context.title,
        "section": " > ".join(context.section),
        "lead": context.lead,
        "categories": ", ".join(context.categories),
        "keywords": ", ".join(context.keywords[:_SHOWN]),
        "previous" + " (approximate)" * context.previous_is_approximate: context.previous,
        "speaker": segment.speaker,
        "source": " ".join(filter(None, (segment.source, segment.licence))),
    }
    rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in facts.items() if text)
    return (
        f"<section><p><b>{html.escape(segment.id)}</b>, {segment.split}, {segment.duration:.1f} s</p>"
        f'<audio controls preload=none src="{_sound(samples)}"></audio>'
        f"<p>{html.escape(segment.text)}</p><table>{rows}</table></section>"
    )


def _sound(samples: np.ndarray) -> str:
    """The samples as the address of a sound that the page holds itself; as MP3, which every browser plays."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="MP3")
    return "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


_STYLE = """
:root { color-scheme: light }
body { margin:0; background:#fff; color:#1f2328; font:16px/1.55 system-ui,sans-serif }
main { max-width:860px; margin:0 auto; padding:2.2rem 1.2rem 4rem }
h1 { font-size:1.5rem } h2 { font-size:1.1rem; margin:2.2rem 0 .5rem }
table { border-collapse:collapse; font-size:.9rem } th { text-align:left; font-weight:600; vertical-align:top }
td, th { padding:.2rem .9rem .2rem 0; border-top:1px solid #d9dce1; overflow-wrap:anywhere; vertical-align:top }
svg { width:100%; max-width:640px; height:auto } rect { fill:#2563a6 }
text { font:12px system-ui,sans-serif; text-anchor:middle; fill:#59636e }
section { border:1px solid #d9dce1; border-radius:10px; padding:.3rem 1rem .7rem; margin:.9rem 0 }
audio { width:100% }
"""
