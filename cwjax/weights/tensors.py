"""Tensors on disk: read one at a time from every common kind of checkpoint, written in shards of safetensors."""

import json
import math
import mmap
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cwjax.errors import CwjaxError

SAFETENSORS_FILE = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PYTORCH_FILE = "pytorch_model.bin"
PYTORCH_INDEX = "pytorch_model.bin.index.json"

SHARD_BYTES = 2**30
"""Tensors beyond this many bytes go into another file, so that as many are in memory at most while writing."""

SAFETENSORS_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""NumPy's names of the types a checkpoint may hold (safetensors' format, header field `dtype`)."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint, read when asked for.

    Attributes:
        place: the file or directory, for messages.
        shapes: of every tensor, by name.
        read: gives a tensor in the dtype it has on disk.
    """

    place: Path
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]

    def renamed(self, rename: Callable[[str], str | None]) -> "Tensors":
        """The same tensors under other names; those without (None) are left out."""
        names = {new: old for old in self.shapes if (new := rename(old)) is not None}
        return Tensors(
            self.place, {new: self.shapes[old] for new, old in names.items()}, lambda new: self.read(names[new])
        )


def tensors_in_memory(tensors: Mapping[str, np.ndarray], place: str | Path = "the checkpoint") -> Tensors:
    """Arrays as `Tensors`."""
    return Tensors(Path(place), {name: tensor.shape for name, tensor in tensors.items()}, lambda name: tensors[name])


def open_tensors(directory: str | Path) -> Tensors:
    """The tensors of a Hugging Face checkpoint: one safetensors file, shards with an index, or PyTorch's pickles.

    Raises:
        CwjaxError: there are none, a shard is missing, or a file is damaged; for pickles also if torch is missing.
    """
    directory = Path(directory)
    readers = {
        SAFETENSORS_FILE: open_safetensors,
        SAFETENSORS_INDEX: lambda file: _open_shards(file, open_safetensors),
        PYTORCH_FILE: open_pickle,
        PYTORCH_INDEX: lambda file: _open_shards(file, open_pickle),
    }
    for name, reader in readers.items():
        if (directory / name).is_file():
            return _unwrapped(reader(directory / name))
    raise CwjaxError(f"{directory}: holds no weights ({', '.join(readers)}); name the directory of a whole checkpoint")


def open_pickle(file: str | Path) -> Tensors:
    """The tensors of a PyTorch state dict.

    Raises:
        CwjaxError: torch is missing, or the file is damaged or holds more than tensors.
    """
    file = Path(file)
    return pickled_tensors(file, load_pickle(file))


def pickled_tensors(file: Path, state: Any) -> Tensors:
    """A state dict of PyTorch tensors as `Tensors`; `file` is where it came from."""
    for name in ("state_dict", "model_state_dict", "model"):  # training programs put other things beside it
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(hasattr(tensor, "detach") for tensor in state.values()):
        raise CwjaxError(f"{file}: is no state dict (names and tensors alone); save the model's state_dict()")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return _unwrapped(Tensors(file, shapes, lambda name: _to_numpy(state[name])))


def _unwrapped(tensors: Tensors) -> Tensors:
    """Without what DataParallel (`module.`) and torch.compile (`_orig_mod.`) put into names."""

    def plain(name: str) -> str:
        return re.sub(r"(?<![^.])(module|_orig_mod)\.", "", name)

    return tensors.renamed(plain) if len({*map(plain, tensors.shapes)}) == len(tensors.shapes) else tensors


def load_pickle(file: Path) -> Any:
    """What a file of PyTorch holds, tensors left on disk until they are used. Runs no code of the file's.

    Raises:
        CwjaxError: torch is missing, or the file is damaged or holds other things than tensors and plain values.
    """
    try:
        import torch
    except ImportError as error:
        raise CwjaxError(
            f"{file}: is a pickle of PyTorch, which only torch reads; pip install torch, or get the checkpoint as "
            f"{SAFETENSORS_FILE} (on the hub, most models have it in their main or a 'refs/pr' branch)"
        ) from error
    if not file.is_file():
        raise CwjaxError(f"{file}: no such file")
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before PyTorch 1.6 cannot be mapped
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if held := re.search(r"GLOBAL (\S+)", str(error)):
            raise CwjaxError(
                f"{file}: holds more than tensors ({held[1]}), which is not read, for it might run code; save the "
                "model's state_dict() alone"
            ) from error
        reason = (str(error).partition("WeightsUnpickler error: ")[2] or str(error)).strip().splitlines()
        raise CwjaxError(
            f"{file}: is damaged, cut short or no file of PyTorch's ({(reason or [type(error).__name__])[0][:200]}); "
            "fetch it again"
        ) from error


def write_tensors(
    directory: Path, tensors: Iterable[tuple[str, np.ndarray]], metadata: dict[str, str], shard_bytes: int = SHARD_BYTES
) -> int:
    """Writes tensors as they come: one safetensors file, or if they are many, shards with an index.

    Args:
        directory: to write into.
        tensors: names and arrays, consumed once.
        metadata: for the files' headers.
        shard_bytes: size from which another file is begun.

    Returns:
        The bytes of all tensors.

    Raises:
        OSError, SafetensorError: the disk is full or the directory cannot be written.
    """
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    size = total = 0

    def flush() -> None:
        shards.append(list(held))
        file = directory / _draft(len(shards))
        file.touch()
        mode = file.stat().st_mode
        save_file(held, file, metadata=metadata)  # which nobody else may read
        file.chmod(mode)
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > shard_bytes:
            flush()
            size = 0
        held[name] = np.ascontiguousarray(tensor)
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (directory / _draft(1)).rename(directory / SAFETENSORS_FILE)
        return total
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for number, file in enumerate(files, 1):
        (directory / _draft(number)).rename(directory / file)
    weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / SAFETENSORS_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return total


def _draft(number: int) -> str:
    return f"shard-{number}.partial"


def open_safetensors(file: Path) -> Tensors:
    """The tensors of a safetensors file. Raises CwjaxError if it is damaged."""
    # safetensors checks the file; its tensors are then views of the mapped file, copied only where they are used.
    try:
        with safe_open(file, "numpy"), open(file, "rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(header_bytes))
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, SafetensorError) as error:
        _damaged(file, error)
    header.pop("__metadata__", None)

    def read(name: str) -> np.ndarray:
        entry = header[name]
        if entry["dtype"] not in SAFETENSORS_DTYPES:
            raise CwjaxError(f"{file}: tensor '{name}' is of the unknown type {entry['dtype']}; fetch it in float32")
        dtype, shape = np.dtype(SAFETENSORS_DTYPES[entry["dtype"]]), entry["shape"]
        start = 8 + header_bytes + entry["data_offsets"][0]
        return np.frombuffer(mapped, dtype, math.prod(shape), start).reshape(shape)

    return Tensors(file, {name: tuple(entry["shape"]) for name, entry in header.items()}, read)


def _damaged(file: Path, error: Exception) -> NoReturn:
    raise CwjaxError(f"{file}: is damaged or cut short ({error}); fetch it again") from error


def _open_shards(index: Path, reader: Callable[[Path], Tensors]) -> Tensors:
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = dict(files.items())
        if strange := [file for file in names.values() if not isinstance(file, str) or Path(file).name != file]:
            raise ValueError(f"{strange[0]!r} is no name of a file beside it")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CwjaxError(f"{index}: is no readable index of shards ({error}); fetch it again") from error
    shards: dict[str, Tensors] = {}
    for file in sorted(set(names.values())):
        if not (index.parent / file).is_file():
            raise CwjaxError(f"{index.parent / file}: is missing, though {index.name} names it; fetch the shard again")
        shards[file] = reader(index.parent / file)
    lost = [name for name, file in names.items() if name not in shards[file].shapes]
    if lost:
        raise CwjaxError(
            f"{index.parent / names[lost[0]]}: lacks the tensor '{lost[0]}', which {index.name} puts there; "
            "fetch it again"
        )
    return Tensors(
        index.parent,
        {name: shards[file].shapes[name] for name, file in names.items()},
        lambda name: shards[names[name]].read(name),
    )


def _to_numpy(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
