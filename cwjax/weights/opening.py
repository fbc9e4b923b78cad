"""A model to transcribe with, whoever wrote it: a model directory of ours, or a stock Whisper in anybody's format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.text_tokenizer import has_tokenizer
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters, flatten
from cwjax.weights.configuration_file import CONFIG_FILE, read_config
from cwjax.weights.model_directory import (
    MODEL_TYPE,
    copy_model,
    load_processor,
    read_generation_settings,
    read_model_config,
    read_parameters,
    read_training_facts,
    require_vocabulary,
    write_model,
    written_aside,
)
from cwjax.weights.name_table import NamedArrays
from cwjax.weights.pretrained import PretrainedWhisper, open_whisper, write_whisper_files
from cwjax.weights.sources import fetch

PUBLISHED_TOKENIZERS = {
    51864: "openai/whisper-tiny.en",
    51865: "openai/whisper-tiny",
    51866: "openai/whisper-large-v3",
}
"""Hub ids of the tokenizers of all published Whispers, by the size of the vocabulary."""


@dataclass(frozen=True)
class OpenedModel:
    """A model on disk.

    Attributes:
        place: its directory or file.
        config: its sizes.
        stock: how to read a stock Whisper; None: a model directory of ours.
    """

    place: Path
    config: ContextWhisperConfig
    stock: PretrainedWhisper | None

    def parameters(self) -> NamedArrays:
        """One parameter after another. Raises CwjaxError if a file is damaged or does not fit the configuration."""
        return self.stock.read() if self.stock else read_parameters(self.place, self.config)

    def processor(self) -> Processor:
        """From sound and text to arrays. A stock Whisper without a tokenizer is given the published one.

        Raises:
            CwjaxError: tokenizers are missing, or do not fit the model.
        """
        if self.stock is None:
            return load_processor(self.place, self.config)
        whisper, files = self.config.whisper, self.stock.files
        if files is None or not has_tokenizer(files):
            published = PUBLISHED_TOKENIZERS.get(whisper.vocab_size)
            if published is None:
                raise CwjaxError(f"{self.place}: has no tokenizer; put its tokenizer.json beside it")
            files = fetch(published, ["tokenizer*.json"], f"{self.place}: its tokenizer.json, which belongs beside it,")
        tokens = WhisperTokens.read(files)
        require_vocabulary(tokens, whisper.vocab_size, str(files))
        return Processor(tokens, None, whisper.num_mel_bins, whisper.max_source_positions * SAMPLES_PER_POSITION)

    def generation(self) -> dict[str, Any]:
        """Its generation settings, empty if it has none. Raises CwjaxError if they cannot be read."""
        return self.stock.generation if self.stock else read_generation_settings(self.place)

    def facts(self) -> dict[str, Any]:
        """What is known of how it came to be. Raises CwjaxError if that cannot be read."""
        return {"whisper": str(self.place)} if self.stock else read_training_facts(self.place)

    def save(self, directory: Path, parameters: Parameters) -> None:
        """Writes a model directory like it, with these parameters; one that is there already is replaced.

        Raises:
            CwjaxError: the disk is full or the directory cannot be written.
        """
        if self.stock is None:
            return copy_model(self.place, directory, self.config, parameters)
        named = ((path, np.asarray(jax.device_get(leaf))) for path, leaf in flatten(parameters))
        with written_aside(directory, replace=True) as aside:
            list(write_whisper_files(aside, self.stock))
            write_model(aside, self.config, named, {})


def open_model(place: Path) -> OpenedModel:
    """Finds out what a place holds.

    Raises:
        CwjaxError: neither a model directory nor a Whisper, or a damaged one.
    """
    if place.is_dir() and (place / CONFIG_FILE).is_file() and read_config(place).get("model_type") == MODEL_TYPE:
        return OpenedModel(place, read_model_config(place), None)
    stock = open_whisper(place)
    return OpenedModel(place, ContextWhisperConfig(stock.config, None, None), stock)
