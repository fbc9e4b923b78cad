"""Context adapters: what was trained to give a published Whisper context, without that Whisper and its text encoder.

A directory with `config.json`, which names the two and has a digest of each one's weights, `model.safetensors` with the
context attention alone, `README.md`, and `spotter.safetensors` where a phrase spotter goes with it: megabytes that
`cwjax.load` joins with what they name.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from cwjax.errors import CwjaxError
from cwjax.files import write_json
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.weights.configuration_file import CONFIG_FILE, errors_name, read_config
from cwjax.weights.model_card import MODEL_CARD_FILE, model_card
from cwjax.weights.model_directory import read_model_config, read_parameters, read_training_facts
from cwjax.weights.name_table import NamedArrays, require_weights
from cwjax.weights.pretrained import TEXT_ENCODER, open_text_encoder, open_whisper
from cwjax.weights.sources import locate
from cwjax.weights.spotter_files import SPOTTER_FILE
from cwjax.weights.tensors import open_tensors, write_tensors

ADAPTER_TYPE = "context-whisper-adapter"
PARTS = ("whisper", "text_encoder")
"""What an adapter is joined with."""


class Part(NamedTuple):
    """What an adapter is joined with: where it comes from, and the digest of its weights, see `weights_sha256`."""

    source: str
    sha256: str


def weights_sha256(named: NamedArrays) -> str:
    """A digest of weights, equal for whatever format, order and precision they are stored in.

    Every weight is rounded to bfloat16. Positions of the audio encoder are left out, for they are calculated.
    """
    return _together(_digest(path, array) for path, array in named)


def _digest(path: str, array: np.ndarray) -> bytes:
    if path == "audio_encoder/positions":
        return b""
    rounded = array.astype(ml_dtypes.bfloat16)
    return hashlib.sha256(f"{path} {rounded.shape}\n".encode() + rounded.tobytes()).digest()


def _together(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds a context adapter. Raises CwjaxError if its config.json cannot be read."""
    return (directory / CONFIG_FILE).is_file() and read_config(directory).get("model_type") == ADAPTER_TYPE


def write_adapter(model: Path, aside: Path, named: dict[str, str], spotter: Path | None = None) -> None:
    """Writes the adapter of a model directory into an empty directory.

    Args:
        model: a model directory of which only the context attention was trained.
        aside: receives it.
        named: whatever of "whisper" and "text_encoder" the model itself does not name: hub ids or directories.
        spotter: file of a phrase spotter for this Whisper, which goes with it.

    Raises:
        CwjaxError: it is not known what the model was joined from, or what is there is not what is in the model.
    """
    config, facts = read_model_config(model), read_training_facts(model)
    if not config.takes_context:
        raise CwjaxError(f"{model}: is a stock Whisper, of which there is no adapter")
    sources = {part: named.get(part) or str(facts.get(part) or "") for part in PARTS}
    for part, source in sources.items():
        if not source or source == "new":
            raise CwjaxError(
                f"{model}: does not say which {part.replace('_', ' ')} it was made of; name it with "
                f"--{part.replace('_', '-')}"
            )
    kept = dict(require_weights(read_parameters(model, config), str(model)))
    context = {path: array for path, array in kept.items() if "/context_" in path}
    read = {
        "whisper": open_whisper(locate(sources["whisper"])).read,
        "text_encoder": lambda: _prefixed(open_text_encoder(locate(sources["text_encoder"])).read()),
    }
    parts = {}
    for part in PARTS:
        _require_untrained(model, sources[part], read[part](), kept)
        parts[part] = {"source": sources[part], "sha256": weights_sha256(read[part]())}
    facts |= sources
    write_tensors(aside, iter(context.items()), {"format": "cwjax"})
    write_json(aside / CONFIG_FILE, {"model_type": ADAPTER_TYPE, **config.to_dict(), "parts": parts, "training": facts})
    count = sum(array.size for array in context.values())
    (aside / MODEL_CARD_FILE).write_text(model_card(config, count, facts, adapter=True), encoding="utf-8")
    if spotter:
        shutil.copy(spotter, aside / SPOTTER_FILE)


def _require_untrained(model: Path, source: str, theirs: NamedArrays, kept: dict[str, np.ndarray]) -> None:
    """Refuses a model of which more than the context attention differs from what it was made of."""
    for path, array in theirs:
        own = kept.get(path)
        if own is None or own.shape != array.shape:
            raise CwjaxError(f"{model}: was not made of {source}: {path} is missing or of another shape there")
        if path != "audio_encoder/positions" and not (
            np.array_equal(own.astype(array.dtype), array) or np.array_equal(own, array.astype(own.dtype))
        ):
            raise CwjaxError(
                f"{model}: {path} differs from that of {source}; an adapter holds the context attention alone: train "
                "with everything else frozen, or push the whole model"
            )


def read_adapter(directory: Path) -> tuple[ContextWhisperConfig, dict[str, Part], Callable[[], NamedArrays]]:
    """Configuration, parts by their names, and what gives the context attention's parameters.

    Raises:
        CwjaxError: a file is missing or damaged.
    """
    settings = read_config(directory)
    with errors_name(directory):
        config = ContextWhisperConfig.from_dict(settings)
    try:
        parts = {part: Part(*(str(settings["parts"][part][name]) for name in Part._fields)) for part in PARTS}
    except (KeyError, TypeError) as error:
        raise CwjaxError(f"{directory / CONFIG_FILE}: does not name what it is joined with; fetch it again") from error
    tensors = open_tensors(directory)
    for path in tensors.shapes:
        if "/context_" not in path:
            raise CwjaxError(f"{tensors.place}: parameter {path} has no place in an adapter; fetch it again")

    def read() -> NamedArrays:
        return require_weights(((path, tensors.read(path)) for path in tensors.shapes), str(directory))

    return config, parts, read


def checked(named: NamedArrays, part: Part, adapter: Path) -> NamedArrays:
    """Passes all weights on, and refuses them at the end if they are not those that the adapter was trained with."""
    digests = []
    for path, array in named:
        digests.append(_digest(path, array))
        yield path, array
    if _together(digests) != part.sha256:
        raise CwjaxError(
            f"{adapter}: was trained with other weights than those of {part.source}; name the same version of it"
        )


def _prefixed(named: NamedArrays) -> NamedArrays:
    return ((TEXT_ENCODER + path, array) for path, array in named)
