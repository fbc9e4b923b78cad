"""Contexts of any length for the text encoder.

A text encoder reads a limited number of tokens at once. A longer context is cut into chunks that are read one by one;
the audio encoder attends to all of them, as if they stood side by side. Chunks hold the context as it is given, in its
order: sentences and entries of lists are not cut, and a list goes on in the next chunk under its label.

Legend: C chunks, S tokens of a chunk.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cwjax.data.examples.processor import NO_CONTEXT, Processor
from cwjax.errors import CwjaxError
from cwjax.inference.programs import Programs
from cwjax.models.audio_encoder import ProjectedContext
from cwjax.models.context_whisper import ContextWhisperConfig

log = logging.getLogger(__name__)

CHUNK_TOKENS = 128
"""Tokens of a chunk, or all that the text encoder has positions for; most contexts fit into one."""
MOST_CHUNKS = 128
"""What is beyond is left out, with a warning; 2000 names fit."""
KEPT = 32
"""Encoded contexts that are kept for the next recording with the same text."""
FEWEST_TOKENS = 16
"""Lengths of single chunks are padded to this, or to it times a power of two."""

LONGEST_ENTRY = 6
"""Words of a label, or of an entry; what has more between its commas is no list but a sentence."""
UNLABELLED_ENTRIES = 8
"""What has no label is a list from so many entries on."""
LONGEST_TOKEN = 20
"""Characters; only so many for each token are looked at to find the last chunk of a text."""
WORD_START = re.compile(r"(?= )|(?<=[。！？，、；：])(?=[\w「『])|(?<=[,;])(?=[^\W\d])")
"""Looks at single characters, so that the time is linear; spaces may be missing after commas, but not in numbers."""
COMMAS, SEMICOLONS, COLONS, STOPS = tuple(",，、"), tuple(";；"), tuple(":："), tuple(".!?。！？")
CLOSING = "\"')]}»”’」』"
TITLES = ("Dr.", "Mr.", "Mrs.", "Ms.", "Prof.", "St.")

Count = Callable[[Sequence[str]], list[int]]


class Unit(NamedTuple):
    """What stays whole: a sentence or an entry, and the label it stands under where it begins a chunk."""

    text: str
    label: str = ""


def encode_chunks(chunks: Sequence[str], processor: Processor, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Text-encoder tokens of chunks and where they are real, (C, S) int32 and (C, S) bool.

    Both axes are padded to a few sizes, so that few programs are compiled. No chunk may exceed `longest` tokens.
    """
    count, room = _measure(processor, longest)
    most = max(count(chunks)) + longest - room
    length = min(max(FEWEST_TOKENS, 1 << (most - 1).bit_length()), longest)
    rows = 1 << (len(chunks) - 1).bit_length()
    return processor.context([*chunks, *[""] * (rows - len(chunks))], length)


def split_context(context: str, processor: Processor, longest: int) -> list[str]:
    """The chunks of a context, none for an empty one; white space becomes single spaces.

    A list is "label: one, two, three", on a line of its own, as a sentence, or after the semicolon of one. Many short
    entries are a list without a label, too. A sentence or an entry is cut only if it alone is longer than a chunk.

    Args:
        context: what is known about a recording.
        processor: knows the text encoder's tokens.
        longest: most tokens of a chunk.
    """
    count, room = _measure(processor, longest)
    whole = " ".join(context.split())
    if count([whole])[0] <= room:
        return [whole] if whole else []
    given = [unit for words in _paragraphs(context) for unit in _units(words)]
    units = list(_fitting(given, count, room))
    if len(units) > len(given):
        log.warning("the context has sentences or entries of more than %d tokens: they are cut", longest)
    # Words are tokenised each by itself: sums are right but for the label and for words without spaces between them.
    totals = [0, *accumulate(count([unit.text for unit in units]))]
    chunks: list[str] = []
    first = 0
    while first < len(units) and len(chunks) < MOST_CHUNKS:
        end = max(first + 1, bisect_right(totals, totals[first] + room) - 1)
        while end > first + 1 and count([_join(units[first:end])])[0] > room:
            end -= 1
        chunks.append(_join(units[first:end]))
        first = end
    if first < len(units):
        read = f"only its first {first} of {len(units)} sentences and entries are read"
        log.warning("the context is too long: %s, %d chunks of %d tokens", read, MOST_CHUNKS, longest)
    return chunks


def listed_phrases(context: str) -> list[str]:
    """The entries of the lists in a context, such as the names of "names: Ann, Bob", as they are written."""
    phrases = []
    for words in _paragraphs(context):
        units = list(_units(words))
        for unit, after in zip(units, [*units[1:], None], strict=False):
            if unit.label:
                phrases.append(unit.text)
            elif after and after.label and unit.text.strip().startswith(after.label):
                phrases.append(unit.text.strip().removeprefix(after.label))  # the first of a list has its label
    return [phrase.strip(" ,;.") for phrase in phrases]


def last_chunk(text: str, processor: Processor, longest: int) -> list[str]:
    """The end of a text, as much as fits into one chunk; none for an empty one."""
    count, room = _measure(processor, longest)
    words = [Unit(word) for word in _words(text[-longest * LONGEST_TOKEN :])]
    words = list(_fitting(words, count, room))[-room:]
    while words and count([_join(words)])[0] > room:
        words = words[max(1, len(words) // 8) :]
    return [_join(words)] if words else []


def join_contexts(contexts: Iterable[ProjectedContext | None]) -> ProjectedContext | None:
    """Contexts of one recording side by side."""
    parts = [context for context in contexts if context is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    keys, values, masks = zip(*parts, strict=True)
    return ProjectedContext(jnp.concatenate(keys, 2), jnp.concatenate(values, 2), jnp.concatenate(masks, 1))


def _measure(processor: Processor, longest: int) -> tuple[Count, int]:
    """How to count the tokens of texts, and how many a chunk holds of them."""
    tokenizer = processor.context_tokenizer
    if tokenizer is None:
        raise CwjaxError(NO_CONTEXT)
    return tokenizer.lengths, longest - tokenizer.special_tokens


def _words(text: str) -> list[str]:
    """Each with the space before it: joined, they are the text."""
    return [word for word in WORD_START.split(" " + " ".join(text.split())) if word.strip()]


def _ends(word: str, marks: tuple[str, ...]) -> bool:
    plain = word.strip()
    is_initial = len(plain) == 2 and plain[0].isupper() and plain[1] == "."
    return word.rstrip(CLOSING).endswith(marks) and not is_initial and plain not in TITLES


def _split(words: Sequence[str], marks: tuple[str, ...]) -> list[list[str]]:
    """Cuts after words that end in one of the marks."""
    ends = [place for place, word in enumerate(words, start=1) if _ends(word, marks)]
    parts = [words[first:last] for first, last in pairwise([0, *ends, len(words)])]
    return [part for part in parts if part]


def _label(words: Sequence[str]) -> list[str]:
    """The words up to a colon, if it comes soon and no comma before it."""
    start = _split(words[:LONGEST_ENTRY], COMMAS + SEMICOLONS + COLONS)[:1]
    return start[0] if start and _ends(start[0][-1], COLONS) else []


def _paragraphs(context: str) -> Iterator[list[str]]:
    """The words of each line, and of those after it where it ends in a comma or within a sentence."""
    paragraph: list[str] = []
    before: list[str] = []
    for line in map(_words, context.splitlines()):
        goes_on = len(before) > LONGEST_ENTRY and line and line[0].strip()[0].islower() and not _label(line)
        if paragraph and not (goes_on or (line and _ends(paragraph[-1], COMMAS))):
            yield paragraph
            paragraph = []
        paragraph += line
        before = line
    yield paragraph


def _units(paragraph: list[str]) -> Iterator[Unit]:
    for sentence in _split(paragraph, STOPS):
        clauses: list[list[str]] = []
        for clause in _split(sentence, SEMICOLONS):
            if clauses and not _label(clause):
                clauses[-1] += clause
            else:
                clauses.append(clause)
        prose = ""
        for clause in clauses:
            label = _label(clause)
            entries = _split(clause[len(label) :], COMMAS + SEMICOLONS)
            if len(entries) >= (2 if label else UNLABELLED_ENTRIES) and max(map(len, entries)) <= LONGEST_ENTRY:
                yield from [Unit(prose)] if prose else []
                yield Unit("".join(label + entries[0]))
                yield from (Unit("".join(entry), "".join(label).strip()) for entry in entries[1:])
                prose = ""
            else:
                prose += "".join(clause)
        yield from [Unit(prose)] if prose else []


def _fitting(units: Sequence[Unit], count: Count, room: int) -> Iterator[Unit]:
    """The units; one that is longer than a chunk is cut into words, and such a word anywhere."""
    for unit, tokens in zip(units, count([_join([unit]) for unit in units]), strict=True):
        text = unit.text
        if tokens <= room or len(text) < 2:
            yield unit
        else:
            words, size = _words(text), max(1, len(text) * room // tokens)
            parts = words if len(words) > 1 else [text[at : at + size] for at in range(0, len(text), size)]
            yield from _fitting([Unit(part) for part in parts], count, room)


def _join(units: Sequence[Unit]) -> str:
    """The text of a chunk."""
    return f"{units[0].label} {''.join(unit.text for unit in units).strip()}".strip()


class Contexts:
    """Contexts as the audio encoder attends to them, each encoded once.

    Args:
        programs: the model.
        config: of the model.
    """

    def __init__(self, programs: Programs, config: ContextWhisperConfig):
        self._programs = programs
        self._processor = programs.processor
        text = config.text_encoder  # None: a stock Whisper
        self.chunk_tokens = min(CHUNK_TOKENS, (text and text.max_position_embeddings) or CHUNK_TOKENS)
        self._of_text = lru_cache(KEPT)(
            lambda text: self._encode(split_context(text, self._processor, self.chunk_tokens))
        )

    def encode(self, text: str) -> ProjectedContext | None:
        """The context of a text, None for an empty one.

        Raises:
            CwjaxError: the model takes no context.
        """
        return self._of_text(text) if text.strip() else None

    def with_history(self, text: str, previous: str) -> ProjectedContext | None:
        """A context followed by the end of the text before a window."""
        history = self._encode(last_chunk(previous, self._processor, self.chunk_tokens))
        return join_contexts([self.encode(text), history])

    def forget(self) -> None:
        """Keeps none of those so far, for other parameters have come."""
        self._of_text.cache_clear()

    def _encode(self, chunks: Sequence[str]) -> ProjectedContext | None:
        if not chunks:
            return None
        return self._programs.encode_context(*encode_chunks(chunks, self._processor, self.chunk_tokens))
