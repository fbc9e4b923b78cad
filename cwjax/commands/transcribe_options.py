"""The options of `cwjax transcribe`: those of openai-whisper's command under their names, and those of the context."""

import argparse
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from cwjax.commands.audio_files import read_text
from cwjax.data.audio import raw_format
from cwjax.errors import CwjaxError
from cwjax.inference.options import APPENDED, PREPENDED, DecodingOptions
from cwjax.inference.writers import FORMATS, OPENAI_FORMATS, SubtitleLayout

log = logging.getLogger(__name__)

USAGE = "cwjax transcribe AUDIO... --model MODEL [--context TEXT] [--output-dir DIR] [--OPTION VALUE ...]"


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Names may have underscores, as openai-whisper's have; switches stand alone or before True or False; what may be
    left out may be `none`; all after `--` are recordings.
    """
    parser, switches = _parser()
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_intermixed_args(_normalised(arguments[:end], switches))
    options.audio += arguments[end + 1 :]
    return options


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
    named["phrases"] = read_text(options.phrases).splitlines() if options.phrases else ()
    named["word_timestamps"] = options.word_timestamps or options.explain
    if options.independent_windows is None:
        named["independent_windows"] = options.batch_size is not None
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


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    parse.__name__ = f"{kind.__name__} or none"  # what argparse calls it in its error
    return parse


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return _TRUTH[text.lower()]


def _formats(text: str) -> tuple[str, ...]:
    formats = OPENAI_FORMATS if text == "all" else tuple(dict.fromkeys(text.split(",")))
    if wrong := [one for one in formats if one not in FORMATS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is unknown: choose from {', '.join(FORMATS)}, all")
    return formats


def _channel(text: str) -> str | int | None:
    if text in ("mix", "each"):
        return None if text == "mix" else text
    if text not in ("left", "right") and not re.fullmatch("[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is unknown: choose from mix, left, right, 1, 2, ..., each")
    return {"left": 0, "right": 1}[text] if text in ("left", "right") else int(text) - 1


def _pcm(text: str) -> str:
    try:
        raw_format(text)
    except CwjaxError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


_TRUTH = {"true": True, "false": False}
INT, FLOAT, TEXT = _or_none(int), _or_none(float), _or_none(str)

# fmt: off
# Name, default, kind or choices, what a value is called, help. A switch, whose kind is `_truth`, may stand alone.
OPTIONS: dict[str, tuple[tuple[str, Any, Any, str | None, str], ...]] = {
    "model": (
        ("--device", None, TEXT, "DEVICE", "cpu, gpu, tpu, or one of several, such as cuda:1; none: the best there is"),
        ("--compute-dtype", None, ("float32", "bfloat16", "float16", "int8"), None,
         "what to compute in; int8: rounds the largest weights, faster on CPUs; none: what suits the device"),
        ("--fp16", None, _truth, None, "openai-whisper's word for --compute-dtype float16; False: float32"),
        ("--threads", None, INT, "N", "cores of the CPU to use; none: all"),
        ("--draft", None, TEXT, "MODEL",
         "a smaller Whisper that guesses tokens for the model, faster where most are right; with --beam-size none"),
        ("--batch-size", None, INT, "N",
         "windows decoded at once, of one recording or several; with --independent-windows; none: one"),
    ),
    "recordings": (
        ("--list", None, str, "FILE",
         "more recordings: JSON or CSV with `audio`, paths from the list's folder, and `context`"),
        ("--live", False, _truth, None,
         "transcribe what comes through - or a pipe while it comes; Ctrl-C ends it. With --vad a pause of 1 s ends a "
         "window, else the model's 30 s or --chunk-length do"),
        ("--pcm", None, _pcm, "FORMAT",
         "that the samples of --live have where no header tells it, such as s16le:16000:1"),
        ("--channel", "mix", _channel, "CHANNEL",
         "mix, left, right, 1, 2, ..., or each: a speaker a channel, in one transcript"),
    ),
    "context": (
        ("--context", "", str, "TEXT", "what is known about the recordings: their topic, names that occur"),
        ("--context-file", None, str, "FILE", "file with the context of all recordings"),
        ("--context-scale", 1.0, float, "S", "how much the context counts: 0 not at all (stock Whisper), 1 as trained"),
        ("--phrases", None, str, "FILE",
         "names and terms that may be said, one a line, any number; `written | spoken like | spoken like` where the "
         "spelling misleads. Each window's decoder is shown those that are heard in it; lists in a context count, too"),
        ("--phrases-used", 10, int, "N", "most phrases that the decoder is shown for a window"),
        ("--phrases-boost", 2.0, float, "LOGITS", "by how much the decoder finds the tokens of phrases heard likelier"),
        ("--phrases-threshold", 0.05, float, "P", "probability from which the decoder is shown a phrase"),
        ("--context-from-history", False, _truth, None, "let the text encoder read the text before each window, too"),
        ("--compare-context", False, _truth, None,
         "print the transcripts without and with context and phrases, differences marked"),
        ("--explain", False, _truth, None,
         "write NAME.html, which shows the context words that each stretch of the audio attended to, the phrases heard "
         "in it, and what they changed; implies --word-timestamps"),
    ),
    "output": (
        ("-o --output-dir", ".", str, "DIR", "folder of the transcripts, made if missing"),
        ("-f --output-format", "all", _formats, "FORMAT",
         f"{', '.join(FORMATS)}, several with commas, or all: {', '.join(OPENAI_FORMATS)}"),
        ("--overwrite", False, _truth, None,
         "replace files that this command did not write or that were changed since; never an input"),
        ("--skip-existing", False, _truth, None, "leave out recordings that have all of their transcripts"),
        ("--verbose", True, _truth, None, "print every segment with its times"),
        ("--highlight-words", False, _truth, None, "underline each word as it is spoken, in srt and vtt"),
        ("--max-line-width", None, INT, "N", "most characters of a line in srt and vtt"),
        ("--max-line-count", None, INT, "N", "most lines of a subtitle; needs --max-line-width"),
        ("--max-words-per-line", None, INT, "N", "most words of a subtitle; instead of --max-line-width"),
    ),
    "decoding": (
        ("--task", "transcribe", ("transcribe", "translate"), None, "translate: into English"),
        ("--language", None, TEXT, "LANGUAGE", "language spoken, by code or English name; none: detected"),
        ("--language-detection-segments", 1, int, "N", "windows to look at, at most, to detect the language"),
        ("--language-detection-threshold", 0.5, float, "P",
         "a language this probable ends the detection; else that of most windows counts"),
        ("--multilingual", False, _truth, None, "detect the language of every window"),
        ("--temperature", 0.0, float, "T", "of sampling; 0: the likeliest text"),
        ("--temperature-increment-on-fallback", 0.2, FLOAT, "T",
         "by how much to raise the temperature, up to 1, when a window fails a threshold below"),
        ("--compression-ratio-threshold", 2.4, FLOAT, "R",
         "text that compresses better repeats itself and is decoded again"),
        ("--logprob-threshold", -1.0, FLOAT, "P", "text whose mean log-probability is lower is decoded again"),
        ("--no-speech-threshold", 0.6, FLOAT, "P",
         "a window whose no-speech probability is higher, and whose text failed --logprob-threshold, is silence"),
        ("--best-of", 5, INT, "N", "samples to choose from at temperatures above 0"),
        ("--beam-size", 5, INT, "N", "hypotheses of beam search at temperature 0; none: greedy"),
        ("--patience", None, FLOAT, "P", "beam search ends when this times the beam size have ended; none: 1"),
        ("--length-penalty", None, FLOAT, "A",
         "exponent of the length penalty, 0 to 1; none: the mean log-probability decides"),
        ("--repetition-penalty", 1.0, float, "R", "divides the scores of tokens that the window has already; 1: none"),
        ("--no-repeat-ngram-size", 0, int, "N", "runs of so many tokens never occur twice in a window; 0: they may"),
        ("--sample-len", None, INT, "N", "most tokens of a window; none: half of the decoder's positions"),
        ("--suppress-tokens", "-1", str, "IDS",
         "tokens never to be decoded, with commas between; -1: symbols that are not spoken"),
        ("--suppress-blank", True, _truth, None, "never begin a window with a space alone"),
        ("--without-timestamps", False, _truth, None, "decode text only"),
        ("--max-initial-timestamp", 1.0, FLOAT, "S", "latest first timestamp of a window, in seconds; none: any"),
    ),
    "prompts": (
        ("--initial-prompt", None, str, "TEXT", "text before the first window: spelling and style to go on with"),
        ("--carry-initial-prompt", False, _truth, None, "give the initial prompt to every window"),
        ("--hotwords", None, str, "TEXT",
         "words to expect, before the previous text of every window; not with --prefix"),
        ("--prefix", None, str, "TEXT", "the beginning of the first window's text"),
        ("--condition-on-previous-text", True, _truth, None, "prompt each window with the text before it"),
    ),
    "windows": (
        ("--clip-timestamps", "0", str, "TIMES",
         "start,end,start,end,... in seconds of what to transcribe; the last end may be left out"),
        ("--chunk-length", None, FLOAT, "S", "seconds of a window; none: all that the model hears at once"),
        ("--vad", "none", ("none", "energy", "silero"), None,
         "transcribe only what is taken for speech: by loudness, or by a network"),
        ("--independent-windows", None, _truth, None,
         "cut windows in pauses, so that none needs the one before; none: if there is a --batch-size"),
    ),
    "words": (
        ("--word-timestamps", False, _truth, None, "find the times of words"),
        ("--prepend-punctuations", PREPENDED, str, "MARKS", "marks that belong to the word after them"),
        ("--append-punctuations", APPENDED, str, "MARKS", "marks that belong to the word before them"),
        ("--hallucination-silence-threshold", None, FLOAT, "S",
         "skip silence longer than so many seconds around words that look invented; needs --word-timestamps"),
    ),
}
# fmt: on


def _parser() -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser, and the names of the options that are switches."""
    parser = argparse.ArgumentParser(
        prog="cwjax transcribe",
        usage=USAGE,
        description="Transcribes recordings of any length, with what you know about them in mind. Every finished "
        "transcript is written at once; recordings that cannot be read are named and left out.",
        epilog="Options that openai-whisper has mean what they mean there; switches may stand alone. Transcripts are "
        "named after the recording, talk.mp3 as talk.srt, or as talk.mp3.srt where talk.wav lies beside it, given or "
        "not; those of a folder or list keep their place below it.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
    )
    parser.add_argument(
        "audio",
        nargs="*",
        metavar="AUDIO",
        help="recordings that libsndfile or ffmpeg reads, folders of them, patterns, or - for stdin; names that begin "
        "with a hyphen after --",
    )
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="a directory, a name such as small, or OWNER/NAME of the hub"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors")
    switches: set[str] = set()
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for names, default, kind, metavar, text in options:
            shown = "none" if default is None else default if default != "" else "empty"
            how = {"choices": kind} if isinstance(kind, tuple) else {"type": kind, "metavar": metavar or "[True|False]"}
            if kind is _truth:
                switches.add(names)
            # A per cent sign would begin a format of argparse's.
            described = f"{text} (default: {shown})".replace("%", "%%")
            group.add_argument(*names.split(), default=default, help=described, **how)
    return parser, switches


def _normalised(arguments: Sequence[str], switches: set[str]) -> list[str]:
    """The arguments with hyphens in names, values of switches written out, and negative values tied to their names."""
    normalised: list[str] = []
    for place, argument in enumerate(arguments):
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
