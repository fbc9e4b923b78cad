"""LibriSpeech (Panayotov et al. 2015): chapters of audio books, an utterance a file.

`LibriSpeech/SUBSET/READER/CHAPTER/` holds `READER-CHAPTER-NNNN.flac` and `READER-CHAPTER.trans.txt`, a line
`READER-CHAPTER-NNNN TEXT` for each; `CHAPTERS.TXT` names chapters and books. The utterances were cut from the chapter
with gaps, so the timeline here is that of the utterances one after the other, and what was said before is only
approximate. The transcripts are all capitals without punctuation; they are given in small letters, for capitals say
nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.segment import ContextMaterial, latest_text
from cwjax.errors import CwjaxError

TITLE = "LibriSpeech (SUBSET/READER/CHAPTER/*.trans.txt)"
LICENCE = "CC BY 4.0"
SOURCE = "https://www.openslr.org/12"
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""By what comes first in the name of a subset."""


class Chapter(NamedTuple):
    """What the tables at the root say about a chapter."""

    subset: str
    title: str
    book: str
    reader: str


def looks_like(root: Path) -> bool:
    """Whether there are transcripts of chapters."""
    return next(_base(root).glob("*/*/*/*-*.trans.txt"), None) is not None


def articles(root: Path) -> Iterator[Unit]:
    """The folder of every chapter."""
    base = _base(root)
    chapters = read_table(base / "CHAPTERS.TXT")
    readers = read_table(base / "SPEAKERS.TXT")
    for folder in sorted(base.glob("*-*/*/*")):
        if not (folder.is_dir() and folder.name.isdigit() and folder.parent.name.isdigit()):
            continue
        fields = chapters.get(folder.name, [])
        chapter = Chapter(
            subset=folder.parent.parent.name,
            title=" | ".join(fields[6:-1]),
            book=fields[-1] if len(fields) > 7 else "",
            reader=(readers.get(folder.parent.name) or [""])[-1],
        )
        audio = tuple(path.relative_to(root).as_posix() for path in sorted(folder.glob("*.flac")))
        yield Unit(folder.relative_to(root).as_posix(), audio, chapter)


def _base(root: Path) -> Path:
    """The folder of the subsets: the root, or the one that the archives unpack to."""
    return root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root


def read_table(path: Path) -> dict[str, list[str]]:
    """Rows by their first field; a title with a bar in it comes as several fields."""
    if not path.is_file():
        return {}
    rows = (line.split("|") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    stripped = ([field.strip() for field in row] for row in rows)
    return {row[0]: row for row in stripped if row[0] and not row[0].startswith(";")}


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads a chapter.

    Raises CwjaxError if its transcripts are missing or none of its audio is there.
    """
    folder, chapter = root / unit.name, unit.content
    name = f"{folder.parent.name}-{folder.name}"
    transcript = folder / f"{name}.trans.txt"
    try:
        lines = transcript.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CwjaxError(f"{transcript}: cannot be read ({error}); leave the chapter out or unpack it again") from None
    warnings: list[str] = []
    utterances: list[ListedUtterance] = []
    previous, expected = "", ""
    for line in lines:
        identifier, _, words = line.strip().partition(" ")
        number = identifier.removeprefix(f"{name}-")
        if not (identifier.startswith(f"{name}-") and number.isdigit()):
            warnings.append(f"{transcript.name}: a line that is no utterance of the chapter: {line[:60]!r}")
            continue
        text = " ".join(words.lower().split())
        context = ContextMaterial(title=chapter.book, section=(chapter.title,) if chapter.title else ())
        if number == expected:
            context = replace(context, previous=previous, previous_is_approximate=True)
        audio = (folder / f"{identifier}.flac").relative_to(root).as_posix()
        utterances.append(ListedUtterance(identifier, audio, 0.0, math.inf, text, folder.parent.name, context=context))
        previous = latest_text(f"{context.previous} {text}".strip(), limits.previous_characters)
        expected = f"{int(number) + 1:04d}"
    article = ListedArticle(
        identifier=name,
        utterances=utterances,
        licence=LICENCE,
        source=SOURCE,
        split=SPLITS.get(chapter.subset.partition("-")[0], ""),
        subset=chapter.subset,
        reader=chapter.reader,
        finds_previous=False,
    )
    return as_reading(root, article, limits, warnings)
