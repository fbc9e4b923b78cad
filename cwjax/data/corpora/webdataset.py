"""WebDataset: tar files in which an utterance is some files of one name, `000123.flac` and `000123.txt` or `.json`.

The JSON has the fields of a table of your own (`manifest`); the audio is read where it lies. A tar file is of the split
that its path names (`train-000000.tar`, `dev/000.tar`), else of none.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from cwjax.data.audio.members import is_cut_short, open_sound_file, tar_members
from cwjax.data.corpora.listed_utterances import ListedArticle, as_one_reading
from cwjax.data.corpora.manifest import SPLITS, named, utterance
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import Row, plain
from cwjax.errors import CwjaxError

TITLE = "WebDataset (*.tar with audio, and .txt or .json of the same names)"
AUDIO = ("flac", "wav", "mp3", "ogg", "opus", "m4a", "aac")
TEXTS = ("json", "txt", "text", "transcript")
SAMPLES_PER_UNIT = 200

_SPLIT = re.compile(rf"(?<![a-z])(?:{'|'.join(filter(None, SPLITS))})(?![a-z])")


def looks_like(root: Path) -> bool:
    """Whether a tar file holds such utterances."""
    path = next(iter(_archives(root)), None)
    if path is None:
        return False
    try:
        return any(True for _ in _samples(path)[0])
    except CwjaxError:
        return False


def _archives(root: Path) -> list[Path]:
    """The tar files but those of lhotse's Shar, beside which manifests lie."""
    return sorted(path for path in root.rglob("*.tar") if not any(path.parent.glob("cuts.*.jsonl*")))


def split_of(path: Path) -> str:
    """The split that a path names last, or an empty string."""
    found = _SPLIT.findall(path.as_posix().lower())
    return SPLITS[found[-1]] if found else ""


def _samples(path: Path) -> tuple[list[dict[str, str]], int]:
    """The names of each utterance's files by what they hold, and how many groups of files are no utterance."""
    groups: dict[str, dict[str, str]] = {}
    for name in tar_members(path):
        folder, _, file = name.rpartition("/")
        stem, _, kind = file.partition(".")
        last = kind.rpartition(".")[2].lower()
        groups.setdefault(f"{folder}/{stem}", {})["audio" if last in AUDIO else last] = name
    samples = [group for group in groups.values() if "audio" in group and any(kind in group for kind in TEXTS)]
    return samples, len(groups) - len(samples)


def articles(root: Path) -> Iterator[Unit]:
    """Some hundred utterances of a tar file at a time."""
    for path in _archives(root):
        place = path.relative_to(root)
        try:
            samples, others = _samples(path)
        except CwjaxError as error:
            yield Unit(place.as_posix(), (), str(error))
            continue
        if others:
            yield Unit(f"{place.as_posix()}: others", (), f"{path}: {others} names have no audio or no text beside it")
        if is_cut_short(path):
            last = next(reversed(tar_members(path)), "nothing")
            reason = f"{path}: ends after {last}, without the mark of its end; fetch it again"
            yield Unit(f"{place.as_posix()}: the rest", (), reason)
        rest, first = iter(samples), 0
        while some := tuple(islice(rest, SAMPLES_PER_UNIT)):
            audio = tuple((place / sample["audio"]).as_posix() for sample in some)
            yield Unit(f"{place.as_posix()}:{first}-{first + len(some) - 1}", audio, (place.as_posix(), some))
            first += len(some)


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads utterances, each an article of its own unless its JSON names one.

    Raises CwjaxError if none can be used.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    place, samples = unit.content
    rows: list[Row] = []
    problems: list[str] = []
    for sample in samples:
        try:
            rows.append(_row(root / place, f"{place}/{sample['audio']}", sample))
        except CwjaxError as error:
            problems.append(str(error))
    return read_rows(root, unit.name, rows, split_of(Path(place)), limits, problems)


def read_rows(
    root: Path, name: str, rows: list[Row], split: str, limits: SegmentationSettings, problems: list[str]
) -> Reading:
    """Rows whose audio has its path already, by article, else each for itself.

    Raises CwjaxError if none can be used.
    """
    by_article: dict[tuple[str, str], ListedArticle] = {}
    for row in rows:
        said = plain(row.fields.get("split"))
        article = plain(row.fields.get("article")) or plain(row.fields["audio"])
        try:
            if said not in SPLITS:
                raise CwjaxError(f"{row.place}: its split is {said!r}; use train, validation or test, or none")
            one = utterance(row, article, plain(row.fields["audio"]))
        except CwjaxError as error:
            problems.append(str(error))
            continue
        key = article, SPLITS[said] or split
        listed = by_article.setdefault(key, ListedArticle(article, [], split=key[1]))
        listed.utterances.append(one)
    if not by_article:
        raise CwjaxError(problems[-1] if problems else f"{name}: holds no utterance")
    return as_one_reading(root, by_article.values(), limits, problems)


def _row(path: Path, audio: str, sample: dict[str, str]) -> Row:
    """What the files beside the audio say."""
    fields: dict = {}
    where = f"{path}/{sample['audio']}"
    try:
        for kind in (kind for kind in TEXTS if kind in sample):
            with open_sound_file(path / sample[kind]) as file:
                content = file.read().decode(errors="replace")
            fields |= json.loads(content, parse_constant=lambda _: None) if kind == "json" else {"text": content}
    except (ValueError, TypeError, RecursionError) as error:
        raise CwjaxError(f"{path}/{sample['json']}: is no JSON object ({error})") from None
    row = named(Row(where, {name.lower(): value for name, value in fields.items()}))
    stem = sample["audio"].partition(".")[0]
    # A file's length is no place in it.
    fields = {name: value for name, value in row.fields.items() if name not in ("start", "end", "duration")}
    return row._replace(fields={"id": stem} | fields | {"audio": audio})
