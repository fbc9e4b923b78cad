"""How well the times of words are found, on speech whose word times are known.

    python benchmarks/word_times.py --model MODEL [--sentences 100]

eSpeak NG speaks sentences of the demo in its test voices and tells when each word begins and ends. The model, which is
a pretrained Whisper converted with any text encoder, transcribes each; words that it writes as they were said are
compared.
"""

import argparse
import difflib
import itertools
import statistics
from pathlib import Path

import numpy as np
from spoken_sentences import spoken_sentences

import cwjax
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.inference.options import DecodingOptions

SILENCE = 0.1
"""Seconds around a sentence."""


def main() -> None:
    """Speaks, transcribes, compares, and prints the errors of beginnings and ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model directory with a trained Whisper")
    parser.add_argument("--sentences", type=int, default=100)
    options = parser.parse_args()
    model = cwjax.load(options.model)
    longest = model.processor.window_samples
    plan = DecodingOptions(
        language="en", temperature=0.0, without_timestamps=True, word_timestamps=True, no_speech_threshold=None
    )
    starts, ends, said = [], [], 0
    for sentence in itertools.islice(spoken_sentences(), options.sentences):
        samples = np.pad(sentence.samples, round(SILENCE * SAMPLING_RATE))[:longest]
        transcript = model.transcribe(samples, sentence.title, plan)
        heard = [one for segment in transcript.segments for one in segment.words]
        spoken = [_plain(word.text) for word in sentence.words]
        written = [_plain(word.text) for word in heard]
        said += len(spoken)
        for first, second, length in difflib.SequenceMatcher(None, spoken, written).get_matching_blocks():
            for one, other in zip(sentence.words[first : first + length], heard[second : second + length], strict=True):
                starts.append(abs(one.start + SILENCE - other.start))
                ends.append(abs(one.end + SILENCE - other.end))
    print(f"{len(starts)} of {said} words were written as they were said")
    for name, errors in (("beginnings", starts), ("ends", ends)):
        late = statistics.quantiles(errors, n=10)[-1]
        print(f"{name}: median error {statistics.median(errors):.3f} s, nine of ten below {late:.3f} s")


def _plain(word: str) -> str:
    return word.strip(" .,;:!?").lower()


if __name__ == "__main__":
    main()
