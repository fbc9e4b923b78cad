"""Each word of a text that is heard gets its time, once.

Chains of words that were heard as they are written (`anchors`) go first, the longest before the others; what lies
between and beside them is aligned word by word (`word_alignment`); words of which nothing was heard are placed between
two others if there is about as much time as they take to say. No other word is: it may not have been read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cwjax.alignment.anchors import Pairs, chains
from cwjax.alignment.heard import Heard, put_pauses_between, shared
from cwjax.alignment.word_alignment import Match, align
from cwjax.alignment.written import Written, ends_phrase

LARGEST_GAP = 200_000
"""Words heard times words of the text that are aligned as a whole; of more, both ends are."""
REACH = 120
"""Words beside a chain that are looked at."""
AROUND, UNLIKE = 3, 0.5
"""Words before and after one, and the likeness of all of them below which it is taken for chance."""
LIKE = 0.7
"""Likeness of the words that a run of placed words begins and ends with."""
SLOWEST, SLOW = 4.0, 0.6
"""A word may take so many times as long as it is expected to, and so many seconds more."""
LONGEST_HOLE, LONGEST_KNOWN_HOLE = 8, 30
"""Words in a row of which nothing was heard that may be placed by the time there is for them; the second in an article
that has times of other words."""
LONGEST_BETWEEN = 200
"""Words heard between two words whose times are known that are aligned with what is written there."""
LEAST, MOST, SLACK = 0.5, 2.0, 0.2
"""Shares of the expected time that may be there for these, and seconds more or less."""


@dataclass
class Placement:
    """Where the W words of a text are heard.

    Attributes:
        recording: (W,) int, -1: in none.
        start, end: (W,) seconds in it, NaN: nowhere.
        likeness: (W,) share of its characters that were heard; 0 where it was placed by the time there is.
        first, last: (W,) int, the words heard that stand for it, from the first to before the last; -1: none.
        chain: (W,) int, which run through the text it belongs to, -1: none.
    """

    recording: np.ndarray
    start: np.ndarray
    end: np.ndarray
    likeness: np.ndarray
    first: np.ndarray
    last: np.ndarray
    chain: np.ndarray

    @classmethod
    def empty(cls, words: int) -> "Placement":
        """Nothing placed."""
        none, nowhere = np.full(words, -1), np.full(words, np.nan)
        return cls(none, nowhere, nowhere.copy(), np.zeros(words), none.copy(), none.copy(), none.copy())

    @property
    def is_placed(self) -> np.ndarray:
        """(W,) bool."""
        return self.recording >= 0

    def used(self, recording: int, words: int) -> np.ndarray:
        """(N,) bool: which of the N = `words` words heard in a recording stand for words of the text."""
        here = (self.recording == recording) & (self.first >= 0)
        steps = np.zeros(words + 1, int)
        np.add.at(steps, self.first[here], 1)
        np.add.at(steps, self.last[here], -1)
        return np.cumsum(steps)[:-1] > 0

    def take_back(self, words: np.ndarray) -> None:
        """Places words, (W,) bool, nowhere."""
        for column in (self.recording, self.first, self.last, self.chain):
            column[words] = -1
        self.start[words] = self.end[words] = np.nan
        self.likeness[words] = 0


def place(text: Written, recordings: Sequence[Heard], known: Placement | None = None) -> Placement:
    """Places the words of a text in recordings of it.

    Args:
        text: its words.
        recordings: what was heard in each.
        known: where words are whose times are known; they stay there.
    """
    placing = _Placing(text, recordings)
    found = list(_chains(text, recordings))
    for number, (recording, pairs) in sorted(enumerate(found), key=lambda one: -len(one[1][1])):
        free = ~placing.placement.is_placed[pairs[:, 1]]
        found[number] = recording, pairs[free]
        for heard, word in pairs[free].tolist():
            placing.put(recording, number, Match(heard, heard + 1, word, word + 1, 1.0))
    for number, (recording, pairs) in enumerate(found):
        if len(pairs):
            placing.fill(recording, number, pairs)
    placing.settle()
    placing.forget_chance()
    if known is not None:
        placing.keep(known)
    placing.fill_holes(known)
    return placing.placement


def _chains(text: Written, recordings: Sequence[Heard]) -> list[tuple[int, Pairs]]:
    """Chains of one recording each, the numbers of words heard being those of the recording."""
    firsts = np.cumsum([0, *map(len, recordings)])
    found = []
    for pairs in chains([word for one in recordings for word in one.plain], text.plain):
        parts = np.searchsorted(firsts, pairs[:, 0], "right") - 1
        found += [(int(part), pairs[parts == part] - [firsts[part], 0]) for part in np.unique(parts)]
    return found


class _Placing:
    """A placement that is being made."""

    def __init__(self, text: Written, recordings: Sequence[Heard]):
        self.placement = Placement.empty(len(text))
        self._text, self._recordings = text, recordings
        self._used = [np.zeros(len(one), bool) for one in recordings]

    def put(self, recording: int, chain: int, match: Match) -> None:
        """Gives the words of a match their times, shared by their characters."""
        placement, heard, words = self.placement, self._recordings[recording], slice(match.text, match.text_end)
        bounds = shared(heard.start[match.heard], heard.end[match.heard_end - 1], self._text.lengths[words])
        placement.recording[words], placement.chain[words] = recording, chain
        placement.start[words], placement.end[words] = bounds[:-1], bounds[1:]
        placement.likeness[words] = match.likeness
        placement.first[words], placement.last[words] = match.heard, match.heard_end
        self._used[recording][match.heard : match.heard_end] = True

    def fill(self, recording: int, chain: int, pairs: Pairs) -> None:
        """Aligns what lies between and beside the words of a chain, as far as nothing else was placed there."""
        words, count = len(self._text), len(self._recordings[recording])
        for begin, end in zip((pairs[:-1] + 1).tolist(), pairs[1:].tolist(), strict=True):
            size = (end[0] - begin[0]) * (end[1] - begin[1])
            if 0 < size <= LARGEST_GAP and not self.placement.is_placed[begin[1] : end[1]].any():
                self._align(recording, chain, begin, end)
            elif size:
                self._align_from_begin(recording, chain, begin, end)
                self._align_from_end(recording, chain, begin, end)
        self._align_from_end(recording, chain, [0, 0], pairs[0].tolist())
        self._align_from_begin(recording, chain, (pairs[-1] + 1).tolist(), [count, words])

    def _align(self, recording: int, chain: int, begin: list[int], end: list[int], **how: bool) -> None:
        """Aligns words heard, from the first number to before the second, with words of the text."""
        some, words = self._recordings[recording].plain[begin[0] : end[0]], self._text.plain[begin[1] : end[1]]
        for one in align(some, words, **how):
            heard, text = begin[0] + np.array(one[:2]), begin[1] + np.array(one[2:4])
            self.put(recording, chain, Match(*heard.tolist(), *text.tolist(), one.likeness))

    def _align_from_begin(self, recording: int, chain: int, begin: list[int], end: list[int]) -> None:
        free = ~self._used[recording][begin[0] : end[0]], ~self.placement.is_placed[begin[1] : end[1]]
        reached = [first + min(_leading(one[:REACH]), REACH) for first, one in zip(begin, free, strict=True)]
        self._align(recording, chain, begin, reached, open_end=True)

    def _align_from_end(self, recording: int, chain: int, begin: list[int], end: list[int]) -> None:
        free = ~self._used[recording][begin[0] : end[0]], ~self.placement.is_placed[begin[1] : end[1]]
        reached = [last - min(_leading(one[::-1][:REACH]), REACH) for last, one in zip(end, free, strict=True)]
        self._align(recording, chain, reached, end, open_begin=True)

    def settle(self) -> None:
        """Moves the ends of words to the pauses of the sound."""
        placement, text = self.placement, self._text
        for number, heard in enumerate(self._recordings):
            words = np.flatnonzero(placement.recording == number)
            others = np.flatnonzero(~self._used[number])
            marked = [ends_phrase(text.text[text.ends[word] - 1]) for word in words.tolist()]
            columns = (placement.start, heard.start), (placement.end, heard.end)
            times = np.stack([np.concatenate([mine[words], theirs[others]]) for mine, theirs in columns], axis=1)
            order = np.lexsort([times[:, 1], times[:, 0]])
            moved = times[order]
            put_pauses_between(
                moved, np.concatenate([np.array(marked, bool), heard.marked[others]])[order], heard.pauses
            )
            times[order] = moved
            for column, (mine, theirs) in enumerate(columns):
                mine[words], theirs[others] = times[: len(words), column], times[len(words) :, column]

    def forget_chance(self) -> None:
        """Takes back words around which hardly any was heard as it is written, that take too long, or that are the
        first or last of a run and not alike: the run may have ended before them."""
        placement, window = self.placement, np.ones(2 * AROUND + 1)
        weight = self._text.lengths * placement.is_placed
        beside = slice(AROUND, -AROUND)
        alike, all_around = (np.convolve(one, window)[beside] for one in (weight * placement.likeness, weight))
        too_long = placement.end - placement.start > SLOWEST * self._expected() + SLOW
        placement.take_back(placement.is_placed & ((alike < UNLIKE * all_around) | too_long))
        unlike = placement.is_placed & (placement.likeness < LIKE)
        for order in (slice(None), slice(None, None, -1)):
            chain, doubtful = placement.chain[order], unlike[order]
            begins = np.diff(chain, prepend=-1) != 0
            for place in np.flatnonzero(begins & doubtful).tolist():
                while place < len(chain) and doubtful[place]:
                    chain[place], place = -1, place + 1
        placement.take_back(placement.is_placed & (placement.chain < 0))

    def _expected(self) -> np.ndarray:
        """(W,) seconds that each word should take."""
        placement, lengths = self.placement, self._text.lengths
        sure = placement.likeness == 1
        return (placement.end - placement.start)[sure].sum() / max(lengths[sure].sum(), 1) * lengths

    def keep(self, known: Placement) -> None:
        """Puts words where they are known to be, and takes back those that contradict them."""
        placement, fixed = self.placement, known.is_placed
        order = np.flatnonzero(fixed)
        before, after = (
            np.searchsorted(order, np.arange(len(fixed)), "right") - 1,
            np.searchsorted(order, range(len(fixed))),
        )
        for beside, other, sign in ((before, known.end, 1), (after, known.start, -1)):
            exists = (beside >= 0) & (beside < len(order))
            word = order[np.clip(beside, 0, max(len(order) - 1, 0))] if len(order) else np.zeros(len(fixed), int)
            edge = placement.start if sign > 0 else placement.end
            wrong = (known.recording[word] != placement.recording) | (sign * (edge - other[word]) < -SLACK)
            placement.take_back(placement.is_placed & exists & ~fixed & wrong)
            bound = exists & ~fixed & placement.is_placed
            limit = np.maximum if sign > 0 else np.minimum
            for times in (placement.start, placement.end):
                times[bound] = limit(times[bound], other[word[bound]])
        for name in ("recording", "start", "end", "likeness"):
            getattr(placement, name)[fixed] = getattr(known, name)[fixed]
        placement.chain = placement.recording.copy()  # an article is read in its order
        for number in range(len(self._recordings)):
            self._align_between(number, np.flatnonzero(placement.recording == number), fixed)

    def _align_between(self, recording: int, words: np.ndarray, fixed: np.ndarray) -> None:
        """Aligns what was heard between placed words with what is written there.

        Args:
            recording: number of the recording.
            words: that are placed in it.
            fixed: (W,) bool, of which the times are known and not heard.
        """
        placement, heard = self.placement, self._recordings[recording]
        middles = np.maximum.accumulate((heard.start + heard.end) / 2) if len(heard) else np.zeros(0)
        first, last = (np.searchsorted(middles, times[words]) for times in (placement.start, placement.end))
        known = fixed[words]
        placement.first[words[known]] = np.where(last > first, first, -1)[known]
        placement.last[words[known]] = np.where(last > first, last, -1)[known]
        gaps = zip(words[:-1].tolist(), words[1:].tolist(), last[:-1].tolist(), first[1:].tolist(), strict=True)
        for before, after, begin, end in gaps:
            between = slice(before + 1, after)
            if after - before < 2 or placement.is_placed[between].any() or not 0 < end - begin < LONGEST_BETWEEN:
                continue
            self._align(recording, recording, [begin, before + 1], [end, after])
            limits = placement.end[before], placement.start[after]
            for times in (placement.start, placement.end):
                np.clip(times[between], *limits, out=times[between])

    def fill_holes(self, known: Placement | None = None) -> None:
        """Places words of which nothing was heard between two that were, if there is as much time as they take."""
        placement, text = self.placement, self._text
        placed = np.flatnonzero(placement.is_placed)
        expected = self._expected()
        spare = np.maximum(0, placement.end - placement.start - expected)
        if known is not None:
            spare[known.is_placed] = 0
        holes = np.flatnonzero(np.diff(placed) > 1)
        for before, after in zip(placed[holes].tolist(), placed[holes + 1].tolist(), strict=True):
            in_row = placement.first[after] == placement.last[before]  # nothing else was heard between them
            is_sure = known is not None
            longest = LONGEST_KNOWN_HOLE if is_sure else LONGEST_HOLE
            if placement.chain[before] != placement.chain[after] or after - before > longest + 1:
                continue
            if not in_row and not is_sure:
                continue
            words, recording = slice(before + 1, after), placement.recording[before]
            start, end, needed = placement.end[before], placement.start[after], expected[before + 1 : after].sum()
            sounding = self._recordings[recording].sounding(start, end)
            hidden = spare[before] + spare[after]  # the model counts a word that it leaves out to those beside it
            if not LEAST * needed - SLACK <= sounding + hidden or not sounding <= MOST * needed + SLACK:
                continue
            share = min(1.0, max(0.0, needed - sounding) / hidden) if hidden else 0.0
            placement.end[before] = start = start - share * spare[before]
            placement.start[after] = end = end + share * spare[after]
            times = self._recordings[recording].shared(start, end, text.lengths[words])
            placement.start[words], placement.end[words] = times
            placement.recording[words], placement.chain[words] = recording, placement.chain[before]
            if placement.last[before] >= 0 and placement.first[after] >= 0:
                placement.first[words], placement.last[words] = placement.last[before], placement.first[after]


def _leading(flags: np.ndarray) -> int:
    """How many are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))
