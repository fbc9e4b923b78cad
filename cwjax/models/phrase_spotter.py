"""Finds which phrases of a list are said in a window, by their letters.

What a language model knows of a name does not tell how it sounds; its letters do. A small network reads the letters
of a phrase as units, another one hears the frozen audio encoder's states as frames, both in one space. A phrase's
score is that of its best path: every letter at a frame not before the letter before it and less than `reach` frames
behind, the mean of letter and frame's similarities highest. All frames are treated at once, letter after letter, so
that thousands of phrases take a few matrix products.

Shape legend: B windows, A audio positions (20 ms), W width of the audio encoder, T frames (40 ms, = A/2), P phrases,
N letters, D width of the shared space.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.models.layers import Embedding, LayerNorm, Linear, gelu, kernel_initializer, named_key

LONGEST_PHRASE = 64
"""Letters of a phrase that are looked for; what comes after them is not."""

CHUNK = 256
"""Phrases that are compared with the sound at once, so that memory does not grow with the length of the list."""

ACCELERATOR_CHUNK = 32 * CHUNK
"""The same on an accelerator, where it is the number of steps that takes time."""

FRAME_SECONDS = 0.04

LETTERS_A_FRAME = 3
"""Nobody says more: 75 letters a second."""

_OWN_ROWS = 0x500  # Latin, marks that stand on letters, Greek and Cyrillic have rows of their own; others share rows
_SCORE_BITS = 20


@dataclass(frozen=True)
class SpotterConfig:
    """Sizes of a phrase spotter.

    Attributes:
        audio_width: W, of the audio encoder that it belongs to.
        width: D.
        hidden: width of the layers on both sides.
        text_layers: convolutions over the letters. More of them, or larger ones, see whole words and learn those of
            training by heart instead of what letters sound like.
        text_kernel: letters that one of them sees, odd.
        rows: of the letters' embedding.
        reach: frames within which the next letter follows.
    """

    audio_width: int = 512
    width: int = 64
    hidden: int = 128
    text_layers: int = 1
    text_kernel: int = 3
    rows: int = 2048
    reach: int = 8


class Letters(NamedTuple):
    """Phrases as numbers of letters.

    Attributes:
        ids: (P, N) int32.
        lengths: (P,) int32; 0: nothing that could be said.
    """

    ids: np.ndarray
    lengths: np.ndarray


class EncodedPhrases(NamedTuple):
    """Phrases as units, sorted by length and filled up to whole chunks.

    Attributes:
        units: (chunks, C, N, D), C a multiple of CHUNK.
        lengths: (chunks, C) int; 0 for what fills up.
        place: (P,) int, where each phrase of the list lies among them.
        different: () float, how many different phrases there are.
    """

    units: jax.Array
    lengths: jax.Array
    place: jax.Array
    different: jax.Array


def normalized(phrase: str, longest: int | None = LONGEST_PHRASE) -> str:
    """A phrase as its letters are read: compatibility decomposed (é is e and an accent, a Hangul syllable its letters),
    without regard to case; spaces and control characters are single spaces; `longest` letters of it, None: all."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", phrase).casefold())
    plain = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in folded)
    return " ".join(plain.split())[:longest].rstrip()


def read_letters(phrases: Sequence[str], rows: int) -> Letters:
    """Numbers of the letters of phrases; N is the smallest multiple of 8 that the longest fits in."""
    texts = [normalized(phrase) for phrase in phrases]
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.zeros((len(texts), max(8, -(-max(lengths, default=0) // 8) * 8)), np.int32)
    for row, text in zip(ids, texts, strict=True):
        codes = np.array([ord(letter) for letter in text], np.int64)
        row[: len(text)] = np.where(codes < _OWN_ROWS, codes, _OWN_ROWS + codes * 40503 % (rows - _OWN_ROWS))
    return Letters(ids, lengths)


class PhraseSpotter(nnx.Module):
    """The two networks.

    Args:
        config: sizes.
        key: random key.
    """

    def __init__(self, config: SpotterConfig, *, key: jax.Array):
        def rngs(name: str) -> nnx.Rngs:
            return nnx.Rngs(named_key(key, name))

        def conv(name: str, width_in: int, width_out: int, size: int, stride: int = 1) -> nnx.Conv:
            sizes = {"kernel_size": size, "strides": stride, "padding": (size // 2,)}
            return nnx.Conv(width_in, width_out, kernel_init=kernel_initializer, rngs=rngs(name), **sizes)

        hidden = config.hidden
        self.config = config
        self.audio_ln = LayerNorm(config.audio_width, rngs=rngs("audio_ln"))
        self.audio_in = Linear(config.audio_width, hidden, rngs=rngs("audio_in"))
        self.audio_out = conv("audio_out", hidden, config.width, 5, stride=2)
        self.letters = Embedding(config.rows, hidden, std=1.0, rngs=rngs("letters"))
        layers = range(config.text_layers)
        self.text_ln = nnx.List([LayerNorm(hidden, rngs=rngs(f"text_ln{layer}")) for layer in layers])
        self.text_conv = nnx.List([conv(f"text{layer}", hidden, hidden, config.text_kernel) for layer in layers])
        self.text_out = Linear(hidden, config.width + 1, rngs=rngs("text_out"))
        self.evidence = nnx.Param(jnp.zeros(len(EVIDENCE)))
        self.verdict = nnx.Param(jnp.zeros(len(VERDICT)))

    def hear(self, states: jax.Array) -> jax.Array:
        """What is heard in every frame: (B, A, W) -> (B, T, D) float32 of length 1."""
        frames = self.audio_out(gelu(self.audio_in(self.audio_ln(states.astype(jnp.float32)))))
        return _directions(frames)

    def read(self, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        """What the letters sound like: (P, N) and (P,) int -> units (P, N, D) float32.

        The lengths of a phrase's units add up to 1: silent letters can have short ones.
        """
        real = jnp.arange(ids.shape[1]) < lengths[:, None]
        stream = self.letters(ids)
        for norm, conv in zip(self.text_ln, self.text_conv, strict=True):
            stream = stream + gelu(conv(jnp.where(real[..., None], norm(stream), 0)))
        units = self.text_out(stream)
        weights = jnp.where(real, jax.nn.softplus(units[..., -1]) + 1e-3, 0)
        weights = weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-6)
        return _directions(units[..., :-1]) * weights[..., None]


def _directions(vectors: jax.Array) -> jax.Array:
    return vectors * jax.lax.rsqrt(jnp.square(vectors).sum(axis=-1, keepdims=True) + 1e-6)


def encode_phrases(spotter: PhraseSpotter, phrases: Sequence[str]) -> EncodedPhrases:
    """Reads a list of phrases, once for all windows. An empty phrase is never found."""
    ids, lengths = read_letters(phrases, spotter.config.rows)
    order = np.argsort(lengths, kind="stable")
    most = CHUNK if jax.default_backend() == "cpu" else ACCELERATOR_CHUNK
    size = min(most, CHUNK * max(1, -(-len(phrases) // CHUNK)))
    chunks = max(1, -(-len(phrases) // size))
    filled = np.zeros((chunks * size, ids.shape[1]), np.int32)
    filled_lengths = np.zeros(chunks * size, np.int32)
    filled[: len(ids)], filled_lengths[: len(ids)] = ids[order], lengths[order]
    place = np.empty(len(ids), np.int32)
    place[order] = np.arange(len(ids), dtype=np.int32)
    different = len({normalized(phrase) for phrase in phrases} - {""})
    lengths = filled_lengths.reshape(chunks, size)
    units = _read_chunks(spotter, filled.reshape(chunks, size, -1), lengths)
    return EncodedPhrases(units, jnp.asarray(lengths), jnp.asarray(place), jnp.float32(different))


def select_phrases(phrases: EncodedPhrases, rows: Sequence[int]) -> EncodedPhrases:
    """Some phrases of a list, at most CHUNK, that are judged as of the whole list."""
    place = jnp.pad(phrases.place[jnp.asarray(rows)], (0, CHUNK - len(rows)))
    units = phrases.units.reshape(-1, *phrases.units.shape[2:])[place]
    lengths = jnp.where(jnp.arange(CHUNK) < len(rows), phrases.lengths.reshape(-1)[place], 0)
    return EncodedPhrases(units[None], lengths[None], jnp.arange(len(rows)), phrases.different)


@nnx.jit
def _read_chunks(spotter: PhraseSpotter, ids: jax.Array, lengths: jax.Array) -> jax.Array:
    return jax.lax.map(lambda chunk: spotter.read(*chunk), (ids, lengths))


def path_scores(units: jax.Array, lengths: jax.Array, frames: jax.Array, reach: int) -> jax.Array:
    """Scores of best paths, (B, P) float32 in -1..1; their gradient is that of the path that is best now.

    Args:
        units: (P, N, D).
        lengths: (P,) int, at least 1.
        frames: (B, T, D).
        reach: as in `SpotterConfig`.
    """
    path = jax.lax.stop_gradient(best_paths(units, lengths, frames, reach))
    heard = jax.vmap(lambda own, at: own[at])(frames, path)  # (B, P, N, D)
    return jnp.einsum("pnd,bpnd->bp", units, heard)  # units beyond a phrase's length are zero


def best_paths(units: jax.Array, lengths: jax.Array, frames: jax.Array, reach: int) -> jax.Array:
    """The frame of every letter on a phrase's best path, (B, P, N) int; letters beyond its length repeat the last.

    Arguments as of `path_scores`. Keeps B·P·N·T numbers: for training, not for long lists.
    """
    units, frames = jax.lax.stop_gradient((units, frames))

    def forward(best: jax.Array, letter: tuple) -> tuple[jax.Array, jax.Array]:
        number, unit = letter
        best = jnp.where((number < lengths)[:, None], _reached(best, reach) + _similarity(unit, frames), best)
        return best, best

    by_letter = jnp.swapaxes(units, 0, 1)
    first = _similarity(by_letter[0], frames)
    last, kept = jax.lax.scan(forward, first, (jnp.arange(1, units.shape[1]), by_letter[1:]))
    before = jnp.concatenate([first[None], kept[:-1]])

    def backward(at: jax.Array, letter: tuple) -> tuple[jax.Array, jax.Array]:
        number, best = letter
        places = at[..., None] - jnp.arange(reach)
        values = jnp.take_along_axis(best, jnp.maximum(places, 0), axis=-1)
        steps = jnp.argmax(jnp.where(places >= 0, values, -jnp.inf), axis=-1)
        return jnp.where(number < lengths, at - steps, at), at

    end = jnp.argmax(last, axis=-1)
    start, path = jax.lax.scan(backward, end, (jnp.arange(1, units.shape[1]), before), reverse=True)
    return jnp.moveaxis(jnp.concatenate([start[None], path]), 0, -1)


def _similarity(unit: jax.Array, frames: jax.Array) -> jax.Array:
    """(P, D) and (B, T, D) -> (B, P, T)."""
    return jnp.einsum("pd,btd->bpt", unit, frames)


def _reached(best: jax.Array, reach: int) -> jax.Array:
    """The highest of each frame's and the `reach` - 1 values before it: (..., T) -> (..., T)."""
    lowest = -jnp.inf if jnp.issubdtype(best.dtype, jnp.floating) else jnp.iinfo(best.dtype).min
    padded = jnp.pad(best, [(0, 0)] * (best.ndim - 1) + [(reach - 1, 0)], constant_values=lowest)
    # One loop over the frames: fewer comparisons in several loops take longer, for the arrays are large.
    return reduce(jnp.maximum, (padded[..., step : step + best.shape[-1]] for step in range(reach)))


class Found(NamedTuple):
    """Where phrases are likeliest, each (B, P).

    Attributes:
        score: the path's mean similarity, -1..1.
        start, end: first and last frame.
    """

    score: jax.Array
    start: jax.Array
    end: jax.Array


def find(units: jax.Array, lengths: jax.Array, frames: jax.Array, reach: int) -> Found:
    """Best paths of a chunk of phrases, without gradient and without keeping more than (B, P, T) numbers.

    A whole number holds a path's score and, in its lowest bits, the frame where it starts: the highest number then
    has both. Arguments as of `path_scores`; a phrase of no letters scores 0 at frame 0.
    """
    start_bits = max(1, (frames.shape[1] - 1).bit_length())
    unit_of_score = 2.0 ** min(_SCORE_BITS, 30 - start_bits)

    def similarity(unit: jax.Array) -> jax.Array:
        return jnp.round(_similarity(unit, frames) * unit_of_score).astype(jnp.int32) << start_bits

    def next_letter(number: jax.Array, best: jax.Array) -> jax.Array:
        with_letter = _reached(best, reach) + similarity(units[:, number])
        return jnp.where((number < lengths)[:, None], with_letter, best)

    first = similarity(units[:, 0]) + jnp.arange(frames.shape[1])
    best = jax.lax.fori_loop(1, lengths.max(), next_letter, first)
    end = jnp.argmax(best, axis=-1)
    best = best.max(axis=-1)
    spoken = lengths > 0
    score = (best >> start_bits) / unit_of_score
    start = best & (2**start_bits - 1)
    return Found(*(jnp.where(spoken, value, 0) for value in (score, start, end)))


EVIDENCE = ("one", "score", "letters", "score by letters", "frames a letter")
VERDICT = ("one", "logit by the evidence", "rivals", "phrases")


def evidence(found: Found, lengths: jax.Array) -> jax.Array:
    """What speaks for each phrase by itself: (B, P, evidence)."""
    letters = jnp.log(jnp.maximum(lengths, 1.0))
    pace = (found.end - found.start) / jnp.maximum(lengths, 1.0)
    features = (1.0, found.score, letters, found.score * letters, pace)
    return jnp.stack([jnp.broadcast_to(feature, found.score.shape) for feature in features], axis=-1)


def verdict(logits: jax.Array, found: Found, frames: int, different: jax.Array) -> jax.Array:
    """What is known once all phrases are: (B, P) -> (B, P, verdict).

    "Rivals" is by how much the likeliest phrase heard at the same place is likelier; "phrases" is the logarithm of
    how many are listed, for of a longer list a smaller share is said.
    """
    rivals = jax.vmap(lambda *of_window: _rivals(*of_window, frames))(logits, found.start, found.end) - logits
    features = (1.0, logits, rivals, jnp.log(jnp.maximum(different, 1.0)))
    return jnp.stack([jnp.broadcast_to(feature, logits.shape) for feature in features], axis=-1)


def _rivals(logits: jax.Array, start: jax.Array, end: jax.Array, frames: int) -> jax.Array:
    """The highest logit among the phrases, itself included, of which the middle or a quarter lies within a phrase.

    Each (P,) -> (P,).
    """
    quarters = jnp.stack([start + (end - start) * part // 4 for part in (1, 2, 3)])
    highest = jnp.full(frames, -jnp.inf).at[quarters].max(jnp.broadcast_to(logits, quarters.shape))
    tables = [highest]  # tables[k][t]: of the 2^k frames from t on
    while 2 ** len(tables) <= frames:
        ahead = 2 ** (len(tables) - 1)
        later = jnp.concatenate([tables[-1][ahead:], jnp.full(ahead, -jnp.inf)])
        tables.append(jnp.maximum(tables[-1], later))
    power = jnp.floor(jnp.log2(end - start + 1.0)).astype(jnp.int32)
    table = jnp.stack(tables)
    return jnp.maximum(table[power, start], table[power, end + 1 - 2**power])


@jax.jit
def detect(
    parts: tuple[nnx.GraphDef, nnx.State], states: jax.Array, phrases: EncodedPhrases, listened: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which phrases are said in windows.

    Args:
        parts: of the spotter that belongs to the audio encoder, from `nnx.split`, which takes milliseconds.
        states: (B, A, W), what the audio encoder gives without context.
        phrases: from `encode_phrases`.
        listened: (B, T) bool, the frames in which they are looked for; None: all.

    Returns:
        Probability in 0..1, and first and last second of where the phrase is likeliest, each (B, P) float32.
    """
    spotter = nnx.merge(*parts)
    found, lengths = find_all(spotter, states, phrases, listened)
    probability = probabilities(spotter, found, lengths, -(-states.shape[1] // 2), phrases.different)
    return probability, found.start * FRAME_SECONDS, (found.end + 1) * FRAME_SECONDS


def find_all(
    spotter: PhraseSpotter, states: jax.Array, phrases: EncodedPhrases, listened: jax.Array | None = None
) -> tuple[Found, jax.Array]:
    """Best paths of all phrases, in the order of the list, and their lengths (P,)."""
    frames = spotter.hear(states)
    if listened is not None:
        frames = jnp.where(listened[..., None], frames, 0)  # which are like no letter
    found = jax.lax.map(lambda chunk: find(*chunk, frames, spotter.config.reach), (phrases.units, phrases.lengths))

    def in_order(value: jax.Array) -> jax.Array:
        return jnp.moveaxis(value, 0, 1).reshape(len(frames), -1)[:, phrases.place]

    return Found(*map(in_order, found)), phrases.lengths.reshape(-1)[phrases.place]


def probabilities(
    spotter: PhraseSpotter, found: Found, lengths: jax.Array, frames: int, different: jax.Array
) -> jax.Array:
    """Probabilities (B, P) of what was found in windows of so many frames; 0 of what nobody can say so fast."""
    logits = jnp.where(lengths > 0, evidence(found, lengths) @ spotter.evidence[...], -1e4)
    probability = jax.nn.sigmoid(verdict(logits, found, frames, different) @ spotter.verdict[...])
    sayable = (lengths > 0) & (lengths <= LETTERS_A_FRAME * (found.end - found.start + 1))
    return jnp.where(sayable, probability, 0.0)
