"""Which tokens may come next, against openai-whisper's own filters and those of transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_whisper_tokens import TEXTS, multilingual_whisper

from cwjax.data.examples.whisper_tokens import WhisperTokens, train_tokenizer
from cwjax.errors import CwjaxError
from cwjax.inference.logit_rules import (
    PhraseBoost,
    apply_repetition_penalty,
    apply_timestamp_rules,
    boost_phrases,
    forbid_repeated_ngrams,
    non_speech_tokens,
    suppression,
)
from cwjax.inference.options import DecodingOptions
from cwjax.inference.segments import DecodedWindow, cut_into_segments
from cwjax.inference.transcript import Segment

pytestmark = pytest.mark.usefixtures("quick_compilation")

END, FIRST, SIZE = 20, 30, 60
"""A small vocabulary in Whisper's order: text, end of text, other special tokens, timestamps."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> WhisperTokens:
    return multilingual_whisper(tmp_path_factory.mktemp("tokenizer"))


def histories(random: np.random.Generator) -> list[list[int]]:
    """Texts as the rules allow them, stopped at every place."""
    found = []
    for _ in range(60):
        text: list[int] = []
        time = FIRST + int(random.integers(3))
        while len(text) < 9:
            text += [time, *random.integers(0, END, random.integers(1, 4))]
            if time + 4 >= SIZE:
                break
            time += int(random.integers(1, 5))
            text += [time] * int(random.integers(1, 3))
            time += int(random.integers(0, 2)) if len(text) > 1 and text[-1] != text[-2] else 0
        found += [text[:length] for length in range(1, 10)]
    return found


def test_equal_openai_whispers(tokens: WhisperTokens) -> None:
    torch = pytest.importorskip("torch")
    from types import SimpleNamespace

    from whisper.decoding import ApplyTimestampRules

    layout = SimpleNamespace(eot=END, timestamp_begin=FIRST, no_timestamps=FIRST - 1)
    random = np.random.default_rng(0)
    rules = jax.jit(apply_timestamp_rules, static_argnums=(3, 4))
    kinds = set()
    for history in histories(random):
        logits = random.normal(size=(1, 1, SIZE)).astype(np.float32)
        # Now text, now timestamps are the more probable; only openai's rule knows which of them may come.
        logits[..., FIRST:] += random.choice([-3, 0, 3])
        expected = torch.tensor(logits[0])
        ApplyTimestampRules(layout, 1, 50).apply(expected, torch.tensor([[END + 1, *history]]))
        logits[..., FIRST - 1] = -np.inf
        padded = np.full((1, 1, 12), END)  # what stands behind the history must not matter
        padded[0, 0, : len(history)] = history
        padded[0, 0, len(history) :] = SIZE - 1
        ours = rules(logits, padded, len(history), END, FIRST)
        np.testing.assert_array_equal(ours[0], expected.numpy(), err_msg=str(history))
        kinds.add(tuple(np.isfinite(ours[0, 0, place]).any() for place in (slice(0, END), slice(FIRST, SIZE))))
    assert kinds == {(True, True), (True, False), (False, True)}


def test_hypotheses_are_judged_each_by_its_own_text() -> None:
    logits = jnp.zeros((2, 3, SIZE)).at[..., FIRST:].set(-9)
    texts = np.full((2, 3, 4), 5)
    texts[0, 1, :3] = FIRST + 2, 5, FIRST + 7
    together = apply_timestamp_rules(logits, texts, 3, END, FIRST)
    for place in np.ndindex(2, 3):
        alone = apply_timestamp_rules(logits[place][None, None], texts[place][None, None], 3, END, FIRST)
        np.testing.assert_array_equal(together[place], alone[0, 0])
    assert not np.isfinite(together[0, 1, :END]).any()
    assert np.isfinite(together[0, 0, :END]).all()


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(),
        DecodingOptions(without_timestamps=True),
        DecodingOptions(suppress_tokens="50,60", suppress_blank=False, max_initial_timestamp=0.5),
        DecodingOptions(suppress_tokens=(-1, 50), max_initial_timestamp=None),
    ],
)
def test_biases_are_openai_whispers_filters(tokens: WhisperTokens, options: DecodingOptions) -> None:
    torch = pytest.importorskip("torch")
    import whisper
    from whisper.decoding import DecodingTask
    from whisper.model import ModelDimensions, Whisper

    model = Whisper(ModelDimensions(80, 1500, 4, 1, 0, 51865, 448, 4, 1, 0))
    theirs = whisper.DecodingOptions(
        language="en",
        suppress_tokens=list(options.suppress_tokens),
        suppress_blank=options.suppress_blank,
        without_timestamps=options.without_timestamps,
        max_initial_timestamp=options.max_initial_timestamp,
        fp16=False,
    )
    task = DecodingTask(model, theirs)
    biases = suppression(tokens, 51865, options)
    for sampled, bias in (([], biases.always + biases.first), ([50364, 300], biases.always)):
        # Timestamps are so improbable that only the filters with a fixed list act.
        logits = torch.zeros(1, 51865)
        logits[:, 50364:] = -1e4
        for rule in task.logit_filters:
            rule.apply(logits, torch.tensor([[*task.initial_tokens, *sampled]]))
        forbidden = ~np.isfinite(logits.numpy()[0])
        if sampled and not options.without_timestamps:
            forbidden[50364] = False  # timestamps that ran out are a matter of the rules above
        np.testing.assert_array_equal(np.isinf(bias), forbidden)


def test_non_speech_symbols_are_openai_whispers(tokens: WhisperTokens) -> None:
    from whisper.tokenizer import get_tokenizer

    theirs = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    assert non_speech_tokens(tokens) == list(theirs.non_speech_tokens)
    assert tokens.no_speech == theirs.no_speech
    assert tokens.languages == dict(zip(theirs.all_language_codes, theirs.all_language_tokens, strict=True))


def test_where_tokens_are_letters_a_text_may_begin_with_a_space(tmp_path) -> None:
    letters = train_tokenizer(TEXTS, 256, tmp_path)
    space = letters.pieces(" ")[0]
    biases = suppression(letters, len(letters), DecodingOptions(without_timestamps=True))
    assert np.isfinite([biases.always[space], biases.first[space]]).all()
    assert np.isinf(biases.first[letters.end_of_text])
    # Nor are the quotation marks forbidden that share their first byte with musical notes.
    assert np.isfinite(biases.always[letters.pieces("“")]).all()
    assert np.isinf(biases.always[letters.pieces("#")]).all()


def test_rows_of_the_model_beyond_the_last_token_are_never_decoded(tokens: WhisperTokens) -> None:
    always = suppression(tokens, 51900, DecodingOptions()).always
    assert np.isinf(always[51865:]).all()
    assert np.isfinite(always[50364:51865]).all()


def test_ids_beyond_the_vocabulary_are_refused(tokens: WhisperTokens) -> None:
    with pytest.raises(CwjaxError, match="suppress_tokens has 51865, but this model's vocabulary ends at 51864"):
        suppression(tokens, 51865, DecodingOptions(suppress_tokens=[51865]))


ADDED, SPECIAL = 51865, 51867
"""Ids of the text tokens " Ruttner" and "Bo", and of a special token, in a vocabulary with added tokens."""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> WhisperTokens:
    """A vocabulary that was extended for further training: text and a special token behind the timestamps."""
    directory = tmp_path_factory.mktemp("extended")
    tokenizer = multilingual_whisper(directory).tokenizer
    tokenizer.backend.add_tokens([" Ruttner", "Bö"])
    tokenizer.backend.add_special_tokens(["<|speaker|>"])
    tokenizer.save(directory)
    return WhisperTokens.read(directory)


def test_added_tokens_are_text_and_no_timestamps(extended: WhisperTokens) -> None:
    first = extended.first_timestamp
    said = [*extended.encode("They met"), ADDED, *extended.pieces(" and "), ADDED + 1]
    assert len(extended) == 51868
    assert extended.text([first, *said, SPECIAL, first + 1500]) == " They met Ruttner and Bö"
    assert extended.decode([first, *said, first + 1500, extended.end_of_text]) == "They met Ruttner and Bö"
    assert extended.utf8([ADDED + 1]) == "Bö".encode()

    def cut(*tokens: int) -> list[Segment]:
        return cut_into_segments(DecodedWindow(tokens, "", 0.0, 0.0, 0.0), extended, 0, 3000).segments

    segments = cut(first, *said, first + 50, first + 50, ADDED, ADDED + 1, first + 100)
    assert [(segment.start, segment.end, segment.text) for segment in segments] == [
        (0.0, 1.0, " They met Ruttner and Bö"),
        (1.0, 2.0, " RuttnerBö"),
    ]
    assert [(segment.start, segment.end) for segment in cut(first, *said)] == [(0.0, 30.0)]


def test_added_text_is_decoded_and_added_special_tokens_are_not(extended: WhisperTokens) -> None:
    for options in (DecodingOptions(), DecodingOptions(without_timestamps=True)):
        always, first, _ = suppression(extended, 51900, options)
        assert np.isfinite(always[ADDED : ADDED + 2]).all()
        assert np.isinf(always[SPECIAL:]).all()
        assert np.isinf(first[ADDED]) == (not options.without_timestamps), "a window begins with its time"
    assert np.isinf(suppression(extended, 51868, DecodingOptions(max_initial_timestamp=None)).first[ADDED])


def test_rules_for_timestamps_take_added_tokens_for_text() -> None:
    """The same logits and texts with the added tokens in front, where openai-whisper has all text, give the same."""
    random = np.random.default_rng(0)
    first, added, count = 30, 5, 6
    size = first + 1501
    for _ in range(50):
        plain = random.normal(size=(2, 3, added + size)).astype(np.float32)
        plain[..., added + first :] += random.choice([-9, -6, 0])
        text = random.choice([0, 1, 2, 3, 4, 7, added + first + 3, added + first + 9], size=(2, 3, count))
        expected = apply_timestamp_rules(plain, text, count, added + 20, added + first)
        moved = np.concatenate([plain[..., added:], plain[..., :added]], axis=-1)
        ours = apply_timestamp_rules(moved, np.where(text < added, size + text, text - added), count, 20, first)
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(np.roll(expected, -added, axis=-1)))


def hypotheses(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Logits, texts of few words, so that they repeat, and how many tokens count."""
    count = int(random.integers(0, 12))
    logits = random.normal(size=(2, 3, 8)).astype(np.float32)
    return logits, random.integers(0, 4, size=(2, 3, 12)), count


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    torch = pytest.importorskip("torch")
    from transformers import RepetitionPenaltyLogitsProcessor

    rule = jax.jit(apply_repetition_penalty)
    random = np.random.default_rng(0)
    for _ in range(40):
        logits, texts, count = hypotheses(random)
        ours = rule(logits, texts, count, penalty)
        rows = torch.tensor(texts[..., :count].reshape(6, count))
        expected = RepetitionPenaltyLogitsProcessor(penalty)(rows, torch.tensor(logits.reshape(6, 8)))
        np.testing.assert_allclose(ours.reshape(6, 8), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_repeated_ngrams_are_those_of_transformers(size: int) -> None:
    torch = pytest.importorskip("torch")
    from transformers import NoRepeatNGramLogitsProcessor

    rule = jax.jit(forbid_repeated_ngrams, static_argnums=3)
    random = np.random.default_rng(0)
    forbidden = 0
    for _ in range(100):
        logits, texts, count = hypotheses(random)
        ours = rule(logits, texts, count, size)
        rows = torch.tensor(texts[..., :count].reshape(6, count))
        expected = NoRepeatNGramLogitsProcessor(size)(rows, torch.tensor(logits.reshape(6, 8)))
        np.testing.assert_array_equal(ours.reshape(6, 8), expected.numpy())
        forbidden += int(np.isinf(ours).sum())
    assert forbidden


def test_boosts_are_those_of_transformers() -> None:
    """Its sequences have a bias for their last token after all the others."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    phrases = [(3, 4, 5), (7, 6, 8, 9), (12, 13)]  # which never boost one token twice
    biases: dict[tuple[int, ...], float] = {}
    for phrase in phrases:
        for length in range(1, len(phrase) + 1):
            biases[phrase[:length]] = 1.5 if length == 1 else 2.75
    expected_rule = transformers.SequenceBiasLogitsProcessor(sequence_bias=biases)
    ids = np.full((1, len(phrases), 6), -1)
    for row, phrase in zip(ids[0], phrases, strict=True):
        row[: len(phrase)] = phrase
    first = np.full((1, len(phrases)), 1.5, np.float32)
    boost = PhraseBoost(ids, first, first + 1.25)
    random, raised = np.random.default_rng(0), set()
    texts = [[], [3], [3, 4], [7], [7, 6], [7, 6, 8], [12], [3, 4, 5], [12, 12, 12, 3], [4, 5], [1, 3, 3, 4]]
    for text in texts:
        logits = random.normal(size=(1, 1, SIZE)).astype(np.float32)
        padded = np.full((1, 1, 8), 4)  # what stands behind the text must not matter
        padded[0, 0, : len(text)] = text
        ours = np.asarray(jax.jit(boost_phrases)(logits, padded, len(text), boost))[0]
        before = torch.tensor([[SIZE - 1] * 6 + text])
        expected = expected_rule(before, torch.tensor(logits[0])).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-6, err_msg=str(text))
        raised |= {(tuple(text), token) for token in np.flatnonzero(ours != logits[0]).tolist()}
    assert {((3, 4), 5), ((), 3), ((7, 6, 8), 9), ((12,), 13)} <= raised


def test_the_highest_of_several_boosts_counts_and_windows_have_their_own() -> None:
    ids = np.array([[[3, 4, -1], [3, 5, -1]], [[6, -1, -1], [-1, -1, -1]]])
    boost = PhraseBoost(ids, np.array([[1.0, 2.0], [3.0, 3.0]], np.float32), np.array([[2.0, 4.0], [9.0, 9.0]]))
    texts = np.array([[[0, 3], [0, 0]], [[0, 3], [6, 6]]])
    raised = np.asarray(boost_phrases(jnp.zeros((2, 2, SIZE)), texts, 2, boost))
    expected = np.zeros((2, 2, SIZE))
    expected[0, 0, [3, 4, 5]] = 2, 2, 4
    expected[0, 1, 3] = 2
    expected[1, :, 6] = 3
    np.testing.assert_array_equal(raised, expected)
