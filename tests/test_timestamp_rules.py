"""Which tokens may come next, against openai-whisper's own filters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_whisper_tokens import TEXTS, multilingual_whisper

from cwjax.data.whisper_tokens import WhisperTokens, train_tokenizer
from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions
from cwjax.inference.suppression import non_speech_tokens, suppression, transcript_only
from cwjax.inference.timestamp_rules import apply_timestamp_rules

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


def test_a_plain_transcript_has_no_special_token_but_its_end(tokens: WhisperTokens) -> None:
    allowed = np.isfinite(transcript_only(tokens, 51865).always)
    assert allowed[: tokens.end_of_text + 1].all()
    assert not allowed[tokens.end_of_text + 1 :].any()


def test_rows_of_the_model_beyond_the_last_token_are_never_decoded(tokens: WhisperTokens) -> None:
    for biases in (suppression(tokens, 51900, DecodingOptions()), transcript_only(tokens, 51900)):
        assert np.isinf(biases.always[51865:]).all()
    assert np.isfinite(suppression(tokens, 51900, DecodingOptions()).always[50364:51865]).all()


def test_ids_beyond_the_vocabulary_are_refused(tokens: WhisperTokens) -> None:
    with pytest.raises(CwjaxError, match="suppress_tokens has 51865, but this model's vocabulary ends at 51864"):
        suppression(tokens, 51865, DecodingOptions(suppress_tokens=[51865]))
