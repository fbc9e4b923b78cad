"""How much audio a corpus holds, and how it is shared out among shards; nothing is decoded for it."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cwjax.data.audio.decode import audio_duration
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.audio.members import sound_size
from cwjax.data.corpora.reader import Unit
from cwjax.data.corpora.registry import CorpusName, reader
from cwjax.data.prepared.index import AudioFormat
from cwjax.data.prepared.shards import corpus_folder
from cwjax.errors import CwjaxError

SHARDS = 64
"""Of a corpus that is not so large that shards would be longer than `LONGEST_SHARD`."""
SHORTEST_SHARD, LONGEST_SHARD = 600, 7200
"""Seconds of the corpus's audio that make a shard."""
FLAC_SHARE = 0.65
"""Size of speech as FLAC, of its size as 16-bit samples; silence and bad microphones make it vary."""
TEXT_SHARE = 0.1
"""Size of texts and index, of the audio's; those that are being put together among them."""

_SAMPLED_FILES = 32


@dataclass(frozen=True)
class Survey:
    """How much there is to do: units, bytes of audio files, and an estimate of their seconds."""

    units: int
    size: int
    seconds: float


def survey_corpus(corpus: CorpusName, root: Path) -> Survey:
    """Counts a corpus, and measures some of its audio files.

    Raises CwjaxError as the corpus's reader does.
    """
    units, size = 0, 0
    sample: list[tuple[Path, int]] = []
    files = 0
    for unit in reader(corpus).articles(root):
        units += 1
        for path, length in _sizes(root, unit.audio):
            size += length
            # One in 1, 2, 4, ... files, so that a sample from the whole corpus is kept.
            if files % (1 << max(0, (files // _SAMPLED_FILES).bit_length() - 1)) == 0:
                sample.append((path, length))
            files += 1
    seconds = sampled = 0.0
    for path, length in sample[:: max(1, len(sample) // _SAMPLED_FILES)]:
        with contextlib.suppress(CwjaxError):
            seconds += audio_duration(path)
            sampled += length
    return Survey(units, size, size * seconds / sampled if sampled else 0.0)


def _sizes(root: Path, audio: Iterable[str]) -> Iterator[tuple[Path, int]]:
    """The audio files that exist, with their sizes."""
    for name in audio:
        with contextlib.suppress(OSError, ValueError, CwjaxError):
            yield root / name, sound_size(root / name)


def grouped(corpus: CorpusName, root: Path, survey: Survey) -> Iterator[tuple[Unit, ...]]:
    """Consecutive units that make a shard each; the same at every call."""
    wanted = min(LONGEST_SHARD, max(SHORTEST_SHARD, survey.seconds / SHARDS))
    limit = wanted / survey.seconds * survey.size if survey.seconds else float("inf")
    group, size = [], 0
    for unit in reader(corpus).articles(root):
        group.append(unit)
        size += sum(length for _, length in _sizes(root, unit.audio))
        if size >= limit:
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)


def require_room(aside: Path, survey: Survey, audio: AudioFormat) -> None:
    """Refuses to begin what cannot be finished.

    Args:
        aside: where the shards are to be written, and where some may be already.
        survey: of the corpus.
        audio: form of the records.

    Raises:
        CwjaxError: the disk is too small.
    """
    written = sum(path.stat().st_size for path in corpus_folder(aside).glob("shards/*.tar"))
    share = (FLAC_SHARE if audio == "flac" else 1) + TEXT_SHARE
    needed = survey.seconds * SAMPLING_RATE * 2 * share - written
    free = shutil.disk_usage(aside).free
    if needed > free:
        raise CwjaxError(
            f"{aside.parent}: about {needed / 1e9:.1f} GB are needed for {survey.seconds / 3600:.1f} hours of audio, "
            f"but only {free / 1e9:.1f} GB are free; make room, name another output"
            + ("" if audio == "flac" else ", or keep the audio as FLAC (--audio flac)")
        )
