"""The short English sets of the Open ASR leaderboard, without contexts: whether a model still hears as well as others.

The data set hf-audio/esb-datasets-test-only-sorted is Parquet, `CONFIG/SPLIT-*.parquet`, with the columns audio,
dataset, text, id and audio_length_s (layout: its card). A variant is CONFIG/SPLIT. As the leaderboard does, references
that are empty or "ignore time segment in scoring" are left out.
"""

from collections.abc import Iterator
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, items
from cwjax.evaluation.suites.tables import table_rows

SETS = ("ami", "common_voice", "earnings22", "gigaspeech", "spgispeech", "tedlium", "voxpopuli")
VARIANTS = (*(f"{name}/test" for name in SETS), "librispeech/test.clean", "librispeech/test.other")
COLUMNS = ("text", "id")
UNSCORED = "ignore time segment in scoring"


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields the utterances of a set."""
    name, _, split = variant.partition("/")

    def build(row: Placed) -> Item:
        reference = row.text("text")
        if reference.lower() == UNSCORED:
            raise CwjaxError(f"{row.where}: is not to be scored: its text is {reference!r}")
        return Item(
            id=row.text("id"),
            audio=row.audio(folder),
            reference=reference,
            fields={"subset": variant},
        )

    yield from items(table_rows(folder / name, (f"{split}-*.parquet",), COLUMNS), build)
