"""A prepared corpus in the layouts of others: files of sound with lhotse's cuts, NeMo's manifests or an audio folder of
Hugging Face's datasets."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TextIO

import soundfile
from tqdm import tqdm

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.corpora.reader import FACTS
from cwjax.data.cuts import Cut, Supervision, read_cuts
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.prepared.index import cuts_file
from cwjax.data.prepared.splits import SPLITS
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

ExportFormat = Literal["lhotse", "nemo", "hf"]
"""lhotse: cuts_SPLIT.jsonl, a cut a recording. nemo: SPLIT_manifest.json, an utterance a line with its offset. hf:
SPLIT/metadata.jsonl, an utterance a file."""


def export(corpus: PreparedCorpus, form: ExportFormat, output: Path) -> dict[str, int]:
    """Writes a prepared corpus for others, whole or not at all; sound is FLAC, in files named by numbers.

    Args:
        corpus: to write.
        form: the layout.
        output: a new folder.

    Returns:
        Utterances by split.

    Raises:
        CwjaxError: the folder exists or cannot be written, or the corpus is damaged.
    """
    require_new(output)
    aside = output.with_name(f".{output.name}.cwjax-partial")
    counts = dict.fromkeys(SPLITS, 0)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        with ExitStack() as files:
            write = {"lhotse": _write_lhotse, "nemo": _write_nemo, "hf": _write_folder}[form](aside, output, files)
            for number, cut in enumerate(tqdm(_cuts(corpus), desc="exporting", unit="recording", disable=None)):
                for split in SPLITS:
                    said = [one for one in cut.supervisions if one.custom["split"] == split]
                    if said:
                        counts[split] += len(said)
                        write(corpus, number, split, replace(cut, supervisions=tuple(said)))
        aside.rename(output)
    except OSError as error:
        raise CwjaxError(f"{output}: cannot be written ({error.strerror}); make room or name another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {split: count for split, count in counts.items() if count}


def require_new(output: Path) -> None:
    """Raises CwjaxError if the folder of an export exists."""
    if output.exists():
        raise CwjaxError(f"{output}: exists; name a new folder for the export, or delete it")


Write = Callable[[PreparedCorpus, int, str, Cut], None]
"""Writes what is said in a recording, of the number, in a split."""


def _cuts(corpus: PreparedCorpus) -> Iterator[Cut]:
    """All cuts, what is known of the articles among what is known of their supervisions."""
    articles, place = corpus.supervisions["article"], 0
    for shard in corpus.settings["shards"]:
        for cut in read_cuts(corpus.directory / cuts_file(shard)):
            said = []
            for one in cut.supervisions:
                article = corpus.article(int(articles[place]))
                facts = {name: article[name] for name in FACTS if name in article}
                said.append(replace(one, custom=facts | one.custom))
                place += 1
            yield replace(cut, supervisions=tuple(said))


class _Lines:
    """Files of JSON lines, opened when they are needed."""

    def __init__(self, files: ExitStack):
        self._files, self._open = files, dict[Path, TextIO]()

    def add(self, path: Path, record: dict[str, Any]) -> None:
        if path not in self._open:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open[path] = self._files.enter_context(path.open("w", encoding="utf-8"))
        self._open[path].write(json.dumps(record, ensure_ascii=False) + "\n")


def _whole(corpus: PreparedCorpus, number: int, cut: Cut, folder: Path) -> str:
    """The whole sound of a recording in a file, and its path within the folder."""
    name = f"audio/{number:07d}.flac"
    if not (folder / name).exists():
        _write_sound(folder / name, corpus, number, 0.0, cut.recording.duration)
    return name


def _write_sound(path: Path, corpus: PreparedCorpus, number: int, start: float, end: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        soundfile.write(path, corpus.sound(number, start, end), SAMPLING_RATE, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise CwjaxError(
            f"{path}: cannot be written ({error.error_string}); make room or name another folder"
        ) from error


def _write_lhotse(folder: Path, output: Path, files: ExitStack) -> Write:
    lines = _Lines(files)

    def write(corpus: PreparedCorpus, number: int, split: str, cut: Cut) -> None:
        path = (output / _whole(corpus, number, cut, folder)).resolve()  # lhotse knows no other relative paths
        sound = replace(cut.recording, path=str(path))
        lines.add(folder / f"cuts_{split}.jsonl", replace(cut, recording=sound, custom={}).as_dict())

    return write


def _write_nemo(folder: Path, _: Path, files: ExitStack) -> Write:
    lines = _Lines(files)

    def write(corpus: PreparedCorpus, number: int, split: str, cut: Cut) -> None:
        audio = _whole(corpus, number, cut, folder)
        for one in cut.supervisions:
            times = {"offset": one.start, "duration": round(one.end - one.start, 6)}
            record = {"audio_filepath": audio, **times, "text": one.text, "lang": one.language, "split": split}
            lines.add(folder / f"{split}_manifest.json", record | _known(one))

    return write


def _write_folder(folder: Path, _: Path, files: ExitStack) -> Write:
    lines = _Lines(files)
    counts: dict[str, int] = {}

    def write(corpus: PreparedCorpus, number: int, split: str, cut: Cut) -> None:
        for one in cut.supervisions:
            counts[split] = count = counts.get(split, -1) + 1
            name = f"{count // 10_000:04d}/{count:07d}.flac"
            _write_sound(folder / split / name, corpus, number, one.start, one.end)
            record = {"file_name": name, "text": one.text, "language": one.language} | _known(one)
            lines.add(folder / split / "metadata.jsonl", record)

    return write


def _known(one: Supervision) -> dict[str, Any]:
    """What else is known of an utterance, each field only if it is."""
    fields = {"id": one.id, "speaker": one.speaker}
    fields |= {name: one.custom.get(name) for name in ("article", "section", "subset", *FACTS)}
    return {name: value for name, value in fields.items() if value}
