"""ProfASR-Bench (Piskala 2025): made-up professional talk with a prompt for each utterance.

The data set prdeepakbabu/ProfASR-Bench is Arrow files, `data/train/data-*.arrow`, with the columns utterance_id, audio,
text, profile, domain, voice, asr_difficulty, sentences, prompt and truth (layout: its card). `truth` is what is said;
`prompt` the sentences before it. Its ladder is no prompt, the profile (our title), domain and profile (our topic). The
same text in several voices is one cluster.
"""

from collections.abc import Iterator
from pathlib import Path

from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, items, known
from cwjax.evaluation.suites.tables import table_rows

COLUMNS = ("utterance_id", "truth", "profile", "domain", "voice", "prompt")


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields all utterances."""

    def build(row: Placed) -> Item:
        truth, domain, profile = row.text("truth"), row.text("domain", "").lower(), row.text("profile", "")
        return Item(
            id=row.text("utterance_id"),
            audio=row.audio(folder),
            reference=truth,
            texts=known(
                title=profile,
                topic=". ".join(filter(None, (domain.capitalize(), profile))),
                previous=" ".join(row.texts("prompt")),
            ),
            fields={"cluster": truth, **known(topic=domain, subset=domain, speaker=row.text("voice", ""))},
        )

    yield from items(table_rows(folder, ("data-*.arrow", "*.parquet"), COLUMNS), build)
