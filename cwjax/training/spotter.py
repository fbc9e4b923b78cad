"""Training of a phrase spotter for a frozen Whisper, from speech to a file.

Said phrases must score higher than all others in their slice of a window, and higher there than in other slices. Then
a logistic regression turns scores into probabilities, on voices and words that training has not met.
"""

import dataclasses
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cwjax.data.audio.log_mel import SAMPLING_RATE, log_mel
from cwjax.evaluation.spotting import calibrate, measure
from cwjax.machine import available_cores
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig, path_scores
from cwjax.spotting.batches import Batch, BatchSettings, batches, make_batch
from cwjax.spotting.mixing import Mixture, draw_mixture, mix
from cwjax.spotting.speech import SpeechSettings, Split, vocabulary
from cwjax.spotting.spoken_sentences import SpokenSentence, SpokenSentences, spoken_sentences
from cwjax.spotting.states import EncodedWindow, encoded_windows
from cwjax.weights.spotter_files import encoder_sha256, save_spotter

log = logging.getLogger(__name__)

SLICES_A_WINDOW = 4
"""Of windows that are mixed for one batch."""


@dataclass(frozen=True)
class SpotterTraining:
    """A training.

    Attributes:
        model: the Whisper; whatever `cwjax.load` takes.
        output: the file of the spotter.
        states: folder for the states of the audio encoder.
        speech: what is spoken.
        size: of the spotter; `audio_width` is taken from the model.
        batch: what is compared in a step.
        sentences: 0, or how many to speak once, of which new windows are mixed and encoded at every step. That takes
            an accelerator and hears far more than `speech.train_windows`, which are then not made.
        steps: of the optimizer.
        learning_rate: the highest; warms up and falls as a cosine.
        dropout: share of the states' channels that a slice is heard without.
        seed: decides everything.
    """

    model: str = "openai/whisper-base"
    output: str = "runs/spotter_base/base.safetensors"
    states: str = "runs/spotter_base/states"
    speech: SpeechSettings = field(default_factory=SpeechSettings)
    size: SpotterConfig = field(default_factory=SpotterConfig)
    batch: BatchSettings = field(default_factory=BatchSettings)
    sentences: int = 0
    steps: int = 3000
    learning_rate: float = 3e-3
    dropout: float = 0.1
    seed: int = 0


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
    if settings.sentences:
        folder = Path(settings.states) / "sentences"
        spoken = spoken_sentences(folder, settings.speech, settings.sentences, settings.seed)
        features = jax.jit(lambda samples: log_mel(samples, model.processor.num_mel_bins, jnp))
        made = mixed_batches(spoken, words["train"], settings, seconds, lambda samples: model.encode(features(samples)))
    else:
        made = batches(windows("train"), words["train"], settings.batch, size.rows, settings.seed)
    fit(spotter, made, settings)
    calibrate(spotter, windows("validation"), words["validation"], settings.seed)
    figures = measure(spotter, windows("test"), words["test"], settings.seed)
    for name, value in figures.items():
        log.info("%s: %s", name, value)
    facts = {"model": Path(settings.model).name, "steps": settings.steps, "test": figures}
    save_spotter(spotter, Path(settings.output), sha256, facts)
    return figures


def mixed_batches(
    spoken: SpokenSentences,
    words: tuple[str, ...],
    settings: SpotterTraining,
    seconds: float,
    encode: Callable[[jax.Array], jax.Array],
) -> Iterator[Batch]:
    """Batches without end, of windows that are mixed and encoded for each; what is in them is drawn in processes.

    Args:
        spoken: sentences.
        words: of training.
        settings: what a batch is, and what is done to the sentences.
        seconds: of a window.
        encode: from samples (W, n) on the device to states (W, A, D).
    """
    samples = jnp.asarray(spoken.samples)
    mix_windows = jax.jit(partial(mix, length=round(seconds * SAMPLING_RATE)))
    drawn = partial(_draw_batch, settings=settings, seconds=seconds)
    workers = max(1, available_cores() - 2)
    given = (spoken.sentences, words)
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin_drawing, given) as pool:
        ahead = deque(pool.submit(drawn, number) for number in range(3 * workers))
        for number in itertools.count():
            mixture, batch = ahead.popleft().result()
            ahead.append(pool.submit(drawn, number + 3 * workers))
            states = encode(mix_windows(samples, mixture, jax.random.key(number)))
            rows, positions = jnp.moveaxis(jnp.asarray(batch.states), -1, 0)
            yield batch._replace(states=states[rows, positions])


def _begin_drawing(sentences: tuple[SpokenSentence, ...], words: tuple[str, ...]) -> None:
    global _sentences, _words
    jax.config.update("jax_platforms", "cpu")  # the device is the trainer's
    _sentences, _words = sentences, words


def _draw_batch(number: int, settings: SpotterTraining, seconds: float) -> tuple[Mixture, Batch]:
    chance = random.Random(f"{settings.seed} mixture {number}")
    windows = -(-settings.batch.slices // SLICES_A_WINDOW)
    mixture, drawn = draw_mixture(_sentences, settings.speech, windows, seconds, chance)
    return mixture, make_batch(drawn, _words, settings.batch, settings.size.rows, chance)


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
