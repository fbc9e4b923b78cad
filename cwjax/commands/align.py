"""`cwjax align`: long recordings and the text that is read in them become supervised cuts with the times of words."""

import argparse
import logging
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from cwjax.commands.audio_files import AudioFile, AudioFiles
from cwjax.commands.progress import AudioProgress, clock
from cwjax.commands.terminal import say_error
from cwjax.errors import CwjaxError
from cwjax.files import local_path

log = logging.getLogger(__name__)

MODEL = "openai/whisper-base"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.usage = "cwjax align (--audio FILE [FILE ...] --text FILE | --root DIR) --output DIR [--OPTION VALUE ...]"
    parser.description = (
        "Finds which words of a text are said when in hours of speech, and writes cuts.jsonl.gz as lhotse reads it, "
        "with a report of what is left out. Stopped and run again, it goes on where it was."
    )
    parser.add_argument("--audio", nargs="+", metavar="FILE", help="recordings of one text; folders and patterns, too")
    parser.add_argument(
        "--text", metavar="FILE", type=local_path, help="that is read in them, or a part of it, in any order"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=local_path,
        help="instead: folders that hold recordings and one .txt each, as of LibriVox, or articles of the Spoken "
        "Wikipedia, whose known times are kept",
    )
    parser.add_argument("--output", metavar="DIR", type=local_path, required=True, help="where the results go")
    parser.add_argument("--model", default=MODEL, help=f"Whisper that hears the words ({MODEL})")
    parser.add_argument("--language", help="of the speech (found out)")
    parser.add_argument("--encoding", help="of texts that are not in UTF-8, such as cp1252")
    parser.add_argument(
        "--least-confidence",
        type=float,
        metavar="SHARE",
        default=0.6,
        help="share of a phrase's characters that must be heard for it to be kept (0.6)",
    )
    parser.add_argument("--device", help="to compute on (JAX's first)")
    parser.add_argument("--compute-dtype", choices=("float32", "bfloat16", "float16", "int8"), help="of the model")


def run(options: argparse.Namespace) -> int:
    """Aligns, and gives the exit status: 1 if something was left out as a whole."""
    _check(options)
    with closing(AudioFiles(options.audio or [str(options.root)], None, "")) as inputs:
        for line in inputs.missing:
            say_error(line)
        if not inputs.files:
            raise CwjaxError("align: there is no audio to align")
        return _align(options, inputs.files, inputs.missing)


def _check(options: argparse.Namespace) -> None:
    if options.root and (options.audio or options.text):
        raise CwjaxError("align: --root finds recordings and texts itself; leave out --audio and --text")
    if not options.root and not (options.audio and options.text):
        raise CwjaxError("align: give --audio and --text, or --root with folders that hold both")
    if not 0 <= options.least_confidence <= 1:
        raise CwjaxError(f"--least-confidence is {options.least_confidence}: give a share from 0 to 1")
    if options.root and not options.root.is_dir():
        raise CwjaxError(f"--root {options.root}: no such folder; check the path")


def _align(options: argparse.Namespace, files: list[AudioFile], missing: list[str]) -> int:
    from cwjax.alignment.books import Book, Recording, find_books
    from cwjax.alignment.hearing import Ear
    from cwjax.alignment.run import CUTS_FILE, PAGE_FILE, align_books, output_folder

    recordings = [Recording(file.name, file.path) for file in files]
    failures = {line.partition(":")[0]: line for line in missing}
    if options.root:
        books, others = find_books(options.root, recordings, options.encoding)
        failures |= others
    else:
        books = [Book(options.text.name, options.text, recordings, options.encoding)]
    for book in books if len(books) == 1 else ():
        book.read()  # before the work of hours
    texts = [book.text_path for book in books]
    with (
        output_folder(options.output, [*texts, *(one.path for one in recordings)]),
        AudioProgress("hearing", len(recordings)) as progress,
    ):
        ear = Ear(cache(lambda: _load(options)), _version(options.model), options.output, options.language, progress)
        report = align_books(books, failures, options.output, ear, options.least_confidence)
    content = report.as_dict()
    log.info(
        "%s of %s of audio in %d supervisions, %d of %d words: %s, looked at in %s",
        clock(content["supervised_seconds"]),
        clock(content["seconds"]),
        content["supervisions"],
        content["supervised_words"],
        content["text_words"],
        options.output / CUTS_FILE,
        options.output / PAGE_FILE,
    )
    return 1 if report.failures else 0


def _load(options: argparse.Namespace) -> Any:
    """The model; late, because JAX is slow to load and nothing may be left to hear."""
    import cwjax

    return cwjax.load(options.model, dtype=options.compute_dtype, device=options.device)


def _version(model: str) -> str:
    """The model's name, and of one that lies here when it was last changed."""
    path = Path(model)
    files = [path] if path.is_file() else list(path.rglob("*")) if path.is_dir() else []
    times = [file.stat().st_mtime_ns for file in files if file.is_file()]
    return f"{model}@{max(times)}" if times else model
