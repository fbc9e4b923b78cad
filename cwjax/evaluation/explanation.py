"""Which words of the context each stretch of a recording attended to, if there is one.

Legend: C layers with context attention, A audio positions (20 ms), S context tokens, W words, N columns of the map.
"""

import bisect
import itertools
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.inference.audio import FRAMES_PER_SECOND, Recording
from cwjax.inference.contexts import encode_chunks, split_context
from cwjax.inference.transcriber import Progress, Transcriber
from cwjax.inference.transcript import Transcript

POSITIONS_PER_SECOND = 50
POSITIONS_PER_COLUMN = 5
"""A column of the map is the mean over 0.1 s."""
WORDS_KEPT = 12
"""Words of the context that are told apart in a window; the others are summed."""


@dataclass(frozen=True)
class ExplainedWindow:
    """What a window attended to.

    Attributes:
        start: seconds in the recording.
        words: places in `Explanation.words` of the words that mattered most, ascending.
        influence: (C, W, N) float32, of these words: lengths of what they added to the audio encoder's stream.
        others: (C, N) float32, of all other words and of tokens without a word.
    """

    start: float
    words: tuple[int, ...]
    influence: np.ndarray
    others: np.ndarray

    @property
    def end(self) -> float:
        """Seconds in the recording."""
        return self.start + self.others.shape[1] * COLUMN_SECONDS


COLUMN_SECONDS = POSITIONS_PER_COLUMN / POSITIONS_PER_SECOND


@dataclass(frozen=True)
class Explanation:
    """What a recording attended to, window by window.

    Attributes:
        context: what was said about the recording.
        words: of the context, as it writes them.
        layers: of the audio encoder that have context attention.
        windows: in order of time, without overlap.
    """

    context: str
    words: tuple[str, ...]
    layers: tuple[int, ...]
    windows: tuple[ExplainedWindow, ...]


def explain_window(
    start: float, positions: int, contributions: np.ndarray, owners: Sequence[int], word_count: int
) -> ExplainedWindow:
    """Sums the contributions of tokens to those of words, and averages them over columns of time.

    Args:
        start: seconds in the recording.
        positions: that count, from the window's beginning; what follows belongs to the next window.
        contributions: (C, A, S) from `AudioEncoder.context_contributions`.
        owners: (S,) the word each token is a part of, -1: none.
        word_count: words of the context.
    """
    columns = -(-positions // POSITIONS_PER_COLUMN)
    edges = np.arange(0, positions, POSITIONS_PER_COLUMN)
    widths = np.diff([*edges, positions])
    by_column = np.add.reduceat(contributions[:, :positions].astype(np.float32), edges, axis=1) / widths[:, None]
    by_word = np.zeros((word_count + 1, len(contributions), columns), np.float32)
    np.add.at(by_word, np.asarray(owners, int), by_column.transpose(2, 0, 1))  # -1 is the last row
    totals = (by_word[:-1].sum(axis=1) * widths).sum(axis=1)
    chosen = np.sort(np.argsort(-totals, kind="stable")[:WORDS_KEPT])
    rest = np.setdiff1d(np.arange(word_count + 1), chosen)
    return ExplainedWindow(start, tuple(map(int, chosen)), by_word[chosen].swapaxes(0, 1), by_word[rest].sum(axis=0))


def explain(
    transcriber: Transcriber,
    audio: Any,
    context: str,
    transcript: Transcript,
    separate_windows: bool = False,
    progress: Progress | None = None,
) -> Explanation:
    """Which words of the context each stretch of a recording attended to when it was transcribed.

    Args:
        transcriber: that transcribed it.
        audio: as it was transcribed.
        context: with which it was transcribed; empty: none.
        transcript: that came out.
        separate_windows: it was transcribed in independent windows, of which none knows the sound of the next.
        progress: is told the seconds done and the seconds in all after every window.

    Raises:
        CwjaxError: the audio cannot be read, or the model takes no context.
    """
    recording = Recording.open(audio)
    steps = explain_by_steps(transcriber, recording, context, transcript, separate_windows)
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            return end.value
        if progress is not None:
            progress(done, recording.duration)


def explain_by_steps(
    transcriber: Transcriber, recording: Recording, context: str, transcript: Transcript, separate_windows: bool = False
) -> Generator[float, None, Explanation]:
    """As `explain`, window by window: yields the seconds done."""
    programs, length = transcriber.programs, transcriber.contexts.chunk_tokens
    chunks = split_context(context, programs.processor, length) if context.strip() else ()
    words, owners = (), np.empty(0, int)
    if chunks:
        ids, mask = encode_chunks(chunks, programs.processor, length)
        words, owners = locate_words(chunks, programs.processor.context_tokenizer, ids.shape)
        encoded = programs.encode_context(ids, mask)
    max_log_mel = programs.max_log_mel(recording)
    separate = separate_windows or not transcriber.knows_timestamps
    windows = []
    for first, last in window_spans(transcript, recording.frames, programs.frames):
        frames = min(programs.frames, (last if separate else recording.frames) - first)
        start, positions = first / FRAMES_PER_SECOND, -(-(last - first) // 2)
        contributions = np.empty((0, positions, 0))
        if chunks:
            samples = recording.window(first, programs.frames)[None]
            contributions = programs.context_contributions(samples, [max_log_mel], [frames], [separate], encoded)[:, 0]
        windows.append(explain_window(start, positions, contributions, owners, len(words)))
        yield windows[-1].end
    return Explanation(context, words, transcriber.context_layers if chunks else (), tuple(windows))


def window_spans(transcript: Transcript, frames: int, longest: int) -> Iterator[tuple[int, int]]:
    """First mel frame of each window, and the one from which on the next was used.

    Of windows in which nothing was heard the transcript knows nothing: they are put where the others leave gaps.

    Args:
        transcript: of the recording.
        frames: mel frames of the recording.
        longest: mel frames of a window.
    """
    begins = sorted({segment.seek for segment in transcript.segments}) or [0]
    for first, following in itertools.pairwise([*begins, frames]):
        for begin in range(first, following, longest):
            yield begin, min(begin + longest, following)


def locate_words(
    chunks: Sequence[str], tokenizer: TextTokenizer, shape: tuple[int, int]
) -> tuple[tuple[str, ...], np.ndarray]:
    """The words of a context, and of which of them each token is a part.

    Args:
        chunks: of the context, as it is read.
        tokenizer: of the text encoder.
        shape: (chunks, tokens of each) as they are padded.

    Returns:
        The words in their order, and (S,) int, for all chunks in a row: places of words, -1 for tokens without one.
    """
    words: list[str] = []
    owners = np.full(shape, -1)
    for row, chunk in enumerate(chunks):
        matches = list(re.finditer(r"\S+", chunk))
        ends = [match.end() for match in matches]
        for column, (begin, end) in enumerate(tokenizer.spans(chunk)[: shape[1]]):
            place = bisect.bisect_right(ends, begin)
            if begin < end and place < len(matches) and matches[place].start() < end:
                owners[row, column] = len(words) + place
        words += [match.group() for match in matches]
    return tuple(words), owners.ravel()
