"""Greedy decoding with a key/value cache: one compiled program per shape.

Legend: B batch, A audio positions, D width, P prompt tokens, T new tokens, V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cwjax.data.whisper_tokens import WhisperTokens


class Decoded(NamedTuple):
    """What was decoded.

    Attributes:
        tokens: (B, T) int32, filled with end of text after the first one.
        log_probability: (B,) float32, sum over the tokens up to and including the first end of text.
    """

    tokens: jax.Array
    log_probability: jax.Array


def suppression_bias(tokens: WhisperTokens) -> np.ndarray:
    """(V,) float32 to add to logits when no timestamps are wanted: -inf at every special token but end of text."""
    bias = np.zeros(len(tokens), np.float32)
    bias[tokens.end_of_text + 1 :] = -np.inf
    return bias


def greedy_decode(
    decoder: Any, audio: jax.Array, prompt: jax.Array, max_new_tokens: int, bias: jax.Array, end_of_text: int
) -> Decoded:
    """The likeliest token at every step, until every row has ended.

    Args:
        decoder: Whisper's decoder, with its parameters.
        audio: (B, A, D) states of the audio encoder.
        prompt: (B, P) int32, read in one pass.
        max_new_tokens: T, static.
        bias: (V,) added to the logits.
        end_of_text: ends a row.
    """
    rows, prompt_length = prompt.shape
    cache = decoder.start(audio, prompt_length + max_new_tokens)
    logits, cache = decoder.step(prompt, cache, 0)

    def choose(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32) + bias)
        token = jnp.argmax(log_probabilities, axis=-1).astype(jnp.int32)
        return token, jnp.take_along_axis(log_probabilities, token[:, None], axis=-1)[:, 0]

    def unfinished(carry: tuple[Any, ...]) -> jax.Array:
        count, _, _, finished, _, _ = carry
        return (count < max_new_tokens) & ~finished.all()

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        count, tokens, total, finished, logits, cache = carry
        token, log_probability = choose(logits)
        token = jnp.where(finished, end_of_text, token)
        total += jnp.where(finished, 0.0, log_probability)
        tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, count))
        logits, cache = decoder.step(token[:, None], cache, prompt_length + count)
        return count + 1, tokens, total, finished | (token == end_of_text), logits[:, -1], cache

    start = (
        jnp.int32(0),
        jnp.full((rows, max_new_tokens), end_of_text, jnp.int32),
        jnp.zeros(rows, jnp.float32),
        jnp.zeros(rows, bool),
        logits[:, -1],
        cache,
    )
    _, tokens, total, _, _, _ = jax.lax.while_loop(unfinished, advance, start)
    return Decoded(tokens, total)
