"""First values of a model's parameters: which, how wide, and what they depend on."""

import dataclasses

import jax
import numpy as np
import pytest
from test_context_whisper import CONFIG

from cwjax.models.context_whisper import ContextWhisperConfig, abstract, init_params
from cwjax.models.parameters import flatten
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_initial_values_of_a_part_depend_on_that_part_alone():
    key = jax.random.key(3)
    first = dict(flatten(init_params(CONFIG, key)))
    others = ContextWhisperConfig(
        whisper=dataclasses.replace(CONFIG.whisper, vocab_size=51, decoder_layers=1),
        text_encoder=dataclasses.replace(CONFIG.text_encoder, hidden_size=12),
        context=ContextAttentionConfig(layers=(2,), gate_init=0.25),
    )
    second = dict(flatten(init_params(others, key)))
    for path, leaf in first.items():
        if path.startswith("audio_encoder/") and "/context_" not in path:
            np.testing.assert_array_equal(leaf, second[path], err_msg=path)
    np.testing.assert_array_equal(second["audio_encoder/blocks/context_gate"], [0.25])
    np.testing.assert_array_equal(first["audio_encoder/blocks/context_gate"], [0, 0, 0])
    different = dict(flatten(init_params(CONFIG, jax.random.key(4))))
    kernels = [np.asarray(leaf).ravel() for path, leaf in first.items() if path.endswith("kernel")]
    assert len({leaf[0].item() for leaf in kernels}) == len(kernels)
    for path, leaf in first.items():
        if path.endswith(("kernel", "embedding", "decoder/positions")):
            inputs = np.prod(leaf.shape[1:-1]) if "/blocks/" in path else np.prod(leaf.shape[:-1])
            expected = inputs**-0.5 if path.endswith("kernel") else 0.02
            assert np.std(leaf) == pytest.approx(expected, rel=0.2), path
            assert not np.array_equal(leaf, different[path]), path


def test_abstract_parameters_are_those_that_are_initialised():
    shapes = {path: (leaf.shape, leaf.dtype) for path, leaf in flatten(abstract(CONFIG)[1])}
    assert shapes == {path: (leaf.shape, leaf.dtype) for path, leaf in flatten(init_params(CONFIG, jax.random.key(0)))}
    # A model too large for memory costs none.
    large = WhisperConfig(
        d_model=20480, encoder_layers=320, decoder_layers=320, encoder_attention_heads=8, decoder_attention_heads=8
    )
    leaves = flatten(abstract(ContextWhisperConfig(whisper=large))[1])
    assert sum(leaf.size for _, leaf in leaves) > 1e12
