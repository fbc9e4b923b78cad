"""Reading Whisper, BERT and T5 checkpoints in the format of Hugging Face transformers.

A table says which tensor is which parameter. Every tensor of a checkpoint must find its place or be
known to be of no use, and every parameter must be filled; anything else is an error that names it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cwjax.errors import CwjaxError
from cwjax.models.audio_encoder import AudioEncoder
from cwjax.models.bert import Bert, BertConfig
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.t5 import T5Config, T5Encoder
from cwjax.models.text_decoder import TextDecoder
from cwjax.models.whisper import WhisperConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

Tensors = dict[str, np.ndarray]
Config = TypeVar("Config", WhisperConfig, BertConfig, T5Config)


class Leaf(NamedTuple):
    """One tensor of a module: its name there, its name here ("" for the module's own path), and the order
    of axes that turns one into the other, which works both ways (None: as it is)."""

    theirs: str
    ours: str
    axes: tuple[int, ...] | None = None


LINEAR = (Leaf("weight", "kernel", (1, 0)), Leaf("bias", "bias"))
LINEAR_WITHOUT_BIAS = LINEAR[:1]
CONVOLUTION = (Leaf("weight", "kernel", (2, 1, 0)), Leaf("bias", "bias"))
LAYER_NORM = (Leaf("weight", "scale"), Leaf("bias", "bias"))
RMS_NORM = LAYER_NORM[:1]
EMBEDDING = (Leaf("weight", "embedding"),)
POSITIONS = (Leaf("weight", ""),)

Table = Mapping[str, tuple[str, tuple[Leaf, ...]]]
"""Their module name -> our path and the tensors in it; "#" stands for the number of a layer."""


def _whisper_attention(theirs: str, ours: str) -> dict[str, tuple[str, tuple[Leaf, ...]]]:
    return {
        f"{theirs}.q_proj": (f"{ours}/query", LINEAR),
        f"{theirs}.k_proj": (f"{ours}/key", LINEAR_WITHOUT_BIAS),
        f"{theirs}.v_proj": (f"{ours}/value", LINEAR),
        f"{theirs}.out_proj": (f"{ours}/out", LINEAR),
    }


def _whisper_block(theirs: str, ours: str) -> dict[str, tuple[str, tuple[Leaf, ...]]]:
    return {
        f"{theirs}.self_attn_layer_norm": (f"{ours}/attn_ln", LAYER_NORM),
        **_whisper_attention(f"{theirs}.self_attn", f"{ours}/attn"),
        f"{theirs}.final_layer_norm": (f"{ours}/mlp_ln", LAYER_NORM),
        f"{theirs}.fc1": (f"{ours}/mlp/up", LINEAR),
        f"{theirs}.fc2": (f"{ours}/mlp/down", LINEAR),
    }


WHISPER_TABLE: Table = {
    "encoder.conv1": ("audio_encoder/conv1", CONVOLUTION),
    "encoder.conv2": ("audio_encoder/conv2", CONVOLUTION),
    "encoder.embed_positions": ("audio_encoder/positions", POSITIONS),
    **_whisper_block("encoder.layers.#", "audio_encoder/blocks"),
    "encoder.layer_norm": ("audio_encoder/ln_post", LAYER_NORM),
    "decoder.embed_tokens": ("decoder/token_embedding", EMBEDDING),
    "decoder.embed_positions": ("decoder/positions", POSITIONS),
    **_whisper_block("decoder.layers.#", "decoder/blocks"),
    "decoder.layers.#.encoder_attn_layer_norm": ("decoder/blocks/cross_attn_ln", LAYER_NORM),
    **_whisper_attention("decoder.layers.#.encoder_attn", "decoder/blocks/cross_attn"),
    "decoder.layer_norm": ("decoder/ln", LAYER_NORM),
}
"""Of a WhisperModel; WhisperForConditionalGeneration puts "model." before each name."""

BERT_TABLE: Table = {
    "embeddings.word_embeddings": ("token_embedding", EMBEDDING),
    "embeddings.position_embeddings": ("position_embedding", EMBEDDING),
    "embeddings.token_type_embeddings": ("type_embedding", EMBEDDING),
    "embeddings.LayerNorm": ("embedding_ln", LAYER_NORM),
    "encoder.layer.#.attention.self.query": ("blocks/attn/query", LINEAR),
    "encoder.layer.#.attention.self.key": ("blocks/attn/key", LINEAR),
    "encoder.layer.#.attention.self.value": ("blocks/attn/value", LINEAR),
    "encoder.layer.#.attention.output.dense": ("blocks/attn/out", LINEAR),
    "encoder.layer.#.attention.output.LayerNorm": ("blocks/attn_ln", LAYER_NORM),
    "encoder.layer.#.intermediate.dense": ("blocks/mlp/up", LINEAR),
    "encoder.layer.#.output.dense": ("blocks/mlp/down", LINEAR),
    "encoder.layer.#.output.LayerNorm": ("blocks/mlp_ln", LAYER_NORM),
}
"""Of a BertModel; models with a head put "bert." before each name."""

BERT_UNUSED = ("pooler.", "cls.", "embeddings.position_ids")
"""Beginnings of names of tensors that the encoder's output does not depend on."""

T5_TABLE: Table = {
    "shared": ("token_embedding", EMBEDDING),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": ("relative_bias", POSITIONS),
    "encoder.block.#.layer.0.layer_norm": ("blocks/attn_ln", RMS_NORM),
    "encoder.block.#.layer.0.SelfAttention.q": ("blocks/attn/query", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.0.SelfAttention.k": ("blocks/attn/key", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.0.SelfAttention.v": ("blocks/attn/value", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.0.SelfAttention.o": ("blocks/attn/out", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.1.layer_norm": ("blocks/mlp_ln", RMS_NORM),
    "encoder.block.#.layer.1.DenseReluDense.wo": ("blocks/mlp/down", LINEAR_WITHOUT_BIAS),
    "encoder.final_layer_norm": ("final_ln", RMS_NORM),
}
"""Of a T5EncoderModel or MT5EncoderModel, and of the encoder in every whole model; the MLP's first half is apart."""

T5_MLP_TABLES: dict[str, Table] = {
    "relu": {"encoder.block.#.layer.1.DenseReluDense.wi": ("blocks/mlp/up", LINEAR_WITHOUT_BIAS)},
    "gated-gelu": {
        "encoder.block.#.layer.1.DenseReluDense.wi_0": ("blocks/mlp/gate", LINEAR_WITHOUT_BIAS),
        "encoder.block.#.layer.1.DenseReluDense.wi_1": ("blocks/mlp/up", LINEAR_WITHOUT_BIAS),
    },
}
"""What `T5_TABLE` lacks, by `feed_forward_proj`."""

T5_UNUSED = ("decoder.", "lm_head.")
"""As `BERT_UNUSED`."""

MT5_DEFAULTS = {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
"""What an mT5's configuration means by leaving these out."""


def read_config(directory: str | Path) -> dict[str, Any]:
    """Reads `config.json` of a checkpoint.

    Raises:
        CwjaxError: it is missing or no JSON object.
    """
    file = Path(directory) / CONFIG_FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CwjaxError(
            f"{file}: cannot be read ({error.strerror}); name a directory that holds a whole Hugging Face checkpoint"
        ) from error
    except ValueError as error:
        raise CwjaxError(f"{file}: is no valid JSON ({error}); fetch it again") from error
    if not isinstance(settings, dict):
        raise CwjaxError(f"{file}: holds no JSON object; fetch it again")
    return settings


def whisper_config(settings: dict[str, Any]) -> WhisperConfig:
    """The sizes in a Whisper's `config.json`.

    Raises:
        CwjaxError: it is of another model, or asks for what Whisper never had.
    """
    _require_setting(settings, "model_type", "whisper")
    _require_setting(settings, "activation_function", "gelu", default="gelu")
    _require_setting(settings, "scale_embedding", False, default=False)
    return _config(WhisperConfig, settings)


def bert_config(settings: dict[str, Any]) -> BertConfig:
    """The sizes in a BERT's `config.json`.

    Raises:
        CwjaxError: it is of another model, or of a kind that is not supported.
    """
    _require_setting(settings, "model_type", "bert")
    _require_setting(settings, "position_embedding_type", "absolute", default="absolute")
    _require_setting(settings, "is_decoder", False, default=False)
    return _config(BertConfig, settings)


def t5_config(settings: dict[str, Any]) -> T5Config:
    """The sizes in the `config.json` of a T5 or mT5.

    Raises:
        CwjaxError: it is of another model, or of a kind that is not supported.
    """
    kind = settings.get("model_type")
    if kind == "umt5":
        raise CwjaxError(
            f"{CONFIG_FILE}: model_type is 'umt5', which has relative positions of its own in every layer and is not "
            "supported here; choose an mT5"
        )
    if kind != "mt5":
        _require_setting(settings, "model_type", "t5")
    config = _config(T5Config, MT5_DEFAULTS | settings if kind == "mt5" else settings)
    gated = config.feed_forward_proj == "gated-gelu"
    _require_setting(settings, "is_gated_act", gated, default=gated)
    activation = "gelu_new" if gated else "relu"
    _require_setting(settings, "dense_act_fn", activation, default=activation)
    _require_setting(settings, "is_decoder", False, default=False)
    return config


def read_safetensors(path: str | Path) -> Tensors:
    """Reads a safetensors file, or `model.safetensors` in a directory, in the dtypes it has.

    Raises:
        CwjaxError: there is none, or it is damaged.
    """
    path = Path(path)
    file = path / WEIGHTS_FILE if path.is_dir() else path
    try:
        return load_file(file)
    except OSError as error:
        raise CwjaxError(
            f"{file}: cannot be read ({error.strerror or error}); a checkpoint with a single {WEIGHTS_FILE} is needed"
        ) from error
    except SafetensorError as error:
        raise CwjaxError(f"{file}: is damaged or cut short ({error}); fetch it again") from error


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal.

    Raises:
        CwjaxError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror}); is the path right?") from error


def whisper_params(tensors: Tensors, config: WhisperConfig) -> Parameters:
    """Parameters of the audio encoder, without context attention, and of the decoder, float32.

    Args:
        tensors: of a WhisperModel or WhisperForConditionalGeneration.
        config: of the checkpoint.

    Raises:
        CwjaxError: a tensor is missing, unknown, or of another shape than `config` says.
    """
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    output = tensors.pop("proj_out.weight", None)
    embedding = tensors.get("decoder.embed_tokens.weight")
    if output is not None and embedding is not None and not np.array_equal(output, embedding):
        raise CwjaxError(
            "the Whisper checkpoint's output projection 'proj_out.weight' is not its token embedding; "
            "such a model is not supported"
        )

    expected = {
        "audio_encoder": _abstract(lambda key: AudioEncoder(config, None, 0, key=key)),
        "decoder": _abstract(lambda key: TextDecoder(config, key=key)),
    }
    return _place("Whisper", tensors, WHISPER_TABLE, expected)


def bert_params(tensors: Tensors, config: BertConfig) -> Parameters:
    """Parameters of `cwjax.models.bert.Bert`, float32.

    Args:
        tensors: of a BertModel, or of a BERT with any head.
        config: of the checkpoint.

    Raises:
        CwjaxError: a tensor is missing, unknown, or of another shape than `config` says.
    """
    tensors = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    used = {name: tensor for name, tensor in tensors.items() if not name.startswith(BERT_UNUSED)}
    return _place("BERT", used, BERT_TABLE, _abstract(lambda key: Bert(config, key=key)))


def t5_params(tensors: Tensors, config: T5Config) -> Parameters:
    """Parameters of `cwjax.models.t5.T5Encoder`, float32.

    Args:
        tensors: of a T5EncoderModel, or of a whole T5, whose decoder is left alone.
        config: of the checkpoint.

    Raises:
        CwjaxError: a tensor is missing, unknown, or of another shape than `config` says.
    """
    used = {name: tensor for name, tensor in tensors.items() if not name.startswith(T5_UNUSED)}
    copy = used.pop("encoder.embed_tokens.weight", None)
    if copy is not None and not np.array_equal(copy, used.setdefault("shared.weight", copy)):
        raise CwjaxError(
            "the T5 checkpoint's 'encoder.embed_tokens.weight' is not its 'shared.weight'; such a model is not "
            "supported"
        )
    table = T5_TABLE | T5_MLP_TABLES[config.feed_forward_proj]
    return _place("T5", used, table, _abstract(lambda key: T5Encoder(config, key=key)))


def _config(kind: type[Config], settings: dict[str, Any]) -> Config:
    """The sizes; what is left out has the default of transformers, which is the default here too."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in settings.items() if name in names})


def _require_setting(settings: dict[str, Any], name: str, wanted: Any, default: Any = None) -> None:
    found = settings.get(name, default)
    if found != wanted:
        raise CwjaxError(
            f"{CONFIG_FILE}: {name} is {found!r}, but only {wanted!r} is supported here; choose another checkpoint"
        )


def _abstract(make: Callable[[jax.Array], nnx.Module]) -> Parameters:
    """Shapes of a module's parameters."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(jax.random.key(0)))))


def _place(model: str, tensors: Tensors, table: Table, expected: Parameters) -> Parameters:
    """Fills every parameter of `expected` with its tensors, those of layers stacked, as float32."""
    left = dict(tensors)
    filled = {}
    sources = dict(_sources(table))
    for path, shape in ((path, leaf.shape) for path, leaf in flatten(expected)):
        pattern, axes = sources[path]
        if "#" in pattern:
            names = [pattern.replace("#", str(layer)) for layer in range(shape[0])]
            layer_shape = shape[1:]
        else:
            names, layer_shape = [pattern], shape
        parts = [_take(model, left, name, axes, layer_shape) for name in names]
        filled[path] = np.stack(parts) if "#" in pattern else parts[0]
    if left:
        raise CwjaxError(
            f"the {model} checkpoint has tensors that fit nowhere: {_list(left)}; does its {CONFIG_FILE} belong to it?"
        )
    return unflatten(filled)


def _sources(table: Table) -> Iterator[tuple[str, tuple[str, tuple[int, ...] | None]]]:
    """Of each of our parameters: the pattern of its tensors' names, and the order of their axes."""
    for theirs, (ours, leaves) in table.items():
        for leaf in leaves:
            yield f"{ours}/{leaf.ours}".rstrip("/"), (f"{theirs}.{leaf.theirs}", leaf.axes)


def _take(model: str, left: Tensors, name: str, axes: tuple[int, ...] | None, shape: tuple[int, ...]) -> np.ndarray:
    if name not in left:
        raise CwjaxError(
            f"the {model} checkpoint has no tensor '{name}'; is it a whole {model}, and its {CONFIG_FILE} its own?"
        )
    tensor = left.pop(name)
    placed = tensor.transpose(axes) if axes and tensor.ndim == len(axes) else tensor
    if placed.shape != shape:
        wanted = tuple(shape[axis] for axis in axes) if axes else shape
        raise CwjaxError(
            f"the {model} checkpoint's tensor '{name}' has shape {tensor.shape}, but its {CONFIG_FILE} says {wanted}"
        )
    return np.ascontiguousarray(placed, dtype=np.float32)


def _list(names: Mapping[str, Any]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
