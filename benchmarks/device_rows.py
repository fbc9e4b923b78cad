"""The rows of `device.py`, which starts this in a process of its own; people start that."""

import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from device import HERE, ROWS, tell
from flax import nnx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from cwjax.data.examples.processor import Processor
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.examples.whisper_tokens import SETTINGS, WhisperTokens, special_tokens
from cwjax.inference.audio import Recording
from cwjax.inference.engine import Engine, WindowJob
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrases import Phrases
from cwjax.inference.timing import warp
from cwjax.inference.transcriber import Transcriber
from cwjax.models.attention import attention
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import flatten, unflatten
from cwjax.models.phrase_spotter import detect
from cwjax.models.whisper import WHISPER_SIZES, WhisperConfig
from cwjax.weights.spotter_files import SHIPPED, _header, _read

RATE, SECONDS = 16_000, 30
"""Of windows."""
PARITY = {
    "whisper": "pytorch or cached or bfloat16",
    "decoding": "openai_whispers",
    "context_whisper": "closed or empty or gate or bfloat16",
    "layers": "attention or gelu or layer_norm",
    "phrase_spotter": "paths or gradient or place",
    "timing": "warping or aligned or weights",
    "quantisation": "error or close",
    "bert": "pytorch_model or bfloat16",
    "t5": "states or bfloat16",
}
"""Files of tests by importance, and which of them are of arithmetic and have references that are cheap on a CPU."""

settings = json.loads(sys.argv[1])
small, tokens = settings["small"], 8 if settings["small"] else settings["tokens"]
FEW, MANY = (1, 2) if small else (1, 16)
report = partial(tell, Path(settings["out"]))


def main() -> None:
    """One row after the other."""
    device = jax.devices()[0]
    report("device", kind=device.device_kind, compute=getattr(device, "compute_capability", "none"))
    for row in sorted(settings["rows"], key=ROWS.index):
        if left() < 5:
            report(row, skipped="the budget is spent")
            continue
        report(row, begun=True)
        began = time.perf_counter()
        try:
            globals()[f"measure_{row}"]()
        except Exception as error:
            trace = "\n".join(traceback.format_exc().strip().splitlines()[-12:])
            print(trace, flush=True)
            report(row, error=_reason(error), trace=trace)
        report(row, row_seconds=time.perf_counter() - began, left=left())


def left() -> float:
    """Seconds of the budget."""
    return settings["ends"] - time.time()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _first(call: Callable[[], Any]) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _seconds(call: Callable[[], Any], most: int = 5, lasting: float = 3.0) -> float:
    """The median of runs, of which there are fewer when they last long."""
    took: list[float] = []
    while len(took) < most and (len(took) < (1 if small else 2) or sum(took) < lasting):
        took.append(_first(call))
    return statistics.median(took)


def measure_attention() -> None:
    """Attention in bfloat16 against its definition in float32, and its pace against the definition's by XLA."""
    batch, heads, audio, text = (1, 2, 300, 300) if small else (16, 16, 1500, 448)
    random = np.random.default_rng(0)
    long = 256 if small else 2048
    short_keys, long_keys = (
        jnp.asarray(np.arange(keys) < random.integers(1, keys, (batch, 1))) for keys in (128, long)
    )
    bias = jnp.asarray(random.normal(size=(heads, 128, 128)), jnp.bfloat16)
    cases: dict[str, tuple[int, int, dict[str, Any]]] = {
        "encoder": (audio, audio, {}),
        "decoder, causal": (text, text, {"causal": True}),
        "decoder, causal, odd length": (text - 1, text - 1, {"causal": True}),
        "decoder to audio": (text, audio, {}),
        "context": (audio, 128, {"is_key": short_keys}),
        "long context": (audio, long, {"is_key": long_keys}),
        "T5, with bias": (128, 128, {"is_key": short_keys, "bias": bias}),
        "encoder without cuDNN": (audio, audio, {"mask": jnp.ones((1, 1, 1, audio), bool)}),
    }
    operands = {
        name: [jnp.asarray(random.normal(size=(batch, length, heads, 64)), jnp.bfloat16) for length in (q, k, k, q)]
        for name, (q, k, _) in cases.items()
    }

    def prepare(case: str, way: str, part: str) -> Any:
        def forward(*arrays: jax.Array) -> jax.Array:
            implementation = None if way == "ours" else "definition"
            return attention(*arrays, **cases[case][2], implementation=implementation)

        def both(*arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            found, pull = jax.vjp(forward, *arrays[:3])
            return found, pull(arrays[3])

        dtype = jnp.float32 if way == "exact" else jnp.bfloat16
        arrays = [array.astype(dtype) for array in operands[case][: 3 if part == "forward" else 4]]
        if way == "ours":
            lowered = jax.jit(forward if part == "forward" else both).lower(*arrays)
        else:
            with jax.default_matmul_precision("highest" if way == "exact" else "default"):
                lowered = jax.jit(forward if part == "forward" else both).lower(*arrays)
        return partial(lowered.compile(), *arrays), "cudnn" in lowered.as_text()

    parts = [("ours", "forward"), ("ours", "both"), ("plain", "forward"), ("plain", "both"), ("exact", "both")]
    with ThreadPoolExecutor(8) as pool:
        prepared = {case: {some: pool.submit(prepare, case, *some) for some in parts} for case in cases}
    for case, programs in prepared.items():
        try:
            exact = jax.tree.leaves(programs["exact", "both"].result()[0]())
            figures: dict[str, Any] = {"cuDNN": programs["ours", "both"].result()[1]}
            for way, part in parts[:-1]:
                run = programs[way, part].result()[0]
                found = jax.tree.leaves(jax.block_until_ready(run()))
                seconds = _seconds(lambda: jax.block_until_ready([run() for _ in range(10)]), lasting=0.3)  # noqa: B023
                figures[f"{way}_{part}_ms"] = 100 * seconds
                if part == "both":
                    pairs = zip(found, exact, strict=True)
                    errors = [jnp.abs(one - other).max() / jnp.abs(other).max() for one, other in pairs]
                    figures[f"{way}_errors"] = " ".join(f"{error:.1e}" for error in errors)
            figures["plain_over_ours"] = figures["plain_both_ms"] / figures["ours_both_ms"]
            report("attention", case=case, **figures)
        except Exception as error:
            report("attention", case=case, error=_reason(error))


# Transcription.


@cache
def _vocabulary() -> WhisperTokens:
    """As many tokens in the same layout as multilingual Whispers have: bytes and pairs of them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(left, right) for left in letters for right in letters][: 50_257 - len(letters)]
    names = [*letters, *(left + right for left, right in pairs)]
    backend = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens()])
    return WhisperTokens(TextTokenizer(backend, SETTINGS))


def _sizes(name: str) -> WhisperConfig:
    one_layer = {"layers": 1, "attention_heads": 8, "ffn_dim": 512}
    sides = {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in one_layer.items()}
    return dataclasses.replace(WHISPER_SIZES[name], **({"d_model": 512, **sides} if small else {}))


@cache
def _transcriber(size: str, int8: bool = False) -> Transcriber:
    """A stock Whisper of random weights, computing in bfloat16, or in int8 and float32 as `cwjax.load` has it."""
    config = ContextWhisperConfig(_sizes(size), None, None)
    dtype = jnp.float32 if int8 else jnp.bfloat16
    draw = jax.jit(lambda key, shape: 0.05 * jax.random.normal(key, shape, dtype), static_argnums=1)
    leaves = {
        path: draw(jax.random.key(number), leaf.shape) + path.endswith("scale")
        for number, (path, leaf) in enumerate(flatten(abstract(config)[1]))
    }
    processor = Processor(_vocabulary(), None, config.whisper.num_mel_bins, SECONDS * RATE)
    return Transcriber(config, unflatten(leaves), processor, int8=int8)


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def _fixed() -> dict[str, Any]:
    """Options with which exactly as many tokens as asked for are decoded of every window."""
    vocabulary = _vocabulary()
    never = (-1, vocabulary.end_of_text, *range(vocabulary.first_timestamp, len(vocabulary)))
    alone = {"language": "en", "temperature": 0.0, "without_timestamps": True, "condition_on_previous_text": False}
    return alone | {"suppress_tokens": never, "sample_len": tokens, "no_speech_threshold": None}


def _jobs(size: str, windows: int, int8: bool = False) -> Callable[[], list[WindowJob]]:
    """What makes jobs of the samples of windows, each a recording of its own."""
    programs, plan, samples = (
        _transcriber(size, int8).programs,
        DecodingOptions(**_fixed()),
        _noise(windows, SECONDS * RATE),
    )

    def make() -> list[WindowJob]:
        recordings = [(one, programs.max_log_mel(one)) for one in map(Recording.open, samples)]
        return [WindowJob(*recording, 0, programs.frames, False, None, plan, "en") for recording in recordings]

    return make


def _transcription(size: str, windows: int, int8: bool = False) -> Callable[[], list[Any]]:
    """From samples to the results of one batch, by the engine that serves users."""
    engine, make = Engine(_transcriber(size, int8).programs), _jobs(size, windows, int8)
    return lambda: engine.run(make())


def _encoding(size: str, windows: int) -> Callable[[], Any]:
    programs, samples = _transcriber(size).programs, _noise(windows, SECONDS * RATE + 400)
    given = samples, [0.0] * windows, [programs.frames] * windows, [False] * windows
    return lambda: jax.block_until_ready(programs.encode(*given, with_states=True))


@cache
def _peer() -> subprocess.Popen:
    command = [sys.executable, str(HERE / "device_peer.py")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask_peer(size: str, windows: int) -> dict[str, Any]:
    """Figures of transformers for the same."""
    vocabulary = _vocabulary()
    asked = {
        "config": dataclasses.asdict(_sizes(size)),
        "windows": windows,
        "tokens": tokens,
        "start": vocabulary.prompt("en", timestamps=False),
        "suppressed": list(range(vocabulary.end_of_text, len(vocabulary))),
    }
    try:
        _peer().stdin.write(json.dumps(asked) + "\n")
        _peer().stdin.flush()
        return json.loads(_peer().stdout.readline())
    except (OSError, ValueError) as error:
        return {"error": f"the peer died ({error})"}


def _transcribe_cells(cells: list[tuple[str, int]], with_peer: bool) -> None:
    """So many windows at once with Whispers of these sizes. All programs are compiled beforehand, side by side but for
    the first, whose first run is what a user waits for; the others' are longer than they would be alone."""
    for size, _ in cells:
        _transcriber(size)
    if with_peer:
        _peer()  # imports PyTorch in the meantime
    warmed = {cells[0]: _first(_transcription(*cells[0]))}
    report("decode", size=cells[0][0], windows=cells[0][1], first_run_s=warmed[cells[0]])
    with ThreadPoolExecutor(4) as pool:
        futures = {cell: pool.submit(_first, _transcription(*cell)) for cell in cells[1:]}
    for size, windows in cells:
        try:
            figures = {} if (size, windows) in warmed else {"first_run_s": futures[size, windows].result()}
            run, encode = _transcription(size, windows), _encoding(size, windows)
            said = {len(result.window.tokens) for result in run()}
            encode()
            whole, opening, encoding = _seconds(run), _seconds(_jobs(size, windows), 3), _seconds(encode, 3)
            figures |= {
                "seconds": whole,
                "windows_per_s": windows / whole,
                "times_real_time": SECONDS * windows / whole,
            }
            figures |= {"opening_ms": 1000 * opening, "encoding_ms": 1000 * encoding, "said": str(sorted(said))}
            figures |= {"ms_a_token": 1000 * (whole - opening - encoding) / tokens, "peak_MiB": _peak()}
            if with_peer and left() > 10:
                peer = _ask_peer(size, windows)
                figures |= {f"transformers_{name}": value for name, value in peer.items()}
                figures |= {"transformers_over_ours": peer["seconds"] / whole} if "seconds" in peer else {}
            report("decode", size=size, windows=windows, **figures)
        except Exception as error:
            report("decode", size=size, windows=windows, error=_reason(error))


def _peak() -> int:
    """MiB most in use so far, 0 where the device does not tell."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) >> 20


def measure_decode() -> None:
    """Whisper base and large-v3 against transformers."""
    _transcribe_cells([(size, windows) for size in ("base", "large-v3") for windows in (FEW, MANY)], True)


def measure_sizes() -> None:
    """The other sizes and numbers of windows, as far as time allows."""
    if small:
        return _transcribe_cells([("tiny", 3)], False)
    _transcribe_cells([("small", 1), ("small", 16)], True)
    others = [("large-v3-turbo", 1), ("large-v3-turbo", 16), ("base", 64), ("base", 8), ("tiny", 1), ("tiny", 64)]
    large = [(size, windows) for windows in (64, 256) for size in ("large-v3-turbo", "large-v3")]
    for some in (large, others, [("large-v3", 8), ("small", 64), ("small", 8)]):
        if left() > 45:
            _transcribe_cells(some, False)


def measure_int8() -> None:
    """Weights rounded to int8 against bfloat16: pace and memory. The programs of a size are compiled side by side, for
    those of int8 take long; so its first runs are longer than they would be alone."""
    ways = {"bfloat16": False, "int8": True}
    for size in ("base",) if small else ("base", "large-v3"):
        cells = [(windows, name) for windows in (FEW, MANY) for name in ways]
        runs = {(windows, name): _transcription(size, windows, ways[name]) for windows, name in cells}
        with ThreadPoolExecutor(len(cells)) as pool:
            firsts = {cell: pool.submit(_first, runs[cell]) for cell in cells}
            for (windows, name), first in firsts.items():
                report("int8", size=size, windows=windows, weights=name, first_run_s=first.result())
        seconds: dict[str, float] = {}
        for windows, name in cells:
            seconds[name] = _seconds(runs[windows, name], 3)
            figures = {"size": size, "windows": windows, "weights": name, "seconds": seconds[name]}
            weights = jax.tree.leaves(_transcriber(size, ways[name]).programs.parameters)
            figures["weights_MiB"] = sum(leaf.nbytes for leaf in weights) >> 20
            if name == "int8":
                figures["bfloat16_over_int8"] = seconds["bfloat16"] / seconds["int8"]
            report("int8", **figures)


def measure_phrases() -> None:
    """The phrase spotter with 5,000 phrases, as a share of the transcription of the same windows by Whisper base."""
    file, random = SHIPPED / "base.safetensors", np.random.default_rng(0)
    spotter = _read(file, _header(file)[0])
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in ("a", "e", "i", "o", "u", "an", "er")]
    words = ["".join(random.choice(syllables, random.integers(2, 5))) for _ in range(9000)]
    written = dict.fromkeys(" ".join(random.choice(words, random.integers(1, 4))) for _ in range(6000))
    phrases = Phrases(lambda: spotter)
    began = time.perf_counter()
    listed = phrases.encode(tuple(written)[:5000])
    jax.block_until_ready(listed.spellings)
    report("phrases", phrases=len(listed.written), reading_the_list_s=time.perf_counter() - began)
    for windows in (FEW, MANY // 2 + small):
        run, states = _transcription("base", windows), _encoding("base", windows)().states
        given = nnx.split(spotter), states, listed.spellings
        spot = partial(phrases.spot, states, listed, [DecodingOptions()] * windows)
        began = time.perf_counter()
        compiled = detect.lower(*given).compile()
        figures = {"windows": windows, "compiling_s": time.perf_counter() - began}
        spot(), run()
        device = _seconds(lambda: jax.block_until_ready(compiled(*given)))  # noqa: B023
        took = {"device": device, "with_host": _seconds(spot), "transcription": _seconds(run)}
        figures |= {f"{name}_ms_a_window": 1000 * value / windows for name, value in took.items()}
        memory = getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0) >> 20
        shares = {"share": took["with_host"] / took["transcription"], "device_share": device / took["transcription"]}
        report("phrases", **figures, **shares, memory_MiB=memory)


def measure_align() -> None:
    """Word times as a share of transcription; the warping alone, too."""
    warping = jax.jit(warp)
    for windows in (FEW, MANY):
        run, encoded = _transcription("base", windows), _encoding("base", windows)()
        programs = _transcriber("base").programs
        starts = [programs.tokens.prompt("en", timestamps=False)] * windows
        texts = [result.window.tokens for result in run()]
        align = partial(programs.align, encoded, starts, texts, [programs.frames] * windows)
        sizes = [jnp.full(windows, size, jnp.int32) for size in (tokens, 1500)]
        alone = partial(warping, jnp.asarray(_noise(windows, tokens, 1500)), *sizes)
        compiling = _first(align) + _first(lambda: jax.block_until_ready(alone()))  # noqa: B023
        took = {"align": _seconds(align), "transcription": _seconds(run)}
        took["warping"] = _seconds(lambda: jax.block_until_ready(alone()))  # noqa: B023
        figures = {f"{name}_ms_a_window": 1000 * value / windows for name, value in took.items()}
        share = took["align"] / took["transcription"]
        report("align", windows=windows, first_runs_s=compiling, **figures, share=share)


def measure_engine() -> None:
    """Recordings of unlike lengths in shared batches, against one after the other."""
    longest, number = (70, 3) if small else (600, 16)
    lengths = np.geomspace(3, longest, number)
    sound = _noise(RATE * longest)
    recordings = [np.roll(sound, 777 * place)[: int(RATE * length)] for place, length in enumerate(lengths)]
    transcriber = _transcriber("base")
    decoding = _fixed() | {"logprob_threshold": None, "compression_ratio_threshold": None}
    ways: dict[str, Callable[[], list[Any]]] = {
        "together": lambda: transcriber.transcribe_many(recordings, batch_size=MANY, **decoding),
        "alone": lambda: [transcriber.transcribe(recording, **decoding) for recording in recordings],
    }
    report("engine", recordings=number, minutes=lengths.sum() / 60)
    said, seconds = {}, {}
    for name, way in ways.items():
        report("engine", way=name, first_run_s=_first(way))
        began = time.perf_counter()
        said[name] = [[segment.tokens for segment in one.segments] for one in way()]
        seconds[name] = time.perf_counter() - began
        report("engine", way=name, seconds=seconds[name], times_real_time=lengths.sum() / seconds[name])
    same = sum(one == other for one, other in zip(said["together"], said["alone"], strict=True))
    different = len({token for one in said["alone"] for segment in one for token in segment})
    report("engine", same=same, different_tokens=different, pace=seconds["alone"] / seconds["together"])


# What runs in processes of its own.


def measure_train() -> None:
    """`train_step.py`, with smaller batches where memory does not suffice."""
    cells = [("base", "all", 32), ("base", "context", 32), ("small", "all", 32), ("small", "context", 32)]
    cells += [("small", "lora", 32), ("large-v3", "all", 8), ("large-v3", "context", 8), ("large-v3", "lora", 8)]
    shortened = ["--tokens", "16", "--rounds", "2"] if small else []
    for whisper, trained, batch in [("tiny", "all", 2), ("tiny", "lora", 2)] if small else cells:
        while batch and left() > 20:
            given = ["--whisper", whisper, "--trained", trained, "--batch", str(batch), "--dtype", "bfloat16"]
            command = [sys.executable, str(HERE / "train_step.py"), *given, *shortened]
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            figures = {"whisper": whisper, "trained": trained, "batch": batch, "process_s": time.perf_counter() - began}
            if done.returncode == 0:
                report("train", **figures, **json.loads(done.stdout))
                break
            report("train", **figures, error=done.stderr.strip()[-1500:])
            is_full = any(sign in done.stderr for sign in ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory"))
            batch = batch // 2 if is_full else 0


def measure_parity() -> None:
    """Existing tests on the device, with products of float32 in full precision; a process a file, several at once. What
    each has done is told when it ends, or when time is up."""
    waiting = list(PARITY)[: 2 if small else None]
    at_once = max(1, min(6, (os.cpu_count() or 2) // 2))
    running: dict[str, tuple[subprocess.Popen, Path, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            while (waiting or running) and left() > 5:
                while waiting and len(running) < at_once:
                    name = waiting.pop(0)
                    output = Path(scratch) / name
                    running[name] = _begin_tests(name, output), output, time.perf_counter()
                time.sleep(0.1)
                for name in [name for name, (process, *_) in running.items() if process.poll() is not None]:
                    _tell_tests(name, *running.pop(name))
        finally:
            for name, begun in running.items():
                _tell_tests(name, *begun)
    if waiting:
        report("parity", not_begun=" ".join(waiting))


def _begin_tests(name: str, output: Path) -> subprocess.Popen:
    platforms = {"gpu": "cuda,cpu"}.get(jax.default_backend(), jax.default_backend())
    environment = os.environ | {"JAX_PLATFORMS": platforms, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    pytest = [sys.executable, "-u", "-m", "pytest", "-n", "0", "-p", "no:randomly", "-vv", "--tb=line"]
    with output.open("w") as file:
        where = {"cwd": HERE.parent, "env": environment, "stdout": file, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*pytest, "-k", PARITY[name], f"tests/test_{name}.py"], **where)


def _tell_tests(name: str, process: subprocess.Popen, output: Path, began: float) -> None:
    """Ends the tests of a file, if they have not ended, and reports what has come of them."""
    is_done = process.poll() is not None
    process.kill()
    process.wait()
    lines = output.read_text(errors="replace").splitlines()
    print("\n".join([f"{name}:", *(lines if process.returncode else lines[-1:])]), flush=True)
    figures: dict[str, Any] = {"file": name, "finished": is_done, "seconds": time.perf_counter() - began}
    for outcome in ("PASSED", "SKIPPED", "FAILED", "ERROR"):
        named = [found[1] for found in (re.match(rf"tests/\S+?::(.+) {outcome}\b", line) for line in lines) if found]
        figures[outcome.lower()] = len(named)
        if named and outcome in ("FAILED", "ERROR"):
            figures[f"{outcome.lower()}_tests"] = "; ".join(named)[:1500]
    report("parity", **figures, last=lines[-1][:300] if lines else "nothing was printed")


if __name__ == "__main__":
    main()
