"""What a run leaves beside its model directory's own files: the LoRA adapter, for PEFT."""

import logging
from pathlib import Path

from cwjax.config import NEW, Config
from cwjax.models.lora import is_pair
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.weights.adapters import PEFT_PATHS, write_adapter
from cwjax.weights.model_directory import written_aside
from cwjax.weights.name_table import NamedArrays

log = logging.getLogger(__name__)

ADAPTER_FOLDER = "adapter"


def pairs_of(trainable: Parameters) -> Parameters:
    """LoRA's pairs alone."""
    return unflatten({path: leaf for path, leaf in flatten(trainable) if is_pair(path)})


def save_adapter(model: Path, pairs: NamedArrays, trainable: Parameters, config: Config) -> None:
    """Writes the pairs of a run to the folder `adapter` of its model directory, as PEFT reads them; of a run without
    pairs nothing. Says what of the run the adapter does not hold.

    Args:
        model: the model directory, in whose weights the pairs are merged.
        pairs: used one at a time.
        trainable: shapes of all that was trained.
        config: of the experiment.
    """
    held = {path: array for path, array in pairs if path in PEFT_PATHS}
    if not held:
        return
    folder, base = model / ADAPTER_FOLDER, config.model.start or config.model.whisper
    with written_aside(folder, replace=True) as aside:
        write_adapter(aside, held, config.lora, "" if base == NEW else base)
    if left_out := [path for path, _ in flatten(trainable) if path not in held]:
        log.info(
            "%s: holds the pairs of Whisper's own kernels; %d other arrays that were trained, such as %s, are in the "
            "model directory alone",
            folder,
            len(left_out),
            left_out[0],
        )
