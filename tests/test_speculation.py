"""Decoding with a draft gives what decoding without one does, however many of its guesses are right."""

import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from references import wide_parameters
from test_batched import talk
from test_contexts import model  # noqa: F401
from test_transcriber import text_only

from cwjax.errors import CwjaxError
from cwjax.inference import speculation
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import Programs
from cwjax.inference.transcriber import Transcriber

pytestmark = pytest.mark.usefixtures("quick_compilation")


def noisy(parameters, spread: float, seed: int = 1):
    """Weights that are each off by a share of their spread."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda one: one + spread * one.std() * random.normal(size=one.shape).astype(np.float32), parameters
    )


@pytest.fixture(scope="module")
def tiny(model) -> SimpleNamespace:  # noqa: F811
    weights = wide_parameters(model.config)
    drafts = {
        "itself": weights,
        "near": noisy(weights, 0.02),
        "far": noisy(weights, 0.2),
        "another": noisy(weights, 5.0),
    }
    drafts = {name: Programs(model.config, some, model.processor) for name, some in drafts.items()}
    return SimpleNamespace(
        plain=Programs(model.config, weights, model.processor),
        drafted={name: Programs(model.config, weights, model.processor, draft=draft) for name, draft in drafts.items()},
        samples=model.samples,
    )


def decoded(programs: Programs, samples: np.ndarray, options: DecodingOptions, previous, drafted: bool) -> list:
    count = len(samples)
    encoded = programs.encode(samples, [0.5] * count, [120] * count, [False] * count, drafted=drafted)
    start = programs.tokens.prompt("en", not options.without_timestamps, "transcribe")
    return programs.decode(encoded, [start] * count, previous, options, [0.0] * count, [0] * count)


PLAIN = {"language": "en", "temperature": 0.0, "suppress_tokens": ""}


@pytest.mark.parametrize("draft", ["itself", "near", "far", "another"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"without_timestamps": True, "sample_len": 8},
        {"sample_len": 1},
        {"repetition_penalty": 1.7, "without_timestamps": True},
        {"no_repeat_ngram_size": 2},
    ],
)
def test_texts_are_those_without_a_draft(tiny: SimpleNamespace, draft: str, change: dict) -> None:
    options = DecodingOptions(**PLAIN, **change)
    previous = [(), (5, 6, 7), (9,) * 12]
    expected = decoded(tiny.plain, tiny.samples, options, previous, drafted=False)
    found = decoded(tiny.drafted[draft], tiny.samples, options, previous, drafted=True)
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.avg_logprob, other.avg_logprob, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.no_speech_prob, other.no_speech_prob, rtol=1e-4)
    (alone,) = decoded(tiny.drafted[draft], tiny.samples[1:2], options, previous[1:2], drafted=True)
    assert alone.tokens == expected[1].tokens


def test_guesses_that_are_right_are_taken_at_once(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of the model, and tokens: six a pass if the draft is the model itself, one if it never agrees."""
    rounds = itertools.count()
    first_highest = speculation.first_highest

    def counting(values):
        if values.ndim == 3:
            next(rounds)
        return first_highest(values)

    monkeypatch.setattr(speculation, "first_highest", counting)
    options = DecodingOptions(**PLAIN, without_timestamps=True, sample_len=19)
    passes = {}
    for name, programs in tiny.drafted.items():
        encoded = programs.encode(tiny.samples[:1], [0.5], [120], [False], drafted=True)
        start = programs.tokens.prompt("en", False, "transcribe")
        before = next(rounds)
        with jax.disable_jit():
            (window,) = programs.decode(encoded, [start], [()], options, [0.0], [0])
        assert len(window.tokens) == 19
        passes[name] = next(rounds) - before - 1
    assert passes["itself"] == 3, "18 tokens after the first"
    assert passes["itself"] < passes["far"] < passes["another"] <= 18
    assert passes["another"] > 15


def test_recordings_with_a_draft(model, caplog) -> None:  # noqa: F811
    """Through the engine, several at once; what a draft cannot do is done without it, and that is said once."""
    weights = wide_parameters(model.config)
    draft = Programs(model.config, noisy(weights, 0.1), model.processor)
    plain = Transcriber(model.config, weights, model.processor)
    drafted = Transcriber(model.config, weights, model.processor, draft=draft)
    options = text_only(plain)
    recordings = [talk((seconds, 0.3), noise=0.002) for seconds in (3, 1, 2)]
    for change in ({"word_timestamps": True}, {"temperature": (0.0, 0.5), "compression_ratio_threshold": 0.1}):
        both = [
            one.transcribe_many(recordings, ["they sail", "", "the wind"], options, batch_size=4, **change)
            for one in (plain, drafted)
        ]
        for expected, found in zip(*both, strict=True):
            assert [one.tokens for one in found.segments] == [one.tokens for one in expected.segments]
            assert found.segments
    assert not caplog.records
    for change in ({"beam_size": 2}, {"context_scale": 1.5}, {"temperature": 0.7}):
        both = [one.transcribe(recordings[0], "they sail", options, **change) for one in (plain, drafted)]
        assert both[0] == both[1]
    assert [record.message for record in caplog.records] == [
        "the draft is of no use here: it needs beam_size none, temperature 0 and context_scale 0 or 1"
    ]


def test_drafts_that_do_not_go_with_a_model(model) -> None:  # noqa: F811
    programs = Programs(model.config, wide_parameters(model.config), model.processor)
    for change in ({"vocabulary": 7}, {"frames": 3000}, {"tokens": Swapped(programs.tokens)}):
        other = SimpleNamespace(**{name: getattr(programs, name) for name in ("vocabulary", "frames", "tokens")})
        vars(other).update(change)
        with pytest.raises(CwjaxError, match="the draft has other tokens"):
            Programs(model.config, programs.parameters, model.processor, draft=other)
    short = SimpleNamespace(vocabulary=programs.vocabulary, frames=120, tokens=programs.tokens, positions=20)
    with pytest.raises(CwjaxError, match="the draft has 20 positions, the model 40"):
        Programs(model.config, programs.parameters, model.processor, draft=short)


class Swapped:
    """Tokens of which two have changed places."""

    def __init__(self, tokens):
        words = sorted(tokens._vocabulary, key=tokens._vocabulary.get)
        swapped = {words[5]: 6, words[6]: 5}
        self._vocabulary = {**tokens._vocabulary, **swapped}
        self._added, self.first_timestamp, self.no_speech = tokens._added, tokens.first_timestamp, tokens.no_speech
