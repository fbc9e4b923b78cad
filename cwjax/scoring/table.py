"""Scores as a table for the terminal."""

from typing import Any


def table(scores: dict[str, Any], by: str = "") -> str:
    """Text of what `cwjax.scoring.score.summarise` gives; rates in per cent."""
    runs = scores["runs"]
    width = max(len(name) for name in runs) + 2
    kinds = {(run["clusters"]["kind"], run["clusters"]["count"]) for run in runs.values()}
    over = ", ".join(f"{count:,} {kind}s" for kind, count in sorted(kinds))
    lines = [f"normaliser {scores['normaliser']}; in brackets 95 % intervals, over {over}"]
    for rate in dict.fromkeys(name for run in runs.values() for name in run["rates"]):
        lines += ["", f"{rate}, %"]
        for name, run in runs.items():
            if rate in run["rates"]:
                lines.append(f"  {name:{width}}{_figure(run['rates'][rate])}")
            for value, group in run.get("by", {}).items():
                if rate in group["rates"]:
                    lines.append(f"    {value:{width - 2}}{_figure(group['rates'][rate])}")
    for pair in scores["pairs"]:
        lines += ["", f"{pair['second']} less {pair['first']}, on {pair['utterances']:,} utterances"]
        for rate, one in pair["rates"].items():
            lines.append(f"  {rate:{width}}{_percent(one, 'difference', '+'):30} p {one['p']:.3f}")
        if "mapsswe" in pair:
            test, recordings = pair["mapsswe"], pair["recordings"]
            lines.append(f"  MAPSSWE p {test['p']:.3f}, {test['segments']:,} segments")
            shares = (
                f"{recordings[name]:,} {name} ({100 * low:.0f} to {100 * high:.0f} %)"
                for name, (low, high) in recordings["intervals"].items()
            )
            lines.append(f"  {recordings['of']}: {', '.join(shares)}")
    return "\n".join([*lines, *(f"\nnote: {note}" for note in scores["notes"])])


def _figure(one: dict[str, Any]) -> str:
    errors = "".join(
        f"  {name} {count:,}" for name, count in zip(("sub", "del", "ins"), one.get("errors", ()), strict=False)
    )
    return f"{_percent(one, 'rate'):28} of {one['of']:,}{errors}"


def _percent(one: dict[str, Any], key: str, sign: str = "") -> str:
    value, low, high = ("?" if one[name] is None else f"{100 * one[name]:{sign}.2f}" for name in (key, "low", "high"))
    return f"{value:>6} ({low} to {high})"
