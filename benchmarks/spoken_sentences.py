"""Sentences of the demo in its test voices, spoken by eSpeak NG, with the times of their words."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import librosa
import numpy as np

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.demo.corpus import DemoCorpusSettings
from cwjax.demo.espeak import Voice, synthesize
from cwjax.demo.homophones import read_homophones


class SpokenWord(NamedTuple):
    """A word as it was said; times in seconds."""

    text: str
    start: float
    end: float


class SpokenSentence(NamedTuple):
    """A sentence, its samples at 16 kHz, its words, and what the recording could be said to be about."""

    text: str
    samples: np.ndarray
    words: list[SpokenWord]
    title: str


def spoken_sentences(seed: int = 0) -> Iterator[SpokenSentence]:
    """Sentences without end: half of them name a topic, half hold a word that only the topic decides."""
    settings, homophones, draw = DemoCorpusSettings(), read_homophones(), random.Random(seed)
    words = [word for pair in homophones.pairs[: settings.pairs] for word in pair]
    while True:
        word = draw.choice(words)
        wordings = word.wordings["test"]
        text = draw.choice([draw.choice(homophones.carriers).format(word=word.word), draw.choice(wordings.leads)])
        voice = Voice(draw.choice(settings.accents), draw.choice(settings.test_variants), draw.randint(160, 200), 48)
        speech = synthesize(text, voice)
        samples = librosa.resample(
            speech.samples.astype(np.float32) / 2**15, orig_sr=speech.sampling_rate, target_sr=SAMPLING_RATE
        )
        said = [SpokenWord(text[one.offset : one.offset + one.length], one.start, one.end) for one in speech.words]
        yield SpokenSentence(text, samples, said, draw.choice(wordings.titles))
