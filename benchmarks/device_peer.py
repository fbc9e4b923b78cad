"""Whisper of transformers on PyTorch for `device.py`, in a process of its own: started by it, not by people.

Every line of standard input asks for a measurement, in JSON; a line of standard output answers.
"""

import json
import statistics
import sys
import time
import traceback
from typing import Any

answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

import numpy as np
import torch
import transformers

DEVICE, DTYPE = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)


def main() -> None:
    """Answers until nobody asks."""
    for line in sys.stdin:
        try:
            answer = _measured(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        print(json.dumps(answer), file=answers, flush=True)


def _measured(asked: dict[str, Any]) -> dict[str, float]:
    """From samples to tokens: median seconds of three runs, and MiB most in use."""
    samples = list(np.random.default_rng(0).normal(0, 0.1, (asked["windows"], 480_000)).astype(np.float32))
    with torch.device(DEVICE):
        config = transformers.WhisperConfig(**asked["config"], attn_implementation="sdpa")
        model = transformers.WhisperForConditionalGeneration(config).to(DTYPE).eval()
        start = torch.tensor([asked["start"]] * asked["windows"])
    model.generation_config.suppress_tokens = asked["suppressed"]
    extractor = transformers.WhisperFeatureExtractor(config.num_mel_bins)

    def transcribe() -> torch.Tensor:
        mels = extractor(samples, sampling_rate=16_000, return_tensors="pt", device=DEVICE).input_features
        said = transformers.GenerationMixin.generate(
            model,
            mels.to(DEVICE, DTYPE),
            attention_mask=torch.ones(mels.shape[::2], dtype=torch.long, device=DEVICE),
            decoder_input_ids=start,
            max_new_tokens=asked["tokens"],
            min_new_tokens=asked["tokens"],
            do_sample=False,
            num_beams=1,
        )
        return said.cpu()

    took = []
    with torch.inference_mode():
        said = transcribe()  # and warm-up
        if said.shape[1] != start.shape[1] + asked["tokens"]:
            raise ValueError(f"it said {said.shape[1] - start.shape[1]} tokens")
        for _ in range(3):
            began = time.perf_counter()
            transcribe()
            took.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() >> 20 if DEVICE == "cuda" else 0
    return {"seconds": statistics.median(took), "peak_MiB": peak}


if __name__ == "__main__":
    main()
