"""`cwjax score`: error rates of any system's output, with intervals, from files."""

import argparse
import json
from pathlib import Path

from cwjax.commands.terminal import printable, say
from cwjax.errors import CwjaxError
from cwjax.files import write_text

NORMALISERS = ("whisper", "basic", "plain", "none", "is21", "contextasr")
MEASURES = ("wer", "cer", "mean-wer", "b-wer", "entities", "keywords", "homophones")
FIELDS = ("speaker", "recording", "subset", "language", "topic")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.description = (
        "Scores hypotheses of any system; several files, and conditions within a file, are compared pairwise. Formats, "
        "measures and their sources: docs/scoring.md."
    )
    parser.add_argument("hypotheses", metavar="HYPOTHESES", type=Path, nargs="+", help="jsonl, tsv, trn or ctm")
    parser.add_argument("--references", metavar="FILE", type=Path, help="jsonl, tsv, trn or ctm, matched by id")
    parser.add_argument("--normaliser", choices=NORMALISERS, default="whisper", help="what texts are made alike by")
    parser.add_argument("--bias-lists", metavar="FILE", type=Path, help="is21's tsv, or jsonl with lists, by id")
    parser.add_argument("--measures", choices=MEASURES, nargs="+", default=(), help="(all that apply)")
    parser.add_argument("--by", choices=FIELDS, default="", help="rates of each of its values, too")
    parser.add_argument("--language", default="en", help="of utterances that do not name theirs (en)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there, too")
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors")


def run(options: argparse.Namespace) -> int:
    """Scores, prints a table, and gives the exit status."""
    from cwjax.scoring.score import score_files, summarise
    from cwjax.scoring.table import table

    inputs = [*options.hypotheses, options.references, options.bias_lists]
    if options.json and any(one and one.resolve() == options.json.resolve() for one in inputs):
        raise CwjaxError(f"--json {options.json}: is one of the files to be scored; name another")
    scores = score_files(
        options.hypotheses,
        options.references,
        options.bias_lists,
        options.normaliser,
        options.measures,
        options.language,
    )
    found = summarise(scores, options.by)
    if options.json:
        try:
            write_text(options.json, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise CwjaxError(f"{options.json}: cannot be written ({error.strerror})") from error
    say("\n".join(map(printable, table(found, options.by).split("\n"))))
    return 0
