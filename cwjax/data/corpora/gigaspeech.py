"""GigaSpeech (Chen et al. 2021): audio books, podcasts and videos with titles and categories.

`GigaSpeech.json` holds `{"audios": [{"aid", "title", "category", "path", "segments": [...]}]}` and is too large to be
read at once. The transcripts are in capitals with marks for punctuation; they are given as sentences.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cwjax.data.corpora.capitals import as_sentences
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import plain
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "GigaSpeech (GigaSpeech.json)"
LICENCE = "GigaSpeech terms of access"
LIST_FILE = "GigaSpeech.json"
SUBSETS = ("XS", "S", "M", "L", "XL")
"""Each is part of the next."""
SPLITS = {"DEV": "validation", "TEST": "test"}
BLOCK = 1 << 20
"""Characters read at a time."""

_BEGIN, _BETWEEN = re.compile(r'"audios"\s{0,9}:\s{0,9}\['), re.compile(r"[\s,]*")
_MARKS = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}
_NO_SPEECH = re.compile(r"<(?:SIL|MUSIC|NOISE|OTHER)>")


def looks_like(root: Path) -> bool:
    """Whether the list is there."""
    return (root / LIST_FILE).is_file()


def articles(root: Path) -> Iterator[Unit]:
    """Every recording.

    Raises CwjaxError if the list is damaged.
    """
    for number, audio in enumerate(_audios(root / LIST_FILE)):
        if isinstance(audio, dict):
            yield Unit(plain(audio.get("aid")) or f"{LIST_FILE}:{number}", (plain(audio.get("path")),), audio)
        else:
            yield Unit(f"{LIST_FILE}:{number}", (), audio)


def _audios(path: Path) -> Iterator[Any]:
    """The recordings of the list, one after the other."""
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8") as file:
            buffer, place = file.read(BLOCK), 0
            while not (match := _BEGIN.search(buffer)):
                block = file.read(max(BLOCK, len(buffer)))
                if not block:
                    raise CwjaxError(f'{path}: has no "audios"; is it the list of GigaSpeech?')
                buffer += block
            place = match.end()
            while True:
                begin = _BETWEEN.match(buffer, place).end()
                try:
                    if buffer[begin : begin + 1] == "]":
                        return
                    audio, place = decoder.raw_decode(buffer, begin)
                except ValueError as error:
                    block = file.read(max(BLOCK, len(buffer)))  # so that the longest entry is decoded but a few times
                    if not block:
                        raise CwjaxError(f"{path}: is damaged ({error}); fetch it again") from None
                    buffer, place = buffer[begin:] + block, 0
                else:
                    yield audio
    except (OSError, UnicodeDecodeError) as error:
        raise CwjaxError(f"{path}: cannot be read ({error})") from None


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of a recording's that are in the wanted subset, in the validation or in the test set.

    Raises CwjaxError if the recording is missing, or described otherwise than in GigaSpeech.
    """
    audio, wanted = unit.content, limits.subset.upper()
    if wanted and wanted not in SUBSETS:
        raise CwjaxError(f"subset is {limits.subset!r}; use one of {', '.join(SUBSETS)}")
    try:
        title, category = plain(audio.get("title")), plain(audio.get("category"))
        context = ContextMaterial(title=title, categories=(category,) if category else ())
        subsets_of = [{one.strip("{}") for one in segment.get("subsets", ())} for segment in audio["segments"]]
        split = next((split for name, split in SPLITS.items() if any(name in one for one in subsets_of)), "train")
        utterances: list[ListedUtterance] = []
        is_gap = False
        for segment, subsets in zip(audio["segments"], subsets_of, strict=True):
            if wanted and wanted not in subsets and split == "train":
                is_gap = True
                continue
            one = ListedUtterance(
                id=str(segment["sid"]),
                audio=unit.audio[0],
                start=float(segment["begin_time"]),
                end=float(segment["end_time"]),
                text=clean(segment["text_tn"]),
                speaker=_speaker(unit.name, segment.get("speaker")),
                context=context,
                subset=next((name for name in (*SPLITS, *SUBSETS) if name in subsets), ""),
                gap_before=is_gap,
            )
            utterances.append(one)
            is_gap = False
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CwjaxError(f"{root / LIST_FILE}: {unit.name} has no {error}; is it the list of GigaSpeech?") from None
    if not utterances and audio["segments"]:
        return Reading(())
    source = plain(audio.get("url"))
    return as_reading(root, ListedArticle(unit.name, utterances, "en", LICENCE, source, split), limits)


def _speaker(article: str, name: Any) -> str:
    """Speakers are numbered within a recording, if at all."""
    return f"{article}/{name}" if name and name != "N/A" else ""


def clean(text: str) -> str:
    """Capitals and marks as a sentence; empty for what is no speech."""
    if _NO_SPEECH.search(text):
        return ""
    for mark, sign in _MARKS.items():
        text = text.replace(f" {mark}", sign).replace(mark, sign)
    return as_sentences(text)
