"""Manifests of lhotse: cuts, recordings with supervisions, and Shar (`cuts.N.jsonl.gz` beside `recording.N.tar`).

What lhotse has no field for is read from `custom` of a supervision or cut, by the names of a table of your own
(`manifest`): title, lead, keywords, split ...; `gap_before` says that something unknown was said since the supervision
before. `cwjax align` writes such cuts. Their audio lies where they say, absolute or below the root or the manifest's
folder; a manifest is of the split that its path names, else of none. Source: https://lhotse.readthedocs.io.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from cwjax.data.audio.members import tar_members
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.manifest import SPLITS, named, utterance
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import Row, plain, table_rows
from cwjax.data.corpora.webdataset import split_of
from cwjax.data.cuts import Cut, cut_of
from cwjax.errors import CwjaxError

TITLE = "manifests of lhotse (cuts*.jsonl.gz, recordings and supervisions, or Shar)"
ENDINGS = (".jsonl.gz", ".jsonl")
SHAR_AUDIO = (".flac", ".wav", ".mp3", ".opus", ".ogg", ".sph")


def looks_like(root: Path) -> bool:
    """Whether there is a manifest."""
    return bool(_cut_lists(root) or _pairs(root))


def _manifests(root: Path, what: str) -> list[Path]:
    found = (path for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}*{what}*"))
    return sorted(path for path in found if path.name.endswith(ENDINGS) and "libriheavy" not in path.name)


def _cut_lists(root: Path) -> list[Path]:
    return [path for path in _manifests(root, "cuts") if _first(path).keys() >= {"supervisions", "recording"}]


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    """Recordings and their supervisions, where no cuts have been made of them."""
    pairs = []
    for path in _manifests(root, "recordings"):
        stem = path.name.replace("recordings", "supervisions").partition(".jsonl")[0]
        beside = [other for ending in ENDINGS if (other := path.with_name(stem + ending)).is_file()]
        if beside and _first(path).keys() >= {"sources", "num_samples"}:
            pairs.append((path, beside[0]))
    return pairs


def _first(path: Path) -> dict[str, Any]:
    return next((row.fields for row in table_rows(path) if isinstance(row, Row)), {})


def articles(root: Path) -> Iterator[Unit]:
    """Runs of cuts of one recording, and as a unit that cannot be read whatever is no cut."""
    seen: Counter[str] = Counter()
    lists = [(path, _cuts(path)) for path in _cut_lists(root)]
    for path, cuts in lists or [(path, _paired(path, beside)) for path, beside in _pairs(root)]:
        place = path.relative_to(root).as_posix()
        for name, group in groupby(cuts, key=lambda cut: cut if isinstance(cut, str) else _recording(cut)):
            some = tuple(group)
            seen[name] += 1
            name = name if seen[name] == 1 else f"{name}~{seen[name]}"
            if isinstance(some[0], str):
                yield Unit(name, (), some[0])
            else:
                audio = dict.fromkeys(_audio(root, path, cut) for cut in some)
                yield Unit(f"{place}: {name}", tuple(audio), (place, some))


def _recording(cut: Cut) -> str:
    return plain(cut.custom.get("article")) or cut.recording.id


def _cuts(path: Path) -> Iterator[Cut | str]:
    """The cuts of a manifest, one for each channel, and for a line that is none the reason."""
    for row in table_rows(path):
        if isinstance(row, str):
            yield row
            continue
        try:
            record = row.fields
            if record["recording"].get("transforms"):
                raise ValueError("its recording is to be transformed; save the audio first")
            channels = record.get("channel") or 0
            if not isinstance(channels, list):
                yield cut_of(record)
                continue
            for channel in channels:
                heard = [one for one in record["supervisions"] if channel in _channels(one)]
                yield cut_of(record | {"channel": channel, "supervisions": heard})
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            yield f"{row.place}: is no cut of a recording ({type(error).__name__}: {error})"


def _channels(supervision: dict[str, Any]) -> list[int]:
    channel = supervision.get("channel", 0)
    return channel if isinstance(channel, list) else [channel]


def _paired(recordings: Path, supervisions: Path) -> Iterator[Cut | str]:
    """Recordings with their supervisions as cuts."""
    said: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in table_rows(supervisions):
        if isinstance(row, str):
            yield row
        else:
            for channel in _channels(row.fields):
                said.setdefault((str(row.fields.get("recording_id")), channel), []).append(row.fields)
    for row in table_rows(recordings):
        if isinstance(row, str):
            yield row
            continue
        name = str(row.fields.get("id"))
        for channel in sorted(channel for other, channel in said if other == name):
            record = {"id": name, "recording": row.fields, "start": 0.0, "duration": row.fields.get("duration")}
            try:
                yield cut_of(record | {"channel": channel, "supervisions": said.pop((name, channel))})
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                yield f"{row.place}: is no recording ({type(error).__name__}: {error})"
    if said:
        lost = sum(map(len, said.values()))
        yield f"{supervisions}: {lost} supervisions are of recordings that {recordings.name} does not have"


def _audio(root: Path, path: Path, cut: Cut) -> str:
    """Path of a cut's audio, relative to the root or absolute."""
    folder = path.parent
    if not cut.recording.path:
        # Shar: the cut's audio alone, in the archive of the same number and under the cut's name.
        archive = folder / (path.name.replace("cuts", "recording", 1).partition(".jsonl")[0] + ".tar")
        names = tar_members(archive) if archive.is_file() else {}
        name = next((name for ending in SHAR_AUDIO if (name := cut.id + ending) in names), cut.id)
        return f"{archive.relative_to(root).as_posix()}/{name}"
    candidates = (root / cut.recording.path, folder / cut.recording.path)
    found = next((one for one in candidates if one.is_file()), candidates[0])
    return found.relative_to(root).as_posix() if found.is_relative_to(root) else str(found)


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of supervisions.

    Raises CwjaxError if the recording is missing or the unit stands for a damaged line.
    """
    if isinstance(unit.content, str):
        raise CwjaxError(unit.content)
    place, cuts = unit.content
    path = root / place
    utterances: list[ListedUtterance] = []
    problems: list[str] = []
    for cut in cuts:
        audio = _audio(root, path, cut)
        for one in sorted(cut.supervisions, key=lambda one: one.start):
            fields = {**cut.custom, **one.custom, "audio": audio, "text": one.text, "id": one.id}
            fields |= {"start": round(cut.start + one.start, 6), "end": round(cut.start + one.end, 6)}
            fields |= {name: value for name in ("speaker", "language") if (value := getattr(one, name))}
            try:
                listed = utterance(named(Row(f"{place}: {one.id}", fields)), cut.recording.id, audio)
            except CwjaxError as error:
                problems.append(str(error))
                continue
            split = plain(fields.get("split"))
            utterances.append(
                replace(
                    listed,
                    channel=cut.channel if cut.recording.channels > 1 else None,
                    words=tuple(
                        word._replace(start=round(word.start + cut.start, 6), end=round(word.end + cut.start, 6))
                        for word in one.words
                    ),
                    gap_before=bool(one.custom.get("gap_before")),
                    split=SPLITS.get(split, ""),
                )
            )
    if not utterances:
        raise CwjaxError(problems[-1] if problems else f"{path}: {cuts[0].id} has no supervision")
    utterances.sort(key=lambda one: (one.audio, one.start))
    name = _recording(cuts[0])
    return as_reading(root, ListedArticle(name, utterances, split=split_of(Path(place))), limits, problems)
