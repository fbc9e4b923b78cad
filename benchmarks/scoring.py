"""How long scoring takes, and what memory: `cwjax score` of made-up utterances, one core.

    python benchmarks/scoring.py [--utterances 10000 100000]

Each has 5 to 35 words, a tenth of them wrong, a speaker, a recording and two bias words. Prints a line for each number.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cwjax.demo.homophones import read_homophones

PEAK = "import resource, sys; from cwjax.cli import main; main(sys.argv[1:]); " + (
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
)


def main() -> None:
    """Scores every number of utterances and prints how that went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, nargs="+", default=[10_000, 100_000])
    for count in parser.parse_args().utterances:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "hypotheses.jsonl"
            _write(path, count)
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            before, began = os.times(), time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", PEAK, "score", path], capture_output=True, text=True, check=True
            )
            wall, after = time.perf_counter() - began, os.times()
            work = after.children_user + after.children_system - before.children_user - before.children_system
            peak = int(done.stderr.split()[-1]) / 1024
            print(f"{count:8,} utterances: {wall:5.1f} s, {work:5.1f} s of one core, {peak:4.0f} MiB", flush=True)


def _write(path: Path, count: int) -> None:
    chance, known = random.Random(0), read_homophones()
    words = " ".join([*known.carriers, *(one.word for pair in known.pairs for one in pair)]).format(word="it").split()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            said = chance.choices(words, k=chance.randint(5, 35))
            heard = [word if chance.random() > 0.1 else chance.choice(words) for word in said if chance.random() > 0.03]
            one = {"id": f"u{number}", "speaker": f"s{number % 200}", "recording": f"r{number % 2000}"}
            one |= {"reference": " ".join(said), "hypothesis": " ".join(heard), "bias_words": [said[0], said[-1]]}
            file.write(json.dumps(one) + "\n")


if __name__ == "__main__":
    main()
