"""Common Voice (Ardila et al. 2020): read sentences without any order, a file each.

`LANGUAGE/train.tsv`, `dev.tsv`, `test.tsv` and others list the clips of `LANGUAGE/clips/`. The columns differ from
release to release and are found by their heads. No sentence has a document around it: the only context is its domain,
where the release knows one.
"""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.languages import unknown_language, whisper_language
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_one_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import decoded_lines, plain
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
    locale: str
    warning: str


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


def remarks(root: Path) -> Iterator[str]:
    """What the tables say about their sentences."""
    for folder in _language_folders(root):
        known = any("sentence_domain" in _columns(table) for table in _tables(folder))
        yield f"{folder.name} has no context {'but the domain of some sentences' if known else 'at all'}"


def articles(root: Path) -> Iterator[Unit]:
    """Some hundred clips at a time.

    Raises CwjaxError if a table lacks a column or cannot be read.
    """
    for folder in _language_folders(root):
        for table, split in _tables(folder).items():
            clips, language, first = _clips(table), folder.resolve().name, 1
            head = tuple(islice(clips, 1))
            if head and not whisper_language(spoken := head[0].locale or language):
                yield Unit(table.relative_to(root).as_posix(), (), unknown_language(str(table), spoken))
                continue
            clips = chain(head, clips)
            while rows := tuple(islice(clips, CLIPS_PER_UNIT)):
                place = folder.relative_to(root)
                clips_folder = (place / "clips").as_posix()
                audio = tuple(f"{clips_folder}/{clip.file}" for clip in rows)
                name = f"{(place / table.name).as_posix()}:{first}-{first + len(rows) - 1}"
                yield Unit(name, audio, (language, table.stem, split, rows))
                first += len(rows)


def _columns(table: Path) -> list[str]:
    return next(_rows(table), ([], ""))[0]


def _rows(table: Path) -> Iterator[tuple[list[str], str]]:
    """Fields, and what is odd about the line. Quotation marks belong to the sentences, and need not come in pairs."""
    try:
        with table.open("rb") as file:
            for line in decoded_lines(table, file):
                yield line.text.rstrip("\r\n").split("\t"), line.warning
    except OSError as error:
        raise CwjaxError(f"{table}: cannot be read ({error}); unpack it again") from None


def _clips(table: Path) -> Iterator[Clip]:
    rows = _rows(table)
    columns = next(rows, ([], ""))[0]
    text = next((name for name in TEXT_COLUMNS if name in columns), TEXT_COLUMNS[0])
    for name in ("client_id", "path", text):
        if name not in columns:
            raise CwjaxError(f"{table}: has no column {name!r}; is it a table of Common Voice?")
    wanted = ("path", text, "client_id", "sentence_domain", "locale")
    places = [columns.index(name) if name in columns else -1 for name in wanted]
    for fields, warning in rows:
        path, *said = (plain(fields[place]) if 0 <= place < len(fields) else "" for place in places)
        if path:
            yield Clip(_file(path), *said, warning)


def _file(path: str) -> str:
    """The clip's name; old releases leave its ending out."""
    name = path.rpartition("/")[2]
    return name if "." in name else f"{name}.mp3"


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads clips, each an article of its own.

    Raises CwjaxError if none of them is there, or Whisper does not know their language.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    language, subset, split, clips = unit.content
    listed: list[ListedArticle] = []
    for clip, audio in zip(clips, unit.audio, strict=True):
        name = Path(clip.file).stem
        domains = tuple(part.strip() for part in clip.domain.replace("|", ",").split(",") if part.strip())
        utterance = ListedUtterance(
            id=name,
            audio=audio,
            start=0.0,
            end=float("inf"),
            text=clip.text,
            speaker=clip.speaker,
            context=ContextMaterial(categories=domains),
        )
        listed.append(
            ListedArticle(
                name, (utterance,), clip.locale or language, LICENCE, SOURCE, split, subset, finds_previous=False
            )
        )
    return as_one_reading(root, listed, limits, [clip.warning for clip in clips if clip.warning])
