"""What an experiment starts from: pretrained parts found and opened, new ones initialised, all joined to a model,
each parameter on the devices where it belongs."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from cwjax.config import NEW, Config
from cwjax.data.log_mel import SAMPLES_PER_POSITION
from cwjax.data.processor import Processor
from cwjax.data.text_tokenizer import TextTokenizer
from cwjax.data.whisper_tokens import WhisperTokens, train_tokenizer
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig, abstract, init_params
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.whisper import WHISPER_SIZES, ContextAttentionConfig, WhisperConfig
from cwjax.training.processes import first_alone
from cwjax.training.sharding import parameter_shardings, place
from cwjax.weights.model_directory import read_model_config, read_parameters, read_training_facts, require_vocabulary
from cwjax.weights.pretrained import (
    TEXT_ENCODER,
    TEXT_ENCODER_SIZES,
    PretrainedTextEncoder,
    PretrainedWhisper,
    open_text_encoder,
    open_whisper,
)
from cwjax.weights.sources import file_sha256, locate
from cwjax.weights.tensors import SAFETENSORS_FILE


@dataclass(frozen=True)
class Start:
    """Where the parts of a model come from, opened but not read.

    Attributes:
        whisper: sizes; the vocabulary of a new Whisper is decided by its tokenizer later.
        pretrained: the Whisper, None for a new one.
        text_encoder: reads the context.
        context: how the audio encoder attends.
        whole: directory of a model of ours of which everything is taken, context attention too; None: that is new.
    """

    whisper: WhisperConfig
    pretrained: PretrainedWhisper | None
    text_encoder: PretrainedTextEncoder
    context: ContextAttentionConfig
    whole: Path | None

    @property
    def knows_timestamps(self) -> bool:
        """Whether its Whisper has learned them; every pretrained one has."""
        if self.whole:
            return read_training_facts(self.whole).get("timestamps", True)
        return self.pretrained is not None


@dataclass(frozen=True)
class NewModel:
    """A model before training, all but its parameters.

    Attributes:
        config: its sizes.
        processor: its inputs.
        facts: where its parts came from.
    """

    config: ContextWhisperConfig
    processor: Processor
    facts: dict[str, Any]


def open_start(config: Config) -> Start:
    """Finds the parts that the configuration names, fetching what is not here.

    Raises:
        CwjaxError: one is missing or of another kind.
    """
    settings = config.model
    if settings.start:
        whole = locate(settings.start)
        context = read_model_config(whole).context
        pretrained = open_whisper(whole)
        return Start(pretrained.config, pretrained, open_text_encoder(whole), context, whole)
    text_encoder = open_text_encoder(locate(settings.text_encoder))
    pretrained = None if settings.whisper == NEW else open_whisper(locate(settings.whisper))
    whisper = pretrained.config if pretrained else settings.whisper_size
    return Start(whisper, pretrained, text_encoder, settings.context_attention, None)


def planned_sizes(config: Config) -> ContextWhisperConfig:
    """Sizes of an experiment's model. Published checkpoints whose sizes are known need not be here, nor a network.

    Raises:
        CwjaxError: a part is neither here nor known.
    """
    settings = config.model
    if settings.start:
        return read_model_config(locate(settings.start))
    whisper = dataclasses.replace(settings.whisper_size, vocab_size=settings.tokenizer_size)
    if settings.whisper != NEW:
        name = settings.whisper.removeprefix("openai/whisper-")
        known = WHISPER_SIZES.get(name) if name != settings.whisper else None
        whisper = known or open_whisper(locate(settings.whisper)).config
    text_encoder = (
        TEXT_ENCODER_SIZES.get(settings.text_encoder) or open_text_encoder(locate(settings.text_encoder)).config
    )
    return ContextWhisperConfig(whisper, text_encoder, settings.context_attention)


def require_room(config: Config, start: Start) -> None:
    """Raises `CwjaxError` if targets or contexts can be longer than the model has positions."""
    target, context = config.data.max_target_tokens, config.data.max_context_tokens
    if target > start.whisper.max_target_positions:
        raise CwjaxError(
            f"data.max_target_tokens is {target}, but this Whisper's decoder has only "
            f"{start.whisper.max_target_positions} positions"
        )
    longest = start.text_encoder.config.max_position_embeddings
    if longest is not None and context > longest:
        raise CwjaxError(f"data.max_context_tokens is {context}, but the text encoder reads at most {longest} tokens")


def describe_model(config: Config, start: Start, transcripts: Iterable[str], workdir: Path) -> NewModel:
    """Sizes and inputs of the model that the parts make.

    Args:
        config: of the experiment.
        start: where the parts come from.
        transcripts: of the training split; a new Whisper's tokenizer is trained on them.
        workdir: keeps that tokenizer.

    Raises:
        CwjaxError: a part has no tokenizer, or is not the one whose SHA-256 the configuration names.
    """
    sha256 = _checked_sha256(config, start)
    tokens = first_alone(lambda: _tokens(config, start, transcripts, workdir))
    whisper = start.whisper if start.pretrained else dataclasses.replace(start.whisper, vocab_size=len(tokens))
    processor = Processor(
        tokens=tokens,
        context_tokenizer=TextTokenizer.read(start.text_encoder.tokenizer),
        num_mel_bins=whisper.num_mel_bins,
        window_samples=whisper.max_source_positions * SAMPLES_PER_POSITION,
    )
    sources: dict[str, Any] = {"start": config.model.start}
    if not start.whole:
        sources = {"whisper": config.model.whisper, "text_encoder": config.model.text_encoder}
        sources["text_encoder_sha256"] = sha256
    sources["timestamps"] = config.data.timestamps > 0 or start.knows_timestamps
    return NewModel(
        ContextWhisperConfig(whisper, start.text_encoder.config, start.context),
        processor,
        {**sources, "max_context_tokens": config.data.max_context_tokens},
    )


def initial_parameters(start: Start, model: ContextWhisperConfig, seed: int, mesh: Mesh) -> Parameters:
    """Reads pretrained parameters and initialises the others, float32, every array at once in its shards.

    No more than one array is on the host at a time, and none is ever whole on a device that holds but a part of it.

    Args:
        start: where the parts come from.
        model: its sizes.
        seed: of new parameters.
        mesh: of the devices.

    Raises:
        CwjaxError: a part is damaged or of other sizes than its configuration says.
    """
    shardings = dict(flatten(parameter_shardings(abstract(model)[1], mesh)))
    if start.whole:
        return unflatten(place(read_parameters(start.whole, model), shardings))
    text_encoder = ((TEXT_ENCODER + path, array) for path, array in start.text_encoder.read())
    leaves = place(chain(text_encoder, start.pretrained.read() if start.pretrained else ()), shardings)
    new = {path: sharding for path, sharding in shardings.items() if path not in leaves}
    return unflatten(leaves | _new_parameters(model, seed, new))


def _new_parameters(
    model: ContextWhisperConfig, seed: int, shardings: dict[str, NamedSharding]
) -> dict[str, jax.Array]:
    def make() -> dict[str, jax.Array]:
        leaves = dict(flatten(init_params(model, jax.random.key(seed))))
        return {path: leaves[path] for path in shardings}

    return jax.jit(make, out_shardings=shardings)()


def _tokens(config: Config, start: Start, transcripts: Iterable[str], workdir: Path) -> WhisperTokens:
    if start.pretrained is None:
        directory = workdir / "tokenizer"
        if directory.exists():
            return WhisperTokens.read(directory)
        return train_tokenizer(transcripts, config.model.tokenizer_size, directory)
    name = config.model.start or config.model.whisper
    if start.pretrained.files is None:
        raise CwjaxError(f"{name}: has no tokenizer; convert it and put Whisper's tokenizer files beside the result")
    tokens = WhisperTokens.read(start.pretrained.files)
    require_vocabulary(tokens, start.whisper.vocab_size, name)
    return tokens


def _checked_sha256(config: Config, start: Start) -> str:
    """SHA-256 of the text encoder's weights, empty if they are not one file of safetensors."""
    file = start.text_encoder.tokenizer / SAFETENSORS_FILE
    expected = "" if start.whole else config.model.text_encoder_sha256
    if not file.is_file() and not expected:
        return ""
    sha256 = file_sha256(file)
    if expected and sha256 != expected:
        raise CwjaxError(
            f"{file}: has SHA-256 {sha256}, but the configuration asks for {expected} (model.text_encoder_sha256); "
            "fetch it again, or correct the configuration"
        )
    return sha256
