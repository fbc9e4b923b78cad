"""What a frozen audio encoder makes of a spotter's training speech, computed once and kept in half precision."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.files import read_json, write_text
from cwjax.spotting.speech import Sentence, SpeechSettings, Split, make_window

log = logging.getLogger(__name__)

SHARD = 20
"""Windows in a file."""

SETTINGS_FILE = "speech.json"

Encoder = Callable[[list[np.ndarray]], np.ndarray]
"""From windows of samples, each (n,) float32, to states (B, A, W)."""


@dataclasses.dataclass(frozen=True)
class EncodedWindow:
    """States (A, W) float16, mapped from disk, and the sentences said."""

    states: np.ndarray
    sentences: tuple[Sentence, ...]


def encoded_windows(
    folder: Path,
    split: Split,
    settings: SpeechSettings,
    seconds: float,
    seed: int,
    encoder: Encoder,
    encoder_sha256: str,
) -> list[EncodedWindow]:
    """All windows of a split; those that the folder lacks are spoken and encoded.

    Raises:
        CwjaxError: the folder is another encoder's or of other settings, or cannot be written; or no voice speaks.
    """
    count = getattr(settings, f"{split}_windows")
    shards = [folder / f"{split}-{first // SHARD:04d}" for first in range(0, count, SHARD)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"seconds": seconds, "seed": seed, "encoder_sha256": encoder_sha256}
        require_same_settings(folder, settings, **facts)
        missing = [number for number, shard in enumerate(shards) if not shard.with_suffix(".json").is_file()]
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:

            def speak(number: int) -> list:
                names = range(number * SHARD, min((number + 1) * SHARD, count))
                return [pool.submit(make_window, settings, split, seconds, f"{seed} {name}") for name in names]

            ahead = speak(missing[0]) if missing else []
            for done, number in enumerate(missing, 1):
                windows = [future.result() for future in ahead]
                ahead = speak(missing[done]) if done < len(missing) else []
                _write_shard(shards[number], windows, encoder)
                left = (time.monotonic() - began) / done * (len(missing) - done)
                log.info("%s: encoded %d of %d windows, %.0f min left", split, (number + 1) * SHARD, count, left / 60)
        return [window for shard in shards for window in _read_shard(shard)]
    except OSError as error:
        raise CwjaxError(f"{folder}: cannot keep states ({error}); free some space or name another folder") from error


def require_same_settings(folder: Path, settings: SpeechSettings, **facts: Any) -> None:
    """Refuses a folder of other speech. Two runs may differ in how much is spoken: a window depends on its number.

    Raises:
        CwjaxError: the folder's speech was made with other settings, or from other facts.
    """
    facts = {**dataclasses.asdict(settings), **facts}
    facts = {name: value for name, value in json.loads(json.dumps(facts)).items() if not name.endswith("_windows")}
    file = folder / SETTINGS_FILE
    if not file.exists():
        write_text(file, json.dumps(facts, indent=1))
    elif differing := [name for name, value in read_json(file).items() if facts.get(name) != value]:
        raise CwjaxError(f"{folder}: holds speech made with other settings ({', '.join(differing)}); name a new folder")


def _write_shard(shard: Path, windows: list, encoder: Encoder) -> None:
    states = np.concatenate(
        [encoder([window.samples for window in windows[at : at + 4]]) for at in range(0, len(windows), 4)]
    )
    aside = shard.with_suffix(".partial")
    with aside.open("wb") as file:
        np.save(file, states.astype(np.float16))
    aside.replace(shard.with_suffix(".npy"))
    said = [[dataclasses.asdict(sentence) for sentence in window.sentences] for window in windows]
    write_text(shard.with_suffix(".json"), json.dumps(said, ensure_ascii=False))


def _read_shard(shard: Path) -> Iterator[EncodedWindow]:
    try:
        states = np.load(shard.with_suffix(".npy"), mmap_mode="r")
        said = json.loads(shard.with_suffix(".json").read_text(encoding="utf-8"))
        for rows, sentences in zip(states, said, strict=True):
            kept = [Sentence(**{**sentence, "phrases": tuple(sentence["phrases"])}) for sentence in sentences]
            yield EncodedWindow(rows, tuple(kept))
    except (ValueError, TypeError, KeyError) as error:
        raise CwjaxError(f"{shard}: is damaged ({error}); delete it and its .json to have it made again") from error
