"""Contextual Earnings-22 (Argmax and UCLA 2026): 15 s of earnings calls with the names that are said in them.

The data set argmaxinc/contextual-earnings22 is Parquet, `test-*.parquet`, with the columns audio, file_id,
audio_start, audio_end, text, norm_text, `dictionary` (names of the clip, its local list), `keywords` (those of the
whole call, its global list) and others (layout: NeMo Skills' preparation of it). Keywords are scored against the local
list whatever the system was told, as there; the rest of the global one are the distractors.
"""

from collections.abc import Iterator
from pathlib import Path

from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, items
from cwjax.evaluation.suites.tables import table_rows

COLUMNS = ("file_id", "audio_start", "text", "dictionary", "keywords")


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields all clips; the id is that of the file and where the clip begins in it, in seconds."""

    def build(row: Placed) -> Item:
        file, local = row.text("file_id"), row.texts("dictionary")
        return Item(
            id=f"{file}@{row.number('audio_start'):.2f}",
            audio=row.audio(folder),
            reference=row.text("text"),
            phrases=local,
            distractors=tuple(one for one in row.texts("keywords") if one not in local),
            fields={"keywords": list(local), "recording": file.partition("_chunk")[0]},
        )

    yield from items(table_rows(folder, ("test-*.parquet",), COLUMNS), build)
