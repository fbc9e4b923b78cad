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
    kept, doubtful = Account(doubtful=np.zeros(len(text), bool)), []
    ended = 0.0  # of what was last said, of the text or not
    before: Run | None = None
    phrases = [phrase for run in _runs(text, placement, recording, used) for phrase in _phrases(text, placement, run)]
    for place, (first, last) in enumerate(phrases):
        begin, finish = float(placement.start[first]), float(placement.end[last - 1])
        following = float(placement.start[phrases[place + 1][0]]) if place + 1 < len(phrases) else duration
        others = ~used & (heard.end <= begin + 1e-9)
        previous = max(ended, float(heard.end[others].max(initial=0.0)))
        strange = heard.start[~used & (heard.start >= finish - 1e-9)]
        following = min(following, float(strange.min(initial=duration)))
        start = max(0.0, begin - min(MARGIN, max(0.0, begin - previous) / 2))
        end = min(duration, finish + min(MARGIN, max(0.0, following - finish) / 2))
        confidence = _confidence(text, placement, (first, last), heard, used)
        if kept.supervisions:
            start = max(start, kept.supervisions[-1].end)
        span = round(start, 3), math.floor(1000 * min(end, start + LONGEST)) / 1000
        ended = finish
        if confidence < least_confidence or span[1] <= span[0]:
            kept.doubtful[first:last] = True
            doubtful.append(span)
            continue
        since = kept.supervisions[-1].end if kept.supervisions else 0.0
        unknown = (
            heard.sounding(since, span[0]) > UNKNOWN
            or bool((~used & (heard.start >= since - 1e-9) & (heard.end <= begin + 1e-9)).any())
            or any(since <= one < span[0] for one, _ in doubtful)
            or (before is not None and 0 < first - before[1] <= LONGEST_HOLE)
        )
        kept.supervisions.append(
            Supervision(
                id=f"{name}-{len(kept.supervisions):05d}",
                start=span[0],
                end=span[1],
                text=text.between(first, last),
                language=language,
                words=tuple(_timed_words(text, placement, first, last, span)),
                custom={
                    "confidence": round(confidence, 3),
                    "gap_before": unknown,
                    "characters": [int(text.begins[first]), int(text.ends[last - 1])],
                },
            )
        )
        kept.words.append(last - first)
        before = first, last
    kept.left_out = list(_left_out(kept.supervisions, doubtful, heard, used, duration))
    return kept


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
