"""The phrase spotter against a dynamic programme in NumPy, and with any phrases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cwjax.models import phrase_spotter
from cwjax.models.phrase_spotter import (
    LONGEST_PHRASE,
    PhraseSpotter,
    SpotterConfig,
    best_paths,
    detect,
    encode_phrases,
    find,
    normalized,
    path_scores,
    read_letters,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = SpotterConfig(audio_width=12, width=8, hidden=16, text_layers=2)
REACH = 4


@pytest.fixture(scope="module")
def spotter() -> PhraseSpotter:
    spotter = PhraseSpotter(CONFIG, key=jax.random.key(0))
    spotter.evidence[...] = jnp.array([1.0, 2.0, -0.5, 0.3, 0.0])
    spotter.verdict[...] = jnp.array([0.5, 1.0, -0.3, -0.1])
    return spotter


def brute_force(units: np.ndarray, frames: np.ndarray, reach: int) -> tuple[float, list[int]]:
    """The best path of one phrase (N, D) through frames (T, D), by a table of every letter and frame."""
    similarity = units @ frames.T
    table = [[(similarity[0, at], [at]) for at in range(len(frames))]]
    for row in similarity[1:]:
        table.append(
            [
                max(
                    (table[-1][at - step][0] + row[at], [*table[-1][at - step][1], at])
                    for step in range(min(reach, at + 1))
                )
                for at in range(len(frames))
            ]
        )
    return max(table[-1])


@pytest.fixture(scope="module")
def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(1)
    lengths = np.array([1, 2, 5, 7, 3, 7])
    units = chance.normal(size=(6, 7, 8)).astype(np.float32) * (np.arange(7) < lengths[:, None])[..., None]
    units /= np.linalg.norm(units, axis=-1).sum(axis=-1)[:, None, None]
    frames = chance.normal(size=(2, 23, 8)).astype(np.float32)
    return units, lengths, frames / np.linalg.norm(frames, axis=-1, keepdims=True)


def test_best_paths_are_those_of_a_table(example):
    units, lengths, frames = example
    paths = best_paths(*example, REACH)
    found = find(*map(jnp.asarray, example), REACH)
    scores = path_scores(*map(jnp.asarray, example), REACH)
    for window, phrase in np.ndindex(2, 6):
        score, path = brute_force(units[phrase, : lengths[phrase]], frames[window], REACH)
        assert scores[window, phrase] == pytest.approx(score, abs=1e-5)
        assert found.score[window, phrase] == pytest.approx(score, abs=2e-5)
        assert paths[window, phrase, : len(path)].tolist() == path
        assert (found.start[window, phrase], found.end[window, phrase]) == (path[0], path[-1])


def test_gradient_is_that_of_differences(example):
    units, lengths, frames = map(jnp.asarray, example)

    def total(units, frames):
        return (path_scores(units, lengths, frames, REACH) ** 2).sum()

    of_units, of_frames = jax.grad(total, (0, 1))(units, frames)
    assert np.isfinite(of_units).all()
    assert np.isfinite(of_frames).all()
    for place in ((3, 2, 1), (5, 6, 0)):
        shifted = [total(units.at[place].add(sign * 1e-3), frames) for sign in (1, -1)]
        assert float(of_units[place]) == pytest.approx(float(shifted[0] - shifted[1]) / 2e-3, rel=0.05, abs=1e-3)


def test_network_gradients_are_finite(spotter):
    letters = read_letters(["Ada", "Schöffer & Söhne", "x"], CONFIG.rows)
    states = jax.random.normal(jax.random.key(2), (2, 40, 12))

    def loss(spotter):
        return path_scores(spotter.read(*letters), letters.lengths, spotter.hear(states), CONFIG.reach).sum()

    gradients = jax.tree.leaves(nnx.grad(loss)(spotter))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert sum(bool(np.any(gradient)) for gradient in gradients) >= len(gradients) - 2  # not the calibration's


PHRASES = [
    "Ada",
    "",
    "Гутенберг",
    "グーテンベルク",
    "구텐베르크",
    "🐝🐝",
    "\x00\x1b",
    "x",
    "ada",
    "long " * 60,
    "naïve café",
    "Ada",
]


def test_any_phrase_gets_a_probability_and_a_place(spotter):
    states = jax.random.normal(jax.random.key(3), (3, 50, 12))
    probability, start, end = map(np.asarray, detect(nnx.split(spotter), states, encode_phrases(spotter, PHRASES)))
    assert probability.shape == start.shape == end.shape == (3, len(PHRASES))
    silent = [1, 6]
    assert (probability[:, silent] == 0).all()
    others = np.delete(probability, [*silent, PHRASES.index("long " * 60)], axis=1)
    assert ((others > 0) & (others < 1)).all()
    assert (start >= 0).all()
    assert (start < end).all()
    assert (end <= 1.0 + 1e-6).all()
    assert (probability[:, 0] == probability[:, 8]).all()  # twice the same but for case
    assert (probability[:, 0] == probability[:, 11]).all()


def test_what_nobody_can_say_so_fast_is_not_heard(spotter):
    """Its path may stay in one frame, where all letters sound best."""
    lengths = jnp.array([1, 3, 4, 60, 60])
    start = jnp.array([[5, 5, 5, 5, 5]])
    found = phrase_spotter.Found(jnp.ones((1, 5)), start, jnp.array([[5, 5, 5, 5, 24]]))
    probability = phrase_spotter.probabilities(spotter, found, lengths, 50, jnp.float32(5))
    assert (probability[0] > 0).tolist() == [True, True, False, False, True]


def test_no_phrases_at_all(spotter):
    probability, start, end = detect(nnx.split(spotter), jnp.ones((2, 10, 12)), encode_phrases(spotter, []))
    assert probability.shape == start.shape == end.shape == (2, 0)


def test_spelling_is_normalized():
    assert normalized("  STRASSE\t Ａ\n") == normalized("straße a") == "strasse a"
    assert normalized("Schöffer") == normalized("Scho\u0308ffer") == "scho\u0308ffer"
    assert len(normalized("b" * 200)) == LONGEST_PHRASE
    assert len(normalized("구텐")) > 2  # a syllable is its letters


@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_change_nothing(spotter, monkeypatch, chunk):
    states = jax.random.normal(jax.random.key(4), (2, 44, 12))
    whole = detect(nnx.split(spotter), states, encode_phrases(spotter, PHRASES))
    monkeypatch.setattr(phrase_spotter, "CHUNK", chunk)
    for one, other in zip(whole, detect(nnx.split(spotter), states, encode_phrases(spotter, PHRASES)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_other_phrases_do_not_change_a_score(spotter):
    """Padding to longer neighbours is not heard."""
    states = jax.random.normal(jax.random.key(5), (1, 44, 12))
    found = [
        phrase_spotter.find_all(spotter, states, encode_phrases(spotter, ["Ada", *others]))[0].score[0, 0].item()
        for others in ([], ["x" * 60])
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_few_phrases_in_a_part_of_a_window(spotter):
    """What is outside of it is not heard, and the phrases are those of the list."""
    encoded = encode_phrases(spotter, PHRASES)
    some = phrase_spotter.select_phrases(encoded, [2, 9, 0])
    states = jax.random.normal(jax.random.key(6), (1, 100, 12))
    whole, _ = phrase_spotter.find_all(spotter, states, encoded)
    found, lengths = phrase_spotter.find_all(spotter, states, some, jnp.ones((1, 50), bool))
    for all_of_them, ours in zip(whole, found, strict=True):
        np.testing.assert_array_equal(all_of_them[:, jnp.array([2, 9, 0])], ours)
    assert lengths.tolist() == [9, 64, 3]
    listened = jnp.zeros((1, 50), bool).at[:, 20:30].set(True)
    part = detect(nnx.split(spotter), states, some, listened)
    other = states.at[:, :30].set(9.0).at[:, 70:].set(-9.0)
    for ours, theirs in zip(part, detect(nnx.split(spotter), other, some, listened), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (part[0] != detect(nnx.split(spotter), states, some)[0]).any()


def test_rivals_are_those_heard_at_the_same_place():
    found = phrase_spotter.Found(*(jnp.array([row]) for row in ([0.0] * 4, [2, 10, 0, 30], [8, 14, 28, 31])))
    logits = jnp.array([[1.0, 2.0, -1.0, 5.0]])  # the third covers the middle of both before it, the last none
    features = phrase_spotter.verdict(logits, found, 40, jnp.float32(4))
    np.testing.assert_allclose(features[0, :, 2], [0.0, 0.0, 3.0, 0.0], atol=1e-6)


def test_memory_stays_bounded():
    """5,000 phrases in a window of 30 s: what XLA needs beside arguments and results."""
    spotter = PhraseSpotter(SpotterConfig(), key=jax.random.key(0))
    chance = np.random.default_rng(0)
    phrases = ["".join(chance.choice(list("abcdefgh"), chance.integers(4, 24))) for _ in range(5000)]
    encoded = encode_phrases(spotter, phrases)
    compiled = detect.lower(nnx.split(spotter), jax.ShapeDtypeStruct((1, 1500, 512), jnp.float32), encoded).compile()
    needed = compiled.memory_analysis()
    assert needed.temp_size_in_bytes + needed.output_size_in_bytes + encoded.units.nbytes < 100e6
