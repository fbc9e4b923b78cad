"""Your own recordings with subtitles: audio files, each with an `.srt`, `.vtt` or `.ass` of the same name beside it.

`talk.ogg` goes with `talk.srt`, or `talk.de.srt` if it is German; without a language it is English. What you would say
about the recording may stand in `talk.txt`; else the file's name is its title. Marks that nobody says, such as "JOHN:",
"(Applause)" and the dash before a change of speakers, are left out (`--keep-marks` keeps them).
"""

import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pysubs2

from cwjax.data.corpora.languages import whisper_language
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.tables import decoded_lines
from cwjax.data.segment import ContextMaterial, join_texts
from cwjax.errors import CwjaxError

TITLE = "folder of your own (audio files with .srt, .vtt or .ass beside them)"
AUDIO_ENDINGS = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".mkv", ".webm", ".mov", ".aiff",
)  # fmt: skip
SUBTITLE_ENDINGS = (".srt", ".vtt", ".ass", ".ssa")
"""The first that is there and can be read is taken."""
TOUCHING = 0.1
"""Seconds between subtitles that follow each other at once, as those that roll do."""

_TIME = r"(-?)(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_CUE_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_NO_CUE = re.compile(r"(?:NOTE|STYLE|REGION|WEBVTT)\b")
_TAG_OF_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z]{2,4})?")
_FLAGS = ("sdh", "cc", "forced", "default", "hi")
_VOICE = re.compile(r"<v(?:\.[^\s<>]{0,100})? {1,9}([^\s<>][^<>]{0,200})>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
_NOISE = re.compile(r"\[[^\[\]]*\]|\([^()]{1,80}\)|（[^（）]{1,80}）|［[^［］]{1,80}］")
_CHANGE = re.compile(r"^(?:>>+|[-–—](?=\s|[^\W\d]))\s*")
_NAME = re.compile(r"([^:]{1,40}):(?:\s+|$)")


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
    return (path for path in root.rglob("*") if path.suffix.lower() in SUBTITLE_ENDINGS)


def articles(root: Path) -> Iterator[Unit]:
    """Every recording with its subtitles, and every file of subtitles without one."""
    beside: dict[tuple[Path, Path | None], list[tuple[Path, str]]] = defaultdict(list)
    folders: dict[Path, dict[str, Path]] = {}
    for path in sorted(_subtitle_files(root)):
        if path.parent not in folders:
            folders[path.parent] = {other.name.lower(): other for other in path.parent.iterdir()}
        audio, language = _audio_beside(path, folders[path.parent])
        beside[audio or path, audio].append((path.relative_to(root), language))
    for (_, audio), files in beside.items():
        files.sort(key=lambda one: (SUBTITLE_ENDINGS.index(one[0].suffix.lower()), one))
        names = (audio.relative_to(root).as_posix(),) if audio else ()
        yield Unit(files[0][0].as_posix(), names, tuple((path.as_posix(), language) for path, language in files))


def _audio_beside(subtitles: Path, folder: dict[str, Path]) -> tuple[Path | None, str]:
    """The recording of a file of subtitles, and the language that its name says."""
    stem, tags = subtitles.stem, []
    while True:
        for ending in AUDIO_ENDINGS:
            if audio := folder.get(f"{stem}{ending}".lower()):
                return audio, next((tag for tag in tags if tag.lower() not in _FLAGS), "")
        stem, _, tag = stem.rpartition(".")
        if not stem or not (tag.lower() in _FLAGS or _TAG_OF_LANGUAGE.fullmatch(tag) or whisper_language(tag)):
            return None, ""
        tags.append(tag)


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of a recording's subtitles.

    Raises CwjaxError if the audio is missing, no file holds subtitles, or they are in several languages of which none
    was chosen.
    """
    first = root / unit.name
    if not unit.audio:
        raise CwjaxError(f"{first}: has no audio beside it ({first.stem}.wav, .flac, .ogg, .mp3 or the like)")
    languages = dict.fromkeys(whisper_language(language or "en") or language for _, language in unit.content)
    wanted = whisper_language(limits.language) if limits.language else ""
    if len(languages) > 1 and wanted not in languages:
        raise CwjaxError(
            f"{root / unit.audio[0]}: has subtitles in several languages ({', '.join(languages)}); choose one with "
            "--language"
        )
    language = wanted if wanted in languages else next(iter(languages))
    problems: list[str] = []
    cues: list[Cue] = []
    for path, spoken in unit.content:
        if (whisper_language(spoken or "en") or spoken) != language:
            continue
        if cues:
            problems.append(f"{root / path}: is not read, for another file of the same subtitles is")
            continue
        try:
            cues = read_cues(root / path, limits.keep_marks, language)
        except CwjaxError as error:
            problems.append(str(error))
    if not cues:
        raise CwjaxError(problems[0])
    audio = root / unit.audio[0]
    described = audio.with_suffix(".txt")
    description = ""
    if described.is_file():
        description = " ".join(described.read_text(encoding="utf-8", errors="replace").split())
    context = ContextMaterial(title=audio.stem.replace("_", " "), lead=description)
    article = audio.relative_to(root).with_suffix("").as_posix()
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
    return as_reading(root, ListedArticle(article, utterances, language), limits, problems)


def read_cues(path: Path, keep_marks: bool = False, language: str = "en") -> list[Cue]:
    """The subtitles of a file in which something is said, in order.

    Where subtitles roll, each repeating the last line of the one before, every line is given once.

    Args:
        path: SubRip, WebVTT or SubStation Alpha.
        keep_marks: whether to keep names of speakers, sounds and dashes at changes of speakers.

    Raises:
        CwjaxError: the file cannot be read or holds no subtitles.
    """
    try:
        with path.open("rb") as file:
            lines = [line.text.rstrip("\r\n") for line in decoded_lines(path, file)]
        kind = path.suffix.lower()[1:]
        if kind in ("srt", "vtt"):
            kind, lines = "srt", list(_as_subrip(lines))
        events = pysubs2.SSAFile.from_string("\n".join(lines), format_=kind, keep_html_tags=True)
    except (OSError, ValueError, pysubs2.exceptions.Pysubs2Error) as error:
        raise CwjaxError(f"{path}: cannot be read as subtitles ({error})") from None
    events = sorted((one for one in events if not one.is_comment), key=lambda one: one.start)
    cues: list[Cue] = []
    for event, lines in zip(events, _unrolled(events), strict=True):
        voice = _VOICE.search(event.text)
        speaker = voice[1].strip() if voice else event.name.strip()
        if not keep_marks:
            lines, name = _without_marks(lines)
            speaker = speaker or name
        if text := join_texts(lines, language):
            cues.append(Cue(event.start / 1000, event.end / 1000, speaker, text))
    if not cues:
        raise CwjaxError(f"{path}: holds no subtitles; is it SubRip, WebVTT or SubStation Alpha?")
    return cues


def _unrolled(events: Sequence[pysubs2.SSAEvent]) -> list[list[str]]:
    """The lines of subtitles, without those repeated from the one before if that is the way of the whole file."""
    said = [list(filter(None, map(_plain, event.text.split("\\N")))) for event in events]
    repeated = [0] * len(said)
    for place in range(1, len(said)):
        before, lines = said[place - 1], said[place]
        if events[place].start - events[place - 1].end < 1000 * TOUCHING:
            sizes = range(min(len(before), len(lines)), 0, -1)
            repeated[place] = next((size for size in sizes if before[-size:] == lines[:size]), 0)
    rolls = sum(map(bool, repeated)) >= len(said) / 3
    return [lines[size:] if rolls else lines for lines, size in zip(said, repeated, strict=True)]


def _as_subrip(lines: Iterable[str]) -> Iterator[str]:
    """SubRip or WebVTT as SubRip in which every subtitle has a number and whole times, and nothing else stands."""
    held: list[str] = []  # what was said since the last times, and the number or name of the next subtitle
    count, is_webvtt, skips = 0, False, False
    for line in lines:
        is_webvtt = is_webvtt or (not count and line.startswith("WEBVTT"))
        if times := _CUE_TIMES.fullmatch(line):
            count, skips = count + 1, False
            if held and held[-1].strip():
                stands_alone = len(held) < 2 or not held[-2].strip()
                if held[-1].strip().isdecimal() or (is_webvtt and stands_alone):
                    held.pop()
            elif "".join(held).strip() and [one.strip() for one in held if one.strip()][-1] == str(count):
                held = held[: max(place for place, one in enumerate(held) if one.strip())]
            yield from (*held, "", "1", f"{_time(*times.groups()[:5])} --> {_time(*times.groups()[5:])}")
            held = []
            continue
        if not line.strip():
            skips = False
        elif is_webvtt and _NO_CUE.match(line) and (not count or (held and not held[-1].strip())):
            skips = True
        if not skips:
            held.append(line)
    yield from (*held, "", "1")  # without which a last line that is a number would be lost


def _time(sign: str, hours: str | None, minutes: str, seconds: str, fraction: str | None) -> str:
    if sign:
        return "00:00:00,000"
    return f"{int(hours or 0):02d}:{int(minutes):02d}:{int(seconds):02d},{(fraction or '').ljust(3, '0')}"


def _plain(line: str) -> str:
    """A line without what is for the screen."""
    return " ".join(html.unescape(_TAG.sub("", line)).replace("♪", " ").replace("♫", " ").split())


def _without_marks(lines: list[str]) -> tuple[list[str], str]:
    """What is said, and who says it if that is marked at the start."""
    speaker, kept = "", []
    for line in lines:
        line = _CHANGE.sub("", _NOISE.sub(" ", line).strip())
        name = _NAME.match(line)
        if name and name[1].isupper():
            speaker, line = speaker or name[1], line[name.end() :]
        kept.append(" ".join(line.split()))
    return kept, speaker
