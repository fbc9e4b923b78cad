"""What a place with weights holds: a Whisper or a text encoder, in anybody's format or inside a model of ours."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION
from cwjax.data.examples.processor import CONTEXT_TOKENIZER_FOLDER, TOKENIZER_FOLDER, save_preprocessor_settings
from cwjax.data.examples.text_tokenizer import has_tokenizer
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.files import write_json
from cwjax.models.bert import BertConfig
from cwjax.models.context_whisper import TextEncoderConfig
from cwjax.models.t5 import T5Config
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.configuration_file import CONFIG_FILE, errors_name, read_config
from cwjax.weights.ctranslate2_checkpoints import CTRANSLATE2_FILE, open_ctranslate2
from cwjax.weights.model_directory import (
    GENERATION_FILE,
    MODEL_TYPE,
    generation_settings,
    read_generation_settings,
    read_model_config,
    require_vocabulary,
)
from cwjax.weights.name_table import NamedArrays
from cwjax.weights.tensors import open_tensors
from cwjax.weights.text_encoder_checkpoints import text_encoder_config, text_encoder_parameters
from cwjax.weights.whisper_checkpoints import (
    open_openai,
    whisper_config,
    whisper_from_hugging_face,
    whisper_from_openai,
)

TEXT_ENCODER = "text_encoder/"

_BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_FLAN_BASE = {"d_model": 768, "num_layers": 12, "num_heads": 12}
_FLAN_LARGE = {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16}
TEXT_ENCODER_SIZES: dict[str, TextEncoderConfig] = {
    "google-bert/bert-base-uncased": BertConfig(),
    "google-bert/bert-large-uncased": BertConfig(**_BERT_LARGE),
    "google/flan-t5-base": T5Config(**_FLAN_BASE, feed_forward_proj="gated-gelu"),
    "google/flan-t5-large": T5Config(**_FLAN_LARGE, feed_forward_proj="gated-gelu"),
}
"""Sizes of common text encoders, for plans without a network; what is loaded has its own configuration."""


class PretrainedWhisper(NamedTuple):
    """A Whisper on disk.

    Attributes:
        config: its sizes.
        files: the directory of its tokenizer, None when it has none.
        generation: its generation settings, under the names of transformers; empty when it has none.
        read: gives the parameters of audio encoder and decoder, without context attention, one at a time.
    """

    config: WhisperConfig
    files: Path | None
    generation: dict[str, Any]
    read: Callable[[], NamedArrays]


class PretrainedTextEncoder(NamedTuple):
    """A text encoder on disk.

    Attributes:
        config: its sizes.
        tokenizer: the directory of its tokenizer, which may lack one.
        read: gives its parameters one at a time.
    """

    config: TextEncoderConfig
    tokenizer: Path
    read: Callable[[], NamedArrays]


def open_whisper(place: Path) -> PretrainedWhisper:
    """The Whisper in a Hugging Face or CTranslate2 checkpoint, in OpenAI's own file, or in a model directory of ours.

    Raises:
        CwjaxError: the place holds none of them.
    """
    if place.is_file() and place.suffix in (".safetensors", ".json"):
        raise CwjaxError(f"{place}: is a part of a checkpoint; name the directory that it is in")
    if place.is_file() and place.name != CTRANSLATE2_FILE:
        config, tensors = open_openai(place)
        files = place.parent if has_tokenizer(place.parent) else None
        return PretrainedWhisper(config, files, {}, lambda: whisper_from_openai(tensors, config))
    place = place.parent if place.is_file() else place
    is_ctranslate2 = (place / CTRANSLATE2_FILE).is_file()
    settings = {} if is_ctranslate2 and not (place / CONFIG_FILE).is_file() else read_config(place)
    if is_ctranslate2 and "model_type" not in settings:
        config, tensors = open_ctranslate2(place / CTRANSLATE2_FILE)
        heads = {name: settings[name] for name in settings.keys() & {"alignment_heads"}}
        return PretrainedWhisper(config, place, heads, lambda: whisper_from_hugging_face(tensors, config))
    kind = settings.get("model_type")
    if kind == "whisper":
        with errors_name(place):
            config = whisper_config(settings)
        generation = published_generation_settings(place)
        return PretrainedWhisper(
            config, place, generation, lambda: whisper_from_hugging_face(open_tensors(place), config)
        )
    if kind == MODEL_TYPE:
        config = read_model_config(place).whisper
        generation = published_generation_settings(place)
        return PretrainedWhisper(config, place / TOKENIZER_FOLDER, generation, lambda: _stock_whisper(place))
    raise CwjaxError(f"{place / CONFIG_FILE}: is of a {kind!r} model, where a Whisper is needed")


def write_whisper_files(directory: Path, heard: PretrainedWhisper) -> Iterator[str]:
    """Writes audio settings, tokenizer and generation settings into a model directory; says what is missing."""
    config = heard.config
    save_preprocessor_settings(directory, config.num_mel_bins, config.max_source_positions * SAMPLES_PER_POSITION)
    if heard.files is None or not has_tokenizer(heard.files):
        write_json(directory / GENERATION_FILE, heard.generation)
        yield f"Whisper's tokenizer (its files belong in {TOKENIZER_FOLDER}/)"
        return
    tokens = WhisperTokens.read(heard.files)
    require_vocabulary(tokens, config.vocab_size, str(heard.files))
    tokens.tokenizer.save(directory / TOKENIZER_FOLDER)
    write_json(directory / GENERATION_FILE, generation_settings(tokens, config) | heard.generation)


def published_generation_settings(place: Path) -> dict[str, Any]:
    """The generation settings beside a checkpoint, without transformers' notes to itself."""
    return {name: value for name, value in read_generation_settings(place).items() if not name.startswith("_")}


def open_text_encoder(place: Path) -> PretrainedTextEncoder:
    """The text encoder in a Hugging Face checkpoint, or inside a model directory of ours.

    Raises:
        CwjaxError: the place holds neither.
    """
    settings = read_config(place)
    if settings.get("model_type") == MODEL_TYPE:
        config = read_model_config(place).text_encoder
        if config is None:
            raise CwjaxError(f"{place}: is a stock Whisper, which has no text encoder")
        return PretrainedTextEncoder(config, place / CONTEXT_TOKENIZER_FOLDER, lambda: _text_encoder_inside(place))
    with errors_name(place):
        config = text_encoder_config(settings)
    return PretrainedTextEncoder(config, place, lambda: text_encoder_parameters(open_tensors(place), settings))


def _stock_whisper(directory: Path) -> NamedArrays:
    """Audio encoder and decoder of a model directory, without what reads the context."""
    tensors = open_tensors(directory)
    for path in sorted(tensors.shapes):
        if not path.startswith(TEXT_ENCODER) and "/context_" not in path:
            yield path, tensors.read(path)


def _text_encoder_inside(directory: Path) -> NamedArrays:
    tensors = open_tensors(directory)
    for path in sorted(tensors.shapes):
        if path.startswith(TEXT_ENCODER):
            yield path.removeprefix(TEXT_ENCODER), tensors.read(path)
