"""Word error rates of listed rare words and of all others: B-WER and U-WER (Le et al. 2021, Interspeech).

As `is21_deep_bias/score.py` of facebookresearch/fbai-speech counts: insertions and deletions cost 3, substitutions 4;
of equally cheap steps side by side comes before an insertion, and that before a deletion. An error is the listed words'
if the reference word is listed, or, of an inserted word, if it is itself.
"""

from collections.abc import Collection, Sequence

import numpy as np

from cwjax.scoring.alignment import edits, padded

COLUMNS = tuple(f"{kind}_{what}" for kind in ("other", "listed") for what in ("sub", "del", "ins", "words"))


def biased_errors(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]], listed: Sequence[Collection[str]]
) -> np.ndarray:
    """Counts of each utterance, (B, 8) int: the `COLUMNS`."""
    if not references:
        return np.zeros((0, len(COLUMNS)), int)
    found = edits(references, hypotheses, substitution=4, gap=3, gap_in_first=True)
    said_listed, heard_listed = (
        padded([[word in rare for word in words] for words, rare in zip(texts, listed, strict=True)], 0)
        for texts in (references, hypotheses)
    )
    pair = np.arange(len(references))
    is_listed = np.where(found.said, said_listed[pair, found.row], heard_listed[pair, found.column]) > 0
    return np.concatenate([found.counts(~is_listed), found.counts(is_listed)]).T
