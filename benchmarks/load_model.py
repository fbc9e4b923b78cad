"""How long `cwjax.load` takes for Whisper small with BERT base, random weights, in fresh processes.

    python benchmarks/load_model.py [--size small] [--repeats 5] [--directory SCRATCH]

Prints the medians: what importing jax takes, and what `import cwjax` and `cwjax.load` add.
The files are in the page cache after the first repeat, as they are for a user's second look at a model.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION
from cwjax.data.examples.processor import save_preprocessor_settings
from cwjax.models.bert import BertConfig
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import flatten
from cwjax.models.whisper import WHISPER_SIZES, ContextAttentionConfig
from cwjax.weights.model_directory import write_model

MEASURE = """
import sys, time
began = time.perf_counter()
import jax
jax.devices()
imported = time.perf_counter()
import cwjax
model = cwjax.load(sys.argv[1])
jax.block_until_ready(model.params)
print(imported - began, time.perf_counter() - imported)
"""


def main() -> None:
    """Writes a model directory and loads it again and again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(WHISPER_SIZES), default="small", help="of the Whisper (small)")
    parser.add_argument("--repeats", type=int, default=5, help="processes (5)")
    parser.add_argument("--directory", type=Path, help="for the model (default: temporary)")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        whisper = WHISPER_SIZES[options.size]
        config = ContextWhisperConfig(whisper, BertConfig(), ContextAttentionConfig())
        generator = np.random.default_rng(0)
        named = ((path, generator.random(leaf.shape, np.float32)) for path, leaf in flatten(abstract(config)[1]))
        written = write_model(scratch, config, named, {})
        save_preprocessor_settings(scratch, whisper.num_mel_bins, whisper.max_source_positions * SAMPLES_PER_POSITION)
        print(f"{written['parameters']:,} parameters, {written['bytes'] / 2**30:.2f} GiB, {jax.default_backend()}")
        rows = [_measure(scratch) for _ in range(options.repeats)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    others, ours = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"import jax: {others:.2f} s; import cwjax and cwjax.load: {ours:.2f} s")


def _measure(directory: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", MEASURE, str(directory)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    others, ours = map(float, output.split())
    return others, ours


if __name__ == "__main__":
    main()
