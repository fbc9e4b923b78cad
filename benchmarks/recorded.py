"""The same speech recorded in other ways: how many words become others.

    python benchmarks/recorded.py --model MODEL --audio FILES [--seconds 60]

Transcribed greedily: the speech as it is, very quiet, clipped, off zero, in stereo of opposite polarity, in the centre
of six channels, and at 8 kHz. Prints the word error rate of each against the transcript of the first.
"""

import argparse
from pathlib import Path

import jiwer
import numpy as np
import soxr

import cwjax
from cwjax.data.audio.decode import read_audio
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.inference.audio import Recording
from cwjax.scoring.normalisers import plain_words


def main() -> None:
    """Transcribes every variant and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="whatever cwjax.load takes")
    parser.add_argument("--audio", type=Path, nargs="+", required=True, help="files of speech, one after the other")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    speech = np.concatenate([read_audio(file) for file in arguments.audio])
    speech = speech[: round(arguments.seconds * SAMPLING_RATE)]
    speech /= np.abs(speech).max()
    silence = np.zeros_like(speech)
    variants = {
        "as it is": Recording.open(speech),
        "peaking at -62 dB": Recording.open(speech * np.float32(10 ** (-62 / 20))),
        "clipped to an eighth": Recording.open(np.clip(8 * speech, -1, 1)),
        "off zero by 30 %": Recording.open(speech / 2 + np.float32(0.3)),
        "opposite polarity": Recording.open(np.stack([speech, -speech], axis=1)),
        "centre of six channels": Recording.open(np.stack([silence, silence, speech, *[silence] * 3], axis=1)),
        "8 kHz": Recording.open(soxr.resample(speech, SAMPLING_RATE, 8000), sampling_rate=8000),
    }
    model = cwjax.load(arguments.model)
    reference = ""
    for name, recording in variants.items():
        text = " ".join(plain_words(model.transcribe(recording, language="en", temperature=0.0).text))
        reference = reference or text
        print(f"{name:24} {len(text.split()):4} words, {100 * jiwer.wer(reference, text):4.1f} % others", flush=True)


if __name__ == "__main__":
    main()
