"""Whether what the decoder writes when it is shown phrases can be believed, given what it writes without them.

Phrases in the prompt can make the decoder repeat them, skip speech, write one of them for something else that is said,
or other words than without them.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from cwjax.inference.phrases import NEARBY, occurrences, shown
from cwjax.inference.transcript import Word

SKIPPED = 8
"""Tokens: a name that is misheard takes fewer more than the name."""
ECHOED = 3
"""So many phrases in a row, as the decoder was shown them, are a repeated prompt, unless they were heard in a row."""


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


def writes_more(phrases: Sequence[Word], plain: str, informed: str) -> bool:
    """Whether any of the phrases stands more often in what the decoder writes when it is shown them, or more often with
    the capitals that it is listed with."""
    return any(_count(one.text, informed) > _count(one.text, plain) for one in phrases)


def _count(phrase: str, text: str) -> int:
    found = occurrences(phrase, text)
    return len(found) + sum(text[one.start : one.stop] == phrase for one in found)
