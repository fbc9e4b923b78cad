"""Which tokens may come next: those that are never decoded, Whisper's rules for timestamps, and rules on repetition.

The rules for timestamps are those of Radford et al. 2022, section 2.3, and openai/whisper, decoding.py.

Legend: B windows, G hypotheses of each, T tokens, V vocabulary.
"""

import string
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cwjax.data.examples.whisper_tokens import LAST_TIMESTAMP, TIMESTAMP_STEP, TIMESTAMPS, WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions

SYMBOLS = '"#()*+/:;<=>@[\\]^_`{|}~「」『』'
GROUPS = "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪"
NOTES = "♩♪♫♬♭♮♯"
"""Symbols of captions that are not speech, such as [MUSIC] and ♪; the list is openai-whisper's."""

NON_SPEECH = -1
"""Among `suppress_tokens`: stands for `non_speech_tokens`."""


class PhraseBoost(NamedTuple):
    """Phrases that are heard in windows, which makes their tokens likelier than the decoder alone finds them.

    Attributes:
        tokens: (B, K, L) int32, those of K phrases of each window, -1 after a phrase's last.
        first: (B, K) float32, added to the logit of a phrase's first token.
        following: (B, K) float32, added to that of the next token where the text ends with those before it.
    """

    tokens: np.ndarray
    first: np.ndarray
    following: np.ndarray


class Biases(NamedTuple):
    """Added to the logits.

    Attributes:
        always: (V,) float32, at every token.
        first: (V,) float32, at the first one in addition.
        phrases: that are heard in the windows, None where none are.
    """

    always: jax.Array | np.ndarray
    first: jax.Array | np.ndarray
    phrases: PhraseBoost | None = None


def suppression(tokens: WhisperTokens, vocabulary: int, options: DecodingOptions) -> Biases:
    """The biases of a decoding, 0 and -inf.

    Args:
        tokens: what the ids mean; those after the timestamps are decoded only if they were added as text.
        vocabulary: V, of the model.
        options: what else is suppressed.

    Raises:
        CwjaxError: `suppress_tokens` names an id beyond the vocabulary.
    """
    always, first = np.zeros((2, vocabulary), np.float32)
    asked = set(options.suppress_tokens)
    if asked and max(asked) >= len(tokens):
        raise CwjaxError(f"suppress_tokens has {max(asked)}, but this model's vocabulary ends at {len(tokens) - 1}")
    if NON_SPEECH in asked:
        asked = asked - {NON_SPEECH} | set(non_speech_tokens(tokens))
    names = ("<|transcribe|>", "<|translate|>", "<|startoftranscript|>", "<|startofprev|>", "<|startoflm|>")
    added = [place for place in range(tokens.first_timestamp + TIMESTAMPS, vocabulary) if not tokens.is_text(place)]
    always[[*asked, *map(tokens.id, names), tokens.no_speech, *added]] = -np.inf
    if options.suppress_blank:
        # The space alone, unless words may begin with it, as they do where tokens are letters.
        separate = any(len(tokens.pieces(" " + letter)) > 1 for letter in string.ascii_letters)
        first[[*([] if separate else tokens.pieces(" ")), tokens.end_of_text]] = -np.inf
    if not options.without_timestamps:
        always[tokens.first_timestamp - 1] = -np.inf
        latest = round((options.max_initial_timestamp or LAST_TIMESTAMP) / TIMESTAMP_STEP)
        first[: tokens.first_timestamp] = -np.inf
        first[tokens.first_timestamp + latest + 1 :] = -np.inf
    return Biases(always, first)


def non_speech_tokens(tokens: WhisperTokens) -> list[int]:
    """Symbols that captions have and speech has not, alone or after a space.

    A symbol of several tokens is left alone, but for musical notes: those are suppressed by their first token,
    provided it holds two of their three bytes, which only such symbols share. A hyphen or an apostrophe is
    suppressed at the beginning of a word only.
    """
    found = {ids[0] for ids in map(tokens.pieces, (" -", " '")) if len(ids) == 1}
    for symbol in (*SYMBOLS, *GROUPS.split(), *NOTES):
        for ids in (tokens.pieces(symbol), tokens.pieces(" " + symbol)):
            note = symbol in NOTES and len(tokens.utf8(ids[:1]).strip()) > 1
            if len(ids) == 1 or note:
                found.add(ids[0])
    return sorted(found)


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
        first_timestamp: the id of 0.00; after the `TIMESTAMPS` from it on there may be tokens added as text.
    """
    places, vocabulary = jnp.arange(tokens.shape[-1]), jnp.arange(logits.shape[-1])
    end = first_timestamp + TIMESTAMPS
    stamped = (tokens >= first_timestamp) & (tokens < end) & (places < count)
    last = (stamped & (places == count - 1)).any(axis=-1)
    before_last = (stamped & (places == count - 2)).any(axis=-1) | (count < 2)
    latest = jnp.where(stamped, tokens, first_timestamp - 1).max(axis=-1)
    # The second timestamp of a pair may repeat the first; any other lies after all before it.
    earliest = jnp.where(last & ~before_last, latest, latest + 1)

    is_timestamp = (vocabulary >= first_timestamp) & (vocabulary < end)
    is_text = (vocabulary < end_of_text) | (vocabulary >= end)
    forbidden = is_timestamp & (vocabulary < earliest[..., None])
    forbidden |= is_timestamp & (last & before_last)[..., None]
    forbidden |= is_text & (last & ~before_last)[..., None]
    logits = jnp.where(forbidden, -jnp.inf, logits)

    all_timestamps = jax.nn.logsumexp(logits, axis=-1, where=is_timestamp)
    best_other = logits.max(axis=-1, where=~is_timestamp, initial=-jnp.inf)
    return jnp.where((all_timestamps > best_other)[..., None] & ~is_timestamp, -jnp.inf, logits)


def boost_phrases(logits: jax.Array, tokens: jax.Array, count: jax.Array | int, boost: PhraseBoost) -> jax.Array:
    """Logits with those of tokens that begin or continue a phrase raised; where several do, by the highest boost.

    Args:
        logits: (B, G, V) of the next token.
        tokens: (B, G, T), the hypotheses so far; what stands from `count` on does not matter.
        count: tokens so far, a scalar.
        boost: the phrases.
    """
    length = boost.tokens.shape[-1]
    places = count - length + jnp.arange(length)
    last = jnp.where(places >= 0, jnp.take(tokens, jnp.maximum(places, 0), axis=-1), -2)[:, :, None]
    phrases = boost.tokens[:, None]
    matched = [(last[..., length - size :] == phrases[..., :size]).all(axis=-1) for size in range(length)]
    added = jnp.stack([boost.first, *[boost.following] * (length - 1)], axis=-1)[:, None]
    added = jnp.where(jnp.stack(matched, axis=-1) & (phrases >= 0), added, 0)
    windows, group, _ = logits.shape
    rows, columns = jnp.arange(windows)[:, None, None], jnp.arange(group)[:, None]
    phrases = jnp.broadcast_to(phrases, added.shape).reshape(windows, group, -1)
    highest = jnp.zeros_like(logits).at[rows, columns, phrases].max(added.reshape(phrases.shape))
    return logits + highest


def apply_repetition_penalty(logits: jax.Array, tokens: jax.Array, count: jax.Array | int, penalty: float) -> jax.Array:
    """Logits in which tokens that have come before are less likely (Keskar et al. 2019, section 4.1).

    However often a token has come, its logit is divided by the penalty once if it is positive, and else multiplied.

    Args:
        logits, tokens, count: as of `apply_timestamp_rules`.
        penalty: above 1 against repetition, 1 for no change.
    """
    seen = _mark(tokens, jnp.arange(tokens.shape[-1]) < count, logits.shape[-1])
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def forbid_repeated_ngrams(logits: jax.Array, tokens: jax.Array, count: jax.Array | int, size: int) -> jax.Array:
    """Logits with those of tokens at -inf that would complete an n-gram that the hypothesis already has.

    Args:
        logits, tokens, count: as of `apply_timestamp_rules`.
        size: n, static, at least 1.
    """
    places = jnp.arange(tokens.shape[-1])
    again = (places >= size - 1) & (places < count)
    # Whether the n - 1 tokens before each place are the last ones.
    for back in range(1, size):
        last = jnp.take(tokens, jnp.maximum(count - back, 0), axis=-1)
        again &= jnp.roll(tokens, back, axis=-1) == last[..., None]
    return jnp.where(_mark(tokens, again, logits.shape[-1]), -jnp.inf, logits)


def _mark(tokens: jax.Array, chosen: jax.Array, vocabulary: int) -> jax.Array:
    """(B, G, V) bool, whether a token stands at a chosen place of (B, G, T)."""
    windows, group, _ = tokens.shape
    rows, columns = jnp.arange(windows)[:, None, None], jnp.arange(group)[:, None]
    return jnp.zeros((windows, group, vocabulary), bool).at[rows, columns, tokens].max(chosen)
