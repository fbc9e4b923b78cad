"""Earnings-21 (Del Rio et al. 2021) with the transcripts and contexts of ConEC (Huang et al. 2024): whole calls.

Of ConEC: `earnings21/transcripts/nlp_references/ID.nlp`, a token a line under
`token|speaker|ts|endTs|punctuation|case|tags|wer_tags`, where tags such as `['7:PERSON']` number the entities;
`earnings21/contexts/ID.txt`, `word count` lines of the slides and the press release, without punctuation inside words;
`earnings21/contexts/participant_names/ID.names.txt`, `Brett Ponton - President and CEO`. Of revdotcom/speech-datasets:
`earnings21/media/ID.mp3` and `earnings21/earnings21-file-metadata.csv`, with company_name and sector (layout: the two
repositories). The folder holds both, either side by side as they are cloned or merged into one.

Phrases are the named entities that are said, distractors the participants and words of the lists that are not. Tokens
such as <inaudible> are nothing that is said.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, audio_file, items, known, lines

NAMED = {"PERSON", "ORG", "GPE", "LOC", "FAC", "PRODUCT", "NORP", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE"}
"""Kinds of entities that are names; the others are numbers, times and abbreviations."""
AUDIO = (".mp3", ".wav", ".flac")
COLUMNS = ("token", "punctuation", "tags")
_TAG = re.compile(r"'(\d+):([A-Z_]+)'")


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields all calls."""
    conec = _part(folder, "ConEC", "transcripts/nlp_references")
    calls = _part(folder, "speech-datasets", "media")
    about = _metadata(calls / "earnings21-file-metadata.csv")

    def build(row: Placed) -> Item:
        path, name = row.values["path"], row.values["path"].stem
        reference, entities = _transcript(path)
        contexts = conec / "contexts"
        people = _lines(contexts / "participant_names" / f"{name}.names.txt")
        listed = [line.split()[0] for line in _lines(contexts / f"{name}.txt")]
        spoken = {_key(word) for word in reference.split()}
        absent = [one for one in (person.partition(" - ")[0] for person in people) if one not in reference]
        call = about.get(name, {})
        company, sector = (" ".join((call.get(column) or "").split()) for column in ("company_name", "sector"))
        return Item(
            id=name,
            audio=audio_file(row.where, *(calls / "media" / f"{name}{end}" for end in AUDIO)),
            reference=reference,
            texts=known(
                title=company,
                topic=". ".join(filter(None, (company and f"Earnings call of {company}", sector))),
                lead="; ".join(people),
            ),
            phrases=entities,
            distractors=tuple(dict.fromkeys([*absent, *(word for word in listed if word not in spoken)])),
            fields={"keywords": list(entities), "recording": name, **known(topic=sector)},
        )

    files = sorted((conec / "transcripts" / "nlp_references").glob("*.nlp"))
    yield from items((Placed(str(path), {"path": path}) for path in files), build)
    told = {path.stem for path in files}
    for path in sorted((calls / "media").iterdir()):
        if path.suffix in AUDIO and path.stem not in told:
            yield f"{path}: ConEC has no transcript of it"


def _part(folder: Path, repository: str, inside: str) -> Path:
    """Where one of the two repositories has its Earnings-21."""
    places = (folder / repository / "earnings21", folder / "earnings21", folder)
    found = next((one for one in places if (one / inside).is_dir()), None)
    if found is None:
        raise CwjaxError(f"{folder}: has neither {repository}/earnings21/{inside} nor earnings21/{inside}; clone it")
    return found


def _transcript(path: Path) -> tuple[str, tuple[str, ...]]:
    """What is said, with punctuation, and the named entities in it, each once."""
    rows = (line.split("|") for _, line in lines(path))
    heads = next(rows, [])
    if missing := [name for name in COLUMNS if name not in heads]:
        raise CwjaxError(f"{path}, line 1: has no column {', '.join(missing)}; expected those of an .nlp file")
    token, mark, tags = map(heads.index, COLUMNS)
    said: list[str] = []
    entities: defaultdict[str, list[str]] = defaultdict(list)
    for number, row in enumerate(rows, 2):
        if len(row) != len(heads):
            raise CwjaxError(f"{path}, line {number}: has {len(row)} columns; expected {len(heads)}")
        if row[token].startswith("<") and row[token].endswith(">"):
            continue
        said.append(row[token] + row[mark])
        for entity, kind in _TAG.findall(row[tags]):
            if kind in NAMED:
                entities[entity].append(row[token])
    return " ".join(said), tuple(dict.fromkeys(map(" ".join, entities.values())))


def _key(word: str) -> str:
    """A word as ConEC's lists write it."""
    return "".join(filter(str.isalnum, word.lower()))


def _lines(path: Path) -> list[str]:
    return [" ".join(line.split()) for _, line in lines(path)] if path.is_file() else []


def _metadata(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        return {str(row.get("file_id")).strip(): row for row in csv.DictReader(line for _, line in lines(path))}
    except csv.Error as error:
        raise CwjaxError(f"{path}: is no CSV ({error}); fetch it again") from error
