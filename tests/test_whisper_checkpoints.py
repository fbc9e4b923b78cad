import dataclasses

import numpy as np
import pytest
from tiny import bert_params, read_tensors, whisper_params

from cwjax.errors import CwjaxError
from cwjax.models.bert import BertConfig
from cwjax.models.parameters import flatten
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.configuration_file import read_config
from cwjax.weights.text_encoder_checkpoints import bert_config
from cwjax.weights.whisper_checkpoints import whisper_config

WHISPER = WhisperConfig(
    vocab_size=30,
    num_mel_bins=8,
    d_model=8,
    encoder_layers=1,
    encoder_attention_heads=2,
    encoder_ffn_dim=12,
    decoder_layers=2,
    decoder_attention_heads=2,
    decoder_ffn_dim=12,
    max_source_positions=10,
    max_target_positions=6,
)
BERT = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=9,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Directories that transformers wrote, of a small random Whisper and a BERT with a head."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    settings = transformers.WhisperConfig(
        **dataclasses.asdict(WHISPER), pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1
    )
    directories = {name: tmp_path_factory.mktemp(name) for name in ("whisper", "bert")}
    transformers.WhisperForConditionalGeneration(settings).save_pretrained(directories["whisper"])
    settings = transformers.BertConfig(**dataclasses.asdict(BERT))
    transformers.BertForMaskedLM(settings).save_pretrained(directories["bert"])
    return directories


def whisper_tensors(checkpoints):
    return read_tensors(checkpoints["whisper"])


def test_reads_what_transformers_writes(checkpoints):
    assert whisper_config(read_config(checkpoints["whisper"])) == WHISPER
    assert bert_config(read_config(checkpoints["bert"])) == BERT
    tensors = whisper_tensors(checkpoints)
    params = dict(flatten(whisper_params(tensors, WHISPER)))
    # Every number of the checkpoint arrives, once.
    assert sum(leaf.size for leaf in params.values()) == sum(tensor.size for tensor in tensors.values())
    np.testing.assert_array_equal(
        params["decoder/blocks/cross_attn/value/kernel"][1],
        tensors["model.decoder.layers.1.encoder_attn.v_proj.weight"].T,
    )
    np.testing.assert_array_equal(
        params["audio_encoder/conv2/kernel"][2], tensors["model.encoder.conv2.weight"][:, :, 2].T
    )
    tensors = read_tensors(checkpoints["bert"])
    params = bert_params(tensors, BERT)
    np.testing.assert_array_equal(
        params["type_embedding"]["embedding"], tensors["bert.embeddings.token_type_embeddings.weight"]
    )


def test_prefixes_and_tied_outputs_make_no_difference(checkpoints):
    tensors = whisper_tensors(checkpoints)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    tied = bare | {"proj_out.weight": bare["decoder.embed_tokens.weight"]}
    one, other = (dict(flatten(whisper_params(each, WHISPER))) for each in (tensors, tied))
    for path in one:
        np.testing.assert_array_equal(one[path], other[path])
    with pytest.raises(CwjaxError, match=r"'proj_out.weight' is not the token embedding"):
        whisper_params(bare | {"proj_out.weight": bare["decoder.embed_tokens.weight"] + 1}, WHISPER)

    tensors = read_tensors(checkpoints["bert"])
    bare = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    bare |= {"embeddings.position_ids": np.arange(9)[None], "pooler.dense.bias": np.zeros(8, np.float32)}
    one, other = (dict(flatten(bert_params(each, BERT))) for each in (tensors, bare))
    for path in one:
        np.testing.assert_array_equal(one[path], other[path])


def test_half_precision_becomes_float32(checkpoints):
    tensors = {name: tensor.astype(np.float16) for name, tensor in whisper_tensors(checkpoints).items()}
    params = dict(flatten(whisper_params(tensors, WHISPER)))
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        params["decoder/positions"], tensors["model.decoder.embed_positions.weight"].astype(np.float32)
    )


def test_whatever_does_not_fit_is_named(checkpoints):
    tensors = whisper_tensors(checkpoints)
    name = "model.decoder.layers.1.fc1.weight"
    missing = {other: tensor for other, tensor in tensors.items() if other != name}
    with pytest.raises(CwjaxError, match=r"no tensor 'decoder.layers.1.fc1.weight'.*whole Whisper"):
        whisper_params(missing, WHISPER)
    with pytest.raises(CwjaxError, match=r"fit nowhere in Whisper: encoder.layers.0.adapter.weight;"):
        whisper_params(tensors | {"model.encoder.layers.0.adapter.weight": np.zeros(3)}, WHISPER)
    with pytest.raises(CwjaxError, match=r"'decoder.layers.1.fc1.weight' has shape \(8, 12\).*says \(12, 8\)"):
        whisper_params(tensors | {name: tensors[name].T}, WHISPER)
    with pytest.raises(CwjaxError, match=r"fit nowhere in Whisper: decoder.layers.1.*and \d+ more"):
        whisper_params(tensors, dataclasses.replace(WHISPER, decoder_layers=1))
    with pytest.raises(CwjaxError, match=r"has no tensor .*whole BERT"):
        bert_params(tensors, BERT)


def test_configurations_of_other_models_are_refused():
    whisper = {"model_type": "whisper", **dataclasses.asdict(WHISPER)}
    bert = {"model_type": "bert", **dataclasses.asdict(BERT)}
    with pytest.raises(CwjaxError, match="model_type is 'bert', but only 'whisper'"):
        whisper_config(bert)
    with pytest.raises(CwjaxError, match="model_type is 'whisper', but only 'bert'"):
        bert_config(whisper)
    with pytest.raises(CwjaxError, match="model_type is None"):
        bert_config({})
    with pytest.raises(CwjaxError, match="position_embedding_type is 'relative_key'"):
        bert_config(bert | {"position_embedding_type": "relative_key"})
    with pytest.raises(CwjaxError, match="scale_embedding is True"):
        whisper_config(whisper | {"scale_embedding": True})


def test_left_out_settings_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertConfig()
    for name, value in dataclasses.asdict(bert_config({"model_type": "bert"})).items():
        assert getattr(reference, name) == value
    reference = transformers.WhisperConfig()
    for name, value in dataclasses.asdict(whisper_config({"model_type": "whisper"})).items():
        assert getattr(reference, name) == value
