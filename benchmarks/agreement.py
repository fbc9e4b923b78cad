"""A long recording transcribed by this project and by openai-whisper, with the same pretrained weights.

    python benchmarks/agreement.py --model MODEL [--minutes 10]

eSpeak NG speaks sentences in many voices with pauses of 0.2 to 4 seconds between them. Both transcribe the recording
window by window, with previous text, greedily and with word times. Prints how many segments are the same, and by how
much their times and those of their words differ. With an untrained gate the model is the stock Whisper, whatever the
context.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from spoken_sentences import spoken_sentences

import cwjax
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.inference.options import DecodingOptions
from cwjax.weights.export import export
from cwjax.weights.model_directory import read_generation_settings


def main() -> None:
    """Speaks, transcribes twice and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model directory with a pretrained Whisper")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    samples = speech_with_pauses(options.minutes * 60)
    plan = DecodingOptions(language="en", temperature=0.0, word_timestamps=True, no_speech_threshold=None)
    began = time.perf_counter()
    ours = cwjax.load(options.model).transcribe(samples, "", plan).to_dict()
    between = time.perf_counter()
    theirs = _openai(options.model).transcribe(
        samples, language="en", temperature=0.0, word_timestamps=True, no_speech_threshold=None, fp16=False
    )
    ended = time.perf_counter()
    print(f"{len(samples) / SAMPLING_RATE / 60:.1f} minutes of speech, {len(ours['text'].split())} words")
    print(f"cwjax {between - began:.0f} s with compilation, openai-whisper {ended - between:.0f} s")
    _compare(ours["segments"], theirs["segments"])


def speech_with_pauses(seconds: float, seed: int = 0) -> np.ndarray:
    """Sentences with pauses between them, (n,) float32 at 16 kHz."""
    draw, parts, length = random.Random(seed), [], 0
    for sentence in spoken_sentences(seed):
        if length >= seconds * SAMPLING_RATE:
            break
        parts += [sentence.samples, np.zeros(round(draw.uniform(0.2, 4) * SAMPLING_RATE), np.float32)]
        length += sum(map(len, parts[-2:]))
    return np.concatenate(parts)[: round(seconds * SAMPLING_RATE)]


def _openai(model: Path) -> whisper.Whisper:
    """openai-whisper's model of the same weights, which times words by the same heads."""
    with tempfile.TemporaryDirectory() as scratch:
        theirs = whisper.load_model(str(export(model, "openai", Path(scratch) / "openai")))
    heads = torch.zeros(theirs.dims.n_text_layer, theirs.dims.n_text_head, dtype=torch.bool)
    for layer, head in read_generation_settings(model)["alignment_heads"]:
        heads[layer, head] = True
    theirs.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return theirs


def _compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    print(f"segments: {len(ours)} and {len(theirs)}")
    pairs = list(zip(ours, theirs, strict=False))
    same = [(one, other) for one, other in pairs if one["text"] == other["text"]]
    print(f"equal texts: {len(same)}, equal tokens: {sum(one['tokens'] == other['tokens'] for one, other in pairs)}")
    times = [abs(one[name] - other[name]) for one, other in same for name in ("start", "end")]
    print(f"times of segments of equal text: at most {max(times):.2f} s apart")
    words = [
        abs(word[name] - twin[name])
        for one, other in same
        for word, twin in zip(one["words"], other["words"], strict=True)
        for name in ("start", "end")
    ]
    far = sum(apart > 0.02001 for apart in words)
    print(f"times of words: at most {max(words):.2f} s apart, {far} of {len(words)} more than 0.02 s")
    chances = [abs(one["avg_logprob"] - other["avg_logprob"]) for one, other in same]
    print(f"mean log-probabilities: at most {max(chances):.1e} apart")


if __name__ == "__main__":
    main()
