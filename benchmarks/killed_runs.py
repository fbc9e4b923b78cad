"""Training that is killed at random moments against training that is left alone: the same losses and the same model.

    python benchmarks/killed_runs.py --config CONFIG [--kills 30] [--seed 0] [-- --FIELD VALUE ...]

The run is trained once undisturbed. Then it is started in another directory and killed (SIGKILL) at a moment drawn
from the time that the undisturbed run took, whatever it does then: compiling, saving, validating, exporting, reporting.
It is started again until so many kills are spent; when it ends before its kill, it is compared, removed and begun anew.
No directory that is called a model may be less than a whole one after a kill.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from cwjax.training.metrics import read_metrics
from cwjax.weights.model_directory import read_model_config, read_parameters

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Trains, kills, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        alone, killed = Path(scratch) / "alone", Path(scratch) / "killed"

        def start(workdir: Path) -> subprocess.Popen:
            command = [sys.executable, "launch/train.py", "--config", arguments.config, "--workdir", str(workdir)]
            return subprocess.Popen([*command, *arguments.overrides], cwd=ROOT, stderr=subprocess.PIPE, text=True)

        began = time.monotonic()
        _, said = (process := start(alone)).communicate()
        if process.returncode:
            raise SystemExit(f"killed_runs: the run fails undisturbed: {said}")
        seconds = time.monotonic() - began
        ended = kills = 0
        while kills < arguments.kills:
            process, moment = start(killed), draw.uniform(0, seconds)
            try:
                process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                models, kills = require_whole_models(killed), kills + 1
                print(f"kill {kills} after {moment:.1f} s, at step {reached(killed)}, {models} models", flush=True)
            else:
                ended += 1
                compare(process, alone, killed)
                shutil.rmtree(killed)
        _, said = (process := start(killed)).communicate()
        compare(process, alone, killed)
        print(f"{kills} kills, {ended + 1} whole runs: all losses, scores and models are equal")


def reached(workdir: Path) -> int:
    """The last step that is noted."""
    return max((row["step"] for row in read_metrics(workdir)), default=0) if workdir.exists() else 0


def require_whole_models(workdir: Path) -> int:
    """Reads all that is called a model, and gives how many there are."""
    found = [path for path in (workdir / "model", *workdir.glob("exports/step-*")) if path.exists()]
    for path in found:
        dict(read_parameters(path, read_model_config(path)))
    return len(found)


def compare(process: subprocess.Popen, alone: Path, killed: Path) -> None:
    """Ends the program if the killed run has other losses, scores or parameters than the other."""
    if process.returncode:
        raise SystemExit(f"killed_runs: the run does not go on (status {process.returncode})")

    def rows(workdir: Path) -> dict[tuple[int, str], float]:
        names = ("loss", "token_accuracy", "gradient_norm")
        return {
            (row["step"], name): value
            for row in read_metrics(workdir)
            for name, value in row.items()
            if name in names or name.startswith("validation/")
        }

    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (alone, killed))
    unlike = [path for path in ours if not np.array_equal(ours[path], theirs[path])]
    if rows(alone) != rows(killed) or unlike:
        raise SystemExit(f"killed_runs: the killed run is another one: {len(unlike)} parameters differ")


if __name__ == "__main__":
    main()
