"""LoRA adapters of Whisper in PEFT's layout, `adapter_config.json` beside `adapter_model.safetensors`: read and merged
into the Whisper that they adapt, and written.

PEFT adds lora_alpha / r * B @ A to a layer's weight, A (r, in) and B (out, r).
"""

import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.files import read_json, write_json
from cwjax.models.lora import KERNEL, LORA_A, LORA_B, LoraSettings
from cwjax.weights.name_table import LINEAR, LINEAR_WITHOUT_BIAS, Leaf, NamedArrays, Table, extract
from cwjax.weights.sources import fetch, public_name
from cwjax.weights.tensors import SAFETENSORS_FILE, open_pickle, open_safetensors, write_tensors
from cwjax.weights.whisper_checkpoints import HUGGING_FACE_TABLE

log = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE, ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"

_PREFIX = "base_model.model.model."
_PAIR = (Leaf("lora_A.weight", LORA_A, (1, 0)), Leaf("lora_B.weight", LORA_B, (1, 0)))
PAIR_TABLE: Table = {
    _PREFIX + theirs: (ours, _PAIR)
    for theirs, (ours, leaves) in HUGGING_FACE_TABLE.items()
    if leaves in (LINEAR, LINEAR_WITHOUT_BIAS)
}
"""Of the adapter of a WhisperForConditionalGeneration."""
PEFT_PATHS = {f"{ours}/{leaf.ours}": theirs for theirs, (ours, leaves) in PAIR_TABLE.items() for leaf in leaves}
"""Our paths of the pairs that it has a place for, and its names of their modules."""

_TENSOR = re.compile(r"base_model\.model\.(?:model\.)?((?:encoder|decoder)\.layers\.(\d+)\..+)\.lora_(A|B)\.weight")
_UNSUPPORTED = (
    "use_dora", "use_qalora", "lora_bias", "modules_to_save", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "use_bdlora", "arrow_config", "velora_config",
    "monteclora_config", "kasa_config",
)  # fmt: skip
"""Settings of PEFT's with which an adapter is more than pairs of matrices that are added."""
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the weights under the adapter, which is no use without them."""


class Pair(NamedTuple):
    """What is added to one layer's kernel: scale * A @ B; `name` is PEFT's, for messages."""

    name: str
    a: np.ndarray
    b: np.ndarray
    scale: float


class Adapter(NamedTuple):
    """An adapter on disk: its pairs by path of our kernel and number of the layer."""

    place: Path
    pairs: dict[str, dict[int, Pair]]


def adapted(read: Callable[[], NamedArrays], source: str) -> Callable[[], NamedArrays]:
    """Gives what `read` does with an adapter merged into it; without a source, the same.

    Raises:
        CwjaxError: as `open_adapter`; when it is read, as `merged`.
    """
    if not source:
        return read
    adapter = open_adapter(source)
    return lambda: merged(read(), adapter)


def open_adapter(source: str) -> Adapter:
    """Reads an adapter, a directory or hub id.

    Raises:
        CwjaxError: it is none of Whisper's, damaged, or of a kind that cannot be merged.
    """
    place = Path(source)
    if not place.exists():
        if source.startswith((".", "/", "~")) or source.count("/") != 1:
            raise CwjaxError(f"{source}: no such directory, and no hub id of an adapter (those read OWNER/NAME)")
        place = fetch(source, [ADAPTER_CONFIG, ADAPTER_FILE], f"{source}:")
        if not (place / ADAPTER_FILE).is_file():
            fetch(source, [ADAPTER_PICKLE], f"{source}:")
    file, pickle = place / ADAPTER_FILE, place / ADAPTER_PICKLE
    if not (place / ADAPTER_CONFIG).is_file() or not (file.is_file() or pickle.is_file()):
        raise CwjaxError(f"{place}: is no adapter of PEFT's, which is {ADAPTER_CONFIG} beside {ADAPTER_FILE}")
    settings = read_json(place / ADAPTER_CONFIG)
    _require_supported(place / ADAPTER_CONFIG, settings)
    tensors = open_safetensors(file) if file.is_file() else open_pickle(pickle)
    kernels = {theirs.removeprefix(_PREFIX): ours for theirs, (ours, _) in PAIR_TABLE.items()}
    halves: dict[str, dict[str, np.ndarray]] = {}
    places: dict[str, tuple[str, int]] = {}
    for name in tensors.shapes:
        match = _TENSOR.fullmatch(name)
        path = kernels.get(match[1].replace(f".{match[2]}.", ".#.", 1)) if match else None
        if path is None:
            raise CwjaxError(
                f"{tensors.place}: tensor '{name}' belongs to no linear map in Whisper's blocks; others are not "
                "supported: merge the adapter with PEFT (merge_and_unload), and convert the result"
            )
        halves.setdefault(match[1], {})[match[3]] = tensors.read(name).astype(np.float64).T
        places[match[1]] = (f"{path}/{KERNEL}", int(match[2]))
    pairs: dict[str, dict[int, Pair]] = {}
    for name, half in halves.items():
        rank, scale = _rank_and_scale(place / ADAPTER_CONFIG, settings, f"model.{name}")
        if (
            half.keys() != {"A", "B"}
            or not half["A"].ndim == half["B"].ndim == 2
            or {half["A"].shape[1], len(half["B"])} != {rank}
        ):
            raise CwjaxError(f"{tensors.place}: {name} has no pair of the rank {rank} that {ADAPTER_CONFIG} says")
        path, layer = places[name]
        pairs.setdefault(path, {})[layer] = Pair(name, half["A"], half["B"], scale)
    if not pairs:
        raise CwjaxError(f"{tensors.place}: holds no tensors; save the adapter again")
    return Adapter(place, pairs)


def merged(named: NamedArrays, adapter: Adapter) -> NamedArrays:
    """Passes parameters on, with the adapter's pairs added to their kernels in the dtypes that those have.

    Raises:
        CwjaxError: a pair has no kernel of its shape.
    """
    left = dict(adapter.pairs)
    for path, kernel in named:
        pairs = left.pop(path, {})
        if pairs:
            kernel = np.array(kernel)
        for layer, pair in pairs.items():
            shape = (len(pair.a), pair.b.shape[1])
            if layer >= len(kernel) or kernel.shape[1:] != shape:
                raise CwjaxError(
                    f"{adapter.place}: {pair.name} is {shape[0]} x {shape[1]}, where this Whisper has {len(kernel)} "
                    f"layers of {kernel.shape[1]} x {kernel.shape[2]}; use the Whisper that the adapter was trained on"
                )
            # In float64, so that all machines round to the same weights.
            kernel[layer] = (kernel[layer].astype(np.float64) + pair.scale * (pair.a @ pair.b)).astype(kernel.dtype)
        yield path, kernel
    if left:
        raise CwjaxError(f"{adapter.place}: adapts {', '.join(sorted(left)[:3])}, which this model does not have")


def write_adapter(directory: Path, pairs: Mapping[str, np.ndarray], lora: LoraSettings, base: str) -> None:
    """Writes pairs as PEFT reads them, into an empty directory.

    Args:
        directory: to write into.
        pairs: path -> array, of those that `PEFT_PATHS` names.
        lora: rank and alpha.
        base: the Whisper that they adapt, a directory or hub id.
    """
    write_tensors(directory, extract(pairs, PAIR_TABLE), {"format": "pt"}, sys.maxsize)
    (directory / SAFETENSORS_FILE).rename(directory / ADAPTER_FILE)
    modules = sorted({PEFT_PATHS[path].removeprefix(_PREFIX) for path in pairs})
    settings = {
        "peft_type": "LORA",
        "auto_mapping": {
            "base_model_class": "WhisperForConditionalGeneration",
            "parent_library": "transformers.models.whisper.modeling_whisper",
        },
        "base_model_name_or_path": public_name(base),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": "|".join(re.escape(f"model.{name}").replace(r"\#", r"\d+") for name in modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_json(directory / ADAPTER_CONFIG, settings)


def _require_supported(file: Path, settings: dict[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise CwjaxError(f"{file}: is of a {settings.get('peft_type')!r} adapter, and only those of LoRA are merged")
    used = [name for name in _UNSUPPORTED if settings.get(name)]
    used += ["bias"] if settings.get("bias", "none") != "none" else []
    start = settings.get("init_lora_weights")
    used += [f"init_lora_weights {start}"] if str(start).lower().startswith(_OTHER_BASES) else []
    if used:
        raise CwjaxError(
            f"{file}: uses {', '.join(used)}, which is not supported; merge the adapter with PEFT (merge_and_unload), "
            "and convert the result"
        )


def _rank_and_scale(file: Path, settings: dict[str, Any], module: str) -> tuple[int, float]:
    """Rank and factor of a module's pair. Patterns are regular expressions of the ends of names; the first counts."""

    def value(name: str, default: int, patterns: str) -> Any:
        given = settings.get(patterns) or {}
        of_module = next((given[one] for one in given if re.match(rf"(.*\.)?({one})$", module)), None)
        return settings.get(name, default) if of_module is None else of_module

    try:
        rank, alpha = value("r", 8, "rank_pattern"), value("lora_alpha", 8, "alpha_pattern")
        return int(rank), float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, re.error) as error:
        raise CwjaxError(f"{file}: r, lora_alpha or their patterns are no numbers ({error}); fetch it again") from error
