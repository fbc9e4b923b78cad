"""Transcribing windows in batches, each with its own context."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.data.log_mel import log_mel
from cwjax.data.processor import Processor
from cwjax.inference.decoding import Biases, Heard, Plan, Prompt, decode
from cwjax.inference.search import Sampling
from cwjax.inference.suppression import transcript_only


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
        tokens, num_mel_bins = processor.tokens, processor.num_mel_bins

        def transcribe(parameters: Any, waveform: Any, prompt: Any, ids: Any, mask: Any) -> jax.Array:
            model = nnx.merge(graphdef, parameters)
            states = model.encode_context(ids, mask)
            audio = model.encode(log_mel(waveform, num_mel_bins, jnp), states)
            decoder = model.decoder.stepwise()
            heard = Heard(decoder.project_audio(audio))
            vocabulary = model.decoder.token_embedding.embedding.shape[0]
            biases = Biases(*map(jnp.asarray, transcript_only(tokens, vocabulary)))
            plan = Plan(
                search=Sampling(),
                steps=max_new_tokens,
                positions=model.decoder.positions.shape[0],
                start_length=prompt.shape[1],
                timestamps=False,
                end_of_text=tokens.end_of_text,
                no_speech=tokens.no_speech,
                first_timestamp=tokens.first_timestamp,
            )
            unpadded = Prompt(prompt, jnp.zeros(len(prompt), jnp.int32))
            decoding = decode(decoder, heard, unpadded, biases, None, None, plan)
            return decoding.candidates.tokens[:, 0]

        self._transcribe = jax.jit(transcribe)

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
        decoded = self._transcribe(parameters, *filled)
        return [tokens.decode(row) for row in np.asarray(decoded)[:count]]
