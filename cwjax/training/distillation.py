"""Distillation as distil-whisper does it (Gandhi et al. 2023): a student with fewer layers learns from its teacher.

The student starts from some of a Whisper's layers, and in every step learns the teacher's distribution of the next
token beside the right one. The teacher's parameters are frozen ones, whose paths begin with `teacher/`.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.config import NEW, Config
from cwjax.data.audio.log_mel import log_mel
from cwjax.data.audio.pcm16 import from_pcm16
from cwjax.errors import CwjaxError
from cwjax.models.attention import Implementation
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters, cast
from cwjax.models.placement import on_own_examples
from cwjax.models.whisper import WhisperConfig, published_sizes
from cwjax.training.groups import TEACHER
from cwjax.training.loss import Rows
from cwjax.weights.configuration_file import CONFIG_FILE, read_config
from cwjax.weights.model_directory import MODEL_TYPE, read_model_config, read_parameters
from cwjax.weights.name_table import NamedArrays
from cwjax.weights.pretrained import PretrainedWhisper, open_whisper
from cwjax.weights.sources import locate


def kept_layers(layers: int, kept: int) -> list[int]:
    """Which of a teacher's layers a student with so many has: evenly spaced, the first and the last among them."""
    chosen = np.linspace(0, layers - 1, kept).astype(int)
    return [*chosen[:-1].tolist(), layers - 1]


def thinned_sizes(config: Config, whisper: WhisperConfig) -> WhisperConfig:
    """The student's sizes.

    Raises:
        CwjaxError: there are no layers to choose from, or fewer than are to be kept.
    """
    kept = {part: getattr(config.distil, f"{part}_layers") for part in ("encoder", "decoder")}
    for part, number in kept.items():
        there = getattr(whisper, f"{part}_layers")
        if number and (config.model.start or config.model.whisper == NEW):
            raise CwjaxError(f"distil.{part}_layers: chooses among the layers of a pretrained model.whisper; name one")
        if number > there:
            raise CwjaxError(f"distil.{part}_layers is {number}, but {config.model.whisper} has only {there}")
    return dataclasses.replace(whisper, **{f"{part}_layers": number for part, number in kept.items() if number})


def thinned(config: Config, whisper: PretrainedWhisper) -> PretrainedWhisper:
    """The student's start: a Whisper with those layers alone that are kept."""
    sizes = thinned_sizes(config, whisper.config)
    if sizes == whisper.config:
        return whisper
    chosen = {
        "audio_encoder/blocks/": kept_layers(whisper.config.encoder_layers, sizes.encoder_layers),
        "decoder/blocks/": kept_layers(whisper.config.decoder_layers, sizes.decoder_layers),
    }

    def read() -> NamedArrays:
        for path, array in whisper.read():
            layers = next((layers for head, layers in chosen.items() if path.startswith(head)), None)
            yield path, array if layers is None else array[layers]

    return whisper._replace(config=sizes, read=read)


def teacher_shapes(config: Config, model: ContextWhisperConfig) -> Parameters:
    """Shapes of the teacher's parameters under their own name; none without a teacher.

    Raises:
        CwjaxError: there is no such teacher, or it is none for this student.
    """
    if not config.distil.teacher:
        return {}
    teacher = _sizes(config.distil.teacher)
    _require_fitting(config, teacher, model)
    return {TEACHER: abstract(teacher)[1]}


def teacher_arrays(config: Config) -> NamedArrays:
    """The teacher's parameters, one at a time; none without a teacher."""
    if config.distil.teacher:
        place, sizes = locate(config.distil.teacher), _sizes(config.distil.teacher)
        named = read_parameters(place, sizes) if _is_ours(place) else open_whisper(place).read()
        yield from ((f"{TEACHER}/{path}", array) for path, array in named)


def make_teacher(config: Config, attention: Implementation | None) -> Callable[[Parameters, dict], Rows] | None:
    """From the teacher's parameters and a batch to what its logits are made of; None without a teacher. It hears the
    speech without masks, and what it knows of the context."""
    if not config.distil.teacher:
        return None
    sizes, dtype = _sizes(config.distil.teacher), jnp.dtype(config.train.compute_dtype)
    graphdef, _ = abstract(sizes, attention=attention)

    def teach(parameters: Parameters, batch: dict) -> Rows:
        teacher, bins = nnx.merge(graphdef, cast(parameters, dtype)), sizes.whisper.num_mel_bins
        features = on_own_examples(lambda waveform: log_mel(from_pcm16(waveform), bins, jnp), batch["waveform"])
        context = (batch["context_ids"], batch["context_mask"])
        states = teacher.encode_context(*context) if sizes.takes_context else None
        stream = teacher.decoder.states(batch["tokens"], teacher.encode(features.astype(dtype), states))
        return stream, teacher.decoder.token_embedding.embedding[...]

    return teach


@cache
def _sizes(source: str) -> ContextWhisperConfig:
    """Sizes of a teacher: a model of ours, or any Whisper. Those of published ones are known without a network."""
    known = published_sizes(source)
    place = None if known else locate(source)
    if place and _is_ours(place):
        return read_model_config(place)
    return ContextWhisperConfig(known or open_whisper(place).config, None, None)


def _is_ours(place: Path) -> bool:
    return (place / CONFIG_FILE).is_file() and read_config(place).get("model_type") == MODEL_TYPE


def _require_fitting(config: Config, teacher: ContextWhisperConfig, model: ContextWhisperConfig) -> None:
    ours, theirs, name = model.whisper, teacher.whisper, config.distil.teacher
    for field, unit in (("vocab_size", "tokens"), ("max_source_positions", "audio positions")):
        if getattr(ours, field) != getattr(theirs, field):
            raise CwjaxError(
                f"distil.teacher {name}: has {getattr(theirs, field)} {unit}, the student {getattr(ours, field)}; they "
                "must be the same, as where the student starts from its teacher (model.whisper)"
            )
    if theirs.max_target_positions < config.data.max_target_tokens:
        raise CwjaxError(
            f"data.max_target_tokens is {config.data.max_target_tokens}, but the teacher's decoder has only "
            f"{theirs.max_target_positions} positions"
        )
    if teacher.takes_context and teacher.text_encoder.vocab_size != model.text_encoder.vocab_size:
        raise CwjaxError(
            f"distil.teacher {name}: reads contexts of {teacher.text_encoder.vocab_size} tokens, the student of "
            f"{model.text_encoder.vocab_size}; give the student the teacher's text encoder (model.text_encoder)"
        )
    longest = teacher.text_encoder.max_position_embeddings if teacher.takes_context else None
    if longest is not None and config.data.max_context_tokens > longest:
        raise CwjaxError(
            f"data.max_context_tokens is {config.data.max_context_tokens}, but the teacher's text encoder reads at "
            f"most {longest} tokens"
        )
