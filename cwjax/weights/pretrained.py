"""What a directory of weights holds: a Whisper, a text encoder, or a whole model of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cwjax.data.processor import TOKENIZER_FOLDER
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.hugging_face import CONFIG_FILE, read_config, read_safetensors, whisper_config, whisper_params
from cwjax.weights.model_directory import MODEL_TYPE, load_model


class PretrainedWhisper(NamedTuple):
    """A Whisper on disk.

    Attributes:
        config: its sizes.
        tokenizer: the directory of its tokenizer.
        read: gives the parameters of audio encoder and decoder, without context attention.
    """

    config: WhisperConfig
    tokenizer: Path
    read: Callable[[], Parameters]


def open_whisper(directory: Path) -> PretrainedWhisper:
    """The Whisper in a Hugging Face checkpoint, or the stock Whisper inside a model directory of ours.

    Raises:
        CwjaxError: the directory holds neither.
    """
    settings = read_config(directory)
    kind = settings.get("model_type")
    if kind == "whisper":
        config = whisper_config(settings)
        return PretrainedWhisper(config, directory, lambda: whisper_params(read_safetensors(directory), config))
    if kind == MODEL_TYPE:
        ours = ContextWhisperConfig.from_dict(settings)
        return PretrainedWhisper(ours.whisper, directory / TOKENIZER_FOLDER, lambda: _stock_whisper(directory))
    raise CwjaxError(f"{directory / CONFIG_FILE}: is of a {kind!r} model, where a Whisper is needed")


def _stock_whisper(directory: Path) -> Parameters:
    """Audio encoder and decoder of a model directory, without what reads the context."""
    _, parameters, _ = load_model(directory)
    return unflatten(
        {
            path: leaf
            for path, leaf in flatten(parameters)
            if not path.startswith("text_encoder/") and "/context_" not in path
        }
    )
