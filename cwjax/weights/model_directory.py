"""The model directory: what training and conversion write and everything else reads. Never pickle.

`config.json` (all that is needed to rebuild the model), `model.safetensors` or shards with an index
(parameters under their paths), `tokenizer/`, `context_tokenizer/`, `preprocessor_config.json`,
`generation_config.json`, and `README.md`, the model card.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError

from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION
from cwjax.data.examples.processor import CONTEXT_TOKENIZER_FOLDER, PREPROCESSOR_FILE, TOKENIZER_FOLDER, Processor
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.files import read_json, write_json, write_text
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters, flatten
from cwjax.models.whisper import WHISPER_SIZES, WhisperConfig
from cwjax.weights.configuration_file import CONFIG_FILE, errors_name, read_config
from cwjax.weights.model_card import MODEL_CARD_FILE, model_card
from cwjax.weights.name_table import NamedArrays, as_tree, require_weights
from cwjax.weights.sources import public_name
from cwjax.weights.tensors import open_tensors, write_tensors

GENERATION_FILE = "generation_config.json"
MODEL_TYPE = "context-whisper"


def save_model(
    directory: str | Path,
    config: ContextWhisperConfig,
    named: NamedArrays,
    processor: Processor,
    facts: dict[str, Any],
) -> None:
    """Writes a model directory, whole or not at all; one that is there already is replaced.

    Args:
        directory: to write.
        config: of the model.
        named: all parameters, used one at a time.
        processor: tokenizers and audio settings.
        facts: how the model came to be, kept in config.json under `training`.

    Raises:
        CwjaxError: the disk is full or the directory cannot be written.
    """
    with written_aside(Path(directory), replace=True) as aside:
        write_model(aside, config, named, facts)
        processor.save(aside)
        write_json(aside / GENERATION_FILE, generation_settings(processor.tokens, config.whisper))


def write_model(
    directory: Path, config: ContextWhisperConfig, named: NamedArrays, facts: dict[str, Any]
) -> dict[str, int]:
    """Writes configuration, parameters and model card into an empty directory; arrays are used one at a time.

    Returns:
        The number of `parameters` and of their `bytes`.
    """
    count = 0

    def counted() -> NamedArrays:
        nonlocal count
        for path, array in require_weights(named):
            count += array.size
            yield path, array

    sources = {
        name: public_name(str(facts[name]))
        for name in ("start", "whisper", "text_encoder", "adapter", "teacher")
        if name in facts
    }
    facts = facts | sources
    size = write_tensors(directory, counted(), {"format": "cwjax"})
    write_json(directory / CONFIG_FILE, {"model_type": MODEL_TYPE, **config.to_dict(), "training": facts})
    (directory / MODEL_CARD_FILE).write_text(model_card(config, count, facts), encoding="utf-8")
    return {"parameters": count, "bytes": size}


def record_facts(directory: Path, facts: dict[str, Any]) -> None:
    """Adds what became known after the model was written, such as its scores, to config.json and the model card.

    Raises:
        CwjaxError: the directory cannot be read or written.
    """
    settings = read_config(directory)
    settings["training"] = read_training_facts(directory) | facts
    shapes = open_tensors(directory).shapes.values()
    count = sum(math.prod(shape) for shape in shapes)
    card = model_card(ContextWhisperConfig.from_dict(settings), count, settings["training"])
    try:
        write_text(directory / CONFIG_FILE, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        write_text(directory / MODEL_CARD_FILE, card)
    except OSError as error:
        raise CwjaxError(f"{directory}: cannot be written ({error.strerror})") from error


def copy_model(source: Path, directory: Path, config: ContextWhisperConfig, parameters: Parameters) -> None:
    """Writes a model directory like `source` with other parameters; one that is there already is replaced.

    Raises:
        CwjaxError: the disk is full or the directory cannot be written.
    """
    facts = read_training_facts(source)
    named = ((path, np.asarray(jax.device_get(leaf))) for path, leaf in flatten(parameters))
    with written_aside(directory, replace=True) as aside:
        for name in (TOKENIZER_FOLDER, CONTEXT_TOKENIZER_FOLDER):
            if (source / name).is_dir():
                shutil.copytree(source / name, aside / name)
        for name in (PREPROCESSOR_FILE, GENERATION_FILE):
            if (source / name).is_file():
                shutil.copy(source / name, aside / name)
        write_model(aside, config, named, facts)


@contextlib.contextmanager
def written_aside(directory: Path, replace: bool = False) -> Iterator[Path]:
    """An empty directory to write into, which takes its name when all is written; nothing is left of a failure.

    Args:
        directory: the name.
        replace: whether something may be there already.

    Raises:
        CwjaxError: the directory is there, or cannot be written.
    """
    directory = directory.resolve()  # a link stays one
    # No names that anybody else would give.
    aside, replaced = (directory.with_name(f".{directory.name}.cwjax-{end}") for end in ("partial", "replaced"))
    try:
        if replaced.exists() and not directory.exists():  # killed between the two renames below
            replaced.rename(directory)
        if not replace and directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise CwjaxError(f"{directory}: exists and is not empty; name a new directory, or delete it first")
        for leftover in (aside, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        if directory.exists():
            directory.rename(replaced)
        aside.rename(directory)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CwjaxError(f"{directory}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_model(
    directory: str | Path, dtype: np.dtype | type = np.float32
) -> tuple[ContextWhisperConfig, Parameters, Processor]:
    """Reads a model directory: configuration, parameters (NumPy arrays of `dtype`) and processor.

    Raises:
        CwjaxError: it is no model directory, or a file is damaged or does not fit the others.
    """
    config, parameters = load_parameters(directory, dtype)
    return config, parameters, load_processor(directory, config)


def load_parameters(
    directory: str | Path, dtype: np.dtype | type = np.float32
) -> tuple[ContextWhisperConfig, Parameters]:
    """Reads configuration and parameters, and leaves the tokenizers alone.

    Raises:
        CwjaxError: it is no model directory, or a file is damaged or does not fit the others.
    """
    config = read_model_config(directory)
    return config, as_tree(read_parameters(directory, config), dtype)


def read_parameters(directory: str | Path, config: ContextWhisperConfig) -> NamedArrays:
    """Reads one parameter after another, in the precision it is stored in.

    Raises:
        CwjaxError: a file is damaged or does not fit the configuration. Raised here if a parameter is missing or
            unknown, not when it is asked for.
    """
    tensors = open_tensors(directory)
    whisper = config.whisper
    for path, shape in {  # sizes beyond all memory must not even be thought through
        "audio_encoder/blocks/attn/query/kernel": (whisper.encoder_layers, whisper.d_model, whisper.d_model),
        "decoder/blocks/attn/query/kernel": (whisper.decoder_layers, whisper.d_model, whisper.d_model),
        "audio_encoder/positions": (whisper.max_source_positions, whisper.d_model),
        "decoder/positions": (whisper.max_target_positions, whisper.d_model),
    }.items():
        if tensors.shapes.get(path) != shape:
            raise CwjaxError(f"{tensors.place}: parameter {path} is missing or not of the shape {shape}")
    expected = dict(flatten(abstract(config)[1]))
    for path in sorted(expected.keys() | tensors.shapes.keys()):
        if path not in tensors.shapes or path not in expected or tensors.shapes[path] != expected[path].shape:
            raise CwjaxError(f"{tensors.place}: parameter {path} is missing, unknown or of another shape")
    return ((path, tensors.read(path)) for path in expected)


def require_complete(config: ContextWhisperConfig, named: NamedArrays) -> NamedArrays:
    """Passes all on, and makes sure that every parameter of the model has come by, once and in its shape.

    Raises:
        CwjaxError: one has no place in the model, or has not come.
    """
    left = {path: leaf.shape for path, leaf in flatten(abstract(config)[1])}
    for path, array in named:
        if left.pop(path, None) != array.shape:
            raise CwjaxError(f"parameter {path} of shape {array.shape} has no place in this model")
        yield path, array
    if left:
        raise CwjaxError(f"parameters without a source: {', '.join(sorted(left)[:5])}")


def read_model_config(directory: str | Path) -> ContextWhisperConfig:
    """The configuration in a model directory.

    Raises:
        CwjaxError: there is none, or it is another kind of model's.
    """
    directory = Path(directory)
    if not (directory / CONFIG_FILE).is_file():
        raise CwjaxError(
            f"{directory}: holds no {CONFIG_FILE}; a model directory is what launch/convert.py writes, or training to "
            "WORKDIR/model"
        )
    settings = read_config(directory)
    found = settings.get("model_type")
    if found != MODEL_TYPE:
        held = f"a model of type {found!r}" if found else "a model of no named type"
        raise CwjaxError(f"{directory}: holds {held}, not {MODEL_TYPE!r}; launch/convert.py makes one of it")
    with errors_name(directory):
        return ContextWhisperConfig.from_dict(settings)


def read_training_facts(directory: str | Path) -> dict[str, Any]:
    """What is known of a model's training, see `record_facts`. Raises CwjaxError if config.json cannot be read."""
    facts = read_config(directory).get("training", {})
    if not isinstance(facts, dict):
        raise CwjaxError(f"{Path(directory) / CONFIG_FILE}: training is {facts!r}, no JSON object; fetch it again")
    return facts


def load_processor(directory: str | Path, config: ContextWhisperConfig) -> Processor:
    """The tokenizers and audio settings of a model directory.

    Raises:
        CwjaxError: they are missing, or do not fit the model.
    """
    directory = Path(directory)
    processor = Processor.read(directory, takes_context=config.takes_context)
    require_vocabulary(processor.tokens, config.whisper.vocab_size, str(directory))
    _require_windows(processor, config, directory)
    if config.takes_context:
        place = directory / CONTEXT_TOKENIZER_FOLDER
        require_context_vocabulary(processor.context_tokenizer, config.text_encoder.vocab_size, place)
    return processor


def read_generation_settings(directory: Path) -> dict[str, Any]:
    """What `generation_config.json` says, nothing if there is none.

    Raises:
        CwjaxError: it is no valid JSON.
    """
    file = directory / GENERATION_FILE
    return read_json(file) if file.is_file() else {}


def require_vocabulary(tokens: WhisperTokens, vocab_size: int, place: str) -> None:
    """Raises `CwjaxError` if a Whisper tokenizer is not that of a model with so many tokens.

    A published vocabulary must fit to the token. Others may have more rows than tokens, never fewer.
    """
    published = {size.vocab_size for size in WHISPER_SIZES.values()}
    if len(tokens) > vocab_size or (vocab_size in published and vocab_size != len(tokens)):
        raise CwjaxError(
            f"{place}: the tokenizer has {len(tokens)} tokens, the model {vocab_size}; use the tokenizer of this model"
        )


def require_context_vocabulary(tokenizer: TextTokenizer, vocab_size: int, place: Path) -> None:
    """Raises `CwjaxError` if a tokenizer is not that of a text encoder with so many rows.

    A text encoder may have more rows than tokens. Most of them must have one: where its vocabulary is lost, a tokenizer
    may be left that knows a few special tokens only.
    """
    if not vocab_size / 2 < len(tokenizer) <= vocab_size:
        raise CwjaxError(
            f"{place}: the tokenizer has {len(tokenizer)} tokens, the text encoder {vocab_size}; use the tokenizer of "
            "this model"
        )


def _require_windows(processor: Processor, config: ContextWhisperConfig, directory: Path) -> None:
    whisper = config.whisper
    longest = whisper.max_source_positions * SAMPLES_PER_POSITION
    if processor.num_mel_bins != whisper.num_mel_bins or processor.window_samples > longest:
        raise CwjaxError(
            f"{directory / PREPROCESSOR_FILE}: has windows of {processor.window_samples} samples and "
            f"{processor.num_mel_bins} mel bins, the model at most {longest} and {whisper.num_mel_bins}; use this "
            "model's own file"
        )


def generation_settings(tokens: WhisperTokens, whisper: WhisperConfig) -> dict[str, Any]:
    """What decoding needs to know, under the names transformers uses."""
    languages = {token: number for token, number in tokens.tokenizer.get_vocab().items() if _is_language(token)}
    return {
        "decoder_start_token_id": tokens.id("<|startoftranscript|>"),
        "eos_token_id": tokens.end_of_text,
        "pad_token_id": tokens.end_of_text,
        "prev_sot_token_id": tokens.id("<|startofprev|>"),
        "no_timestamps_token_id": tokens.first_timestamp - 1,
        "max_initial_timestamp_index": 50,
        "max_length": whisper.max_target_positions,
        "is_multilingual": tokens.is_multilingual,
        "lang_to_id": dict(sorted(languages.items(), key=lambda item: item[1])),
        "task_to_id": {task: tokens.id(f"<|{task}|>") for task in ("transcribe", "translate")},
    }


def _is_language(token: str) -> bool:
    name = token[2:-2]
    return token.startswith("<|") and token.endswith("|>") and 2 <= len(name) <= 3 and name.isalpha()
