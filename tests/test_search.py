"""Searches against a second implementation over explicit probabilities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close

from cwjax.inference.search import BeamSearch, Sampling, first_highest

pytestmark = pytest.mark.usefixtures("quick_compilation")

END, SIZE, STEPS = 3, 7, 6
TERMS = SIZE + STEPS


def language(seed: int):
    """Logits of the next token, which depend on the last two tokens."""
    table = np.random.default_rng(seed).normal(size=(SIZE + 1, SIZE + 1, SIZE)).astype(np.float32) * 2

    def logits(text: tuple[int, ...]) -> np.ndarray:
        before = (SIZE, SIZE, *text)[-2:]
        return table[before]

    return logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits.astype(np.float64)).sum())


@partial(jax.jit, static_argnums=0)
def step(search, state, logits, count, keys, temperature):
    return search.advance(state, logits, count, keys, temperature, END)


def run(search, logits, keys=None, temperature=None):
    """The search, driven from outside a compiled program; `logits` is one language per window."""
    windows = len(logits)
    state = search.start(windows, STEPS, END)
    for count in range(STEPS):
        if search.finished(state):
            break
        rows = [
            [logits[window](tuple(map(int, text[:count]))) for text in state.tokens[window]]
            for window in range(windows)
        ]
        drawn = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, count)
        temperatures = None if temperature is None else jnp.full(windows, temperature)
        state, sources = step(search, state, jnp.asarray(rows), count, drawn, temperatures)
        assert (sources is None) == isinstance(search, Sampling)
    return jax.device_get(search.candidates(state))


def text_of(tokens) -> tuple[int, ...]:
    tokens = list(map(int, tokens))
    return tuple(tokens[: tokens.index(END)] if END in tokens else tokens)


def beams_by_hand(logits, beams: int, wanted: int) -> dict[tuple[int, ...], float]:
    """Beam search over dictionaries: every continuation of every hypothesis, sorted, the best kept."""
    going, ended = {(): 0.0}, {}
    for _ in range(STEPS):
        every = {
            (*text, token): total + log_softmax(logits(text))[token]
            for text, total in going.items()
            for token in range(SIZE)
        }
        going = {}
        for text in sorted(every, key=every.get, reverse=True):
            if len(going) == beams:
                break
            if text[-1] != END:
                going[text] = every[text]
            elif len(ended) < wanted:
                ended[text[:-1]] = every[text]
        if len(ended) == wanted:
            break
    missing = max(beams - len(ended), 0)
    return ended | dict(sorted(going.items(), key=lambda item: -item[1])[:missing])


@pytest.mark.parametrize(("beams", "wanted"), [(1, 1), (2, 2), (3, 3), (3, 6), (4, 2)])
def test_beam_search_equals_one_over_dictionaries(beams: int, wanted: int) -> None:
    lengths = set()
    for seed in range(8):
        found = run(BeamSearch(beams, wanted), [language(seed)])
        valid = found.valid[0]
        ours = dict(zip(map(text_of, found.tokens[0][valid]), found.total[0][valid], strict=True))
        expected = beams_by_hand(language(seed), beams, wanted)
        assert ours.keys() == expected.keys()
        assert_close([ours[text] for text in expected], list(expected.values()), TERMS)
        lengths |= set(map(len, ours))
    assert len(lengths) > 2


def test_a_windows_beams_do_not_depend_on_the_others() -> None:
    search, windows = BeamSearch(3, 3), [language(seed) for seed in range(4)]
    together = run(search, windows)
    for window, logits in enumerate(windows):
        alone = run(search, [logits])
        # A window that is done may wait for others; what has ended stays.
        np.testing.assert_array_equal(together.valid[window], alone.valid[0])
        chosen = alone.valid[0]
        np.testing.assert_array_equal(together.tokens[window][chosen], alone.tokens[0][chosen])


def test_greedy_takes_the_likeliest_and_sums_up_to_the_end() -> None:
    windows = [language(seed) for seed in range(8)]
    found = run(Sampling(), windows)
    ends = 0
    for window, logits in enumerate(windows):
        text, total = (), 0.0
        while len(text) < STEPS:
            log_probabilities = log_softmax(logits(text))
            token = int(np.argmax(log_probabilities))
            total += log_probabilities[token]
            if token == END:
                ends += 1
                break
            text = (*text, token)
        assert text_of(found.tokens[window, 0]) == text
        assert_close(found.total[window, 0], total, TERMS, scale=np.abs(log_probabilities).max() * STEPS)
    assert 0 < ends < len(windows)


def test_samples_follow_the_tempered_probabilities_and_count_the_plain_ones() -> None:
    logits = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    found = run(Sampling(4000, random=True), [lambda _: logits], jax.random.split(jax.random.key(0), 1), 2.0)
    first = found.tokens[0, :, 0]
    expected = np.exp(log_softmax(logits / 2))
    np.testing.assert_allclose(np.bincount(first, minlength=SIZE) / 4000, expected, atol=0.03)
    for tokens, total in list(zip(found.tokens[0], found.total[0], strict=True))[:20]:
        text = text_of(tokens)
        counted = [*text, END] if len(text) < STEPS else text
        assert_close(total, log_softmax(logits)[list(counted)].sum(), TERMS)


def test_a_windows_samples_depend_on_its_key_alone() -> None:
    logits = [language(seed) for seed in range(3)]
    keys = jax.random.split(jax.random.key(1), 3)
    together = run(Sampling(2, random=True), logits, keys, 1.0)
    for window in range(3):
        alone = run(Sampling(2, random=True), [logits[window]], keys[window : window + 1], 1.0)
        np.testing.assert_array_equal(together.tokens[window], alone.tokens[0])
    other = run(Sampling(2, random=True), logits, jax.random.split(jax.random.key(2), 3), 1.0)
    assert not np.array_equal(together.tokens, other.tokens)


def test_the_first_of_equal_values_is_taken() -> None:
    values = np.random.default_rng(0).integers(0, 4, (5, 6, 50)).astype(np.float32)
    values[0, 0] = -np.inf
    np.testing.assert_array_equal(first_highest(jnp.asarray(values)), np.argmax(values, axis=-1))
