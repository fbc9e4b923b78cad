"""How far a figure can be trusted: intervals of rates, and tests of differences, from what is independent.

Sentences of one speaker or one recording fail together, so the independent trials are *clusters* of utterances. Every
figure is a ratio of sums over clusters, shares no less than error rates, and its interval is the studentised
bootstrap's (Davison & Hinkley 1997, section 5.2), which keeps its 95 % with skewed errors. Where errors, or what is
right, are in a few clusters only, resamples often lack what makes the difference: what the bootstrap calls 95 % covers
76 to 87 %, or reaches absurdly far. There the interval is Wilson's (1927) for a sample smaller by the clusters' design
effect (Kish 1965), with Student's quantile. A difference of two rates on the same utterances has the interval of the
symmetric studentised bootstrap, and the p-value of the wild cluster bootstrap (Cameron, Gelbach & Miller 2008).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

RESAMPLES = 1000
CONFIDENCE = 0.95
TELLING = 20
"""Clusters with something wrong, and with something right, from which on a bootstrap can tell how rare that is."""
FEWEST = 6
"""Clusters from which on that of a difference has enough different resamples; with fewer, Student's t."""
MOST = 2000
"""Clusters beyond which they are put together at random, which leaves them independent and saves time."""
_AT_ONCE = 4_000_000
"""Weights drawn at a time."""


def cluster_sums(counts: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Counts added up over each cluster.

    Args:
        counts: (n, c).
        clusters: of each utterance, (n,) int from 0.

    Returns:
        (k, c) float64.
    """
    sums = np.zeros((clusters.max(initial=-1) + 1, counts.shape[1]))
    np.add.at(sums, clusters, counts)
    return sums


def rate_intervals(errors: np.ndarray, words: np.ndarray, seed: int = 0) -> np.ndarray:
    """95 % intervals of sum(errors) / sum(words) where each row is a cluster: (k, r) and (k, r) -> (r, 2).

    "Errors" may be whatever is counted, such as words that are right. Where all clusters agree, at 0 or 1, words are
    taken as independent. Of no words, anything is possible.
    """
    errors, words = (_pooled(one) for one in (errors, words))
    clusters = len(errors)
    with np.errstate(all="ignore"):
        rate = errors.sum(0) / words.sum(0)
        spread = _deviation((errors - rate * words) / words.sum(0))
        drawn = [np.full((1, len(rate)), np.nan)]
        for weights in _multinomial(clusters, seed):
            total = weights @ words
            again = weights @ errors / total
            squares = weights @ errors**2 - 2 * again * (weights @ (errors * words)) + again**2 * (weights @ words**2)
            deviation = np.sqrt(clusters / (clusters - 1) * np.maximum(squares, 0)) / total
            drawn.append((again - rate) / deviation)
    studentised = np.concatenate(drawn)
    telling = np.minimum((errors > 0).sum(0), (errors != words).sum(0))
    found = np.empty((len(rate), 2))
    for column, (own, scale) in enumerate(zip(rate, spread, strict=True)):
        total, counted = words[:, column].sum(), int(((errors + words)[:, column] > 0).sum())
        seen = studentised[np.isfinite(studentised[:, column]), column]
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, counted - 1) if counted > 1 else stats.norm.ppf((1 + CONFIDENCE) / 2)
        if not total:
            low, high = 0.0, math.inf
        elif telling[column] >= TELLING and len(seen) > RESAMPLES // 2:
            upper, lower = np.quantile(seen, [(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2])
            low, high = own - upper * scale, own - lower * scale
        elif own > 1:
            low, high = own - reach * scale, own + reach * scale
        else:
            effect = max(1.0, scale**2 * total / (own * (1 - own))) if 0 < own < 1 else 1.0
            low, high = _wilson(own, total / effect, reach)
        most = 1.0 if (errors <= words)[:, column].all() else math.inf
        found[column] = max(low, 0.0), min(high, most) if total else high
    return found


def share_interval(right: Sequence[float], count: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the share sum(right) / sum(count), where each entry is one cluster of trials."""
    low, high = rate_intervals(*(np.asarray(one, float).reshape(-1, 1) for one in (right, count)))[0]
    return float(low), min(float(high), 1.0)


def difference(
    errors: tuple[np.ndarray, np.ndarray], words: tuple[np.ndarray, np.ndarray], seed: int = 0
) -> tuple[float, float, float, float]:
    """The second rate less the first, on the same clusters: difference, low, high, and p that there is none.

    Args:
        errors, words: of both, (k,) each.
    """
    errors, words = (tuple(_pooled(one[:, None])[:, 0] for one in both) for both in (errors, words))
    totals = [one.sum() for one in words]
    if len(errors[0]) < 2 or not all(totals):
        return math.nan, -math.inf, math.inf, 1.0
    rates = [one.sum() / total for one, total in zip(errors, totals, strict=True)]

    def influence(own: tuple[float, float]) -> np.ndarray:
        both = zip(errors, own, words, totals, strict=True)
        first, second = ((one - rate * size) / total for one, rate, size, total in both)
        return second - first

    apart = rates[1] - rates[0]
    free, equal = influence((rates[0], rates[1])), influence((sum(rates) / 2,) * 2)
    deviation = _deviation(free[:, None])[0]
    if deviation < 1e-15:
        return apart, apart, apart, float(abs(apart) < 1e-15)
    parts = np.stack([errors[0], words[0], errors[1], words[1]], axis=1)
    squares = (parts[:, :, None] * parts[:, None]).reshape(len(parts), -1)
    factor = len(free) / (len(free) - 1)
    signs = np.random.default_rng(seed)
    drawn, flipped = [], []
    with np.errstate(all="ignore"):
        for weights in _multinomial(len(free), seed):
            first, size, second, other = (weights @ parts).T
            weigh = np.stack([-1 / size, first / size**2, 1 / other, -second / other**2], axis=1)
            variance = factor * np.einsum("ba,bac,bc->b", weigh, (weights @ squares).reshape(-1, 4, 4), weigh)
            drawn.append(np.abs(second / other - first / size - apart) / np.sqrt(np.maximum(variance, 0)))
            sides = 2.0 * signs.integers(0, 2, size=weights.shape, dtype=np.int8) - 1
            flipped.append(np.abs(_t(sides @ equal, equal @ equal, len(free))))
    seen = np.concatenate(drawn)
    seen = seen[np.isfinite(seen)]
    student = len(free) < FEWEST or len(seen) <= RESAMPLES // 2
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(free) - 1) if student else np.quantile(seen, CONFIDENCE)
    beyond = np.concatenate(flipped) >= abs(_t(equal.sum(), equal @ equal, len(free))) - 1e-9
    p = float((1 + beyond.sum()) / (1 + RESAMPLES))
    return apart, apart - reach * deviation, apart + reach * deviation, p


def mapsswe(first: np.ndarray, second: np.ndarray, ends: np.ndarray) -> tuple[float, int]:
    """Matched pairs sentence-segment word error test (Gillick & Cox 1989; NIST's sclite) of two systems.

    A segment is a stretch with errors of either, bounded by two words that both have right or by the utterance's ends.
    Segments count as independent, so speakers or recordings that differ make it find differences too easily.

    Args:
        first, second: errors at each reference word and each utterance's end, of all utterances in a row, (n,) int.
        ends: where each utterance ends in these, (u,) int.

    Returns:
        The two-sided p-value that both err equally often, 1 for fewer than two segments; and how many segments.
    """
    wrong = np.flatnonzero(first + second)
    if not len(wrong):
        return 1.0, 0
    utterance = np.searchsorted(ends, wrong, side="right")
    new = (np.diff(wrong) > 2) | (np.diff(utterance) > 0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    apart = np.add.reduceat((first.astype(int) - second)[wrong], starts)
    deviation = apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    if not deviation:
        return float(apart.sum() == 0 or len(apart) < 2), len(apart)
    return float(math.erfc(abs(apart.mean()) / deviation / math.sqrt(2))), len(apart)


def _pooled(sums: np.ndarray) -> np.ndarray:
    """At most `MOST` clusters, (k, r) -> (k', r); the same go together at every call."""
    if len(sums) <= MOST:
        return sums
    return cluster_sums(sums, np.random.default_rng(0).permutation(len(sums)) % MOST)


def _deviation(influence: np.ndarray) -> np.ndarray:
    """Standard deviation of a sum of independent terms, (k, r) -> (r,)."""
    clusters = len(influence)
    return np.sqrt(clusters / max(clusters - 1, 1) * (influence**2).sum(0)) * (clusters > 1)


def _t(total: np.ndarray, squares: float, clusters: int) -> np.ndarray:
    left = np.maximum(squares - total**2 / clusters, 1e-300)
    return total / np.sqrt(clusters / (clusters - 1) * left)


def _wilson(share: float, size: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return centre - half, centre + half


def _multinomial(clusters: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is in a resample, (b, k) at a time."""
    generator = np.random.default_rng(seed)
    size = max(1, _AT_ONCE // max(clusters, 1))
    for first in range(0, RESAMPLES if clusters > 1 else 0, size):
        count = min(size, RESAMPLES - first)
        yield generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=count).astype(float)
