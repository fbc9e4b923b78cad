"""When each token was said: the decoder's cross-attention, made a path by dynamic time warping.

The method is openai-whisper's (openai/whisper, timing.py). Some heads of cross-attention look at the audio that the
current token was said in. Their weights, normalised and smoothed, say how well each token goes with each audio
position; dynamic time warping (Sakoe and Chiba 1978) finds the best way through.

Legend: B windows, T tokens of the text and around it, A audio positions, d width of a head, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cwjax.inference.decoding import EncodedAudio
from cwjax.models.text_decoder import StepwiseDecoder

MEDIAN_WIDTH = 7
"""Audio positions of the median filter that smooths the weights."""


class Alignment(NamedTuple):
    """How the tokens of a window's text go with its audio.

    Attributes:
        weights: (t + 1, a), of the token before the text and of its t tokens, with the audio positions heard.
        probabilities: (t,), of the text's tokens among text tokens.
    """

    weights: np.ndarray
    probabilities: np.ndarray


def align(
    decoder: StepwiseDecoder,
    heard: EncodedAudio,
    tokens: jax.Array,
    lengths: jax.Array,
    positions: jax.Array,
    heads: tuple[tuple[int, int], ...],
    end_of_text: int,
) -> tuple[jax.Array, jax.Array]:
    """Weights between tokens and audio, and the tokens' probabilities.

    Args:
        decoder: with its parameters.
        heard: B windows; of those heard twice, what was heard with the context counts.
        tokens: (B, T), the start of the transcript, text and end of text.
        lengths: (B,), tokens of each that are real.
        positions: (B,), audio positions of each that were heard.
        heads: (layer, head) of those that are looked at.
        end_of_text: the first id that is no text.

    Returns:
        (B, T, A) weights, without meaning beyond `lengths` and `positions`, and (B, T - 1) probabilities of each
        token but the first, given those before it.
    """
    windows, length = tokens.shape
    audio = jax.tree.map(lambda rows: rows[:windows], heard.audio)
    places = jnp.arange(length)
    cache = decoder.empty_cache(audio, length)
    reading = decoder.read(tokens, audio, cache, 0, places, places <= places[:, None])
    logits = decoder.logits(reading.stream[:, :-1])[..., :end_of_text]
    chosen = jnp.take_along_axis(logits, jnp.minimum(tokens[:, 1:, None], end_of_text - 1), axis=-1)[..., 0]
    probabilities = jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1))

    def add_head(total: jax.Array, head: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        query, key = head
        scores = jnp.matmul(query, key, preferred_element_type=jnp.float32) / np.sqrt(query.shape[-1])
        return total + jax.vmap(_smoothed)(scores, lengths, positions), None

    total = jnp.zeros((windows, length, audio.value[0].shape[2]))
    for layer in sorted({layer for layer, _ in heads}):
        chosen = np.asarray([head for one, head in heads if one == layer])
        by_head = [jnp.swapaxes(array[:, chosen], 0, 1) for array in (reading.queries[layer], audio.key[layer])]
        total, _ = jax.lax.scan(add_head, total, tuple(by_head))
    return total / len(heads), probabilities


def _smoothed(scores: jax.Array, length: jax.Array, positions: jax.Array) -> jax.Array:
    """A head's scores (T, A) -> its weights, normalised over the tokens and smoothed over the audio."""
    real = (jnp.arange(scores.shape[0]) < length)[:, None]
    weights = jax.nn.softmax(jnp.where(jnp.arange(scores.shape[1]) < positions, scores, -jnp.inf))
    mean = jnp.where(real, weights, 0).sum(axis=0) / length
    deviation = jnp.sqrt(jnp.where(real, jnp.square(weights - mean), 0).sum(axis=0) / length)
    weights = (weights - mean) / jnp.where(deviation > 0, deviation, 1)

    # The filter mirrors the weights at both ends; the right one is where the audio heard ends.
    half = MEDIAN_WIDTH // 2
    mirrored = jnp.flip(jax.lax.dynamic_slice_in_dim(weights, positions - 1 - half, half, axis=1), axis=1)
    padded = jnp.pad(weights, ((0, 0), (half, half)), mode="reflect")
    padded = jax.lax.dynamic_update_slice_in_dim(padded, mirrored, positions + half, axis=1)
    shifted = [padded[:, place : place + scores.shape[1]] for place in range(MEDIAN_WIDTH)]
    return jnp.where(positions > half, _median(shifted), weights)


def _median(values: list[jax.Array]) -> jax.Array:
    """The elementwise median of an odd number of arrays, by a sorting network of minima and maxima."""
    values = list(values)
    for turn in range(len(values)):
        for left in range(turn % 2, len(values) - 1, 2):
            low, high = values[left], values[left + 1]
            values[left], values[left + 1] = jnp.minimum(low, high), jnp.maximum(low, high)
    return values[len(values) // 2]


def warp(weights: np.ndarray) -> np.ndarray:
    """Dynamic time warping: the monotone path of the highest summed weight.

    Args:
        weights: (t, a), how well each row goes with each column.

    Returns:
        (t,) int, the column at which each row's stretch of the path begins.
    """
    rows, columns = weights.shape
    # costs[k][i] is the least cost of a path to row i - 1 and column k - i - 1; a diagonal k depends on the two
    # before it alone and is computed at once.
    came_from = np.zeros((rows + 1, columns + 1), np.int8)
    costs = np.full((3, rows + 1), np.inf, np.float32)
    costs[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        both, above, beside = costs[(diagonal - 2) % 3], costs[(diagonal - 1) % 3], costs[(diagonal - 1) % 3]
        steps = np.stack([both[row - 1], above[row - 1], beside[row]])
        # A tie goes to the next column.
        step = np.where(steps[0] < np.minimum(steps[1], steps[2]), 0, 2)
        step = np.where(steps[1] < np.minimum(steps[0], steps[2]), 1, step)
        came_from[row, column] = step
        here = costs[diagonal % 3]
        here[:] = np.inf
        here[row] = steps[step, np.arange(len(row))] - weights[row - 1, column - 1].astype(np.float64)
    begins = np.zeros(rows, int)
    row, column = rows, columns
    while row:
        begins[row - 1] = column - 1
        step = came_from[row, column]
        row, column = row - (step != 2), column - (step != 1)
    return begins
