"""Whisper in other people's files: Hugging Face's layout and OpenAI's own `.pt`, in both directions."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.models.audio_encoder import AudioEncoder
from cwjax.models.parameters import Parameters
from cwjax.models.text_decoder import TextDecoder
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.configuration_file import require_setting, sizes_from
from cwjax.weights.name_table import (
    CONVOLUTION,
    EMBEDDING,
    LAYER_NORM,
    LINEAR,
    LINEAR_WITHOUT_BIAS,
    PLAIN,
    WEIGHT,
    Leaf,
    NamedArrays,
    Table,
    abstract_parameters,
    place,
)
from cwjax.weights.tensors import Tensors, load_pickle, pickled_tensors

Rows = dict[str, tuple[str, tuple[Leaf, ...]]]


def _hugging_face_attention(theirs: str, ours: str) -> Rows:
    return {
        f"{theirs}.q_proj": (f"{ours}/query", LINEAR),
        f"{theirs}.k_proj": (f"{ours}/key", LINEAR_WITHOUT_BIAS),
        f"{theirs}.v_proj": (f"{ours}/value", LINEAR),
        f"{theirs}.out_proj": (f"{ours}/out", LINEAR),
    }


def _hugging_face_block(theirs: str, ours: str) -> Rows:
    return {
        f"{theirs}.self_attn_layer_norm": (f"{ours}/attn_ln", LAYER_NORM),
        **_hugging_face_attention(f"{theirs}.self_attn", f"{ours}/attn"),
        f"{theirs}.final_layer_norm": (f"{ours}/mlp_ln", LAYER_NORM),
        f"{theirs}.fc1": (f"{ours}/mlp/up", LINEAR),
        f"{theirs}.fc2": (f"{ours}/mlp/down", LINEAR),
    }


HUGGING_FACE_TABLE: Table = {
    "encoder.conv1": ("audio_encoder/conv1", CONVOLUTION),
    "encoder.conv2": ("audio_encoder/conv2", CONVOLUTION),
    "encoder.embed_positions": ("audio_encoder/positions", WEIGHT),
    **_hugging_face_block("encoder.layers.#", "audio_encoder/blocks"),
    "encoder.layer_norm": ("audio_encoder/ln_post", LAYER_NORM),
    "decoder.embed_tokens": ("decoder/token_embedding", EMBEDDING),
    "decoder.embed_positions": ("decoder/positions", WEIGHT),
    **_hugging_face_block("decoder.layers.#", "decoder/blocks"),
    "decoder.layers.#.encoder_attn_layer_norm": ("decoder/blocks/cross_attn_ln", LAYER_NORM),
    **_hugging_face_attention("decoder.layers.#.encoder_attn", "decoder/blocks/cross_attn"),
    "decoder.layer_norm": ("decoder/ln", LAYER_NORM),
}
"""Of a WhisperModel; WhisperForConditionalGeneration puts "model." before each name."""


def _openai_attention(theirs: str, ours: str) -> Rows:
    return {
        f"{theirs}_ln": (f"{ours}_ln", LAYER_NORM),
        f"{theirs}.query": (f"{ours}/query", LINEAR),
        f"{theirs}.key": (f"{ours}/key", LINEAR_WITHOUT_BIAS),
        f"{theirs}.value": (f"{ours}/value", LINEAR),
        f"{theirs}.out": (f"{ours}/out", LINEAR),
    }


def _openai_block(theirs: str, ours: str) -> Rows:
    return {
        **_openai_attention(f"{theirs}.attn", f"{ours}/attn"),
        f"{theirs}.mlp_ln": (f"{ours}/mlp_ln", LAYER_NORM),
        f"{theirs}.mlp.0": (f"{ours}/mlp/up", LINEAR),
        f"{theirs}.mlp.2": (f"{ours}/mlp/down", LINEAR),
    }


OPENAI_TABLE: Table = {
    "encoder.conv1": ("audio_encoder/conv1", CONVOLUTION),
    "encoder.conv2": ("audio_encoder/conv2", CONVOLUTION),
    "encoder.positional_embedding": ("audio_encoder/positions", PLAIN),
    **_openai_block("encoder.blocks.#", "audio_encoder/blocks"),
    "encoder.ln_post": ("audio_encoder/ln_post", LAYER_NORM),
    "decoder.token_embedding": ("decoder/token_embedding", EMBEDDING),
    "decoder.positional_embedding": ("decoder/positions", PLAIN),
    **_openai_block("decoder.blocks.#", "decoder/blocks"),
    **_openai_attention("decoder.blocks.#.cross_attn", "decoder/blocks/cross_attn"),
    "decoder.ln": ("decoder/ln", LAYER_NORM),
}

_OPENAI_DIMENSIONS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}


def whisper_config(settings: dict[str, Any]) -> WhisperConfig:
    """The sizes in a Whisper's `config.json`.

    Raises:
        CwjaxError: it is of another model, or asks for what Whisper never had.
    """
    require_setting(settings, "model_type", "whisper")
    require_setting(settings, "activation_function", "gelu", default="gelu")
    require_setting(settings, "scale_embedding", False, default=False)
    return sizes_from(WhisperConfig, settings)


def whisper_from_hugging_face(tensors: Tensors, config: WhisperConfig) -> NamedArrays:
    """Parameters of the audio encoder, without context attention, and of the decoder, in the dtypes they have.

    Args:
        tensors: of a WhisperModel or WhisperForConditionalGeneration.
        config: of the checkpoint.

    Raises:
        CwjaxError: a tensor is missing, unknown, or of another shape than `config` says.
    """
    tensors = tensors.renamed(lambda name: name.removeprefix("model."))
    if {"proj_out.weight", "decoder.embed_tokens.weight"} <= tensors.shapes.keys():
        if not np.array_equal(tensors.read("proj_out.weight"), tensors.read("decoder.embed_tokens.weight")):
            raise CwjaxError(
                f"{tensors.place}: the output projection 'proj_out.weight' is not the token embedding; "
                "such a model is not supported"
            )
        tensors = tensors.renamed(lambda name: None if name == "proj_out.weight" else name)
    return place("Whisper", tensors, HUGGING_FACE_TABLE, stock_whisper(config))


def open_openai(file: Path) -> tuple[WhisperConfig, Tensors]:
    """Sizes and tensors of one of OpenAI's own files.

    Raises:
        CwjaxError: torch is missing, or the file is damaged or of another kind.
    """
    content = load_pickle(file)
    if not (isinstance(content, Mapping) and {"dims", "model_state_dict"} <= content.keys()):
        raise CwjaxError(f"{file}: is none of OpenAI's Whisper files, which hold 'dims' and 'model_state_dict'")
    dimensions = content["dims"]
    if not isinstance(dimensions, Mapping) or dimensions.keys() != _OPENAI_DIMENSIONS.keys():
        raise CwjaxError(f"{file}: its 'dims' are not those of a Whisper ({', '.join(_OPENAI_DIMENSIONS)})")
    if dimensions["n_audio_state"] != dimensions["n_text_state"]:
        raise CwjaxError(f"{file}: its audio encoder and decoder have different widths, which is not supported")
    sizes = {_OPENAI_DIMENSIONS[name]: int(value) for name, value in dimensions.items()}
    width = sizes["d_model"]
    config = WhisperConfig(**sizes, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width)
    return config, pickled_tensors(file, content["model_state_dict"])


def openai_dimensions(config: WhisperConfig) -> dict[str, int]:
    """The `dims` of OpenAI's files.

    Raises:
        CwjaxError: the MLPs are not four times as wide as the model, which OpenAI's code takes for granted.
    """
    if {config.encoder_ffn_dim, config.decoder_ffn_dim} != {4 * config.d_model}:
        raise CwjaxError(
            f"this Whisper's MLPs are {config.encoder_ffn_dim} and {config.decoder_ffn_dim} wide, but OpenAI's format "
            f"knows only four times d_model, {4 * config.d_model}; export it as hf-whisper"
        )
    return {theirs: getattr(config, ours) for theirs, ours in _OPENAI_DIMENSIONS.items()}


def whisper_from_openai(tensors: Tensors, config: WhisperConfig) -> NamedArrays:
    """As `whisper_from_hugging_face`, from OpenAI's names."""
    # Early versions kept the causal mask among the weights.
    tensors = tensors.renamed(lambda name: None if name == "decoder.mask" else name)
    return place("Whisper", tensors, OPENAI_TABLE, stock_whisper(config))


def stock_whisper(config: WhisperConfig) -> Parameters:
    """Shapes of the parameters of a Whisper without context attention."""
    return {
        "audio_encoder": abstract_parameters(lambda key: AudioEncoder(config, None, 0, key=key)),
        "decoder": abstract_parameters(lambda key: TextDecoder(config, key=key)),
    }


def hugging_face_settings(config: WhisperConfig) -> dict[str, Any]:
    """Sizes under the names of `config.json`."""
    sizes = dataclasses.asdict(config)
    return {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], **sizes}
