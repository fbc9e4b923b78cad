import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import read_tensors, t5_params
from tolerance import assert_close, text_encoder_terms

from cwjax.errors import CwjaxError
from cwjax.models.parameters import flatten
from cwjax.models.t5 import T5Config, T5Encoder, relative_buckets
from cwjax.training.sharding import make_mesh, parameter_shardings
from cwjax.weights.configuration_file import read_config
from cwjax.weights.text_encoder_checkpoints import t5_config, text_encoder_config

# Heads together are wider than the stream in one, narrower in the other. Few buckets, so that distances fill them,
# and an epsilon large enough to show.
CONFIGS = {
    "t5": T5Config(
        vocab_size=50,
        d_model=24,
        d_kv=8,
        d_ff=40,
        num_layers=3,
        num_heads=4,
        relative_attention_num_buckets=12,
        relative_attention_max_distance=20,
        layer_norm_epsilon=0.01,
    ),
    "mt5": T5Config(
        vocab_size=60, d_model=32, d_kv=4, d_ff=24, num_layers=2, num_heads=6, feed_forward_proj="gated-gelu"
    ),
}


# One with all heads' scores at once, one with those of a head at a time.
WIDTHS = {"t5": 33, "mt5": 260}


@cache
def graph_of(config):
    return nnx.split(nnx.eval_shape(lambda: T5Encoder(config, key=jax.random.key(0))))[0]


@cache
def compiled(config):
    graph = graph_of(config)
    return jax.jit(lambda params, ids, mask: nnx.merge(graph, params)(ids, mask))


@cache
def with_gradients(config):
    """From parameters, ids, mask and weights of the states: gradients of the weighted sum, and the states."""

    def weighted(params, ids, mask, weights):
        states = nnx.merge(graph_of(config), params)(ids, mask)
        return (states.astype(jnp.float32) * weights).sum(), states

    return jax.jit(jax.grad(weighted, has_aux=True))


def sequences(config, lengths, width):
    ids = np.random.default_rng(0).integers(1, config.vocab_size, (len(lengths), width))
    return ids, np.arange(width) < np.array(lengths)[:, None]


@cache
def pytorch_model(kind):
    """A model of transformers with weights drawn so wide that every part matters."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    settings, model = {
        "t5": (transformers.T5Config, transformers.T5EncoderModel),
        "mt5": (transformers.MT5Config, transformers.MT5EncoderModel),
    }[kind]
    torch.manual_seed(0)
    model = model(settings(**dataclasses.asdict(CONFIGS[kind]))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            wide = 1.0 if "relative_attention_bias" in name or name == "shared.weight" else 0.2
            parameter.normal_(std=wide).add_(1.0 if "layer_norm" in name else 0.0)
    return model


def arrays_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def wide_params(config):
    """As of `pytorch_model`, drawn here."""
    graph = nnx.eval_shape(lambda: T5Encoder(config, key=jax.random.key(0)))
    random = np.random.default_rng(3)

    def widen(path, leaf):
        wide = 1.0 if path[0].key in ("relative_bias", "token_embedding") else 0.2
        return (random.normal(size=leaf.shape) * wide + (path[-1].key == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(widen, nnx.to_pure_dict(nnx.state(graph)))


@pytest.mark.parametrize("kind", CONFIGS)
def test_states_and_gradients_equal_the_pytorch_model(kind):
    torch = pytest.importorskip("torch")

    model, config, width = pytorch_model(kind), CONFIGS[kind], WIDTHS[kind]
    ids, mask = sequences(config, [width, 14, 1], width)
    weights = np.random.default_rng(2).normal(size=(*ids.shape, config.d_model)).astype(np.float32) * mask[..., None]
    model.zero_grad()
    result = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long(), output_hidden_states=True)
    (result.last_hidden_state * torch.tensor(weights)).sum().backward()
    # Gradients find their places as the tensors do.
    names = dict(model.named_parameters())
    reference = dict(flatten(t5_params({name: names[name].grad.numpy() for name in names}, config)))

    params = t5_params(arrays_of(model), config)
    gradients, states = with_gradients(config)(params, ids, mask, weights)
    terms = text_encoder_terms(config, width)
    assert_close(states[mask], result.last_hidden_state.detach().numpy()[mask], terms)
    gradients = dict(flatten(gradients))
    assert gradients.keys() == reference.keys()
    gradient_terms = 2 * terms + ids.size  # forth and back, summed over all tokens
    for path, gradient in gradients.items():
        assert np.abs(reference[path]).max() > 1e-3, path
        assert_close(gradient, reference[path], gradient_terms, message=path)

    @jax.jit
    def layer_by_layer(params):
        encoder = nnx.merge(graph_of(config), params)
        bias = encoder.position_bias(width)

        def run(stream, layer):
            return jax.tree.map(lambda leaf: leaf[None], layer)(stream, mask, bias), stream

        last, inputs = jax.lax.scan(run, encoder.token_embedding(ids), encoder.blocks)
        return [*inputs, encoder.final_ln(last)]

    # The last of their states has gone through the final norm already.
    for layer, (ours, theirs) in enumerate(zip(layer_by_layer(params), result.hidden_states, strict=True)):
        assert_close(ours[mask], theirs.detach().numpy()[mask], terms, message=f"before layer {layer}")


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (12, 20), (64, 512), (4, 2), (33, 100)])
def test_buckets_equal_the_pytorch_model(buckets, max_distance):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = np.arange(-600, 601)
    reference = modeling.T5Attention._relative_position_bucket(
        torch.tensor(distances), bidirectional=True, num_buckets=buckets, max_distance=max_distance
    )
    ours = relative_buckets(distances, buckets, max_distance)
    np.testing.assert_array_equal(ours, reference)
    assert set(ours) == set(range(buckets - buckets % 2)) - {buckets // 2}


def test_a_bias_belongs_to_the_distance_of_key_and_query():
    config = CONFIGS["t5"]
    encoder = nnx.merge(graph_of(config), wide_params(config))
    bias = np.asarray(encoder.position_bias(30))
    assert bias.shape == (4, 30, 30)
    table = np.asarray(encoder.relative_bias[...])
    assert len(np.unique(table[:, 0])) == 12
    # Buckets of 12 with 20 the farthest: before or at the query 0, 1, 2 alone, then ranges; after it, 6 more.
    for query, key, bucket in [(7, 7, 0), (7, 6, 1), (7, 5, 2), (7, 8, 7), (7, 9, 8), (29, 0, 5), (0, 29, 11)]:
        np.testing.assert_array_equal(bias[:, query, key], table[bucket])


@pytest.mark.parametrize("kind", CONFIGS)
def test_padding_and_company_do_not_matter(kind):
    config = CONFIGS[kind]
    params, width = wide_params(config), WIDTHS[kind]
    ids, mask = sequences(config, [17, 9, 1], width)

    def states(ids):
        return np.asarray(with_gradients(config)(params, ids, mask, np.zeros((*ids.shape, config.d_model)))[1])

    together = states(ids)
    np.testing.assert_array_equal(together[mask], states(np.where(mask, ids, 3))[mask])
    alone = compiled(config)(params, ids[1:2, :9], mask[1:2, :9])
    terms = text_encoder_terms(config, 17)  # the others have a weight of nothing
    assert_close(together[1, :9], alone[0], terms)
    # Beyond 256 positions, where attention on the CPU goes another way, and 512, which T5 was trained with.
    padding = ((0, 0), (0, 530 - width))
    longer = compiled(config)(params, np.pad(ids, padding, constant_values=5), np.pad(mask, padding))
    assert_close(longer[:, :width][mask], together[mask], terms)


def test_bfloat16_stays_close():
    config, width = CONFIGS["mt5"], WIDTHS["mt5"]
    params = wide_params(config)
    ids, mask = sequences(config, [width, 180, 110], width)
    half_params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    # Each bias is in thousands of scores: its gradient must not be summed in bfloat16.
    weights = np.random.default_rng(2).normal(size=(*ids.shape, config.d_model)).astype(np.float32) * mask[..., None]
    (gradient, exact), (half_gradient, half) = (
        with_gradients(config)(each, ids, mask, weights) for each in (params, half_params)
    )
    assert half.dtype == jnp.bfloat16
    half, exact = np.asarray(half, np.float32)[mask], np.asarray(exact)[mask]
    assert np.abs(half - exact).mean() < 0.03 * np.abs(exact).mean()
    half, exact = (np.asarray(each["relative_bias"], np.float32) for each in (half_gradient, gradient))
    assert np.abs(half - exact).mean() < 0.03 * np.abs(exact).mean()


def test_an_empty_context_is_harmless():
    config, width = CONFIGS["t5"], WIDTHS["t5"]
    ids, mask = sequences(config, [6, 0, width], width)
    weights = np.ones((*ids.shape, config.d_model), np.float32) * np.array([1, 0, 0])[:, None, None]
    gradient, states = with_gradients(config)(wide_params(config), ids, mask, weights)
    assert np.isfinite(states).all()
    assert all(np.isfinite(leaf).all() for _, leaf in flatten(gradient))


# Sizes of the published checkpoints, from their config.json.
PUBLISHED = {
    "t5-small": T5Config(),
    "flan-t5-base": T5Config(d_model=768, d_ff=2048, num_layers=12, num_heads=12, feed_forward_proj="gated-gelu"),
    "flan-t5-large": T5Config(d_model=1024, d_ff=2816, num_layers=24, num_heads=16, feed_forward_proj="gated-gelu"),
    "mt5-small": T5Config(
        vocab_size=250112, d_model=512, d_ff=1024, num_layers=8, num_heads=6, feed_forward_proj="gated-gelu"
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_parameters_of_the_pytorch_model(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = PUBLISHED[name]
    with torch.device("meta"):
        model = transformers.T5EncoderModel(transformers.T5Config(**dataclasses.asdict(config)))
    ours = nnx.state(nnx.eval_shape(lambda: T5Encoder(config, key=jax.random.key(0))))
    count = sum(leaf.size for _, leaf in flatten(nnx.to_pure_dict(ours)))
    assert count == sum(parameter.numel() for parameter in model.parameters())


def test_new_weights_are_drawn_as_wide_as_t5_draws_them():
    config = dataclasses.replace(CONFIGS["mt5"], vocab_size=500, d_model=64, d_kv=16, d_ff=96)
    draw = jax.jit(lambda key: nnx.to_pure_dict(nnx.state(T5Encoder(config, key=key))))
    params, other = (dict(flatten(draw(jax.random.key(seed)))) for seed in (0, 1))
    expected = {
        "token_embedding/embedding": 1,
        "relative_bias": 64**-0.5,
        "blocks/attn/query/kernel": (64 * 16) ** -0.5,
        "blocks/attn/key/kernel": 64**-0.5,
        "blocks/attn/value/kernel": 64**-0.5,
        "blocks/attn/out/kernel": (6 * 16) ** -0.5,
        "blocks/mlp/gate/kernel": 64**-0.5,
        "blocks/mlp/up/kernel": 64**-0.5,
        "blocks/mlp/down/kernel": 96**-0.5,
    }
    scales = {"blocks/attn_ln/scale", "blocks/mlp_ln/scale", "final_ln/scale"}
    assert params.keys() == expected.keys() | scales
    for path, width in expected.items():
        assert np.std(params[path]) == pytest.approx(width, rel=0.1), path
        assert not np.array_equal(params[path], other[path]), path
    for path in scales:
        np.testing.assert_array_equal(params[path], 1)


def test_every_matrix_is_split_over_a_mesh():
    shapes = nnx.state(nnx.eval_shape(lambda: T5Encoder(CONFIGS["mt5"], key=jax.random.key(0))))
    shardings = parameter_shardings({"text_encoder": nnx.to_pure_dict(shapes)}, make_mesh(1, 1, 1))
    for path, sharding in flatten(shardings):
        split = {axis for axis in sharding.spec if axis}
        if path.endswith("kernel"):
            assert split == {"fsdp", "tensor"}, path
        assert (split == {"fsdp"}) == path.endswith("embedding"), path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj is 'gated-silu': only relu and gated-gelu"),
        ({"d_kv": 0}, "d_kv is 0"),
        ({"relative_attention_num_buckets": 3}, "num_buckets is 3"),
        ({"relative_attention_max_distance": 3}, "max_distance is 3: .*num_buckets 12"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(CwjaxError, match=message):
        dataclasses.replace(CONFIGS["t5"], **wrong)


@pytest.mark.parametrize("name", ["T5EncoderModel", "T5ForConditionalGeneration", "MT5ForConditionalGeneration"])
def test_reads_what_transformers_writes(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    config = CONFIGS["mt5" if name.startswith("M") else "t5"]
    model = kind(kind.config_class(**dataclasses.asdict(config), num_decoder_layers=1))
    model.save_pretrained(tmp_path)
    assert t5_config(read_config(tmp_path)) == config
    tensors = read_tensors(tmp_path)
    params = dict(flatten(t5_params(tensors, config)))
    # Every number of the encoder arrives, once.
    assert sum(leaf.size for leaf in params.values()) == sum(leaf.numel() for leaf in model.encoder.parameters())
    np.testing.assert_array_equal(
        params["blocks/attn/out/kernel"][1], tensors["encoder.block.1.layer.0.SelfAttention.o.weight"].T
    )
    # Older files have the embedding under two names, or under the encoder's alone.
    embedding = tensors["shared.weight"]
    alone = {name: tensor for name, tensor in tensors.items() if name != "shared.weight"}
    for files in (tensors, alone):
        again = t5_params(files | {"encoder.embed_tokens.weight": embedding}, config)
        np.testing.assert_array_equal(again["token_embedding"]["embedding"], embedding)
    with pytest.raises(CwjaxError, match=r"'encoder.embed_tokens.weight' is not 'shared.weight'"):
        t5_params(tensors | {"encoder.embed_tokens.weight": embedding + 1}, config)
    with pytest.raises(CwjaxError, match=r"has no tensor 'shared.weight'.*whole T5"):
        t5_params(alone, config)
    own_bias = {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": np.zeros((12, 4))}
    with pytest.raises(CwjaxError, match=r"fit nowhere in T5: encoder.block.1.layer.0.SelfAttention.relative_"):
        t5_params(tensors | own_bias, config)


def test_configurations_of_other_models_are_refused():
    settings = {"model_type": "t5", **dataclasses.asdict(CONFIGS["t5"])}
    with pytest.raises(CwjaxError, match="model_type is 'umt5', which has relative positions of its own in every"):
        text_encoder_config(settings | {"model_type": "umt5"})
    with pytest.raises(CwjaxError, match="model_type is 'bert', but only 't5'"):
        t5_config(settings | {"model_type": "bert"})
    with pytest.raises(CwjaxError, match="feed_forward_proj is 'gated-silu'"):
        t5_config(settings | {"feed_forward_proj": "gated-silu"})
    with pytest.raises(CwjaxError, match="dense_act_fn is 'silu', but only 'gelu_new'"):
        t5_config(settings | {"feed_forward_proj": "gated-gelu", "dense_act_fn": "silu"})
    with pytest.raises(CwjaxError, match="is_gated_act is True, but only False"):
        t5_config(settings | {"is_gated_act": True})


@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_left_out_settings_are_those_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    reference = {"t5": transformers.T5Config, "mt5": transformers.MT5Config}[kind]()
    for name, value in dataclasses.asdict(t5_config({"model_type": kind})).items():
        assert getattr(reference, name) == value
