"""Charts of the report and the README, with matplotlib's object interface (no global state)."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cwjax.evaluation.transcription import CONDITIONS, LABELS

COLOURS = {"right": "#2b6cb0", "none": "#8a8f98", "wrong": "#dd7a1f"}
"""Blue, grey and orange: told apart by colour-blind readers too."""

INK = "#3d434b"
GRID = "#d9dce1"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.hashsalt": "cwjax",
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
}


def homophone_chart(summary: dict[str, Any]) -> Figure:
    """Share of homophones decided rightly under each condition, with 95 % confidence intervals."""
    decided = {condition: summary["homophones"][condition] for condition in CONDITIONS}
    bars = {
        LABELS[condition]: (*(100 * one[part] for part in ("share", "low", "high")), COLOURS[condition])
        for condition, one in decided.items()
    }
    return bar_chart(bars, f"homophones spelled as meant, of {decided['right']['count']} heard", chance=50)


def bar_chart(bars: dict[str, tuple[float, float, float, str]], title: str, chance: float | None = None) -> Figure:
    """Percentages with intervals, one below the other.

    Args:
        bars: label -> percentage, its lowest and highest, colour.
        title: what they are percentages of.
        chance: percentage that is marked as chance.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(7, 1.1 + 0.5 * len(bars))
        for row, (share, low, high, colour) in enumerate(bars.values()):
            axes.barh(row, share, height=0.62, color=colour)
            margins = np.maximum([[share - low], [high - share]], 0)
            axes.errorbar(share, row, xerr=margins, color=INK, capsize=3, linewidth=1.2)
            place = max(high, share) + 1.5
            axes.text(place, row, f"{share:.0f} %", va="center", fontsize=11, fontweight="bold", color=colour)
        if chance is not None:
            axes.axvline(chance, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
            axes.text(chance, -0.62, "chance", ha="center", va="bottom", fontsize=8)
        axes.set_yticks(range(len(bars)), list(bars), fontsize=10.5)
        axes.set_xlim(0, 109)
        axes.set_ylim(len(bars) - 0.45, -0.65)
        axes.set_xticks(range(0, 101, 25), [f"{tick} %" for tick in range(0, 101, 25)])
        axes.tick_params(length=0)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(title)
        return figure


def error_rate_chart(summary: dict[str, Any]) -> Figure:
    """Word error rate under each condition: of all words, and outside the homophones."""
    kinds = {"wer": "all words", "wer_elsewhere": "all but the homophones"}
    present = [name for name in kinds if name in summary]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(5, 2.3)
        for group, name in enumerate(present):
            for place, condition in enumerate(CONDITIONS):
                rate = 100 * summary[name][condition]
                x = group + (place - 1) * 0.26
                axes.bar(x, rate, width=0.23, color=COLOURS[condition], label=None if group else LABELS[condition])
                axes.text(x, rate, f"{rate:.1f}", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(present)), [kinds[name] for name in present])
        axes.set_ylabel("word error rate, %")
        axes.tick_params(length=0)
        axes.margins(y=0.15)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        return figure


def list_curves(
    curves: dict[str, dict[str, Sequence[tuple[int, float, float, float]]]], plain: dict[str, float]
) -> Figure:
    """Error rates over the length of the list that was given, with 95 % confidence intervals.

    Args:
        curves: rate -> way -> points: length, percentage, its lowest and highest.
        plain: rate -> percentage without a list.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * len(curves), 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (rate, ways) in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True):
            lengths = sorted({point[0] for points in ways.values() for point in points})
            for number, (way, points) in enumerate(ways.items()):
                x = [lengths.index(point[0]) + 0.06 * number for point in points]
                _, y, low, high = (np.array(values) for values in zip(*points, strict=True))
                margins = np.maximum([y - low, high - y], 0)
                axes.errorbar(x, y, yerr=margins, marker="o", markersize=3, capsize=2, linewidth=1.4, label=way)
            if rate in plain:
                axes.axhline(plain[rate], color=COLOURS["none"], linestyle=(0, (4, 4)), linewidth=1, label="none")
            axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
            axes.set_xlabel("phrases in the list (0: only those said)")
            axes.set_title(f"{rate}, %", fontsize=9)
            axes.set_ylim(bottom=0)
            axes.grid(color=GRID, linewidth=0.6)
            axes.legend(frameon=False, fontsize=7.5)
            _plain(axes)
        return figure


def training_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Loss, opening of the gates and, if it was validated, the share of homophones decided rightly, by step."""
    steps = [row for row in history if "loss" in row]
    validations = [row for row in history if "validation/homophones/right" in row]
    gates = [row for row in steps if "gate" in row]
    panels = 1 + bool(gates) + bool(validations)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.2 * panels, 2.4), layout="constrained")
        FigureCanvasAgg(figure)
        loss, *others = np.atleast_1d(figure.subplots(1, panels))
        _curve(loss, steps, "loss", "#3d434b")
        loss.set_title("training loss", fontsize=9)
        if steps and min(row["loss"] for row in steps) > 0:
            loss.set_yscale("log")
        if gates:
            gate = others.pop(0)
            _curve(gate, gates, "gate", "#2b6cb0")
            gate.set_title("opening of the context gates", fontsize=9)
            gate.set_ylim(bottom=0)
        if validations:
            share = others.pop(0)
            for condition in CONDITIONS:
                name = f"validation/homophones/{condition}"
                points = [(row["step"], 100 * row[name]) for row in validations if name in row]
                share.plot(
                    *zip(*points, strict=True),
                    color=COLOURS[condition],
                    marker="o",
                    markersize=3,
                    label=LABELS[condition],
                )
            share.set_title("homophones right in validation, %", fontsize=9)
            share.set_ylim(-3, 103)
            share.legend(frameon=False, fontsize=7.5)
        for axes in figure.axes:
            _plain(axes)
            axes.set_xlabel("step")
            axes.grid(color=GRID, linewidth=0.6)
        return figure


def as_svg(figure: Figure) -> str:
    """The figure as an SVG element; equal figures give equal text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save_chart(figure: Figure, path: str | Path) -> None:
    """Writes a figure as its suffix says (.svg, .png)."""
    with matplotlib.rc_context(_STYLE):
        metadata = {"Date": None} if str(path).endswith(".svg") else None
        figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _curve(axes: Axes, rows: Sequence[dict[str, Any]], name: str, colour: str) -> None:
    x = np.array([row["step"] for row in rows])
    y = np.array([row[name] for row in rows])
    if len(x) > 30:
        axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
        width = max(3, len(x) // 25)
        smooth = np.convolve(
            np.pad(y, (width // 2, width - 1 - width // 2), mode="edge"), np.full(width, 1 / width), "valid"
        )
        y = smooth
    axes.plot(x, y, color=colour, linewidth=1.6)
