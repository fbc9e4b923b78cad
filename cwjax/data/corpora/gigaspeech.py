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
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "GigaSpeech (GigaSpeech.json)"
LICENCE = "GigaSpeech terms of access"
LIST_FILE = "GigaSpeech.json"
BLOCK = 1 << 20
"""Characters read at a time."""

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
        path = str(audio.get("path", ""))
        yield Unit(str(audio.get("aid", f"{LIST_FILE}:{number}")), (path,), audio)


def _audios(path: Path) -> Iterator[dict[str, Any]]:
    """The recordings of the list, one after the other."""
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8") as file:
            buffer, place = file.read(BLOCK), 0
            while not (match := re.search(r'"audios"\s*:\s*\[', buffer)):
                block = file.read(BLOCK)
                if not block:
                    raise CwjaxError(f'{path}: has no "audios"; is it the list of GigaSpeech?')
                buffer += block
            place = match.end()
            while True:
                begin = re.compile(r"[\s,]*").match(buffer, place).end()
                try:
                    if buffer[begin : begin + 1] == "]":
                        return
                    audio, place = decoder.raw_decode(buffer, begin)
                except ValueError as error:
                    block = file.read(BLOCK)
                    if not block:
                        raise CwjaxError(f"{path}: is damaged ({error}); fetch it again") from None
                    buffer, place = buffer[begin:] + block, 0
                else:
                    yield audio
    except (OSError, UnicodeDecodeError) as error:
        raise CwjaxError(f"{path}: cannot be read ({error})") from None


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of a recording's.

    Raises CwjaxError if the recording is missing, or described otherwise than in GigaSpeech.
    """
    audio = unit.content
    try:
        title, category = str(audio.get("title") or ""), str(audio.get("category") or "")
        context = ContextMaterial(title=" ".join(title.split()), categories=(category,) if category else ())
        utterances = [
            ListedUtterance(
                id=str(segment["sid"]),
                audio=unit.audio[0],
                start=float(segment["begin_time"]),
                end=float(segment["end_time"]),
                text=clean(segment["text_tn"]),
                speaker=_speaker(unit.name, segment.get("speaker")),
                context=context,
            )
            for segment in audio["segments"]
        ]
        subsets = {subset for segment in audio["segments"] for subset in segment.get("subsets", ())}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CwjaxError(f"{root / LIST_FILE}: {unit.name} has no {error}; is it the list of GigaSpeech?") from None
    split = "validation" if "{DEV}" in subsets else "test" if "{TEST}" in subsets else "train"
    source = str(audio.get("url") or "")
    article = ListedArticle(unit.name, utterances, licence=LICENCE, source=source, split=split)
    return as_reading(root, article, limits)


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
