"""The options of `cwjax transcribe`: those of openai-whisper's command under their names, and those of the context."""

import argparse
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions
from cwjax.inference.writers import FORMATS, SubtitleLayout

log = logging.getLogger(__name__)

BEAM_SIZE = 5
BEST_OF = 5
TEMPERATURE_STEP = 0.2

USAGE = "cwjax transcribe AUDIO... --model DIR [--context TEXT] [--output-dir DIR] [--OPTION VALUE ...]"


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Names may have underscores, as openai-whisper's have; switches stand alone or before True or False; what may be
    left out may be `none`.
    """
    parser, switches = _parser()
    return parser.parse_intermixed_args(_normalised(arguments, switches))


def decoding_options(options: argparse.Namespace) -> DecodingOptions:
    """How to decode.

    Raises:
        CwjaxError: a value is impossible, or does not go with another.
    """
    named = {name: getattr(options, name) for name in DecodingOptions.__dataclass_fields__ if hasattr(options, name)}
    step = options.temperature_increment_on_fallback
    if step is not None:
        if not 0 < step < math.inf:
            raise CwjaxError(f"--temperature-increment-on-fallback is {step}: it must be above 0, or none")
        rises = int((1 + 1e-6 - options.temperature) / step) if options.temperature <= 1 else 0
        named["temperature"] = tuple(options.temperature + rise * step for rise in range(rises + 1))
    named["word_timestamps"] = options.word_timestamps or options.explain
    return DecodingOptions(**named)


def subtitle_layout(options: argparse.Namespace) -> SubtitleLayout:
    """How to lay out subtitles.

    Raises:
        CwjaxError: a limit is impossible, or there will be no word times to lay out by.
    """
    names = ("max_line_width", "max_line_count", "max_words_per_line", "highlight_words")
    given = [name for name in names if getattr(options, name)]
    if given and not (options.word_timestamps or options.explain):
        raise CwjaxError(f"--{given[0].replace('_', '-')} goes by the times of words: add --word-timestamps")
    if options.max_line_count and not options.max_line_width:
        log.warning("--max-line-count has no effect without --max-line-width")
    return SubtitleLayout(**{name: getattr(options, name) for name in names})


def _parser() -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser, and the names of the options that are switches."""
    parser = argparse.ArgumentParser(
        prog="cwjax transcribe",
        usage=USAGE,
        description="Transcribes recordings of any length, with what you know about them in mind. Every finished "
        "transcript is written at once; recordings that cannot be read are named and left out.",
        epilog="Names and meanings of options that openai-whisper has are openai-whisper's.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
    )
    switches: set[str] = set()
    group: Any = parser

    def option(name: str, default: Any, text: str, kind: Callable[[str], Any] = str, **others: Any) -> None:
        shown = "none" if default is None else default if default != "" else "empty"
        # A per cent sign would begin a format of argparse's.
        group.add_argument(
            *name.split(), default=default, type=kind, help=f"{text} (default: {shown})".replace("%", "%%"), **others
        )

    def switch(name: str, default: bool, text: str) -> None:
        switches.add(name)
        option(name, default, text, _truth, metavar="[True|False]")

    parser.add_argument("audio", nargs="*", metavar="AUDIO", help="recordings: anything libsndfile or ffmpeg reads")
    parser.add_argument("--model", required=True, metavar="DIR", help="model directory, such as runs/demo/model")
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors")

    group = parser.add_argument_group("context")
    option("--context", "", "what is known about the recordings: their topic, names that occur", metavar="TEXT")
    option("--context-file", None, "file with the context of all recordings", metavar="FILE")
    option(
        "--list",
        None,
        "more recordings, each with its own context: JSON or CSV with `audio` and `context`, "
        "paths relative to the list's folder",
        metavar="FILE",
    )
    option(
        "--context-scale",
        1.0,
        "how much the context counts: 0 not at all (stock Whisper), 1 as trained",
        float,
        metavar="S",
    )
    switch("--context-from-history", False, "let the text encoder read the text before each window, too")
    switch("--compare-context", False, "print the transcripts without and with context, differences marked")
    switch(
        "--explain",
        False,
        "write a page, NAME.html, that shows which context words each stretch of the audio "
        "attended to and what they changed; implies --word-timestamps",
    )

    group = parser.add_argument_group("output")
    option("-o --output-dir", ".", "folder of the transcripts, made if missing", metavar="DIR")
    option("-f --output-format", "all", "files to write", choices=(*FORMATS, "all"))
    switch("--verbose", True, "print every segment with its times")
    switch("--highlight-words", False, "underline each word as it is spoken, in srt and vtt")
    option("--max-line-width", None, "most characters of a line in srt and vtt", _or_none(int), metavar="N")
    option("--max-line-count", None, "most lines of a subtitle; needs --max-line-width", _or_none(int), metavar="N")
    option(
        "--max-words-per-line",
        None,
        "most words of a subtitle; instead of --max-line-width",
        _or_none(int),
        metavar="N",
    )

    group = parser.add_argument_group("decoding")
    option("--language", None, "language spoken, by code or English name; none: detected", _or_none(str))
    option("--task", "transcribe", "translate: into English", choices=("transcribe", "translate"))
    option(
        "--batch-size",
        None,
        "windows decoded at once, of one recording or several: faster, but no window knows "
        "the text before it; none: one window after the other",
        _or_none(int),
        metavar="N",
    )
    option("--temperature", 0.0, "of sampling; 0: the likeliest text", float, metavar="T")
    option(
        "--temperature-increment-on-fallback",
        TEMPERATURE_STEP,
        "by how much to raise the temperature, up to 1, when a window fails a threshold below",
        _or_none(float),
        metavar="T",
    )
    option("--best-of", BEST_OF, "samples to choose from at temperatures above 0", _or_none(int), metavar="N")
    option(
        "--beam-size", BEAM_SIZE, "hypotheses of beam search at temperature 0; none: greedy", _or_none(int), metavar="N"
    )
    option(
        "--patience",
        None,
        "beam search ends when this times the beam size have ended; none: 1",
        _or_none(float),
        metavar="P",
    )
    option(
        "--length-penalty",
        None,
        "exponent of the length penalty, 0 to 1; none: the mean log-probability decides",
        _or_none(float),
        metavar="A",
    )
    option(
        "--sample-len",
        None,
        "most tokens of a window; none: half of the decoder's positions",
        _or_none(int),
        metavar="N",
    )
    option(
        "--suppress-tokens",
        "-1",
        "ids of tokens never to be decoded, with commas between; -1: symbols that are not spoken",
        metavar="IDS",
    )
    option("--initial-prompt", None, "text before the first window: spelling and style to go on with", metavar="TEXT")
    switch("--carry-initial-prompt", False, "give the initial prompt to every window")
    switch("--condition-on-previous-text", True, "prompt each window with the text before it")
    option(
        "--compression-ratio-threshold",
        2.4,
        "text that compresses better repeats itself and is decoded again",
        _or_none(float),
        metavar="R",
    )
    option(
        "--logprob-threshold",
        -1.0,
        "text whose mean log-probability is lower is decoded again",
        _or_none(float),
        metavar="P",
    )
    option(
        "--no-speech-threshold",
        0.6,
        "a window whose no-speech probability is higher, and whose text failed --logprob-threshold, is silence",
        _or_none(float),
        metavar="P",
    )
    option(
        "--clip-timestamps",
        "0",
        "start,end,start,end,... in seconds of what to transcribe; the last end may be left out",
        metavar="TIMES",
    )

    group = parser.add_argument_group("words")
    defaults = DecodingOptions()
    switch("--word-timestamps", False, "find the times of words")
    option(
        "--prepend-punctuations",
        defaults.prepend_punctuations,
        "marks that belong to the word after them",
        metavar="MARKS",
    )
    option(
        "--append-punctuations",
        defaults.append_punctuations,
        "marks that belong to the word before them",
        metavar="MARKS",
    )
    option(
        "--hallucination-silence-threshold",
        None,
        "skip silence longer than so many seconds around words that look invented; needs --word-timestamps",
        _or_none(float),
        metavar="S",
    )
    return parser, switches


def _normalised(arguments: Sequence[str], switches: set[str]) -> list[str]:
    """The arguments with hyphens in names, values of switches written out, and negative values tied to their names."""
    normalised: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            return normalised + list(arguments[place:])
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        if re.fullmatch(r"--\w[\w-]*(=.*)?", argument, re.DOTALL):
            name, equals, value = argument.partition("=")
            name = name.replace("_", "-")
            if name in switches and not equals and following.lower() not in _TRUTH:
                equals, value = "=", "True"
            normalised.append(name + equals + value)
        elif re.match(r"-\d", argument) and normalised and re.fullmatch(r"--[^=]+", normalised[-1]):
            normalised[-1] += "=" + argument
        else:
            normalised.append(argument)
    return normalised


_TRUTH = {"true": True, "false": False}


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return _TRUTH[text.lower()]


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = f"{kind.__name__} or none"  # what argparse calls it in its error
    return parse
