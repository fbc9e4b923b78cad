"""The decoding of windows as one compiled program: prompt in one pass, then a loop over tokens.

The prompt's keys and values stand in the cache once for all hypotheses of a window, and each hypothesis adds its own
after them. When beam search drops some and splits others, nothing in the cache moves: a mask says which slots are
the history of which hypothesis.

Legend: B windows, G hypotheses of each, P prompt tokens, T new tokens, N = P + G T slots of the cache, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cwjax.inference.logit_rules import (
    Biases,
    apply_repetition_penalty,
    apply_timestamp_rules,
    boost_phrases,
    forbid_repeated_ngrams,
)
from cwjax.inference.search import Candidates, Search
from cwjax.models.text_decoder import DecoderCache, ProjectedAudio, StepwiseDecoder


class EncodedAudio(NamedTuple):
    """What the decoder attends to.

    Attributes:
        audio: of B windows.
        plain: of the same windows, encoded without their contexts; None where the two are not compared.
        scale: (B,), how much the context counts: logits become `plain + scale * (audio - plain)`; None without `plain`.
        states: (B, A, D), what the audio encoder gives without context, for spotting phrases; None unless asked for.
        draft: of the same windows, by the encoder of a draft; None where none is used.
    """

    audio: ProjectedAudio
    plain: ProjectedAudio | None = None
    scale: jax.Array | None = None
    states: jax.Array | None = None
    draft: ProjectedAudio | None = None


@dataclass(frozen=True)
class Plan:
    """What a decoding program is compiled for.

    Attributes:
        search: how tokens are chosen.
        steps: T.
        positions: of the decoder.
        start_length: tokens of the prompt from the start of the transcript on.
        timestamps: whether the rules for them hold.
        repetition_penalty, no_repeat_ngram_size: see `DecodingOptions`.
        end_of_text, no_speech, first_timestamp: ids.
    """

    search: Search
    steps: int
    positions: int
    start_length: int
    timestamps: bool
    end_of_text: int
    no_speech: int
    first_timestamp: int
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0


class Prompt(NamedTuple):
    """Prompts of unlike length, each with its end at the end.

    Attributes:
        tokens: (B, P) int32.
        padding: (B,) int32, positions before the first token.
    """

    tokens: jax.Array
    padding: jax.Array


class Decoding(NamedTuple):
    """What a program gives.

    Attributes:
        candidates: to choose from.
        no_speech: (B,) float32, probability that there is no speech.
    """

    candidates: Candidates
    no_speech: jax.Array


def decode(
    decoder: StepwiseDecoder,
    encoded: EncodedAudio,
    prompt: Prompt,
    biases: Biases,
    keys: jax.Array | None,
    temperature: jax.Array | None,
    plan: Plan,
) -> Decoding:
    """Decodes windows.

    Args:
        decoder: Whisper's decoder, with its parameters.
        encoded: B windows.
        prompt: of each.
        biases: for the logits.
        keys: (B,) random keys; None where the search draws nothing.
        temperature: (B,); None where the search draws nothing.
        plan: static.
    """
    (windows, prompt_length), search = prompt.tokens.shape, plan.search
    group = search.hypotheses
    slots = jnp.arange(prompt_length + group * plan.steps)
    behind_padding = slots >= prompt.padding[:, None, None]
    own_length = prompt_length - prompt.padding
    limit = jnp.minimum(plan.steps, plan.positions + 1 - own_length)  # of each window, whatever the others need
    audio = _with_plain(encoded)

    def choose(count, state, visible, logits):
        """The next token of every hypothesis, and the slots that belong to it."""
        logits = apply_rules(logits, state.tokens, count, biases, plan)
        step_keys = None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, count))(keys)
        before = state
        state, sources = search.advance(state, logits, count, step_keys, temperature, plan.end_of_text)
        state = jax.tree.map(lambda new, old: jnp.where(_rows(count < limit, new), new, old), state, before)
        if sources is not None:
            visible = jnp.take_along_axis(visible, sources[:, :, None], axis=1)
        return state, visible | (slots == prompt_length + count * group + jnp.arange(group)[:, None])

    def unfinished(carry):
        count, state, _, _ = carry
        return (count < limit.max()) & ~search.finished(state)

    def advance(carry):
        count, state, visible, cache = carry
        tokens = jax.lax.dynamic_index_in_dim(state.tokens, count - 1, axis=2, keepdims=False)
        slot = prompt_length + (count - 1) * group
        positions = (own_length + count - 1)[:, None]
        stream, cache = _read(decoder, audio, tokens, cache, slot, positions, visible)
        state, visible = choose(count, state, visible, _logits(decoder, encoded.scale, stream))
        return count + 1, state, visible, cache

    logits, cache = read_prompt(decoder, audio, prompt, plan, len(slots), encoded.scale)
    first_logits = jnp.broadcast_to(logits[:, 1:], (windows, group, logits.shape[-1]))
    visible = jnp.broadcast_to(behind_padding & (slots < prompt_length), (windows, group, len(slots)))
    start = search.start(windows, plan.steps, plan.end_of_text)
    state, visible = choose(jnp.int32(0), start, visible, first_logits)
    _, state, _, _ = jax.lax.while_loop(unfinished, advance, (jnp.int32(1), state, visible, cache))
    return Decoding(search.candidates(state), no_speech(logits, plan))


def read_prompt(
    decoder: StepwiseDecoder,
    audio: ProjectedAudio,
    prompt: Prompt,
    plan: Plan,
    slots: int,
    scale: jax.Array | None = None,
) -> tuple[jax.Array, DecoderCache]:
    """Logits (B, 2, V) after the start of the transcript and after the prompt, and a cache of N = `slots` with it."""
    places = jnp.arange(prompt.tokens.shape[1])
    padding, numbers = prompt.padding[:, None], jnp.arange(slots)
    visible = (numbers >= padding[..., None]) & (numbers <= places[:, None])
    cache, positions = decoder.empty_cache(audio, slots), jnp.maximum(places - padding, 0)
    stream, cache = _read(decoder, audio, prompt.tokens, cache, 0, positions, visible)
    return _logits(decoder, scale, jnp.stack([stream[:, -plan.start_length], stream[:, -1]], axis=1)), cache


def no_speech(logits: jax.Array, plan: Plan) -> jax.Array:
    """The probability that there is no speech, (B,), from the logits of `read_prompt`."""
    return jax.nn.softmax(logits[:, 0])[:, plan.no_speech]


def apply_rules(logits: jax.Array, tokens: jax.Array, count: jax.Array | int, biases: Biases, plan: Plan) -> jax.Array:
    """Logits (B, G, V) after `count` of the tokens (B, G, T), as all the rules together leave them."""
    if plan.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, tokens, count, plan.repetition_penalty)
    if plan.no_repeat_ngram_size:
        logits = forbid_repeated_ngrams(logits, tokens, count, plan.no_repeat_ngram_size)
    logits = logits + biases.always + jnp.where(count == 0, biases.first, 0)
    if biases.phrases is not None:
        logits = boost_phrases(logits, tokens, count, biases.phrases)
    if plan.timestamps:
        logits = apply_timestamp_rules(logits, tokens, count, plan.end_of_text, plan.first_timestamp)
    return logits


def language_logits(decoder: StepwiseDecoder, encoded: EncodedAudio, start: int) -> jax.Array:
    """Logits (B, V) of the token after the start of the transcript, where a language stands."""
    audio = _with_plain(encoded)
    tokens = jnp.full((encoded.audio.value[0].shape[0], 1), start, jnp.int32)
    itself = jnp.ones((len(tokens), 1, 1), bool)
    stream, _ = _read(decoder, audio, tokens, decoder.empty_cache(audio, 1), 0, jnp.zeros_like(tokens), itself)
    return _logits(decoder, encoded.scale, stream)[:, 0]


def _with_plain(encoded: EncodedAudio) -> ProjectedAudio:
    """The windows and, where the two are compared, the same ones without their contexts after them."""
    return encoded.audio if encoded.plain is None else jax.tree.map(_beside, encoded.audio, encoded.plain)


def _read(
    decoder: StepwiseDecoder,
    audio: ProjectedAudio,
    tokens: jax.Array,
    cache: DecoderCache,
    slot: jax.Array | int,
    positions: jax.Array,
    visible: jax.Array,
) -> tuple[jax.Array, DecoderCache]:
    """Feeds tokens, and once more where the audio stands twice: encoded with context and without."""
    if audio.value[0].shape[0] != len(tokens):
        tokens, positions, visible = (_beside(rows, rows) for rows in (tokens, positions, visible))
    reading = decoder.read(tokens, audio, cache, slot, positions, visible)
    return reading.stream, reading.cache


def _logits(decoder: StepwiseDecoder, scale: jax.Array | None, stream: jax.Array) -> jax.Array:
    logits = decoder.logits(stream)
    if scale is None:
        return logits
    informed, plain = jnp.split(logits, 2)
    return plain + scale[:, None, None] * (informed - plain)


def _rows(values: jax.Array, array: jax.Array) -> jax.Array:
    """(B,), shaped to go with an array (B, ...)."""
    return values.reshape(-1, *(1,) * (array.ndim - 1))


def _beside(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.concatenate([first, second])
