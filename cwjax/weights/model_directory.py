"""The model directory: what training writes and everything else reads. Never pickle.

`config.json` (all that is needed to rebuild the model), `model.safetensors` (parameters under their
paths), `tokenizer/`, `context_tokenizer/`, `preprocessor_config.json`, `generation_config.json`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cwjax.data.processor import Processor
from cwjax.data.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters, flatten, unflatten

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
GENERATION_FILE = "generation_config.json"
MODEL_TYPE = "context-whisper"


def save_model(
    directory: str | Path,
    config: ContextWhisperConfig,
    parameters: Parameters,
    processor: Processor,
    facts: dict[str, Any],
) -> None:
    """Writes a model directory, whole or not at all; one that is there already is replaced.

    Args:
        directory: to write.
        config: of the model.
        parameters: the whole tree.
        processor: tokenizers and audio settings.
        facts: how the model came to be, kept in config.json under `training`.

    Raises:
        CwjaxError: the disk is full or the directory cannot be written.
    """
    directory = Path(directory)
    aside = directory.with_name(directory.name + ".partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        settings = {"model_type": MODEL_TYPE, **config.to_dict(), "training": facts}
        (aside / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")
        tensors = {path: np.ascontiguousarray(jax.device_get(leaf)) for path, leaf in flatten(parameters)}
        save_file(tensors, aside / WEIGHTS_FILE, metadata={"format": "cwjax"})
        processor.save(aside)
        generation = generation_settings(processor.tokens, config)
        (aside / GENERATION_FILE).write_text(json.dumps(generation, indent=2) + "\n")
        if directory.exists():
            shutil.rmtree(directory)
        aside.rename(directory)
    except (OSError, SafetensorError) as error:
        raise CwjaxError(f"{directory}: the model cannot be written ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_model(directory: str | Path) -> tuple[ContextWhisperConfig, Parameters, Processor]:
    """Reads a model directory: configuration, parameters (NumPy arrays) and processor.

    Raises:
        CwjaxError: it is no model directory, or a file is damaged or does not fit the others.
    """
    directory = Path(directory)
    if not (directory / CONFIG_FILE).is_file():
        raise CwjaxError(
            f"{directory}: holds no {CONFIG_FILE}; a model directory is what training writes to WORKDIR/model"
        )
    try:
        settings = json.loads((directory / CONFIG_FILE).read_text())
    except ValueError as error:
        raise CwjaxError(f"{directory / CONFIG_FILE}: is no valid JSON ({error})") from error
    if settings.get("model_type") != MODEL_TYPE:
        raise CwjaxError(f"{directory}: holds a model of type {settings.get('model_type')!r}, not {MODEL_TYPE!r}")
    config = ContextWhisperConfig.from_dict(settings)
    try:
        tensors = load_file(directory / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise CwjaxError(f"{directory / WEIGHTS_FILE}: cannot be read ({error})") from error
    expected = dict(flatten(abstract(config)[1]))
    for path in sorted(expected.keys() | tensors.keys()):
        if path not in tensors or path not in expected or tensors[path].shape != expected[path].shape:
            raise CwjaxError(f"{directory / WEIGHTS_FILE}: parameter {path} is missing, unknown or of another shape")
    processor = Processor.read(directory)
    if len(processor.tokens) != config.whisper.vocab_size:
        raise CwjaxError(
            f"{directory}: the tokenizer has {len(processor.tokens)} tokens, the model {config.whisper.vocab_size}"
        )
    return config, unflatten(tensors), processor


def generation_settings(tokens: WhisperTokens, config: ContextWhisperConfig) -> dict[str, Any]:
    """What decoding needs to know, under the names transformers uses."""
    languages = {token: number for token, number in tokens.tokenizer.get_vocab().items() if _is_language(token)}
    return {
        "decoder_start_token_id": tokens.id("<|startoftranscript|>"),
        "eos_token_id": tokens.end_of_text,
        "pad_token_id": tokens.end_of_text,
        "prev_sot_token_id": tokens.id("<|startofprev|>"),
        "no_timestamps_token_id": tokens.first_timestamp - 1,
        "max_initial_timestamp_index": 50,
        "max_length": config.whisper.max_target_positions,
        "is_multilingual": tokens.is_multilingual,
        "lang_to_id": dict(sorted(languages.items(), key=lambda item: item[1])),
        "task_to_id": {task: tokens.id(f"<|{task}|>") for task in ("transcribe", "translate")},
    }


def _is_language(token: str) -> bool:
    name = token[2:-2]
    return token.startswith("<|") and token.endswith("|>") and 2 <= len(name) <= 3 and name.isalpha()
