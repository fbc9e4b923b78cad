"""The measures of a scoring: each counts a few things of an utterance, and its rates are ratios of sums of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cwjax.scoring import biased_errors, entities, keywords
from cwjax.scoring.homophones import decisions
from cwjax.scoring.mean_word_errors import mean_word_errors
from cwjax.scoring.normalisers import joined_characters, language_code, normaliser
from cwjax.scoring.readers import Utterance
from cwjax.scoring.word_errors import errors_by_place


@dataclass(frozen=True)
class Rate:
    """A figure: the sum of some columns over that of others.

    Attributes:
        name: as printed.
        over, under: columns that are added up, above and below the line; one may be there twice.
        errors: substitutions, deletions, insertions: columns that are shown beside it.
    """

    name: str
    over: tuple[str, ...]
    under: tuple[str, ...]
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Texts:
    """Utterances and their normalised words."""

    utterances: Sequence[Utterance]
    said: list[list[str]]
    heard: list[list[str]]
    normaliser: str
    places: list[np.ndarray]
    """Filled by `wer`: the errors at each reference word."""


@dataclass(frozen=True)
class Measure:
    """What is counted, and the rates that follow.

    Attributes:
        columns: names of the counts.
        count: the counts of utterances, (B, columns).
        rates: of these columns.
        field: what an utterance must have for it to be counted; empty: nothing.
    """

    columns: tuple[str, ...]
    count: Callable[[Texts], np.ndarray]
    rates: tuple[Rate, ...]
    field: str = ""


def _wer(texts: Texts) -> np.ndarray:
    counts = []
    for said, heard in zip(texts.said, texts.heard, strict=True):
        errors, places = errors_by_place(said, heard)
        counts.append((errors.substitutions, errors.deletions, errors.insertions, errors.reference_words))
        texts.places.append(places)
    return np.array(counts, int).reshape(-1, 4)


def _cer(texts: Texts) -> np.ndarray:
    counts = []
    for utterance, *both in zip(texts.utterances, texts.said, texts.heard, strict=True):
        errors, _ = errors_by_place(*(joined_characters(words, utterance.language) for words in both))
        counts.append((errors.substitutions, errors.deletions, errors.insertions, errors.reference_words))
    return np.array(counts, int).reshape(-1, 4)


def _mean_wer(texts: Texts) -> np.ndarray:
    return np.array([(mean_word_errors(one.reference, one.hypothesis), 1) for one in texts.utterances], float)


def _listed(texts: Texts) -> np.ndarray:
    listed = [
        {part for word in one.bias_words for part in normaliser(texts.normaliser, one.language)(word).split()}
        for one in texts.utterances
    ]
    return biased_errors.biased_errors(texts.said, texts.heard, listed)


def _entities(texts: Texts) -> np.ndarray:
    said, heard, named = [], [], []
    for one in texts.utterances:
        normalise = normaliser("contextasr", "zh" if language_code(one.language) == "zh" else "en")
        said.append(normalise(one.reference))
        heard.append(normalise(one.hypothesis))
        named.append([normalise(entity) for entity in one.entities])
    return entities.entity_errors(said, heard, named)


def _keywords(texts: Texts) -> np.ndarray:
    basic = normaliser("basic", "")
    return keywords.keyword_counts(
        [basic(one.reference) for one in texts.utterances],
        [basic(one.hypothesis) for one in texts.utterances],
        [[basic(keyword) for keyword in one.keywords] for one in texts.utterances],
    )


def _homophones(texts: Texts) -> np.ndarray:
    counts = []
    for one in texts.utterances:
        found = list(decisions(one.reference, one.hypothesis, *one.homophone, one.language))
        counts.append((sum(right for right, _ in found), len(found)))
    return np.array(counts, int)


def _edits(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{what}" for what in ("sub", "del", "ins"))


def _error_rate(name: str, *prefixes: str) -> Rate:
    over = tuple(column for prefix in prefixes for column in _edits(prefix))
    return Rate(name, over, tuple(f"{prefix}_words" for prefix in prefixes), errors=_edits(prefixes[0]))


MEASURES: dict[str, Measure] = {
    "wer": Measure((*_edits("word"), "word_words"), _wer, (_error_rate("WER", "word"),)),
    "cer": Measure((*_edits("character"), "character_words"), _cer, (_error_rate("CER", "character"),)),
    "mean-wer": Measure(
        ("utterance_rate", "utterance"), _mean_wer, (Rate("mean WER", ("utterance_rate",), ("utterance",)),)
    ),
    "b-wer": Measure(
        biased_errors.COLUMNS,
        _listed,
        (
            Rate("is21 WER", biased_errors.COLUMNS[:3] + biased_errors.COLUMNS[4:7], ("other_words", "listed_words")),
            _error_rate("U-WER", "other"),
            _error_rate("B-WER", "listed"),
        ),
        "bias_words",
    ),
    "entities": Measure(
        entities.COLUMNS,
        _entities,
        (_error_rate("NE-WER", "entity"), Rate("NE-FNR", ("entities_missed",), ("entities",))),
        "entities",
    ),
    "keywords": Measure(
        keywords.COLUMNS,
        _keywords,
        (
            Rate("precision", ("keywords_right",), ("keywords_right", "keywords_invented")),
            Rate("recall", ("keywords_right",), ("keywords_said",)),
            Rate(
                "F1",
                ("keywords_right", "keywords_right"),
                ("keywords_said", "keywords_right", "keywords_invented"),
            ),
        ),
        "keywords",
    ),
    "homophones": Measure(
        ("homophones_right", "homophones"),
        _homophones,
        (Rate("homophones", ("homophones_right",), ("homophones",)),),
        "homophone",
    ),
}
"""By the name that `--measures` takes."""
