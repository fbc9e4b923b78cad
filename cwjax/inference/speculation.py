"""Greedy decoding with a draft: a small Whisper guesses some tokens, and the model reads them all in one pass.

What the model would have chosen itself stays, and its own choice takes the place of the first guess that is wrong
(Leviathan et al. 2023; Chen et al. 2023). So the text is the model's, as far as passes over one token and over several
agree: rounding can tell them apart where two tokens are equally likely to the last digits.

Each window has a place of its own in its text. Slots of the caches go by places, so what was guessed wrongly is not
seen by what comes before it, and is overwritten.

Legend: B windows, P prompt tokens, T new tokens, K guesses, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cwjax.inference.decoding import Decoding, EncodedAudio, Plan, Prompt, apply_rules, no_speech, read_prompt
from cwjax.inference.logit_rules import Biases
from cwjax.inference.search import Candidates, first_highest
from cwjax.models.text_decoder import DecoderCache, StepwiseDecoder

GUESSES = 5
"""K."""


class _Texts(NamedTuple):
    """The state of the loop.

    Attributes:
        tokens: (B, T) int32, filled with end of text.
        count: (B,) int32, how many there are.
        total: (B,) float32, sum of their log-probabilities.
        ended: (B,) bool.
        cache: the model's; holds all tokens but the last.
        draft_cache: the draft's; holds all but the last two.
    """

    tokens: jax.Array
    count: jax.Array
    total: jax.Array
    ended: jax.Array
    cache: DecoderCache
    draft_cache: DecoderCache


def speculate(
    decoder: StepwiseDecoder, draft: StepwiseDecoder, encoded: EncodedAudio, prompt: Prompt, biases: Biases, plan: Plan
) -> Decoding:
    """Decodes windows greedily; as `decode` with `Sampling()`.

    Args:
        decoder: with its parameters.
        draft: of the same vocabulary and no fewer positions.
        encoded: B windows, by both encoders.
        prompt: of each.
        biases: for the logits.
        plan: static.
    """
    (windows, prompt_length), steps = prompt.tokens.shape, plan.steps
    slots, places, ahead = jnp.arange(prompt_length + steps + GUESSES), jnp.arange(steps), jnp.arange(GUESSES + 1)
    padding = prompt.padding[:, None]
    limit = jnp.minimum(steps, plan.positions + 1 - prompt_length + prompt.padding)

    def rules(logits: jax.Array, tokens: jax.Array, count: jax.Array) -> jax.Array:
        """(V,) after `count` of (T,) tokens."""
        return apply_rules(logits[None, None], tokens[None, None], count, biases, plan)[0, 0]

    def read(reader, audio, tokens, cache, first):
        """Logits after tokens (B, t), the first of which take the slots `first`, (B,)."""
        own = first[:, None] + jnp.arange(tokens.shape[1])
        visible = (slots >= padding[..., None]) & (slots <= own[..., None])
        positions = jnp.clip(own - padding, 0, plan.positions - 1)
        reading = reader.read(tokens, audio, cache, first, positions, visible)
        return reader.logits(reading.stream), reading.cache

    def guess(texts: _Texts) -> tuple[jax.Array, DecoderCache]:
        """The texts with K guesses after them; of those beyond T nobody needs to know."""

        def one(number, carry):
            tokens, cache = carry
            count = texts.count + number
            # Both last ones: if all guesses were right, the draft has not yet read the last of them.
            pair = jnp.stack(
                [jnp.where(count > 1, _at(tokens, count - 2), prompt.tokens[:, -1]), _at(tokens, count - 1)]
            )
            logits, cache = read(draft, encoded.draft, pair.T, cache, prompt_length + count - 2)
            chosen = first_highest(jax.vmap(rules)(logits[:, 1], tokens, count))
            return jnp.where(places == count[:, None], chosen[:, None], tokens), cache

        return jax.lax.fori_loop(0, GUESSES, one, (texts.tokens, texts.draft_cache))

    def advance(texts: _Texts) -> _Texts:
        guessed, draft_cache = guess(texts)
        counts = texts.count[:, None] + ahead
        fed = jnp.take_along_axis(guessed, jnp.clip(counts - 1, 0, steps - 1), axis=1)
        logits, cache = read(decoder, encoded.audio, fed, texts.cache, prompt_length + texts.count - 1)
        logits = jax.vmap(jax.vmap(rules, (0, None, 0)))(logits, guessed, counts)
        chosen = first_highest(logits)
        scores = jnp.take_along_axis(logits, chosen[..., None], -1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)
        ends = chosen == plan.end_of_text
        # What follows a wrong guess or the end of the text is void.
        goes_on = (chosen[:, :-1] == fed[:, 1:]) & ~ends[:, :-1]
        valid = jnp.cumprod(jnp.pad(goes_on, ((0, 0), (1, 0)), constant_values=True), axis=1, dtype=jnp.int32) > 0
        valid &= ~texts.ended[:, None] & (counts < limit[:, None])
        number = valid.sum(axis=1, dtype=jnp.int32)
        since = places - texts.count[:, None]
        new = jnp.take_along_axis(chosen, jnp.clip(since, 0, GUESSES), axis=1)
        return _Texts(
            jnp.where((since >= 0) & (since < number[:, None]), new, texts.tokens),
            texts.count + number,
            texts.total + jnp.where(valid, scores, 0).sum(axis=1),
            texts.ended | (valid & ends).any(axis=1),
            cache,
            draft_cache,
        )

    logits, cache = read_prompt(decoder, encoded.audio, prompt, plan, len(slots))
    _, draft_cache = read_prompt(draft, encoded.draft, prompt, plan, len(slots))
    empty = jnp.full((windows, steps), plan.end_of_text, jnp.int32)
    nothing = jnp.zeros(windows, jnp.int32)
    first_logits = jax.vmap(rules)(logits[:, 1], empty, nothing)
    first = first_highest(first_logits)
    score = _at(first_logits, first) - jax.nn.logsumexp(first_logits, axis=-1)
    texts = _Texts(empty.at[:, 0].set(first), nothing + 1, score, first == plan.end_of_text, cache, draft_cache)
    texts = jax.lax.while_loop(lambda texts: (~texts.ended & (texts.count < limit)).any(), advance, texts)
    candidates = Candidates(texts.tokens[:, None], texts.total[:, None], jnp.ones((windows, 1), bool))
    return Decoding(candidates, no_speech(logits, plan))


def _at(values: jax.Array, places: jax.Array) -> jax.Array:
    """Of (B, N) that at a place of each row, (B,)."""
    return jnp.take_along_axis(values, jnp.clip(places, 0, values.shape[1] - 1)[:, None], axis=1)[:, 0]
