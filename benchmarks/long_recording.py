"""Memory and time of long recordings, window by window and many windows at once.

    python benchmarks/long_recording.py [--minutes 10 60 180] [--tokens 8] [--batch-size 8] [--directory SCRATCH]

A Whisper tiny with random weights transcribes a recording of noise from a file, each length and each way in a process
of its own. Prints the peak memory, what of it is not the recording's samples (float32 at 16 kHz), and how much faster
the batched way is. Random weights say as many tokens as they may, so that every window costs the same.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references import real_vocabulary

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.models.context_whisper import init_params
from cwjax.models.whisper import WHISPER_SIZES
from cwjax.weights.model_directory import save_model

MEASURE = """
import sys, time
import cwjax
from cwjax.inference.options import DecodingOptions
from cwjax.machine import peak_memory
model_directory, audio, tokens, batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = cwjax.load(model_directory)
vocabulary = model.processor.tokens
options = DecodingOptions(
    language="en", temperature=0.0, sample_len=tokens, without_timestamps=True, condition_on_previous_text=False,
    no_speech_threshold=None, logprob_threshold=None, compression_ratio_threshold=None,
    suppress_tokens=[-1, *range(vocabulary.end_of_text, len(vocabulary))],
)
def transcribe(audio):
    if batch_size:
        return model.transcribe(
            audio, "bees and honey", options, independent_windows=True, batch_size=batch_size
        )
    return model.transcribe(audio, "bees and honey", options)
import numpy as np
transcribe(np.random.default_rng(0).normal(0, 0.1, 16_000 * 30 * max(batch_size, 1)).astype(np.float32))
began = time.perf_counter()
segments = len(transcribe(audio).segments)
print(segments, time.perf_counter() - began, peak_memory())
"""


def main() -> None:
    """Writes a model and recordings, and measures each length both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60, 180])
    parser.add_argument("--tokens", type=int, default=8, help="tokens decoded for each window (8)")
    parser.add_argument("--batch-size", type=int, default=8, help="windows at once in the batched way (8)")
    parser.add_argument("--directory", type=Path, help="for model and recordings (default: temporary)")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        config, processor = real_vocabulary(scratch / "parts", WHISPER_SIZES["tiny"])
        parameters = jax.device_get(init_params(config, jax.random.key(0)))
        save_model(scratch / "model", config, parameters, processor, {})
        for minutes in options.minutes:
            _measure_length(scratch, minutes, options)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measure_length(scratch: Path, minutes: int, options: argparse.Namespace) -> None:
    audio = scratch / "recording.wav"
    random = np.random.default_rng(0)
    with soundfile.SoundFile(audio, "w", SAMPLING_RATE, 1) as file:
        for _ in range(minutes):
            file.write(random.normal(0, 0.1, 60 * SAMPLING_RATE).astype(np.float32))
    seconds = {}
    for way, batch_size in (("sequential", 0), ("batched", options.batch_size)):
        arguments = [scratch / "model", audio, options.tokens, batch_size]
        command = [sys.executable, "-c", MEASURE, *map(str, arguments)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        segments, seconds[way], peak = map(float, output.split())
        samples = minutes * 60 * SAMPLING_RATE * 4
        print(
            f"{minutes:4} minutes, {way:10}: {segments:4.0f} segments, {minutes * 60 / seconds[way]:4.0f} x real time, "
            f"peak {peak / 2**20:6,.0f} MiB, without the samples {(peak - samples) / 2**20:6,.0f} MiB",
            flush=True,
        )
    print(f"{minutes:4} minutes: batched is {seconds['sequential'] / seconds['batched']:.2f} x as fast")


if __name__ == "__main__":
    main()
