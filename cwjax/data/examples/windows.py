"""What is trained on: the windows of every epoch, drawn anew in the pauses of the recordings.

Examples are counted over all epochs. Which window an example is depends on nothing but its number, the seed and the
corpus, so every process finds the same, after any resume. Every supervision is in exactly one window of an epoch.
"""

import bisect
import hashlib
import itertools
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cwjax.data.cuts import Supervision
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.prepared.index import AFTER_GAP, BEGINS_RUN, LISTS_PREVIOUS
from cwjax.data.prepared.splits import SPLITS
from cwjax.data.prepared.windows import Runs, divided
from cwjax.data.segment import Segment, join_texts
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 4096
_EPOCHS_KEPT = 3


@dataclass(frozen=True)
class Selection:
    """Which supervisions are trained on."""

    examples: int = 0
    """Those of the first so many windows; 0: all."""
    max_cer: float | None = None
    max_edge_cer: float | None = None
    """Highest character error rate of a supervision, and of either end of it, where a model has scored the corpus."""


@dataclass(frozen=True)
class Limits:
    """What a window has room for.

    Attributes:
        seconds: of sound.
        tokens: of the transcript, without prompt and end.
        around: tokens of timestamps around each utterance: 0 or 2.
    """

    seconds: float
    tokens: int
    around: int = 0


class Window(NamedTuple):
    """The first piece of a window, and the one after the last."""

    first: int
    last: int


def token_counts(corpus: PreparedCorpus, tokens: WhisperTokens) -> np.ndarray:
    """Tokens of every supervision's text, and of the text before it where the corpus lists that, (n, 2) uint32.

    They are kept in the corpus's folder, if that can be written.
    """
    name = hashlib.sha256(tokens.tokenizer.backend.to_str().encode()).hexdigest()[:16]
    path = corpus.directory / f"tokens.{name}.npy"
    shape = len(corpus.supervisions), 2
    try:
        counts = np.load(path, mmap_mode="r")
        if counts.shape == shape:
            return counts
    except (OSError, ValueError):
        pass
    counts, place = np.zeros(shape, np.uint32), 0
    said = corpus.all_supervisions()
    while some := list(itertools.islice(said, _TEXTS_AT_ONCE)):
        texts = [text for one in some for text in (one.text, one.custom.get("previous", ""))]
        counts[place : place + len(some)] = np.reshape(tokens.lengths(texts), (-1, 2))
        place += len(some)
    try:
        aside = path.with_suffix(f".{threading.get_native_id()}.partial")
        with aside.open("wb") as file:
            np.save(file, counts)
        aside.replace(path)
    except OSError as error:
        log.info("%s: tokens are counted again at the next start (%s)", path, error.strerror)
    return counts


class TrainingWindows(Sequence[Window]):
    """The windows of all epochs, one after another, in a new order in each.

    Args:
        corpus: the prepared corpus.
        tokens: the tokenizer.
        limits: of a window.
        selection: of the supervisions.
        seed: decides where windows begin, and their order.

    Attributes:
        seconds, count: of what is trained on: supervisions, those that had to be cut in parts.

    Raises CwjaxError if no supervision remains, or they are to be chosen by rates that the corpus does not have.
    """

    def __init__(
        self, corpus: PreparedCorpus, tokens: WhisperTokens, limits: Limits, selection: Selection, seed: int
    ) -> None:
        self._corpus, self._limits, self._seed = corpus, limits, seed
        rows, counts = corpus.supervisions, token_counts(corpus, tokens)
        chosen = rows["split"] == SPLITS.index("train")
        agrees = _agreeing(corpus, selection)
        is_short = rows["end"] - rows["start"] <= limits.seconds + 1e-6
        fits = counts[:, 0] + limits.around <= limits.tokens
        self._number = np.flatnonzero(chosen & agrees & is_short & fits)
        self._part = np.zeros(len(self._number), np.int32)
        self._start, self._end = rows["start"][self._number], rows["end"][self._number]
        self._tokens = counts[self._number, 0] + limits.around
        self._parts: dict[int, list[Supervision]] = {}
        too_long = np.flatnonzero(chosen & agrees & ~(is_short & fits))
        self._divide(too_long, tokens)
        if wrong := int(np.count_nonzero(chosen & ~agrees)):
            log.info("%d training utterances are left out by their character error rates", wrong)
        if left_out := len(too_long) - len(self._parts):
            log.warning("%d training utterances do not fit and are left out", left_out)
        if not len(self._number):
            raise CwjaxError(
                f"{corpus.directory}: no training utterance remains; raise data.max_target_tokens"
                + (" or data.max_cer" if wrong else "")
            )
        begins = rows["flags"][self._number] & BEGINS_RUN > 0
        begins[1:] |= np.diff(self._number) > 1
        begins[0] = True
        begins &= self._part == 0
        self._before = _tokens_before(rows["flags"], counts)[self._number] + np.where(self._part, self._tokens, 0)
        self._runs = Runs(self._start, self._end, begins, self._tokens)
        self._furthest = self._runs.furthest(limits.seconds, limits.tokens)
        if selection.examples:
            self._keep(self._runs.windows(self._furthest)[selection.examples :][:1], begins)
        self.count, self.seconds = len(self._number), float(np.sum(self._end - self._start))
        self._firsts = [0]
        self._epochs: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        windows = len(self._epoch(0))
        padding = 100 - 100 * self.seconds / (windows * limits.seconds)
        log.info(
            "%d training utterances in %d windows of %.1f s, about %.0f %% of them padding",
            *(self.count, windows, limits.seconds, padding),
        )

    def _divide(self, numbers: np.ndarray, tokens: WhisperTokens) -> None:
        """Adds the parts of supervisions that are too long, where they can be cut."""
        found = []
        for number in map(int, numbers):
            (one,) = self._corpus.read_supervisions(number, number + 1)
            parts = divided(one, self._limits.seconds)
            lengths = [length + self._limits.around for length in tokens.lengths([part.text for part in parts])]
            if len(parts) > 1 and max(lengths) <= self._limits.tokens:
                self._parts[number] = parts
                found += [
                    (number, place, part.start, part.end, length)
                    for place, (part, length) in enumerate(zip(parts, lengths, strict=True))
                ]
        if found:
            columns = (self._number, self._part, self._start, self._end, self._tokens)
            columns = [np.append(old, new) for old, new in zip(columns, zip(*found, strict=True), strict=True)]
            order = np.lexsort((columns[1], columns[0]))
            self._number, self._part, self._start, self._end, self._tokens = (one[order] for one in columns)
            self._number, self._part = self._number.astype(np.int64), self._part.astype(np.int32)

    def _keep(self, end: np.ndarray, begins: np.ndarray) -> None:
        """Forgets all pieces from one on."""
        for last in map(int, end):
            for name in ("_number", "_part", "_start", "_end", "_tokens", "_before"):
                setattr(self, name, getattr(self, name)[:last])
            self._runs = Runs(self._start, self._end, begins[:last], self._tokens)
            self._furthest = self._runs.furthest(self._limits.seconds, self._limits.tokens)

    def _epoch(self, epoch: int) -> np.ndarray:
        """Where the windows of an epoch begin, in the order in which they are trained on, (windows, 2)."""
        with self._lock:
            if epoch not in self._epochs:
                draw = np.random.default_rng((self._seed, epoch))
                heads = self._runs.starts
                seconds = self._limits.seconds * draw.random(len(heads))
                begins = self._runs.windows(self._furthest, self._runs.furthest(seconds, self._limits.tokens, heads))
                windows = np.stack([begins, np.append(begins[1:], len(self._number))], axis=1)
                self._epochs[epoch] = draw.permutation(windows)
                if len(self._epochs) > _EPOCHS_KEPT:
                    self._epochs.popitem(last=False)
                if epoch == len(self._firsts) - 1:
                    self._firsts.append(self._firsts[-1] + len(windows))
            return self._epochs[epoch]

    def __len__(self) -> int:
        return sys.maxsize // 2  # epochs never end

    def __getitem__(self, number: int) -> Window:
        """The window that the example of a number is."""
        while number >= self._firsts[-1]:
            self._epoch(len(self._firsts) - 1)
        epoch = bisect.bisect_right(self._firsts, number) - 1
        return Window(*self._epoch(epoch)[number - self._firsts[epoch]].tolist())

    def tokens(self, window: Window) -> int:
        """Of a window's transcript, without prompt and end."""
        return int(self._tokens[window.first : window.last].sum())

    def tokens_before(self, window: Window) -> int:
        """Of the text before a window, at most."""
        return int(self._before[window.first])

    def sound(self, window: Window) -> tuple[int, float, float]:
        """Where a window is heard: number of the recording, and seconds of it."""
        number = self._number[window.first]
        recording = int(self._corpus.supervisions["cut"][number])
        return recording, float(self._start[window.first]), float(self._end[window.last - 1])

    def segment(self, window: Window, previous: bool = True) -> Segment:
        """What is heard in a window.

        Args:
            window: which.
            previous: whether what was said before is wanted.
        """
        first, last = int(self._number[window.first]), int(self._number[window.last - 1])
        said = dict(enumerate(self._corpus.read_supervisions(first, last + 1), first))
        pieces = [(int(self._number[place]), self._part[place]) for place in range(*window)]
        chosen = [self._parts[number][part] if number in self._parts else said[number] for number, part in pieces]
        before = self._parts.get(first, [])[: self._part[window.first]]
        text_before = join_texts((one.text for one in before), chosen[0].language)
        return self._corpus.segment(first, chosen, text_before, previous)

    def another(self, article: str, draw: np.random.Generator) -> Segment:
        """A supervision of another article, or after many vain draws (a corpus of one article) of any."""
        for _ in range(20):
            number = int(self._number[draw.integers(len(self._number))])
            other = self._corpus.segment(number, self._corpus.read_supervisions(number, number + 1), previous=False)
            if other.article != article:
                break
        return other


def _agreeing(corpus: PreparedCorpus, selection: Selection) -> np.ndarray:
    """Whether what a model heard in each supervision is near enough to its text, (n,)."""
    highest = [selection.max_cer, selection.max_edge_cer, selection.max_edge_cer]
    if highest == [None] * 3:
        return np.ones(len(corpus.supervisions), bool)
    if corpus.quality is None:
        raise CwjaxError(
            f"{corpus.directory}: has no character error rates, by which utterances are to be chosen; run cwjax "
            "prepare once more with --score-with MODEL, or leave out data.max_cer and data.max_edge_cer"
        )
    return (corpus.quality <= [np.inf if one is None else one for one in highest]).all(axis=1)


def _tokens_before(flags: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Tokens of the text before each supervision, at most, (n,)."""
    begins = np.flatnonzero(flags & AFTER_GAP)
    stretch = np.cumsum(flags & AFTER_GAP > 0) - 1
    before = np.append(0, np.cumsum(counts[:, 0], dtype=np.int64))[:-1]
    listed = np.maximum.reduceat(counts[:, 1], begins)[stretch]
    return np.where(flags & LISTS_PREVIOUS, counts[:, 1], before - before[begins][stretch] + listed)
