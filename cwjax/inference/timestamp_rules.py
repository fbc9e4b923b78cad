"""Whisper's rules for timestamp tokens (Radford et al. 2022, section 2.3; openai/whisper, decoding.py).

Legend: B windows, G hypotheses of each, T tokens, V vocabulary.
"""

import jax
import jax.numpy as jnp


def apply_timestamp_rules(
    logits: jax.Array, tokens: jax.Array, count: jax.Array | int, end_of_text: int, first_timestamp: int
) -> jax.Array:
    """Logits with those of tokens that must not come next at -inf.

    Timestamps stand in pairs, one that ends a segment and one that begins the next, except that the text may end
    after the first of a pair. They never run backwards, and a segment is never empty. When all timestamps together
    are more probable than any other token, a timestamp comes next.

    Args:
        logits: (B, G, V) of the next token.
        tokens: (B, G, T), the hypotheses so far; what stands from `count` on does not matter.
        count: tokens so far, a scalar.
        end_of_text: the first id that is no text.
        first_timestamp: the id of 0.00; all ids from it on are timestamps.
    """
    places, vocabulary = jnp.arange(tokens.shape[-1]), jnp.arange(logits.shape[-1])
    stamped = (tokens >= first_timestamp) & (places < count)
    last = (stamped & (places == count - 1)).any(axis=-1)
    before_last = (stamped & (places == count - 2)).any(axis=-1) | (count < 2)
    latest = jnp.where(stamped, tokens, first_timestamp - 1).max(axis=-1)
    # The second timestamp of a pair may repeat the first; any other lies behind all before it.
    earliest = jnp.where(last & ~before_last, latest, latest + 1)

    is_text, is_timestamp = vocabulary < end_of_text, vocabulary >= first_timestamp
    forbidden = is_timestamp & (vocabulary < earliest[..., None])
    forbidden |= is_timestamp & (last & before_last)[..., None]
    forbidden |= is_text & (last & ~before_last)[..., None]
    logits = jnp.where(forbidden, -jnp.inf, logits)

    all_timestamps = jax.nn.logsumexp(logits[..., first_timestamp:], axis=-1)
    best_other = logits[..., :first_timestamp].max(axis=-1)
    return jnp.where((all_timestamps > best_other)[..., None] & ~is_timestamp, -jnp.inf, logits)
