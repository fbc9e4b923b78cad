"""Whisper as faster-whisper has it: CTranslate2's `model.bin`.

The layout is that of CTranslate2's `ModelSpec.save` (OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py), all
little-endian: the version of the format, the name and revision of the specification, a count and that many variables
(name, rank, dimensions, dtype, bytes, content), a count and that many aliases. A name has its length before it and a
zero after it. Projections that read the same stream are one variable, their rows one after another.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from cwjax.errors import CwjaxError
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.tensors import Tensors

CTRANSLATE2_FILE = "model.bin"

_VERSION = 6
_SPECIFICATION = "WhisperSpec"
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16, 5: ml_dtypes.bfloat16}

_LAYER_NORM = {"gamma": "weight", "beta": "bias"}
_LINEAR = {"weight": "weight", "bias": "bias"}
_SELF_ATTENTION = {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)}
_CROSS_ATTENTION = {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)}


class _Variable(NamedTuple):
    """Where a variable lies in the file."""

    dtype: Any
    shape: tuple[int, ...]
    offset: int


class _Rows(NamedTuple):
    """Which rows of a variable a tensor is: part `part` of `parts`."""

    variable: str
    part: int = 0
    parts: int = 1


def open_ctranslate2(file: Path) -> tuple[WhisperConfig, Tensors]:
    """Sizes of a Whisper in CTranslate2's format, and its tensors under Hugging Face's names.

    Raises:
        CwjaxError: the file is damaged, of another model or version, or its weights are quantized.
    """
    try:
        with open(file, "rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        variables = _read_variables(file, content)
    except (OSError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise CwjaxError(f"{file}: is damaged or cut short ({error}); fetch it again") from error

    def read(name: str) -> np.ndarray:
        variable = variables[name]
        return np.frombuffer(content, variable.dtype, math.prod(variable.shape), variable.offset).reshape(
            variable.shape
        )

    try:
        config = _sizes(variables, read)
        rows = {name: one for name, one in _tensors(config) if one.variable in variables}
    except (KeyError, IndexError) as error:
        raise CwjaxError(f"{file}: lacks the variable {error}; is it a whole Whisper?") from error
    for name, one in rows.items():
        dtype = np.dtype(variables[one.variable].dtype)
        if dtype.kind == "i":
            raise CwjaxError(
                f"{file}: its weights are quantized ('{name}' to {dtype}); convert it anew with --quantization float16"
            )
    unknown = sorted({name for name, one in variables.items() if one.shape} - {one.variable for one in rows.values()})
    if unknown:
        raise CwjaxError(f"{file}: has variables that fit nowhere in Whisper: {', '.join(unknown[:5])}")
    shapes = {name: _shape(variables[one.variable].shape, one.parts) for name, one in rows.items()}
    return config, Tensors(
        file, shapes, lambda name: np.split(read(rows[name].variable), rows[name].parts)[rows[name].part]
    )


def _read_variables(file: Path, content: mmap.mmap) -> dict[str, _Variable]:
    position = 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal position
        values = struct.unpack_from("<" + layout, content, position)
        position += struct.calcsize("<" + layout)
        return values

    def take_name() -> str:
        (length,) = take("H")
        return take(f"{length}s")[0].rstrip(b"\0").decode()

    (version,) = take("I")
    if version != _VERSION:
        raise CwjaxError(f"{file}: is of version {version} of CTranslate2's format, or of another; read is {_VERSION}")
    specification, _ = take_name(), take("I")
    if specification != _SPECIFICATION:
        raise CwjaxError(f"{file}: is of a model of kind {specification}, where a Whisper is needed")
    (count,) = take("I")
    variables = {}
    for _ in range(count):
        name, (rank,) = take_name(), take("B")
        shape = take(f"{rank}I")
        dtype, size = take("BI")
        if dtype not in _DTYPES or size != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
            raise CwjaxError(f"{file}: variable '{name}' is damaged; fetch the file again")
        variables[name] = _Variable(_DTYPES[dtype], shape, position)
        position += size
    if position > len(content):
        raise ValueError(f"{len(content)} bytes instead of at least {position}")
    return variables


def _sizes(variables: dict[str, _Variable], read: Any) -> WhisperConfig:
    convolution, embedding = variables["encoder/conv1/weight"].shape, variables["decoder/embeddings/weight"].shape
    return WhisperConfig(
        num_mel_bins=convolution[1],
        d_model=convolution[0],
        encoder_layers=_layers(variables, "encoder"),
        encoder_attention_heads=int(read("encoder/num_heads")),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        decoder_layers=_layers(variables, "decoder"),
        decoder_attention_heads=int(read("decoder/num_heads")),
        decoder_ffn_dim=variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        vocab_size=embedding[0],
    )


def _layers(variables: dict[str, _Variable], part: str) -> int:
    return len({name.split("/")[1] for name in variables if name.startswith(f"{part}/layer_") and name.count("/") > 2})


def _tensors(config: WhisperConfig) -> Iterator[tuple[str, _Rows]]:
    """Hugging Face's name of every tensor, and where it is."""
    for convolution in ("conv1", "conv2"):
        yield from _module(f"encoder.{convolution}", f"encoder/{convolution}", _LINEAR)
    yield "decoder.embed_tokens.weight", _Rows("decoder/embeddings/weight")
    for part, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        yield f"{part}.embed_positions.weight", _Rows(f"{part}/position_encodings/encodings")
        yield from _module(f"{part}.layer_norm", f"{part}/layer_norm", _LAYER_NORM)
        for layer in range(layers):
            theirs, named = f"{part}/layer_{layer}", f"{part}.layers.{layer}"
            yield from _attention(f"{named}.self_attn", f"{theirs}/self_attention", _SELF_ATTENTION)
            if part == "decoder":
                yield from _attention(f"{named}.encoder_attn", f"{theirs}/attention", _CROSS_ATTENTION)
            yield from _module(f"{named}.final_layer_norm", f"{theirs}/ffn/layer_norm", _LAYER_NORM)
            yield from _module(f"{named}.fc1", f"{theirs}/ffn/linear_0", _LINEAR)
            yield from _module(f"{named}.fc2", f"{theirs}/ffn/linear_1", _LINEAR)


def _attention(named: str, theirs: str, projections: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, _Rows]]:
    yield from _module(f"{named}_layer_norm", f"{theirs}/layer_norm", _LAYER_NORM)
    for fused, parts in projections.items():
        for part, projection in enumerate(parts):
            for name in _LINEAR:
                if (projection, name) != ("k_proj", "bias"):  # Whisper's keys have none; zeros stand in its place
                    yield f"{named}.{projection}.{name}", _Rows(f"{theirs}/{fused}/{name}", part, len(parts))


def _module(named: str, theirs: str, leaves: dict[str, str]) -> Iterator[tuple[str, _Rows]]:
    for their_leaf, leaf in leaves.items():
        yield f"{named}.{leaf}", _Rows(f"{theirs}/{their_leaf}")


def _shape(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    return (shape[0] // parts, *shape[1:])
