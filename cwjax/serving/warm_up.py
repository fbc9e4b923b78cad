"""Compiles what most requests need: what the first of them does before it comes, the rest while there is none."""

import logging
import time
from collections.abc import Generator, Sequence

import numpy as np

from cwjax.inference.audio import Recording
from cwjax.inference.decoding import EncodedAudio
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import select_windows
from cwjax.inference.transcriber import Transcriber
from cwjax.models.placement import is_split, platform
from cwjax.serving.served import Served

log = logging.getLogger(__name__)

CONTEXT = "a talk"
SAMPLED = 0.2
"""A temperature above 0."""


class WarmUp:
    """Runs the programs on noise.

    Args:
        served: the model.
        batch_size: most windows at once.
    """

    def __init__(self, served: Served, batch_size: int):
        self._began, self._batch_size = time.monotonic(), batch_size
        self._transcriber, self._takes_context = served.transcriber, served.takes_context
        self._programs = self._transcriber.programs
        self._options = _ending_at_once(self._transcriber)
        tokens = self._programs.tokens
        self._start, self._before = tokens.prompt("en", not self._options.without_timestamps), tokens.encode("and")

    def first(self) -> None:
        """What a request alone needs: its windows encoded with and without a context, decoded greedily with and without
        the text before, its language, and the times of words."""
        programs, frames = self._programs, self._programs.frames
        noise = np.random.default_rng(0).normal(0, 0.01, frames * 160).astype(np.float32)
        recording = Recording(noise, "noise")
        closed = not self._transcriber.knows_timestamps
        self._window = recording.window(0, frames), programs.max_log_mel(recording), frames, closed
        self._contexts = [None, self._transcriber.contexts.encode(CONTEXT)] if self._takes_context else [None]
        self._encoded = self._encode(1)
        if programs.tokens.is_multilingual:
            programs.language_probabilities(self._encoded)
        for _ in self._write(self._encoded, 1):
            pass

    def others(self) -> Generator[None, None, None]:
        """What rarer requests and several at once need, a program a step: how contexts are shown, sampling, and larger
        batches, the smallest first."""
        programs, one = self._programs, self._encoded
        if self._contexts[-1] is not None:
            programs.context_contributions(*self._windows(1), self._contexts[-1])
            yield
        programs.decode(one, [self._start], [()], self._options, [SAMPLED], [0])
        yield
        alone = platform() == "cpu" and not is_split()  # then every window is encoded by itself
        for size in (1 << power for power in range(1, self._batch_size.bit_length())):
            yield from self._write(select_windows(one, [0] * size) if alone else self._encode(size), size)
        log.info("warm for %d windows at once after %.1f s", self._batch_size, time.monotonic() - self._began)

    def _windows(self, size: int) -> tuple[Sequence, ...]:
        samples, *others = ([part] * size for part in self._window)
        return np.stack(samples), *others

    def _encode(self, size: int) -> EncodedAudio:
        return [self._programs.encode(*self._windows(size), context) for context in self._contexts][-1]

    def _write(self, encoded: EncodedAudio, size: int) -> Generator[None, None, None]:
        """Decodes and aligns so many windows."""
        programs, previous = self._programs, [self._before] * size
        for before in ([()] * size, previous):
            programs.decode(encoded, [self._start] * size, before, self._options, [0.0] * size, [0] * size)
            yield
        untimed = programs.tokens.prompt("en", False)
        programs.align(encoded, [untimed] * size, previous, [programs.frames] * size)
        yield


def _ending_at_once(transcriber: Transcriber) -> DecodingOptions:
    """Decodes next to nothing; suppressed tokens are data of the programs that others use, too."""
    tokens = transcriber.programs.tokens
    texts = [token for token in range(len(tokens)) if tokens.is_text(token)]
    return DecodingOptions(suppress_tokens=texts, without_timestamps=not transcriber.knows_timestamps)
