"""Common Voice (Ardila et al. 2020): read sentences without any order, a file each.

`LANGUAGE/train.tsv`, `dev.tsv`, `test.tsv` and others list the clips of `LANGUAGE/clips/`. The columns differ from
release to release and are found by their heads. No sentence has a document around it: the only context is its domain,
where the release knows one.
"""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "Common Voice (LANGUAGE/clips and LANGUAGE/*.tsv)"
LICENCE = "CC0-1.0"
SOURCE = "https://commonvoice.mozilla.org"
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""Tables that are read, and the splits they are; without any of them `validated.tsv` is, without splits."""
CLIPS_PER_UNIT = 200
TEXT_COLUMNS = ("sentence", "text")


class Clip(NamedTuple):
    """A row of a table."""

    file: str
    text: str
    speaker: str
    domain: str


def looks_like(root: Path) -> bool:
    """Whether there is a folder of clips with a table beside it."""
    return bool(_language_folders(root))


def _language_folders(root: Path) -> list[Path]:
    """Folders of languages: the root, one level below it, or, as the archives unpack, two."""
    candidates = (root, *sorted(root.glob("*")), *sorted(root.glob("cv-corpus*/*")))
    return [folder for folder in candidates if (folder / "clips").is_dir() and _tables(folder)]


def _tables(folder: Path) -> dict[Path, str]:
    """The tables to read, and their splits."""
    tables = {folder / f"{name}.tsv": split for name, split in SPLITS.items() if (folder / f"{name}.tsv").is_file()}
    validated = folder / "validated.tsv"
    return tables or ({validated: ""} if validated.is_file() else {})


def articles(root: Path) -> Iterator[Unit]:
    """Some hundred clips at a time.

    Raises CwjaxError if a table lacks a column or cannot be read.
    """
    for folder in _language_folders(root):
        for table, split in _tables(folder).items():
            clips, language, first = _clips(table), _language(folder, table), 1
            while rows := tuple(islice(clips, CLIPS_PER_UNIT)):
                place = folder.relative_to(root)
                audio = tuple((place / "clips" / clip.file).as_posix() for clip in rows)
                name = f"{(place / table.name).as_posix()}:{first}-{first + len(rows) - 1}"
                yield Unit(name, audio, (language, split, rows))
                first += len(rows)


def _clips(table: Path) -> Iterator[Clip]:
    try:
        with table.open(encoding="utf-8", newline="") as lines:
            # Quotation marks belong to the sentences, and need not come in pairs.
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            columns = rows.fieldnames or []
            text = next((name for name in TEXT_COLUMNS if name in columns), TEXT_COLUMNS[0])
            for name in ("client_id", "path", text):
                if name not in columns:
                    raise CwjaxError(f"{table}: has no column {name!r}; is it a table of Common Voice?")
            for row in rows:
                yield Clip(
                    _file(row["path"]), row[text] or "", row["client_id"] or "", row.get("sentence_domain") or ""
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CwjaxError(f"{table}: cannot be read ({error}); unpack it again") from None


def _file(path: str | None) -> str:
    """The clip's name; old releases leave its ending out."""
    name = Path(path or "").name
    return name if Path(name).suffix else f"{name}.mp3"


def _language(folder: Path, table: Path) -> str:
    """ISO 639-1 code: the locale of the first row, without its region, else the folder's name."""
    with table.open(encoding="utf-8", newline="") as lines:
        row = next(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), {})
    return (row.get("locale") or folder.resolve().name).split("-")[0].lower()


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads clips, each an article of its own.

    Raises CwjaxError if none of them is there.
    """
    language, split, clips = unit.content
    readings: list[Reading] = []
    problems: list[str] = []
    for clip, audio in zip(clips, unit.audio, strict=True):
        name = Path(clip.file).stem
        domains = tuple(part.strip() for part in clip.domain.replace("|", ",").split(",") if part.strip())
        utterance = ListedUtterance(
            id=name,
            audio=audio,
            start=0.0,
            end=float("inf"),
            text=" ".join(clip.text.split()),
            speaker=clip.speaker,
            context=ContextMaterial(categories=domains),
        )
        article = ListedArticle(name, (utterance,), language, LICENCE, SOURCE, split, finds_previous=False)
        try:
            readings.append(as_reading(root, article, limits))
        except CwjaxError as error:
            problems.append(str(error))
    if not readings:
        raise CwjaxError(problems[0])
    dropped: dict[str, float] = {}
    for one in readings:
        for reason, seconds in one.dropped.items():
            dropped[reason] = dropped.get(reason, 0.0) + seconds
    return Reading(tuple(piece for one in readings for piece in one.pieces), dropped, warnings=tuple(problems))
