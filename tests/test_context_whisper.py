import dataclasses
import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from references import wide_parameters
from tiny import bert_params, read_tensors, whisper_params
from tolerance import assert_close, audio_encoder_terms, text_encoder_terms, whisper_terms

from cwjax.errors import CwjaxError
from cwjax.models.audio_encoder import ContextStates
from cwjax.models.bert import BertConfig
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import flatten, merge
from cwjax.models.t5 import T5Config
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig
from cwjax.weights.configuration_file import read_config

ORIGINAL = Path(__file__).resolve().parents[1].parent / "shared/fixtures/original_pytorch"

CONFIG = ContextWhisperConfig(
    whisper=WhisperConfig(
        vocab_size=50,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        max_source_positions=10,
        max_target_positions=8,
    ),
    text_encoder=BertConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    ),
)
WITH_T5 = dataclasses.replace(
    CONFIG,
    text_encoder=T5Config(
        vocab_size=40, d_model=24, d_kv=4, d_ff=32, num_layers=1, num_heads=3, feed_forward_proj="gated-gelu"
    ),
)
UNGATED = dataclasses.replace(CONFIG, context=ContextAttentionConfig(gate="none"))
TERMS = audio_encoder_terms(CONFIG.whisper, context=6)


@cache
def wide_params(config):
    """Parameters drawn so wide that every part matters; gates as they start."""
    return wide_parameters(config, gates=0.0)


def with_gates(params, gates):
    return merge(params, {"audio_encoder/blocks/context_gate": np.asarray(gates, np.float32)})


@cache
def encoder(config):
    graph = abstract(config)[0]
    return jax.jit(lambda params, features, states: nnx.merge(graph, params).encode(features, states))


def inputs(batch=3, tokens=6):
    random = np.random.default_rng(1)
    features = random.normal(size=(batch, 20, 8)).astype(np.float32)
    hidden = random.normal(size=(batch, tokens, 24)).astype(np.float32)
    mask = np.arange(tokens) < np.array([tokens, 3, 1])[:batch, None]
    return features, ContextStates(hidden, mask)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_closed_gates_leave_whisper_bit_for_bit(dtype):
    def cast(tree):
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float32 else leaf, tree)

    features, states = cast(inputs())
    params = cast(wide_params(CONFIG))
    with_context = encoder(CONFIG)(params, features, states)
    assert with_context.dtype == dtype
    np.testing.assert_array_equal(with_context, encoder(CONFIG)(params, features, None))
    opened = with_gates(params, cast(jnp.full(3, 0.5)))
    difference = jnp.abs(encoder(CONFIG)(opened, features, states) - with_context)
    assert difference.max(axis=(1, 2)).min() > 0.05


@pytest.mark.parametrize("config", [CONFIG, UNGATED], ids=["tanh", "none"])
def test_an_empty_context_adds_exactly_nothing(config):
    features, states = inputs()
    params = wide_params(config)
    if config is CONFIG:
        params = with_gates(params, [0.5, -0.7, 2.0])
    stock = encoder(config)(params, features, None)
    mask = np.array(states.mask)
    mask[1] = False
    audio = encoder(config)(params, features, states._replace(mask=mask))
    np.testing.assert_array_equal(audio[1], stock[1])
    assert np.abs(audio - stock)[[0, 2]].max(axis=(1, 2)).min() > 0.05


def test_padding_and_company_do_not_matter():
    params = with_gates(wide_params(CONFIG), [0.5, -0.7, 2.0])
    features, states = inputs()
    together = encoder(CONFIG)(params, features, states)
    # One alone, its context cut to its own length; what stood at the padding is gone.
    own = ContextStates(states.hidden[1:2, :3], np.ones((1, 3), bool))
    alone = encoder(CONFIG)(params, features[1:2], own)
    assert_close(together[1], alone[0], TERMS)
    padded = ContextStates(
        np.pad(states.hidden, ((0, 0), (0, 9), (0, 0)), constant_values=1e3),
        np.pad(states.mask, ((0, 0), (0, 9))),
    )
    longer = encoder(CONFIG)(params, features, padded)
    assert_close(longer, together, TERMS)


@pytest.mark.parametrize("layers", [(1,), (0, 2)])
def test_context_in_some_layers_equals_closed_gates_in_the_others(layers):
    features, states = inputs()
    every = with_gates(wide_params(CONFIG), [0.5 if layer in layers else 0.0 for layer in range(3)])
    config = dataclasses.replace(CONFIG, context=ContextAttentionConfig(layers=layers))
    expected = dict(flatten(abstract(config)[1]))
    some = {path: leaf[list(layers)] if "/context_" in path else leaf for path, leaf in flatten(every)}
    assert {path: leaf.shape for path, leaf in some.items()} == {path: leaf.shape for path, leaf in expected.items()}
    audio = encoder(config)(merge(some), features, states)
    reference = encoder(CONFIG)(every, features, states)
    assert_close(audio, reference, TERMS)


def test_a_wide_open_gate_is_no_gate():
    features, states = inputs()
    open_params = with_gates(wide_params(CONFIG), [30.0] * 3)
    biases = {
        f"audio_encoder/blocks/context_attn/{name}/bias": np.zeros((3, 16), np.float32) for name in ("value", "out")
    }
    ungated = dict(flatten(merge(open_params, biases)))
    del ungated["audio_encoder/blocks/context_gate"]
    assert ungated.keys() == dict(flatten(abstract(UNGATED)[1])).keys()
    assert_close(
        encoder(CONFIG)(open_params, features, states), encoder(UNGATED)(merge(ungated), features, states), TERMS
    )


def test_projected_contexts_serve_every_window():
    params = with_gates(wide_params(CONFIG), [0.5, -0.7, 2.0])
    features, states = inputs()
    graph = abstract(CONFIG)[0]
    projected = nnx.merge(graph, params).audio_encoder.project_context(states)
    assert projected.key.shape == (3, 3, 6, 2, 8)
    for window in (features, features[:, ::-1]):
        assert_close(encoder(CONFIG)(params, window, projected), encoder(CONFIG)(params, window, states), TERMS)


@cache
def whole_model(config):
    graph = abstract(config)[0]
    return jax.jit(lambda params, *inputs: nnx.merge(graph, params)(*inputs))


def examples():
    random = np.random.default_rng(2)
    features = random.normal(size=(2, 20, 8)).astype(np.float32)
    tokens, ids = random.integers(0, 50, (2, 5)), random.integers(0, 40, (2, 6))
    return features, tokens, ids, np.array([[True] * 6, [True] * 2 + [False] * 4])


def test_the_whole_model_is_stock_whisper_until_its_gates_open():
    params = wide_params(CONFIG)
    features, tokens, ids, mask = examples()
    graph = abstract(CONFIG)[0]

    @jax.jit
    def stock(params, features, tokens):
        model = nnx.merge(graph, params)
        return model.decode(tokens, model.encode(features))

    run = whole_model(CONFIG)
    expected = stock(params, features, tokens)
    np.testing.assert_array_equal(run(params, features, tokens, ids, mask), expected)
    opened = with_gates(params, [0.5] * 3)
    logits = run(opened, features, tokens, ids, mask)
    assert np.abs(logits - expected).max(axis=(1, 2)).min() > 0.05
    other = run(opened, features, tokens, np.where(mask, (ids + 1) % 40, ids), mask)
    assert np.abs(logits - other).max(axis=(1, 2)).min() > 0.05
    # What stands at the padding is not read.
    np.testing.assert_array_equal(run(opened, features, tokens, np.where(mask, ids, 7), mask), logits)


@pytest.mark.parametrize(
    ("config", "never"),
    [
        # A softmax does not change when all its scores do: keys' biases never get a gradient.
        (CONFIG, {"text_encoder/blocks/attn/key/bias"}),
        (WITH_T5, set()),
    ],
    ids=["bert", "t5"],
)
def test_gradients_reach_the_gates_first_and_everything_once_they_are_open(config, never):
    graph = abstract(config)[0]

    @jax.jit
    @jax.grad
    def gradient(params):
        return (nnx.merge(graph, params)(*examples()) ** 2).mean()

    def silent(params):
        return {path for path, leaf in flatten(gradient(params)) if not np.abs(leaf).max() > 1e-9}

    params = wide_params(config)
    closed = silent(params)
    assert "audio_encoder/blocks/context_gate" not in closed
    behind = {path for path, _ in flatten(params) if "/context_attn" in path or path.startswith("text_encoder")}
    assert closed == behind
    assert silent(with_gates(params, [0.5] * 3)) <= never


def test_bfloat16_stays_close_and_its_logits_are_float32():
    params = with_gates(wide_params(CONFIG), [0.5] * 3)
    run, (features, *rest) = whole_model(CONFIG), examples()
    exact = run(params, features, *rest)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    rounded = run(half, features.astype(jnp.bfloat16), *rest)
    assert rounded.dtype == exact.dtype == jnp.float32
    assert np.abs(rounded - exact).mean() < 0.05 * np.abs(exact).mean()


def test_configuration_survives_json():
    config = dataclasses.replace(CONFIG, context=ContextAttentionConfig("none", 0.5, (0, 2)))
    for each, kind in ((CONFIG, "bert"), (config, "bert"), (WITH_T5, "t5")):
        settings = json.loads(json.dumps({"model_type": "x", **each.to_dict()}))
        assert settings["text_encoder"]["kind"] == kind
        again = ContextWhisperConfig.from_dict(settings)
        assert again == each
        assert hash(again) == hash(each)


def test_wrong_configurations_are_refused():
    settings = CONFIG.to_dict()
    with pytest.raises(CwjaxError, match="no section 'whisper'"):
        ContextWhisperConfig.from_dict({})
    with pytest.raises(CwjaxError, match="kind 't7'; only 'bert' and 't5' are known"):
        ContextWhisperConfig.from_dict(settings | {"text_encoder": {"kind": "t7"}})
    with pytest.raises(CwjaxError, match=r"context has the wrong entries \(gait, gate\)"):
        ContextWhisperConfig.from_dict(settings | {"context": {"gait": "tanh", "gate_init": 0.0, "layers": None}})
    with pytest.raises(CwjaxError, match="name 7"):
        dataclasses.replace(CONFIG, context=ContextAttentionConfig(layers=(7,)))


def test_equals_the_original_pytorch_project():
    if not ORIGINAL.is_dir():
        pytest.skip("needs shared/fixtures/original_pytorch")
    settings = read_config(ORIGINAL)
    sizes = {"d_model": settings["d_model"], "encoder_layers": settings["spectrogram_encoder_layers"]}
    for name in ("vocab_size", "num_mel_bins", "max_source_positions", "max_target_positions", "decoder_layers"):
        sizes[name] = settings[name]
    for name in ("attention_heads", "ffn_dim"):
        sizes[f"encoder_{name}"] = sizes[f"decoder_{name}"] = settings[f"decoder_{name}"]
    config = ContextWhisperConfig(
        whisper=WhisperConfig(**sizes),
        text_encoder=BertConfig(
            hidden_size=settings["d_model"],
            num_hidden_layers=settings["text_encoder_layers"],
            num_attention_heads=settings["text_encoder_attention_heads"],
            intermediate_size=settings["text_encoder_ffn_dim"],
            max_position_embeddings=settings["max_source_positions"],
        ),
        context=ContextAttentionConfig(gate="none"),
    )
    tensors = {
        name.removeprefix("model.").replace("spectrogram_encoder", "encoder"): tensor
        for name, tensor in read_tensors(ORIGINAL).items()
    }
    text = {name: tensors.pop(name) for name in list(tensors) if name.startswith("text_encoder.")}
    context = {
        name: tensors.pop(name)
        for name in list(tensors)
        if name.startswith("encoder.layers.") and ".encoder_attn" in name
    }

    def stacked(name):
        parts = [context.pop(f"encoder.layers.{layer}.{name}") for layer in range(2)]
        return np.stack([part.T for part in parts])

    blocks = "audio_encoder/blocks"
    ours = {
        f"{blocks}/context_attn_ln/scale": stacked("encoder_attn_layer_norm.weight"),
        f"{blocks}/context_attn_ln/bias": stacked("encoder_attn_layer_norm.bias"),
        f"{blocks}/context_attn/key/kernel": stacked("encoder_attn.k_proj.weight"),
    }
    for part, their in {"query": "q_proj", "value": "v_proj", "out": "out_proj"}.items():
        ours[f"{blocks}/context_attn/{part}/kernel"] = stacked(f"encoder_attn.{their}.weight")
        ours[f"{blocks}/context_attn/{part}/bias"] = stacked(f"encoder_attn.{their}.bias")
    assert not context
    text = {name.removeprefix("text_encoder."): tensor for name, tensor in text.items()}
    params = merge(
        whisper_params(tensors, config.whisper), ours, {"text_encoder": bert_params(text, config.text_encoder)}
    )
    graph, expected_params = abstract(config)
    assert dict(flatten(params)).keys() == dict(flatten(expected_params)).keys()
    expected = np.load(ORIGINAL / "expected.npz")

    @jax.jit
    def run(params, features, ids, tokens):
        model = nnx.merge(graph, params)
        states = model.encode_context(ids, jnp.ones(ids.shape, bool))
        audio = model.encode(features, states)
        return states.hidden, audio, model.decode(tokens, audio)

    results = run(
        params,
        expected["input_features"].swapaxes(1, 2),
        expected["context_ids"],
        expected["decoder_input_ids"],
    )
    names = ("text_encoder_last_hidden_state", "encoder_last_hidden_state", "logits")
    context = expected["context_ids"].shape[1]
    terms = text_encoder_terms(config.text_encoder, context) + whisper_terms(config.whisper, context)
    for name, result in zip(names, results, strict=True):
        assert_close(result, expected[name], terms, message=name)
