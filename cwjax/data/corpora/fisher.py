"""Fisher English (LDC2004S13, LDC2005S13 with LDC2004T19, LDC2005T19): telephone conversations about given topics.

`fe_03_NNNNN.sph` and `fe_03_NNNNN.txt` at any depth, the latter with lines `START END SIDE: WORDS`;
`doc/*_calldata.tbl` names topics and callers, `doc/*topics*` describes the topics. The corpus has no splits: as in
Kaldi's recipe the first 5,000 utterances are for validation and the next 5,000 for the test, but here in whole
conversations, and each at most a tenth of what is there.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cwjax.data.corpora.listed_utterances import ListedArticle, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.telephone import both_sides, read_lines, require_readable, rows, sphere_files, turns
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "Fisher English (fe_03_*.sph and fe_03_*.txt)"
LICENCE = "LDC User Agreement"
SOURCE = "https://catalog.ldc.upenn.edu/LDC2004S13"
EVALUATED_UTTERANCES = 5000

_TRANSCRIPT = re.compile(r"fe_03_(\d{5})\.txt")
_TOPIC = re.compile(r"<topic\s+id=\"?(\w{1,20})\"?\s+title=\"([^\"<>]*)\"[^<>]*>([^<]*)", re.IGNORECASE)


class Call(NamedTuple):
    """What is known about a call: its transcript, split, topic, the topic's question, and callers."""

    transcript: str
    split: str
    topic: str = ""
    prompt: str = ""
    callers: tuple[str, str] = ("", "")


def looks_like(root: Path) -> bool:
    """Whether there is a transcript."""
    return next(root.rglob("fe_03_?????.txt"), None) is not None


def articles(root: Path) -> Iterator[Unit]:
    """Every call that has a transcript."""
    audio, facts = sphere_files(root), _facts(root)
    found = sorted(
        (match[1], path) for path in root.rglob("fe_03_*.txt") if (match := _TRANSCRIPT.fullmatch(path.name))
    )
    order, place, utterances = iter(("validation", "test", "train")), 0, 0
    split = next(order)
    for number, path in found:
        while split != "train" and (utterances >= EVALUATED_UTTERANCES or place >= len(found) // 10):
            split, place, utterances = next(order), 0, 0
        if split != "train":
            place, utterances = place + 1, utterances + sum(1 for _ in turns(path, []))
        call = Call(path.relative_to(root).as_posix(), split, *facts.get(number, ()))
        yield Unit(path.stem, (audio.get(path.stem, f"{path.stem}.sph"),), call)


def _facts(root: Path) -> dict[str, tuple[str, str, tuple[str, str]]]:
    """Topic, its question and the callers by the number of the call."""
    topics: dict[str, tuple[str, str]] = {}
    for path in sorted(path for path in root.rglob("*topics*") if path.is_file()):
        for name, title, prompt in _TOPIC.findall("\n".join(read_lines(path))):
            topics[name.upper()] = " ".join(title.split()), " ".join(prompt.split())
    facts: dict[str, tuple[str, str, tuple[str, str]]] = {}
    for path in sorted(root.rglob("*_calldata.tbl")):
        table = rows(path)
        heads = [name.upper() for name in table[0]] if table else []
        for row in table[1:]:
            fields = dict(zip(heads, row, strict=False))
            topic = topics.get(fields.get("TOPICID", "").upper(), ("", ""))
            facts[fields.get("CALL_ID", row[0])] = (*topic, (fields.get("APIN", ""), fields.get("BPIN", "")))
    return facts


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads both sides of a call, in the order in which they speak.

    Raises CwjaxError if the transcript cannot be read, or the audio is missing or compressed with shorten.
    """
    call: Call = unit.content
    require_readable(root / unit.audio[0])
    context = ContextMaterial(title=call.topic, lead=call.prompt)
    problems: list[str] = []
    utterances = list(both_sides(root, call.transcript, unit, call.callers, context, problems))
    if not utterances:
        raise CwjaxError(f"{root / call.transcript}: holds no utterance")
    utterances.sort(key=lambda one: one.start)
    return as_reading(root, ListedArticle(unit.name, utterances, "en", LICENCE, SOURCE, call.split), limits, problems)
