"""Transcripts -> the bodies of OpenAI's answers, and what we add to them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cwjax.data.examples.whisper_tokens import language_names
from cwjax.evaluation.answer_values import (
    context_word_values,
    phrase_values,
    segment_values,
    text_and_words,
    text_of,
    words_of,
)
from cwjax.evaluation.explanation import POSITIONS_PER_SECOND, Explanation
from cwjax.inference.transcript import Segment, Transcript, Word
from cwjax.inference.writers import FORMATS, SubtitleLayout
from cwjax.serving.fields import Asked


@dataclass(frozen=True)
class Result:
    """What became of a request.

    Attributes:
        asked: the request.
        transcript: of it.
        without: made without what is known about the recording, if asked for.
        explanation: what of the context was attended to, if asked for.
    """

    asked: Asked
    transcript: Transcript
    without: Transcript | None = None
    explanation: Explanation | None = None


def body(result: Result) -> tuple[str, str]:
    """The answer that was asked for, and its content type."""
    asked, transcript = result.asked, result.transcript
    if asked.response_format == "text":
        return text_of(transcript.segments) + "\n", "text/plain; charset=utf-8"
    if asked.response_format in ("srt", "vtt"):
        kind = "text/vtt" if asked.response_format == "vtt" else "text/plain"
        return FORMATS[asked.response_format](transcript, SubtitleLayout()), f"{kind}; charset=utf-8"
    content: dict[str, Any] = {"text": text_of(transcript.segments)}
    if asked.response_format == "verbose_json":
        content = {"task": asked.options.task, "language": language(result), "duration": transcript.duration, **content}
        content |= times(result)
    content["usage"] = {"type": "duration", "seconds": transcript.duration}
    return json.dumps(content | extras(result), ensure_ascii=False), "application/json"


def language(result: Result) -> str:
    """The English name of the language of the text."""
    code = "en" if result.asked.options.task == "translate" else result.transcript.language
    return language_names().get(code, [code])[0]


def times(result: Result) -> dict[str, Any]:
    """Segments and words, those that were asked for."""
    found: dict[str, Any] = {}
    if "segment" in result.asked.granularities:
        found["segments"] = [segment_values(segment) for segment in result.transcript.segments]
    if "word" in result.asked.granularities:
        found["words"] = words_of(result.transcript)
    return found


def extras(result: Result) -> dict[str, Any]:
    """What only we have: phrases that were heard, and what was asked for by `include[]`."""
    found: dict[str, Any] = {}
    if result.asked.options.phrases or result.transcript.phrases:
        found["phrases"] = phrase_values(result.transcript.phrases)
    if "logprobs" in result.asked.include:
        found["logprobs"] = logprobs(result.transcript.segments)
    if result.without is not None:
        found["without_context"] = text_and_words(result.without)
    if result.explanation is not None:
        found["context_words"] = context_word_values(result.explanation)
    return found


def logprobs(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """The logarithm of the mean probability of each word's tokens, of all words that have times."""
    words: list[Word] = [word for segment in segments for word in segment.words or ()]
    return [
        {
            "token": word.text,
            "bytes": list(word.text.encode()),
            "logprob": math.log(max(word.probability, 1e-10)),
        }
        for word in words
    ]


def done_event(result: Result) -> dict[str, Any]:
    """The end of a stream."""
    transcript = result.transcript
    audio = math.ceil(transcript.duration * POSITIONS_PER_SECOND)
    output = sum(len(segment.tokens) for segment in transcript.segments)
    usage = {
        "type": "tokens",
        "input_tokens": audio,
        "input_token_details": {"audio_tokens": audio, "text_tokens": 0},
        "output_tokens": output,
        "total_tokens": audio + output,
    }
    text = text_of(transcript.segments)
    return {"type": "transcript.text.done", "text": text, "usage": usage, **times(result), **extras(result)}
