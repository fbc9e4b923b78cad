"""Whether what the decoder writes when it is shown phrases can be believed, given what it writes without them.

Phrases in the prompt can make the decoder repeat them, skip speech, or write one of them for something else that is
said.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from cwjax.inference.phrases import NEARBY, Change, occurrences, shown
from cwjax.inference.transcript import Word

SKIPPED = 8
"""Tokens: a name that is misheard takes fewer more than the name."""
ECHOED = 3
"""So many phrases in a row, as the decoder was shown them, are a repeated prompt, unless they were heard in a row."""
UNLIKELY = 0.15
"""Probability up to which a phrase has to be likelier than what stands there without it."""
WORSE = 1.5
"""By how much less may speak for it, as a logit: other words are more usual, but the list was given for a reason."""
UNLIKE = -4.0
"""Logit below which a text is not what is said."""


def skips_speech(plain: Sequence[int], informed: Sequence[int]) -> bool:
    """Whether a text leaves out a stretch of what the decoder writes without phrases; both as text tokens."""
    changes = SequenceMatcher(None, plain, informed, autojunk=False).get_opcodes()
    return any((end - start) - (now_end - now_start) >= SKIPPED for _, start, end, now_start, now_end in changes)


def is_echo(text: str, phrases: Sequence[Word]) -> bool:
    """Whether a window's text repeats what the decoder was shown, and not a list that was said as such."""
    for run in zip(*(phrases[first:] for first in range(ECHOED)), strict=False):
        in_a_row = all(after.start - before.end < NEARBY for before, after in pairwise(run))
        if not in_a_row and shown(run).casefold() in text.casefold():
            return True
    return False


def unlikely_changes(plain: str, informed: str, phrases: Sequence[Word]) -> list[Change]:
    """Where a text has an unlikely phrase instead of other words of the text without phrases."""
    before, after = plain.split(), informed.split()
    changes = SequenceMatcher(None, *([_bare(word) for word in some] for some in (before, after)), autojunk=False)
    found = []
    for kind, start, end, now_start, now_end in changes.get_opcodes():
        old, new = " ".join(before[start:end]), " ".join(after[now_start:now_end])
        if kind != "equal":
            some = [phrase for phrase in phrases if phrase.probability < UNLIKELY and occurrences(phrase.text, new)]
            found += [Change(phrase, old, new) for phrase in some]
    return found


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())


def is_refuted(plain: float, informed: float) -> bool:
    """Whether a change cannot be believed, by the logits of what speaks for the text before and after it."""
    return informed < max(plain - WORSE, UNLIKE)
