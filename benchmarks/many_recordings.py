"""Recordings of very unlike length at once against one after the other: the same transcripts, and how much sooner.

    python benchmarks/many_recordings.py --model MODEL [--recordings 20] [--longest 1800] [--batch-size 8]

eSpeak NG speaks recordings from 3 seconds to `--longest`, in a geometric series. Each is transcribed with a context of
its own, greedily, window after window with the text before it: first all of them in shared batches, then one after the
other. Prints how many transcripts are the same, token by token, and the ratio of the times.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from agreement import speech_with_pauses

import cwjax
from cwjax.data.audio.log_mel import SAMPLING_RATE

SHORTEST = 3.0
COMPILING = 70
"""Seconds."""


def main() -> None:
    """Transcribes twice and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model directory with a pretrained Whisper")
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--longest", type=float, default=1800, help="seconds of the longest recording (1800)")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    lengths = np.geomspace(SHORTEST, arguments.longest, arguments.recordings)
    recordings = [speech_with_pauses(seconds, seed) for seed, seconds in enumerate(lengths)]
    contexts = [f"a talk about topic {number}; names: Ada {number}, Bo" for number in range(len(recordings))]
    model = cwjax.load(arguments.model)
    options = cwjax.DecodingOptions(language="en", temperature=0.0)
    # Compiles for every number of windows, for the short ones end sooner.
    beginnings = [recording[: COMPILING * SAMPLING_RATE] for recording in recordings]
    model.transcribe_many(beginnings, contexts, options, batch_size=arguments.batch_size)
    model.transcribe(beginnings[-1], contexts[-1], options)
    began = time.perf_counter()
    together = model.transcribe_many(recordings, contexts, options, batch_size=arguments.batch_size)
    between = time.perf_counter()
    alone = [
        model.transcribe(recording, context, options) for recording, context in zip(recordings, contexts, strict=True)
    ]
    ended = time.perf_counter()
    tokens = [[[one.tokens for one in transcript.segments] for transcript in some] for some in (together, alone)]
    same = sum(one == other for one, other in zip(*tokens, strict=True))
    minutes = sum(map(len, recordings)) / SAMPLING_RATE / 60
    print(f"{len(recordings)} recordings, {minutes:.0f} minutes: {same} of {len(recordings)} transcripts are the same")
    print(f"at once {between - began:.0f} s, one after the other {ended - between:.0f} s: ", end="")
    print(f"{(ended - between) / (between - began):.2f} times the pace")


if __name__ == "__main__":
    main()
