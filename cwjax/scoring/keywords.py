"""Keyword precision, recall and F1 as OpenBench counts them (argmaxinc/OpenBench, Contextual Earnings-22).

Words are aligned as texterrors 0.5.1 does: two words side by side cost one and a half times the share of their bytes
that differ, a gap 1; of equally cheap steps side by side comes before a deletion, and that before an insertion.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from cwjax.scoring.alignment import align, numbered, padded, sizes

COLUMNS = ("keywords_right", "keywords_said", "keywords_invented")
_GAP = "<eps>"


def keyword_counts(
    references: Sequence[str], hypotheses: Sequence[str], keywords: Sequence[Sequence[str]]
) -> np.ndarray:
    """Counts of each utterance, (B, 3) int: the `COLUMNS`.

    Args:
        references, hypotheses: texts, normalised.
        keywords: of each utterance, normalised; one that ends in a space matches no word, as in OpenBench.
    """
    words = [[text.split() for text in texts] for texts in (references, hypotheses)]
    counts = [
        _counts(pairs, dict.fromkeys(own), max((len(one.split()) for one in own), default=0))
        for pairs, own in zip(align_by_spelling(*words), keywords, strict=True)
    ]
    return np.array(counts, int).reshape(-1, len(COLUMNS))


def align_by_spelling(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]
) -> list[list[tuple[str, str]]]:
    """Pairs of words of each utterance, "<eps>" for a gap."""
    if not references:
        return []
    (said, heard), words = numbered(references, hypotheses)
    costs = _spelling_costs(words, said, heard)
    said_words, heard_words = padded(said, 0), padded(heard, 0)
    steps = align(
        sizes(said, heard),
        lambda pair, row, column: costs(said_words[pair, row], heard_words[pair, column]),
        gap=1.0,
        gap_in_first=False,
    )
    return [
        [
            (first[row] if row >= 0 else _GAP, second[column] if column >= 0 else _GAP)
            for row, column in steps[::-1, number]
            if row >= 0 or column >= 0
        ]
        for number, (first, second) in enumerate(zip(references, hypotheses, strict=True))
    ]


def _spelling_costs(
    words: Sequence[str], said: Sequence[Sequence[int]], heard: Sequence[Sequence[int]]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Costs of words side by side, for those that meet in an utterance."""
    size = len(words)
    meeting = np.unique(
        np.concatenate(
            [
                np.array([one * size + other for one, other in product(set(first), set(second))], np.int64)
                for first, second in zip(said, heard, strict=True)
            ]
        )
    )
    own = np.array([[*divmod(int(one), size)] for one in meeting], int).reshape(-1, 2)
    spelled = [word.encode() for word in words]
    longest = np.array([max(len(spelled[first]), len(spelled[second])) for first, second in own])
    found = 1.5 * _differences(spelled, own) / np.maximum(longest, 1)

    def cost(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        places = np.searchsorted(meeting, first * size + second)
        return found[np.minimum(places, len(found) - 1)] if len(found) else np.zeros(places.shape)

    return cost


def _differences(spelled: Sequence[bytes], pairs: np.ndarray) -> np.ndarray:
    """Edits of words into others, (n,): on the path that is cheapest at 3 a gap and 4 a substitution."""
    counts = np.zeros(len(pairs))
    bytes_of = padded([list(word) for word in spelled], 0)
    length = np.array([len(word) for word in spelled])
    order = np.argsort(length[pairs].max(axis=1), kind="stable")  # words of one size together
    for chosen in np.array_split(order, len(order) // 4096 + 1):
        first, second = pairs[chosen].T

        def cost(pair: np.ndarray, row: np.ndarray, column: np.ndarray, f=first, s=second) -> np.ndarray:
            return 4 * (bytes_of[f[pair], row] != bytes_of[s[pair], column])

        steps = align(length[pairs[chosen]], cost, gap=3, gap_in_first=False)
        row, column = steps[..., 0], steps[..., 1]
        pair = np.broadcast_to(np.arange(len(chosen)), row.shape)
        same = (row >= 0) & (column >= 0) & (bytes_of[first[pair], row] == bytes_of[second[pair], column])
        counts[chosen] = (((row >= 0) | (column >= 0)) & ~same).sum(axis=0)
    return counts


def _counts(pairs: Sequence[tuple[str, str]], keywords: dict[str, None], longest: int) -> tuple[int, int, int]:
    right = said = invented = 0
    for first, second in pairs:
        said += first in keywords
        right += first in keywords and first == second
        invented += first not in keywords and second in keywords
    for side, other in ((0, 1), (1, 0)):
        spoken = [pair for pair in pairs if pair[side] != _GAP]
        for length in range(2, longest + 1):
            for start in range(len(spoken) - length + 1):
                own, beside = (" ".join(pair[one] for pair in spoken[start : start + length]) for one in (side, other))
                if own in keywords:
                    said += side == 0
                    right += side == 0 and own == beside
                    invented += side == 1 and own != beside
    return right, said, invented
