"""ContextASR-Bench (Wang et al. 2025): made-up speech and dialogues full of names, English and Mandarin.

The data set MrSupW/ContextASR-Bench has `ContextASR-Speech_English.jsonl` and three others, a variant each, whose
lines have uniq_id, language, duration, audio, text, domain_label and entity_list, and tar archives of the audio:
`audio/ContextASR-Speech/English/ContextASR-Speech_English_1.tar` and so on. `audio` is the path of a file as they
unpack in their own folder (layout: the project's evaluation code, and NeMo Skills' preparation of it). The archives
need not be unpacked. The coarse context is the domain, the fine one the entities; dialogues without a domain_label
have the fine one only.
"""

import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, audio_file, items, json_lines, known
from cwjax.evaluation.suites.stored import Stored

VARIANTS = tuple(f"{part}_{language}" for part in ("Speech", "Dialogue") for language in ("English", "Mandarin"))
LANGUAGES = {"English": "en", "Mandarin": "zh"}


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields the lines of a part."""
    part, _, language = variant.partition("_")
    packed = _members(folder / "audio" / f"ContextASR-{part}" / language)

    def build(row: Placed) -> Item:
        path, entities, domain = row.text("audio"), row.texts("entity_list"), row.text("domain_label", "")
        place = None if os.path.isfile(folder / path) else packed.get(Path(path).name)
        return Item(
            id=row.text("uniq_id"),
            audio=Stored(row.where, partial(_member, *place)) if place else audio_file(row.where, folder / path),
            reference=row.text("text"),
            language=LANGUAGES[language],
            texts=known(topic=domain),
            phrases=entities,
            fields={"entities": list(entities), "subset": variant, **known(topic=domain)},
        )

    yield from items(json_lines(folder / f"ContextASR-{variant}.jsonl"), build)


def _members(folder: Path) -> dict[str, tuple[Path, int, int]]:
    """By name, the archive that holds a file, where it begins there, and its bytes."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        try:
            with tarfile.open(path, "r:") as archive:
                found |= {Path(one.name).name: (path, one.offset_data, one.size) for one in archive if one.isfile()}
        except (tarfile.TarError, OSError) as error:
            raise CwjaxError(f"{path}: cannot be read ({error}); fetch it again") from error
    return found


def _member(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as archive:
            archive.seek(offset)
            return archive.read(size)
    except OSError as error:
        raise CwjaxError(f"{path}: can no longer be read ({error.strerror})") from error
