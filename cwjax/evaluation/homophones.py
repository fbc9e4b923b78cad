"""Words that sound the same: how often a transcript spells the one that was meant.

Sound cannot decide between *sail* and *sale*; whoever decides rightly more often than by chance has
understood something else.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.evaluation.transcription import Transcription
from cwjax.evaluation.word_errors import WordErrors, align, count_errors, normalise

CONFIDENCE_95 = 1.959964


@dataclass(frozen=True)
class Homophones:
    """Which word each article of a corpus is about.

    Attributes:
        words: article identifier -> the word that is meant there.
        partners: article identifier -> the word that sounds the same.
    """

    words: dict[str, str]
    partners: dict[str, str]

    @classmethod
    def read(cls, path: str | Path) -> "Homophones":
        """Reads `homophones.json`: {"articles": {identifier: {"word": "sail", "partner": "sale"}}}.

        Raises:
            CwjaxError: the file is missing or something else.
        """
        try:
            articles = json.loads(Path(path).read_text(encoding="utf-8"))["articles"]
            words = {name: str(entry["word"]) for name, entry in articles.items()}
            partners = {name: str(entry["partner"]) for name, entry in articles.items()}
        except OSError as error:
            raise CwjaxError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise CwjaxError(f"{path}: lists no articles with a word and its partner ({error})") from error
        return cls(words, partners)


@dataclass(frozen=True)
class Decisions:
    """Homophones decided under one condition.

    Attributes:
        right: spelled as meant.
        partner: spelled as the word that sounds the same.
        count: all occurrences; the rest was heard as something else, or not at all.
        low, high: 95 % confidence interval of the share decided rightly.
    """

    right: int
    partner: int
    count: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Share decided rightly; 0 if there was nothing to decide."""
        return self.right / max(self.count, 1)


def partner_articles(homophones: Homophones, article: str) -> list[str]:
    """Articles about the word that sounds like this article's word."""
    partner = homophones.partners.get(article)
    return [name for name, word in homophones.words.items() if word == partner]


def decide(transcriptions: Sequence[Transcription], homophones: Homophones, condition: str) -> Decisions:
    """How the homophones were decided under a condition.

    The sentences of an article share one context and one voice, so they are no independent trials. The interval is
    Wilson's (1927) for a sample smaller by the design effect of the articles as clusters (Kish, Survey Sampling,
    1965): the variance of the share as a ratio over articles, by that of independent trials, at least 1.
    """
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    partner = 0
    for transcription in transcriptions:
        article = transcription.segment.article
        for said, heard in _decisions(transcription, homophones, condition):
            count[article] += 1
            right[article] += heard == said
            partner += heard == homophones.partners[article]
    low, high = clustered_interval([right[article] for article in count], list(count.values()))
    return Decisions(right.total(), partner, count.total(), low, high)


def shares_by_pair(transcriptions: Sequence[Transcription], homophones: Homophones, condition: str) -> dict[str, float]:
    """Share decided rightly of each pair of words, named "sail / sale"."""
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for transcription in transcriptions:
        article = transcription.segment.article
        for said, heard in _decisions(transcription, homophones, condition):
            pair = " / ".join(sorted((homophones.words[article], homophones.partners[article])))
            count[pair] += 1
            right[pair] += heard == said
    return {pair: right[pair] / count[pair] for pair in sorted(count)}


def errors_elsewhere(transcriptions: Sequence[Transcription], homophones: Homophones, condition: str) -> WordErrors:
    """Errors of all other words: whether context costs what it should not touch."""
    total = WordErrors()
    for transcription in transcriptions:
        total += count_errors(
            [
                (said, heard)
                for said, heard in _aligned(transcription, condition)
                if not _is_decision(said, transcription, homophones)
            ]
        )
    return total


def clustered_interval(right: Sequence[int], count: Sequence[int]) -> tuple[float, float]:
    """95 % confidence interval of sum(right) / sum(count), where each entry is one cluster of trials."""
    total, clusters = sum(count), len(count)
    if not total:
        return 0.0, 1.0
    share = sum(right) / total
    effect = 1.0
    if clusters > 1 and 0 < share < 1:
        between = sum((hits - share * trials) ** 2 for hits, trials in zip(right, count, strict=True))
        variance = clusters / (clusters - 1) * between / total**2
        effect = max(1.0, variance / (share * (1 - share) / total))
    size, z = total / effect, CONFIDENCE_95
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _aligned(transcription: Transcription, condition: str) -> list[tuple[str | None, str | None]]:
    return align(normalise(transcription.segment.text), normalise(transcription.hypotheses[condition]))


def _is_decision(said: str | None, transcription: Transcription, homophones: Homophones) -> bool:
    article = transcription.segment.article
    return said is not None and said == homophones.words.get(article)


def _decisions(
    transcription: Transcription, homophones: Homophones, condition: str
) -> Iterator[tuple[str | None, str | None]]:
    for said, heard in _aligned(transcription, condition):
        if _is_decision(said, transcription, homophones):
            yield said, heard
