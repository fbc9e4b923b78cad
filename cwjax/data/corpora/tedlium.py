"""TED-LIUM 3 (Hernandez et al. 2018), and releases 1 and 2: talks with times of their utterances.

`TEDLIUM_release-3/legacy/{train,dev,test}/` (earlier releases have no `legacy`) hold `sph/TALK.sph` and `stm/TALK.stm`,
lines `TALK 1 SPEAKER START END <LABELS> words`. All that is known about a talk is who gives it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.telephone import read_lines
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "TED-LIUM (legacy/{train,dev,test}/sph and stm)"
LICENCE = "CC BY-NC-ND 3.0"
SOURCE = "https://www.openslr.org/51"
SPLITS = {"train": "train", "dev": "validation", "test": "test"}

_LINE = re.compile(r"\S+\s+\d+\s+(\S+)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+(?:<[^<>]*>\s*)?(.*)")
_NOT_SAID = re.compile(r"\{[^{}]*\}|<[^<>]*>|\(\d+\)")
_SPACED = re.compile(r" (?='(?:s|m|re|ve|ll|d|t|em|cause)\b)")
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def looks_like(root: Path) -> bool:
    """Whether there is a transcript."""
    return next(_transcripts(root), None) is not None


def _transcripts(root: Path) -> Iterator[Path]:
    """Of the first folder that holds the splits: release 3 has talks in others again."""
    for base in ("", "legacy", "TEDLIUM_release*/legacy", "TEDLIUM_release*"):
        found = [
            path for split in SPLITS for path in sorted(root.glob("/".join(filter(None, (base, split, "stm/*.stm")))))
        ]
        if found:
            return iter(found)
    return iter(())


def articles(root: Path) -> Iterator[Unit]:
    """Every talk."""
    for path in _transcripts(root):
        audio = path.parent.parent / "sph" / f"{path.stem}.sph"
        yield Unit(path.relative_to(root).as_posix(), (audio.relative_to(root).as_posix(),))


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of a talk's utterances; after what the transcript passes over, nothing is known to be said before.

    Raises CwjaxError if the transcript cannot be read or the audio is missing.
    """
    path = root / unit.name
    talk, subset = path.stem, path.parent.parent.name
    speaker = talk.partition("_")[0]
    context = ContextMaterial(title=_CAPITAL.sub(" ", speaker))
    utterances: list[ListedUtterance] = []
    problems: list[str] = []
    is_gap = False
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = _LINE.fullmatch(line.strip())
        if not fields:
            problems.append(f"{path}:{number}: is no line TALK CHANNEL SPEAKER START END <LABELS> WORDS: {line[:60]!r}")
            continue
        text = clean(fields[4])
        if not text or text == "ignore_time_segment_in_scoring":
            is_gap = True
            continue
        start, end = float(fields[2]), float(fields[3])
        name = f"{talk}-{round(start * 100):07d}-{round(end * 100):07d}"
        one = ListedUtterance(name, unit.audio[0], start, end, text, speaker, context=context, gap_before=is_gap)
        utterances.append(one)
        is_gap = False
    if not utterances:
        raise CwjaxError(f"{path}: holds no utterance")
    article = ListedArticle(
        talk, utterances, "en", LICENCE, SOURCE, SPLITS[subset], subset, reader=context.title, finds_previous=True
    )
    return as_reading(root, article, limits, problems)


def clean(words: str) -> str:
    """What was said: no noises, unknown words or numbers of pronunciations, and "i 'm" as "i'm"."""
    return _SPACED.sub("", " ".join(_NOT_SAID.sub(" ", words).split()))
