"""Transcription against those that people use: the same weights, windows and number of tokens.

    pip install faster-whisper
    python benchmarks/transcription_speed.py [--sizes tiny base] [--windows 1 8] [--tokens 64] [--repeats 5]

Peers are openai-whisper and transformers on PyTorch, and CTranslate2, the engine of faster-whisper. With
`--onnx-python PYTHON`, an interpreter of another environment that has optimum-onnx (whose transformers is older than
ours), ONNX Runtime too. With `--int8`, cwjax and CTranslate2 with int8 weights as well, for which tokens may differ.

From samples to tokens: spectrogram, audio encoder and greedy decoding of exactly as many tokens, float32, random
weights, all peers in turn on the same threads. A run during which other processes took more than a quarter of a core
does not count and is repeated. Prints the medians, the ratio of ours to the fastest peer (of float32 and of int8 each),
and how long the machine would take at its own measured pace of matrix products (for the encoder) and of reading memory
(for the weights and cached keys of every decoding step).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")  # left to itself, CTranslate2 takes AVX2 on some machines

import ctranslate2
import jax
import numpy as np
import torch
import whisper
from faster_whisper.feature_extractor import FeatureExtractor
from transformers import GenerationMixin, WhisperFeatureExtractor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references import openai_model, real_vocabulary, transformers_model

from cwjax.data.audio.log_mel import HOP_LENGTH
from cwjax.data.examples.processor import Processor
from cwjax.inference.audio import Recording
from cwjax.inference.engine import Engine, WindowJob
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import Programs
from cwjax.machine import available_cores
from cwjax.models.context_whisper import ContextWhisperConfig, init_params
from cwjax.models.parameters import Parameters, flatten
from cwjax.models.whisper import WHISPER_SIZES, WhisperConfig
from cwjax.weights.export import export
from cwjax.weights.model_directory import save_model

THREADS = available_cores()
WINDOW_SAMPLES = 480_000
PEERS = ("cwjax", "openai-whisper", "transformers", "CTranslate2", "ONNX Runtime", "cwjax int8", "CTranslate2 int8")
ELSEWHERE = 0.25
"""Cores that other processes may use during a run that counts."""


def main() -> None:
    """Measures every size and number of windows, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=sorted(WHISPER_SIZES), default=["tiny", "base"])
    parser.add_argument("--windows", nargs="+", type=int, default=[1, 8], help="windows at once (1 8)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded for each window (64)")
    parser.add_argument("--repeats", type=int, default=5, help="runs that count (5)")
    parser.add_argument("--onnx-python", metavar="PYTHON", help="interpreter with optimum-onnx (default: without it)")
    parser.add_argument("--int8", action="store_true", help="measure int8 weights, too")
    parser.add_argument("--json", type=Path, help="file to write the figures to as well")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    machine = _pace()
    print(f"{THREADS} threads, {jax.default_backend()}: {machine['flops'] / 1e9:.0f} GFLOP/s in products, ", end="")
    print(f"{machine['bytes'] / 1e9:.1f} GB/s read")
    rows = [row for size in options.sizes for row in _measure_size(size, options, machine)]
    names = [name for name in PEERS if name in rows[0]]
    print(
        f"\n{'Whisper':9} {'windows':>7} {' '.join(f'{name:>16}' for name in names)}  ratio to the best  share of limit"
    )
    for row in rows:
        times = " ".join(f"{row[name]:15.2f}s" for name in names)
        int8 = f"  int8 {row['int8 ratio']:.2f}" if options.int8 else ""
        limit = row["limit"] / row["cwjax"]
        print(f"{row['size']:9} {row['windows']:7} {times}  {row['ratio']:17.2f}  {limit:13.0%}{int8}")
    if options.json:
        options.json.write_text(json.dumps({"threads": THREADS, **machine, "rows": rows}, indent=2) + "\n")


def _measure_size(size: str, options: argparse.Namespace, machine: dict[str, float]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as scratch:
        config, processor = real_vocabulary(Path(scratch), WHISPER_SIZES[size])
        parameters = jax.device_get(init_params(config, jax.random.key(0)))
        exported = _exported(Path(scratch), config, parameters, processor)
        peers = {
            "cwjax": _ours(config, parameters, processor, options.tokens),
            "openai-whisper": _openai(config.whisper, parameters, options.tokens),
            "transformers": _transformers(config.whisper, parameters, processor, options.tokens),
            "CTranslate2": _ctranslate2(exported, Path(scratch) / "ctranslate2", processor, options.tokens),
        }
        if options.int8:
            peers["cwjax int8"] = _ours(config, parameters, processor, options.tokens, int8=True)
            peers["CTranslate2 int8"] = _ctranslate2(
                exported, Path(scratch) / "int8", processor, options.tokens, compute_type="int8"
            )
        if options.onnx_python:
            peers["ONNX Runtime"] = _onnx(options.onnx_python, exported, processor, options.tokens)
    rows = []
    for windows in options.windows:
        samples = np.random.default_rng(0).normal(0, 0.1, (windows, WINDOW_SAMPLES)).astype(np.float32)
        said = {name: transcribe(samples) for name, transcribe in peers.items()}
        for name, tokens in said.items():
            if tokens != said["cwjax"] and not name.endswith("int8"):
                print(f"{size}, {windows} windows: {name} says other tokens than cwjax", file=sys.stderr)
        times: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(options.repeats):
            for name, transcribe in peers.items():
                times[name].append(_clean_time(transcribe, samples))
        medians = {name: statistics.median(measured) for name, measured in times.items()}
        others = min(value for name, value in medians.items() if name != "cwjax" and not name.endswith("int8"))
        row = {"size": size, "windows": windows, **medians, "ratio": medians["cwjax"] / others}
        if options.int8:
            row["int8 ratio"] = medians["cwjax int8"] / medians["CTranslate2 int8"]
        rows.append(row | {"limit": _limit(config.whisper, windows, options.tokens, machine)})
        print(f"{size}, {windows} windows: " + ", ".join(f"{name} {value:.2f} s" for name, value in medians.items()))
    return rows


def _ours(
    config: ContextWhisperConfig, parameters: Parameters, processor: Processor, tokens: int, int8: bool = False
) -> Callable[[np.ndarray], list[list[int]]]:
    engine = Engine(Programs(config, parameters, processor, int8=int8))
    never = [-1, processor.tokens.end_of_text, *range(processor.tokens.first_timestamp, len(processor.tokens))]
    plan = DecodingOptions(
        language="en", temperature=0.0, without_timestamps=True, suppress_tokens=never, sample_len=tokens
    )

    def transcribe(samples: np.ndarray) -> list[list[int]]:
        recordings = [Recording.open(row) for row in samples]
        frames = WINDOW_SAMPLES // HOP_LENGTH
        results = engine.run(
            [
                WindowJob(recording, engine.programs.max_log_mel(recording), 0, frames, False, None, plan, "en")
                for recording in recordings
            ]
        )
        return [list(result.window.tokens) for result in results]

    return transcribe


def _openai(config: WhisperConfig, parameters: Parameters, tokens: int) -> Callable[[np.ndarray], list[list[int]]]:
    model = openai_model(config, parameters)
    vocabulary = whisper.tokenizer.get_tokenizer(True, num_languages=99)
    never = [-1, vocabulary.eot, *range(vocabulary.timestamp_begin, config.vocab_size)]
    plan = whisper.DecodingOptions(
        language="en", without_timestamps=True, suppress_tokens=never, sample_len=tokens, fp16=False
    )

    def transcribe(samples: np.ndarray) -> list[list[int]]:
        mels = whisper.log_mel_spectrogram(torch.from_numpy(samples), config.num_mel_bins)
        return [window.tokens for window in model.decode(mels, plan)]

    return transcribe


def _transformers(
    config: WhisperConfig, parameters: Parameters, processor: Processor, tokens: int
) -> Callable[[np.ndarray], list[list[int]]]:
    model = transformers_model(config, parameters)
    model.config._attn_implementation = "sdpa"
    extractor = WhisperFeatureExtractor(config.num_mel_bins)
    settings = model.generation_config
    settings.suppress_tokens = _suppressed(processor)
    settings.begin_suppress_tokens = [*processor.tokens.pieces(" "), processor.tokens.end_of_text]
    start = torch.tensor([processor.tokens.prompt("en", timestamps=False)])

    def transcribe(samples: np.ndarray) -> list[list[int]]:
        mels = extractor(list(samples), sampling_rate=16_000, return_tensors="pt").input_features
        said = GenerationMixin.generate(
            model,
            mels,
            attention_mask=torch.ones(mels.shape[::2], dtype=torch.long),
            decoder_input_ids=start.repeat(len(samples), 1),
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
        )
        return said[:, start.shape[1] :].tolist()

    return transcribe


def _exported(scratch: Path, config: ContextWhisperConfig, parameters: Parameters, processor: Processor) -> Path:
    """The Whisper inside as a directory of transformers."""
    save_model(scratch / "model", config, flatten(parameters), processor, {})
    return export(scratch / "model", "hf-whisper", scratch / "whisper")


def _ctranslate2(
    whisper_directory: Path, scratch: Path, processor: Processor, tokens: int, compute_type: str = "float32"
) -> Callable[[np.ndarray], list[list[int]]]:
    converter = ctranslate2.converters.TransformersConverter(str(whisper_directory))
    converter.convert(str(scratch))
    model = ctranslate2.models.Whisper(
        str(scratch), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=THREADS
    )
    extractor = FeatureExtractor(feature_size=processor.num_mel_bins)
    start = processor.tokens.prompt("en", timestamps=False)

    def transcribe(samples: np.ndarray) -> list[list[int]]:
        mels = np.stack([extractor(row)[:, : WINDOW_SAMPLES // HOP_LENGTH] for row in samples])
        found = model.generate(
            ctranslate2.StorageView.from_array(np.ascontiguousarray(mels, np.float32)),
            [start] * len(samples),
            beam_size=1,
            max_length=2 * tokens,  # of which it gives half to the transcript
            suppress_blank=True,
            suppress_tokens=_suppressed(processor),
        )
        return [list(one.sequences_ids[0]) for one in found]

    return transcribe


def _suppressed(processor: Processor) -> list[int]:
    """Special tokens, and what is not said by default: symbols, notes, brackets."""
    vocabulary = whisper.tokenizer.get_tokenizer(True, num_languages=99)
    return sorted({*vocabulary.non_speech_tokens, *range(vocabulary.eot, len(processor.tokens))})


def _onnx(
    python: str, whisper_directory: Path, processor: Processor, tokens: int
) -> Callable[[np.ndarray], list[list[int]]]:
    """ONNX Runtime by way of optimum, in a process of another environment that waits for samples."""
    settings = {
        "directory": str(whisper_directory),
        "tokens": tokens,
        "threads": THREADS,
        "num_mel_bins": processor.num_mel_bins,
        "start": processor.tokens.prompt("en", timestamps=False),
        "suppressed": _suppressed(processor),
        "at_begin": [*processor.tokens.pieces(" "), processor.tokens.end_of_text],
    }
    server = subprocess.Popen(
        [python, str(Path(__file__).with_name("onnx_server.py")), json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    if server.stdout.readline() != b"ready\n":
        raise SystemExit(f"transcription_speed: {python} cannot run ONNX Runtime; see what it says above")

    def transcribe(samples: np.ndarray) -> list[list[int]]:
        server.stdin.write(json.dumps(samples.shape).encode() + b"\n" + samples.tobytes())
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    return transcribe


def _clean_time(transcribe: Callable[[np.ndarray], object], samples: np.ndarray) -> float:
    """Seconds of a run during which the machine did little else."""
    for _ in range(20):
        busy, own, began = _busy(), _own(), time.perf_counter()
        transcribe(samples)
        seconds = time.perf_counter() - began
        elsewhere = (_busy() - busy) - (_own() - own)
        if elsewhere <= ELSEWHERE * seconds:
            return seconds
    raise SystemExit("transcription_speed: the machine is busy with something else; run this when it is quiet")


def _busy() -> float:
    """Seconds that all cores together have worked; 0 where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return time.process_time()
    user, nice, system, _, _, irq, soft, *_ = map(int, stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds that this process and its children have worked."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            fields = Path(f"/proc/{child}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _pace() -> dict[str, float]:
    """What this machine does at best: float operations in matrix products and bytes read, in a second."""
    square = np.ones((2048, 2048), np.float32)
    products = min(_seconds(lambda: torch.from_numpy(square) @ torch.from_numpy(square)) for _ in range(5))
    long = torch.ones(2**28)
    reading = min(_seconds(long.sum) for _ in range(5))
    return {"flops": 2 * 2048**3 / products, "bytes": 4 * 2**28 / reading}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _limit(config: WhisperConfig, windows: int, tokens: int, machine: dict[str, float]) -> float:
    """Seconds at the machine's pace: the operations of the audio encoder and the decoder's keys and values of the
    audio, then for every token the reading of all weights and of these keys and values."""
    width, positions = config.d_model, config.max_source_positions
    convolutions = 2 * 2 * positions * 3 * config.num_mel_bins * width + 2 * positions * 3 * width**2
    blocks = config.encoder_layers * (2 * positions * 12 * width**2 + 4 * positions**2 * width)
    projected = config.decoder_layers * 4 * positions * width**2
    encoding = windows * (convolutions + blocks + projected) / machine["flops"]
    weights = config.decoder_layers * 14 * width**2 + config.vocab_size * width
    read = 4 * (weights + windows * 2 * config.decoder_layers * positions * width) / machine["bytes"]
    computed = windows * (2 * weights + 4 * config.decoder_layers * positions * width) / machine["flops"]
    return encoding + tokens * max(read, computed)


if __name__ == "__main__":
    main()
