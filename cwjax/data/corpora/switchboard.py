"""Switchboard (LDC97S62): telephone conversations about given topics, a channel for each speaker.

Audio: `sw02001.sph` and so on at any depth, SPHERE with two channels of mu-law or 16-bit samples. Transcripts of the
ISIP: `swb_ms98_transcriptions/20/2001/sw2001A-ms98-a-trans.text`, lines `ID START END WORDS`. Topics and callers: the
tables `conv.tab`, `topic.tab` of the LDC, or `swda-metadata.csv`. The topic's prompt is a sentence of the very kind
that a user would say about a recording, and becomes the lead.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.capitals import as_sentences
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "Switchboard (*.sph and sw*-ms98-a-trans.text)"
LICENCE = "LDC User Agreement"
SOURCE = "https://catalog.ldc.upenn.edu/LDC97S62"
SIDES = "AB"
"""Of a conversation; the first is on the first channel."""

_TRANSCRIPT = re.compile(r"sw(\d{4})([AB])-ms98-a-trans\.text")
_SOUND = re.compile(r"\[(?:noise|vocalized-noise|laughter|silence)\]|<[be]_aside>", re.IGNORECASE)
_LAUGHED = re.compile(r"\[laughter-([^\]\s]+)\]")
_MEANT = re.compile(r"\[[^\]\s/]+/([^\]\s]+)\]")
_CUT_SHORT = re.compile(r"\[[^\]\s]*\]")
_VARIANT = re.compile(r"_\d+\b")


class Conversation(NamedTuple):
    """What is known about a conversation: its transcripts by side, its topic, its callers."""

    number: str
    transcripts: dict[str, str]
    topic: str = ""
    prompt: str = ""
    callers: tuple[str, str] = ("", "")


def looks_like(root: Path) -> bool:
    """Whether there is a transcript."""
    return next(root.rglob("sw*-ms98-a-trans.text"), None) is not None


def articles(root: Path) -> Iterator[Unit]:
    """Every conversation that has a transcript."""
    audio = {path.stem.lower(): path.relative_to(root).as_posix() for path in sorted(root.rglob("*.[sS][pP][hH]"))}
    transcripts: dict[str, dict[str, str]] = {}
    for path in sorted(root.rglob("sw*-ms98-a-trans.text")):
        if match := _TRANSCRIPT.fullmatch(path.name):
            transcripts.setdefault(match[1], {})[match[2]] = path.relative_to(root).as_posix()
    facts = _facts(root)
    for number, sides in sorted(transcripts.items()):
        conversation = Conversation(number, sides, *facts.get(number, ()))
        yield Unit(f"sw{number}", (audio.get(f"sw0{number}", f"sw0{number}.sph"),), conversation)


def _facts(root: Path) -> dict[str, tuple[str, str, tuple[str, str]]]:
    """Topic, prompt and callers by the number of the conversation, from whichever tables are there."""
    facts: dict[str, tuple[str, str, tuple[str, str]]] = {}
    for path in sorted(root.rglob("swda-metadata.csv")):
        rows = _rows(path)
        heads = rows[0] if rows else []
        for row in rows[1:]:
            fields = dict(zip(heads, row, strict=False))
            callers = (fields.get("from_caller", ""), fields.get("to_caller", ""))
            number = fields.get("conversation_no", "")
            facts[number] = (
                as_sentences(fields.get("topic_description", "")),
                as_sentences(fields.get("prompt", "")),
                callers,
            )
    topics: dict[str, tuple[str, str]] = {}
    for path in sorted(root.rglob("topic.tab")):
        for row in _rows(path):
            if len(row) > 2:
                topics[row[1]] = (as_sentences(row[0]), as_sentences(" ".join([row[2], *row[5:6]])))
    for path in sorted(root.rglob("conv.tab")):
        for row in _rows(path):
            if len(row) > 4:
                facts[row[0]] = (*topics.get(row[4], ("", "")), (row[2], row[3]))
    return facts


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            return [[field.strip() for field in row] for row in csv.reader(lines, skipinitialspace=True) if row]
    except (OSError, csv.Error) as error:
        raise CwjaxError(f"{path}: cannot be read ({error}); leave it out or unpack it again") from None


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads both sides of a conversation, in the order in which they speak.

    Raises CwjaxError if a transcript cannot be read, or the audio is missing or compressed with shorten.
    """
    conversation: Conversation = unit.content
    audio = unit.audio[0]
    _require_readable(root / audio)
    context = ContextMaterial(title=conversation.topic, lead=conversation.prompt)
    utterances: list[ListedUtterance] = []
    for side, transcript in sorted(conversation.transcripts.items()):
        speaker = conversation.callers[SIDES.index(side)] or f"{unit.name}{side.lower()}"
        for identifier, start, end, text in _lines(root / transcript):
            utterances.append(
                ListedUtterance(identifier, audio, start, end, text, speaker, SIDES.index(side), context=context)
            )
    utterances.sort(key=lambda one: one.start)
    article = ListedArticle(unit.name, utterances, licence=LICENCE, source=SOURCE)
    return as_reading(root, article, limits)


def _require_readable(audio: Path) -> None:
    """Refuses the compression that no library reads."""
    try:
        with audio.open("rb") as file:
            header = file.read(1024)
    except OSError as error:
        raise CwjaxError(f"{audio}: cannot be read ({error.strerror}); put the audio below the root") from None
    if b"shorten" in header:
        raise CwjaxError(f"{audio}: is compressed with shorten; unpack it with the LDC's sph2pipe (sph2pipe -f sph)")


def _lines(path: Path) -> Iterator[tuple[str, float, float, str]]:
    """Identifier, start and end (s) and clean words of every utterance in which something is said."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, 1):
        fields = line.split(maxsplit=3)
        if len(fields) < 4:
            continue
        try:
            start, end = float(fields[1]), float(fields[2])
        except ValueError:
            raise CwjaxError(f"{path}:{number}: has times that are no numbers ({fields[1]}, {fields[2]})") from None
        if text := clean(fields[3]):
            yield fields[0], start, end, text


def clean(words: str) -> str:
    """What was said, without marks: the intended word of a slip, what was said while laughing, no noises.

    Words that were cut short keep a hyphen where they end ("ab[solute]-" is "ab-").
    """
    words = _SOUND.sub(" ", words)
    words = _MEANT.sub(r"\1", _LAUGHED.sub(r"\1", words))
    words = _CUT_SHORT.sub("", words).replace("{", "").replace("}", "")
    return " ".join(_VARIANT.sub("", words).split())
