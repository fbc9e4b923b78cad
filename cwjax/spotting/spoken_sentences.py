"""Sentences of a phrase spotter's training, each spoken once and kept, from which windows are mixed again and again."""

import json
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.errors import CwjaxError
from cwjax.files import write_text
from cwjax.spotting.speech import Piper, SpeechSettings, make_sentence, speak
from cwjax.spotting.states import require_same_settings

log = logging.getLogger(__name__)

SHARD = 50
"""Sentences in a file."""
LONGEST = 14.0
"""Seconds of a sentence; longer ones are left out."""
PAUSE = 0.1
"""Seconds between the sentences of a file."""
LOUDEST = 0.5
"""Of every sentence."""


@dataclass(frozen=True)
class SpokenSentence:
    """What is said, the rare words and names in it, and where it lies among the samples of all."""

    text: str
    phrases: tuple[str, ...]
    voice: str
    first: int
    length: int


@dataclass(frozen=True)
class SpokenSentences:
    """Sentences, and their samples one after the other, (n,) int16 at 16 kHz."""

    samples: np.ndarray
    sentences: tuple[SpokenSentence, ...]


def spoken_sentences(folder: Path, settings: SpeechSettings, count: int, seed: int) -> SpokenSentences:
    """Sentences by the voices of training, in whole files; those that the folder lacks are spoken.

    Raises:
        CwjaxError: the folder holds sentences of other settings, or cannot be written; or no voice speaks.
    """
    shards = [folder / f"sentences-{number:04d}" for number in range(-(-count // SHARD))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_same_settings(folder, settings, seed=seed)
        missing = [number for number, shard in enumerate(shards) if not shard.with_suffix(".json").is_file()]
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            spoken = pool.map(lambda number: _speak_shard(shards[number], settings, f"{seed} {number}"), missing)
            for done, _ in enumerate(spoken, 1):
                left = (time.monotonic() - began) / done * (len(missing) - done)
                log.info("spoke %d of %d files of sentences, %.0f min left", done, len(missing), left / 60)
        return _read_shards(shards)
    except OSError as error:
        raise CwjaxError(f"{folder}: cannot keep speech ({error}); free some space or name another folder") from error


def _speak_shard(shard: Path, settings: SpeechSettings, seed: str) -> None:
    chance = random.Random(f"sentences {seed}")
    piper = cache(lambda file: Piper(Path(file), chance.getrandbits(31)))
    parts, said, first = [], [], 0
    pause = np.zeros(round(PAUSE * SAMPLING_RATE), np.float32)
    while len(said) < SHARD:
        text, phrases = make_sentence(settings, "train", chance)
        try:
            samples, voice = speak(text, settings, "train", chance, piper)
        except CwjaxError as error:
            if "says nothing" not in str(error):
                raise
            continue
        if len(samples) > LONGEST * SAMPLING_RATE:
            continue
        parts += [samples * np.float32(LOUDEST / max(1e-4, np.abs(samples).max())), pause]
        said.append({"text": text, "phrases": phrases, "voice": voice, "first": first, "length": len(samples)})
        first += len(samples) + len(pause)
    aside = shard.with_suffix(".partial")
    soundfile.write(aside, np.concatenate(parts), SAMPLING_RATE, format="FLAC")
    aside.replace(shard.with_suffix(".flac"))
    write_text(shard.with_suffix(".json"), json.dumps(said, ensure_ascii=False))


def _read_shards(shards: list[Path]) -> SpokenSentences:
    parts: list[np.ndarray] = []
    sentences: list[SpokenSentence] = []
    before = 0
    for shard in shards:
        try:
            samples, _ = soundfile.read(shard.with_suffix(".flac"), dtype="int16")
            for one in json.loads(shard.with_suffix(".json").read_text(encoding="utf-8")):
                place = {"phrases": tuple(one["phrases"]), "first": before + one["first"]}
                sentences.append(SpokenSentence(**{**one, **place}))
        except (ValueError, TypeError, KeyError, soundfile.LibsndfileError) as error:
            raise CwjaxError(f"{shard}: is damaged ({error}); delete it and its .json to have it made again") from error
        parts.append(samples)
        before += len(samples)
    return SpokenSentences(np.concatenate(parts), tuple(sentences))
