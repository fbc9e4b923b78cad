"""How long the targets of a batch are: one of few lengths, the least that holds its longest target.

A length is a function of the numbers of the batch's examples, the same in every process, so none has to ask another:
what a window needs at most is known from the index, and which examples have text before them from the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_BLOCK = 4096


@dataclass(frozen=True)
class TargetLengths:
    """The lengths of targets in a run.

    Attributes:
        order: the window of every example, by the example's number.
        needed: (windows, 2), tokens that a window's target needs at most, without and with text before it.
        lengths: to choose from, rising; the last holds every target.
        previous_text: probability that an example has text before it.
        seed: of the run.
    """

    order: Sequence[int]
    needed: np.ndarray
    lengths: tuple[int, ...]
    previous_text: float
    seed: int

    def has_previous(self, number: int) -> bool:
        """Whether an example has the text before it in its prompt."""
        return bool(self.previous_text and _draws(self.seed, number // _BLOCK)[number % _BLOCK] < self.previous_text)

    def of_batch(self, first: int, count: int) -> int:
        """The length for a batch of so many examples over all processes, the first of which has this number."""
        if len(self.lengths) == 1:
            return self.lengths[0]
        longest = max(
            self.needed[self.order[number], int(self.has_previous(number))] for number in range(first, first + count)
        )
        return next(length for length in self.lengths if length >= longest)


@lru_cache(maxsize=8)
def _draws(seed: int, block: int) -> np.ndarray:
    """Uniform numbers of a block of examples; a generator for each would be slow."""
    return np.random.default_rng((seed, block)).random(_BLOCK)


def lengths_up_to(longest: int, shorter: Sequence[int]) -> tuple[int, ...]:
    """The lengths to choose from: `longest`, and those of `shorter` below it."""
    return (*sorted({length for length in shorter if length < longest}), longest)
