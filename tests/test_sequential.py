"""Long recordings, window by window, against openai-whisper with the same weights."""

import difflib
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tones
from references import openai_model, real_vocabulary, wide_parameters
from tolerance import assert_close, largest_logit, whisper_terms

from cwjax.inference.audio import AMPLIFIED_PEAK
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcript import Transcript
from cwjax.models.parameters import merge

CERTAIN = {
    "language": "en",
    "temperature": 0.0,
    "compression_ratio_threshold": None,
    "logprob_threshold": None,
    "no_speech_threshold": None,
    "sample_len": 60,
}
"""No sampling, so that both must come to the same result."""
SECONDS = 130.0
"""Length of the recording, beyond which openai-whisper lets times run and we do not."""


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """openai-whisper's search for words' times as it is written: numba needs far longer to compile it than it runs."""
    timing = pytest.importorskip("whisper.timing")
    for name in ("dtw_cpu", "backtrace"):
        monkeypatch.setattr(timing, name, getattr(timing, name).py_func)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory):
    return real_vocabulary(tmp_path_factory.mktemp("model"), tones.SIZES)


@pytest.fixture(scope="module", params=["random", "trained"])
def pair(request, vocabulary) -> SimpleNamespace:
    """Our transcriber and openai-whisper's model: with wide random weights, and trained to understand tones."""
    pytest.importorskip("torch")
    config, processor = vocabulary
    if request.param == "random":
        parameters = wide_parameters(config)
    else:
        parameters = merge(wide_parameters(config), tones.trained(processor.tokens))
    random = np.random.default_rng(5)
    spoken = [(start, end, word) for start, end, word in tones.utterances(random, SECONDS) if not 45 < start < 80]
    # A model that has learned little says languages within its text, which openai-whisper leaves there.
    languages = ",".join(map(str, processor.tokens.languages.values()))
    return SimpleNamespace(
        trained=request.param == "trained",
        certain=CERTAIN | ({"suppress_tokens": f"-1,{languages}"} if request.param == "trained" else {}),
        transcriber=Transcriber(config, parameters, processor),
        model=openai_model(tones.SIZES, parameters),
        largest_logit=largest_logit(parameters),
        spoken=spoken,
        samples=tones.sound(spoken, SECONDS, random),
    )


def both(pair: SimpleNamespace, **options) -> tuple[Transcript, dict]:
    ours = pair.transcriber.transcribe(pair.samples, options=DecodingOptions(**options))
    return ours, pair.model.transcribe(pair.samples, fp16=False, **options)


def assert_same(ours: Transcript, theirs: dict, largest: float) -> None:
    """The same segments: texts, tokens and words equal, times within 0.02 s, log-probabilities as close as logits, of
    which none is larger than `largest`. Ours end with the recording."""

    def assert_near(ours: float, theirs: float, name: str) -> None:
        assert_close(ours, theirs, whisper_terms(tones.SIZES), largest, message=name)

    ours = ours.to_dict()
    assert ours.keys() == theirs.keys()
    assert ours["language"] == theirs["language"]
    assert ours["text"] == re.sub(r"<\|.*?\|>", "", theirs["text"])
    assert len(ours["segments"]) == len(theirs["segments"])
    for segment, expected in zip(ours["segments"], theirs["segments"], strict=True):
        assert segment.keys() == expected.keys()
        for name in ("id", "seek", "text", "tokens", "temperature"):
            assert segment[name] == expected[name], name
        for name in ("start", "end"):
            assert segment[name] == pytest.approx(min(expected[name], SECONDS), abs=0.02 + 1e-9)
        assert segment["compression_ratio"] == pytest.approx(expected["compression_ratio"])
        assert_near(segment["avg_logprob"], expected["avg_logprob"], "avg_logprob")
        assert_near(np.log(segment["no_speech_prob"]), np.log(expected["no_speech_prob"]), "no_speech_prob")
        words, expected_words = segment.get("words", []), expected.get("words", [])
        assert [word["word"] for word in words] == [word["word"] for word in expected_words]
        for word, expected_word in zip(words, expected_words, strict=True):
            for name in ("start", "end"):
                assert word[name] == pytest.approx(min(expected_word[name], SECONDS), abs=0.02 + 1e-9)
            assert_near(np.log(word["probability"]), np.log(expected_word["probability"]), word["word"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"language": None, "condition_on_previous_text": False, "no_speech_threshold": 0.1},
        {"word_timestamps": True, "hallucination_silence_threshold": 1.0, "clip_timestamps": "3.1,52,60.5"},
        {"initial_prompt": "Bees, and honey.", "carry_initial_prompt": True, "without_timestamps": True},
    ],
    ids=str,
)
def test_segments_are_openai_whispers(pair: SimpleNamespace, options: dict) -> None:
    if "word_timestamps" in options and not pair.trained:
        pytest.skip("random weights say so many words that this takes minutes")
    ours, theirs = both(pair, **(pair.certain | options))
    assert ours.segments
    assert_same(ours, theirs, pair.largest_logit)


def test_the_trained_model_understands(pair: SimpleNamespace) -> None:
    if not pair.trained:
        pytest.skip("random weights understand nothing")
    ours = pair.transcriber.transcribe(
        pair.samples, options=DecodingOptions(**pair.certain, condition_on_previous_text=False)
    )
    said = ours.text.replace(",", " ,").replace(".", " .").split()
    spoken = [tones.WORDS[word].strip() for _, _, word in pair.spoken]
    print("RATIO", difflib.SequenceMatcher(None, said, spoken).ratio())
    assert difflib.SequenceMatcher(None, said, spoken).ratio() > 0.6


RECORDED = {
    "quiet": lambda samples: samples / 1000,
    "off zero": lambda samples: samples + 0.3,
    "of opposite polarity": lambda samples: np.stack([samples, -samples], axis=1),
    "in the centre of six channels": lambda samples: samples[:, None] * [0, 0, 6, 0, 0, 0],
}


@pytest.mark.parametrize("independent", [False, True])
def test_however_it_was_recorded_the_words_are_the_same(pair: SimpleNamespace, independent: bool) -> None:
    if not pair.trained:
        pytest.skip("random weights understand nothing")
    options = DecodingOptions(**pair.certain, condition_on_previous_text=False, independent_windows=independent)
    samples = pair.samples[: 45 * 16_000]
    samples = samples * (AMPLIFIED_PEAK / np.abs(samples).max())  # tones of another level are another language
    texts = {
        name: pair.transcriber.transcribe(change(samples).astype(np.float32), options=options).text
        for name, change in {"plain": lambda samples: samples, **RECORDED}.items()
    }
    plain = texts.pop("plain").split()
    assert len(plain) > 8
    for name, text in texts.items():
        assert difflib.SequenceMatcher(None, plain, text.split()).ratio() > 0.9, name
