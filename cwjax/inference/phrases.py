"""Lists of phrases, and which of them are heard in a window: what the decoder is shown of them."""

import logging
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from unicodedata import category

import jax
import numpy as np
from flax import nnx

from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.inference.logit_rules import PhraseBoost
from cwjax.inference.options import NO_SPOTTER, DecodingOptions
from cwjax.inference.programs import filled_up
from cwjax.inference.transcript import Segment, Word
from cwjax.models.phrase_spotter import (
    CHUNK,
    FRAME_SECONDS,
    LONGEST_PHRASE,
    EncodedPhrases,
    PhraseSpotter,
    detect,
    encode_phrases,
    normalized,
    select_phrases,
)

log = logging.getLogger(__name__)

MOST_PHRASES = 100_000
LONGEST_LINE = 1000
"""Letters of a phrase with all its spellings; what is longer is no phrase."""
KEPT = 8
"""Encoded lists that are kept for the next recording."""
NEARBY = 1.0
"""Seconds by which the times of a text may be wrong."""
_LETTER = r"(?=[\0-\u0dff])\w"  # of a script that puts spaces between words
_EDGE = rf"(?:(?<!{_LETTER})|(?!{_LETTER}))"  # not between two letters
BOOSTED_TOKENS = 12
"""Of a phrase; what follows them the decoder has to know by itself."""
BOOSTED_TOGETHER = 10
"""Numbers of phrases are multiples of this, so that few programs are compiled."""
FOLLOWING = 1.0
"""By how much more a phrase's next token is boosted than its first, which other words begin with, too."""
LEAST = 0.02
"""Probability from which the decoder is shown a phrase of a list of up to 100."""
LEAST_OF_LONG = 0.05
"""The same of a list of 500 and more, of whose unlikely phrases more are wrong."""
LIKELY = 0.3
"""Probability from which phrases are boosted in full; others in proportion, lest they are written for what is said."""
SURE = 0.5
"""Probability from which a phrase was heard, whether it is written or not."""
UNHEARD = 0.1
"""Probability below which a phrase was not said where it is written."""


@dataclass(frozen=True, eq=False)
class PhraseList:
    """A list as the spotter looks for it.

    Attributes:
        written: the phrases as they are to be written.
        owners: (S,) int, the phrase that each spelling belongs to.
        spellings: S of them, encoded.
    """

    written: tuple[str, ...]
    owners: np.ndarray
    spellings: EncodedPhrases


class Phrases:
    """The lists of a model, each encoded once.

    Args:
        find_spotter: gives the model's phrase spotter, None if there is none.
    """

    def __init__(self, find_spotter: Callable[[], PhraseSpotter | None]):
        self._find_spotter = find_spotter
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], PhraseList | None] = OrderedDict()

    @cached_property
    def spotter(self) -> PhraseSpotter | None:
        """The model's phrase spotter."""
        return self._find_spotter()

    @cached_property
    def _parts(self) -> tuple[nnx.GraphDef, nnx.State]:
        return nnx.split(self.spotter)

    def encode(self, phrases: tuple[str, ...]) -> PhraseList | None:
        """A list for the spotter, None for one without phrases. Empty and doubled ones count once.

        Raises:
            CwjaxError: this model has no spotter, or there are too many phrases.
        """
        with self._lock:
            if phrases not in self._kept:
                self._kept[phrases] = self._encode(phrases)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(phrases)
            return self._kept[phrases]

    def _encode(self, phrases: tuple[str, ...]) -> PhraseList | None:
        written: dict[str, dict[str, None]] = {}
        left_out = Counter(empty=0, doubled=0)
        for phrase in phrases:
            text, *spoken = map(_plain, phrase[: LONGEST_LINE + 1].split("|"))
            if len(phrase) > LONGEST_LINE:
                left_out[f"of more than {LONGEST_LINE:,} letters"] += 1
            elif not normalized(text):
                left_out["empty" if not phrase.strip() else "with nothing to be written"] += 1
            else:
                left_out["doubled"] += text in written
                written.setdefault(text, {}).update(dict.fromkeys([text, *filter(normalized, spoken)]))
        if reasons := ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count):
            log.warning("%s phrases are looked for; left out are %s", f"{len(written):,}", reasons)
        if not written:
            return None
        if len(written) > MOST_PHRASES:
            raise CwjaxError(f"there are {len(written):,} phrases: at most {MOST_PHRASES:,} can be looked for")
        if self.spotter is None:
            raise CwjaxError(NO_SPOTTER)
        if long := sum(normalized(text) != normalized(text, None) for text in written):
            log.warning("%d phrases are long: they are looked for by their first %d letters", long, LONGEST_PHRASE)
        owners = np.repeat(np.arange(len(written)), [len(spellings) for spellings in written.values()])
        spellings = [one for some in written.values() for one in some]
        return PhraseList(tuple(written), owners, encode_phrases(self.spotter, spellings))

    def spot(
        self, states: jax.Array, phrases: PhraseList, options: Sequence[DecodingOptions]
    ) -> list[tuple[Word, ...]]:
        """The likeliest phrases of each window, in order of time; their seconds are those of the window.

        Args:
            states: (B, A, D), of the audio encoder.
            phrases: to look for.
            options: of each window, how many and how likely.
        """
        probabilities, starts, ends = map(np.asarray, detect(self._parts, states, phrases.spellings))
        found = []
        usual = float(np.interp(len(phrases.written), (100, 500), (LEAST, LEAST_OF_LONG)))
        for row, own in enumerate(options):
            threshold = usual if own.phrases_threshold is None else own.phrases_threshold
            best: dict[int, Word] = {}
            for place in np.argsort(-probabilities[row], kind="stable"):
                probability, owner = float(probabilities[row, place]), int(phrases.owners[place])
                if probability < threshold or len(best) >= own.phrases_used:
                    break
                times = float(starts[row, place]), float(ends[row, place])
                best.setdefault(owner, Word(phrases.written[owner], *times, probability))
            found.append(tuple(sorted(best.values(), key=lambda phrase: phrase.start)))
        return found

    def heard_between(
        self, states: jax.Array, phrases: PhraseList, places: Sequence[tuple[Word, float, float]]
    ) -> np.ndarray:
        """How probably phrases are said in parts of a window, (N,).

        Args:
            states: (A, D), of the audio encoder.
            phrases: to which they belong.
            places: N phrases, each with the first and last second in which it may be said.
        """
        wanted = np.array([phrases.written.index(phrase.text) for phrase, _, _ in places])
        rows = np.flatnonzero(np.isin(phrases.owners, wanted))[:CHUNK]
        at = FRAME_SECONDS * np.arange(-(-len(states) // 2))
        listened = [(at > start - NEARBY) & (at < end + NEARBY) for _, start, end in places]
        listened = np.stack(filled_up(listened))
        repeated = np.broadcast_to(states, (len(listened), *states.shape))
        probabilities, *_ = detect(self._parts, repeated, select_phrases(phrases.spellings, rows), listened)
        own = phrases.owners[rows] == wanted[:, None]
        return np.where(own, np.asarray(probabilities)[: len(places)], 0).max(axis=1)


def _plain(text: str) -> str:
    """Single spaces for white space, control characters and byte order marks."""
    return " ".join("".join(" " if category(one) in ("Cc", "Cs") or one == "\ufeff" else one for one in text).split())


def occurrences(phrase: str, text: str) -> list[range]:
    """The characters of a text where a phrase stands, without regard to case; not as a part of longer words."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    found = re.finditer(rf"{_EDGE}{words}{_EDGE}", text, re.IGNORECASE)
    return [range(*match.span()) for match in found]


def is_written(phrase: Word, segments: Sequence[Segment]) -> bool:
    """Whether a phrase stands in the text about where it was heard."""
    near = [one for one in segments if one.start - NEARBY < phrase.end and phrase.start < one.end + NEARBY]
    return bool(occurrences(phrase.text, "".join(segment.text for segment in near)))


def shown(phrases: Sequence[Word]) -> str:
    """How the decoder is shown phrases, as text before that of the window."""
    return ", ".join(phrase.text for phrase in phrases)


def boosted(
    spotted: Sequence[Sequence[Word]], tokens: WhisperTokens, options: Sequence[DecodingOptions]
) -> PhraseBoost | None:
    """What makes the phrases heard in each window likelier; None where none are."""
    if not any(spotted):
        return None
    most = -(-max(map(len, spotted)) // BOOSTED_TOGETHER) * BOOSTED_TOGETHER
    ids = np.full((len(spotted), most, BOOSTED_TOKENS), -1, np.int32)
    first = np.zeros((len(spotted), most), np.float32)
    for window, (phrases, own) in enumerate(zip(spotted, options, strict=True)):
        for row, phrase in enumerate(phrases):
            pieces = tokens.encode(phrase.text)[:BOOSTED_TOKENS]
            ids[window, row, : len(pieces)] = pieces
            first[window, row] = own.phrases_boost * min(phrase.probability / LIKELY, 1)
    return PhraseBoost(ids, first, first + np.minimum(first, FOLLOWING))
