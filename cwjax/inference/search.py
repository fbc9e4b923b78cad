"""Choosing tokens: greedily, by sampling, or by beam search.

A search is a frozen dataclass, so that a program can be compiled for it, and works on a state of arrays, so that it
can run inside the program's loop. It is given logits and tells which hypotheses it goes on with.

Legend: B windows, G hypotheses of each, K candidates of each, T tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Candidates(NamedTuple):
    """Texts to choose from.

    Attributes:
        tokens: (B, K, T) int32, filled with end of text after their ends.
        total: (B, K) float32, sum of the log-probabilities, that of the end of text included.
        valid: (B, K) bool.
    """

    tokens: jax.Array
    total: jax.Array
    valid: jax.Array


class Samples(NamedTuple):
    """The state of `Sampling`.

    Attributes:
        tokens: (B, G, T) int32.
        total: (B, G) float32.
        ended: (B, G) bool.
    """

    tokens: jax.Array
    total: jax.Array
    ended: jax.Array


@dataclass(frozen=True)
class Sampling:
    """Every hypothesis goes its own way: the likeliest token, or a random one.

    Attributes:
        hypotheses: G.
        random: draw tokens, by their probabilities at a temperature.
    """

    hypotheses: int = 1
    random: bool = False

    def start(self, windows: int, steps: int, end_of_text: int) -> Samples:
        """No tokens yet, room for T = `steps`."""
        shape = (windows, self.hypotheses)
        return Samples(jnp.full((*shape, steps), end_of_text, jnp.int32), jnp.zeros(shape), jnp.zeros(shape, bool))

    def advance(
        self,
        state: Samples,
        logits: jax.Array,
        count: jax.Array | int,
        keys: jax.Array | None,
        temperature: jax.Array | None,
        end_of_text: int,
    ) -> tuple[Samples, None]:
        """One token more.

        Args:
            state: `count` tokens.
            logits: (B, G, V) of the next one.
            count: a scalar.
            keys: (B,) random keys, of this step; for `random`.
            temperature: (B,); for `random`.
            end_of_text: ends a hypothesis.

        Returns:
            The state with the token, and None: every hypothesis continues itself.
        """
        if self.random:
            token = jax.vmap(jax.random.categorical)(keys, logits / temperature[:, None, None]).astype(jnp.int32)
        else:
            token = first_highest(logits)
        chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        log_probability = chosen - jax.nn.logsumexp(logits, axis=-1)
        token = jnp.where(state.ended, end_of_text, token)
        total = state.total + jnp.where(state.ended, 0, log_probability)
        return Samples(_put(state.tokens, token, count), total, state.ended | (token == end_of_text)), None

    def finished(self, state: Samples) -> jax.Array:
        """Whether every hypothesis has ended."""
        return state.ended.all()

    def candidates(self, state: Samples) -> Candidates:
        """All hypotheses, ended or not."""
        return Candidates(state.tokens, state.total, jnp.ones_like(state.ended))


class Beams(NamedTuple):
    """The state of `BeamSearch`, C being the ended hypotheses it waits for.

    Attributes:
        tokens, total: (B, G, T) int32 and (B, G) float32, of the hypotheses that go on, the best first.
        ended_tokens, ended_total: (B, C, T) and (B, C), of those that have ended, in the order they did.
        ended: (B,) int32, how many there are.
    """

    tokens: jax.Array
    total: jax.Array
    ended_tokens: jax.Array
    ended_total: jax.Array
    ended: jax.Array


@dataclass(frozen=True)
class BeamSearch:
    """The G best continuations of all hypotheses together go on, as openai-whisper has it.

    A continuation that ends the text is set aside, if it is better than the worst that goes on, until there are as
    many of those as asked for.

    Attributes:
        hypotheses: G.
        wanted: C, ended hypotheses after which a window is done: patience times G.
    """

    hypotheses: int
    wanted: int

    def start(self, windows: int, steps: int, end_of_text: int) -> Beams:
        """No tokens yet, room for T = `steps`."""

        def texts(count: int) -> tuple[jax.Array, jax.Array]:
            return jnp.full((windows, count, steps), end_of_text, jnp.int32), jnp.zeros((windows, count))

        return Beams(*texts(self.hypotheses), *texts(self.wanted), jnp.zeros(windows, jnp.int32))

    def advance(
        self,
        state: Beams,
        logits: jax.Array,
        count: jax.Array | int,
        keys: jax.Array | None,
        temperature: jax.Array | None,
        end_of_text: int,
    ) -> tuple[Beams, jax.Array]:
        """One token more. Arguments as in `Sampling.advance`, of which the random ones are not used.

        Returns:
            The state with the token, and (B, G) int: which hypothesis each one continues.
        """
        windows, beams = state.total.shape
        best, token = jax.lax.top_k(logits, beams + 1)
        total = state.total[..., None] + best - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        # Before the first token all hypotheses are the same one.
        total = jnp.where((count == 0) & (jnp.arange(beams) > 0)[:, None], -jnp.inf, total)
        total, order = jax.lax.top_k(total.reshape(windows, -1), beams * (beams + 1))
        token = jnp.take_along_axis(token.reshape(windows, -1), order, axis=1)
        source = order // (beams + 1)
        texts = _put(_pick(state.tokens, source), token, count)

        ends = token == end_of_text
        going_before = jnp.cumsum(~ends, axis=1) - ~ends
        newly = ends & (going_before < beams)
        place = jnp.where(newly, state.ended[:, None] + jnp.cumsum(newly, axis=1) - 1, self.wanted)
        rows = jnp.arange(windows)[:, None]  # what finds no place any more is dropped
        ended_tokens = state.ended_tokens.at[rows, place].set(texts, mode="drop")
        ended_total = state.ended_total.at[rows, place].set(total, mode="drop")
        ended = jnp.minimum(state.ended + newly.sum(axis=1, dtype=jnp.int32), self.wanted)

        going = jnp.argsort(ends, axis=1, stable=True)[:, :beams]
        tokens, total, source = _pick(texts, going), _pick(total, going), _pick(source, going)
        return Beams(tokens, total, ended_tokens, ended_total, ended), source

    def finished(self, state: Beams) -> jax.Array:
        """Whether every window has as many ended hypotheses as are wanted."""
        return (state.ended == self.wanted).all()

    def candidates(self, state: Beams) -> Candidates:
        """Those that have ended and, where they are fewer than G, the best of the others."""
        missing = self.hypotheses - state.ended[:, None]
        return Candidates(
            jnp.concatenate([state.ended_tokens, state.tokens], axis=1),
            jnp.concatenate([state.ended_total, state.total], axis=1),
            jnp.concatenate(
                [jnp.arange(self.wanted) < state.ended[:, None], jnp.arange(self.hypotheses) < missing], axis=1
            ),
        )


Search = Sampling | BeamSearch


def first_highest(values: jax.Array) -> jax.Array:
    """The first index of the highest value of the last axis, int32; in two passes, for XLA's CPU backend does not
    vectorise argmax."""
    highest = values.max(axis=-1, keepdims=True)
    size = values.shape[-1]
    return jnp.where(values == highest, jnp.arange(size, dtype=jnp.int32), size - 1).min(axis=-1)


def _put(texts: jax.Array, token: jax.Array, place: jax.Array | int) -> jax.Array:
    """Writes (B, K) into (B, K, T) at a place."""
    return jax.lax.dynamic_update_slice_in_dim(texts, token[..., None], place, axis=2)


def _pick(values: jax.Array, indices: jax.Array) -> jax.Array:
    """Of (B, K, ...) those at (B, J) of axis 1."""
    return jnp.take_along_axis(values, indices.reshape(*indices.shape, *(1,) * (values.ndim - 2)), axis=1)
