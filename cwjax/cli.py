"""The command line: `cwjax COMMAND`, also `python launch/COMMAND.py`.

Exit status: 0 the work was done, 1 something the user can mend (one plain line says what), 2 wrong usage.
"""

import argparse
import contextlib
import io
import logging
import sys
from collections.abc import Sequence

from cwjax import __version__
from cwjax.commands import align, convert, evaluate, push, score, serve
from cwjax.commands.terminal import TerminalHandler, mute_closed_streams, say_error
from cwjax.errors import CwjaxError
from cwjax.extras import EXTRAS, missing_package, require_package
from cwjax.machine import keep_compiled_programs

log = logging.getLogger(__name__)

_COMMANDS = {
    "serve": (serve, "let OpenAI's clients and browsers transcribe with a model"),
    "align": (align, "find when the words of a text are said in long recordings"),
    "evaluate": (evaluate, "measure what a model makes of contexts and phrases"),
    "score": (score, "error rates of any system's output, with intervals"),
    "convert": (convert, "join checkpoints to a model, or take one apart"),
    "push": (push, "upload a model to the Hugging Face hub"),
}
"""Commands whose options are known without importing more than argparse."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[TerminalHandler(sys.stderr)],
        force=True,
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # nothing fails where a terminal lacks a letter
    _quiet_libraries()
    parser = argparse.ArgumentParser(
        prog="cwjax", description="Whisper speech recognition that understands context.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help="train an experiment of configs/", add_help=False)
    preparing = commands.add_parser("prepare", help="make a corpus ready for training")
    commands.add_parser("plan", help="see whether an experiment fits on some chips, and how fast", add_help=False)
    commands.add_parser("transcribe", help="write down what is said in recordings", add_help=False)
    runs = {}
    for name, (command, help_) in _COMMANDS.items():
        command.add_options(commands.add_parser(name, help=help_))
        runs[name] = command.run
    try:
        if arguments[:1] == ["train"]:
            return _train(arguments[1:])
        if arguments[:1] == ["transcribe"]:
            from cwjax.commands.transcribe import transcribe

            return transcribe(arguments[1:], debug)
        if arguments[:1] == ["plan"]:
            from cwjax.commands.plan import plan

            return plan(arguments[1:])
        if arguments[:1] == ["prepare"]:
            from cwjax.commands import prepare

            prepare.add_options(preparing)
            runs["prepare"] = prepare.run
        options = parser.parse_args(arguments)
        return runs[options.command](options)
    except CwjaxError as error:
        if debug:
            raise
        say_error(error)
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if debug or package not in EXTRAS:
            raise
        say_error(missing_package(package, arguments[0]))
        return 1
    except KeyboardInterrupt:
        print("cwjax: interrupted", file=sys.stderr)
        return 130
    finally:
        mute_closed_streams()


def _train(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cwjax train",
        add_help=False,
        allow_abbrev=False,
        usage="cwjax train --config FILE [--workdir DIR] [--distributed SETTING] [--join-timeout SECONDS] "
        "[--heartbeat-timeout SECONDS] [--profile] [--SECTION.FIELD VALUE ...] [--debug]",
        description="Trains an experiment; running the same command again continues it.",
    )
    parser.add_argument("--config", metavar="FILE", help="such as configs/demo.py")
    parser.add_argument(
        "--distributed",
        metavar="SETTING",
        help="this process is one of several: 'auto' on TPU pods, Slurm, Open MPI and Kubernetes, or HOST:PORT,N,I: "
        "address of process 0, number of processes, number of this one",
    )
    parser.add_argument(
        "--join-timeout",
        type=int,
        metavar="SECONDS",
        help="how long such processes wait for each other at the start (600)",
    )
    parser.add_argument(
        "--heartbeat-timeout",
        type=int,
        metavar="SECONDS",
        help="after how much silence one of them is taken for dead, and all others end (100)",
    )
    parser.add_argument("--profile", action="store_true", help="write a trace of a few steps to WORKDIR/profile")
    known, overrides = parser.parse_known_args(arguments)
    if not known.config:
        if "--help" in overrides or "-h" in overrides:
            parser.print_help()
            print("\nWith --config FILE, --help lists every field with its value in that file.")
            return 0
        raise CwjaxError("train: --config is missing; the experiments are in configs/, such as configs/demo.py")
    require_package("tyro", "train")  # its extra brings those of the others
    keep_compiled_programs()
    from cwjax.config import load_config
    from cwjax.processes import Patience, joined
    from cwjax.training.signals import StoppedBySignal
    from cwjax.training.train import train

    overrides = ["--help" if one == "-h" else one for one in overrides] + ["--train.profile"] * known.profile
    config = load_config(known.config, overrides)
    waits = {"join": known.join_timeout, "heartbeat": known.heartbeat_timeout}
    patience = Patience(**{name: seconds for name, seconds in waits.items() if seconds is not None})
    with joined(known.distributed, patience) if known.distributed else contextlib.nullcontext():
        try:
            train(config)
        except StoppedBySignal as stop:
            log.info("%s", stop)
    return 0


def _quiet_libraries() -> None:
    """Keeps libraries from printing what we report ourselves, in a line."""
    for noisy in ("jax", "orbax", "transformers", "httpx", "httpx2", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # When Orbax cannot read a checkpoint it logs a traceback, and forgets the reads that fail after the first.
    for silent in ("absl", "asyncio"):
        logging.getLogger(silent).setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unless_a_forgotten_read


def _print_unless_a_forgotten_read(unraisable: "sys.UnraisableHookArgs") -> None:
    of_orbax = "orbax" in repr(getattr(unraisable.object, "cr_code", None))
    if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(main())
