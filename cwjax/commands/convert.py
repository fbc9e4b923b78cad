"""`cwjax convert`: checkpoints in, a model directory out, and back."""

import argparse
import logging
import time
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.machine import peak_memory

log = logging.getLogger(__name__)

PRECISIONS = ("keep", "float32", "bfloat16", "float16")
FORMATS = ("hf-whisper", "openai", "text-encoder", "adapter")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.description = (
        "Joins a Whisper and a text encoder to a model directory (--whisper and --text-encoder), reads a checkpoint of "
        "the original PyTorch ContextWhisper (--original), or writes a part of a model in another format (--model and "
        "--export)."
    )
    source = "directory, hub id"
    parser.add_argument(
        "--whisper", metavar="SOURCE", help=f"{source} (Hugging Face, faster-whisper), OpenAI's .pt, or a model of ours"
    )
    parser.add_argument(
        "--text-encoder", metavar="SOURCE", help=f"{source} or a model of ours: BERT, DistilBERT, T5, mT5"
    )
    parser.add_argument(
        "--adapter", metavar="SOURCE", help="directory or hub id of a LoRA in PEFT's format, merged into --whisper"
    )
    parser.add_argument("--original", metavar="SOURCE", help=f"{source} of the original PyTorch ContextWhisper")
    parser.add_argument("--model", metavar="DIR", type=Path, help="model directory to take apart")
    parser.add_argument(
        "--export",
        choices=FORMATS,
        help="what to take out of it; adapter: the context attention alone, which is joined again with the Whisper and "
        "text encoder that it names (--whisper and --text-encoder, where the model does not know them)",
    )
    parser.add_argument("--spotter", metavar="FILE", type=Path, help="phrase spotter that goes with an adapter")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="new or empty directory")
    parser.add_argument("--gate", choices=("tanh", "none"), default="tanh", help="of the context attention (tanh)")
    parser.add_argument("--gate-init", type=float, default=0.0, help="what the gates start from (0: stock Whisper)")
    parser.add_argument(
        "--context-layers", type=int, nargs="+", metavar="N", help="audio encoder layers with context attention (all)"
    )
    parser.add_argument("--dtype", choices=PRECISIONS, default="keep", help="what weights are stored in (keep)")
    parser.add_argument("--seed", type=int, default=0, help="of the new context attention (0)")


def run(options: argparse.Namespace) -> int:
    """Converts or exports, and gives the exit status."""
    adapter = options.model and options.export == "adapter"
    wanted = ["model"] if adapter else [name for name in ("whisper", "original", "model") if getattr(options, name)]
    if options.spotter and not adapter:
        raise CwjaxError("convert: --spotter goes with --export adapter")
    if len(wanted) != 1:
        raise CwjaxError("convert: give either --whisper with --text-encoder, or --original, or --model with --export")
    began = time.monotonic()
    if wanted == ["model"]:
        _export(options)
    else:
        _convert(options)
    peak = peak_memory()
    used = "" if peak is None else f", peak memory {peak / 2**30:.2f} GiB"
    log.info("took %.1f s%s", time.monotonic() - began, used)
    return 0


def _export(options: argparse.Namespace) -> None:
    if not options.export:
        raise CwjaxError(f"convert: --model needs --export, one of {', '.join(FORMATS)}")
    from cwjax.weights.export import export

    sources = {name: value for name in ("whisper", "text_encoder") if (value := getattr(options, name))}
    log.info("written: %s", export(options.model, options.export, options.output, sources, options.spotter))


def _convert(options: argparse.Namespace) -> None:
    if options.export:
        raise CwjaxError("convert: --export goes with --model, the model directory to take apart")
    if options.adapter and not options.whisper:
        raise CwjaxError("convert: --adapter goes with --whisper, into which it is merged")
    if options.whisper and not options.text_encoder:
        raise CwjaxError("convert: --whisper needs --text-encoder, such as google-bert/bert-base-uncased")
    from cwjax.models.whisper import ContextAttentionConfig
    from cwjax.weights.convert import convert, convert_original

    if options.original:
        done = convert_original(options.original, options.output, options.dtype)
    else:
        layers = tuple(options.context_layers) if options.context_layers else None
        context = ContextAttentionConfig(options.gate, options.gate_init, layers)
        joined = (options.whisper, options.text_encoder, options.output, context, options.dtype, options.seed)
        done = convert(*joined, options.adapter or "")
    log.info("written: %s, %s parameters, %.2f GB", options.output, f"{done.parameters:,}", done.bytes / 1e9)
    for missing in done.missing:
        log.warning("missing, to be added before it can transcribe: %s", missing)
