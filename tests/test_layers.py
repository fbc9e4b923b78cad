import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tolerance import assert_close

from cwjax.models.attention import attention, heads_first_attention
from cwjax.models.layers import MLP, Embedding, LayerNorm, Linear, MultiHeadAttention, gelu, named_key, stack
from cwjax.models.t5 import RMSNorm

# Batch, queries, keys, heads, width of a head; the last is long enough to go head by head.
SHAPES = {"short": (3, 5, 7, 2, 4), "long": (2, 250, 270, 2, 4)}


def attention_terms(shape):
    """A score sums over the width of a head, a result over keys."""
    _, _, keys, _, width = SHAPES[shape]
    return width + keys


def gradient_terms(shape):
    """There, the scores again, and back; gradients of keys and values sum over queries, a bias's over examples too."""
    batch, queries, *_ = SHAPES[shape]
    return 3 * attention_terms(shape) + queries + batch


def operands(batch, queries, keys, heads, width):
    random = np.random.default_rng(0)
    query = random.normal(size=(batch, queries, heads, width)) * 2
    key, value = random.normal(size=(2, batch, keys, heads, width))
    mask = random.random((batch, 1, 1, keys)) < 0.6
    mask[..., 0] = True
    return *(jnp.asarray(array, jnp.float32) for array in (query, key, value)), jnp.asarray(mask)


def plain_attention(query, key, value, mask, bias=0.0, scale=None):
    """The definition, step by step."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * (scale or query.shape[-1] ** -0.5) + bias
    scores = jnp.where(mask, scores, -1e30)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_and_its_gradients_follow_the_definition(shape):
    *arrays, mask = operands(*SHAPES[shape])
    if shape == "short":
        mask = mask & (jnp.arange(5)[:, None] >= jnp.arange(7) - 2)

    def with_gradients(function):
        gradients = jax.grad(lambda *arrays: (function(*arrays, mask) ** 2).sum(), (0, 1, 2))
        return jax.jit(lambda *arrays: (function(*arrays, mask), *gradients(*arrays)))(*arrays)

    for ours, reference in zip(with_gradients(attention), with_gradients(plain_attention), strict=True):
        assert_close(ours, reference, gradient_terms(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_causal_attention_sees_no_later_key(shape, backend, monkeypatch):
    *arrays, mask = operands(*SHAPES[shape])
    queries, keys = arrays[0].shape[1], arrays[1].shape[1]
    past = jnp.arange(queries)[:, None] >= jnp.arange(keys)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    @jax.jit
    def both(mask, *arrays):
        return [
            (attention(*arrays, given, causal=True), plain_attention(*arrays, expected))
            for given, expected in ((None, past), (mask, mask & past))
        ]

    for ours, reference in both(mask, *arrays):
        assert_close(ours, reference, attention_terms(shape))


def score_bias(queries, keys, heads):
    return jnp.asarray(np.random.default_rng(1).normal(size=(heads, queries, keys)) * 2, jnp.float32)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_bias_and_its_gradient_follow_the_definition(shape, masked):
    *arrays, mask = operands(*SHAPES[shape])
    arrays.append(score_bias(*SHAPES[shape][1:4]))

    def with_gradients(function, mask):
        def attended(query, key, value, bias):
            return function(query, key, value, mask, bias=bias, scale=0.7)

        gradients = jax.grad(lambda *arrays: (attended(*arrays) ** 2).sum(), (0, 1, 2, 3))
        return jax.jit(lambda *arrays: (attended(*arrays), *gradients(*arrays)))(*arrays)

    ours = with_gradients(attention, mask if masked else None)
    reference = with_gradients(plain_attention, mask if masked else True)
    for one, other in zip(ours, reference, strict=True):
        assert_close(one, other, gradient_terms(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_backends_agree(shape, monkeypatch):
    query, key, value, mask = operands(*SHAPES[shape])
    bias = score_bias(*SHAPES[shape][1:4])

    def results(*arrays):
        for given in (mask, None):
            yield attention(*arrays, given)
            yield attention(*arrays, given, bias=bias, scale=1.0)

    on_cpu = jax.jit(lambda *arrays: list(results(*arrays)))(query, key, value)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = jax.jit(lambda *arrays: list(results(*arrays)))(query, key, value)
    for ours, others in zip(on_cpu, on_gpu, strict=True):
        assert_close(ours, others, attention_terms(shape))


def test_a_query_that_sees_nothing_gets_the_mean_and_its_gradients():
    query, key, value, mask = operands(*SHAPES["short"])
    mask = mask.at[1].set(False)
    assert_close(attention(query, key, value, mask)[1, 0], value[1].mean(0), attention_terms("short"))

    def gradients(function):
        total = jax.jit(lambda *arrays: (function(*arrays, mask)[1] ** 2).sum())
        return jax.grad(total, (0, 1, 2))(query, key, value)

    for ours, reference in zip(gradients(attention), gradients(plain_attention), strict=True):
        assert_close(ours, reference, gradient_terms("short"))


def test_attention_in_bfloat16_has_a_float32_softmax():
    query, key, value, _ = operands(1, 2, 200, 1, 4)
    # Many small weights: summed in bfloat16 they would be lost beside a large one.
    query = jnp.zeros_like(query).at[..., 0].set(1)
    key = jnp.zeros_like(key).at[:, 0, :, 0].set(12)
    half = attention(*(array.astype(jnp.bfloat16) for array in (query, key, value)))
    assert half.dtype == jnp.bfloat16
    ones = attention(query.astype(jnp.bfloat16), key.astype(jnp.bfloat16), jnp.ones_like(value, jnp.bfloat16))
    np.testing.assert_allclose(ones.astype(jnp.float32), 1, atol=1e-2)
    np.testing.assert_allclose(half.astype(jnp.float32), attention(query, key, value), atol=0.02)


def test_heads_first_attention_is_attention_in_another_layout():
    query, key, value, mask = operands(*SHAPES["short"])
    flipped = heads_first_attention(*(jnp.swapaxes(array, 1, 2) for array in (query, key, value)), mask)
    assert_close(jnp.swapaxes(flipped, 1, 2), attention(query, key, value, mask), attention_terms("short"))


def test_heads_may_be_wider_than_the_stream_and_unscaled():
    stream = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6)), jnp.float32)
    attn = MultiHeadAttention(6, 2, head_width=4, scale=1.0, out_bias=False, rngs=nnx.Rngs(0))
    assert attn.query.kernel.shape == (6, 8)
    assert attn.out.kernel.shape == (8, 6)
    query, key, value = ((stream @ part.kernel[...]).reshape(2, 5, 2, 4) for part in (attn.query, attn.key, attn.value))
    expected = plain_attention(query, key, value, True, scale=1.0).reshape(2, 5, 8) @ attn.out.kernel[...]
    terms = 6 + 4 + 5 + 8  # stream, a head's width, keys, all heads' width
    assert_close(attn(stream), expected, terms)
    query, value = (jnp.swapaxes(array, 1, 2) for array in (query, value))
    transposed = attn.attend_transposed(query, jnp.transpose(key, (0, 2, 3, 1)), value)
    assert_close(transposed, expected, terms)


def test_new_queries_make_up_for_the_scale():
    scaled, unscaled = (MultiHeadAttention(64, 4, scale=scale, rngs=nnx.Rngs(0)) for scale in (None, 1.0))
    assert_close(unscaled.query.kernel[...], scaled.query.kernel[...] / 4, terms=1)
    np.testing.assert_array_equal(unscaled.key.kernel[...], scaled.key.kernel[...])


def test_an_mlp_without_biases_maps_zero_to_zero():
    mlp = MLP(3, 5, "relu", bias=False, rngs=nnx.Rngs(0))
    assert set(nnx.to_pure_dict(nnx.state(mlp))["up"]) == {"kernel"}
    np.testing.assert_array_equal(mlp(jnp.zeros((2, 3))), 0)


def test_gelu_is_exact():
    values = np.linspace(-6, 6, 101)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in values]
    inputs = jnp.asarray(values, jnp.float32)
    assert_close(gelu(inputs), exact, terms=4)  # two factors and two summands
    slopes = jax.grad(lambda inputs: (3 * gelu(inputs)).sum())(inputs)
    np.testing.assert_allclose(slopes, 3 * np.gradient(exact, values, edge_order=2), atol=0.01)
    reference = jax.grad(lambda inputs: (3 * jax.nn.gelu(inputs, approximate=False)).sum())(inputs)
    assert_close(slopes, reference, terms=4)


def test_layer_norm_does_not_cancel_and_keeps_the_dtype():
    values = np.random.default_rng(0).normal(size=(4, 64)) + 3000
    expected = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    norm = LayerNorm(64, rngs=nnx.Rngs(0))
    # What is normed has been rounded, and its mean summed, at 3000 times its size.
    assert_close(norm(jnp.asarray(values, jnp.float32)), expected, terms=64, scale=3000)
    graph, state = nnx.split(norm)
    half = nnx.merge(graph, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.to_pure_dict(state)))
    values = jnp.asarray(values - 3000, jnp.bfloat16)
    assert half(values).dtype == jnp.bfloat16
    np.testing.assert_array_equal(half(values), norm(values.astype(jnp.float32)).astype(jnp.bfloat16))


def test_layer_norm_has_whispers_epsilon():
    values = 3e-3 * np.random.default_rng(0).normal(size=(4, 64))  # whose variance is about as large
    expected = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, keepdims=True) + 1e-5)
    assert_close(LayerNorm(64, rngs=nnx.Rngs(0))(jnp.asarray(values, jnp.float32)), expected, terms=2 * 64)


@pytest.mark.parametrize("make", [LayerNorm, partial(RMSNorm, epsilon=1e-6)])
def test_norms_keep_nothing_but_their_input_for_the_gradient(make):
    norm = make(64, rngs=nnx.Rngs(0))
    graph, state = nnx.split(norm)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.to_pure_dict(state))
    values = jnp.asarray(np.random.default_rng(0).normal(size=(4, 64)) + 2, jnp.bfloat16)
    _, backward = jax.vjp(lambda values: nnx.merge(graph, half)(values), values)
    large = [leaf for leaf in jax.tree.leaves(backward) if leaf.size >= values.size]
    assert len(large) == 1
    np.testing.assert_array_equal(large[0], values)

    def plain(values, scale, bias):
        centred = values - (values.mean(-1, keepdims=True) if make is LayerNorm else 0)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + norm.epsilon) * scale + bias

    weights = jnp.arange(values.size, dtype=jnp.float32).reshape(values.shape) / 100
    values, scale, bias = values.astype(jnp.float32), norm.scale[...], jnp.zeros(64)
    expected = jax.grad(lambda *arrays: (weights * plain(*arrays)).sum(), (0, 1))(values, scale, bias)
    ours = jax.grad(lambda values, norm: (weights * norm(values)).sum(), (0, 1))(values, norm)
    # The values' gradients are what is left of the weights' once their mean and their slope have been taken away.
    assert_close(ours[0], expected[0], terms=2 * 64, scale=float(weights.max()))
    assert_close(ours[1].scale[...], expected[1], terms=64 + 4)


def test_linear_maps_the_last_axis_of_any_shape():
    linear = Linear(3, 5, rngs=nnx.Rngs(0))
    stream = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    expected = np.einsum("bti,io->bto", stream, linear.kernel[...])
    assert_close(linear(jnp.asarray(stream)), expected, terms=3)
    assert linear(jnp.asarray(stream[0, 0])).shape == (5,)


def test_embeddings_have_the_dtype_of_their_parameters():
    embedding = Embedding(5, 3, std=0.5, rngs=nnx.Rngs(0))
    numbers = jnp.asarray([[4, 0], [2, 2]])
    np.testing.assert_array_equal(embedding(numbers), np.asarray(embedding.embedding[...])[numbers])
    graph, state = nnx.split(embedding)
    half = nnx.merge(graph, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.to_pure_dict(state)))
    assert half(numbers).dtype == jnp.bfloat16


def test_stacked_layers_differ_and_depend_on_key_and_name_alone():
    key = jax.random.key(0)
    layers = stack(lambda rngs: Linear(40, 50, rngs=rngs), 3, named_key(key, "query"))
    kernels = np.asarray(layers.kernel[...])
    assert kernels.shape == (3, 40, 50)
    assert kernels.std() == pytest.approx(40**-0.5, rel=0.05)
    assert np.abs(np.corrcoef(kernels.reshape(3, -1)) - np.eye(3)).max() < 0.1
    assert not layers.bias[...].any()
    again = stack(lambda rngs: Linear(40, 50, rngs=rngs), 3, named_key(key, "query"))
    other = stack(lambda rngs: Linear(40, 50, rngs=rngs), 3, named_key(key, "value"))
    np.testing.assert_array_equal(again.kernel[...], kernels)
    assert not np.array_equal(other.kernel[...], kernels)
