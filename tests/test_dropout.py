"""Dropout and layer drop: how much is dropped, of whom, and that nothing else decides it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_step import CONFIG as MODEL
from test_step import SETTINGS, TERMS, initial_parameters, make_batch
from tolerance import assert_close

from cwjax.config import Config, TrainSettings
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import abstract
from cwjax.models.dropout import Dropout, dropped, or_skipped
from cwjax.training.groups import split_parameters
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import abstract_state, init_state, make_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")


def keys(rows: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), rows)


def test_a_share_is_dropped_and_the_mean_stays() -> None:
    stream = jnp.full((64, 20, 30), 2.0)
    left = np.asarray(dropped(stream, Dropout(keys(64), 0.3, 0.0), 1))
    assert set(np.unique(left)) == {0.0, np.float32(2 / np.float32(0.7))}
    error = 4 * (0.3 * 0.7 / left.size) ** 0.5  # standard deviations of the share
    assert abs((left == 0).mean() - 0.3) < error
    assert abs(left.mean() - 2) < 2 * error / 0.7
    # No two examples, places or layers lose the same.
    layers = Dropout(keys(2), 0.3, 0.0).layers(2).keys
    masks = [np.asarray(dropped(stream[:2], Dropout(one, 0.3, 0.0), place) == 0) for one in layers for place in (1, 2)]
    rows = [row.tobytes() for mask in masks for row in mask]
    assert len(set(rows)) == len(rows)
    alone = dropped(stream[:1], Dropout(keys(64)[:1], 0.3, 0.0), 1)
    np.testing.assert_array_equal(alone, left[:1])


def test_a_share_of_the_examples_skips_a_layer() -> None:
    before, after = jnp.zeros((4000, 2, 3)), jnp.ones((4000, 2, 3))
    skipped = 1 - np.asarray(or_skipped(before, after, Dropout(keys(4000), 0.0, 0.25)))
    assert (skipped == skipped[:, :1, :1]).all(), "an example skips a layer as a whole"
    assert abs(skipped[:, 0, 0].mean() - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_nothing_is_left_of_layers_that_are_all_skipped() -> None:
    """What comes out of encoder and decoder is then the norm of what went in."""
    model = nnx.merge(abstract(MODEL)[0], initial_parameters())
    all_of_it = Dropout(keys(2), 0.0, 1.0)
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 40, 80)), jnp.float32)
    encoder, decoder, tokens = model.audio_encoder, model.decoder, jnp.asarray(make_batch()["tokens"][:2])
    audio = model.encode(features, None, all_of_it)
    assert_close(audio, encoder.ln_post(encoder._embed(features)), 32)
    embedded = decoder.token_embedding(tokens) + decoder.positions[: tokens.shape[1]]
    assert_close(decoder.states(tokens, audio, all_of_it), decoder.ln(embedded), 32)


def losses(steps: int, **train: Any) -> list[float]:
    config = Config(freeze=("text_encoder",), optim=SETTINGS, train=TrainSettings(steps=50, batch_size=4, **train))
    mesh = make_mesh(-1, 1, 1)
    shapes, _ = abstract_state(config, MODEL, mesh)
    trainable, frozen = split_parameters(initial_parameters(), config.freeze)
    state, step = init_state(config, trainable, shapes), make_train_step(config, MODEL, mesh)
    found = []
    for _ in range(steps):
        state, metrics = step(state, frozen, make_batch())
        found += [float(metrics["loss"]), float(metrics["gradient_norm"])]
    return found


def test_parts_of_a_batch_and_remat_change_nothing_of_what_is_dropped() -> None:
    how = {"dropout": 0.2, "layer_drop": 0.2}
    plain, saving = losses(2, **how), losses(2, **how, accumulation=2, remat="full")
    for ours, theirs in zip(saving, plain, strict=True):
        assert_close(ours, theirs, TERMS)
    without = losses(1)
    assert abs(plain[0] - without[0]) > 1e-3


@pytest.mark.parametrize("name", ["dropout", "layer_drop"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_wrong_shares_are_named(name: str, value: float) -> None:
    with pytest.raises(CwjaxError, match=f"train.{name} is {value}: must be at least 0 and below 1"):
        TrainSettings(**{name: value})
