"""Transcribing windows in batches, each with its own context."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.data.log_mel import log_mel
from cwjax.data.processor import Processor
from cwjax.inference.greedy import Decoded, greedy_decode, suppression_bias


class WindowTranscriber:
    """Greedy transcription of windows without timestamps, compiled once for a batch size.

    Args:
        graphdef: of the ContextWhisper.
        processor: its inputs.
        batch_size: windows per call of the compiled program; the last batch is filled up.
        max_context_tokens: contexts are padded or cut to this many text-encoder tokens.
        max_new_tokens: longest transcript of a window.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        processor: Processor,
        batch_size: int,
        max_context_tokens: int,
        max_new_tokens: int,
    ):
        self._processor = processor
        self.batch_size = batch_size
        self._max_context_tokens = max_context_tokens
        bias = jnp.asarray(suppression_bias(processor.tokens))
        end_of_text = processor.tokens.end_of_text
        num_mel_bins = processor.num_mel_bins

        def decode(parameters: Any, waveform: Any, prompt: Any, ids: Any, mask: Any) -> Decoded:
            model = nnx.merge(graphdef, parameters)
            states = model.encode_context(ids, mask)
            audio = model.encode(log_mel(waveform, num_mel_bins, jnp), states)
            return greedy_decode(model.decoder, audio, prompt, max_new_tokens, bias, end_of_text)

        self._decode = jax.jit(decode)

    def __call__(
        self, parameters: Any, waveforms: Sequence[np.ndarray], contexts: Sequence[str], languages: Sequence[str]
    ) -> list[str]:
        """Transcripts of windows.

        Args:
            parameters: of the model.
            waveforms: samples at 16 kHz, each (n,) up to the window's length.
            contexts: of each window; empty for none.
            languages: ISO 639-1 code of each window.
        """
        texts: list[str] = []
        for first in range(0, len(waveforms), self.batch_size):
            batch = slice(first, first + self.batch_size)
            texts += self._batch(parameters, waveforms[batch], contexts[batch], languages[batch])
        return texts

    def _batch(
        self, parameters: Any, waveforms: Sequence[np.ndarray], contexts: Sequence[str], languages: Sequence[str]
    ) -> list[str]:
        count, missing = len(waveforms), self.batch_size - len(waveforms)
        tokens = self._processor.tokens
        waveform = np.stack([self._processor.pad(samples) for samples in waveforms])
        prompt = np.asarray([tokens.prompt(language, timestamps=False) for language in languages], np.int32)
        ids, mask = self._processor.context(contexts, self._max_context_tokens)
        filled = [
            np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) for rows in (waveform, prompt, ids, mask)
        ]
        decoded = self._decode(parameters, *filled)
        return [tokens.decode(row) for row in np.asarray(decoded.tokens)[:count]]
