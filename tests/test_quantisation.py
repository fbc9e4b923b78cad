"""Int8 weights: errors of products are those of rounding, and a trained model says the same."""

import difflib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tones
from flax import nnx
from references import SMALL, real_vocabulary, wide_parameters

from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.models.context_whisper import abstract, init_params
from cwjax.models.layers import Embedding, Linear, stack
from cwjax.models.parameters import flatten, merge
from cwjax.models.quantisation import Int8Embedding, Int8Linear, quantise

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROUNDING = 1e-5
"""Of float32, relative to the sum of absolute terms."""


def bound(rows: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The largest error of a product whose factors are each off by half a step of their scale."""
    rows, kernel = np.abs(rows).astype(np.float64), np.abs(kernel).astype(np.float64)
    row_step, step = rows.max(axis=1, keepdims=True) / 127, kernel.max(axis=0) / 127
    widths = rows.sum(axis=1, keepdims=True) * step / 2 + row_step / 2 * kernel.sum(axis=0)
    return widths + len(kernel) * row_step * step / 4 + ROUNDING * (rows @ kernel)


def uneven(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Outputs of very unlike size, and one that is zero."""
    random = np.random.default_rng(seed)
    values = random.normal(size=shape) * np.logspace(-3, 1, shape[-1])
    values[..., 5] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_the_error_of_a_linear_map_is_that_of_rounding(rows: int) -> None:
    linear = stack(lambda rngs: Linear(48, 40, rngs=rngs), 3, jax.random.key(0))
    kernel, bias = uneven((3, 48, 40), 1), uneven((3, 40), 2)
    linear.kernel[...], linear.bias[...] = kernel, bias
    stream = np.random.default_rng(3).normal(size=(rows, 1, 48)).astype(np.float32)
    stream[rows // 2] *= 100
    for layer in range(3):
        rounded = jax.jit(lambda one, stream: one(stream))(jax.tree.map(lambda a: a[layer], Int8Linear(linear)), stream)  # noqa: B023
        assert rounded.shape == (rows, 1, 40)
        assert rounded.dtype == jnp.float32
        exact = stream[:, 0].astype(np.float64) @ kernel[layer] + bias[layer]
        error = np.abs(np.asarray(rounded)[:, 0] - exact)
        assert (error <= bound(stream[:, 0], kernel[layer]) + 1e-7 * np.abs(bias[layer])).all()
        assert error.max() > 1e-4, "nothing was rounded"


def test_the_error_of_an_embedding_is_that_of_rounding() -> None:
    embedding = Embedding(40, 48, std=1.0, rngs=nnx.Rngs(0))
    table = uneven((48, 40), 1).T
    embedding.embedding[...] = table
    rounded = Int8Embedding(embedding)
    numbers = np.arange(40).reshape(8, 5)
    looked_up = np.asarray(rounded(numbers))
    assert looked_up.dtype == np.float32
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(looked_up - table[numbers]) <= (step * 0.5 * (1 + ROUNDING))[numbers]).all()
    rows = np.random.default_rng(2).normal(size=(1, 48)).astype(np.float32)
    error = np.abs(np.asarray(rounded.project(rows)) - rows.astype(np.float64) @ table.T)
    assert (error <= bound(rows, table.T)).all()


def test_what_is_multiplied_most_is_int8_and_nothing_else(tmp_path: Path) -> None:
    config, _ = real_vocabulary(tmp_path, SMALL)
    graphdef, shapes = abstract(config)
    parameters = wide_parameters(config)
    _, rounded = quantise(graphdef, parameters)
    before, after = dict(flatten(shapes)), dict(flatten(rounded))
    int8 = {path for path, leaf in after.items() if leaf.dtype == np.int8}
    parts = ("audio_encoder/blocks/attn/", "audio_encoder/blocks/mlp/", "decoder/")
    assert int8 == {path for path in before if path.startswith(parts) and path.endswith(("kernel", "embedding"))}
    assert {path: leaf.shape for path, leaf in before.items()} == {path: after[path].shape for path in before}
    assert {leaf.dtype for path, leaf in after.items() if path not in int8} == {np.dtype(np.float32)}


def test_logits_are_close(tmp_path: Path) -> None:
    config, _ = real_vocabulary(tmp_path, SMALL)
    graphdef, _ = abstract(config)
    parameters = init_params(config, jax.random.key(0))
    random = np.random.default_rng(0)
    inputs = (
        random.normal(size=(1, 3000, 80)).astype(np.float32),
        random.integers(50_000, size=(1, 12)),
        random.integers(20, size=(1, 9)),
        np.ones((1, 9), bool),
    )
    run = jax.jit(lambda graphdef, parameters: nnx.merge(graphdef, parameters)(*inputs), static_argnums=0)
    exact, rounded = run(graphdef, parameters), run(*quantise(graphdef, parameters))
    difference = np.std(np.asarray(rounded - exact)) / np.std(np.asarray(exact))
    assert 1e-4 < difference < 0.03


def test_a_trained_model_says_nearly_the_same(tmp_path: Path) -> None:
    config, processor = real_vocabulary(tmp_path, tones.SIZES)
    random = np.random.default_rng(2)
    samples = tones.sound(tones.utterances(random, 90), 90, random)
    parameters = merge(wide_parameters(config), tones.trained(processor.tokens))
    options = DecodingOptions(
        language="en",
        temperature=0.0,
        sample_len=60,
        condition_on_previous_text=False,  # one word misheard would be read, too
        suppress_tokens=[-1, *processor.tokens.languages.values()],  # which a model that has learned little says
        compression_ratio_threshold=None,
        logprob_threshold=None,
        no_speech_threshold=None,
    )
    exact, rounded = (
        Transcriber(config, parameters, processor, int8=int8).transcribe(samples, "", options) for int8 in (False, True)
    )
    assert len(exact.segments) > 10
    said, said_rounded = exact.text.split(), rounded.text.split()
    assert difflib.SequenceMatcher(None, said, said_rounded).ratio() > 0.8
    assert exact.segments[0].avg_logprob != rounded.segments[0].avg_logprob, "nothing was rounded"
