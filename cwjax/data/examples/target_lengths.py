"""How long the targets of a batch are: one of few lengths, the least that holds its longest target.

A length is a function of the numbers of the batch's examples, the same in every process, so none has to ask another:
what a window needs at most is known before, and which examples have text before them from the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cwjax.data.examples.windows import TrainingWindows

_BLOCK = 4096


@dataclass(frozen=True)
class TargetLengths:
    """The lengths of targets in a run.

    Attributes:
        windows: of every example, by the example's number.
        prompt: tokens around a transcript.
        longest_previous: tokens of text before it.
        lengths: to choose from, rising; the last holds every target.
        previous_text: probability that an example has text before it.
        seed: of the run.
    """

    windows: TrainingWindows
    prompt: int
    longest_previous: int
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
        longest = min(max(map(self._needed, range(first, first + count))), self.lengths[-1])
        return next(length for length in self.lengths if length >= longest)

    def _needed(self, number: int) -> int:
        """Tokens that an example's target needs, at most."""
        window = self.windows[number]
        previous = min(self.windows.tokens_before(window), self.longest_previous) if self.has_previous(number) else 0
        return self.prompt + self.windows.tokens(window) + (1 + previous if previous else 0)


@lru_cache(maxsize=8)
def _draws(seed: int, block: int) -> np.ndarray:
    """Uniform numbers of a block of examples; a generator for each would be slow."""
    return np.random.default_rng((seed, block)).random(_BLOCK)


def lengths_up_to(longest: int, shorter: Sequence[int]) -> tuple[int, ...]:
    """The lengths to choose from: `longest`, and those of `shorter` below it."""
    return (*sorted({length for length in shorter if length < longest}), longest)
