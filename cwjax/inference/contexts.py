"""Contexts of any length for the text encoder.

A text encoder reads a limited number of tokens at once. A longer context is cut into chunks that are read one by one;
the audio encoder attends to all of them, as if they stood side by side. Sentences and entries of lists are not cut.
A list has no order: its entries are sorted, so that it is read the same in whatever order they are given.

Legend: C chunks, S tokens of a chunk.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from cwjax.data.processor import Processor
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

Count = Callable[[str], int]
LABELLED = re.compile(r"^\s*([^:,;.!?]{1,40}:)?\s*(.*?)\s*[.;,]?\s*$")
LONGEST_ENTRY = 6
"""Words; what has more between its commas is no list but a sentence."""
UNLABELLED_ENTRIES = 8
"""A line without a label is a list from so many entries on."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
LONGEST_TOKEN = 20
"""Characters; only so much of a text without breaks is looked at to cut off a chunk."""


def encode_chunks(chunks: Sequence[str], processor: Processor, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Text-encoder tokens of chunks and where they are real, (C, S) int32 and (C, S) bool.

    Both axes are padded to a few sizes, so that few programs are compiled. No chunk may exceed `longest` tokens.
    """
    most = max(map(_count(processor), chunks))
    length = min(max(FEWEST_TOKENS, 1 << (most - 1).bit_length()), longest)
    room = 1 << (len(chunks) - 1).bit_length()
    return processor.context([*chunks, *[""] * (room - len(chunks))], length)


def split_context(context: str, processor: Processor, longest: int) -> list[str]:
    """The chunks of a context, none for an empty one.

    A line "label: one, two, three" is a list, and so are many entries without a label and successive lines of a few
    words without a full stop. A list goes on in the next chunk under its label.

    Args:
        context: what is known about a recording.
        processor: knows the text encoder's tokens.
        longest: most tokens of a chunk.
    """
    count = _count(processor)
    units = [unit for block in _blocks(context) for unit in block]
    whole = _join(units)
    if not whole or count(whole) <= longest:
        return [whole] if whole else []
    chunks: list[str] = []
    pending: list[tuple[str, str]] = []
    for position, unit in enumerate(_fitting(units, count, longest)):
        if pending and count(_join([*pending, unit])) > longest:
            chunks.append(_join(pending))
            pending = []
            if len(chunks) == MOST_CHUNKS:
                log.warning(
                    "the context is too long: only its first %d sentences and entries are read, %d chunks of %d tokens",
                    position,
                    MOST_CHUNKS,
                    longest,
                )
                return chunks
        pending.append(unit)
    return [*chunks, _join(pending)]


def last_chunk(text: str, processor: Processor, longest: int) -> list[str]:
    """The end of a text, as much as fits into one chunk; none for an empty one."""
    count = _count(processor)
    words = text.split()[-longest:]
    while words and count(" ".join(words)) > longest:
        words = words[max(1, len(words) // 8) :]
    return [" ".join(words)] if words else []


def join_contexts(contexts: Iterable[ProjectedContext | None]) -> ProjectedContext | None:
    """Contexts of one recording side by side."""
    parts = [context for context in contexts if context is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    keys, values, masks = zip(*parts, strict=True)
    return ProjectedContext(jnp.concatenate(keys, 2), jnp.concatenate(values, 2), jnp.concatenate(masks, 1))


def _count(processor: Processor) -> Count:
    tokenizer = processor.context_tokenizer
    return lambda text: len(tokenizer.encode(text, add_special_tokens=True, verbose=False))


# A unit is a label, which is empty for sentences, and a sentence or an entry.


def _blocks(context: str) -> Iterator[list[tuple[str, str]]]:
    """The units of each paragraph, those of lists in alphabetical order."""
    short: list[str] = []
    for line in [*context.splitlines(), ""]:
        if line.strip() and _is_entry(line):
            short.append(line)
            continue
        if short:
            yield _entries(None, short) if len(short) > 1 else [("", short[0].strip())]
            short = []
        if not line.strip():
            continue
        label, rest = LABELLED.match(line).groups()
        entries = re.split(r"[,;]", rest)
        is_list = len(entries) >= (2 if label else UNLABELLED_ENTRIES)
        if is_list and all(len(entry.split()) <= LONGEST_ENTRY for entry in entries):
            yield _entries(label, entries)
        else:
            yield [("", sentence.strip()) for sentence in SENTENCE_END.split(line.strip()) if sentence.strip()]


def _is_entry(line: str) -> bool:
    return len(line.split()) <= LONGEST_ENTRY and not re.search(r"[.!?:,;]\s*$|:\s", line)


def _entries(label: str | None, entries: Iterable[str]) -> list[tuple[str, str]]:
    unique = {" ".join(entry.split()) for entry in entries} - {""}
    return [(label or ",", entry) for entry in sorted(unique, key=lambda entry: (entry.casefold(), entry))]


def _join(units: Iterable[tuple[str, str]]) -> str:
    """The text of units; entries of a list stand behind its label, with commas between them."""
    text, current = "", ""
    for label, unit in units:
        if label and label == current:
            text += f", {unit}"
        else:
            lead = f"{label} " if label.endswith(":") else ""
            text += f"{' ' if text else ''}{lead}{unit}"
        current = label
    return text


def _fitting(units: Iterable[tuple[str, str]], count: Count, longest: int) -> Iterator[tuple[str, str]]:
    """The units; one that is longer than a chunk is cut, between words if it has any."""
    for label, unit in units:
        if count(_join([(label, unit)])) > longest:
            log.warning("the context has a stretch of %d characters without a break: it is cut", len(unit))
        while unit:
            end = min(len(unit), longest * LONGEST_TOKEN)
            while (tokens := count(_join([(label, unit[:end])]))) > longest and end > 1:
                end = max(1, min(end - 1, end * longest // tokens))
            if end < len(unit) and (space := unit.rfind(" ", 0, end + 1)) > 0:
                end = space
            yield label, unit[:end]
            unit = unit[end:].strip()


class Contexts:
    """Contexts as the audio encoder attends to them, each encoded once.

    Args:
        programs: the model.
        config: of the model.
    """

    def __init__(self, programs: Programs, config: ContextWhisperConfig):
        self._programs = programs
        self._processor = programs.processor
        self.chunk_tokens = min(CHUNK_TOKENS, config.text_encoder.max_position_embeddings or CHUNK_TOKENS)
        self._kept: OrderedDict[str, ProjectedContext | None] = OrderedDict()

    def encode(self, text: str) -> ProjectedContext | None:
        """The context of a text, None for an empty one."""
        if text not in self._kept:
            self._kept[text] = self._encode(split_context(text, self._processor, self.chunk_tokens))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]

    def with_history(self, text: str, previous: str) -> ProjectedContext | None:
        """A context followed by the end of the text before a window."""
        history = self._encode(last_chunk(previous, self._processor, self.chunk_tokens))
        return join_contexts([self.encode(text), history])

    def forget(self) -> None:
        """Keeps none of those so far, for other parameters have come."""
        self._kept.clear()

    def _encode(self, chunks: Sequence[str]) -> ProjectedContext | None:
        if not chunks:
            return None
        return self._programs.encode_context(*encode_chunks(chunks, self._processor, self.chunk_tokens))
