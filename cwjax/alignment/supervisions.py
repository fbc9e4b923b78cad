"""From placed words to supervisions: phrases of at most 30 s, cut in pauses, and an account of all that is left out.

Every second of a recording and every word of the text is in one supervision or has one reason why it is in none.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from cwjax.alignment.heard import Heard
from cwjax.alignment.placing import LONGEST_HOLE, Placement
from cwjax.alignment.written import Written
from cwjax.data.cuts import Supervision, TimedWord

LONGEST = 30.0
MARGIN = 0.15
"""Seconds of a supervision, and of the pauses before and after it that are its own, at most."""
PAUSE = 0.1
"""Seconds between sentences that are cut apart; a sentence that goes into the next without a pause stays with it."""
CLAUSE_BONUS = 0.25
"""Seconds of pause that a mark of punctuation is worth where a sentence is too long."""
EXTRA_WORDS = 2
"""Words heard and not written that a phrase may have in a row: more, and it is cut there."""
UNKNOWN = 0.5
"""Seconds of sound between two supervisions from which something may have been said there."""
LEAST_CONFIDENCE = 0.6
SHORTEST_PART = 3
"""Words in a row that were heard well enough to be kept of a phrase that was not."""
_INSTANT = 1e-9
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»«)\]_*]*(?:--+|[\u2012-\u2015])*$")
_CLAUSE_END = re.compile(r"[\W_]$")

ANNOUNCED, EXTRA, DOUBTFUL, SILENT, WORDLESS = (
    "announcements: said before or after the text",
    "said, not written",
    "low confidence",
    "silence",
    "sound without words",
)
"""Why seconds are left out."""
UNREAD, UNMATCHED = "written, not read", "no match: something else is heard there"
"""Why words of the text are left out, besides low confidence."""

Run = tuple[int, int]
"""The first word of the text and the one after the last."""


@dataclass
class Account:
    """What became of a recording.

    Attributes:
        supervisions: in order of time.
        words: how many words of the text each has.
        left_out: start, end and reason of every stretch outside of them, in order.
        doubtful: (W,) bool, the words of supervisions that were left out because of low confidence.
    """

    supervisions: list[Supervision] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    left_out: list[tuple[float, float, str]] = field(default_factory=list)
    doubtful: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def seconds(self) -> dict[str, float]:
        """Left out, by reason."""
        total: Counter[str] = Counter()
        for start, end, reason in self.left_out:
            total[reason] += end - start
        return dict(total)


def account(
    text: Written,
    placement: Placement,
    recording: int,
    heard: Heard,
    duration: float,
    name: str,
    language: str = "",
    least_confidence: float = LEAST_CONFIDENCE,
) -> Account:
    """The supervisions of a recording, and what is left out of it.

    Args:
        text: whose words are placed.
        placement: of its words.
        recording: number of the recording in the placement.
        heard: what was heard in it.
        duration: of the recording, in seconds.
        name: of the recording, from which names of supervisions are made.
        language: of the speech.
        least_confidence: of supervisions that are kept.
    """
    used = placement.used(recording, len(heard))
    strange = _Strange.of(heard, used)
    kept, doubtful = Account(doubtful=np.zeros(len(text), bool)), []
    runs = _runs(text, placement, recording, used)
    phrases = [
        part
        for run in runs
        for phrase in _phrases(text, placement, run)
        for part in _parts_by_confidence(text, placement, phrase, heard, used, least_confidence)
    ]
    starts = [float(placement.start[first]) for first, _ in phrases] + [duration]
    said_until, last_kept = 0.0, None
    for (first, last), begin, following in zip(phrases, starts, starts[1:], strict=False):
        finish = float(placement.end[last - 1])
        before = max(0.0, begin - max(said_until, strange.end_before(begin)))
        after = max(0.0, min(following, strange.start_after(finish)) - finish)
        since = kept.supervisions[-1].end if kept.supervisions else 0.0
        start = max(since, begin - min(MARGIN, before / 2))
        end = min(finish + min(MARGIN, after / 2), start + LONGEST, duration)
        span, said_until = (round(start, 3), math.floor(1000 * end) / 1000), finish
        confidence = _confidence(text, placement, (first, last), heard, used)
        if confidence < least_confidence or span[1] <= span[0]:
            kept.doubtful[first:last] = True
            doubtful.append(span)
            continue
        unknown = (
            heard.sounding(since, span[0]) > UNKNOWN
            or strange.end_before(begin) > since
            or any(since <= one < span[0] for one, _ in doubtful[-1:])
            or (last_kept is not None and 0 < first - last_kept <= LONGEST_HOLE)
        )
        custom = {
            "confidence": round(confidence, 3),
            "gap_before": unknown,
            "characters": [int(text.begins[first]), int(text.ends[last - 1])],
        }
        words = tuple(_timed_words(text, placement, first, last, span))
        number, said = len(kept.supervisions), text.between(first, last)
        kept.supervisions.append(
            Supervision(f"{name}-{number:05d}", *span, said, language=language, words=words, custom=custom)
        )
        kept.words.append(last - first)
        last_kept = last
    kept.left_out = list(_left_out(kept.supervisions, doubtful, heard, used, duration))
    return kept


@dataclass(frozen=True)
class _Strange:
    """Words heard that are none of the text: their starts, (S,), and until when such words were heard, (S,)."""

    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, heard: Heard, used: np.ndarray) -> "_Strange":
        order = np.argsort(heard.start[~used], kind="stable")
        return cls(heard.start[~used][order], np.maximum.accumulate(heard.end[~used][order]))

    def end_before(self, time: float) -> float:
        """When the last of those ends that have ended by a time, 0 if none has."""
        place = np.searchsorted(self.ends, time + _INSTANT, "right")
        return float(self.ends[place - 1]) if place else 0.0

    def start_after(self, time: float) -> float:
        """When the next one begins from a time on."""
        place = np.searchsorted(self.starts, time - _INSTANT)
        return float(self.starts[place]) if place < len(self.starts) else np.inf


def _runs(text: Written, placement: Placement, recording: int, used: np.ndarray) -> Iterator[Run]:
    """Words of the text that follow each other and were heard so."""
    words = np.flatnonzero(placement.recording == recording)
    if not len(words):
        return
    words = words[np.argsort(placement.start[words], kind="stable")]
    extra = np.concatenate([[0], np.cumsum(~used)])
    run_first = last = words[0]
    reached = placement.last[last]
    for word in words[1:]:
        begins = placement.first[word]
        strange = extra[begins] - extra[reached] if begins >= 0 and 0 <= reached < begins else 0
        if word != last + 1 or placement.chain[word] != placement.chain[last] or strange > EXTRA_WORDS:
            yield int(run_first), int(last) + 1
            run_first = word
        last = word
        reached = placement.last[word] if begins >= 0 else reached
    yield int(run_first), int(last) + 1


def _phrases(text: Written, placement: Placement, run: Run) -> Iterator[Run]:
    """The sentences of a run, those that are too long cut where the pause is longest."""
    first, last = run
    pauses = placement.start[first + 1 : last] - placement.end[first : last - 1]
    marks = [text.text[text.begins[word] : text.ends[word]] for word in range(first, last - 1)]
    ends = [
        first + place + 1 for place, mark in enumerate(marks) if pauses[place] >= PAUSE and _SENTENCE_END.search(mark)
    ]
    worth = pauses + [CLAUSE_BONUS * bool(_CLAUSE_END.search(mark)) for mark in marks]
    for begin, end in zip([first, *ends], [*ends, last], strict=True):
        yield from _short_enough(placement, (begin, end), first, worth)


def _short_enough(placement: Placement, run: Run, first: int, worth: np.ndarray) -> Iterator[Run]:
    begin, end = run
    if placement.end[end - 1] - placement.start[begin] <= LONGEST - 2 * MARGIN or end - begin < 2:
        yield run
        return
    # Cut near the middle rather than at the ends, of which a word or two would be left.
    times = placement.start[begin + 1 : end]
    middle = (placement.start[begin] + placement.end[end - 1]) / 2
    away = np.abs(times - middle) / max(middle - placement.start[begin], 1e-9)
    cut = begin + 1 + int(np.argmax(worth[begin - first : end - 1 - first] - away))
    yield from _short_enough(placement, (begin, cut), first, worth)
    yield from _short_enough(placement, (cut, end), first, worth)


def _confidence(text: Written, placement: Placement, run: Run, heard: Heard, used: np.ndarray) -> float:
    """Share of the characters that were heard, of those of the text and of other words among them."""
    words = slice(*run)
    lengths = text.lengths[words]
    among = ~used & (heard.start >= placement.start[run[0]]) & (heard.end <= placement.end[run[1] - 1])
    strange = sum(len(heard.plain[place]) for place in np.flatnonzero(among))
    return float((lengths * placement.likeness[words]).sum() / (lengths.sum() + strange))


def _parts_by_confidence(
    text: Written, placement: Placement, phrase: Run, heard: Heard, used: np.ndarray, least: float
) -> Iterator[Run]:
    """A phrase whole, or, if too little of it was heard, cut around its parts of which enough was.

    A reader may leave out half of a sentence, and the model may miss it. Each part is the one by which most characters
    were heard beyond those that have to be.
    """
    first, last = phrase
    if last - first <= SHORTEST_PART or _confidence(text, placement, phrase, heard, used) >= least:
        if first < last:
            yield phrase
        return
    total = np.concatenate([[0], np.cumsum(text.lengths[first:last] * (placement.likeness[first:last] - least))])
    end = int(np.argmax(total - np.minimum.accumulate(total)))
    begin = int(np.argmin(total[: end + 1]))
    if not SHORTEST_PART <= end - begin < last - first:
        yield phrase
        return
    yield from _parts_by_confidence(text, placement, (first, first + begin), heard, used, least)
    yield first + begin, first + end
    yield from _parts_by_confidence(text, placement, (first + end, last), heard, used, least)


def _timed_words(
    text: Written, placement: Placement, first: int, last: int, span: tuple[float, float]
) -> Iterator[TimedWord]:
    """Words with times from the start of the recording, none outside the supervision."""
    for word in range(first, last):
        start, end = np.clip([placement.start[word], placement.end[word]], *span)
        likeness = round(float(placement.likeness[word]), 3)
        yield TimedWord(text.between(word, word + 1), round(float(start), 3), round(float(end), 3), likeness)


def _left_out(
    supervisions: Sequence[Supervision],
    doubtful: Sequence[tuple[float, float]],
    heard: Heard,
    used: np.ndarray,
    duration: float,
) -> Iterator[tuple[float, float, str]]:
    """What lies outside of supervisions, each stretch with its reason; together with them it is the whole."""
    spans = [(one.start, one.end) for one in supervisions]
    strange = np.flatnonzero(~used)
    joined: list[list[float]] = []  # words that follow each other closely are one stretch
    for place in strange.tolist():
        start, end = float(heard.start[place]), float(heard.end[place])
        if joined and start - joined[-1][1] <= 1.0:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    layers = {DOUBTFUL: doubtful, EXTRA: joined, SILENT: heard.pauses.tolist()}
    edges = {
        0.0,
        duration,
        *(time for span in (*spans, *(one for some in layers.values() for one in some)) for time in span),
    }
    edges = sorted(edge for edge in edges if 0 <= edge <= duration)
    first, last = (spans[0][0], spans[-1][1]) if spans else (np.inf, -np.inf)
    middles = (np.array(edges[:-1]) + edges[1:]) / 2
    inside = _covered(middles, spans)
    covers = {reason: _covered(middles, some) for reason, some in layers.items()}
    pending: tuple[float, float, str] | None = None
    for place, middle in enumerate(middles.tolist()):
        reason = next((one for one, covered in covers.items() if covered[place]), WORDLESS)
        if reason == EXTRA and not first < middle < last:
            reason = ANNOUNCED
        if not inside[place] and pending and pending[1] == edges[place] and pending[2] == reason:
            pending = pending[0], edges[place + 1], reason
            continue
        if pending:
            yield pending
        pending = None if inside[place] else (edges[place], edges[place + 1], reason)
    if pending:
        yield pending


def _covered(times: np.ndarray, spans: Sequence[Sequence[float]]) -> np.ndarray:
    """Which of the ascending times lie in any of the spans."""
    steps = np.zeros(len(times) + 1, int)
    for start, end in spans:
        steps[np.searchsorted(times, start)] += 1
        steps[np.searchsorted(times, end)] -= 1
    return np.cumsum(steps)[:-1] > 0


def unplaced_words(text: Written, placement: Placement, doubtful: np.ndarray) -> list[tuple[int, int, str]]:
    """Runs of words of the text that are in no supervision, each with its reason: first, one after the last.

    Args:
        doubtful: (W,) bool, words of supervisions that were left out.
    """
    out = ~placement.is_placed | doubtful
    edges = np.flatnonzero(np.diff(np.concatenate([[False], out, [False]]).astype(np.int8))).reshape(-1, 2)
    runs = []
    for first, last in edges.tolist():
        for begin, end, is_doubtful in _parts(doubtful, first, last):
            runs.append((begin, end, DOUBTFUL if is_doubtful else _why(text, placement, begin, end)))
    return runs


def _parts(flags: np.ndarray, first: int, last: int) -> Iterator[tuple[int, int, bool]]:
    cuts = [first, *(first + 1 + np.flatnonzero(np.diff(flags[first:last]))).tolist(), last]
    for begin, end in pairwise(cuts):
        yield begin, end, bool(flags[begin])


def _why(text: Written, placement: Placement, first: int, last: int) -> str:
    """Whether something is heard where the words would have been said, or nothing."""
    before, after = first - 1, last
    if before < 0 or after >= len(text) or placement.chain[before] != placement.chain[after]:
        return UNREAD
    others = placement.first[after] - placement.last[before]
    return UNMATCHED if others > 0 and 2 * others >= last - first else UNREAD
