"""The People's Speech (Galvez et al. 2021): recordings of the Internet Archive, cut into utterances.

`{train,validation,test}/PART.json` have a recording a line, `{"identifier", "training_data": {"duration_ms": [...],
"label": [...], "name": [...]}}`; the files lie below `{train,validation,test}/PART/`. Nothing is said about a recording
but its name in the archive. Transcripts are in small letters without punctuation.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import decoded_lines, plain
from cwjax.errors import CwjaxError

TITLE = "The People's Speech ({train,validation,test}/*.json with training_data)"
SPLITS = ("train", "validation", "test")


def looks_like(root: Path) -> bool:
    """Whether there is a list of recordings."""
    return bool(_lists(root))


def _lists(root: Path) -> list[Path]:
    found = [path for split in SPLITS for path in sorted(root.glob(f"{split}/*.json"))]
    return [path for path in found if '"training_data"' in _start(path)]


def _start(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1 << 16).decode(errors="replace")


def remarks(root: Path) -> Iterator[str]:
    """That there is no context."""
    yield "nothing is known about the recordings: they train a model to do without context"


def articles(root: Path) -> Iterator[Unit]:
    """Every recording, and as a unit that cannot be read every line that is none."""
    for path in _lists(root):
        place = path.relative_to(root).with_suffix("").as_posix()
        with path.open("rb") as file:
            for line in decoded_lines(path, file):
                try:
                    fields = json.loads(line.text)
                    data = fields["training_data"]
                    names, labels = list(map(plain, data["name"])), list(map(plain, data["label"]))
                    if len(names) != len(labels):
                        raise ValueError(f"{len(names)} names, but {len(labels)} labels")
                    name = plain(fields["identifier"])
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    if line.text.strip():
                        yield Unit(f"{path}:{line.number}", (), f"{path}:{line.number}: is no recording ({error!r})")
                    continue
                audio = tuple(f"{place}/{one}" for one in names)
                yield Unit(f"{place}/{name}:{line.number}", audio, (place, name, tuple(labels)))


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads the utterances of a recording.

    Raises CwjaxError if none of the audio is there or the unit stands for a damaged line.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    place, name, labels = unit.content
    split, _, part = place.partition("/")
    utterances = [
        ListedUtterance(Path(audio).with_suffix("").as_posix(), audio, 0.0, math.inf, text)
        for audio, text in zip(unit.audio, labels, strict=True)
    ]
    licence = "CC BY-SA 4.0" if part.endswith("_sa") else "CC BY 4.0"
    source = f"https://archive.org/details/{name}"
    article = ListedArticle(f"{place}/{name}", utterances, "en", licence, source, split, part, finds_previous=False)
    return as_reading(root, article, limits)
