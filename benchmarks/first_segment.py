"""How soon a command shows what was said: the first segment of ours, and the whole run of openai-whisper's.

    python benchmarks/first_segment.py --model MODEL --audio FILE [--repeats 3]

Both are started anew for every run, with the same weights, greedily. Ours is run with an empty compilation cache, and
then with a warm one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile

from cwjax.data.audio.decode import read_audio
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.weights.export import export

THEIRS = """
import sys, soundfile, whisper
samples, _ = soundfile.read(sys.argv[1], dtype="float32")
model = whisper.load_model(sys.argv[2])
model.transcribe(samples, language="en", temperature=0.0, fp16=False, verbose=True)
"""


def main() -> None:
    """Starts both commands in turn, and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model directory with a pretrained Whisper")
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        weights = export(arguments.model, "openai", Path(scratch) / "whisper.pt")
        greedy = ["--language", "en", "--temperature_increment_on_fallback", "None", "--output_dir", scratch]
        ours = [sys.executable, "-m", "cwjax.cli", "transcribe", str(arguments.audio), "--model", str(arguments.model)]
        ours += [*greedy, "--beam_size", "none"]
        # Their command decodes files with ffmpeg, which need not be here: it is spared.
        samples = Path(scratch) / "samples.wav"
        soundfile.write(samples, read_audio(arguments.audio), SAMPLING_RATE, subtype="FLOAT")
        theirs = [sys.executable, "-c", THEIRS, str(samples), str(weights)]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(Path(scratch) / "cache"),
            "XDG_CACHE_HOME": scratch,
        }
        print(f"first segment with an empty cache: {_run(ours, environment)[0]:.1f} s")
        first, whole = [], []
        for _ in range(arguments.repeats):
            first.append(_run(ours, environment)[0])
            whole.append(_run(theirs, os.environ)[1])
    one, other = statistics.median(first), statistics.median(whole)
    print(f"with a warm cache: {one:.1f} s; openai-whisper's whole run: {other:.1f} s; ratio {one / other:.2f}")


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds until the first segment is printed, and until the end."""
    began = time.perf_counter()
    unbuffered = dict(environment) | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=unbuffered) as process:
        shown = next((time.perf_counter() for line in process.stdout if line.startswith(b"[")), None)
        process.stdout.read()
    if process.returncode or shown is None:
        raise SystemExit(f"first_segment: {' '.join(command)} failed")
    return shown - began, time.perf_counter() - began


if __name__ == "__main__":
    main()
