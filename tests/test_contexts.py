"""Contexts of any length: cut into chunks without loss, read in any order, and as strong as asked for."""

import logging
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import wide_parameters
from test_whisper_tokens import TEXTS
from tiny import WORDS, write_bert
from tokenizers import Tokenizer, models, pre_tokenizers
from tolerance import assert_close, largest_logit, text_encoder_terms, whisper_terms

from cwjax.data.audio.log_mel import compress, mel_decades
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.examples.whisper_tokens import train_tokenizer
from cwjax.inference.contexts import (
    MOST_CHUNKS,
    encode_chunks,
    join_contexts,
    last_chunk,
    split_context,
)
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import Programs
from cwjax.models.audio_encoder import ContextStates
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.configuration_file import read_config
from cwjax.weights.text_encoder_checkpoints import bert_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

LONGEST = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of windows of 1.2 s, its gates open."""
    directory = tmp_path_factory.mktemp("model")
    bert = write_bert(directory / "bert")
    tokens = train_tokenizer(TEXTS, 280, directory / "tokenizer")
    whisper = WhisperConfig(
        vocab_size=len(tokens),
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        max_source_positions=60,
        max_target_positions=40,
    )
    config = ContextWhisperConfig(whisper=whisper, text_encoder=bert_config(read_config(bert)))
    processor = Processor(tokens, TextTokenizer.read(bert), 80, 60 * 320)
    parameters = wide_parameters(config)
    random = np.random.default_rng(0)
    return SimpleNamespace(
        config=config,
        processor=processor,
        parameters=parameters,
        terms=text_encoder_terms(config.text_encoder, LONGEST) + whisper_terms(whisper, 3 * LONGEST),
        largest_logit=largest_logit(parameters),
        programs=Programs(config, parameters, processor),
        samples=random.normal(size=(3, 60 * 320 + 400)).astype(np.float32) * 0.1,
    )


def split(model: SimpleNamespace, context: str, longest: int = LONGEST) -> list[str]:
    return split_context(context, model.processor, longest)


def read(model: SimpleNamespace, context: str):
    chunks = split(model, context)
    return model.programs.encode_context(*encode_chunks(chunks, model.processor, LONGEST)) if chunks else None


def encode(model: SimpleNamespace, context, windows: int = 1, scale: float = 1.0):
    samples = model.samples[:windows]
    compared = context is not None and scale != 1
    encoded = model.programs.encode(samples, [1.0] * windows, [120] * windows, [False] * windows, context, compared)
    return encoded._replace(scale=np.full(windows, scale, np.float32)) if compared else encoded


def tokens_of(model: SimpleNamespace, text: str) -> int:
    return len(model.processor.context_tokenizer.encode(text))


def test_what_fits_is_one_chunk_as_it_is(model: SimpleNamespace) -> None:
    for text in ("the sail", "the wind is water. they sail on.", "they: a sea of the forest"):
        assert split(model, text) == [text]
    assert split(model, "  \n ") == []


def test_sentences_stay_whole_and_none_is_lost(model: SimpleNamespace) -> None:
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(WORDS, int(random.integers(1, 9)))) + "." for _ in range(50)]
    chunks = split(model, " ".join(sentences))
    assert " ".join(chunks) == " ".join(sentences)
    assert all(chunk.endswith(".") for chunk in chunks)
    assert max(tokens_of(model, chunk) for chunk in chunks) <= LONGEST
    assert len(chunks) < len(sentences), "short sentences share a chunk"


def test_two_thousand_entries_are_all_read_in_their_order(model: SimpleNamespace) -> None:
    random = np.random.default_rng(0)
    entries = [" ".join(random.choice(WORDS, 4)) for _ in range(2000)]
    for text in (", ".join(entries), "\n".join(entries), ",\n".join(entries), ",".join(entries)):
        chunks = split(model, text, 128)
        assert "".join(" ".join(chunks).split()) == "".join(text.split())
        found = [entry for chunk in chunks for entry in re.findall(r"[^ ,]+ [^ ,]+ [^ ,]+ [^ ,]+", chunk)]
        assert found == entries, "none is cut, none is missing, and those given twice stand twice"
        assert max(tokens_of(model, chunk) for chunk in chunks) <= 128
    labelled = split(model, "words: " + ", ".join(entries), 128)
    assert all(chunk.startswith("words: ") for chunk in labelled)
    assert [entry for chunk in labelled for entry in chunk[7:].rstrip(",").split(", ")] == entries


def test_sentences_and_lists_may_stand_together(model: SimpleNamespace) -> None:
    text = "the sea is water.\nword: wind, bear; a sail.\nthey sail on."
    assert split(model, text, 64) == ["the sea is water. word: wind, bear; a sail. they sail on."]
    # A colon within a sentence makes no list.
    text = "they sail on the sea: the wind is in the water of the sea, and the bear is bare."
    assert split(model, text, 64) == [text]


@pytest.mark.parametrize("join", ["\n", ". ", "; "])
def test_a_list_may_stand_behind_a_sentence(model: SimpleNamespace, join: str) -> None:
    names = "sea, wind, bear, the sail, water, forest, a market, animal"
    text = f"they sail on the sea{join}word: {names}; price: sail, sale, bare. the wind is on the sea."
    assert split(model, text, 14) == [
        f"they sail on the sea{join.rstrip()} word: sea, wind,",
        "word: bear, the sail, water, forest,",
        "word: a market, animal; price: sail,",
        "price: sale, bare.",
        "the wind is on the sea.",
    ]


def test_titles_and_wrapped_lines_end_nothing(model: SimpleNamespace) -> None:
    text = "word: Dr. sea, A. sail,\nProf. bear, wind"
    assert split(model, text, 18) == ["word: Dr. sea, A. sail,", "word: Prof. bear, wind"]
    wrapped = "the wind is in the water of the\nsea and they sail. the bear is on the sea."
    assert split(model, wrapped) == ["the wind is in the water of the sea and they sail.", "the bear is on the sea."]


def unigram_tokenizer() -> TextTokenizer:
    """Of T5's kind: spaces are parts of tokens, and rare text falls into letters."""
    pieces = ["▁", "▁the", "▁sea", "▁sa", "il", "le", "▁w", "ord", *":,;.", *map(chr, range(97, 123)), "。海風"]
    scores = [("<unk>", 0.0), *((piece, -0.7 * len(piece) - 1) for piece in pieces)]
    backend = Tokenizer(models.Unigram(scores, 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return TextTokenizer(backend)


MARKS = " \n,;:.<[(\"'海。、「：\u00a0\u2028"
PIECES = st.sampled_from([*WORDS[:6], *MARKS, "Word", "word:", "Dr.", "A.", "sail,", "bear.", "1,5", "sail" * 60])


@pytest.mark.parametrize("kind", ["bert", "unigram"])
@given(pieces=st.lists(st.tuples(PIECES, st.sampled_from(["", " "])), max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_no_text_anything_is_lost_moved_or_added(model: SimpleNamespace, kind: str, pieces: list) -> None:
    processor = model.processor
    if kind == "unigram":
        processor = replace(processor, context_tokenizer=unigram_tokenizer())
    text = "".join(map("".join, pieces))
    chunks = split_context(text, processor, LONGEST)
    for chunk in chunks:
        assert len(processor.context_tokenizer.encode(chunk)) <= LONGEST
    whole = " ".join(text.split())
    if len(processor.context_tokenizer.encode(whole)) <= LONGEST:
        assert chunks == ([whole] if whole else [])
    rest = whole.replace(" ", "")
    for chunk in chunks:
        plain = chunk.replace(" ", "")
        label = (
            ""
            if rest.startswith(plain)
            else next(
                plain[:end]
                for end in range(1, len(plain) + 1)
                if plain[end - 1] in ":：" and rest.startswith(plain[end:])
            )
        )
        assert label in whole.replace(" ", "")
        rest = rest[len(plain) - len(label) :]
    assert not rest
    end = last_chunk(text, processor, LONGEST)
    assert bool(end) == bool(whole)
    for chunk in end:
        assert whole.endswith(chunk)
        assert len(processor.context_tokenizer.encode(chunk)) <= LONGEST


@pytest.mark.parametrize("start", ["", "word:"])
@pytest.mark.parametrize("repeated", [*" ,;:.([<\"'\n。", "a ", "a,", "a; b: "])
def test_time_grows_with_the_length_of_a_text(model: SimpleNamespace, start: str, repeated: str) -> None:
    """Sixteen times the text takes 16 times as long, and up to 64 in a noisy machine; quadratic time would be 256."""

    def seconds(length: int) -> float:
        text = start + repeated * (length // len(repeated)) + "a"
        began = time.process_time()
        split_context(text, model.processor, LONGEST)
        last_chunk(text, model.processor, LONGEST)
        return time.process_time() - began

    seconds(2000)
    short = min(seconds(2000) for _ in range(3))
    assert min(seconds(32_000) for _ in range(2)) < 64 * max(short, 2e-3)


def test_what_has_no_breaks_is_cut_with_a_warning(model: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    endless = " ".join(np.random.default_rng(0).choice(WORDS, 100))
    with caplog.at_level(logging.WARNING):
        chunks = split(model, endless)
    assert "sentences or entries of more than 16 tokens: they are cut" in caplog.text
    assert " ".join(chunks) == endless
    assert max(tokens_of(model, chunk) for chunk in chunks) <= LONGEST
    letters = "sail" * 40
    assert "".join(split(model, letters)) == letters


def test_what_is_too_much_is_left_out_with_a_warning(model: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        chunks = split(model, "the wind is in the water. " * 2000)
    assert len(chunks) == MOST_CHUNKS
    assert re.search(r"only its first \d+ of 2000 sentences and entries are read, 128 chunks of 16 tokens", caplog.text)


def test_the_end_of_previous_text_is_kept(model: SimpleNamespace) -> None:
    words = np.random.default_rng(0).choice(WORDS, 100)
    (chunk,) = last_chunk(" ".join(words), model.processor, LONGEST)
    assert " ".join(words).endswith(chunk)
    assert LONGEST // 2 < tokens_of(model, chunk) <= LONGEST
    assert last_chunk(" ", model.processor, LONGEST) == []


def test_chunks_are_read_one_by_one_and_attended_to_together(model: SimpleNamespace) -> None:
    text = "the sea is water and the wind. they sail on the sea of animal. a bear is bare in the forest."
    chunks = split(model, text)
    assert len(chunks) == 3
    graph = abstract(model.config)[0]

    @jax.jit
    def by_hand(parameters, ids, mask):
        whole = nnx.merge(graph, parameters)
        parts = [whole.encode_context(ids[row : row + 1], mask[row : row + 1]) for row in range(3)]
        states = ContextStates(
            jnp.concatenate([part.hidden for part in parts], axis=1),
            jnp.concatenate([part.mask for part in parts], axis=1),
        )
        return whole.audio_encoder.project_context(states)

    ids, mask = model.processor.context(chunks, LONGEST)
    expected = by_hand(model.parameters, ids, mask)
    ours = read(model, text)
    real = np.asarray(ours.mask[0])
    assert real.sum() == mask.sum()
    assert_close(ours.key[:, :, real], expected.key[:, :, expected.mask[0]], model.terms)


def test_the_order_of_chunks_does_not_matter(model: SimpleNamespace) -> None:
    parts = [read(model, text) for text in ("the sea is water.", "they sail on.", "a bear is bare.")]
    one = encode(model, join_contexts(parts))
    other = encode(model, join_contexts(parts[::-1]))
    none = encode(model, None)
    for ours, turned, stock in zip(jax.tree.leaves(one), jax.tree.leaves(other), jax.tree.leaves(none), strict=True):
        assert_close(ours, turned, model.terms)
        assert np.abs(ours - stock).max() > 0.01 * np.abs(ours).max()


def test_windows_share_a_context_as_if_each_had_it_alone(model: SimpleNamespace) -> None:
    context = read(model, "they sail on the sea. a bear is bare. the wind is water.")
    together = encode(model, context, windows=3)
    for row in range(3):
        alone = model.programs.encode(model.samples[row : row + 1], [1.0], [120], [False], context)
        for ours, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            assert_close(ours[row], expected[0], model.terms)


def test_scale_moves_logits_between_without_and_with(model: SimpleNamespace) -> None:
    context = read(model, "they sail on the sea.")

    def log_probabilities(scale: float) -> np.ndarray:
        found = model.programs.language_probabilities(encode(model, context, scale=scale))[0]
        return np.log([found[code] for code in sorted(found)])

    stock = model.programs.language_probabilities(encode(model, None))[0]
    assert_close(
        log_probabilities(0.0), np.log([stock[code] for code in sorted(stock)]), model.terms, 4 * model.largest_logit
    )
    without, informed = log_probabilities(0.0), log_probabilities(1.0)
    assert np.abs(informed - without).max() > 0.1
    for scale in (0.5, 2.0):
        mixed = without + scale * (informed - without)
        mixed -= np.log(np.exp(mixed).sum())
        # With and without are each counted up to twice.
        assert_close(log_probabilities(scale), mixed, model.terms, 4 * model.largest_logit)


@pytest.mark.parametrize("beams", [None, 3])
def test_scale_acts_on_every_token(model: SimpleNamespace, beams: int | None) -> None:
    """Against a decoder that sees all tokens at once."""
    context = read(model, "they sail on the sea.")
    options = DecodingOptions(
        sample_len=12, without_timestamps=True, beam_size=beams, suppress_tokens=(), suppress_blank=False
    )
    graph = abstract(model.config)[0]
    tokens = model.processor.tokens
    start = tokens.prompt("en", timestamps=False)
    (window,) = model.programs.decode(encode(model, context, scale=2.0), [start], [[]], options, [0.0], [0])
    ended = len(window.tokens) < 12
    text = [*start, *window.tokens, *([tokens.end_of_text] if ended else [])]

    @jax.jit
    def all_at_once(parameters, audio):
        return nnx.merge(graph, parameters).decode(np.array([text[:-1]]), audio)

    @jax.jit
    def encoder(parameters, features, context):
        return nnx.merge(graph, parameters).encode(features, context)

    features = compress(mel_decades(model.samples[:1].astype(np.float64), 80), 1.0).astype(np.float32)
    informed, without = (
        np.asarray(all_at_once(model.parameters, encoder(model.parameters, features, known)))[0]
        for known in (context, None)
    )
    logits = without + 2 * (informed - without)
    forbidden = [tokens.id(f"<|{name}|>") for name in ("transcribe", "translate", "startoftranscript", "startofprev")]
    logits[:, [*forbidden, tokens.id("<|startoflm|>"), tokens.no_speech]] = -np.inf
    logits = logits[len(start) - 1 :]
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = log_probabilities[np.arange(len(logits)), text[len(start) :]]
    mean = chosen.sum() / (len(window.tokens) + 1)
    assert_close(window.avg_logprob, mean, model.terms, 4 * model.largest_logit)
    if beams is None:
        assert list(logits.argmax(axis=-1)) == text[len(start) :]
