"""LibriSpeech packed to clips of up to 30 s, as MLPerf Inference measures Whisper's speed with.

`*-repack.json` is a list of objects with transcript, original_duration and files, of which the first has `fname`, the
path of a clip such as `dev-all-repack/1272-128104_0.wav` as it was where the list was made (layout:
`speech2text/utils/repackage_librispeech.py` of mlcommons/inference). Clips are looked for by that path, in the folder,
and in the folder under the last two parts of the path.
"""

from collections.abc import Iterator
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, audio_file, items, json_list


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields all clips."""
    lists = sorted(folder.glob("*-repack.json"))
    if len(lists) != 1:
        names = ", ".join(path.name for path in lists) or "none"
        raise CwjaxError(f"{folder}: must have one *-repack.json, has {names}; repack LibriSpeech or move others away")

    def build(row: Placed) -> Item:
        files = row.values.get("files")
        if not (isinstance(files, list) and files and isinstance(files[0], dict)):
            raise CwjaxError(f"{row.where}: files is {files!r}; expected a list of objects with fname")
        path = Path(Placed(row.where, files[0]).text("fname"))
        clip = audio_file(row.where, folder / path, folder / path.parent.name / path.name)
        chapter = clip.stem.rpartition("_")[0]
        return Item(
            id=clip.stem,
            audio=clip,
            reference=row.text("transcript"),
            fields={"recording": chapter, "speaker": chapter.partition("-")[0]},
        )

    yield from items(json_list(lists[0]), build)
