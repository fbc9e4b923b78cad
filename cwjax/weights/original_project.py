"""Checkpoints of the original PyTorch ContextWhisper, as its `save_pretrained` wrote them.

It differs from what is built here in three ways. Context attention has Whisper's biases and no gate (`gate: none`).
The audio encoder takes its heads and its MLP's width from the decoder's settings. A text encoder that was not
pretrained has as many positions as the audio encoder.
"""

from typing import Any

from cwjax.models.audio_encoder import AudioEncoder
from cwjax.models.bert import BertConfig
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig
from cwjax.weights.configuration_file import require_setting
from cwjax.weights.name_table import (
    LAYER_NORM,
    LINEAR,
    LINEAR_WITHOUT_BIAS,
    NamedArrays,
    Table,
    abstract_parameters,
    place,
)
from cwjax.weights.tensors import Tensors
from cwjax.weights.text_encoder_checkpoints import bert_parameters
from cwjax.weights.whisper_checkpoints import whisper_from_hugging_face

CONTEXT_TABLE: Table = {
    "encoder.layers.#.encoder_attn_layer_norm": ("audio_encoder/blocks/context_attn_ln", LAYER_NORM),
    "encoder.layers.#.encoder_attn.q_proj": ("audio_encoder/blocks/context_attn/query", LINEAR),
    "encoder.layers.#.encoder_attn.k_proj": ("audio_encoder/blocks/context_attn/key", LINEAR_WITHOUT_BIAS),
    "encoder.layers.#.encoder_attn.v_proj": ("audio_encoder/blocks/context_attn/value", LINEAR),
    "encoder.layers.#.encoder_attn.out_proj": ("audio_encoder/blocks/context_attn/out", LINEAR),
}

MODEL_TYPE = "context_whisper"


def original_config(settings: dict[str, Any], tensors: Tensors) -> ContextWhisperConfig:
    """The sizes in the original's `config.json`, those of the text encoder checked against its tensors.

    Raises:
        CwjaxError: it is of another model, or asks for what is not supported here.
    """
    require_setting(settings, "model_type", MODEL_TYPE)
    require_setting(settings, "scale_embedding", False, default=False)
    require_setting(settings, "activation_function", "gelu", default="gelu")
    names = ("vocab_size", "num_mel_bins", "d_model", "max_source_positions", "max_target_positions", "decoder_layers")
    sizes = {name: settings[name] for name in names if name in settings}
    for name in ("attention_heads", "ffn_dim"):
        sizes[f"encoder_{name}"] = sizes[f"decoder_{name}"] = settings[f"decoder_{name}"]
    whisper = WhisperConfig(encoder_layers=settings["spectrogram_encoder_layers"], **sizes)
    return ContextWhisperConfig(
        whisper=whisper, text_encoder=_text_encoder(settings, tensors), context=ContextAttentionConfig(gate="none")
    )


def original_parameters(tensors: Tensors, config: ContextWhisperConfig) -> NamedArrays:
    """All parameters, from the original's state dict, in the dtypes they have.

    Raises:
        CwjaxError: a tensor is missing, unknown, or of another shape than `config` says.
    """
    ours = tensors.renamed(_name)
    text = ours.renamed(lambda name: name.removeprefix("text_encoder.") if name.startswith("text_encoder.") else None)
    context = ours.renamed(lambda name: name if _is_context(name) else None)
    whisper = ours.renamed(lambda name: None if _is_context(name) or name.startswith("text_encoder.") else name)
    parts = (
        whisper_from_hugging_face(whisper, config.whisper),
        place("context attention", context, CONTEXT_TABLE, _abstract_context(config)),
        ((f"text_encoder/{path}", array) for path, array in bert_parameters(text, config.text_encoder)),
    )
    return (named for part in parts for named in part)


def _name(name: str) -> str:
    return name.removeprefix("model.").replace("spectrogram_encoder.", "encoder.", 1)


def _is_context(name: str) -> bool:
    return name.startswith("encoder.layers.") and ".encoder_attn" in name


def _abstract_context(config: ContextWhisperConfig) -> Parameters:
    width = config.text_encoder.hidden_size
    encoder = abstract_parameters(lambda key: AudioEncoder(config.whisper, config.context, width, key=key))
    own = {path: leaf for path, leaf in flatten({"audio_encoder": encoder}) if "/context_" in path}
    return unflatten(own)


def _text_encoder(settings: dict[str, Any], tensors: Tensors) -> BertConfig:
    """A BERT whose table sizes are the tensors' own: when it was pretrained, the settings do not know them."""
    ours = tensors.renamed(_name).shapes

    def rows(name: str, default: int) -> int:
        return ours.get(f"text_encoder.embeddings.{name}.weight", (default,))[0]

    return BertConfig(
        vocab_size=rows("word_embeddings", 30522),
        hidden_size=settings["d_model"],
        num_hidden_layers=settings["text_encoder_layers"],
        num_attention_heads=settings["text_encoder_attention_heads"],
        intermediate_size=settings["text_encoder_ffn_dim"],
        max_position_embeddings=rows("position_embeddings", settings["max_source_positions"]),
        type_vocab_size=rows("token_type_embeddings", 2),
    )
