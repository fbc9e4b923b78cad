"""What each context token contributes: a conservation law, and sums that are the model's own."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from test_context_whisper import CONFIG, UNGATED, inputs, wide_params, with_gates
from tolerance import assert_close, layer_terms

from cwjax.models.audio_encoder import ContextStates
from cwjax.models.context_whisper import abstract
from cwjax.models.whisper import ContextAttentionConfig

TERMS = layer_terms(24, 32, 10, 6)  # one layer: contexts are 24 wide, and seen are 10 positions and 6 tokens
SOME_LAYERS = dataclasses.replace(CONFIG, context=ContextAttentionConfig(layers=(0, 2)))


def model_of(config):
    params = wide_params(config)
    if config.context.gate == "tanh":
        count = len(config.context.layers_of(config.whisper.encoder_layers))
        params = with_gates(params, np.array([0.5, -1.0, 2.0])[:count])
    return nnx.merge(abstract(config)[0], params)


def vectors(stream, norm, attn, gate, hidden, mask):
    """(B, A, S, D) in float64: weight times projected value, summed over heads, times the gate."""
    query, key, value, out = (np.float64(part.kernel[...]) for part in (attn.query, attn.key, attn.value, attn.out))
    biases = [0 if part.bias is None else np.float64(part.bias[...]) for part in (attn.query, attn.value)]
    batch, positions, width = stream.shape
    heads = attn.heads

    def split(array):
        return array.reshape(batch, array.shape[1], heads, -1).swapaxes(1, 2)

    queries = split(np.float64(jax.jit(norm)(stream)) @ query + biases[0])
    keys, values = split(hidden @ key), split(hidden @ value + biases[1])
    scores = queries @ keys.swapaxes(2, 3) / np.sqrt(width // heads)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True)) * mask[:, None, None, :]
    weights /= weights.sum(axis=3, keepdims=True)
    total = np.zeros((batch, positions, hidden.shape[1], width))
    for head in range(heads):
        rows = slice(head * width // heads, (head + 1) * width // heads)
        projected = values[:, head] @ out[rows]
        total += weights[:, head, :, :, None] * projected[:, None, :, :]
    return total if gate is None else np.tanh(np.float64(gate[...])) * total


@jax.jit
def added_to(stream, norm, part):
    return stream + part(norm(stream))


@jax.jit
def run(encoder, features, states):
    lengths = encoder.context_contributions(features, states)
    return lengths, encoder.layer_states(features, states), encoder._embed(features)


@pytest.mark.parametrize("config", [CONFIG, UNGATED, SOME_LAYERS], ids=["gates", "no gates", "some layers"])
def test_contributions_add_up_to_what_the_layer_added(config):
    model = model_of(config)
    features, states = inputs()
    encoder = model.audio_encoder
    lengths, after, embedded = run(encoder, features, states)
    layers = config.context.layers_of(config.whisper.encoder_layers)
    assert lengths.shape == (len(layers), 3, 10, 6)
    for place, layer in enumerate(layers):
        attn_ln, attn, mlp_ln, mlp = jax.tree.map(
            lambda leaf, layer=layer: leaf[layer],
            (encoder.blocks.attn_ln, encoder.blocks.attn, encoder.blocks.mlp_ln, encoder.blocks.mlp),
        )
        own = jax.tree.map(
            lambda leaf, place=place: leaf[place],
            (encoder.blocks.context_attn_ln, encoder.blocks.context_attn, encoder.blocks.context_gate),
        )
        before = embedded if layer == 0 else after[layer - 1]
        stream = added_to(before, attn_ln, attn)
        contributed = vectors(stream, *own, states.hidden, states.mask)
        assert_close(lengths[place], np.linalg.norm(contributed, axis=-1), TERMS)
        bias = own[1].out.bias
        added = contributed.sum(axis=2) + (0 if bias is None else bias[...])
        assert np.abs(added).max() > 0.1
        stream = np.float32(stream + added)
        assert_close(added_to(stream, mlp_ln, mlp), after[layer], TERMS)


def test_one_token_contributes_all_and_none_nothing():
    model = model_of(CONFIG)
    features, states = inputs()
    mask = np.array([[1, 0, 0, 0, 0, 0], [0] * 6, [0, 1, 0, 1, 0, 0]], bool)
    lengths = np.asarray(run(model.audio_encoder, features, ContextStates(states.hidden, mask))[0])
    assert not lengths[:, ~np.broadcast_to(mask[:, None], (3, 10, 6))].any()
    assert (lengths[:, 0, :, 0] > 0).all()
    # Attention to a single token is the same everywhere.
    assert_close(lengths[:, 0, :, 0], np.broadcast_to(lengths[:, 0, :1, 0], (3, 10)), TERMS)


def test_closed_gates_let_nothing_through():
    model = nnx.merge(abstract(CONFIG)[0], with_gates(wide_params(CONFIG), [0, 0, 0]))
    assert not np.asarray(run(model.audio_encoder, *inputs())[0]).any()
