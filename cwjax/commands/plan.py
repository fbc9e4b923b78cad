"""`cwjax plan`: does an experiment fit on these chips, and how fast can it be?"""

import argparse
import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cwjax.errors import CwjaxError
from cwjax.extras import require_package

if TYPE_CHECKING:  # the environment is set before JAX is imported
    from cwjax.training.plan import Plan

log = logging.getLogger(__name__)

MIB = 2**20


def plan(arguments: Sequence[str]) -> int:
    """Runs the command and gives its exit status: 1 when the experiment does not fit."""
    parser = argparse.ArgumentParser(
        prog="cwjax plan",
        add_help=False,
        allow_abbrev=False,
        usage="cwjax plan --config FILE [--topology v5e:16x16] [--search] [--json] [--SECTION.FIELD VALUE ...]",
        description="Compiles the training step of an experiment for devices that need not be here, and says what it "
        "needs of each chip and how long it takes at best. Exit status 1: it does not fit.",
    )
    parser.add_argument("--config", metavar="FILE", help="such as configs/whisper_small_flan_t5.py")
    parser.add_argument("--topology", help="TPU slice, such as v5e:16x16 or v5p:2x2x4; default: the devices here")
    parser.add_argument("--search", action="store_true", help="try ways to save memory and batch sizes, name the best")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    known, overrides = parser.parse_known_args(arguments)
    if not known.config:
        if {"-h", "--help"} & set(overrides):
            parser.print_help()
            print("\nWith --config FILE, --help lists every field with its value in that file.")
            return 0
        raise CwjaxError("plan: --config is missing; the experiments are in configs/, such as configs/demo.py")
    if known.topology:
        # The compiler for TPUs must not look for one, and everything else runs on the CPU.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it is asked to compile only
    require_package("tyro", "plan")
    from cwjax.config import load_config
    from cwjax.training.plan import LOCAL, alternatives, devices_of, make_plan, planned_sizes

    config = load_config(known.config, ["--help" if one == "-h" else one for one in overrides])
    model = planned_sizes(config)
    topology = known.topology or LOCAL
    devices = devices_of(topology)
    log.info("compiling the step for %d x %s", len(devices), devices[0].device_kind)
    made, refusal = None, ""
    try:
        made = make_plan(config, model, topology, devices)
    except CwjaxError as error:
        refusal = str(error)
        if not known.search:
            raise
    tried = []
    if known.search:
        for one in alternatives(config, model, topology, devices):
            tried.append(one)
            if not known.json:
                print(_line(one), flush=True)
    fitting = [one for one in tried if one.fits]
    best = max(fitting, key=lambda one: (one.windows_per_second, one.batch_size), default=None)
    if known.json:
        rows = [_as_dict(one) for one in tried]
        print(json.dumps({"plan": made and _as_dict(made), "tried": rows, "best": best and _as_dict(best)}, indent=2))
    else:
        if made:
            print(_table(made))
        if best:
            print("best that fits: " + _line(best))
    if made is None:
        raise CwjaxError(f"plan: {refusal}")
    if not made.fits:
        raise CwjaxError(
            f"plan: does not fit: a chip of {made.topology} has {made.memory / MIB:,.0f} MiB, the step needs "
            f"{made.peak / MIB:,.0f} MiB, {(made.peak - made.memory) / MIB:,.0f} MiB too much; try --search, a smaller "
            "--train.batch-size, or a larger --mesh.fsdp"
        )
    return 0


def _as_dict(made: "Plan") -> dict[str, Any]:
    return dataclasses.asdict(made) | {"fits": made.fits, "seconds": made.seconds}


def _line(one: "Plan") -> str:
    """One alternative, as the options that choose it."""
    options = f"--train.remat {one.remat} --train.batch-size {one.batch_size}"
    pace = f", {one.windows_per_second:8.0f} windows/s at best" if one.seconds else ""
    return f"{options:55} {one.peak / MIB:8,.0f} MiB{pace}{'' if one.fits else ', too large'}"


def _table(made: "Plan") -> str:
    """The plan for people."""
    axes = ", ".join(f"{axis} {size}" for axis, size in made.mesh.items())
    rows = [
        ("chips", f"{made.chips} of {made.topology}: {axes}"),
        ("batch", f"{made.batch_size}, remat: {made.remat}"),
        ("parameters", f"{made.parameters:,}, trained: {made.trained:,} ({made.trained / made.parameters:.1%})"),
        ("arguments of a chip", f"{made.arguments / MIB:,.0f} MiB"),
        ("temporaries", f"{made.temporaries / MIB:,.0f} MiB"),
        ("best in validation", f"{made.best / MIB:,.0f} MiB, and {made.copies / MIB:,.0f} MiB while it transcribes"),
        ("peak", f"{made.peak / MIB:,.0f} MiB" + (f" of {made.memory / MIB:,.0f} MiB" if made.memory else "")),
        ("operations of a chip", f"{made.operations / 1e12:.3f} TFLOP, {made.useful / 1e12:.3f} without remat"),
        *((f"{kind} of a chip", f"{size / MIB:,.1f} MiB") for kind, size in sorted(made.sent.items())),
        ("brought together in a loop's turn", f"{made.gathered_in_loops / MIB:,.1f} MiB"),
    ]
    if made.seconds:
        rows += [
            ("products by the roofline", f"{made.computing * 1e3:,.1f} ms"),
            ("collectives", f"{made.sending * 1e3:,.1f} ms"),
            ("step at best", f"{made.seconds * 1e3:,.1f} ms, {made.windows_per_second:,.0f} windows/s"),
            ("expected MFU at best", f"{made.expected_mfu:.0%}"),
        ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)
