"""Peak memory and time of converting a whole Whisper large-v3 with BERT base, random weights, written in shards.

    python benchmarks/convert_large.py [--directory SCRATCH] [--dtype float32]

Prints the size of the checkpoint, the time of the conversion and its peak memory as a share of that size.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cwjax.models.bert import BertConfig
from cwjax.models.parameters import flatten
from cwjax.models.whisper import WHISPER_SIZES
from cwjax.weights.name_table import Table, extract
from cwjax.weights.tensors import write_tensors
from cwjax.weights.text_encoder_checkpoints import BERT_TABLE, abstract_text_encoder, text_encoder_settings
from cwjax.weights.whisper_checkpoints import HUGGING_FACE_TABLE, hugging_face_settings, stock_whisper

MEASURE = """
import sys, time
from cwjax.cli import main
from cwjax.machine import peak_memory
began = time.perf_counter()
status = main(sys.argv[1:])
print(status, time.perf_counter() - began, peak_memory())
"""


def main() -> None:
    """Writes the checkpoints, converts them in a process of its own, and prints what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, help="for the checkpoints, twice their size (default: temporary)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        whisper = WHISPER_SIZES["large-v3"]
        sizes = [
            _write(
                scratch / "whisper", stock_whisper(whisper), HUGGING_FACE_TABLE, hugging_face_settings(whisper), options
            ),
            _write(
                scratch / "bert",
                abstract_text_encoder(BertConfig()),
                BERT_TABLE,
                text_encoder_settings(BertConfig()),
                options,
            ),
        ]
        command = ["convert", "--whisper", str(scratch / "whisper"), "--text-encoder", str(scratch / "bert")]
        output = subprocess.run(
            [sys.executable, "-c", MEASURE, *command, "--output", str(scratch / "out")],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        status, seconds, peak = map(float, output.split())
        if status:
            raise SystemExit("the conversion failed")
        total = sum(sizes)
        print(f"checkpoints {total / 2**30:.2f} GiB, converted in {seconds:.0f} s", end=", ")
        print(f"peak memory {peak / 2**30:.2f} GiB = {peak / total:.2f} x the checkpoints")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(directory: Path, expected: dict, table: Table, settings: dict, options: argparse.Namespace) -> int:
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for path, leaf in flatten(expected):
            array = generator.random(leaf.shape, np.float32).astype(options.dtype)
            yield from extract({path: array}, table)

    began = time.perf_counter()
    size = write_tensors(directory, tensors(), {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(settings))
    print(f"{directory.name}: wrote {size / 2**30:.2f} GiB in {time.perf_counter() - began:.0f} s", flush=True)
    return size


if __name__ == "__main__":
    main()
