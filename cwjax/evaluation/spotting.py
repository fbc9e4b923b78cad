"""How sure a phrase spotter is, and how right: calibration and figures, on lists of all sizes."""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.models.phrase_spotter import (
    VERDICT,
    Found,
    PhraseSpotter,
    encode_phrases,
    evidence,
    find_all,
    normalized,
    probabilities,
    verdict,
)
from cwjax.spotting.batches import look_alike, said_words
from cwjax.spotting.states import EncodedWindow

log = logging.getLogger(__name__)

LIST_SIZES = (10, 30, 100, 500, 2000, 5000)
SAID = (0, 1, 1, 2, 3, 5)
"""How many phrases of a list are said in a window."""


@dataclass(frozen=True)
class Lists:
    """What was found of many phrases in many windows, from which lists of any size are made.

    Attributes:
        phrases: all.
        found: of all, arrays (B, P).
        lengths: (P,).
        said: for each window the columns of the phrases said in it.
        others: columns of phrases that are said nowhere.
        alike: columns of the look-alikes of phrases that are said, by column.
        near: for each window the columns that must not be counted for or against: contained in what is said.
        frames: of a window.
    """

    phrases: list[str]
    found: Found
    lengths: np.ndarray
    said: list[list[int]]
    others: list[int]
    alike: dict[int, int]
    near: list[set[int]]
    frames: int


def look_for_all(
    spotter: PhraseSpotter, windows: Sequence[EncodedWindow], words: tuple[str, ...], seed: int, others: int = 5000
) -> Lists:
    """Looks for all phrases said in any window, their look-alikes, and random ones."""
    chance = random.Random(f"{seed} lists")
    said = [sorted({normalized(phrase) for one in window.sentences for phrase in one.phrases}) for window in windows]
    phrases = dict.fromkeys(phrase for one in said for phrase in one)
    first_other = len(phrases)
    alike = {phrase: normalized(look_alike(phrase, words, chance)) for phrase in phrases}
    made = [
        " ".join(chance.choice(words) for _ in range(chance.choices((1, 2, 3), (80, 17, 3))[0])) for _ in range(others)
    ]
    phrases.update(dict.fromkeys([*alike.values(), *map(normalized, made)]))
    listed = list(phrases)
    encoded = encode_phrases(spotter, listed)
    look = nnx.jit(lambda spotter, states: find_all(spotter, states, encoded))
    found = [look(spotter, jnp.asarray(window.states[None], jnp.float32))[0] for window in windows]
    number = {phrase: column for column, phrase in enumerate(listed)}
    near = []
    for window in windows:
        joined = said_words(one.text for one in window.sentences).replace(" ", "")
        near.append({column for phrase, column in number.items() if phrase.replace(" ", "") in joined})
    arrays = Found(*(np.concatenate([np.asarray(one[part]) for one in found]) for part in range(3)))
    frames = -(-windows[0].states.shape[0] // 2)
    said_columns = [[number[phrase] for phrase in one] for one in said]
    rest = list(range(first_other, len(listed)))
    pairs = {number[phrase]: number[other] for phrase, other in alike.items()}
    return Lists(listed, arrays, np.asarray([len(one) for one in listed]), said_columns, rest, pairs, near, frames)


def make_list(lists: Lists, window: int, size: int, chance: random.Random) -> np.ndarray:
    """Columns of a list of so many phrases: up to five that are said, look-alikes of about a third of these, random
    others."""
    said = chance.sample(lists.said[window], min(len(lists.said[window]), size // 2, chance.choice(SAID)))
    shunned = {*lists.near[window], *lists.said[window]}
    alike = {lists.alike[column] for column in said if chance.random() < 0.3} - shunned
    rest = [column for column in lists.others if column not in shunned | alike]
    count = size - len(said) - len(alike)
    return np.array([*said, *sorted(alike), *chance.sample(rest, min(len(rest), max(0, count)))])


def calibrate(spotter: PhraseSpotter, windows: Sequence[EncodedWindow], words: tuple[str, ...], seed: int) -> None:
    """Sets the spotter's `evidence` and `verdict` by logistic regressions, on lists of several sizes."""
    lists = look_for_all(spotter, windows, words, seed)
    chance = random.Random(f"{seed} calibration")
    chosen = [(row, make_list(lists, row, size, chance)) for row in range(len(windows)) for size in 2 * LIST_SIZES]
    labels = [np.isin(columns, lists.said[row]) for row, columns in chosen]

    def of(row: int, columns: np.ndarray) -> tuple[Found, jax.Array]:
        return Found(*(jnp.asarray(part[row, columns])[None] for part in lists.found)), jnp.asarray(
            lists.lengths[columns]
        )

    seen = [np.asarray(evidence(*of(row, columns))[0]) for row, columns in chosen]
    spotter.evidence[...] = _logistic_regression(np.concatenate(seen), np.concatenate(labels))
    judge = jax.jit(lambda logits, found, different: verdict(logits, found, lists.frames, different))
    judged = [
        np.asarray(
            judge((jnp.asarray(one) @ spotter.evidence[...])[None], of(row, columns)[0], jnp.float32(len(columns)))[0]
        )
        for one, (row, columns) in zip(seen, chosen, strict=True)
    ]
    spotter.verdict[...] = _logistic_regression(np.concatenate(judged), np.concatenate(labels))
    log.info(
        "calibrated: evidence %s, verdict %s",
        spotter.evidence[...],
        dict(zip(VERDICT, spotter.verdict[...], strict=True)),
    )


def _logistic_regression(features: np.ndarray, labels: np.ndarray, penalty: float = 1e-2, steps: int = 60) -> jax.Array:
    """Newton's method with a small penalty: (n, f) and (n,) -> (f,) float32."""
    features, labels = features.astype(np.float64), labels.astype(np.float64)
    weights = np.zeros(features.shape[1])

    def loss(weights: np.ndarray) -> float:
        logits = features @ weights
        return float(np.sum(np.logaddexp(0, logits) - labels * logits) + penalty / 2 * weights @ weights)

    for _ in range(steps):
        probability = 0.5 * (1 + np.tanh(features @ weights / 2))
        gradient = features.T @ (probability - labels) + penalty * weights
        curvature = features.T @ (features * (probability * (1 - probability))[:, None]) + penalty * np.eye(
            len(weights)
        )
        move, size = np.linalg.solve(curvature, gradient), 1.0
        while loss(weights - size * move) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * move
    return jnp.asarray(weights, jnp.float32)


def measure(
    spotter: PhraseSpotter, windows: Sequence[EncodedWindow], words: tuple[str, ...], seed: int
) -> dict[str, float]:
    """Shares of said phrases among the likeliest, how far probabilities can be trusted, and false alarms."""
    lists = look_for_all(spotter, windows, words, seed)
    chance = random.Random(f"{seed} measure")
    judge = jax.jit(lambda found, lengths, different: probabilities(spotter, found, lengths, lists.frames, different))
    figures: dict[str, float] = {}
    for size in LIST_SIZES[2:]:
        ranks: list[int] = []
        given: list[tuple[np.ndarray, np.ndarray]] = []
        alarms, silent = 0, 0
        for row in range(len(windows)):
            columns = make_list(lists, row, size, chance)
            found = Found(*(jnp.asarray(part[row, columns])[None] for part in lists.found))
            probability = np.asarray(judge(found, jnp.asarray(lists.lengths[columns]), jnp.float32(len(columns)))[0])
            said = np.isin(columns, lists.said[row])
            others = np.sort(probability[~said])[::-1]
            # Others that are at least as likely.
            ranks += [int(np.searchsorted(-others, -one, side="right")) for one in probability[said]]
            given.append((probability, said))
            if not windows[row].sentences:
                silent, alarms = silent + 1, alarms + int((probability >= 0.5).sum())
        probability, said = (np.concatenate(part) for part in zip(*given, strict=True))
        sure = probability >= 0.9
        figures |= {
            **{f"recall in {first} of {size}": float(np.mean(np.array(ranks) < first)) for first in (1, 5, 20)},
            f"said of those given 0.9, of {size}": float(said[sure].mean()) if sure.any() else float("nan"),
            f"given 0.9 of those said, of {size}": float(sure[said].mean()),
            f"given 0.5 of those said, of {size}": float((probability >= 0.5)[said].mean()),
            f"not said but given 0.5 a window, of {size}": float(((probability >= 0.5) & ~said).sum() / len(windows)),
        }
        if silent:
            figures[f"alarms in a window without speech, of {size}"] = alarms / silent
    return {name: round(value, 4) for name, value in figures.items()}
