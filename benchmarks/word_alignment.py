"""How long dynamic time warping takes: ours, compiled with the model's program, and openai-whisper's, by numba.

    python benchmarks/word_alignment.py [--tokens 100] [--positions 1500] [--windows 1]

Both align the same random weights in turns; the fastest turn of each counts. On a CPU, `taskset -c 0` before the
command gives both one core.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from whisper.timing import dtw_cpu

from cwjax.inference.timing import warp

TURNS = 20


def main() -> None:
    """Aligns, compares the paths and prints seconds per window."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--positions", type=int, default=1500)
    parser.add_argument("--windows", type=int, default=1, help="at once by ours, in turn by openai-whisper's")
    options = parser.parse_args()
    shape = options.windows, options.tokens, options.positions
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    costs = -weights.astype(np.float64)
    given = jax.device_put((weights, *(np.full(options.windows, size, np.int32) for size in shape[1:])))
    program = jax.jit(warp)

    def ours() -> np.ndarray:
        return jax.device_get(program(*given))

    def theirs() -> list[np.ndarray]:
        return [dtw_cpu(window) for window in costs]

    for begins, (rows, columns) in zip(ours(), theirs(), strict=True):
        np.testing.assert_array_equal(begins, columns[np.flatnonzero(np.diff(rows, prepend=-1))])
    seconds = np.asarray([[_seconds(call) for call in (ours, theirs)] for _ in range(TURNS)]).min(axis=0)
    mine, reference = seconds / options.windows
    print(f"{options.tokens} tokens x {options.positions} positions, {options.windows} windows, {jax.devices()[0]}")
    print(f"ours {mine:.5f} s per window, openai-whisper's {reference:.5f}: ratio {mine / reference:.2f}")


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
