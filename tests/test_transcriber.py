"""The facade: short windows, contexts, progress, and input that cannot be."""

import dataclasses

import numpy as np
import pytest
from references import wide_parameters
from test_batched import PLAIN, RATE, talk, transcriber  # noqa: F401
from test_contexts import model  # noqa: F401
from tolerance import assert_close

from cwjax.errors import CwjaxError
from cwjax.evaluation.explanation import explain
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber

pytestmark = pytest.mark.usefixtures("quick_compilation")


def text_only(transcriber: Transcriber) -> DecodingOptions:  # noqa: F811
    """No timestamps, which random weights would say even where they are not asked for."""
    tokens = transcriber.programs.tokens
    timestamps = range(tokens.first_timestamp, len(tokens))
    return dataclasses.replace(PLAIN, without_timestamps=True, suppress_tokens=timestamps)


def test_windows_shorter_than_thirty_seconds(transcriber: Transcriber) -> None:  # noqa: F811
    progress = []
    samples = talk((0.5, 0), (3, 0.3), (0.7, 0), (0.6, 0.2), noise=0.002)
    options = text_only(transcriber)
    found = transcriber.transcribe(samples, "", options, lambda *times: progress.append(times))
    assert [segment.seek for segment in found.segments] == [0, 120, 240, 360]
    assert [segment.start for segment in found.segments] == [0.0, 1.2, 2.4, 3.6]
    assert found.segments[-1].end == pytest.approx(4.8)
    assert progress == [(1.2, 4.8), (2.4, 4.8), (3.6, 4.8), (4.8, 4.8)]
    assert found.text == "".join(segment.text for segment in found.segments)
    # All the room that the prompt leaves is used, for such a window is no half of what the decoder was made for.
    unlimited = transcriber.transcribe(samples, "", dataclasses.replace(options, sample_len=None))
    assert max(len(segment.tokens) for segment in unlimited.segments) > 20


def test_a_model_that_never_learned_timestamps_hears_windows_cut_in_pauses(model) -> None:  # noqa: F811
    samples = talk((0.5, 0), (1, 0.3), (0.7, 0), (0.6, 0.2), (1, 0), noise=0.002)
    weights = wide_parameters(model.config)
    timeless = Transcriber(model.config, weights, model.processor, knows_timestamps=False)
    options = text_only(timeless)
    progress = []
    found = timeless.transcribe(
        samples,
        "they sail on the sea",
        dataclasses.replace(options, without_timestamps=False),
        lambda *times: progress.append(times),
    )
    expected = Transcriber(model.config, weights, model.processor).transcribe(
        samples, "they sail on the sea", options, independent_windows=True
    )
    assert [segment.tokens for segment in found.segments] == [segment.tokens for segment in expected.segments]
    assert [segment.start for segment in found.segments] == [segment.start for segment in expected.segments]
    assert len(found.segments) > 1
    assert progress[-1][0] == pytest.approx(progress[-1][1])
    explained = explain(timeless, samples, "they sail on the sea", found)
    starts = [window.start for window in explained.windows]
    assert starts[: len(found.segments)] == [segment.start for segment in found.segments], "and is silent behind them"
    with pytest.raises(CwjaxError, match=r"context_from_history needs .* a model that has learned timestamps"):
        timeless.transcribe(samples, "", dataclasses.replace(options, context_from_history=True))


def test_contexts_act_in_every_window(transcriber: Transcriber, model) -> None:  # noqa: F811
    samples = talk((3.6, 0.3), noise=0.002)
    options = dataclasses.replace(text_only(transcriber), condition_on_previous_text=False)

    def scores(context: str, **changes) -> np.ndarray:
        found = transcriber.transcribe(samples, context, dataclasses.replace(options, **changes))
        return np.array([segment.avg_logprob for segment in found.segments])

    plain, informed = scores(""), scores("they sail on the sea")
    assert len(plain) == 3
    assert (np.abs(plain - informed) > 1e-3).all()
    np.testing.assert_array_equal(scores("they sail on the sea", context_scale=0.0), plain)
    np.testing.assert_array_equal(scores("", context_scale=2.0), plain)
    # Nothing was said before the first window.
    history = scores("they sail on the sea", context_from_history=True)
    assert_close(history[0], informed[0], model.terms, model.largest_logit)
    assert (np.abs(history[1:] - informed[1:]) > 1e-4).all()


def test_a_moment_and_silence(transcriber: Transcriber) -> None:  # noqa: F811
    for samples in (talk((0.01, 0.3)), np.zeros(RATE, np.float32), talk((0.005, 0.3))):
        found = transcriber.transcribe(samples, "they sail", dataclasses.replace(PLAIN, word_timestamps=True))
        assert all(0 <= segment.start <= segment.end for segment in found.segments)
    assert not found.segments, "five milliseconds are no frame"


def test_what_the_model_does_not_know_is_refused(transcriber: Transcriber) -> None:  # noqa: F811
    with pytest.raises(CwjaxError, match="language 'klingon' is not known to this model; it knows af, am"):
        transcriber.transcribe(talk((1, 0.1)), "", dataclasses.replace(PLAIN, language="klingon"))
    with pytest.raises(CwjaxError, match=r"nothing\.wav: no such audio file"):
        transcriber.transcribe("nothing.wav")
    assert transcriber.transcribe(talk((1, 0.1)), "", dataclasses.replace(PLAIN, language="German")).language == "de"


def test_silence_with_a_context_is_an_empty_transcript(transcriber: Transcriber) -> None:  # noqa: F811
    options = dataclasses.replace(text_only(transcriber), no_speech_threshold=0.6)
    silence = np.zeros(5 * RATE, np.float32)
    context = "they sail on the sea. names: bear, market"
    assert transcriber.transcribe(silence, context, options).text == ""
    assert transcriber.transcribe(silence, context, options, independent_windows=True).text == ""
    sound = talk((3, 0.3), (5, 0), noise=0.0)
    heard = transcriber.transcribe(sound, context, options)
    assert heard.segments
    assert max(segment.start for segment in heard.segments) < 3
    # Without the threshold every window is asked, as in openai-whisper.
    asked = transcriber.transcribe(sound, context, dataclasses.replace(options, no_speech_threshold=None))
    assert len(asked.segments) > len(heard.segments)
