"""Joins other people's checkpoints to a model directory: any Whisper, any text encoder, new context attention."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
from tqdm import tqdm

from cwjax.data.examples.processor import CONTEXT_TOKENIZER_FOLDER
from cwjax.data.examples.text_tokenizer import TextTokenizer, has_tokenizer
from cwjax.models.context_whisper import ContextWhisperConfig, init_params
from cwjax.models.parameters import flatten
from cwjax.models.whisper import ContextAttentionConfig
from cwjax.weights.adapters import adapted
from cwjax.weights.configuration_file import read_config
from cwjax.weights.model_directory import (
    require_complete,
    require_context_vocabulary,
    write_model,
    written_aside,
)
from cwjax.weights.name_table import NamedArrays
from cwjax.weights.original_project import original_config, original_parameters
from cwjax.weights.pretrained import (
    TEXT_ENCODER,
    PretrainedTextEncoder,
    PretrainedWhisper,
    open_text_encoder,
    open_whisper,
    published_generation_settings,
    write_whisper_files,
)
from cwjax.weights.sources import locate
from cwjax.weights.tensors import open_tensors

log = logging.getLogger(__name__)

Precision = Literal["keep", "float32", "bfloat16", "float16"]
"""What weights are stored in; "keep": each as its source has it."""

_DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        parameters: how many.
        bytes: of the weights.
        missing: what has to be added before the model can transcribe, such as a tokenizer.
    """

    parameters: int
    bytes: int
    missing: tuple[str, ...]


def convert(
    whisper: str,
    text_encoder: str,
    output: Path,
    context: ContextAttentionConfig,
    precision: Precision = "keep",
    seed: int = 0,
    adapter: str = "",
) -> Converted:
    """Writes the model directory of a Whisper and a text encoder, joined by new context attention.

    With closed gates the model equals its Whisper bit for bit. Arrays are read, placed and written one after another,
    so that only a shard is in memory at a time.

    Args:
        whisper: directory or hub id of a Hugging Face or CTranslate2 (faster-whisper) checkpoint, one of OpenAI's
            `.pt` files, or a model of ours.
        text_encoder: directory or hub id of a BERT or T5, or a model of ours.
        output: a new or empty directory.
        context: how the audio encoder attends.
        precision: what weights are stored in.
        seed: of the new context attention.
        adapter: directory or hub id of a LoRA adapter in PEFT's format, which is merged into the Whisper.

    Raises:
        CwjaxError: a source is missing, damaged or not supported, its tokenizer is another model's, or `output` is
            not empty or cannot be written.
    """
    heard, read = open_whisper(locate(whisper)), open_text_encoder(locate(text_encoder))
    config = ContextWhisperConfig(whisper=heard.config, text_encoder=read.config, context=context)
    named = _chained(
        ("Whisper", adapted(heard.read, adapter)()),
        ("text encoder", ((TEXT_ENCODER + path, array) for path, array in read.read())),
        ("context attention", _new_context_attention(config, seed)),
    )
    facts = {"whisper": whisper, "text_encoder": text_encoder} | ({"adapter": adapter} if adapter else {})
    with written_aside(output) as aside:
        missing = [*write_whisper_files(aside, heard), *_write_context_tokenizer(aside, read)]
        written = write_model(aside, config, require_complete(config, _cast(named, precision)), facts)
    return Converted(**written, missing=tuple(missing))


def convert_original(original: str, output: Path, precision: Precision = "keep") -> Converted:
    """Writes the model directory of a checkpoint of the original PyTorch ContextWhisper.

    Raises:
        CwjaxError: as `convert`.
    """
    source = locate(original)
    settings = read_config(source)
    tensors = open_tensors(source)
    config = original_config(settings, tensors)
    named = _chained(("the original ContextWhisper", original_parameters(tensors, config)))
    heard = PretrainedWhisper(config.whisper, source, published_generation_settings(source), lambda: iter(()))
    read = PretrainedTextEncoder(config.text_encoder, source / CONTEXT_TOKENIZER_FOLDER, lambda: iter(()))
    with written_aside(output) as aside:
        missing = [*write_whisper_files(aside, heard), *_write_context_tokenizer(aside, read)]
        written = write_model(aside, config, require_complete(config, _cast(named, precision)), {"original": original})
    return Converted(**written, missing=tuple(missing))


def _chained(*parts: tuple[str, NamedArrays]) -> NamedArrays:
    progress = tqdm(unit="parameter", desc="converting", disable=None, dynamic_ncols=True)
    with progress:
        for name, part in parts:
            progress.set_postfix_str(name)
            for path, array in part:
                yield path, array
                progress.update()


def _cast(named: NamedArrays, precision: Precision) -> NamedArrays:
    for path, array in named:
        yield path, array if precision == "keep" else array.astype(_DTYPES[precision])


def _new_context_attention(config: ContextWhisperConfig, seed: int) -> NamedArrays:
    for path, leaf in flatten(new_context_attention(config, jax.random.key(seed))):
        yield path, np.asarray(leaf)


@partial(jax.jit, static_argnums=0)
def new_context_attention(config: ContextWhisperConfig, key: jax.Array) -> dict[str, Any]:
    """Random context attention, path -> array; the rest of the model is never made."""
    return {path: leaf for path, leaf in flatten(init_params(config, key)) if "/context_" in path}


def _write_context_tokenizer(aside: Path, read: PretrainedTextEncoder) -> Iterator[str]:
    if not has_tokenizer(read.tokenizer):
        yield f"the text encoder's tokenizer (its files belong in {CONTEXT_TOKENIZER_FOLDER}/)"
        return
    tokenizer = TextTokenizer.read(read.tokenizer)
    require_context_vocabulary(tokenizer, read.config.vocab_size, read.tokenizer)
    tokenizer.save(aside / CONTEXT_TOKENIZER_FOLDER)
