"""Where in a long text something heard is likely to stand: runs of words that both have and that are rare in the text.

Chance matches are told from true ones by what follows: true ones go on in step. The best chains of matches are found as
aligners of genomes find theirs (Li 2018, minimap2, section 2.1): each match continues the best of the matches before it
that it is in step with, at a cost that grows with the words left out between them, or, at a higher cost, begins anew
anywhere in the text, for chapters may be read in any order.
"""

from collections.abc import Sequence

import numpy as np

RUN, LONGEST_RUN = 3, 8
"""Words of a match; more where that many rarely occur but once in the text, as in scripts without spaces."""
MOST_PLACES = 4
"""Runs that occur more often in the text tell nothing."""
LOOK_BACK = 100
"""Matches before one that it may continue."""
SKIP_COST, JUMP_COST = 0.5, 8.0
"""In words: for each doubling of the words left out on one side, and for going on anywhere in the text."""
SMALLEST_CHAIN = 12
"""Words that a chain has to have in common with the text, beyond what its gaps cost; half of a shorter text's."""

Pairs = np.ndarray
"""(N, 2) int: numbers of words heard and of the same words in the text, both ascending."""


def chains(heard: Sequence[str], text: Sequence[str]) -> list[Pairs]:
    """The stretches of the text that are heard, in the order in which they are.

    Args:
        heard: words, as `cwjax.alignment.written.plain` has them.
        text: words in the same form.
    """
    places, run = _matches(heard, text)
    if not len(places):
        return []
    score, before, jumped = _best_chains(places, run)
    found, end = [], int(np.argmax(score))
    chain = [end]
    while before[end] >= 0:
        if jumped[end]:
            found.append(chain)
            chain = []
        end = int(before[end])
        chain.append(end)
    found.append(chain)
    words = (_words(places[one[::-1]], run) for one in reversed(found))
    return [one for one in words if len(one) and _worth(one) >= min(SMALLEST_CHAIN, len(text) / 2)]


def _matches(heard: Sequence[str], text: Sequence[str]) -> tuple[np.ndarray, int]:
    """(N, 2) int: where runs of words begin in what is heard and in the text, ordered; and how long the runs are."""
    numbers: dict[str, int] = {}
    ids = [np.array([numbers.setdefault(word, len(numbers)) for word in words], np.uint64) for words in (text, heard)]
    for run in range(RUN, LONGEST_RUN + 1):
        text_keys, heard_keys = (_runs(words, run) for words in ids)
        order = np.argsort(text_keys, kind="stable")
        ordered = text_keys[order]
        first = np.searchsorted(ordered, heard_keys, "left")
        count = np.searchsorted(ordered, heard_keys, "right") - first
        known = count > 0
        if not known.any() or (count[known] <= MOST_PLACES).mean() >= 0.5:
            break
    count[count > MOST_PLACES] = 0
    heard_place = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(heard_place)) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([heard_place, order[np.repeat(first, count) + within]], axis=1), run


def _runs(ids: np.ndarray, run: int) -> np.ndarray:
    """A number for every run of so many words, equal for equal ones."""
    count = max(len(ids) - run + 1, 0)
    keys = np.zeros(count, np.uint64)
    for place in range(run):
        keys = (keys ^ (ids[place : place + count] + np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _best_chains(places: np.ndarray, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each match the score of the best chains that end with it, the match before it, -1: none, and whether a new
    chain begins with it."""
    count = len(places)
    score = np.full(count, float(run))
    before = np.full(count, -1)
    jumped = np.zeros(count, bool)
    best, ended = -1, 0  # the best of the matches that end before this one begins
    for number in range(1, count):
        while places[ended, 0] + run <= places[number, 0]:
            if best < 0 or score[ended] > score[best]:
                best = ended
            ended += 1
        if best >= 0 and score[best] > JUMP_COST:
            score[number], before[number], jumped[number] = score[best] - JUMP_COST + run, best, True
        earlier = slice(max(0, number - LOOK_BACK), number)
        steps = places[number] - places[earlier]
        nearer = steps.min(axis=1)
        cost = SKIP_COST * np.log2(1 + np.abs(steps[:, 0] - steps[:, 1]))
        total = np.where(nearer > 0, score[earlier] + np.minimum(nearer, run) - np.minimum(cost, JUMP_COST), -np.inf)
        chosen = int(np.argmax(total))
        if total[chosen] >= score[number]:
            score[number], before[number], jumped[number] = total[chosen], earlier.start + chosen, False
    return score, before, jumped


def _words(places: np.ndarray, run: int) -> Pairs:
    """The words of a chain's matches."""
    pairs = np.unique((places[:, None] + np.arange(run)[None, :, None]).reshape(-1, 2), axis=0)
    kept, last = [], np.array([-1, -1])
    for pair in pairs:
        if (pair > last).all():
            kept.append(pair)
            last = pair
    return np.array(kept)


def _worth(pairs: Pairs) -> float:
    """Words of a chain, beyond what its gaps cost."""
    steps = np.diff(pairs, axis=0)
    return len(pairs) - float((SKIP_COST * np.log2(1 + np.abs(steps[:, 0] - steps[:, 1]))).sum())
