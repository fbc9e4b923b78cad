"""A page that shows what context and phrases did to a recording: the server page's view, with its data inside."""

from typing import Any

import numpy as np

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.evaluation.answer_values import context_word_values, phrase_values, segment_values, text_and_words
from cwjax.evaluation.explanation import Explanation
from cwjax.inference.transcript import Transcript
from cwjax.pages import render

COLUMN = 400
"""Samples of a column of the waveform."""


def explanation_page(
    title: str, audio: str, samples: np.ndarray, transcript: Transcript, without: Transcript, explanation: Explanation
) -> str:
    """The page as HTML that needs nothing but itself.

    Args:
        title: what was transcribed.
        audio: address of the sound, such as `cwjax.pages.audio_uri` makes, or a path relative to the page.
        samples: of the recording at 16 kHz, (n,) float32.
        transcript: made with the context and with phrases, or one of them; with word times, or else whole segments
            are shown.
        without: made without either.
        explanation: of the same recording.
    """
    segments = [segment_values(segment) for segment in transcript.segments]
    answer = {**text_and_words(transcript), "segments": segments, "without_context": text_and_words(without)}
    if transcript.phrases or not explanation.words:
        answer["phrases"] = phrase_values(transcript.phrases)
    answer["context_words"] = _with_layers(context_word_values(explanation), explanation)
    data = {"answer": answer, "name": title, "context": explanation.context, "waveform": _waveform(samples)}
    return render("explanation.html", title=title, audio=audio, data=data, segments=transcript.segments)


def _with_layers(values: dict[str, Any], explanation: Explanation) -> dict[str, Any]:
    """How full the colour of each layer's map is, of 255; a few values may exceed it, so that the rest is not pale."""
    every = np.concatenate([np.zeros(1), *(window.influence.ravel() for window in explanation.windows)])
    high = max(float(np.quantile(every, 0.995)), 1e-12)
    for shown, window in zip(values["windows"], explanation.windows, strict=True):
        shown["layers"] = np.round(255 * np.clip(window.influence / high, 0, 1)).astype(int).tolist()
    return {**values, "layers": list(explanation.layers)}


def _waveform(samples: np.ndarray) -> dict[str, Any]:
    """Lowest and highest sample of every column, in 127ths of the loudest."""
    edges = np.arange(0, len(samples), COLUMN)
    scale = 127 / max(float(np.abs(samples).max(initial=0)), 1e-6)
    low, high = (
        np.round(scale * edge.reduceat(samples, edges)).astype(int).tolist() if len(edges) else []
        for edge in (np.minimum, np.maximum)
    )
    return {"seconds": COLUMN / SAMPLING_RATE, "low": low, "high": high}
