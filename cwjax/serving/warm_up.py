"""Compiles what most requests need before the first of them comes."""

import logging
import time

import numpy as np

from cwjax.inference.audio import Recording
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import select_windows
from cwjax.inference.transcriber import Transcriber
from cwjax.models.placement import is_split, platform
from cwjax.serving.served import Served

log = logging.getLogger(__name__)

CONTEXT = "a talk"
SAMPLED = 0.2
"""A temperature above 0."""


def warm_up(served: Served, batch_size: int) -> None:
    """Runs the programs on noise: for every size of batch greedy, with and without the text before, and with the times
    of words; with and without a context, whose influence is shown, too; and once sampled."""
    began, transcriber = time.monotonic(), served.transcriber
    programs, tokens = transcriber.programs, transcriber.programs.tokens
    noise = np.random.default_rng(0).normal(0, 0.01, programs.frames * 160).astype(np.float32)
    recording = Recording(noise, "noise")
    samples, loudest = recording.window(0, programs.frames), programs.max_log_mel(recording)
    closed = not transcriber.knows_timestamps
    contexts = [None, transcriber.contexts.encode(CONTEXT)] if served.takes_context else [None]
    options = _ending_at_once(transcriber)
    start, before = tokens.prompt("en", not options.without_timestamps), tokens.encode("and")
    alone = platform() == "cpu" and not is_split()  # then every window is encoded by itself
    for size in (1 << power for power in range(batch_size.bit_length())):
        many = [np.stack([samples] * size), [loudest] * size, [programs.frames] * size, [closed] * size]
        if size == 1 or not alone:
            encoded = [programs.encode(*many, context) for context in contexts][-1]
        rows = select_windows(encoded, [0] * size) if alone and size > 1 else encoded
        for previous in ((), before):
            programs.decode(rows, [start] * size, [previous] * size, options, [0.0] * size, [0] * size)
        programs.align(rows, [tokens.prompt("en", False)] * size, [before] * size, [programs.frames] * size)
        if size == 1:
            programs.decode(rows, [start], [()], options, [SAMPLED], [0])
            if tokens.is_multilingual:
                programs.language_probabilities(rows)
            if contexts[-1] is not None:
                programs.context_contributions(*many, contexts[-1])
        log.info("warm for %d windows at once after %.1f s", size, time.monotonic() - began)


def _ending_at_once(transcriber: Transcriber) -> DecodingOptions:
    """Decodes next to nothing; suppressed tokens are data of the programs that others use, too."""
    tokens = transcriber.programs.tokens
    texts = [token for token in range(len(tokens)) if tokens.is_text(token)]
    return DecodingOptions(suppress_tokens=texts, without_timestamps=not transcriber.knows_timestamps)
