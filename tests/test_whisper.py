import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import whisper_params
from tolerance import assert_close, audio_encoder_terms, decoder_terms, whisper_terms

from cwjax.errors import CwjaxError
from cwjax.models.audio_encoder import AudioEncoder, sinusoids
from cwjax.models.parameters import flatten
from cwjax.models.text_decoder import TextDecoder
from cwjax.models.whisper import WHISPER_SIZES, ContextAttentionConfig, WhisperConfig

CONFIG = WhisperConfig(
    vocab_size=60,
    num_mel_bins=80,
    d_model=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_layers=3,
    decoder_attention_heads=4,
    decoder_ffn_dim=48,
    max_source_positions=20,
    max_target_positions=12,
)


def build(config, key=None):
    """Graph definitions and, given a key, parameters of a stock Whisper."""
    key = jax.random.key(0) if key is None else key
    parts = {
        "audio_encoder": nnx.eval_shape(lambda: AudioEncoder(config, None, 0, key=key)),
        "decoder": nnx.eval_shape(lambda: TextDecoder(config, key=key)),
    }
    return {name: nnx.split(part)[0] for name, part in parts.items()}


def shapes(make):
    return dict(flatten(nnx.to_pure_dict(nnx.state(nnx.eval_shape(make)))))


@pytest.fixture(scope="module", params=[80, 128])
def pair(request):
    """A PyTorch Whisper with wide random weights, our parameters of it, and inputs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = dataclasses.replace(CONFIG, num_mel_bins=request.param)
    settings = transformers.WhisperConfig(
        **dataclasses.asdict(config),
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder.embed_positions" not in name:
                parameter.normal_(std=0.15).add_(1.0 if "layer_norm.weight" in name else 0.0)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    random = np.random.default_rng(0)
    features = random.normal(size=(2, 40, config.num_mel_bins)).astype(np.float32)
    tokens = random.integers(1, config.vocab_size, (2, 9))  # PyTorch gives the padding, 0, no gradient
    return config, model, whisper_params(tensors, config), features, tokens


def test_equals_the_pytorch_model(pair):
    import torch

    config, model, params, features, tokens = pair
    graphs = build(config)

    @jax.jit
    def run(params, features, tokens):
        encoder = nnx.merge(graphs["audio_encoder"], params["audio_encoder"])
        audio = encoder(features)
        return encoder.layer_states(features), audio, nnx.merge(graphs["decoder"], params["decoder"])(tokens, audio)

    states, audio, logits = run(params, features, tokens)
    with torch.no_grad():
        encoded = model.model.encoder(torch.tensor(features).mT, output_hidden_states=True)
        # transformers puts the last layer norm's output in the place of the last block's.
        inputs = []
        hook = model.model.encoder.layer_norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        reference = model(input_features=torch.tensor(features).mT, decoder_input_ids=torch.tensor(tokens))
        hook.remove()
    for layer, state in enumerate([*encoded.hidden_states[1:-1], inputs[0]]):
        assert_close(states[layer], state, audio_encoder_terms(config))
    assert_close(audio, encoded.last_hidden_state, audio_encoder_terms(config))
    assert_close(logits, reference.logits, whisper_terms(config))
    assert logits.dtype == jnp.float32


def test_gradients_equal_those_of_the_pytorch_model(pair):
    import torch

    config, model, params, features, tokens = pair
    graphs = build(config)

    @jax.jit
    @jax.grad
    def gradient(params):
        audio = nnx.merge(graphs["audio_encoder"], params["audio_encoder"])(features)
        logits = nnx.merge(graphs["decoder"], params["decoder"])(tokens[:, :-1], audio)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], -1).mean()

    ours = dict(flatten(gradient(params)))
    model.zero_grad()
    logits = model(input_features=torch.tensor(features).mT, decoder_input_ids=torch.tensor(tokens[:, :-1])).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tokens[:, 1:]).flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    positions = gradients["model.encoder.embed_positions.weight"]
    assert positions is None
    gradients["model.encoder.embed_positions.weight"] = torch.zeros(20, 16)
    reference = dict(flatten(whisper_params({name: value.numpy() for name, value in gradients.items()}, config)))
    largest = max(np.abs(leaf).max() for leaf in reference.values())
    terms = 2 * whisper_terms(config) + features.size  # forth and back, summed over all positions
    for path, leaf in reference.items():
        if path != "audio_encoder/positions":
            assert_close(ours[path], leaf, terms, largest, message=path)


def step_by_step(graph: nnx.GraphDef) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """A decoder that reads four tokens at once and the rest one by one; gives the logits of all."""

    @jax.jit
    def decode(params, tokens, audio):
        decoder = nnx.merge(graph, params).stepwise()
        audio, length = decoder.project_audio(audio), tokens.shape[1]
        slots = length + 2

        def read(tokens, cache, position):
            reached = position + jnp.arange(tokens.shape[1])
            seen = jnp.arange(slots) <= reached[:, None]
            reading = decoder.read(tokens, audio, cache, position, reached, seen)
            return decoder.logits(reading.stream), reading.cache

        def body(carry):
            position, cache, logits = carry
            new, cache = read(jax.lax.dynamic_slice_in_dim(tokens, position, 1, axis=1), cache, position)
            return position + 1, cache, jax.lax.dynamic_update_slice(logits, new, (0, position, 0))

        prompt, cache = read(tokens[:, :4], decoder.empty_cache(audio, slots), 0)
        logits = jnp.zeros((tokens.shape[0], length, prompt.shape[-1])).at[:, :4].set(prompt)
        return jax.lax.while_loop(lambda carry: carry[0] < length, body, (4, cache, logits))[2]

    return decode


def test_cached_decoding_equals_teacher_forcing(pair):
    config, _, params, _, tokens = pair
    if config.num_mel_bins != 80:
        pytest.skip("the decoder knows no mels")
    graph = build(config)["decoder"]
    audio = jax.random.normal(jax.random.key(1), (2, 20, 16))
    whole = jax.jit(lambda params, *inputs: nnx.merge(graph, params)(*inputs))(params["decoder"], tokens, audio)
    assert_close(step_by_step(graph)(params["decoder"], tokens, audio), whole, decoder_terms(config))


def test_bfloat16_is_decoded_in(pair):
    config, _, params, features, tokens = pair
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    graphs = build(config)
    encode, decode = (
        jax.jit(lambda params, *inputs, graph=graphs[part]: nnx.merge(graph, params)(*inputs))
        for part in ("audio_encoder", "decoder")
    )
    audio = encode(half["audio_encoder"], features.astype(jnp.bfloat16))
    exact = decode(params["decoder"], tokens, audio.astype(jnp.float32))
    states = jax.eval_shape(lambda params: nnx.merge(graphs["decoder"], params).states(tokens, audio), half["decoder"])
    assert states.dtype == jnp.bfloat16
    stepped = step_by_step(graphs["decoder"])(half["decoder"], tokens, audio)
    for ours in (decode(half["decoder"], tokens, audio), stepped):
        assert ours.dtype == jnp.float32
        assert np.abs(ours - exact).mean() < 0.03 * np.abs(exact).mean()


def test_sinusoids_are_whispers(pair):
    _, _, params, _, _ = pair
    # A sine is off by the rounding of its angle, and angles are as large as there are positions.
    assert_close(params["audio_encoder"]["positions"], sinusoids(20, 16), terms=1, scale=20)
    transformers = pytest.importorskip("transformers")
    reference = transformers.models.whisper.modeling_whisper.sinusoids(1500, 384)
    assert_close(sinusoids(1500, 384), reference, terms=1, scale=1500)


def test_a_shorter_window_is_a_whisper_of_fewer_positions(pair):
    config, _, params, features, _ = pair

    def encode(config, params):
        graph = build(config)["audio_encoder"]
        return jax.jit(lambda params: nnx.merge(graph, params)(features[:, :24]))(params)

    long = params["audio_encoder"]
    # Sinusoids do not depend on how many there are.
    short = long | {"positions": sinusoids(12, config.d_model)}
    expected = encode(dataclasses.replace(config, max_source_positions=12), short)
    assert_close(encode(config, long), expected, audio_encoder_terms(config))


def test_wrong_lengths_are_refused():
    key = jax.random.key(0)
    encoder = nnx.eval_shape(lambda: AudioEncoder(CONFIG, None, 0, key=key))
    for frames in (42, 39):
        with pytest.raises(CwjaxError, match=f"{frames} mel frames.*at most 40"):
            encoder(jnp.zeros((1, frames, 80)))
    decoder = nnx.eval_shape(lambda: TextDecoder(CONFIG, key=key))
    with pytest.raises(CwjaxError, match="13 tokens do not fit into the 12 positions"):
        decoder(jnp.zeros((1, 13), int), jnp.zeros((1, 20, 16)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder_attention_heads": 3}, "d_model 16 does not divide by encoder_attention_heads 3"),
        ({"decoder_layers": 0}, "decoder_layers is 0"),
        ({"d_model": 15, "encoder_attention_heads": 5, "decoder_attention_heads": 3}, "even width"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(CwjaxError, match=message):
        dataclasses.replace(CONFIG, **wrong)


def test_context_layers_must_exist():
    assert ContextAttentionConfig().layers_of(3) == (0, 1, 2)
    assert ContextAttentionConfig(layers=(1,)).layers_of(3) == (1,)
    with pytest.raises(CwjaxError, match="name 3, but the audio encoder's last layer is 2"):
        ContextAttentionConfig(layers=(1, 3)).layers_of(3)
    for layers in ((), (1, 0), (0, 0), (-1,)):
        with pytest.raises(CwjaxError, match="ascending from 0"):
            ContextAttentionConfig(layers=layers)
    with pytest.raises(CwjaxError, match="'sigmoid': use 'tanh' or 'none'"):
        ContextAttentionConfig(gate="sigmoid")


PUBLISHED_MILLIONS = {
    "tiny": 39,
    "base": 74,
    "small": 244,
    "medium": 769,
    "large-v2": 1550,
    "large-v3": 1550,
    "large-v3-turbo": 809,
}


@pytest.mark.parametrize("size", PUBLISHED_MILLIONS)
def test_real_sizes_have_as_many_parameters_as_the_pytorch_models(size):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = WHISPER_SIZES[size]
    with torch.device("meta"):
        model = transformers.WhisperModel(transformers.WhisperConfig(**dataclasses.asdict(config)))
    reference = sum(parameter.numel() for parameter in model.parameters())
    key = jax.random.key(0)
    leaves = shapes(lambda: AudioEncoder(config, None, 0, key=key)) | {
        f"decoder/{path}": leaf for path, leaf in shapes(lambda: TextDecoder(config, key=key)).items()
    }
    assert sum(leaf.size for leaf in leaves.values()) == reference
    assert reference / 1e6 == pytest.approx(PUBLISHED_MILLIONS[size], rel=0.04)
