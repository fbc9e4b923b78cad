"""What a run is said to take, by arithmetic on a pace that is known."""

import jax.numpy as jnp
import pytest
from three_steps import MODEL, settings

from cwjax.config import MeshSettings
from cwjax.training import estimate
from cwjax.training.cost import count_products
from cwjax.training.estimate import SHARE_OF_PACE, estimate_seconds, product_pace
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import trace_step


def test_training_and_transcribing_are_counted_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "product_pace", lambda dtype: 1e9 / SHARE_OF_PACE)
    config, mesh = settings(MeshSettings(), validate_every=4), make_mesh(-1, 1, 1)
    step = count_products(trace_step(config, MODEL, mesh).jaxpr.jaxpr).operations / 1e9
    found = estimate_seconds(config, MODEL, mesh, validated=16, evaluated=5)
    assert found["training"] == pytest.approx(10 * step)
    # Ten steps with a validation after 4, 8 and 10, and the end; three contexts each, in batches of eight.
    assert found["transcribing"] == pytest.approx(step * 3 * (3 * 16 + 5) / 8)


def test_the_pace_is_that_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: 0.25 * next(clock))
    assert product_pace(jnp.float32) == 2 * estimate._SIDE**3 / 0.25
