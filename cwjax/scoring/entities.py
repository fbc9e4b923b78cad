"""Named entities as ContextASR-Bench counts them (Wang et al. 2025, arXiv 2507.05727): NE-WER and NE-FNR.

NE-FNR is the share of the reference's entities that the hypothesis does not spell exactly. For NE-WER, what the
hypothesis has of each entity is looked for with up to half of its words wrong; the words found, in their order, are
compared with those of the reference's entities: of equally few errors a substitution is chosen before a deletion, and
that before an insertion.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from cwjax.scoring.alignment import edits

COLUMNS = ("entity_sub", "entity_del", "entity_ins", "entity_words", "entities_missed", "entities", "left_out")


def entity_errors(
    references: Sequence[str], hypotheses: Sequence[str], entities: Sequence[Sequence[str]]
) -> np.ndarray:
    """Counts of each utterance, (B, 7) int: the `COLUMNS`. One whose reference lacks one of its entities is left out.

    Args:
        references, hypotheses, entities: normalised; at least one utterance.
    """
    said_words, heard_words, shares = [], [], []
    for reference, hypothesis, own in zip(references, hypotheses, entities, strict=True):
        left_out = any(entity not in reference for entity in own)
        said, heard = reference.split(), hypothesis.split()
        of_reference = [] if left_out else _exact(said, own, None)
        hits = [] if left_out else _exact(heard, own, Counter(of_reference))
        said_words.append(" ".join(of_reference).split())
        heard_words.append([] if left_out else " ".join(_alike(heard, own)).split())
        shares.append((len(of_reference) - len(hits), len(of_reference), left_out))
    counts = edits(said_words, heard_words, substitution=1, gap=1, gap_in_first=False).counts()
    return np.concatenate([counts.T, np.array(shares, int)], axis=1)


def _exact(words: Sequence[str], entities: Sequence[str], most: Counter[str] | None) -> list[str]:
    """Entities as they stand in a text, shorter first where two begin at once; of each at most so many if limited."""
    found: list[tuple[int, int, str]] = []
    count: Counter[str] = Counter()
    tokens = [(entity.split(), entity) for entity in entities]
    for start in range(len(words)):
        for own, entity in tokens:
            fits = start + len(own) <= len(words) and list(words[start : start + len(own)]) == own
            if fits and not (most and count[entity] >= most[entity]):
                count[entity] += 1
                found.append((start, len(own), entity))
    return [entity for _, _, entity in sorted(found, key=lambda one: one[:2])]


def _alike(words: Sequence[str], entities: Sequence[str]) -> list[str]:
    """What a text has of the entities, up to half of their words wrong, in its order."""
    found: list[tuple[int, str]] = []
    for entity in entities:
        own = entity.split()
        wrong = (len(own) + 1) // 2 - 1
        lengths = [len(own), *range(len(own) - 1, max(1, len(own) - wrong) - 1, -1)]
        lengths += range(len(own) + 1, len(own) + wrong + 1)
        start = 0
        while own and start < len(words):
            after = start + 1
            for length in lengths:
                window = words[start : start + length]
                if start + length > len(words):
                    break
                if Levenshtein.distance(window, own) > wrong:
                    continue
                text = " ".join(window)
                after = start + length
                if exact := re.search(re.escape(entity), text):
                    after -= len(text[exact.end() :].split())
                found.append((start, entity if exact else text))
                break
            # A find can give back its own beginning, if the entity is part of its first word: on to the next word.
            start = max(after, start + 1)
    ordered = sorted(found, key=lambda one: (one[0], len(one[1].split())))
    return [text for _, text in dict.fromkeys(ordered)]
