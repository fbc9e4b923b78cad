"""Libriheavy (Kang et al. 2023): LibriVox with transcripts, of Libri-light's recordings of audio books.

`libriheavy_cuts_*.jsonl.gz`, in the root or in one folder below it, lists the utterances, a cut of lhotse's a line:
where it lies in its recording, the book's text with case and punctuation, and the text before it. The recordings are
Libri-light's FLAC files, wherever below the root `small/`, `medium/` and `large/` lie.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "Libriheavy (libriheavy_cuts_*.jsonl.gz beside Libri-light's folders), which is LibriVox with transcripts"
LICENCE = "public domain"
SOURCE = "https://librivox.org"
AUDIO_FOLDERS = ("", "librilight", "download/librilight")
"""Where Libri-light's subsets may lie below the root."""

_PLAIN = str.maketrans("“”‘’＂＇‛‟", "\"\"''\"''\"")
_FOOTNOTE = re.compile(r"\[FN#\d+\]")


class Cut(NamedTuple):
    """What a line says."""

    id: str
    recording: str
    source: str
    start: float
    duration: float
    text: str
    previous: str
    speaker: str
    book: str


def looks_like(root: Path) -> bool:
    """Whether there are lists of cuts."""
    return bool(_lists(root))


def _lists(root: Path) -> list[Path]:
    """The lists of one folder: of the root, else of that below it which comes first."""
    return next(iter(_trees(root).values()), [])


def _trees(root: Path) -> dict[Path, list[Path]]:
    """The lists by their folders: the distribution has the same cuts in several forms."""
    found = [*root.glob("libriheavy_cuts_*.jsonl.gz"), *root.glob("*/libriheavy_cuts_*.jsonl.gz")]
    trees: dict[Path, list[Path]] = {}
    for path in sorted(found, key=lambda path: (len(path.parts), path)):
        trees.setdefault(path.parent, []).append(path)
    return trees


def remarks(root: Path) -> Iterator[str]:
    """Which lists are not read."""
    others = [path.relative_to(root).as_posix() for path in list(_trees(root))[1:]]
    if others:
        yield f"the lists in {', '.join(others)} are not read: {_lists(root)[0].parent} holds the same cuts"


def articles(root: Path) -> Iterator[Unit]:
    """Runs of cuts of one recording, and as a unit that cannot be read whatever is no cut."""
    seen: Counter[str] = Counter()
    tested: set[str] = set()
    for path in _lists(root):
        cuts = _cuts(path) if _split(_subset(path)) == "train" else _without_doubles(path, tested)
        for recording, group in groupby(cuts, key=lambda cut: cut if isinstance(cut, str) else cut.recording):
            cuts = tuple(group)
            seen[recording] += 1
            name = recording if seen[recording] == 1 else f"{recording}~{seen[recording]}"
            if isinstance(cuts[0], str):
                yield Unit(name, (), recording)
            else:
                audio = _find_audio(root, cuts[0].source)
                yield Unit(f"{path.name}/{name}", (audio,), (_subset(path), cuts))


def _subset(path: Path) -> str:
    return path.name.removeprefix("libriheavy_cuts_").removesuffix(".jsonl.gz")


def _split(subset: str) -> str:
    return "validation" if subset.startswith("dev") else "test" if subset.startswith("test") else "train"


def _without_doubles(path: Path, seen: set[str]) -> Iterator[Cut | str]:
    """The cuts of a list whose identifiers are not among those `seen`, which grow; the rest are counted."""
    doubles = 0
    for cut in _cuts(path):
        if isinstance(cut, Cut) and cut.id in seen:
            doubles += 1
            continue
        if isinstance(cut, Cut):
            seen.add(cut.id)
        yield cut
    if doubles:
        yield f"{path}: {doubles} of its cuts are left out, for an earlier list has them"


def _cuts(path: Path) -> Iterator[Cut | str]:
    """The cuts of a list, and for a line that is none the reason."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                number += 1
                try:
                    yield _cut(json.loads(line))
                except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                    yield f"{path}:{number}: is no cut of Libriheavy ({type(error).__name__}: {error})"
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        yield f"{path}: cannot be read after line {number} ({error}); fetch it again"


def _cut(fields: dict[str, Any]) -> Cut:
    supervision, recording = fields["supervisions"][0], fields["recording"]
    custom = supervision.get("custom") or {}
    text = custom["texts"][0] if custom.get("texts") else supervision["text"]
    previous = custom["pre_texts"][0] if custom.get("pre_texts") else ""
    # Only the end of it is wanted, and millions of these are held for a while.
    previous = clean(previous[-2000:].removeprefix("..."))
    text_path = (fields.get("custom") or recording.get("custom") or {}).get("text_path", "")
    return Cut(
        id=str(fields["id"]),
        recording=str(recording["id"]),
        source=str(recording["sources"][0]["source"]),
        start=float(fields["start"]),
        duration=float(fields["duration"]),
        text=clean(text),
        previous=previous,
        speaker=str(supervision.get("speaker") or ""),
        book=PurePosixPath(text_path).parent.name,
    )


def clean(text: str) -> str:
    """A book's text with plain quotation marks and without footnotes."""
    text = " ".join(_FOOTNOTE.sub("", text.translate(_PLAIN)).split())
    # A quotation that goes on has a mark at the beginning of each of its paragraphs.
    return text[2:] if text.startswith('" ') else text


def _find_audio(root: Path, source: str) -> str:
    """The recording's path relative to the root; lists hold paths of the machine where they were made."""
    _, _, tail = source.rpartition("librilight/")
    candidates = [source, *(f"{folder}/{tail}".lstrip("/") for folder in AUDIO_FOLDERS)]
    inside = [one for one in candidates if not PurePosixPath(one).is_absolute() and ".." not in one.split("/")]
    return next((one for one in inside if (root / one).is_file()), tail)


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of a recording's cuts.

    Raises CwjaxError if the recording is missing or the unit stands for a damaged line.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    subset, cuts = unit.content
    utterances = [
        ListedUtterance(
            id=cut.id,
            audio=unit.audio[0],
            start=cut.start,
            end=round(cut.start + cut.duration, 4),
            text=cut.text,
            speaker=cut.speaker,
            context=ContextMaterial(title=cut.book, previous=cut.previous),
        )
        for cut in cuts
    ]
    article = ListedArticle(
        identifier=cuts[0].recording,
        utterances=utterances,
        licence=LICENCE,
        source=SOURCE,
        split=_split(subset),
        subset=subset,
        reader=cuts[0].speaker,
        finds_previous=False,
    )
    return as_reading(root, article, limits)
