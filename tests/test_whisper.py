import dataclasses
from collections.abc import Callable
from functools import partial
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
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig

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


@pytest.fixture(scope="module")
def pair():
    """A PyTorch Whisper with wide random weights, our parameters of it, and inputs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    settings = transformers.WhisperConfig(
        **dataclasses.asdict(CONFIG),
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
    features = random.normal(size=(2, 40, CONFIG.num_mel_bins)).astype(np.float32)
    tokens = random.integers(1, CONFIG.vocab_size, (2, 9))  # PyTorch gives the padding, 0, no gradient
    return model, whisper_params(tensors, CONFIG), features, tokens


@pytest.fixture(scope="module")
def computed(pair):
    """Gradients of a loss, and the states of the audio encoder's layers, its result and the logits."""
    _, params, features, tokens = pair
    graphs = build(CONFIG)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def run(params):
        encoder = nnx.merge(graphs["audio_encoder"], params["audio_encoder"])
        audio = encoder(features)
        logits = nnx.merge(graphs["decoder"], params["decoder"])(tokens, audio)
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], -1).mean()
        return loss, (encoder.layer_states(features), audio, logits)

    return run(params)


def test_equals_the_pytorch_model(pair, computed):
    import torch

    model, _, features, tokens = pair
    _, (states, audio, logits) = computed
    with torch.no_grad():
        encoded = model.model.encoder(torch.tensor(features).mT, output_hidden_states=True)
        # transformers puts the last layer norm's output in the place of the last block's.
        inputs = []
        hook = model.model.encoder.layer_norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        reference = model(input_features=torch.tensor(features).mT, decoder_input_ids=torch.tensor(tokens))
        hook.remove()
    for layer, state in enumerate([*encoded.hidden_states[1:-1], inputs[0]]):
        assert_close(states[layer], state, audio_encoder_terms(CONFIG))
    assert_close(audio, encoded.last_hidden_state, audio_encoder_terms(CONFIG))
    assert_close(logits, reference.logits, whisper_terms(CONFIG))
    assert logits.dtype == jnp.float32


def test_gradients_equal_those_of_the_pytorch_model(pair, computed):
    import torch

    model, _, features, tokens = pair
    ours = dict(flatten(computed[0]))
    model.zero_grad()
    logits = model(input_features=torch.tensor(features).mT, decoder_input_ids=torch.tensor(tokens[:, :-1])).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tokens[:, 1:]).flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    positions = gradients["model.encoder.embed_positions.weight"]
    assert positions is None
    gradients["model.encoder.embed_positions.weight"] = torch.zeros(20, 16)
    reference = dict(flatten(whisper_params({name: value.numpy() for name, value in gradients.items()}, CONFIG)))
    largest = max(np.abs(leaf).max() for leaf in reference.values())
    terms = 2 * whisper_terms(CONFIG) + features.size  # forth and back, summed over all positions
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


@pytest.fixture(scope="module")
def decoders():
    """Of the graph: one that reads a text at once, one that reads it step by step."""
    graph = build(CONFIG)["decoder"]
    return jax.jit(lambda params, *inputs: nnx.merge(graph, params)(*inputs)), step_by_step(graph)


def test_cached_decoding_equals_teacher_forcing(pair, decoders):
    _, params, _, tokens = pair
    audio = jax.random.normal(jax.random.key(1), (2, 20, 16))
    whole, stepped = (decode(params["decoder"], tokens, audio) for decode in decoders)
    assert_close(stepped, whole, decoder_terms(CONFIG))


def test_bfloat16_is_decoded_in(pair, decoders):
    _, params, _, tokens = pair
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params["decoder"])
    audio = jax.random.normal(jax.random.key(1), (2, 20, 16), jnp.bfloat16)
    exact = decoders[0](params["decoder"], tokens, audio.astype(jnp.float32))
    graph = build(CONFIG)["decoder"]
    states = jax.eval_shape(lambda params: nnx.merge(graph, params).states(tokens, audio), half)
    assert states.dtype == jnp.bfloat16
    for decode in decoders:
        ours = decode(half, tokens, audio)
        assert ours.dtype == jnp.float32
        assert np.abs(ours - exact).mean() < 0.03 * np.abs(exact).mean()


def test_sinusoids_are_whispers(pair):
    _, params, _, _ = pair
    # A sine is off by the rounding of its angle, and angles are as large as there are positions.
    assert_close(params["audio_encoder"]["positions"], sinusoids(20, 16), terms=1, scale=20)
    transformers = pytest.importorskip("transformers")
    reference = transformers.models.whisper.modeling_whisper.sinusoids(1500, 384)
    assert_close(sinusoids(1500, 384), reference, terms=1, scale=1500)


def test_a_shorter_window_is_a_whisper_of_fewer_positions(pair):
    _, params, features, _ = pair

    def encode(config, params):
        graph = build(config)["audio_encoder"]
        return jax.jit(lambda params: nnx.merge(graph, params)(features[:, :24]))(params)

    long = params["audio_encoder"]
    # Sinusoids do not depend on how many there are.
    short = long | {"positions": sinusoids(12, CONFIG.d_model)}
    expected = encode(dataclasses.replace(CONFIG, max_source_positions=12), short)
    assert_close(encode(CONFIG, long), expected, audio_encoder_terms(CONFIG))


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
