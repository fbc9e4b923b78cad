"""Attention on accelerators that are not here: TPU's kernel interpreted, cuDNN's call traced and lowered."""

from functools import partial
from types import SimpleNamespace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from tolerance import assert_close

from cwjax.models import attention as module
from cwjax.models.attention import Implementation, _on_gpu, _on_tpu, attention
from cwjax.models.layers import Remat, run_layers
from cwjax.training.cost import count_products

PRODUCT = 2 * 2 * 2 * 512 * 512 * 64
"""Operations of all scores of `operands`: 2 examples, 2 heads, one tile of queries and of keys."""


def operands(queries: int = 512, keys: int = 512, dtype=jnp.float32) -> tuple[jax.Array, ...]:
    random = np.random.default_rng(0)
    shapes = [(2, queries, 2, 64), (2, keys, 2, 64), (2, keys, 2, 64)]
    return tuple(jnp.asarray(random.normal(size=shape), dtype) for shape in shapes)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are made for a GPU that JAX is told of."""
    monkeypatch.setattr(module, "platform", lambda: "gpu")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)


@pytest.fixture
def tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are made for a TPU, its kernels interpreted."""
    monkeypatch.setattr(module, "platform", lambda: "tpu")
    monkeypatch.setattr(module, "_on_tpu", partial(_on_tpu, interpret=True))


def operations(function, *arrays: jax.Array) -> float:
    return count_products(jax.make_jaxpr(function)(*arrays).jaxpr).operations


def gradient(function):
    return jax.grad(lambda *arrays: (function(*arrays).astype(jnp.float32) ** 2).sum(), (0, 1, 2))


@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_for_tpus_follows_the_definition(tpu: None, causal: bool) -> None:
    """Neither queries nor keys fill their last tile."""
    arrays = operands(400, 300 if not causal else 400)

    def defined(*arrays: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(*arrays, is_causal=causal)

    ours = partial(attention, causal=causal)
    terms = 64 + arrays[1].shape[1]  # a head's width, keys
    assert_close(ours(*arrays), defined(*arrays), terms)
    for one, other in zip(gradient(ours)(*arrays), gradient(defined)(*arrays), strict=True):
        assert_close(one, other, 2 * terms + 400)  # there and back, and over queries


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_padded_keys_change_nothing(platform: str, request: pytest.FixtureRequest) -> None:
    """Keys of two contexts between padding, against attention to those keys alone. What cuDNN is given is computed by
    XLA here."""
    if platform == "tpu":
        request.getfixturevalue(platform)
    query, key, value = operands(400, 300)
    is_key = np.zeros((2, 300), bool)
    is_key[0, 5:40], is_key[1, :7], is_key[1, 200:280] = True, True, True

    def ours(*arrays: jax.Array) -> jax.Array:
        if platform == "cuda":
            return _on_gpu(*arrays, jnp.asarray(is_key), causal=False, scale=1 / 8, kernel="xla")
        return attention(*arrays, is_key=jnp.asarray(is_key))

    def defined(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        rows = [
            jax.nn.dot_product_attention(query[row], key[row, real], value[row, real])
            for row, real in enumerate(is_key)
        ]
        return jnp.stack(rows)

    assert_close(ours(query, key, value), defined(query, key, value), 64 + 300)
    for one, other in zip(gradient(ours)(query, key, value), gradient(defined)(query, key, value), strict=True):
        assert_close(one, other, 2 * (64 + 300) + 400)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_context_of_nothing_but_padding_is_finite(platform: str, request: pytest.FixtureRequest) -> None:
    if platform == "tpu":
        request.getfixturevalue(platform)
    arrays = operands(400, 300)
    found = attention(*arrays, is_key=jnp.zeros((2, 300), bool))
    slopes = gradient(partial(attention, is_key=jnp.zeros((2, 300), bool)))(*arrays)
    assert all(bool(jnp.isfinite(array).all()) for array in (found, *slopes))


def test_padding_of_contexts_is_known_to_cudnn(cuda: None) -> None:
    arrays = operands(dtype=jnp.bfloat16)
    attend = partial(attention, is_key=jnp.arange(512) < jnp.array([[100], [7]]))
    text = jax.jit(gradient(attend)).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@__cudnn$fmhaSoftmax(") == text.count("@__cudnn$fmhaSoftmaxBackward(") == 1
    assert text.count("PADDING") == 2
    assert "stablehlo.dot_general" not in text


@pytest.mark.parametrize("causal", [False, True])
def test_long_attention_on_a_gpu_is_cudnns(cuda: None, causal: bool) -> None:
    arrays = operands(dtype=jnp.bfloat16)
    traced = jax.jit(gradient(partial(attention, causal=causal))).trace(*arrays)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@__cudnn$fmhaSoftmax(") == text.count("@__cudnn$fmhaSoftmaxBackward(") == 1
    assert text.count("CAUSAL") == (2 if causal else 0)
    assert "stablehlo.dot_general" not in text


@pytest.mark.parametrize("unfit", ["float32", "masked", "short", "odd", "narrow", "Turing", "AMD"])
def test_what_cudnn_cannot_do_goes_without_it(cuda: None, unfit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    length, dtype = {"short": 64, "odd": 511}.get(unfit, 512), jnp.float32 if unfit == "float32" else jnp.bfloat16
    arrays = operands(length, dtype=dtype)
    if unfit == "narrow":
        arrays = tuple(array[..., :20] for array in arrays)
    mask = jnp.ones((2, 1, 1, 512), bool) if unfit == "masked" else None
    capability = {"Turing": "7.5", "AMD": "gfx90a"}.get(unfit, "12.0")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability=capability)])
    jaxpr = str(jax.make_jaxpr(partial(attention, mask=mask))(*arrays))
    assert "dot_general" in jaxpr
    assert "dot_product_attention_fwd_wrapper" not in jaxpr


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_nothing_dear_is_computed_again(platform: str, request: pytest.FixtureRequest) -> None:
    """With `dots` the gradient finds what attention found; with `full` it attends anew."""
    if platform != "cpu":
        request.getfixturevalue(platform)
    arrays = operands(dtype=jnp.bfloat16)

    def layers(remat: Remat, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return run_layers(lambda stream, _: (attention(stream, key, value), None), query, jnp.zeros(3), remat)[0]

    counted = {remat: operations(gradient(partial(layers, remat)), *arrays) for remat in get_args(Remat)}
    assert counted["none"] == counted["dots"]
    assert counted["full"] == counted["none"] + 3 * 2 * PRODUCT


@pytest.mark.parametrize(("platform", "times"), [("cpu", 7), ("cuda", 7), ("tpu", 9)])
def test_operations_of_attention(platform: str, times: int, request: pytest.FixtureRequest) -> None:
    """Two products and their four gradients, and the scores again; TPU's kernels for the gradients of keys and of
    queries each compute scores and weights' gradients for themselves."""
    if platform != "cpu":
        request.getfixturevalue(platform)
    arrays = operands(dtype=jnp.bfloat16)

    def both(*arrays: jax.Array, implementation: Implementation | None = None) -> tuple:
        def summed(*arrays: jax.Array) -> jax.Array:
            return attention(*arrays, implementation=implementation).sum(dtype=jnp.float32)

        return jax.value_and_grad(summed, (0, 1, 2))(*arrays)

    assert operations(attention, *arrays) == 2 * PRODUCT
    assert operations(both, *arrays) == pytest.approx(times * PRODUCT, rel=0.01)
    assert operations(partial(both, implementation="definition"), *arrays) == 6 * PRODUCT


def test_a_kernel_moves_no_scores(tpu: None) -> None:
    """In the roofline it reads and writes its operands and results only."""
    arrays = operands(2048, 2048, dtype=jnp.bfloat16)
    moved = count_products(jax.make_jaxpr(attention)(*arrays).jaxpr, 1e30, 1.0).seconds
    scores = 4 * 2 * 2 * 2048 * 2048
    assert sum(array.nbytes for array in arrays) < moved < scores / 2
