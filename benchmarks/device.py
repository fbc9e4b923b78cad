"""What an accelerator makes of all that runs on one: attention, transcription, phrases, word times, training.

    python benchmarks/device.py [--rows attention decode ...] [--budget 240] [--out FILE]

Random weights, synthetic sound, exactly `--tokens` tokens a window; no file is read and no network is needed. Each row
stands alone (`device_rows.py`): one that fails says why, and the next one runs. Every figure is printed, and appended
to `--out` as a line of JSON, as soon as it is known; rows that the seconds of `--budget` leave no time for are named.
Peers are transformers' Whisper on PyTorch (`device_peer.py`, `train_step.py`). `--small` takes sizes that any CPU can
do, to try the script.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROWS = ("attention", "decode", "phrases", "train", "int8", "align", "engine", "sizes", "parity")
"""By importance."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers", "nvidia-cudnn-cu13")
STAND_IN = """import sys, unittest.mock
sys.modules[__name__] = unittest.mock.MagicMock(__version__="19.0.0", FFmpegError=OSError)
"""
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Runs the rows in a process of their own, and in another one what is left to do if that one dies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), help=f"what to measure ({' '.join(ROWS)})"
    )
    parser.add_argument("--budget", type=float, default=240, help="seconds in all (240)")
    parser.add_argument("--out", type=Path, help="file of JSON lines that figures are appended to")
    parser.add_argument("--tokens", type=int, default=100, help="tokens decoded for each window (100)")
    parser.add_argument("--small", action="store_true", help="sizes with which the script can be tried anywhere")
    options = parser.parse_args()
    ends = time.time() + options.budget
    with tempfile.TemporaryDirectory() as scratch:
        out = (options.out or Path(scratch) / "figures.json").resolve()
        environment = _environment(Path(scratch))
        tell(out, "card", **_card())
        rows = list(options.rows)
        while rows and time.time() < ends:
            settings = {"rows": rows, "out": str(out), "ends": ends, "tokens": options.tokens, "small": options.small}
            command = [sys.executable, "-u", str(HERE / "device_rows.py"), json.dumps(settings)]
            code = _run(command, environment, ends)
            begun = [line["row"] for line in map(json.loads, out.open(encoding="utf-8")) if line.get("begun")]
            if code == 0:
                return
            if code is not None:
                tell(out, begun[-1] if begun else "start", error=f"the process ended with {code}")
            rows = [row for row in rows if row not in begun] if begun else []
        tell(out, "budget", spent=options.budget, not_begun=" ".join(rows))


def tell(out: Path, row: str, **figures: Any) -> None:
    """Prints figures and keeps them."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in figures.items()}
    print(f"{row}: " + ", ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"row": row, **figures}) + "\n")


def _run(command: list[str], environment: dict[str, str], ends: float) -> int | None:
    """The exit code of a process, which is ended together with all that it started when time is up: None."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait(max(ends - time.time(), 0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _environment(scratch: Path) -> dict[str, str]:
    """With the project to import; with a stand-in for PyAV where it is missing, for it decodes files, and none is read;
    and with memory of the device left to PyTorch."""
    path = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    if importlib.util.find_spec("av") is None:
        (scratch / "av.py").write_text(STAND_IN, encoding="utf-8")
        path.append(str(scratch))
    defaults = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "cwjax_device_xla"),
    }
    return defaults | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def _card() -> dict[str, str]:
    """The card, its driver, and versions."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found = {"name": subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()}
    except (OSError, subprocess.TimeoutExpired) as error:
        found = {"name": f"unknown ({error})"}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


if __name__ == "__main__":
    main()
