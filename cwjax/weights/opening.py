"""A model to transcribe with, whoever wrote it: a model directory or a context adapter of ours, or a stock Whisper in
anybody's format."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION
from cwjax.data.examples.processor import CONTEXT_TOKENIZER_FOLDER, Processor
from cwjax.data.examples.text_tokenizer import TextTokenizer, has_tokenizer
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters, flatten
from cwjax.weights.configuration_file import CONFIG_FILE, read_config
from cwjax.weights.context_adapter import Part, checked, is_adapter, read_adapter
from cwjax.weights.model_directory import (
    MODEL_TYPE,
    copy_model,
    load_processor,
    read_generation_settings,
    read_model_config,
    read_parameters,
    read_training_facts,
    require_complete,
    require_context_vocabulary,
    require_vocabulary,
    write_model,
    written_aside,
)
from cwjax.weights.name_table import NamedArrays
from cwjax.weights.pretrained import (
    TEXT_ENCODER,
    PretrainedTextEncoder,
    PretrainedWhisper,
    open_text_encoder,
    open_whisper,
    write_whisper_files,
)
from cwjax.weights.sources import fetch, locate

PUBLISHED_TOKENIZERS = {
    51864: "openai/whisper-tiny.en",
    51865: "openai/whisper-tiny",
    51866: "openai/whisper-large-v3",
}
"""Hub ids of the tokenizers of all published Whispers, by the size of the vocabulary."""


class OpenedModel(Protocol):
    """A model on disk.

    Attributes:
        place: its directory or file.
        config: its sizes.
    """

    place: Path
    config: ContextWhisperConfig

    def parameters(self) -> NamedArrays:
        """One parameter after another. Raises CwjaxError if a file is damaged or does not fit the configuration."""

    def processor(self) -> Processor:
        """From sound and text to arrays. Raises CwjaxError if tokenizers are missing, or do not fit the model."""

    def generation(self) -> dict[str, Any]:
        """Its generation settings, empty if it has none. Raises CwjaxError if they cannot be read."""

    def facts(self) -> dict[str, Any]:
        """What is known of how it came to be. Raises CwjaxError if that cannot be read."""

    def save(self, directory: Path, parameters: Parameters) -> None:
        """Writes a model directory like it, with these parameters; one that is there already is replaced.

        Raises CwjaxError if the disk is full or the directory cannot be written.
        """


@dataclass(frozen=True)
class _ModelDirectory:
    """A model directory of ours, see `OpenedModel`."""

    place: Path
    config: ContextWhisperConfig

    def parameters(self) -> NamedArrays:
        return read_parameters(self.place, self.config)

    def processor(self) -> Processor:
        return load_processor(self.place, self.config)

    def generation(self) -> dict[str, Any]:
        return read_generation_settings(self.place)

    def facts(self) -> dict[str, Any]:
        return read_training_facts(self.place)

    def save(self, directory: Path, parameters: Parameters) -> None:
        copy_model(self.place, directory, self.config, parameters)


@dataclass(frozen=True)
class _StockWhisper:
    """A Whisper in anybody's format, see `OpenedModel`; one without a tokenizer is given the published one."""

    place: Path
    config: ContextWhisperConfig
    whisper: PretrainedWhisper

    def parameters(self) -> NamedArrays:
        return self.whisper.read()

    def processor(self) -> Processor:
        whisper, files = self.config.whisper, self.whisper.files
        if files is None or not has_tokenizer(files):
            published = PUBLISHED_TOKENIZERS.get(whisper.vocab_size)
            if published is None:
                raise CwjaxError(f"{self.place}: has no tokenizer; put its tokenizer.json beside it")
            files = fetch(published, ["tokenizer*.json"], f"{self.place}: its tokenizer.json, which belongs beside it,")
        tokens = WhisperTokens.read(files)
        require_vocabulary(tokens, whisper.vocab_size, str(files))
        return Processor(tokens, None, whisper.num_mel_bins, whisper.max_source_positions * SAMPLES_PER_POSITION)

    def generation(self) -> dict[str, Any]:
        return self.whisper.generation

    def facts(self) -> dict[str, Any]:
        return {"whisper": str(self.place)}

    def save(self, directory: Path, parameters: Parameters) -> None:
        with written_aside(directory, replace=True) as aside:
            list(write_whisper_files(aside, self.whisper))
            write_model(aside, self.config, _arrays(parameters), {})


@dataclass(frozen=True)
class _JoinedAdapter:
    """A context adapter, joined with the Whisper and the text encoder that it names, see `OpenedModel`.

    Attributes:
        parts: their sources and digests.
        context: gives the adapter's own parameters.
        stock: the Whisper.
        text_encoder: the text encoder.
    """

    place: Path
    config: ContextWhisperConfig
    parts: dict[str, Part]
    context: Callable[[], NamedArrays]
    stock: _StockWhisper
    text_encoder: PretrainedTextEncoder

    def parameters(self) -> NamedArrays:
        texts = ((TEXT_ENCODER + path, array) for path, array in self.text_encoder.read())
        named = chain(
            checked(self.stock.parameters(), self.parts["whisper"], self.place),
            checked(texts, self.parts["text_encoder"], self.place),
            self.context(),
        )
        return require_complete(self.config, named)

    def processor(self) -> Processor:
        tokenizer = TextTokenizer.read(self.text_encoder.tokenizer)
        require_context_vocabulary(tokenizer, self.text_encoder.config.vocab_size, self.text_encoder.tokenizer)
        return dataclasses.replace(self.stock.processor(), context_tokenizer=tokenizer)

    def generation(self) -> dict[str, Any]:
        return self.stock.generation()

    def facts(self) -> dict[str, Any]:
        return read_training_facts(self.place)

    def save(self, directory: Path, parameters: Parameters) -> None:
        with written_aside(directory, replace=True) as aside:
            list(write_whisper_files(aside, self.stock.whisper))
            TextTokenizer.read(self.text_encoder.tokenizer).save(aside / CONTEXT_TOKENIZER_FOLDER)
            write_model(aside, self.config, _arrays(parameters), self.facts())


def _arrays(parameters: Parameters) -> NamedArrays:
    return ((path, np.asarray(jax.device_get(leaf))) for path, leaf in flatten(parameters))


def open_model(place: Path) -> OpenedModel:
    """Finds out what a place holds.

    Raises:
        CwjaxError: neither a model directory, nor an adapter, nor a Whisper, or a damaged one.
    """
    if place.is_dir() and (place / CONFIG_FILE).is_file() and read_config(place).get("model_type") == MODEL_TYPE:
        return _ModelDirectory(place, read_model_config(place))
    if place.is_dir() and is_adapter(place):
        return _open_adapter(place)
    stock = open_whisper(place)
    return _StockWhisper(place, ContextWhisperConfig(stock.config, None, None), stock)


def _open_adapter(place: Path) -> _JoinedAdapter:
    config, parts, context = read_adapter(place)
    heard = locate(parts["whisper"].source)
    stock = _StockWhisper(heard, ContextWhisperConfig(config.whisper, None, None), open_whisper(heard))
    read = open_text_encoder(locate(parts["text_encoder"].source))
    for name, found, wanted in (
        ("whisper", stock.whisper.config, config.whisper),
        ("text_encoder", read.config, config.text_encoder),
    ):
        if found != wanted:
            raise CwjaxError(f"{place}: belongs to a model of other sizes than those of {parts[name].source}")
    return _JoinedAdapter(place, config, parts, context, stock, read)
