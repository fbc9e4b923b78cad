"""Phrase spotters on disk: one file of safetensors each, which says whose audio encoder's states it understands.

The package carries those of some published Whispers, with a card each, in `spotters/`.
"""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import ml_dtypes
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cwjax.errors import CwjaxError
from cwjax.models.configuration import configured
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig

if TYPE_CHECKING:
    from cwjax.model import Model

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).with_name("spotters")

SPOTTER_FILE = "spotter.safetensors"
"""Its name in a model directory or an adapter."""

_KIND = "cwjax phrase spotter 1"


def encoder_sha256(parameters: Parameters) -> str:
    """A hash of an audio encoder, equal for whatever format and precision it was loaded in.

    Every weight is rounded to bfloat16: published Whispers are float16 whatever file they lie in, and a model may
    compute in bfloat16. Positions are left out, for they are calculated, and context attention, which the states
    that a spotter hears have not met.
    """
    digest = hashlib.sha256()
    for path, leaf in flatten(parameters["audio_encoder"]):
        if path != "positions" and "context_" not in path:
            rounded = np.asarray(leaf).astype(ml_dtypes.bfloat16)
            digest.update(f"{path} {rounded.shape}\n".encode() + rounded.tobytes())
    return digest.hexdigest()


def load_spotter(model: "Model", file: str | Path | None = None) -> PhraseSpotter | None:
    """The spotter that belongs to a model's audio encoder.

    Args:
        model: a stock Whisper or one of ours.
        file: of a spotter that was trained for it; None: that in its directory, or else one that the package carries.

    Returns:
        The spotter; None if the package carries none for this audio encoder, or only a damaged one, with a warning.

    Raises:
        CwjaxError: the file is damaged, missing, or another audio encoder's.
    """
    width = model.config.whisper.d_model
    ours = ""
    beside = model.source.place / SPOTTER_FILE
    for one in (
        [Path(file)] if file else [*([beside] if beside.is_file() else []), *sorted(SHIPPED.glob("*.safetensors"))]
    ):
        try:
            config, sha256 = _header(one)
            if config.audio_width == width and sha256 == (ours := ours or encoder_sha256(model.params)):
                return _read(one, config)
        except CwjaxError as error:
            if file:
                raise
            log.warning("%s", error)  # what needs no phrases goes on without
    if file:
        raise CwjaxError(
            f"{file}: this phrase spotter belongs to another audio encoder than that of {model.source.place}; "
            "train one for it with launch/train_spotter.py"
        )
    return None


def save_spotter(spotter: PhraseSpotter, file: Path, encoder_sha256: str, facts: dict[str, Any]) -> None:
    """Writes a spotter in half precision, aside, and renames it.

    Raises:
        CwjaxError: it cannot be written.
    """
    leaves = {path: np.asarray(leaf, np.float16) for path, leaf in flatten(_named(nnx.state(spotter)))}
    metadata = {
        "kind": _KIND,
        "config": json.dumps(dataclasses.asdict(spotter.config)),
        "encoder_sha256": encoder_sha256,
        "facts": json.dumps(facts, ensure_ascii=False),
    }
    aside = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(leaves, aside, metadata=metadata)
        aside.chmod(0o644)
        aside.replace(file)
    except (OSError, SafetensorError) as error:
        raise CwjaxError(f"{file}: cannot be written ({error}); free some space or name another file") from error
    finally:
        aside.unlink(missing_ok=True)


def _named(state: nnx.State) -> Parameters:
    """Parameters under names alone: the modules of a list have numbers."""

    def name(tree: Any) -> Any:
        return {str(key): name(value) for key, value in tree.items()} if isinstance(tree, dict) else tree

    return name(nnx.to_pure_dict(state))


def _header(file: Path) -> tuple[SpotterConfig, str]:
    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
        if metadata.get("kind") != _KIND:
            raise CwjaxError(
                f"{file}: is no phrase spotter of this version of cwjax; train one with launch/train_spotter.py"
            )
        return configured(SpotterConfig, json.loads(metadata["config"]), str(file)), metadata["encoder_sha256"]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _damaged(file, error) from error


def _read(file: Path, config: SpotterConfig) -> PhraseSpotter:
    graphdef, state = nnx.split(nnx.eval_shape(lambda: PhraseSpotter(config, key=jax.random.key(0))))
    try:
        with safe_open(file, "numpy") as opened:
            leaves = {path: opened.get_tensor(path).astype(np.float32) for path in opened.keys()}  # noqa: SIM118
        shapes = {path: leaf.shape for path, leaf in flatten(_named(state))}
        if shapes != {path: leaf.shape for path, leaf in leaves.items()}:
            raise ValueError("its tensors do not fit its configuration")
        if not all(np.isfinite(leaf).all() for leaf in leaves.values()):
            raise ValueError("it holds numbers that are not finite")
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(file, error) from error
    nnx.replace_by_pure_dict(state, nnx.statelib.restore_int_paths(jax.device_put(unflatten(leaves))))
    return nnx.merge(graphdef, state)


def _damaged(file: Path, error: Exception) -> CwjaxError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return CwjaxError(f"{file}: is missing or damaged ({reason}); install cwjax again, or train the spotter again")
