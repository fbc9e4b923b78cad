"""What an alignment placed and left out: the content of its `report.json`, in seconds and words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cwjax.alignment.supervisions import Account
from cwjax.alignment.written import Written

REPORT_FILE = "report.json"
LISTED = 100
"""Stretches of sound and of text that are listed, the longest."""
SHOWN_CHARACTERS = 160


@dataclass
class Report:
    """The sums of all books that are aligned.

    Attributes:
        recordings: of each what became of it.
        failures: what was left out as a whole, and why.
        audio, words: seconds and words that were left out, by reason.
        stretches: the longest stretches of sound that were left out.
        passages: the longest passages of text that were left out.
        confidences: numbers of supervisions, by per cent of confidence.
    """

    recordings: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    audio: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    stretches: list[dict[str, Any]] = field(default_factory=list)
    passages: list[dict[str, Any]] = field(default_factory=list)
    confidences: Counter[int] = field(default_factory=Counter)
    placed_words: int = 0

    def add_recording(self, name: str, duration: float, account: Account, said: Sequence[tuple[float, str]]) -> None:
        """Counts a recording.

        Args:
            name: of the recording.
            duration: of it, in seconds.
            account: what became of it.
            said: when each word was heard, and the word.
        """
        seconds = sum(one.end - one.start for one in account.supervisions)
        left_out = account.seconds
        self.recordings[name] = {
            "seconds": round(duration, 3),
            "supervisions": len(account.supervisions),
            "supervised_seconds": round(seconds, 3),
            "words": sum(account.words),
            "left_out_seconds": {reason: round(value, 3) for reason, value in left_out.items()},
        }
        self.audio.update(left_out)
        self.placed_words += sum(account.words)
        self.confidences.update(int(100 * one.custom["confidence"]) for one in account.supervisions)
        times = np.array([time for time, _ in said])
        for start, end, reason in sorted(account.left_out, key=lambda one: one[0] - one[1])[:LISTED]:
            first, last = np.searchsorted(times, [start, end])
            heard = " ".join(word for _, word in said[first:last])
            self.stretches.append(
                {"recording": name, "start": start, "end": end, "reason": reason, "heard": _short(heard)}
            )
        self.stretches = sorted(self.stretches, key=lambda one: one["start"] - one["end"])[:LISTED]

    def add_text(self, name: str, text: Written, runs: Sequence[tuple[int, int, str]]) -> None:
        """Counts the words of a text that are in no supervision, each run with its reason."""
        for first, last, reason in runs:
            self.words[reason] += last - first
        for first, last, reason in sorted(runs, key=lambda one: one[0] - one[1])[:LISTED]:
            passage = {"text": name, "words": last - first, "reason": reason}
            self.passages.append(
                {
                    **passage,
                    "character": int(text.begins[first]),
                    "written": _short(text.between(first, min(last, first + 40))),
                }
            )
        self.passages = sorted(self.passages, key=lambda one: -one["words"])[:LISTED]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        total = sum(one["seconds"] for one in self.recordings.values())
        return {
            "seconds": round(total, 3),
            "supervised_seconds": round(sum(one["supervised_seconds"] for one in self.recordings.values()), 3),
            "supervisions": sum(one["supervisions"] for one in self.recordings.values()),
            "left_out_seconds": {reason: round(seconds, 3) for reason, seconds in self.audio.most_common()},
            "text_words": self.placed_words + sum(self.words.values()),
            "supervised_words": self.placed_words,
            "left_out_words": dict(self.words.most_common()),
            "confidence_percent": {str(one): self.confidences[one] for one in sorted(self.confidences)},
            "failures": self.failures,
            "recordings": self.recordings,
            "longest_left_out_sound": self.stretches,
            "longest_left_out_text": self.passages,
        }


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rsplit(" ", 1)[0] + " ..."
