"""The options of `cwjax transcribe`: those of openai-whisper's command under their names, and those of the context."""

import argparse
import ast
import inspect
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from cwjax.commands.audio_files import read_text
from cwjax.data.audio.decode import raw_format
from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions
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
        raise CwjaxError(f"{_switch(given[0])} goes by the times of words: add --word-timestamps")
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
DEFAULTS = {"best_of": 5, "beam_size": 5}
"""Of openai-whisper's command, where its Python has others."""

Option = tuple[str, Any, Any, str | None, str]
"""Name, default, kind or choices, what a value is called, help. A switch, whose kind is `_truth`, may stand alone."""


def _declared(*names: str) -> Iterator[Option]:
    """Options as `DecodingOptions` declares them: by their defaults, types and docstrings."""
    (declaration,) = ast.parse(inspect.getsource(DecodingOptions)).body
    texts = {one.target.id: text for one, text in pairwise(declaration.body) if isinstance(one, ast.AnnAssign)}
    for name in names:
        field = DecodingOptions.__dataclass_fields__[name]
        default, hints = DEFAULTS.get(name, field.default), get_args(field.type) or (field.type,)
        kind, metavar = hints[0], {int: "N", float: "X"}.get(hints[0], name.rpartition("_")[2].upper())
        if kind is bool:
            kind, metavar = _truth, None
        elif get_origin(field.type) is Literal:
            kind, metavar = hints, None
        elif hints[-1] is NoneType and (kind is not str or name == "language"):
            kind = _or_none(kind)
        text = re.sub(r"`(\w+)`", lambda found: _switch(found[1]), " ".join(texts[name].value.value.split()))
        text = re.sub(r"\bNone\b", "none", text).removesuffix(".")
        yield _switch(name), default, kind, metavar, text[0].lower() + text[1:]


def _switch(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# fmt: off
OPTIONS: dict[str, tuple[Option, ...]] = {
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
        *_declared("context_scale"),
        ("--phrases", None, str, "FILE",
         "names and terms that may be said, one a line, any number; `written | spoken like | spoken like` where the "
         "spelling misleads. Each window's decoder is shown those that are heard in it; lists in a context count, too"),
        ("--spotter", None, str, "FILE",
         "phrase spotter that launch/train_spotter.py trained for this model; none: the one that cwjax has for it"),
        *_declared("phrases_used", "phrases_boost", "phrases_threshold", "context_from_history"),
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
        *_declared("task", "language", "language_detection_segments", "language_detection_threshold", "multilingual"),
        ("--temperature", 0.0, float, "T", "of sampling; 0: the likeliest text"),
        ("--temperature-increment-on-fallback", 0.2, FLOAT, "T",
         "by how much to raise the temperature, up to 1, when a window fails a threshold below"),
        *_declared("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold", "best_of", "beam_size",
                   "patience", "length_penalty", "repetition_penalty", "no_repeat_ngram_size", "sample_len",
                   "suppress_tokens", "suppress_blank", "without_timestamps", "max_initial_timestamp"),
    ),
    "prompts": (
        *_declared("initial_prompt", "carry_initial_prompt", "hotwords", "prefix", "condition_on_previous_text"),
    ),
    "windows": (
        *_declared("clip_timestamps", "chunk_length", "vad"),
        ("--independent-windows", None, _truth, None,
         "cut windows in pauses, so that none needs the one before; none: if there is a --batch-size"),
    ),
    "words": (
        *_declared("word_timestamps", "prepend_punctuations", "append_punctuations", "hallucination_silence_threshold"),
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
