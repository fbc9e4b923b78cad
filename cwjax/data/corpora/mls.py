"""Multilingual LibriSpeech (Pratap et al. 2020): audio books in eight languages, an utterance a file.

`mls_LANGUAGE[_opus]/{train,dev,test}/` hold `transcripts.txt`, lines `READER_BOOK_NUMBER TEXT` with a tab between,
`segments.txt` (where each utterance lies in LibriVox's recording) and `audio/READER/BOOK/*.flac` or `*.opus`;
`metainfo.txt` names the books. Transcripts are in small letters without punctuation. What was said before is that which
ends where an utterance begins, if both files list the same utterances in the same order.
"""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, zip_longest
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import decoded_lines
from cwjax.data.segment import ContextMaterial, latest_text
from cwjax.errors import CwjaxError

TITLE = "Multilingual LibriSpeech (mls_LANGUAGE/{train,dev,test}/transcripts.txt)"
LICENCE = "CC BY 4.0"
SOURCE = "https://www.openslr.org/94"
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
ADJOINING = 0.1
"""Seconds between utterances that follow each other."""


class Line(NamedTuple):
    """An utterance: its name, text, and where it is in which recording of LibriVox, if that is known."""

    name: str
    text: str
    recording: str = ""
    start: float = math.nan
    end: float = math.nan


def looks_like(root: Path) -> bool:
    """Whether there are transcripts."""
    return bool(_folders(root))


def _folders(root: Path) -> list[Path]:
    """The folders of the languages: the root, or those below it."""
    candidates = (root, *sorted(root.glob("mls_*")))
    return [path for path in candidates if path.name.startswith("mls_") and any(path.glob("*/transcripts.txt"))]


def articles(root: Path) -> Iterator[Unit]:
    """The utterances of a book that stand together, and as a unit that cannot be read whatever is none."""
    for folder in _folders(root):
        language, books = folder.name.split("_")[1], _books(folder / "metainfo.txt")
        ending = ".opus" if folder.name.endswith("_opus") else ".flac"
        for split in SPLITS:
            if not (path := folder / split / "transcripts.txt").is_file():
                continue
            place = path.parent.relative_to(root)
            seen: Counter[str] = Counter()
            for book, group in groupby(_lines(path), key=lambda one: one if isinstance(one, str) else _book(one)):
                lines = tuple(group)
                if isinstance(lines[0], str):
                    yield Unit(book.partition(": ")[0], (), book)
                    continue
                seen[book] += 1
                name = book if seen[book] == 1 else f"{book}~{seen[book]}"
                inside = "/".join(book.split("_"))
                audio = tuple((place / "audio" / inside / f"{one.name}{ending}").as_posix() for one in lines)
                yield Unit(f"{place.as_posix()}/{name}", audio, (language, split, books.get(book, ("", "")), lines))


def _book(line: Line) -> str:
    return line.name.rpartition("_")[0]


def _books(path: Path) -> dict[str, tuple[str, str]]:
    """Title and, where there is but one, chapter of what a reader reads, by reader and book."""
    books: dict[str, tuple[str, str]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) >= 6 and fields[0].isdigit():
                name, chapter = f"{fields[0]}_{fields[4]}", " | ".join(fields[6:])
                books[name] = fields[5], chapter if name not in books or books[name][1] == chapter else ""
    return books


def _lines(path: Path) -> Iterator[Line | str]:
    """The utterances of a transcript, and for a line that is none the reason."""
    places = _places(path.with_name("segments.txt"))
    try:
        with path.open("rb") as file:
            for line, where in zip_longest(decoded_lines(path, file), places):
                if line is None:
                    return
                name, tab, text = line.text.strip().partition("\t")
                if not tab or name.count("_") != 2:
                    if line.text.strip():
                        yield f"{path}:{line.number}: is no line READER_BOOK_NUMBER TEXT: {line.text[:60]!r}"
                elif where and where[0] == name:
                    yield Line(name, " ".join(text.split()), *where[1:])
                else:
                    yield Line(name, " ".join(text.split()))
    except OSError as error:
        yield f"{path}: cannot be read ({error})"


def _places(path: Path) -> Iterator[tuple[str, str, float, float] | None]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in decoded_lines(path, file):
            try:
                name, recording, start, end = line.text.split()
                yield name, recording, float(start), float(end)
            except ValueError:
                yield None


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads the utterances of a book, in the order of the recording where that is known.

    Raises CwjaxError if none of the audio is there or the unit stands for a damaged line.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    language, split, (title, chapter), lines = unit.content
    by_name = dict(zip((one.name for one in lines), unit.audio, strict=True))
    utterances: list[ListedUtterance] = []
    before, previous = None, ""
    for one in sorted(lines, key=lambda one: (one.recording, 0.0 if math.isnan(one.start) else one.start)):
        follows = before and before.recording == one.recording and abs(one.start - before.end) <= ADJOINING
        if not follows:
            previous = ""
        context = ContextMaterial(title, (chapter,) if chapter else (), previous=previous)
        reader = one.name.partition("_")[0]
        utterances.append(
            ListedUtterance(one.name, by_name[one.name], 0.0, math.inf, one.text, reader, context=context)
        )
        previous = latest_text(f"{previous} {one.text}".strip(), limits.previous_characters)
        before = one
    article = ListedArticle(
        f"{split}/{_book(lines[0])}", utterances, language, LICENCE, SOURCE, SPLITS[split], split, finds_previous=False
    )
    return as_reading(root, article, limits)
