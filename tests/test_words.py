"""Words and their times: warping against a plain implementation, the rest against openai-whisper's functions."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_whisper_tokens import multilingual_whisper
from tolerance import assert_close

from cwjax.data.whisper_tokens import WhisperTokens
from cwjax.inference.alignment import _smoothed, warp
from cwjax.inference.options import APPENDED, PREPENDED
from cwjax.inference.words import TimedWord, merge_punctuation, split_into_words


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> WhisperTokens:
    return multilingual_whisper(tmp_path_factory.mktemp("tokenizer"))


def best_path_by_hand(weights: np.ndarray) -> float:
    """The highest sum of weights over all monotone paths from corner to corner."""
    rows, columns = weights.shape
    best = np.full((rows, columns), -np.inf)
    for row in range(rows):
        for column in range(columns):
            before = [
                best[row - down, column - right]
                for down, right in ((1, 1), (1, 0), (0, 1))
                if row >= down and column >= right
            ]
            best[row, column] = weights[row, column] + max(before, default=0)
    return float(best[-1, -1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 5), (4, 30), (12, 7), (20, 3), (3, 1)])
def test_warping_finds_the_best_path(shape: tuple[int, int]) -> None:
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    begins = warp(weights)
    assert begins.shape == shape[:1]
    assert begins[0] == 0
    assert (np.diff(begins) >= 0).all()
    # Where rows begin does not say where they end; the best path with these beginnings must be the best of all.
    total = weights[0, 0] * 0.0
    ends = [*begins[1:], shape[1] - 1]
    for row, (first, last) in enumerate(zip(begins, ends, strict=True)):
        # A row ends beside or right above the beginning of the next one.
        whole = weights[row, first : last + 1].sum()
        total += whole if row == shape[0] - 1 or last == first else max(whole, weights[row, first:last].sum())
    assert_close(total, best_path_by_hand(weights), terms=sum(shape))


def test_warping_equals_openai_whispers() -> None:
    pytest.importorskip("torch")
    from whisper.timing import dtw_cpu

    random = np.random.default_rng(1)
    for _ in range(5):
        weights = random.normal(size=(int(random.integers(2, 40)), int(random.integers(2, 200)))).astype(np.float32)
        rows, columns = dtw_cpu(-weights.astype(np.float64))
        expected = [columns[rows == row].min() for row in range(len(weights))]
        np.testing.assert_array_equal(warp(weights), expected)


@pytest.mark.parametrize("positions", [40, 23, 4, 3, 1])
def test_weights_are_openai_whispers(positions: int) -> None:
    torch = pytest.importorskip("torch")
    from whisper.timing import median_filter

    scores = np.random.default_rng(0).normal(size=(12, 40)).astype(np.float32) * 3
    length = 9
    weights = torch.tensor(scores[None, :length, :positions]).softmax(dim=-1)
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    expected = median_filter((weights - mean) / deviation, 7)[0].numpy()
    ours = jax.jit(_smoothed)(scores, length, positions)[:length, :positions]
    if positions == 1:
        expected = np.zeros_like(expected)  # where nothing differs, theirs is not a number
    largest = float((weights / deviation).max()) if positions > 1 else 0
    assert_close(ours, expected, terms=positions + length, scale=largest)
    other = jax.jit(_smoothed)(jnp.asarray(scores).at[length:].set(7).at[:, positions:].set(-7), length, positions)
    np.testing.assert_array_equal(other[:length, :positions], ours)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", " Don't stop: 3.5 metres (or so), he said. “Really?!”"),
        ("de", " Öl, naïve Übergrößenträger -- 12% mehr."),
        ("zh", "你好，世界。日本語 🙂 ok"),
        ("en", " 日本語 🙂 half"),
        ("fr", ""),
    ],
)
def test_words_are_openai_whispers(tokens: WhisperTokens, language: str, text: str) -> None:
    from whisper.tokenizer import get_tokenizer

    theirs = get_tokenizer(True, num_languages=99, language=language, task="transcribe")
    ids = theirs.encode(text)
    for part in (ids, ids[:-1], ids[1:], ids[2:5]):  # which may cut through characters
        words, groups = theirs.split_to_word_tokens([*part, theirs.eot])
        expected = list(zip(words[:-1], map(len, groups[:-1]), strict=True))
        ours = split_into_words(part, tokens, language)
        if sum(count for _, count in ours) < len(part):
            # The text is cut within a character. Theirs may lose the whole word before it, too.
            assert ours[: len(expected)] == expected
            assert len(ours) <= len(expected) + 1
        else:
            assert ours == expected


def test_punctuation_is_merged_as_openai_whisper_does() -> None:
    pytest.importorskip("torch")
    from whisper.timing import merge_punctuations

    random = np.random.default_rng(0)
    choices = [" a", "b", ' "', " (", "“", ",", ".", "?!", ")", "”", " -", " 'tis", "。", " ", " c "]
    for _ in range(200):
        texts = [str(text) for text in random.choice(choices, int(random.integers(1, 9)))]
        theirs = [SimpleNamespace(word=text, tokens=[place]) for place, text in enumerate(texts)]
        ours = [TimedWord(text, 1, 0.0, 0.0, 0.0) for text in texts]
        merge_punctuations(theirs, PREPENDED, APPENDED)
        merge_punctuation(ours, PREPENDED, APPENDED)
        assert [(word.text, word.tokens) for word in ours] == [(word.word, len(word.tokens)) for word in theirs]
