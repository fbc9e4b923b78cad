"""When words are said: tokens aligned with the audio, and the times of words.

All rules are openai-whisper's (openai/whisper: timing.py, tokenizer.py and transcribe.py). Some heads of
cross-attention look at the audio in which the current token is said. Their weights, normalised and smoothed, say how
well each token goes with each audio position; dynamic time warping (Sakoe and Chiba 1978) finds the best path.

Legend: B windows, T tokens of the text and around it, N text tokens, A audio positions, W words.
"""

import string
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.data.segment import SPACELESS
from cwjax.inference.decoding import EncodedAudio
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcript import Segment, Word
from cwjax.models.placement import platform
from cwjax.models.text_decoder import StepwiseDecoder

MEDIAN_WIDTH = 7
"""Audio positions of the median filter that smooths the weights."""
POSITIONS_PER_SECOND = 50
SENTENCE_ENDS = ".。!！?？"
INVALID = "\ufffd"
LONGEST_MEDIAN = 0.7
"""Seconds; the median length of a window's words is believed up to this."""
UNROLLED = 8
"""Steps of a loop that accelerators do as one, for starting each costs them more than its arithmetic; a CPU, which
would compute what the steps share once for each, does them one by one."""


class Alignment(NamedTuple):
    """How the N tokens of a window's text go with its audio.

    Attributes:
        begins: (N + 1,) int, the audio position where the stretch of each token begins, which is where the one before
            it ends; the first is the stretch before the text. They never decrease.
        probabilities: (N,), of each token among text tokens.
    """

    begins: np.ndarray
    probabilities: np.ndarray


# Tokens and audio, on the device.


def align(
    decoder: StepwiseDecoder,
    encoded: EncodedAudio,
    tokens: jax.Array,
    lengths: jax.Array,
    positions: jax.Array,
    start: int,
    heads: tuple[tuple[int, int], ...],
    end_of_text: int,
) -> tuple[jax.Array, jax.Array]:
    """Aligns the texts of windows.

    Args:
        decoder: with its parameters.
        encoded: B windows; of those encoded twice, the ones with the context count.
        tokens: (B, T), the start of the transcript, text and end of text.
        lengths: (B,), how many tokens of each are not padding.
        positions: (B,), how many audio positions of each are.
        start: tokens before the text; N = T - start - 1.
        heads: (layer, head) of those that follow the audio.
        end_of_text: the first id that is no text.

    Returns:
        The (B, N + 1) int32 begins and (B, N) probabilities of `Alignment`, without meaning beyond the texts.
    """
    windows, length = tokens.shape
    audio = jax.tree.map(lambda rows: rows[:windows], encoded.audio)
    places = jnp.arange(length)
    cache = decoder.empty_cache(audio, length)
    reading = decoder.read(tokens, audio, cache, 0, places, places <= places[:, None])
    logits = decoder.logits(reading.stream[:, start - 1 : -2])[..., :end_of_text]
    chosen = jnp.take_along_axis(logits, jnp.minimum(tokens[:, start:-1, None], end_of_text - 1), axis=-1)[..., 0]
    probabilities = jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1))

    def add_head(total: jax.Array, head: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        query, key = head
        scores = jnp.matmul(query, key, preferred_element_type=jnp.float32) / np.sqrt(query.shape[-1])
        return total + jax.vmap(smooth)(scores, lengths, positions), None

    total = jnp.zeros((windows, length, audio.value[0].shape[2]))
    for layer in sorted({layer for layer, _ in heads}):
        chosen = np.asarray([head for one, head in heads if one == layer])
        by_head = [jnp.swapaxes(array[:, chosen], 0, 1) for array in (reading.queries[layer], audio.key[layer])]
        total, _ = jax.lax.scan(add_head, total, tuple(by_head))
    return warp(total[:, start - 1 : -1] / len(heads), lengths - start, positions), probabilities


def smooth(scores: jax.Array, length: jax.Array, positions: jax.Array) -> jax.Array:
    """A head's scores (T, A) -> its weights, normalised over the tokens and smoothed over the audio."""
    real = (jnp.arange(scores.shape[0]) < length)[:, None]
    weights = jax.nn.softmax(jnp.where(jnp.arange(scores.shape[1]) < positions, scores, -jnp.inf))
    mean = jnp.where(real, weights, 0).sum(axis=0) / length
    deviation = jnp.sqrt(jnp.where(real, jnp.square(weights - mean), 0).sum(axis=0) / length)
    weights = (weights - mean) / jnp.where(deviation > 0, deviation, 1)

    # The filter mirrors the weights at both ends; the right one is where the audio ends.
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


def warp(weights: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Dynamic time warping: the monotone path of the highest summed weight, diagonal after diagonal.

    Args:
        weights: (B, R, A), how well each row goes with each column.
        rows, columns: (B,), how many of each are not padding.

    Returns:
        (B, R) int32, the column where each row's stretch of the path begins; of padding, the number of columns.
    """
    windows, length, width = weights.shape
    scan = partial(jax.lax.scan, unroll=1 if platform() == "cpu" else UNROLLED)
    # Cell (row, column) moves to (row, row + column): diagonals become columns, which depend on the two before alone.
    skewed = jnp.pad(weights, ((0, 0), (0, 0), (0, length)), constant_values=-jnp.inf)
    skewed = skewed.reshape(windows, -1)[:, :-length].reshape(windows, length, -1)
    diagonals, numbers = jnp.arange(width + length - 1), jnp.arange(length)

    def next_diagonal(carry: tuple[jax.Array, ...], given: tuple[jax.Array, jax.Array]) -> tuple:
        diagonally, down, right, entered = carry
        diagonal, gains = given
        # A tie goes to the next column.
        goes_diagonally, goes_down = diagonally < jnp.minimum(down, right), down < jnp.minimum(diagonally, right)
        costs = jnp.where(goes_diagonally, diagonally, jnp.where(goes_down, down, right)) - gains
        # The column where the best path to a cell entered the cell's row, doubled, plus 1 if it came straight down.
        entered = jnp.where(goes_diagonally | goes_down, 2 * (diagonal - numbers) + goes_down, entered)
        shifted = jnp.pad(costs[:, :-1], ((0, 0), (1, 0)), constant_values=jnp.inf)
        return (down, shifted, costs, entered), entered

    nowhere = jnp.full((windows, length), jnp.inf)
    state = nowhere.at[:, 0].set(0), nowhere, nowhere, jnp.zeros(nowhere.shape, jnp.int32)
    _, entered = scan(next_diagonal, state, (diagonals, jnp.moveaxis(skewed, 2, 0)))

    def row_above(column: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        begin, came_down = jnp.divmod(entered[row + column, jnp.arange(windows), row], 2)
        is_real = row < rows
        return jnp.where(is_real, begin - 1 + came_down, column), jnp.where(is_real, begin, columns)

    return scan(row_above, columns - 1, numbers, reverse=True)[1].T


# Words and their times.


def add_words(
    segments: Sequence[Segment],
    alignment: Alignment,
    vocabulary: WhisperTokens,
    language: str,
    began: float,
    last_speech: float,
    options: DecodingOptions,
) -> list[Segment]:
    """The segments of a window with their words, and with times that agree with those.

    Args:
        segments: of the window.
        alignment: of their text tokens, or of the first of them; what is after those gets no words.
        vocabulary: knows the tokens' texts.
        language: code.
        began: seconds in the recording where the window begins.
        last_speech: seconds in the recording where the last word before the window ended.
        options: which punctuation belongs to the word after it, and which to the one before.
    """
    tokens = [[token for token in segment.tokens if vocabulary.is_text(token)] for segment in segments]
    aligned = [token for text in tokens for token in text][: len(alignment.probabilities)]
    words = split_into_words(aligned, vocabulary, language)
    bounds = np.cumsum([0, *(count for _, count in words)])
    probabilities = np.split(alignment.probabilities.astype(float), bounds[1:])[:-1]
    times = alignment.begins[np.stack([bounds[:-1], bounds[1:]], axis=1)] / POSITIONS_PER_SECOND  # (W, 2)
    durations = np.diff(times)
    median = min(LONGEST_MEDIAN, float(np.median(durations[durations != 0]))) if durations.any() else 0.0
    _shorten_at_sentence_ends([text for text, _ in words], times, 2 * median)
    words = merge_punctuation(words, options.prepend_punctuations, options.append_punctuations)
    times = np.round(began + times, 2)
    kept = [place for place, (text, _) in enumerate(words) if text]
    timed = []
    for segment, text in zip(segments, tokens, strict=True):
        missing, count = len(text), 0
        while missing > 0 and count < len(kept):
            missing -= words[kept[count]][1]
            count += 1
        taken, kept = kept[:count], kept[count:]
        own, start, end = times[taken], segment.start, segment.end
        if taken:
            _shorten_after_pause(own, median, last_speech)
            start, end = _agree(segment, own, median)
            last_speech = end
        said = [
            Word(words[place][0], *span, float(np.mean(probabilities[place])))
            for place, span in zip(taken, own.tolist(), strict=True)
        ]
        timed.append(replace(segment, start=start, end=end, words=tuple(said)))
    return timed


def split_into_words(tokens: Sequence[int], vocabulary: WhisperTokens, language: str) -> list[tuple[str, int]]:
    """The words that text tokens make up: their texts, and how many tokens each has."""
    characters = _split_into_characters(tokens, vocabulary)
    if language in SPACELESS:  # the shortest stretches of tokens that are whole characters are words
        return characters
    words: list[tuple[str, int]] = []
    for text, count in characters:
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append((text, count))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + count)
    return words


def _split_into_characters(tokens: Sequence[int], vocabulary: WhisperTokens) -> list[tuple[str, int]]:
    """The shortest stretches of tokens that are whole characters."""
    whole = vocabulary.text(tokens)
    parts: list[tuple[str, int]] = []
    pending: list[int] = []
    reached = 0
    for token in tokens:
        pending.append(token)
        text = vocabulary.text(pending)
        # A replacement character is unfinished, unless the whole text has one at the same place.
        place = reached + text.find(INVALID)
        if INVALID not in text or (place < len(whole) and whole[place] == INVALID):
            parts.append((text, len(pending)))
            reached += len(text)
            pending = []
    return parts


def merge_punctuation(words: Sequence[tuple[str, int]], prepended: str, appended: str) -> list[tuple[str, int]]:
    """Joins marks with the words they belong to; in the place of a mark stays a word without text and tokens."""
    words, target = list(words), len(words) - 1
    for place in range(len(words) - 2, -1, -1):
        (mark, number), (text, count) = words[place], words[target]
        if mark.startswith(" ") and mark.strip() in prepended:
            words[place], words[target] = ("", 0), (mark + text, number + count)
        else:
            target = place
    target = 0
    for place in range(1, len(words)):
        (text, count), (mark, number) = words[target], words[place]
        if not text.endswith(" ") and mark in appended:
            words[target], words[place] = (text + mark, count + number), ("", 0)
        else:
            target = place
    return words


def _shorten_at_sentence_ends(texts: Sequence[str], times: np.ndarray, longest: float) -> None:
    """Of a mark that ends a sentence, and of the word after it, cuts off the pause between sentences."""
    for place in range(1, len(texts)):
        start, end = times[place]
        if end - start > longest:
            if texts[place] in SENTENCE_ENDS:
                times[place, 1] = start + longest
            elif texts[place - 1] in SENTENCE_ENDS:
                times[place, 0] = end - longest


def _shorten_after_pause(times: np.ndarray, median: float, last_speech: float) -> None:
    """Of the first two words of a segment, cuts off the pause before it."""
    longest, first, second = 2 * median, times[0], times[1] if len(times) > 1 else None
    if first[1] - last_speech <= 2 * longest:
        return
    if first[1] - first[0] > longest or (second is not None and second[1] - first[0] > 2 * longest):
        if second is not None and second[1] - second[0] > longest:
            first[1] = second[0] = max(second[1] / 2, second[1] - longest)
        first[0] = max(0, first[1] - longest)


def _agree(segment: Segment, times: np.ndarray, median: float) -> tuple[float, float]:
    """Start and end of the segment: those of its words, unless a word reaches half a second beyond it."""
    start, end, first, last = segment.start, segment.end, times[0], times[-1]
    if start < first[1] and start - 0.5 > first[0]:
        first[0] = max(0, min(first[1] - median, start))
    else:
        start = float(first[0])
    if end > last[0] and end + 0.5 < last[1]:
        last[1] = max(last[0] + median, end)
    else:
        end = float(last[1])
    return start, end


def last_word_end(segments: Sequence[Segment]) -> float | None:
    """Where the last word ends; without words, the last segment; without segments, None."""
    ends = [segment.words[-1].end for segment in segments if segment.words] or [segment.end for segment in segments]
    return ends[-1] if ends else None
