"""A model and its compiled programs: hearing windows, naming their language, decoding and aligning them.

Legend: B windows, F mel frames of a window, M mels, C chunks of a context, S tokens of a chunk, V vocabulary.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.data.log_mel import HOP_LENGTH, compress, mel_decades
from cwjax.data.processor import Processor
from cwjax.data.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.inference.alignment import Alignment, align
from cwjax.inference.decoding import Biases, Decoding, Heard, Plan, Prompt, decode, language_logits
from cwjax.inference.decoding_options import DecodingOptions
from cwjax.inference.recording import Recording
from cwjax.inference.search import BeamSearch, Candidates, Sampling, Search
from cwjax.inference.suppression import suppression
from cwjax.models.audio_encoder import ContextStates, ProjectedContext
from cwjax.models.context_whisper import ContextWhisper, ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters
from cwjax.models.placement import is_split, platform

THIRTY_SECONDS = 3000
"""Mel frames of the windows of all published Whispers."""
ALIGNED_TOKENS = 64
"""Texts to align are padded to a multiple of this many tokens."""


@dataclass(frozen=True)
class DecodedWindow:
    """The text of one window.

    Attributes:
        tokens: without prompt and end of text.
        text: of the tokens, without timestamps.
        avg_logprob: mean log-probability of the tokens and the end of text.
        no_speech_prob: probability that there is no speech.
        temperature: at which it was decoded.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text over those of its zlib compression."""
        encoded = self.text.encode()
        return len(encoded) / len(zlib.compress(encoded))


class Recognizer:
    """Everything the model does with windows; each program is compiled once per shape.

    Args:
        config: of the model.
        parameters: of the model; their dtype is that of the computation.
        processor: the model's inputs.
        alignment_heads: (layer, head) of the decoder's cross-attention that follow the audio; None: all of the
            upper half of the layers, as openai-whisper has it.
    """

    def __init__(
        self,
        config: ContextWhisperConfig,
        parameters: Parameters,
        processor: Processor,
        alignment_heads: Sequence[tuple[int, int]] | None = None,
    ):
        self.processor = processor
        self.tokens = processor.tokens
        self.frames = processor.window_samples // HOP_LENGTH
        self.positions = config.whisper.max_target_positions
        self._parameters = jax.device_put(parameters)
        self._dtype = jax.tree.leaves(parameters["decoder"])[0].dtype
        self._graphdef, _ = abstract(config)
        layers, heads = config.whisper.decoder_layers, config.whisper.decoder_attention_heads
        if alignment_heads is None:
            alignment_heads = [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
        for layer, head in alignment_heads:
            if not (0 <= layer < layers and 0 <= head < heads):
                raise CwjaxError(f"alignment head ({layer}, {head}) does not exist: the decoder has {layers} x {heads}")
        self._alignment_heads = tuple(sorted((int(layer), int(head)) for layer, head in alignment_heads))
        self._loudest = jax.jit(lambda samples: mel_decades(samples, processor.num_mel_bins, jnp).max(axis=(1, 2)))
        self._read_context = jax.jit(self._read_context_program)
        self._hear = jax.jit(self._hear_program)
        self._contributions = jax.jit(self._contributions_program)
        self._language = jax.jit(self._language_program)
        self._decode = jax.jit(self._decode_program, static_argnames="plan")
        self._align = jax.jit(self._align_program)
        self._biases = lru_cache(maxsize=8)(partial(_biases, self.tokens, config.whisper.vocab_size))

    # What a recording needs once.

    def loudest(self, recording: Recording) -> float:
        """The highest power of the recording's log-mel spectrogram, in decades.

        Whisper's features are cut off below it; that it is the whole recording's makes them those of
        openai-whisper, which computes the spectrogram of the whole file.
        """
        beyond = recording.frames + 3  # the last frames reach beyond the end, or begin there
        firsts = range(0, beyond, self.frames)
        return max(float(self._loudest(recording.window(first, self.frames)[None])[0]) for first in firsts)

    def read_context(self, ids: np.ndarray, mask: np.ndarray) -> ProjectedContext:
        """Reads a context of several chunks, once for all windows of a recording.

        Args:
            ids: (C, S) int, tokens of the text encoder.
            mask: (C, S) bool, False at padding.

        Returns:
            Keys and values of the context attention for one recording, the chunks joined to C S tokens.
        """
        return self._read_context(self._parameters, ids, mask)

    # What a window needs.

    def hear(
        self,
        samples: np.ndarray,
        loudest: Sequence[float],
        frames: Sequence[int],
        context: ProjectedContext | None = None,
        context_scale: float = 1.0,
        then_silence: bool = False,
    ) -> Heard:
        """Encodes windows.

        Args:
            samples: (B, 160 F + 400) float32, from `Recording.window`.
            loudest: of the recordings.
            frames: of each window that are to be heard.
            context: of each window; None: no context for any.
            context_scale: how much the context counts, see `DecodingOptions`.
            then_silence: the features behind these frames are those of silence, as in training, and not zero, as in
                openai-whisper's way through a recording.
        """
        scale = None
        if context_scale == 0:
            context = None
        elif context_scale != 1 and context is not None:
            scale = jnp.float32(context_scale)
        return self._hear(self._parameters, *_window_arrays(samples, loudest, frames, then_silence), context, scale)

    def context_contributions(
        self,
        samples: np.ndarray,
        loudest: Sequence[float],
        frames: Sequence[int],
        context: ProjectedContext,
        then_silence: bool = False,
    ) -> np.ndarray:
        """How strongly context tokens move windows, (C, B, A, S); see `AudioEncoder.context_contributions`.

        Arguments as of `hear`.
        """
        windows = _window_arrays(samples, loudest, frames, then_silence)
        return np.asarray(self._contributions(self._parameters, *windows, context))

    def language_probabilities(self, heard: Heard) -> list[dict[str, float]]:
        """Of each window, the probability of every language."""
        codes = list(self.tokens.languages)
        rows = np.asarray(self._language(self._parameters, heard))
        return [dict(zip(codes, map(float, row), strict=True)) for row in rows]

    def decode(
        self,
        heard: Heard,
        languages: Sequence[str],
        previous: Sequence[Sequence[int]],
        options: DecodingOptions,
        temperature: float,
        seeds: Sequence[int],
    ) -> list[DecodedWindow]:
        """Decodes windows at one temperature.

        Args:
            heard: B windows.
            languages: code of each.
            previous: tokens of the text before each, cut on the left to what a prompt may hold.
            options: how.
            temperature: 0: the likeliest text.
            seeds: of each window's random numbers.
        """
        prompt = self._prompt(languages, previous, options)
        start_length = len(self.start_tokens(languages[0], options))
        plan = Plan(
            search=_search(options, temperature),
            steps=self._steps(options, start_length),
            positions=self.positions,
            start_length=start_length,
            timestamps=not options.without_timestamps,
            end_of_text=self.tokens.end_of_text,
            no_speech=self.tokens.no_speech,
            first_timestamp=self.tokens.first_timestamp,
        )
        chance = _chance(seeds, temperature) if temperature > 0 else (None, None)
        decoding = self._decode(self._parameters, heard, prompt, self._biases(options), *chance, plan=plan)
        return self._best(jax.device_get(decoding), options, temperature)

    def align(
        self, heard: Heard, languages: Sequence[str], texts: Sequence[Sequence[int]], frames: Sequence[int], task: str
    ) -> list[Alignment]:
        """Where in the audio the tokens of each window's text were said.

        Args:
            heard: B windows.
            languages: code of each.
            texts: text tokens of each, without timestamps. What the decoder has no positions for is left out.
            frames: of each window that were heard.
            task: "transcribe" or "translate".
        """
        starts = [self.tokens.prompt(language, timestamps=False, task=task) for language in languages]
        room = self.positions - len(starts[0]) - 1
        texts = [list(text)[:room] for text in texts]
        longest = max(len(start) + len(text) + 1 for start, text in zip(starts, texts, strict=True))
        length = min(-(-longest // ALIGNED_TOKENS) * ALIGNED_TOKENS, self.positions)
        rows = np.full((len(texts), length), self.tokens.end_of_text, np.int32)
        lengths = np.zeros(len(texts), np.int32)
        for row, (start, text) in enumerate(zip(starts, texts, strict=True)):
            whole = [*start, *text, self.tokens.end_of_text]
            rows[row, : len(whole)] = whole
            lengths[row] = len(whole)
        positions = np.maximum(np.asarray(frames, np.int32) // 2, 1)
        weights, probabilities = jax.device_get(self._align(self._parameters, heard, rows, lengths, positions))
        first = len(starts[0]) - 1  # the row of the token before the text
        return [
            Alignment(
                weights[row, first : lengths[row] - 1, : positions[row]],
                probabilities[row, first : lengths[row] - 2],
            )
            for row in range(len(texts))
        ]

    # The programs, compiled for the shapes they are given.

    def _model(self, parameters: Parameters) -> Any:
        return nnx.merge(self._graphdef, parameters)

    def _read_context_program(self, parameters: Parameters, ids: jax.Array, mask: jax.Array) -> ProjectedContext:
        model = self._model(parameters)
        states = model.encode_context(ids, mask)
        joined = ContextStates(states.hidden.reshape(1, -1, states.hidden.shape[-1]), mask.reshape(1, -1))
        return model.audio_encoder.project_context(joined)

    def _hear_program(
        self,
        parameters: Parameters,
        samples: jax.Array,
        loudest: jax.Array,
        frames: jax.Array,
        behind: jax.Array,
        context: ProjectedContext | None,
        scale: jax.Array | None,
    ) -> Heard:
        model = self._model(parameters)
        features = self._features(samples, loudest, frames, behind)
        audio = _encode(model, features, context)
        if scale is not None:
            audio = jnp.concatenate([audio, _encode(model, features, None)])
        return Heard(model.decoder.stepwise().project_audio(audio), scale)

    def _features(self, samples: jax.Array, loudest: jax.Array, frames: jax.Array, behind: jax.Array) -> jax.Array:
        """(B, F, M); `behind` the frames that are to be heard they have that one value (B,)."""
        decades = mel_decades(samples, self.processor.num_mel_bins, jnp)
        features = compress(decades, loudest[:, None, None], jnp)
        is_heard = jnp.arange(self.frames)[:, None] < frames[:, None, None]
        features = jnp.where(is_heard, features, behind[:, None, None])
        return features.astype(self._dtype)

    def _contributions_program(
        self,
        parameters: Parameters,
        samples: jax.Array,
        loudest: jax.Array,
        frames: jax.Array,
        behind: jax.Array,
        context: ProjectedContext,
    ) -> jax.Array:
        features = self._features(samples, loudest, frames, behind)
        return self._model(parameters).audio_encoder.context_contributions(features, context)

    def _language_program(self, parameters: Parameters, heard: Heard) -> jax.Array:
        decoder = self._model(parameters).decoder.stepwise()
        logits = language_logits(decoder, heard, self.tokens.id("<|startoftranscript|>"))
        return jax.nn.softmax(logits[:, np.asarray(list(self.tokens.languages.values()))])

    def _decode_program(
        self,
        parameters: Parameters,
        heard: Heard,
        prompt: Prompt,
        biases: Biases,
        keys: jax.Array | None,
        temperature: jax.Array | None,
        plan: Plan,
    ) -> Decoding:
        decoder = self._model(parameters).decoder.stepwise()
        return decode(decoder, heard, prompt, biases, keys, temperature, plan)

    def _align_program(
        self, parameters: Parameters, heard: Heard, rows: jax.Array, lengths: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        decoder = self._model(parameters).decoder.stepwise()
        return align(decoder, heard, rows, lengths, positions, self._alignment_heads, self.tokens.end_of_text)

    # Around them.

    def start_tokens(self, language: str, options: DecodingOptions) -> list[int]:
        """The tokens every transcript is decoded from."""
        return self.tokens.prompt(language, not options.without_timestamps, options.task)

    @property
    def longest_previous(self) -> int:
        """Most tokens of previous text in a prompt: half of the positions, but for the token before it."""
        return self.positions // 2 - 1

    def _prompt(self, languages: Sequence[str], previous: Sequence[Sequence[int]], options: DecodingOptions) -> Prompt:
        """Prompts, padded to one of two lengths: without any previous text, or with all that may be."""
        rows = []
        for language, text in zip(languages, previous, strict=True):
            before = [self.tokens.id("<|startofprev|>"), *text[-self.longest_previous :]] if text else []
            rows.append([*before, *self.start_tokens(language, options)])
        length = len(self.start_tokens(languages[0], options))
        if any(previous):
            length += 1 + self.longest_previous
        padding = np.asarray([length - len(row) for row in rows], np.int32)
        tokens = np.asarray([[self.tokens.end_of_text] * (length - len(row)) + row for row in rows], np.int32)
        return Prompt(tokens, padding)

    def _steps(self, options: DecodingOptions, start_length: int) -> int:
        longest = self.positions + 1 - start_length
        if options.sample_len is not None:
            return min(options.sample_len, longest)
        return self.positions // 2 if self.frames >= THIRTY_SECONDS else longest

    def _best(self, decoding: Decoding, options: DecodingOptions, temperature: float) -> list[DecodedWindow]:
        """The best candidate of each window."""
        candidates, windows = decoding.candidates, []
        for row, no_speech in enumerate(decoding.no_speech):
            texts = [self._until_end(tokens) for tokens in candidates.tokens[row]]
            best = best_candidate(candidates, row, [len(text) for text in texts], options.length_penalty)
            windows.append(
                DecodedWindow(
                    tokens=tuple(texts[best]),
                    text=self.tokens.text(texts[best]).strip(),
                    avg_logprob=float(candidates.total[row, best]) / (len(texts[best]) + 1),
                    no_speech_prob=float(no_speech),
                    temperature=temperature,
                )
            )
        return windows

    def _until_end(self, tokens: np.ndarray) -> list[int]:
        ends = np.flatnonzero(tokens == self.tokens.end_of_text)
        return tokens[: ends[0] if len(ends) else None].tolist()


def best_candidate(candidates: Candidates, row: int, lengths: Sequence[int], length_penalty: float | None) -> int:
    """The candidate of the highest mean log-probability, or by the length penalty of Wu et al. 2016."""
    scores = [
        float(total) / (max(length, 1) if length_penalty is None else ((5 + length) / 6) ** length_penalty)
        if valid
        else -np.inf
        for total, length, valid in zip(candidates.total[row], lengths, candidates.valid[row], strict=True)
    ]
    return int(np.argmax(scores))


def _window_arrays(
    samples: np.ndarray, loudest: Sequence[float], frames: Sequence[int], then_silence: bool
) -> tuple[np.ndarray, ...]:
    """Windows as the programs take them, with the value of the features behind what is to be heard."""
    loudest = np.asarray(loudest, np.float32)
    behind = compress(np.full_like(loudest, -np.inf), loudest) if then_silence else np.zeros_like(loudest)
    return samples, loudest, np.asarray(frames, np.int32), behind


def _search(options: DecodingOptions, temperature: float) -> Search:
    if temperature > 0:
        return Sampling(options.best_of or 1, random=True)
    if options.beam_size is None:
        return Sampling()
    return BeamSearch(options.beam_size, round(options.beam_size * (options.patience or 1)))


def _chance(seeds: Sequence[int], temperature: float) -> tuple[jax.Array, jax.Array]:
    """Random keys of windows at a temperature, and the temperature."""
    keys = [jax.random.fold_in(jax.random.key(seed), round(1000 * temperature)) for seed in seeds]
    return jnp.stack(keys), jnp.float32(temperature)


def _biases(tokens: WhisperTokens, vocabulary: int, options: DecodingOptions) -> Biases:
    return Biases(*map(jnp.asarray, suppression(tokens, vocabulary, options)))


def _encode(model: ContextWhisper, features: jax.Array, context: ProjectedContext | None) -> jax.Array:
    """(B, F, M) -> (B, A, D); on a CPU window after window, so that what passes between layers stays in its caches."""
    if platform() != "cpu" or is_split():
        return model.encode(features, context)

    def encode_window(number: jax.Array) -> jax.Array:
        def row(array: jax.Array, axis: int) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(array, number, 1, axis)

        known = context and ProjectedContext(row(context.key, 1), row(context.value, 1), row(context.mask, 0))
        return model.encode(row(features, 0), known)[0]

    return jax.lax.map(encode_window, jnp.arange(len(features)))
