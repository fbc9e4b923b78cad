"""What a model is made of before its first step: pretrained parts found and opened, new ones initialised, each on the
devices where it belongs."""

import dataclasses
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cwjax.config import NEW, Config
from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.examples.whisper_tokens import WhisperTokens, train_tokenizer
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig, init_params
from cwjax.models.lora import is_pair, new_pair_parameter
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.training.distillation import teacher_arrays, thinned, thinned_sizes
from cwjax.training.sharding import put_parameters
from cwjax.weights.adapters import adapted
from cwjax.weights.model_directory import (
    read_model_config,
    read_parameters,
    read_training_facts,
    require_context_vocabulary,
    require_vocabulary,
    written_aside,
)
from cwjax.weights.name_table import NamedArrays, require_weights
from cwjax.weights.pretrained import TEXT_ENCODER, open_text_encoder, open_whisper
from cwjax.weights.sources import file_sha256, locate
from cwjax.weights.tensors import SAFETENSORS_FILE


class ModelParts(NamedTuple):
    """The parts of a model, opened but not read.

    Attributes:
        config: sizes; the vocabulary of a new Whisper is decided by its tokenizer later.
        read: gives the parameters that are pretrained, one at a time; all others are new.
        tokenizer: directory of Whisper's; empty: it has none; None: a new Whisper, whose tokenizer is to be trained.
        context_tokenizer: directory of the text encoder's.
        facts: where the parts are from, and whether `timestamps` are known; for the model card.
    """

    config: ContextWhisperConfig
    read: Callable[[], NamedArrays]
    tokenizer: Path | str | None
    context_tokenizer: Path
    facts: dict[str, Any]


def open_parts(config: Config) -> ModelParts:
    """Finds the parts that the configuration names, fetching what is not here: those of `model.start`, or else the
    pretrained Whisper and text encoder.

    Raises:
        CwjaxError: one is missing, of another kind, not the one whose SHA-256 is named, or has too few positions.
    """
    settings = config.model
    if settings.start:
        directory = locate(settings.start)
        model = read_model_config(directory)
        whisper, text_encoder = open_whisper(directory), open_text_encoder(directory)
        thinned_sizes(config, whisper.config)
        knows_timestamps = read_training_facts(directory).get("timestamps", True)
        facts = {"start": settings.start}

        def read() -> NamedArrays:
            whole = adapted(lambda: read_parameters(directory, model), settings.adapter)
            return require_weights(whole(), settings.start)
    else:
        text_encoder = open_text_encoder(locate(settings.text_encoder))
        if settings.whisper == NEW:
            whisper, sizes = None, thinned_sizes(config, settings.whisper_size)
        else:
            whisper = open_whisper(locate(settings.whisper))
            whisper = thinned(config, whisper._replace(read=adapted(whisper.read, settings.adapter)))
            sizes = whisper.config
        model = ContextWhisperConfig(sizes, text_encoder.config, settings.context_attention)
        knows_timestamps = whisper is not None
        facts = {"start": "", "whisper": settings.whisper, "text_encoder": settings.text_encoder}
        facts["text_encoder_sha256"] = _checked_sha256(text_encoder.tokenizer, settings.text_encoder_sha256)

        def read() -> NamedArrays:
            texts = require_weights(text_encoder.read(), settings.text_encoder)
            heard = require_weights(whisper.read(), settings.whisper) if whisper else ()
            return chain(((TEXT_ENCODER + path, array) for path, array in texts), heard)

    if settings.adapter:
        if whisper is None:
            raise CwjaxError("model.adapter: adapts a pretrained Whisper; name one in model.whisper or model.start")
        facts["adapter"] = settings.adapter
    if config.lora.rank:
        facts["lora"] = f"rank {config.lora.rank}, alpha {config.lora.alpha:g}"
    if config.distil.teacher:
        facts["teacher"] = config.distil.teacher
    facts["timestamps"] = config.data.timestamps > 0 or knows_timestamps
    facts["max_context_tokens"] = config.data.max_context_tokens
    _require_room(config, model)
    return ModelParts(
        model,
        lambda: chain(read(), teacher_arrays(config)),
        (whisper.files or "") if whisper else None,
        text_encoder.tokenizer,
        facts,
    )


def make_processor(config: Config, parts: ModelParts, transcripts: Iterable[str], trained_tokenizer: Path) -> Processor:
    """The inputs of the model.

    Args:
        config: of the experiment.
        parts: of the model.
        transcripts: on which the tokenizer of a new Whisper is trained.
        trained_tokenizer: the directory that keeps it; what is there already is used.

    Raises:
        CwjaxError: a part has no tokenizer, or that of another model.
    """
    whisper, name = parts.config.whisper, config.model.start or config.model.whisper
    if parts.tokenizer is None:
        if not trained_tokenizer.exists():
            with written_aside(trained_tokenizer) as aside:
                train_tokenizer(transcripts, config.model.tokenizer_size, aside)
        tokens = WhisperTokens.read(trained_tokenizer)
    elif not parts.tokenizer:
        raise CwjaxError(f"{name}: has no tokenizer; convert it and put Whisper's tokenizer files beside the result")
    else:
        tokens = WhisperTokens.read(parts.tokenizer)
        require_vocabulary(tokens, whisper.vocab_size, name)
    context_tokenizer = TextTokenizer.read(parts.context_tokenizer)
    require_context_vocabulary(context_tokenizer, parts.config.text_encoder.vocab_size, parts.context_tokenizer)
    window = whisper.max_source_positions * SAMPLES_PER_POSITION
    return Processor(tokens, context_tokenizer, whisper.num_mel_bins, window)


def with_vocabulary(parts: ModelParts, processor: Processor) -> ContextWhisperConfig:
    """The sizes of the model when its tokenizer is known."""
    if parts.tokenizer is not None:
        return parts.config
    whisper = dataclasses.replace(parts.config.whisper, vocab_size=len(processor.tokens))
    return dataclasses.replace(parts.config, whisper=whisper)


def initial_parameters(parts: ModelParts, model: ContextWhisperConfig, wanted: Parameters, seed: int) -> Parameters:
    """Reads pretrained parameters and initialises the others, every array at once in its shards.

    No more than one array is on the host at a time, and none is ever whole on a device that holds but a part of it.

    Args:
        parts: of the model.
        model: its sizes.
        wanted: shapes, dtypes and shardings of the parameters to give, which may be some of the model's only.
        seed: of new parameters.

    Raises:
        CwjaxError: a part is damaged or of other sizes than its configuration says.
    """
    shapes = dict(flatten(wanted))
    leaves = put_parameters(((path, array) for path, array in parts.read() if path in shapes), shapes)
    new = {path: leaf for path, leaf in shapes.items() if path not in leaves}

    def make() -> dict[str, jax.Array]:
        key = jax.random.key(seed)
        made = dict(flatten(init_params(model, key)))
        made |= {path: new_pair_parameter(path, leaf.shape, key) for path, leaf in new.items() if is_pair(path)}
        return {path: made[path].astype(leaf.dtype) for path, leaf in new.items()}

    return unflatten(leaves | jax.jit(make, out_shardings={path: leaf.sharding for path, leaf in new.items()})())


def _require_room(config: Config, model: ContextWhisperConfig) -> None:
    """Raises `CwjaxError` if targets or contexts can be longer than the model has positions."""
    target, context = config.data.max_target_tokens, config.data.max_context_tokens
    if target > model.whisper.max_target_positions:
        raise CwjaxError(
            f"data.max_target_tokens is {target}, but this Whisper's decoder has only "
            f"{model.whisper.max_target_positions} positions"
        )
    longest = model.text_encoder.max_position_embeddings
    if longest is not None and context > longest:
        raise CwjaxError(f"data.max_context_tokens is {context}, but the text encoder reads at most {longest} tokens")


def _checked_sha256(directory: Path, expected: str) -> str:
    """SHA-256 of the text encoder's weights, empty if they are not one file of safetensors."""
    file = directory / SAFETENSORS_FILE
    if not file.is_file() and not expected:
        return ""
    sha256 = file_sha256(file)
    if expected and sha256 != expected:
        raise CwjaxError(
            f"{file}: has SHA-256 {sha256}, but the configuration asks for {expected} (model.text_encoder_sha256); "
            "fetch it again, or correct the configuration"
        )
    return sha256
