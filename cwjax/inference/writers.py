"""Transcripts as files: plain text, subtitles, tables, lyrics, JSON.

txt, vtt, srt, tsv and json are byte for byte those of openai-whisper's `whisper.utils.get_writer`, unless speakers are
known; subtitles are WebVTT (W3C) and SubRip.
"""

import csv
import dataclasses
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.files import write_text
from cwjax.inference.transcript import Segment, Transcript, Word

LONG_PAUSE = 3.0
"""Seconds between the starts of two words from which subtitles of a fixed number of lines begin anew."""
UNLIMITED = 1000
"""Characters of a line and words of a subtitle where the user sets no limit."""


@dataclasses.dataclass(frozen=True)
class SubtitleLayout:
    """How words are laid out in subtitles; it needs word times, and segments without them are left whole.

    With both `max_line_width` and `max_line_count` words flow from one subtitle into the next, else every segment
    begins a new one.

    Attributes:
        max_line_width: characters of a line.
        max_line_count: lines of a subtitle.
        max_words_per_line: words of a subtitle.
        highlight_words: a subtitle for every word, which is underlined in it.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    max_words_per_line: int | None = None
    highlight_words: bool = False

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise CwjaxError(f"--{name.replace('_', '-')} is {limit}: it must be at least 1, or none")


def save_transcript(transcript: Transcript, path: str | Path, layout: SubtitleLayout | None = None) -> Path:
    """Writes a transcript as the kind of file that the suffix names, whole or not at all.

    Args:
        transcript: to write.
        path: in a folder that exists; its suffix is one of `FORMATS`, in small letters or capitals.
        layout: of subtitles.

    Raises:
        CwjaxError: the suffix names no format, or the file cannot be written.
    """
    path = Path(path)
    write = FORMATS.get(path.suffix[1:].lower())
    if write is None:
        raise CwjaxError(f"{path}: is no format of transcripts; end the name in .{', .'.join(FORMATS)}")
    try:
        write_text(path, write(transcript, layout or SubtitleLayout()))
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be written ({error.strerror}); choose another folder or make room") from error
    return path


def timestamp(seconds: float, decimal_marker: str = ".", always_hours: bool = False) -> str:
    """A time as [HH:]MM:SS.mmm, to the nearest millisecond."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    hours_part = f"{hours:02d}:" if always_hours or hours else ""
    return f"{hours_part}{minutes:02d}:{milliseconds // 1000:02d}{decimal_marker}{milliseconds % 1000:03d}"


def _txt(transcript: Transcript, _: SubtitleLayout) -> str:
    return "".join(f"{_label(segment.speaker)}{segment.text.strip()}\n" for segment in transcript.segments)


def _vtt(transcript: Transcript, layout: SubtitleLayout) -> str:
    cues = _cues(transcript.segments, layout, timestamp)
    voices = ((start, end, f"<v {_name(speaker)}>" if speaker else "", text) for start, end, speaker, text in cues)
    return "WEBVTT\n\n" + "".join(f"{start} --> {end}\n{voice}{text}\n\n" for start, end, voice, text in voices)


def _srt(transcript: Transcript, layout: SubtitleLayout) -> str:
    cues = _cues(transcript.segments, layout, lambda seconds: timestamp(seconds, ",", always_hours=True))
    return "".join(
        f"{number}\n{start} --> {end}\n{_label(speaker)}{text}\n\n"
        for number, (start, end, speaker, text) in enumerate(cues, 1)
    )


def _lrc(transcript: Transcript, _: SubtitleLayout) -> str:
    """Lyrics, a line a segment, with minutes and hundredths of a second."""
    lines = []
    for segment in transcript.segments:
        minutes, hundredths = divmod(round(segment.start * 100), 6000)
        text = _label(segment.speaker) + " ".join(segment.text.split())
        lines.append(f"[{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}]{text}\n")
    return "".join(lines)


def _tsv(transcript: Transcript, _: SubtitleLayout) -> str:
    return "".join("\t".join(str(cell).replace("\t", " ") for cell in row) + "\n" for row in _rows(transcript))


def _csv(transcript: Transcript, _: SubtitleLayout) -> str:
    """A table as RFC 4180 has it: every text in quotes."""
    header, *rows = _rows(transcript)
    table = io.StringIO(newline="")
    csv.writer(table, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return ",".join(header) + "\n" + table.getvalue()


def _json(transcript: Transcript, _: SubtitleLayout) -> str:
    return json.dumps(transcript.to_dict())


FORMATS: dict[str, Callable[[Transcript, SubtitleLayout], str]] = {
    "txt": _txt,
    "vtt": _vtt,
    "srt": _srt,
    "tsv": _tsv,
    "json": _json,
    "csv": _csv,
    "lrc": _lrc,
}
"""File suffix -> what such a file holds."""
OPENAI_FORMATS = ("txt", "vtt", "srt", "tsv", "json")
"""What openai-whisper calls all formats."""


def _rows(transcript: Transcript) -> list[tuple[Any, ...]]:
    """A header and the segments, times in milliseconds; with the speakers where any is known."""
    rows: list[tuple[Any, ...]] = [("start", "end", "text", "speaker")]
    for one in transcript.segments:
        rows.append((round(1000 * one.start), round(1000 * one.end), one.text.strip(), _name(one.speaker)))
    return rows if any(one.speaker for one in transcript.segments) else [row[:3] for row in rows]


def _label(speaker: str) -> str:
    return f"{_name(speaker)}: " if speaker else ""


def _name(speaker: str) -> str:
    """A speaker on one line, without what would end a voice tag of WebVTT."""
    return " ".join(speaker.replace(">", " ").split())


def _cues(
    segments: Sequence[Segment], layout: SubtitleLayout, clock: Callable[[float], str]
) -> Iterator[tuple[str, str, str, str]]:
    """Start, end, speaker and text of every subtitle; no subtitle holds words of two speakers."""
    if any(segment.words is None for segment in segments):
        for segment in segments:
            text = segment.text.strip().replace("-->", "->")
            yield clock(segment.start), clock(segment.end), segment.speaker, text
        return
    for speaker, said in itertools.groupby(segments, lambda segment: segment.speaker):
        for words in _subtitles(list(said), layout):
            if layout.highlight_words:
                yield from ((start, end, speaker, text) for start, end, text in _highlighted(words, clock))
            else:
                yield clock(words[0].start), clock(words[-1].end), speaker, "".join(word.text for word in words)


def _subtitles(segments: Sequence[Segment], layout: SubtitleLayout) -> Iterator[list[Word]]:
    """The words of every subtitle, their texts with the line breaks between them."""
    width, count = layout.max_line_width or UNLIMITED, layout.max_line_count
    flowing = layout.max_line_width is not None and count is not None
    subtitle: list[Word] = []
    lines, line_length = 1, 0
    previous_start: float | None = None
    for group in _groups(segments, layout.max_words_per_line or UNLIMITED):
        for place, word in enumerate(group):
            pause = flowing and previous_start is not None and word.start - previous_start > LONG_PAUSE
            previous_start = word.start
            new_group = place == 0 and bool(subtitle) and not flowing
            if line_length and line_length + len(word.text) <= width and not pause and not new_group:
                subtitle.append(word)
                line_length += len(word.text)
                continue
            text = word.text.strip()
            full = bool(subtitle) and count is not None and (pause or lines >= count)
            if full or new_group:
                yield subtitle
                subtitle, lines = [], 1
            elif line_length:
                lines += 1
                text = "\n" + text
            line_length = len(text.strip())
            subtitle.append(dataclasses.replace(word, text=text))
    if subtitle:
        yield subtitle


def _groups(segments: Sequence[Segment], size: int) -> Iterator[Sequence[Word]]:
    """Every segment's words, at most `size` at a time."""
    for segment in segments:
        words = segment.words or ()
        for first in range(0, len(words), size):
            yield words[first : first + size]


def _highlighted(words: Sequence[Word], clock: Callable[[float], str]) -> Iterator[tuple[str, str, str]]:
    """A subtitle once for every word, underlined, and plain in the gaps between words."""
    texts = [word.text for word in words]
    shown_until = clock(words[0].start)
    for place, word in enumerate(words):
        start, end = clock(word.start), clock(word.end)
        if shown_until != start:
            yield shown_until, start, "".join(texts)
        yield start, end, "".join([*texts[:place], _underlined(texts[place]), *texts[place + 1 :]])
        shown_until = end


def _underlined(text: str) -> str:
    """The text inside <u>, the space or line break before it outside; several lines are left as they are."""
    parts = re.fullmatch(r"(\s*)(.*)(\n?)", text)
    return "{}<u>{}</u>{}".format(*parts.groups()) if parts else text
