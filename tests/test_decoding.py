"""Decoding of windows against openai-whisper and transformers with the same wide random weights."""

import itertools
import re
from collections.abc import Sequence
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from references import SMALL, openai_model, real_vocabulary, transformers_model, wide_parameters
from tolerance import assert_close, largest_logit, whisper_terms

from cwjax.inference.audio import Recording
from cwjax.inference.decoding import EncodedAudio, Plan, Prompt, decode
from cwjax.inference.logit_rules import Biases
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import Programs
from cwjax.inference.search import BeamSearch, Sampling
from cwjax.inference.segments import DecodedWindow
from cwjax.models.text_decoder import TextDecoder
from cwjax.models.whisper import WhisperConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

STEPS = 40


def assert_same_scores(ours: DecodedWindow, theirs, largest: float) -> None:
    """Log-probabilities are as close as logits are."""
    for name, value in (("avg_logprob", lambda score: score), ("no_speech_prob", np.log)):
        one, other = (value(getattr(window, name)) for window in (ours, theirs))
        assert_close(one, other, whisper_terms(SMALL), largest, message=name)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Our programs, openai-whisper's model, and what both are given: two windows of 30 s."""
    pytest.importorskip("torch")
    import torch
    import whisper

    config, processor = real_vocabulary(tmp_path_factory.mktemp("model"), SMALL)
    parameters = wide_parameters(config)
    programs = Programs(config, parameters, processor)
    time = np.arange(40 * 16_000) / 16_000
    swell = np.clip(np.sin(2 * np.pi * time / 3), 0, 1)
    samples = 0.3 * swell * np.sin(2 * np.pi * (200 + 100 * np.sin(time)) * time)
    samples += 0.01 * np.random.default_rng(0).normal(size=len(time))
    recording = Recording.open(samples.astype(np.float32))
    seeks = (0, 1000)
    windows = np.stack([recording.window(seek, 3000) for seek in seeks])
    spectrogram = whisper.log_mel_spectrogram(recording.samples, 80, padding=480_000)
    mels = torch.stack([spectrogram[:, seek : seek + 3000] for seek in seeks])
    model = openai_model(SMALL, parameters)
    return SimpleNamespace(
        programs=programs,
        parameters=parameters,
        largest_logit=largest_logit(parameters),
        processor=processor,
        model=model,
        mels=mels,
        encoded=programs.encode(windows, [programs.max_log_mel(recording)] * 2, [3000] * 2, [False] * 2),
    )


def decoded(
    pair: SimpleNamespace,
    options: DecodingOptions,
    languages: Sequence[str] = ("en", "en"),
    previous: Sequence[Sequence[int]] = ((), ()),
    temperature: float = 0.0,
    seeds: Sequence[int] = (0, 0),
) -> list[DecodedWindow]:
    tokens = pair.programs.tokens
    starts = [tokens.prompt(language, not options.without_timestamps, options.task) for language in languages]
    return pair.programs.decode(pair.encoded, starts, previous, options, [temperature] * 2, seeds)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"without_timestamps": True},
        {"beam_size": 5},
        {"beam_size": 3, "patience": 2.0, "length_penalty": 0.5, "suppress_tokens": "50,60"},
    ],
    ids=str,
)
def test_tokens_and_probabilities_are_openai_whispers(pair: SimpleNamespace, options: dict) -> None:
    import whisper

    ours = decoded(pair, DecodingOptions(sample_len=STEPS, **options))
    if "suppress_tokens" in options:
        options = {**options, "suppress_tokens": [50, 60]}
    reference = whisper.DecodingOptions(fp16=False, language="en", sample_len=STEPS, **options)
    for window, mel in zip(ours, pair.mels, strict=True):  # their beams take one window at a time
        expected = whisper.decode(pair.model, mel, reference)
        assert list(window.tokens) == expected.tokens
        assert_same_scores(window, expected, pair.largest_logit)
        assert window.text == re.sub(r"<\|.*?\|>", "", expected.text).strip()
        assert len(set(window.tokens)) > 8, "a text of one token proves little"
    assert ours[0].tokens != ours[1].tokens


def test_prompts_of_unlike_length_share_a_batch(pair: SimpleNamespace) -> None:
    import whisper

    texts = [list(range(300, 330)), list(range(2000, 2400))]
    languages = ["de", "fr"]
    options = DecodingOptions(sample_len=STEPS, task="translate")
    ours = decoded(pair, options, languages, texts)
    for window, mel, language, text in zip(ours, pair.mels, languages, texts, strict=True):
        reference = whisper.DecodingOptions(
            fp16=False, language=language, task="translate", prompt=text, sample_len=STEPS
        )
        expected = whisper.decode(pair.model, mel, reference)
        assert list(window.tokens) == expected.tokens
        assert_same_scores(window, expected, pair.largest_logit)


@pytest.mark.parametrize("timestamps", [True, False])
def test_texts_with_a_prefix_are_openai_whispers(pair: SimpleNamespace, timestamps: bool) -> None:
    import whisper

    prefix = pair.programs.tokens.encode("The wind in the sail")
    options = DecodingOptions(sample_len=STEPS, without_timestamps=not timestamps)
    start = [*pair.programs.tokens.prompt("en", timestamps), *prefix]
    ours = pair.programs.decode(pair.encoded, [start] * 2, [[], [300, 301]], options, [0.0] * 2, [0, 0])
    for window, mel, prompt in zip(ours, pair.mels, (None, [300, 301]), strict=True):
        reference = whisper.DecodingOptions(
            fp16=False, language="en", prefix=prefix, prompt=prompt, sample_len=STEPS, without_timestamps=not timestamps
        )
        expected = whisper.decode(pair.model, mel, reference)
        assert list(window.tokens) == expected.tokens
        assert_same_scores(window, expected, pair.largest_logit)


def test_nothing_is_repeated_where_that_is_forbidden(pair: SimpleNamespace) -> None:
    free, *bound = (
        decoded(pair, DecodingOptions(sample_len=40, without_timestamps=True, **options))
        for options in ({}, {"no_repeat_ngram_size": 2}, {"repetition_penalty": 1e6})
    )
    for row in range(2):
        texts = [windows[row].tokens for windows in (free, *bound)]
        assert len(set(itertools.pairwise(texts[0]))) < len(texts[0]) - 1, "it repeats itself where it may"
        assert len(set(itertools.pairwise(texts[1]))) == len(texts[1]) - 1
        assert len(set(texts[2])) == len(texts[2])


def test_languages_are_openai_whispers(pair: SimpleNamespace) -> None:
    _, expected = pair.model.detect_language(pair.mels)
    for ours, theirs in zip(pair.programs.language_probabilities(pair.encoded), expected, strict=True):
        assert ours.keys() == theirs.keys()
        ours, theirs = (np.log([one[code] for code in theirs]) for one in (ours, theirs))
        assert_close(ours, theirs, whisper_terms(SMALL), pair.largest_logit)


@pytest.fixture(scope="module")
def transformers(pair: SimpleNamespace):
    """transformers' model with the same parameters, and settings of generation for them."""
    tokens = pair.programs.tokens
    model = transformers_model(SMALL, pair.parameters)
    vars(model.generation_config).update(
        no_timestamps_token_id=tokens.first_timestamp - 1,
        max_initial_timestamp_index=50,
        decoder_start_token_id=tokens.id("<|startoftranscript|>"),
        eos_token_id=tokens.end_of_text,
        pad_token_id=tokens.end_of_text,
        is_multilingual=True,
        lang_to_id={"<|en|>": tokens.id("<|en|>")},
        task_to_id={"transcribe": tokens.id("<|transcribe|>")},
    )
    return model


@pytest.mark.parametrize("options", [{}, {"without_timestamps": True}, {"beam_size": 5}], ids=str)
def test_tokens_and_probabilities_are_those_of_transformers(pair: SimpleNamespace, transformers, options: dict) -> None:
    import torch

    tokens = pair.programs.tokens
    if "beam_size" in options:
        # When its beams end is a matter of its own: here none does.
        options = {**options, "without_timestamps": True, "suppress_tokens": [-1, tokens.end_of_text]}
    options = DecodingOptions(sample_len=STEPS, **options)
    ours = decoded(pair, options)
    always = pair.programs._biases(options).always
    transformers.generation_config.suppress_tokens = np.flatnonzero(np.isinf(always[: tokens.first_timestamp - 1]))
    transformers.generation_config.begin_suppress_tokens = [*tokens.pieces(" "), tokens.end_of_text]
    for mel, window in zip(pair.mels, ours, strict=True):
        generated = transformers.generate(
            mel[None],
            attention_mask=torch.ones(1, 3000, dtype=torch.long),
            language="en",
            task="transcribe",
            return_timestamps=not options.without_timestamps,
            max_new_tokens=STEPS,
            do_sample=False,
            num_beams=options.beam_count,
            renormalize_logits=True,
            return_dict_in_generate=True,
            output_scores=True,
        )
        if "segments" in generated:  # with timestamps it goes on behind the last one: the first call counts
            generated = generated["segments"][0][0]["result"]
        said = generated["sequences"].reshape(-1)[-STEPS:].tolist()
        assert said[: len(window.tokens)] == list(window.tokens)
        if options.beam_size:
            total = STEPS * float(generated["sequences_scores"][0])
        else:
            rows = [row.reshape(-1).log_softmax(-1) for row in generated["scores"]]
            total = float(sum(row[token] for row, token in zip(rows, said, strict=True)))
        assert_close(window.avg_logprob, total / (STEPS + 1), whisper_terms(SMALL), pair.largest_logit)


def test_best_of_samples_is_the_likeliest(pair: SimpleNamespace) -> None:
    options = DecodingOptions(sample_len=8, best_of=4)
    drawn = decoded(pair, options, temperature=0.5, seeds=[1, 2])
    again = decoded(pair, options, temperature=0.5, seeds=[1, 3])
    assert drawn[0] == again[0]
    assert drawn[1] != again[1]
    assert drawn[0].temperature == 0.5
    # Its mean log-probability is that of its tokens under the model without any temperature.
    greedy = decoded(pair, DecodingOptions(sample_len=8))
    assert drawn[0].avg_logprob < greedy[0].avg_logprob


TOY = WhisperConfig(
    vocab_size=50,
    d_model=64,
    encoder_layers=1,
    encoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_layers=2,
    decoder_attention_heads=2,
    decoder_ffn_dim=32,
    max_source_positions=30,
    max_target_positions=64,
)


@pytest.mark.parametrize(("windows", "search"), [(1, Sampling()), (2, BeamSearch(3, 3))], ids=["greedy", "beams"])
def test_the_loop_copies_neither_caches_nor_weights(windows: int, search: Sampling | BeamSearch) -> None:
    graph, state = nnx.split(TextDecoder(TOY, key=jax.random.key(0)))
    plan = Plan(search, 40, 64, 3, False, 40, 43, 45)

    @jax.jit
    def run(parameters, audio):
        decoder = nnx.merge(graph, parameters).stepwise()
        prompt = Prompt(jnp.full((windows, 3), 41), jnp.zeros(windows, jnp.int32))
        biases = Biases(jnp.zeros(50), jnp.zeros(50))
        return decode(decoder, EncodedAudio(decoder.project_audio(audio)), prompt, biases, None, None, plan).candidates

    parameters = nnx.to_pure_dict(state)
    program = run.lower(parameters, jnp.zeros((windows, 30, TOY.d_model))).compile().as_text()
    slots = 3 + 40 * search.hypotheses
    cache = windows * TOY.d_model * slots
    loops = re.findall(r"while\(.*?body=%?([\w.\-]+)", program)
    bodies = {
        name: text
        for name, text in re.findall(r"^%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
        if name in loops
    }
    assert bodies
    largest = 0
    for body in bodies.values():
        # The mask of booleans that says which slots a beam sees does move, when beams change places.
        for name, shape, operation in re.findall(r"%([\w.\-]+) = (?!pred)\w+\[([\d,]+)\]\S* ([\w\-]+)\(", body):
            moves = operation in ("copy", "transpose", "slice", "dynamic-slice") or re.match(
                r"(copy|transpose|slice|dynamic-slice)[\w.\-]*fusion", name
            )
            if moves and operation in ("copy", "transpose", "slice", "dynamic-slice", "fusion"):
                largest = max(largest, int(np.prod([int(size) for size in shape.split(",")])))
    assert largest < min(cache, TOY.d_model**2), "something as large as a cache or a weight is copied at every step"
