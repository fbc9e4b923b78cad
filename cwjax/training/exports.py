"""Models written while training goes on: `exports/step-N` in the run's directory, each a whole model directory."""

import collections
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from cwjax.config import Config
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.windows import TrainingWindows
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.lora import merge_lora, pairs_beside
from cwjax.models.parameters import Parameters, flatten, merge, unflatten
from cwjax.processes import is_first
from cwjax.training.parts import ModelParts, initial_parameters
from cwjax.training.sharding import gather
from cwjax.weights.model_directory import save_model
from cwjax.weights.name_table import NamedArrays

log = logging.getLogger(__name__)

FOLDER = "exports"


def model_facts(
    config: Config,
    parts: ModelParts,
    counts: dict[str, int],
    windows: TrainingWindows,
    step: int,
) -> dict[str, Any]:
    """How a model came to be that was trained for so many steps."""
    return {
        **parts.facts,
        **counts,
        "corpus": config.data.corpus,
        "frozen": list(config.freeze),
        "steps": step,
        "training_hours": round(windows.seconds / 3600, 3),
        "training_utterances": windows.count,
    }


def write_export(
    workdir: Path,
    step: int,
    kept: int,
    model: ContextWhisperConfig,
    arrays: NamedArrays,
    processor: Processor,
    facts: dict[str, Any],
) -> None:
    """Writes the model of a step, whole or not at all; one that is there already is replaced. All processes must call.

    Args:
        workdir: of the run.
        step: after which.
        kept: latest exports that stay; 0: all.
        model: sizes.
        arrays: all parameters, which every process must take.
        processor: tokenizers and audio settings.
        facts: how the model came to be.

    Raises:
        CwjaxError: the disk is full or the directory cannot be written.
    """
    folder = workdir / FOLDER
    if is_first():
        for leftover in folder.glob(".step-*.cwjax-partial"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        save_model(folder / f"step-{step}", model, arrays, processor, facts)
        log.info("model of step %d written to %s", step, folder / f"step-{step}")
        steps = sorted(int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdecimal())
        for old in steps[:-kept] if kept else ():
            shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    collections.deque(arrays, maxlen=0)


def exact_arrays(
    parts: ModelParts,
    model: ContextWhisperConfig,
    trainable: Parameters,
    frozen: Parameters,
    exact: Parameters,
    scale: float,
    seed: int,
) -> NamedArrays:
    """All parameters of the model in float32, one at a time on the host. Frozen ones that are in use rounded are read
    from where they came from once more, and take no memory of a device.

    Args:
        parts: of the model.
        model: sizes.
        trainable, frozen: in use; LoRA's pairs are merged.
        exact: shapes and shardings of the model's frozen ones in float32.
        scale: of the pairs' products.
        seed: of those that are new.
    """
    in_use = dict(flatten(merge(trainable, frozen)))
    rounded = {path: leaf for path, leaf in flatten(exact) if in_use[path].dtype != np.float32}
    in_use = {path: leaf for path, leaf in in_use.items() if path not in rounded}
    pairs = dict(gather(unflatten({path: in_use.pop(path) for path in pairs_beside(in_use, rounded)})))
    yield from gather(merge_lora(unflatten(in_use), scale))

    def merged(path: str, kernel: np.ndarray) -> np.ndarray:
        beside = {one: pairs[one] for one in pairs_beside(pairs, [path])}
        return np.asarray(dict(flatten(merge_lora(unflatten({path: kernel, **beside}), scale)))[path], np.float32)

    for path, array in parts.read() if rounded else ():
        if rounded.pop(path, None):
            yield path, merged(path, np.asarray(array, np.float32))
    if rounded:  # new, and not trained either
        for path, array in gather(initial_parameters(parts, model, unflatten(rounded), seed)):
            yield path, merged(path, array)
