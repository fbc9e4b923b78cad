"""Training of a phrase spotter for a frozen Whisper: synthetic speech, contrast with look-alikes, calibration.

A batch has slices of windows and phrases said in them, each with a word or name that looks much like it. Said phrases
must score higher than all others in their slice, and higher there than in other slices. Then a logistic regression
turns scores into probabilities, on voices and words that training has not met.
"""

import dataclasses
import logging
import random
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from cwjax.data.espeak import Voice, phonemes
from cwjax.data.spotter_speech import SpeechSettings, Split, vocabulary
from cwjax.data.spotter_states import EncodedWindow, encoded_windows
from cwjax.models.phrase_spotter import (
    VERDICT,
    Found,
    PhraseSpotter,
    SpotterConfig,
    encode_phrases,
    evidence,
    find_all,
    normalized,
    path_scores,
    probabilities,
    read_letters,
    verdict,
)
from cwjax.weights.spotter_files import encoder_sha256, save_spotter

log = logging.getLogger(__name__)

POSITIONS_PER_SECOND = 50
LIST_SIZES = (10, 30, 100, 500, 2000, 5000)
SAID = (0, 1, 1, 2, 3, 5)
"""How many phrases of a list are said in a window."""


@dataclass(frozen=True)
class SpotterTraining:
    """A training.

    Attributes:
        model: the Whisper; whatever `cwjax.load` takes.
        output: the file of the spotter.
        states: folder for the states of the audio encoder.
        speech: what is spoken.
        size: of the spotter; `audio_width` is taken from the model.
        steps: of the optimizer.
        slices: of windows, in a batch.
        slice_seconds: length of each.
        phrases: said in each slice.
        learning_rate: the highest; warms up and falls as a cosine.
        dropout: share of the states' channels that a slice is heard without.
        seed: decides everything.
    """

    model: str = "openai/whisper-base"
    output: str = "runs/spotter_base/base.safetensors"
    states: str = "runs/spotter_base/states"
    speech: SpeechSettings = field(default_factory=SpeechSettings)
    size: SpotterConfig = field(default_factory=SpotterConfig)
    steps: int = 3000
    slices: int = 24
    slice_seconds: float = 6.0
    phrases: int = 5
    learning_rate: float = 3e-3
    dropout: float = 0.1
    seed: int = 0


class Batch(NamedTuple):
    """S slices and P phrases.

    Attributes:
        states: (S, A, W) float16.
        ids, lengths: letters of the phrases, (P, N) and (P,).
        said: (S, P) bool.
        unknown: (S, P) bool, where it cannot be told or does not matter whether a phrase is said.
    """

    states: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    said: np.ndarray
    unknown: np.ndarray


def train_spotter(settings: SpotterTraining) -> dict[str, Any]:
    """Trains, calibrates, measures and writes a spotter; gives the figures.

    Raises:
        CwjaxError: the model cannot be loaded, nothing speaks, or a folder cannot be written.
    """
    from cwjax import load

    model = load(settings.model)
    sha256 = encoder_sha256(model.params)
    seconds = model.processor.window_seconds

    def encode(windows: list[np.ndarray]) -> np.ndarray:
        return np.asarray(model.encode(np.stack([model.processor.features(samples) for samples in windows])))

    def windows(split: Split) -> list[EncodedWindow]:
        folder = Path(settings.states)
        return encoded_windows(folder, split, settings.speech, seconds, settings.seed, encode, sha256)

    size = dataclasses.replace(settings.size, audio_width=model.config.whisper.d_model)
    spotter = PhraseSpotter(size, key=jax.random.key(settings.seed))
    words = vocabulary(settings.speech.words)
    fit(spotter, batches(windows("train"), words["train"], settings), settings)
    calibrate(spotter, windows("validation"), words["validation"], settings.seed)
    figures = measure(spotter, windows("test"), words["test"], settings.seed)
    for name, value in figures.items():
        log.info("%s: %s", name, value)
    facts = {"model": Path(settings.model).name, "steps": settings.steps, "test": figures}
    save_spotter(spotter, Path(settings.output), sha256, facts)
    return figures


def fit(spotter: PhraseSpotter, batches: Iterator[Batch], settings: SpotterTraining) -> float:
    """Trains in place; gives the last loss, a running mean."""
    graphdef, params = nnx.split(spotter)
    heads = {"scale": jnp.float32(2.7), "bias": jnp.zeros(2)}  # only for the loss
    warmup = max(1, min(100, settings.steps // 10))
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, settings.steps + 1)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(trained: Any, moments: Any, batch: Batch, key: jax.Array) -> tuple:
        def loss(trained: Any) -> jax.Array:
            return batch_loss(nnx.merge(graphdef, trained[0]), trained[1], batch, key, settings.dropout)

        value, gradients = jax.value_and_grad(loss)(trained)
        updates, moments = optimizer.update(gradients, moments, trained)
        return optax.apply_updates(trained, updates), moments, value

    trained = jax.tree.map(jnp.array, (params, heads))
    moments, key, running, began = optimizer.init(trained), jax.random.key(settings.seed), None, time.monotonic()
    for number in range(1, settings.steps + 1):
        trained, moments, value = step(trained, moments, next(batches), jax.random.fold_in(key, number))
        running = float(value) if running is None else 0.98 * running + 0.02 * float(value)
        if number % 100 == 0 or number == settings.steps:
            left = (time.monotonic() - began) / number * (settings.steps - number)
            log.info("step %d of %d, loss %.3f, %.0f min left", number, settings.steps, running, left / 60)
    nnx.update(spotter, trained[0])
    return running or 0.0


def batch_loss(spotter: PhraseSpotter, heads: dict, batch: Batch, key: jax.Array, dropout: float) -> jax.Array:
    """Contrast over phrases and over slices, and a logistic loss that keeps scores comparable everywhere."""
    keep = jax.random.bernoulli(key, 1 - dropout, (len(batch.states), 1, batch.states.shape[-1]))
    frames = spotter.hear(batch.states.astype(jnp.float32) * keep)
    units = spotter.read(batch.ids, batch.lengths)
    scores = path_scores(units, batch.lengths, frames, spotter.config.reach) * jnp.exp(heads["scale"])
    said, others = batch.said, ~batch.said & ~batch.unknown
    share = 1 / jnp.maximum(said.sum(), 1)

    def contrast(axis: int) -> jax.Array:
        rest = jax.nn.logsumexp(jnp.where(others, scores, -1e9), axis=axis, keepdims=True)
        return jnp.where(said, jax.nn.softplus(rest - scores), 0).sum() * share

    letters = jnp.log(batch.lengths.astype(jnp.float32))
    logits = scores + heads["bias"][0] * 10 + heads["bias"][1] * 10 * letters
    logistic = jnp.where(said, jax.nn.softplus(-logits), 0).sum() * share
    logistic += 4 * jnp.where(others, jax.nn.softplus(logits), 0).sum() / jnp.maximum(others.sum(), 1)
    return contrast(0) + contrast(1) + logistic


def batches(windows: Sequence[EncodedWindow], words: tuple[str, ...], settings: SpotterTraining) -> Iterator[Batch]:
    """Batches without end, made ahead in a thread."""
    chance = random.Random(settings.seed)
    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(_batch, windows, words, settings, chance) for _ in range(3))
        while True:
            ahead.append(pool.submit(_batch, windows, words, settings, chance))
            yield ahead.popleft().result()


def _batch(
    windows: Sequence[EncodedWindow], words: tuple[str, ...], settings: SpotterTraining, chance: random.Random
) -> Batch:
    longest = chance.choices((12, 18, 32), (5, 3, 2))[0]
    length = round(settings.slice_seconds * POSITIONS_PER_SECOND)
    slices, phrases = [], {}
    for _ in range(settings.slices):
        states, whole, partly = _slice(chance.choice(windows), length, chance)
        said = [phrase for _, known in whole for phrase in known]
        said = chance.sample(said, min(len(said), settings.phrases - 2))
        for text in chance.choices([text for text, _ in whole], k=2) if whole else ():
            said.append(_stretch(text, chance))
        phrases.update(dict.fromkeys(phrase for phrase in map(normalized, said) if 3 <= len(phrase) <= longest))
        slices.append((states, _words(text for text, _ in whole), _words((*(text for text, _ in whole), *partly))))
    alike = (normalized(_look_alike(phrase, words, chance)) for phrase in list(phrases))
    phrases.update(dict.fromkeys(phrase for phrase in alike if 3 <= len(phrase) <= longest))
    listed = list(phrases) or ["nothing"]
    count = 2 * settings.slices * settings.phrases
    ids, lengths = read_letters(listed, settings.size.rows)
    ids = np.pad(ids, ((0, count - len(listed)), (0, 32)))[:, :longest]
    lengths = np.pad(lengths, (0, count - len(listed)), constant_values=1)
    said = np.zeros((settings.slices, count), bool)
    unknown = np.ones_like(said)  # as are the phrases that fill up
    for row, (_, whole, near) in enumerate(slices):
        joined = near.replace(" ", "")
        for column, phrase in enumerate(listed):
            said[row, column] = f" {phrase} " in whole
            unknown[row, column] = not said[row, column] and phrase.replace(" ", "") in joined
    return Batch(np.stack([states for states, *_ in slices]), ids, lengths, said, unknown)


def _slice(window: EncodedWindow, length: int, chance: random.Random) -> tuple[np.ndarray, list, list[str]]:
    """States of a stretch, the sentences wholly in it with their phrases, and those partly in it."""
    positions = len(window.states)
    length = min(length, positions)
    if window.sentences:
        start = chance.choice(window.sentences).start - chance.uniform(0.0, 0.4)
        first = min(max(0, int(start * POSITIONS_PER_SECOND)), positions - length)
    else:
        first = chance.randrange(positions - length + 1)
    begin, end = first / POSITIONS_PER_SECOND, (first + length) / POSITIONS_PER_SECOND
    near = [one for one in window.sentences if one.end > begin and one.start < end]
    whole = [one for one in near if one.start >= begin and one.end <= end]
    partly = [one.text for one in near if one not in whole]
    return window.states[first : first + length], [(one.text, one.phrases) for one in whole], partly


def _words(texts: Any) -> str:
    """Normalised words of texts between single spaces; a mark stands between texts."""
    return "".join(f" | {' '.join(_plain(normalized_word) for normalized_word in text.split())} " for text in texts)


def _plain(word: str) -> str:
    return normalized(re.sub(r"^\W+|\W+$", "", word))


def _stretch(text: str, chance: random.Random) -> str:
    words = [_plain(word) for word in text.split()]
    first = chance.randrange(len(words))
    return " ".join(words[first : first + chance.choice((1, 1, 2, 3))])


def _look_alike(phrase: str, words: tuple[str, ...], chance: random.Random) -> str:
    """A phrase with one word in the place of another that is written much like it and sounds different."""
    parts = phrase.split()
    place = chance.randrange(len(parts))
    parts[place] = chance.choice(look_alikes(parts[place], words))
    return " ".join(parts)


@lru_cache(maxsize=200_000)
def look_alikes(word: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Up to four of the words nearest in letters, without those that eSpeak NG speaks alike."""
    chance = random.Random(word)
    some = [one.casefold() for one in chance.sample(words, min(len(words), 3000))]
    near = process.extract(word, some, scorer=Levenshtein.distance, limit=6)
    others = (found for found, distance, _ in near if distance > 2 or not _sound_alike(word, found))
    return tuple(islice(others, 4)) or (chance.choice(some),)


def _sound_alike(word: str, other: str) -> bool:
    return word == other or phonemes(word, Voice("en-us")) == phonemes(other, Voice("en-us"))


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
    alike = {phrase: normalized(_look_alike(phrase, words, chance)) for phrase in phrases}
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
        joined = _words(one.text for one in window.sentences).replace(" ", "")
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
