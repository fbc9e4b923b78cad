"""Whether a context is at work from the first window to the last: the same words in the first and in the last minute.

    python benchmarks/context_in_every_window.py --model MODEL [--pairs 3] [--minutes 5]

eSpeak NG reads a recording for each pair of words that sound the same: three sentences with the word in the first
minute and three in the last, and between them sentences with other words. It is transcribed twice, each time with a
title of one of the two words as its context, window by window and in batches. Prints how many of the words are spelled
as meant.
"""

import argparse
import random
import re
from pathlib import Path

import librosa
import numpy as np

import cwjax
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.demo.corpus import DemoCorpusSettings
from cwjax.demo.espeak import Voice, synthesize
from cwjax.demo.homophones import read_homophones
from cwjax.inference.options import DecodingOptions

REPEATED = 3
"""Sentences with the word at either end."""


def main() -> None:
    """Speaks, transcribes with either topic, and counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model directory that has learned the demo's topics")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    model = cwjax.load(options.model)
    homophones, settings = read_homophones(), DemoCorpusSettings()
    plan = DecodingOptions(language="en", temperature=0.0, no_speech_threshold=None)
    right = {(way, place): 0 for way in ("sequential", "batched") for place in ("first", "last")}
    for number, pair in enumerate(homophones.pairs[: options.pairs]):
        draw = random.Random(number)
        voice = Voice(draw.choice(settings.accents), draw.choice(settings.test_variants), 175, 48)
        others = [word.word for other in homophones.pairs[options.pairs : settings.pairs] for word in other]
        samples = _recording(pair[0].word, others, homophones.carriers, voice, options.minutes, draw)
        for word in pair:
            context = draw.choice(word.wordings["test"].titles)
            for way in ("sequential", "batched"):
                if way == "sequential":
                    transcript = model.transcribe(samples, context, plan)
                else:
                    transcript = model.transcribe(samples, context, plan, independent_windows=True, batch_size=4)
                for place in ("first", "last"):
                    heard = [
                        found
                        for segment in transcript.segments
                        if (segment.start < 60 if place == "first" else segment.end > len(samples) / SAMPLING_RATE - 60)
                        for found in re.findall(r"\w+", segment.text.lower())
                    ]
                    right[way, place] += min(heard.count(word.word), REPEATED)
                    partner = next(one for one in pair if one is not word).word
                    print(f"{way}, {place} minute, {context!r}: {heard.count(word.word)} {word.word}", end=", ")
                    print(f"{heard.count(partner)} {partner}", flush=True)
    for (way, place), count in right.items():
        print(f"{way}, {place} minute: {count} of {2 * REPEATED * options.pairs} as meant")


def _recording(
    word: str, others: list[str], carriers: tuple[str, ...], voice: Voice, minutes: float, draw: random.Random
) -> np.ndarray:
    """Sentences with pauses, (n,) float32 at 16 kHz, those with the word at both ends."""
    ends = [draw.sample(carriers, REPEATED) for _ in range(2)]
    first, last = (
        [part for carrier in end for part in _sentence(carrier.format(word=word), voice, draw)] for end in ends
    )
    middle: list[np.ndarray] = []
    wanted = minutes * 60 * SAMPLING_RATE - sum(map(len, first + last))
    while sum(map(len, middle)) < wanted:
        middle += _sentence(draw.choice(carriers).format(word=draw.choice(others)), voice, draw)
    return np.concatenate(first + middle + last)


def _sentence(text: str, voice: Voice, draw: random.Random) -> list[np.ndarray]:
    speech = synthesize(text, voice)
    samples = librosa.resample(
        speech.samples.astype(np.float32) / 2**15, orig_sr=speech.sampling_rate, target_sr=SAMPLING_RATE
    )
    return [samples, np.zeros(round(draw.uniform(0.3, 1) * SAMPLING_RATE), np.float32)]


if __name__ == "__main__":
    main()
