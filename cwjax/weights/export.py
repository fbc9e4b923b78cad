"""Takes a model apart again: the stock Whisper or the text encoder inside, in the formats that others read.

A fine-tuned Whisper so serves in transformers, faster-whisper, whisper.cpp and OpenAI's own code. The bits of the
weights do not change.
"""

from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from cwjax.data.examples.processor import CONTEXT_TOKENIZER_FOLDER, PREPROCESSOR_FILE, TOKENIZER_FOLDER
from cwjax.errors import CwjaxError
from cwjax.files import write_json
from cwjax.weights.configuration_file import CONFIG_FILE
from cwjax.weights.context_adapter import write_adapter
from cwjax.weights.model_directory import (
    GENERATION_FILE,
    read_generation_settings,
    read_model_config,
    written_aside,
)
from cwjax.weights.name_table import NamedArrays, extract
from cwjax.weights.pretrained import open_text_encoder, open_whisper
from cwjax.weights.tensors import write_tensors
from cwjax.weights.text_encoder_checkpoints import text_encoder_settings, text_encoder_table
from cwjax.weights.whisper_checkpoints import (
    HUGGING_FACE_TABLE,
    OPENAI_TABLE,
    hugging_face_settings,
    openai_dimensions,
)

Format = Literal["hf-whisper", "openai", "text-encoder", "adapter"]
"""hf-whisper: the Whisper for transformers. openai: the Whisper as OpenAI's `.pt`. text-encoder: for transformers.
adapter: the context attention alone, see `cwjax.weights.context_adapter`."""

OPENAI_FILE = "model.pt"

SPECIAL_TOKENS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
"""Settings of generation that transformers wants in the model's configuration too."""


def export(
    model: Path, form: Format, output: Path, sources: dict[str, str] | None = None, spotter: Path | None = None
) -> Path:
    """Writes a part of a model directory in somebody else's format, every weight in the dtype it has.

    Args:
        model: a model directory.
        form: which part, in which format.
        output: a new or empty directory; for "openai" also the name of a `.pt` file in it.
        sources: of an adapter, "whisper" and "text_encoder" where the model does not name them itself.
        spotter: of an adapter, file of a phrase spotter that goes with it.

    Returns:
        What was written.

    Raises:
        CwjaxError: `model` is no model directory, `output` is not empty or cannot be written, the format cannot
            express the model, or torch is missing, which alone writes `.pt` files.
    """
    if form == "openai":
        return _export_openai(model, output)
    with written_aside(output) as aside:
        if form == "adapter":
            write_adapter(model, aside, sources or {}, spotter)
        elif form == "hf-whisper":
            _export_whisper(model, aside)
        else:
            _export_text_encoder(model, aside)
    return output


def _export_whisper(model: Path, aside: Path) -> None:
    config = read_model_config(model).whisper
    names = (("model." + name, array) for name, array in _streamed(open_whisper(model).read(), HUGGING_FACE_TABLE))
    write_tensors(aside, names, {"format": "pt"})
    generation = read_generation_settings(model)
    special = {name: generation[name] for name in SPECIAL_TOKENS if name in generation}
    settings = hugging_face_settings(config) | special | {"tie_word_embeddings": True}
    write_json(aside / CONFIG_FILE, settings)
    if generation:
        write_json(aside / GENERATION_FILE, generation)
    _copy_files(model / TOKENIZER_FOLDER, aside)
    (aside / PREPROCESSOR_FILE).write_bytes((model / PREPROCESSOR_FILE).read_bytes())


def _export_text_encoder(model: Path, aside: Path) -> None:
    config = read_model_config(model).text_encoder
    named = _streamed(open_text_encoder(model).read(), text_encoder_table(config))
    write_tensors(aside, named, {"format": "pt"})
    write_json(aside / CONFIG_FILE, text_encoder_settings(config))
    _copy_files(model / CONTEXT_TOKENIZER_FOLDER, aside)


def _export_openai(model: Path, output: Path) -> Path:
    try:
        import torch
    except ImportError as error:
        raise CwjaxError("OpenAI's format is PyTorch's, which only torch writes: pip install torch") from error
    config = read_model_config(model).whisper
    dimensions = openai_dimensions(config)
    directory, name = (output.parent, output.name) if output.suffix == ".pt" else (output, OPENAI_FILE)
    if (directory / name).exists():
        raise CwjaxError(f"{directory / name}: exists; name a new file, or delete it first")
    state = {name: _to_torch(array) for name, array in _streamed(open_whisper(model).read(), OPENAI_TABLE)}
    aside = directory / (name + ".partial")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        torch.save({"dims": dimensions, "model_state_dict": state}, aside)
        aside.replace(directory / name)
    except (OSError, RuntimeError) as error:
        raise CwjaxError(f"{directory / name}: cannot be written ({error})") from error
    finally:
        aside.unlink(missing_ok=True)
    return directory / name


def _streamed(named: NamedArrays, table: Any) -> NamedArrays:
    """Their tensors, from one of our parameters after another."""
    for path, array in named:
        yield from extract({path: array}, table)


def _to_torch(array: np.ndarray) -> Any:
    import torch

    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _copy_files(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir()) if source.is_dir() else ():
        (target / file.name).write_bytes(file.read_bytes())
