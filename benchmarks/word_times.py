"""How well the times of words are found, on speech whose word times are known.

    python benchmarks/word_times.py [--model runs/demo/model] [--sentences 100]

eSpeak NG speaks sentences of the demo in its test voices and tells when each word begins and ends. The model
transcribes each, with a title of the test split as its context; words that it writes as they were said are compared.
"""

import argparse
import difflib
import random
import statistics
from pathlib import Path

import librosa
import numpy as np

import cwjax
from cwjax.data.demo_corpus import DemoCorpusSettings
from cwjax.data.espeak import Voice, synthesize
from cwjax.data.homophones import read_homophones
from cwjax.data.log_mel import SAMPLING_RATE
from cwjax.inference.decoding_options import DecodingOptions

SILENCE = 0.1
"""Seconds around a sentence, as in training."""


def main() -> None:
    """Speaks, transcribes, compares, and prints the errors of beginnings and ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/demo/model"), help="that was trained on the demo")
    parser.add_argument("--sentences", type=int, default=100)
    options = parser.parse_args()
    model = cwjax.load(options.model)
    longest = model.processor.window_samples / SAMPLING_RATE
    plan = DecodingOptions(
        language="en", temperature=0.0, without_timestamps=True, word_timestamps=True, no_speech_threshold=None
    )
    settings, homophones, draw = DemoCorpusSettings(), read_homophones(), random.Random(0)
    words = [word for pair in homophones.pairs[: settings.pairs] for word in pair]
    starts, ends, said = [], [], 0
    for _ in range(options.sentences):
        word = draw.choice(words)
        text = draw.choice(homophones.carriers).format(word=word.word)
        voice = Voice(draw.choice(settings.accents), draw.choice(settings.test_variants), draw.randint(160, 200), 48)
        speech = synthesize(text, voice)
        samples = librosa.resample(
            speech.samples.astype(np.float32) / 2**15, orig_sr=speech.sampling_rate, target_sr=SAMPLING_RATE
        )
        samples = np.pad(samples, round(SILENCE * SAMPLING_RATE))
        if len(samples) > longest * SAMPLING_RATE:
            continue
        transcript = model.transcribe(samples, draw.choice(word.wordings["test"].titles), plan)
        heard = [one for segment in transcript.segments for one in segment.words]
        spoken = [text[one.offset : one.offset + one.length].lower() for one in speech.words]
        written = [one.text.strip().lower() for one in heard]
        said += len(spoken)
        for first, second, length in difflib.SequenceMatcher(None, spoken, written).get_matching_blocks():
            for one, other in zip(speech.words[first : first + length], heard[second : second + length], strict=True):
                starts.append(abs(one.start + SILENCE - other.start))
                ends.append(abs(one.end + SILENCE - other.end))
    print(f"{len(starts)} of {said} words were written as they were said")
    for name, errors in (("beginnings", starts), ("ends", ends)):
        late = statistics.quantiles(errors, n=10)[-1]
        print(f"{name}: median error {statistics.median(errors):.3f} s, nine of ten below {late:.3f} s")


if __name__ == "__main__":
    main()
