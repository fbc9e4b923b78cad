"""`cwjax serve`: a server that OpenAI's clients talk to, and a page."""

import argparse
import os
import time
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.extras import require_package

PACKAGES = ("starlette", "uvicorn", "websockets", "python_multipart", "prometheus_client")
KEY_VARIABLE = "CWJAX_API_KEY"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.description = "Serves a model to OpenAI's clients, and a page that shows what a context does."
    add = parser.add_argument
    add("--model", required=True, help="model directory, hub id OWNER/NAME, or name of a published Whisper")
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    add("--port", type=int, default=8000, help="(8000); 0: any that is free")
    add("--api-key-file", metavar="FILE", type=Path, help=f"holds the key that clients need (or {KEY_VARIABLE} is it)")
    add("--open", action="store_true", help="let other machines ask without a key")
    add("--allow-origin", metavar="URL", action="append", default=[], help="pages of this site may ask, too")
    add("--context", default="", metavar="TEXT", help="of recordings that come without one")
    add("--batch-size", type=int, default=8, metavar="N", help="most windows at once (8)")
    add("--queue", type=int, default=64, metavar="N", help="most requests that wait (64)")
    add("--max-upload-mb", type=int, default=512, metavar="N", help="of a file (512)")
    add("--max-minutes", type=float, default=180, metavar="N", help="of a recording (180)")
    add("--grace", type=float, default=30, metavar="SECONDS", help="that streams have when the server ends (30)")
    add("--warm-up", action=argparse.BooleanOptionalAction, default=True, help="compile before the first request")
    add("--no-page", action="store_true", help="serve no page")
    add("--compute-dtype", metavar="TYPE", help="bfloat16, float16, float32 or int8")
    add("--device", help="such as cpu, gpu or cuda:1")
    add("--spotter", metavar="FILE", help="phrase spotter of launch/train_spotter.py")
    add("--debug", action="store_true", help="show the traceback of errors")


def run(options: argparse.Namespace) -> int:
    """Serves until it is told to stop, and gives the exit status.

    Raises:
        CwjaxError: an option is impossible, the address cannot be had, or the model cannot be loaded.
    """
    for package in PACKAGES:
        require_package(package, "serve")
    _check(options)
    import cwjax
    from cwjax.serving.app import Access, Limits
    from cwjax.serving.guard import is_loopback
    from cwjax.serving.served import Served
    from cwjax.serving.server import Server, bind

    key = _key(options)
    if key is None and not options.open and not is_loopback(options.host):
        raise CwjaxError(
            f"--host {options.host} lets other machines ask: give them a key by --api-key-file or {KEY_VARIABLE}, or "
            "let everybody in by --open"
        )
    with bind(options.host, options.port) as listening:
        model = cwjax.load(options.model, dtype=options.compute_dtype, device=options.device, spotter=options.spotter)
        served = Served(model.transcriber, options.model, model.takes_context, options.context, int(time.time()))
        limits = Limits(
            options.batch_size, options.queue, options.max_upload_mb, options.max_minutes, max(0.0, options.grace)
        )
        access = Access(key, options.allow_origin, [options.host])
        Server(served, limits, access, not options.no_page, options.warm_up).run(listening)
    return 0


def _check(options: argparse.Namespace) -> None:
    for name, least in (("batch_size", 1), ("queue", 0), ("max_upload_mb", 1), ("max_minutes", 0.1), ("grace", 0)):
        if not getattr(options, name) >= least:
            raise CwjaxError(f"--{name.replace('_', '-')} is {getattr(options, name)}: it must be at least {least}")
    if not 0 <= options.port <= 65_535:
        raise CwjaxError(f"--port is {options.port}: it must be 0 to 65535")


def _key(options: argparse.Namespace) -> str | None:
    """The key in the file, or in the environment; None: there is none."""
    file = options.api_key_file
    if file is None:
        key, place = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if key is None:
            return None
    else:
        try:
            key, place = file.read_text(encoding="utf-8"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise CwjaxError(f"{file}: cannot be read as the API key ({error}); check the path") from None
    if not key.strip() or not key.strip().isascii() or len(key.split()) > 1:
        raise CwjaxError(f"{place}: holds no API key; put one word of ASCII letters into it")
    return key.strip()
