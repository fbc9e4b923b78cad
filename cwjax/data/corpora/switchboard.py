"""Switchboard (LDC97S62): telephone conversations about given topics, a channel for each speaker.

Audio: `sw02001.sph` and so on at any depth, SPHERE with two channels of mu-law or 16-bit samples. Transcripts of the
ISIP: `swb_ms98_transcriptions/20/2001/sw2001A-ms98-a-trans.text`, lines `ID START END WORDS`. Topics and callers: the
tables of the LDC (`conv_tab.csv`, `topic_tab.csv`, or `conv.tab`, `topic.tab`), or `swda-metadata.csv`. The topic's
prompt is a sentence of the very kind that a user would say about a recording, and becomes the lead.

The first conversations are for validation, until they have 4,000 utterances, as in Kaldi's recipe (which also divides
the last of them), or until they are a tenth of what is there; nearly all callers are connected by their calls, so
training and validation share some. The test set is eval2000, with other callers: `hub5e_00/english/*.sph`
(LDC2002S09) and `reference/english/*.txt` (LDC2002T43), conversations of Switchboard (`sw_*`) and CallHome (`en_*`).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.capitals import as_sentences
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.telephone import SIDES, both_sides, read_lines, require_readable, rows, sphere_files
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "Switchboard (*.sph and sw*-ms98-a-trans.text) or eval2000 (hub5e_00 and reference/english)"
LICENCE = "LDC User Agreement"
SOURCE = "https://catalog.ldc.upenn.edu/LDC97S62"
EVAL2000_SOURCE = "https://catalog.ldc.upenn.edu/LDC2002S09"
DEV_UTTERANCES = 4000

_TRANSCRIPT = re.compile(r"sw(\d{4})([AB])-ms98-a-trans\.text")
_SOUND = re.compile(r"\[(?:noise|vocalized-noise|laughter|silence)\]|<[be]_aside>", re.IGNORECASE)
_LAUGHED = re.compile(r"\[laughter-([^\[\]\s]+)\]")
_MEANT = re.compile(r"\[[^\[\]\s/]+/([^\[\]\s]+)\]")
_CUT_SHORT = re.compile(r"\[[^\[\]\s]*\]")
_VARIANT = re.compile(r"_\d+\b")


class Conversation(NamedTuple):
    """What is known about a conversation: its transcripts by side, or one of both; its topic and callers."""

    transcripts: dict[str, str]
    split: str
    topic: str = ""
    prompt: str = ""
    callers: tuple[str, str] = ("", "")
    subset: str = ""


def looks_like(root: Path) -> bool:
    """Whether there is a transcript."""
    found = next(root.rglob("sw*-ms98-a-trans.text"), None) or next(_eval2000(root), None)
    return found is not None


def _eval2000(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("reference/english/*.txt") if path.stem[:3] in ("sw_", "en_"))


def articles(root: Path) -> Iterator[Unit]:
    """Every conversation that has a transcript."""
    audio = sphere_files(root)
    transcripts: dict[str, dict[str, str]] = {}
    for path in sorted(root.rglob("sw*-ms98-a-trans.text")):
        if match := _TRANSCRIPT.fullmatch(path.name):
            transcripts.setdefault(match[1], {})[match[2]] = path.relative_to(root).as_posix()
    facts = _facts(root)
    utterances = 0
    for place, (number, sides) in enumerate(sorted(transcripts.items())):
        split = "validation" if utterances < DEV_UTTERANCES and place < len(transcripts) // 10 else "train"
        if split == "validation":
            utterances += sum(1 for path in sides.values() for _ in _lines(root / path))
        conversation = Conversation(sides, split, *facts.get(number, ()))
        yield Unit(f"sw{number}", (audio.get(f"sw0{number}", f"sw0{number}.sph"),), conversation)
    for path in sorted(_eval2000(root)):
        subset = f"eval2000 {'Switchboard' if path.stem.startswith('sw') else 'CallHome'}"
        conversation = Conversation({SIDES: path.relative_to(root).as_posix()}, "test", subset=subset)
        yield Unit(path.stem, (audio.get(path.stem.lower(), f"{path.stem}.sph"),), conversation)


def _facts(root: Path) -> dict[str, tuple[str, str, tuple[str, str]]]:
    """Topic, prompt and callers by the number of the conversation, from whichever tables are there."""
    facts: dict[str, tuple[str, str, tuple[str, str]]] = {}
    for path in sorted(root.rglob("swda-metadata.csv")):
        table = rows(path)
        heads = table[0] if table else []
        for row in table[1:]:
            fields = dict(zip(heads, row, strict=False))
            callers = (fields.get("from_caller", ""), fields.get("to_caller", ""))
            number = fields.get("conversation_no", "")
            facts[number] = (
                as_sentences(fields.get("topic_description", "")),
                as_sentences(fields.get("prompt", "")),
                callers,
            )
    topics: dict[str, tuple[str, str]] = {}
    for row in _ldc_rows(root, "topic"):
        if len(row) > 2:
            topics[row[1]] = (as_sentences(row[0]), as_sentences(" ".join([row[2], *row[5:6]])))
    for row in _ldc_rows(root, "conv"):
        if len(row) > 4:
            facts[row[0]] = (*topics.get(row[4], ("", "")), (row[2], row[3]))
    return facts


def _ldc_rows(root: Path, table: str) -> Iterator[list[str]]:
    for name in (f"{table}.tab", f"{table}_tab.csv"):
        for path in sorted(root.rglob(name)):
            yield from rows(path)


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads both sides of a conversation, in the order in which they speak.

    Raises CwjaxError if a transcript cannot be read, or the audio is missing or compressed with shorten.
    """
    conversation: Conversation = unit.content
    audio = unit.audio[0]
    require_readable(root / audio)
    context = ContextMaterial(title=conversation.topic, lead=conversation.prompt)
    utterances: list[ListedUtterance] = []
    problems: list[str] = []
    for side, transcript in sorted(conversation.transcripts.items()):
        if side == SIDES:
            utterances += both_sides(root, transcript, unit, conversation.callers, context, problems)
            continue
        channel = SIDES.index(side)
        speaker = conversation.callers[channel] or f"{unit.name}{side}"
        for identifier, start, end, text in _lines(root / transcript):
            if text:
                one = ListedUtterance(identifier, audio, start, end, text, speaker, channel, context=context)
                utterances.append(one)
    utterances.sort(key=lambda one: one.start)
    article = ListedArticle(
        unit.name,
        utterances,
        licence=LICENCE,
        source=EVAL2000_SOURCE if conversation.subset else SOURCE,
        split=conversation.split,
        subset=conversation.subset,
    )
    return as_reading(root, article, limits, problems)


def _lines(path: Path) -> Iterator[tuple[str, float, float, str]]:
    """Identifier, start and end (s) and clean words, if any, of everything but silence."""
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split(maxsplit=3)
        if len(fields) < 4 or fields[3].strip() == "[silence]":
            continue
        try:
            start, end = float(fields[1]), float(fields[2])
        except ValueError:
            raise CwjaxError(f"{path}:{number}: has times that are no numbers ({fields[1]}, {fields[2]})") from None
        yield fields[0], start, end, clean(fields[3])


def clean(words: str) -> str:
    """What was said, without marks: the intended word of a slip, what was said while laughing, no noises.

    Words that were cut short keep a hyphen where they end ("ab[solute]-" is "ab-").
    """
    words = _SOUND.sub(" ", words)
    words = _MEANT.sub(r"\1", _LAUGHED.sub(r"\1", words))
    words = _CUT_SHORT.sub("", words).replace("{", "").replace("}", "")
    return " ".join(_VARIANT.sub("", words).split())
