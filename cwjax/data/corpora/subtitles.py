"""Your own recordings with subtitles: audio files, each with an `.srt` or `.vtt` of the same name beside it.

`talk.ogg` goes with `talk.srt`, or `talk.de.srt` if it is German; without a language it is English. What you would say
about the recording may stand in `talk.txt`; else the file's name is its title.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "folder of your own (audio files with .srt or .vtt beside them)"
AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".mkv", ".webm", ".aiff")

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_CUE_TIMES = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_LANGUAGE = re.compile(r"\.([a-z]{2})(?:-[A-Za-z]+)?$")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_NOISE = re.compile(r"\[[^\[\]]*\]|[♪♫]+")


class Cue(NamedTuple):
    """A subtitle: start and end in seconds, who says it if that is marked, and its text."""

    start: float
    end: float
    speaker: str
    text: str


def looks_like(root: Path) -> bool:
    """Whether there are subtitles."""
    return next(_subtitle_files(root), None) is not None


def _subtitle_files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.suffix.lower() in (".srt", ".vtt"))


def articles(root: Path) -> Iterator[Unit]:
    """Every file of subtitles; its audio is looked for when it is read."""
    for path in sorted(_subtitle_files(root)):
        audio = _audio_beside(path)
        names = (audio.relative_to(root).as_posix(),) if audio else ()
        yield Unit(path.relative_to(root).as_posix(), names)


def _stem(subtitles: Path) -> str:
    """The name without its ending and language."""
    return _LANGUAGE.sub("", subtitles.stem)


def _audio_beside(subtitles: Path) -> Path | None:
    for stem in (subtitles.stem, _stem(subtitles)):
        for ending in AUDIO_ENDINGS:
            if (audio := subtitles.with_name(stem + ending)).is_file():
                return audio
    return None


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of a file's subtitles.

    Raises CwjaxError if the audio is missing, or the file holds no subtitles.
    """
    path = root / unit.name
    if not unit.audio:
        raise CwjaxError(f"{path}: has no audio beside it ({_stem(path)}.wav, .flac, .ogg, .mp3 or the like)")
    cues = read_cues(path)
    described = path.with_name(f"{_stem(path)}.txt")
    description = ""
    if described.is_file():
        description = " ".join(described.read_text(encoding="utf-8", errors="replace").split())
    context = ContextMaterial(title=_stem(path).replace("_", " "), lead=description)
    article = path.relative_to(root).with_suffix("").as_posix()
    language = _LANGUAGE.search(path.stem)
    utterances = [
        ListedUtterance(
            id=f"{article}/{round(cue.start * 1000):08d}",
            audio=unit.audio[0],
            start=cue.start,
            end=cue.end,
            text=cue.text,
            speaker=f"{article}/{cue.speaker}" if cue.speaker else "",
            context=context,
        )
        for cue in cues
    ]
    return as_reading(root, ListedArticle(article, utterances, language[1] if language else "en"), limits)


def read_cues(path: Path) -> list[Cue]:
    """The subtitles of a SubRip or WebVTT file in which something is said, in order.

    A line that is repeated from the subtitle before, as in subtitles that roll, is left out.

    Raises CwjaxError if the file cannot be read or holds no subtitles.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CwjaxError(f"{path}: cannot be read as UTF-8 ({error}); save it again as UTF-8") from None
    cues: list[Cue] = []
    earlier: list[str] = []
    for block in re.split(r"\n\s*\n", content.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        place = next((number for number, line in enumerate(lines[:2]) if _CUE_TIMES.match(line)), None)
        if place is None:
            continue
        times = _CUE_TIMES.match(lines[place]).groups()
        start, end = _seconds(*times[:4]), _seconds(*times[4:])
        voice = _VOICE.search(block)
        said = [" ".join(_NOISE.sub(" ", html.unescape(_TAG.sub("", line))).split()) for line in lines[place + 1 :]]
        text = " ".join(line for line in said if line and line not in earlier)
        earlier = said
        if text:
            cues.append(Cue(start, end, voice[1].strip() if voice else "", text))
    if not cues:
        raise CwjaxError(f"{path}: holds no subtitles; is it SubRip or WebVTT?")
    return sorted(cues)


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
