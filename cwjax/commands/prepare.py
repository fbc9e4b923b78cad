"""`cwjax prepare`: a corpus in its own layout becomes what training reads."""

import argparse
import dataclasses
import inspect
import logging
import re
from pathlib import Path
from typing import Any, get_args

from cwjax.data.corpora.registry import READERS
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.prepared.index import AudioFormat
from cwjax.errors import CwjaxError
from cwjax.files import local_path

log = logging.getLogger(__name__)

_LIMIT = "limit_"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    kinds = "\n".join(f"  {name:14} {reader.TITLE}" for name, reader in READERS.items())
    parser.usage = "cwjax prepare CORPUS --root DIR --output DIR [--OPTION VALUE ...]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Writes a corpus as shards of continuous audio, which lhotse reads too, an index, a report and a page.\n"
        "Stopped and run again, it goes on where it was. What cannot be used is named in the report.\n\n"
        f"kinds of corpora:\n{kinds}"
    )
    parser.add_argument("corpus", metavar="CORPUS", choices=READERS, help="its kind, one of those above")
    parser.add_argument("--root", metavar="DIR", type=local_path, required=True, help="where the corpus lies")
    parser.add_argument(
        "--output", metavar="DIR", type=local_path, required=True, help="new folder of the prepared corpus"
    )
    parser.add_argument(
        "--audio",
        choices=get_args(AudioFormat),
        default="pcm16",
        help="16-bit samples, or FLAC in half the room (pcm16)",
    )
    parser.add_argument(
        "--processes", type=int, default=0, metavar="N", help="that work (as many as there are cores to use)"
    )
    parser.add_argument(
        "--score-with",
        metavar="MODEL",
        type=Path,
        help="model directory that transcribes all; the character error rates of every utterance are kept, for "
        "training to leave out what was cut wrongly (data.max_cer, data.max_edge_cer)",
    )
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("FORMAT", "DIR"),
        help="also write it to a new folder as files of sound with lhotse's cuts (lhotse), NeMo's manifests (nemo) or "
        "an audio folder of Hugging Face's datasets (hf)",
    )
    limits = parser.add_argument_group(
        "limits", "By which articles are cut, in seconds unless said otherwise. Most matter for word times (swc) only."
    )
    meanings = _meanings()
    for field in dataclasses.fields(SegmentationSettings):
        is_tuple = isinstance(field.default, tuple)
        shown = " ".join(map(str, field.default)) if is_tuple else field.default
        how: dict[str, Any] = {"action": "store_true", "default": None}
        if field.default is not False:
            how = {"metavar": "NAME" if isinstance(field.default, str) else "N"}
            how |= {"type": float, "nargs": len(shown.split())} if is_tuple else {"type": type(field.default)}
        limits.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=_LIMIT + field.name,
            help=(meanings[field.name] + (f" ({shown})" if shown else "")).replace("%", "%%"),
            **how,
        )


def _meanings() -> dict[str, str]:
    """What each limit is, from the documentation of the settings."""
    _, _, attributes = inspect.getdoc(SegmentationSettings).partition("Attributes:\n")
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for names, text in entries for name in names.split(", ")}


def run(options: argparse.Namespace) -> int:
    """Prepares, and gives the exit status."""
    from cwjax.data.prepared.build import prepare
    from cwjax.data.prepared.exporting import ExportFormat, export, require_new
    from cwjax.evaluation.quality import score_corpus
    from cwjax.weights.model_directory import read_model_config

    if options.processes < 0:
        raise CwjaxError("--processes must not be negative")
    form, folder = options.export or (None, None)
    if form is not None and form not in get_args(ExportFormat):
        raise CwjaxError(f"--export {form}: is no format; use one of {', '.join(get_args(ExportFormat))}")
    if folder is not None:
        require_new(local_path(folder))  # before the work of hours
    given = {
        name.removeprefix(_LIMIT): tuple(value) if isinstance(value, list) else value
        for name, value in vars(options).items()
        if name.startswith(_LIMIT) and value is not None
    }
    limits = SegmentationSettings(**given)
    if options.score_with:
        read_model_config(options.score_with)  # before the work of hours
    corpus = prepare(options.corpus, options.root, options.output, limits, options.audio, options.processes)
    if options.score_with:
        score_corpus(corpus, options.score_with)
    if form is not None:
        counts = export(corpus, form, local_path(folder))
        log.info("exported to %s: %s", folder, ", ".join(f"{count:,} {split}" for split, count in counts.items()))
    return 0
