"""LibriSpeech's test sets with the biasing lists of Le et al. 2021 (fbai-speech, `is21_deep_bias`).

`ref/test-clean.biasing_100.tsv` and the like have four columns: id, text in small letters, a JSON list of the text's
rare words, and one of these and the distractors. A variant is such a file's name without its ending. The folder holds
`LibriSpeech/test-clean/...` and the lists, beside it or in `ref`, as they are cloned. LibriSpeech's own table of
chapters gives title and topic; what was said before is known where the numbers of utterances follow each other.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from cwjax.data.corpora.librispeech import read_table
from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, audio_file, items, known, lines

SIZES = (100, 500, 1000, 2000)
VARIANTS = tuple(f"{subset}.biasing_{size}" for subset in ("test-clean", "test-other") for size in SIZES)
PLACES = ("", "ref", "is21_deep_bias/ref", "fbai-speech/is21_deep_bias/ref")


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields the utterances of a list, then the names of those that have audio and are not in it."""
    base = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    subset = variant.partition(".")[0]
    path = next((one for place in PLACES if (one := folder / place / f"{variant}.tsv").is_file()), None)
    if path is None:
        raise CwjaxError(f"{folder}: has no {variant}.tsv, nor have its folders {', '.join(PLACES[1:])}")
    if not (base / subset).is_dir():
        raise CwjaxError(f"{base}: has no folder {subset}; unpack LibriSpeech's {subset}.tar.gz there")
    chapters = read_table(base / "CHAPTERS.TXT")
    said = dict(line.split("\t", 2)[:2] for _, line in lines(path) if line.count("\t") > 1)

    def build(row: Placed) -> Item:
        name, rare = row.text("id"), row.texts("rare")
        speaker, chapter, number = name.split("-")
        fields = chapters.get(chapter, [])
        book, title = (fields[-1] if len(fields) > 7 else ""), " | ".join(fields[6:-1])
        return Item(
            id=name,
            audio=audio_file(row.where, base / subset / speaker / chapter / f"{name}.flac"),
            reference=row.text("text"),
            texts=known(
                title=book,
                topic=f"{title}, {book}" if title and book else "",
                previous=said.get(f"{speaker}-{chapter}-{int(number) - 1:04d}", ""),
            ),
            phrases=rare,
            distractors=tuple(word for word in row.texts("list") if word not in rare),
            fields={
                "bias_words": list(rare),
                "speaker": speaker,
                "recording": f"{speaker}-{chapter}",
                "subset": subset,
            },
        )

    yield from items(_rows(path), build)
    for flac in sorted((base / subset).glob("*/*/*.flac")):
        if flac.stem not in said:
            yield f"{path}: has no line for {flac.stem}, which has audio"


def _rows(path: Path) -> Iterator[Placed | str]:
    for where, line in lines(path):
        name, *rest = line.split("\t")
        digits = name.split("-")
        if len(rest) != 3 or len(digits) != 3 or not all(map(str.isdecimal, digits)):
            yield f"{where}: is no line of four columns that begins with READER-CHAPTER-NUMBER"
            continue
        try:
            yield Placed(where, {"id": name, "text": rest[0], "rare": json.loads(rest[1]), "list": json.loads(rest[2])})
        except ValueError as error:
            yield f"{where}: its lists are no JSON ({error})"
