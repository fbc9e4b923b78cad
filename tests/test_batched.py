"""Many windows at once."""

import re

import numpy as np
import pytest
from references import wide_parameters
from test_contexts import model  # noqa: F401
from tolerance import amplitudes, assert_close

from cwjax.data.audio.log_mel import FFT_LENGTH
from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcript import Transcript

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 16_000
PLAIN = DecodingOptions(
    language="en",
    temperature=0.0,
    sample_len=12,
    logprob_threshold=None,
    compression_ratio_threshold=None,
    no_speech_threshold=None,
)


def talk(*parts: tuple[float, float], noise: float = 0.0) -> np.ndarray:
    """Alternating pauses and speech, given as seconds and amplitude."""
    random = np.random.default_rng(0)
    samples = [
        amplitude * np.sin(2 * np.pi * 200 * np.arange(round(seconds * RATE)) / RATE) for seconds, amplitude in parts
    ]
    whole = np.concatenate(samples)
    return (whole + noise * random.normal(size=len(whole))).astype(np.float32)


def in_batches(transcriber: Transcriber, recordings, contexts, options, **others) -> list[Transcript]:
    return transcriber.transcribe_many(recordings, contexts, options, independent_windows=True, **others)


@pytest.fixture(scope="module")
def transcriber(model) -> Transcriber:  # noqa: F811
    return Transcriber(model.config, wide_parameters(model.config), model.processor)


def test_many_windows_at_once_are_those_of_one_at_a_time(transcriber: Transcriber, model) -> None:  # noqa: F811
    recordings = [
        talk((0.5, 0), (3, 0.3), (0.7, 0), (0.6, 0.2), (4, 0), (1, 0.3), noise=0.002),
        np.zeros(RATE, np.float32),
        talk((0.2, 0), (1.0, 0.2), noise=0.002),
    ]
    contexts = ["they sail on the sea.", "the wind", ""]
    progress = []
    together = in_batches(
        transcriber,
        recordings,
        contexts,
        PLAIN,
        batch_size=4,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert [len(one.segments) > 0 for one in together] == [True, False, True]
    assert together[1].text == ""
    for recording, context, expected in zip(recordings, contexts, together, strict=True):
        (alone,) = in_batches(transcriber, [recording], [context], PLAIN, batch_size=1)
        assert [one.tokens for one in alone.segments] == [one.tokens for one in expected.segments]
        assert [one.start for one in alone.segments] == [one.start for one in expected.segments]
        assert [one.id for one in alone.segments] == list(range(len(alone.segments)))
        assert alone.text == expected.text
        ours, theirs = ([one.avg_logprob for one in transcript.segments] for transcript in (alone, expected))
        assert_close(ours, theirs, model.terms, model.largest_logit)
    starts = [one.start for one in together[0].segments]
    assert starts == sorted(starts)
    assert max(one.end for one in together[0].segments) <= 9.8
    assert progress[-1][0] == pytest.approx(progress[-1][1])
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)


def test_behind_a_window_is_the_silence_of_training(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models learned from samples with zeros behind them, whose features are not zero as openai-whisper's are."""
    samples = talk((0.3, 0), (0.6, 0.3), (0.2, 0), noise=0.01)
    programs, encoded = transcriber.programs, []
    encode = programs._encode

    def note(parameters, *windows):
        encoded.append(windows[:4])  # samples, max_log_mel, frames, pad_value
        return encode(parameters, *windows)

    monkeypatch.setattr(programs, "_encode", note)
    (transcript,) = in_batches(transcriber, [samples], None, PLAIN, batch_size=1)
    transcriber.transcribe(samples, "", PLAIN)
    (batched, *_), one_by_one = encoded, encoded[-1]
    first, frames = transcript.segments[0].seek, int(batched[2][0])
    trained_on = programs.processor.features(samples[160 * first : 160 * (first + frames)])
    places = np.arange(programs.frames)
    apart = (places > 2) & (np.abs(places - frames) > 2)  # at its edges a window hears what is beside it
    ours = programs._features(*batched)[0]
    assert_close(amplitudes(ours[apart]), amplitudes(trained_on[apart]), terms=FFT_LENGTH)
    assert (np.asarray(programs._features(*one_by_one))[0, int(one_by_one[2][0]) :] == 0).all()


def test_contexts_and_recordings_must_match(transcriber: Transcriber) -> None:
    sound = talk((1, 0.3))
    with pytest.raises(CwjaxError, match="2 recordings but 1 contexts"):
        in_batches(transcriber, [sound, sound], ["the sea"], PLAIN)
    with pytest.raises(CwjaxError, match="batch_size is 0"):
        in_batches(transcriber, [sound], None, PLAIN, batch_size=0)
    with pytest.raises(CwjaxError, match="context_from_history needs one window after the other"):
        in_batches(transcriber, [sound], None, DecodingOptions(context_from_history=True))


def test_words_and_languages_of_a_batch(transcriber: Transcriber, model) -> None:  # noqa: F811
    recordings = [talk((0.2, 0), (1, 0.3), (1, 0), (1, 0.2), noise=0.002), talk((1, 0.2), noise=0.002)]
    tokens = transcriber.programs.tokens
    options = DecodingOptions(
        temperature=0.0,
        sample_len=12,
        word_timestamps=True,
        without_timestamps=True,
        # Whole words alone: of others the text depends on what is beside them.
        suppress_tokens=[
            token
            for token in range(len(tokens))
            if token != tokens.end_of_text and not re.fullmatch(" [a-z]+", tokens.text([token]))
        ],
        logprob_threshold=None,
        compression_ratio_threshold=None,
        no_speech_threshold=None,
    )
    for recording, found in zip(recordings, in_batches(transcriber, recordings, None, options), strict=True):
        assert found.language in transcriber.programs.tokens.languages
        (alone,) = in_batches(transcriber, [recording], None, options, batch_size=1)
        assert alone.language == found.language
        words = [word for one in found.segments for word in one.words]
        assert words
        words_alone = [word for one in alone.segments for word in one.words]
        assert [(word.text, word.start, word.end) for word in words] == [
            (word.text, word.start, word.end) for word in words_alone
        ]
        probabilities = ([word.probability for word in some] for some in (words, words_alone))
        assert_close(*map(np.log, probabilities), model.terms, model.largest_logit)
        assert "".join(word.text for word in words).strip() == found.text.strip()
        assert all(0 <= word.start <= word.end <= len(recording) / RATE + 1.2 for word in words)
