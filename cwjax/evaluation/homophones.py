"""Words that sound the same: how often a transcript spells the one that was meant.

Sound cannot decide between *sail* and *sale*; whoever decides rightly more often than by chance has
understood something else.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwjax.demo.homophones import HOMOPHONES_FILE
from cwjax.errors import CwjaxError
from cwjax.evaluation.transcription import Transcription
from cwjax.scoring.homophones import aligned, decisions, pair_name
from cwjax.scoring.uncertainty import share_interval
from cwjax.scoring.word_errors import WordErrors, count_errors


@dataclass(frozen=True)
class ArticleHomophones:
    """Which word each article of a corpus is about.

    Attributes:
        words: article identifier -> the word that is meant there.
        partners: article identifier -> the word that sounds the same.
    """

    words: dict[str, str]
    partners: dict[str, str]

    @classmethod
    def read(cls, path: str | Path) -> "ArticleHomophones":
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

    @classmethod
    def of_corpus(cls, directory: Path) -> "ArticleHomophones | None":
        """Those of a prepared corpus; None if it has none. Raises as `read` does."""
        path = directory / HOMOPHONES_FILE
        return cls.read(path) if path.exists() else None


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


def partner_articles(homophones: ArticleHomophones, article: str) -> list[str]:
    """Articles about the word that sounds like this article's word."""
    partner = homophones.partners.get(article)
    return [name for name, word in homophones.words.items() if word == partner]


def decide(transcriptions: Sequence[Transcription], homophones: ArticleHomophones, condition: str) -> Decisions:
    """How the homophones were decided under a condition.

    Voices, sentences and articles are made for a pair of words, and a model knows the pair or does not: the pairs are
    the independent trials, and the interval is over them.
    """
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    partner = 0
    for pair, is_right, is_partner in _decisions(transcriptions, homophones, condition):
        count[pair] += 1
        right[pair] += is_right
        partner += is_partner
    low, high = share_interval([right[pair] for pair in count], list(count.values()))
    return Decisions(right.total(), partner, count.total(), low, high)


def shares_by_pair(
    transcriptions: Sequence[Transcription], homophones: ArticleHomophones, condition: str
) -> dict[str, float]:
    """Share decided rightly of each pair of words, named "sail / sale"."""
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for pair, is_right, _ in _decisions(transcriptions, homophones, condition):
        count[pair] += 1
        right[pair] += is_right
    return {pair: right[pair] / count[pair] for pair in sorted(count)}


def errors_elsewhere(
    transcriptions: Sequence[Transcription], homophones: ArticleHomophones, condition: str
) -> WordErrors:
    """Errors of all other words, as they are spelled: whether context costs what it should not touch."""
    total = WordErrors()
    for one in transcriptions:
        word = homophones.words.get(one.segment.article)
        pairs = aligned(one.segment.text, one.hypotheses[condition], one.segment.language)
        total += count_errors([(said, heard) for said, heard in pairs if said is None or said != word])
    return total


def _decisions(
    transcriptions: Sequence[Transcription], homophones: ArticleHomophones, condition: str
) -> Iterator[tuple[str, bool, bool]]:
    """Of each homophone that was said: its pair, whether it was heard, whether its partner was."""
    for one in transcriptions:
        if (article := one.segment.article) in homophones.words:
            words = homophones.words[article], homophones.partners[article]
            for found in decisions(one.segment.text, one.hypotheses[condition], *words, one.segment.language):
                yield pair_name(*words), *found
