"""A model and its compiled programs: encoding windows, detecting their language, decoding and aligning them.

Legend: B windows, F mel frames of a window, M mels, C chunks of a context, S tokens of a chunk, V vocabulary.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.data.audio.log_mel import HOP_LENGTH, compress, mel_decades
from cwjax.data.examples.processor import Processor
from cwjax.errors import CwjaxError
from cwjax.inference.audio import Recording
from cwjax.inference.decoding import Decoding, EncodedAudio, Plan, Prompt, decode, language_logits
from cwjax.inference.logit_rules import PhraseBoost, suppression
from cwjax.inference.options import DecodingOptions
from cwjax.inference.search import BeamSearch, Sampling, Search
from cwjax.inference.segments import DecodedWindow
from cwjax.inference.speculation import speculate
from cwjax.inference.timing import Alignment, align
from cwjax.models.audio_encoder import ContextStates, ProjectedContext
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters
from cwjax.models.quantisation import quantise

log = logging.getLogger(__name__)

THIRTY_SECONDS = 3000
"""Mel frames of the windows of all published Whispers."""
ALIGNED_TOKENS = 64
"""Texts to align are padded to a multiple of this many tokens."""


class Programs:
    """Everything the model does with windows; each program is compiled once per shape.

    Args:
        config: of the model.
        parameters: of the model; their dtype is that of the computation.
        processor: the model's inputs.
        alignment_heads: (layer, head) of the decoder's cross-attention that follow the audio; None, or what another
            model's settings left: all of the upper half of the layers, as openai-whisper has it.
        int8: round weights, see `quantise`.
        draft: a smaller model that guesses tokens where the likeliest are wanted, see `speculate`; None: none.

    Raises:
        CwjaxError: the draft has other tokens, other windows or fewer positions.
    """

    def __init__(
        self,
        config: ContextWhisperConfig,
        parameters: Parameters,
        processor: Processor,
        alignment_heads: Sequence[tuple[int, int]] | None = None,
        int8: bool = False,
        draft: "Programs | None" = None,
    ):
        self.processor = processor
        self.tokens = processor.tokens
        self.frames = processor.window_samples // HOP_LENGTH
        self.positions = config.whisper.max_target_positions
        self.vocabulary = config.whisper.vocab_size
        self.draft = draft
        if draft is not None:
            _require_draft(self, draft)
        self._dtype = parameters["decoder"]["positions"].dtype
        self._unrounded, _ = abstract(config)
        self._int8 = int8
        self.use(parameters)
        layers, heads = config.whisper.decoder_layers, config.whisper.decoder_attention_heads
        self._alignment_heads = _alignment_heads(alignment_heads, layers, heads)
        self._max_log_mel = jax.jit(self._max_log_mel_program)
        self._encode_context = jax.jit(self._encode_context_program)
        self._encode = jax.jit(self._encode_program, static_argnums=(6, 7))
        self._contributions = jax.jit(self._contributions_program)
        self._language = jax.jit(self._language_program)
        self._decode = jax.jit(self._decode_program, static_argnames="plan")
        self._speculate = jax.jit(self._speculate_program, static_argnames="plan")
        self._align = jax.jit(self._align_program, static_argnames="start")
        self._biases = lru_cache(maxsize=8)(
            lambda options: jax.device_put(suppression(self.tokens, self.vocabulary, options))
        )

    def use(self, parameters: Parameters) -> None:
        """Takes parameters of the model, in place of those before."""
        self._graphdef = self._unrounded
        if self._int8:
            self._graphdef, parameters = quantise(self._unrounded, parameters)
        self.parameters = jax.device_put(parameters)

    # What a recording needs once.

    def max_log_mel(self, recording: Recording, first: int = 0, last: int | None = None) -> float:
        """The highest power of the log-mel spectrogram of a recording, or of some of its frames, in decades.

        Whisper's features are cut off 8 decades below it. That it is the whole recording's makes them those of
        openai-whisper, which computes the spectrogram of the whole file.
        """
        beyond = 3  # the last frames reach beyond the end, or begin there
        last = recording.frames + beyond if last in (None, recording.frames) else last
        return max(
            float(self._max_log_mel(recording.window(begin, self.frames)[None], last - begin))
            for begin in range(first, last, self.frames)
        )

    def encode_context(self, ids: np.ndarray, mask: np.ndarray) -> ProjectedContext:
        """Encodes a context of several chunks, once for all windows that share it.

        Args:
            ids: (C, S) int, tokens of the text encoder.
            mask: (C, S) bool, False at padding.

        Returns:
            Keys and values of the context attention, of a batch of 1, the chunks joined to C S tokens.
        """
        return self._encode_context(self.parameters, ids, mask)

    # What windows need.

    def encode(
        self,
        samples: np.ndarray,
        max_log_mel: Sequence[float],
        frames: Sequence[int],
        silence_after: Sequence[bool],
        context: ProjectedContext | None = None,
        compared: bool = False,
        with_states: bool = False,
        drafted: bool = False,
    ) -> EncodedAudio:
        """Encodes windows that share a context.

        Args:
            samples: (B, 160 F + 400) float32, from `Recording.window`.
            max_log_mel: of the recordings.
            frames: of each window that belong to it; the others are padding.
            silence_after: whether the features of the padding are those of silence, as in training, and not zero, as
                in openai-whisper's way through a recording.
            context: of all the windows; None: no context.
            compared: encode them without the context, too.
            with_states: keep what the encoder gives without the context.
            drafted: let the draft encode them, too.
        """
        windows = _window_arrays(samples, max_log_mel, frames, silence_after)
        encoded = self._encode(self.parameters, *windows, context, compared, with_states)
        if not drafted:
            return encoded
        return encoded._replace(draft=self.draft.encode(samples, max_log_mel, frames, silence_after).audio)

    def can_draft(self, options: DecodingOptions) -> bool:
        """Whether the draft is of use: it guesses the likeliest tokens, of one hypothesis and one encoding."""
        greedy = options.beam_size is None and options.temperature[0] == 0
        return self.draft is not None and greedy and options.context_scale in (0, 1)

    def context_contributions(
        self,
        samples: np.ndarray,
        max_log_mel: Sequence[float],
        frames: Sequence[int],
        silence_after: Sequence[bool],
        context: ProjectedContext,
    ) -> np.ndarray:
        """How strongly context tokens move windows, (C, B, A, S); see `AudioEncoder.context_contributions`.

        Arguments as of `encode`.
        """
        windows = _window_arrays(samples, max_log_mel, frames, silence_after)
        return np.asarray(self._contributions(self.parameters, *windows, context))

    def language_probabilities(self, encoded: EncodedAudio) -> list[dict[str, float]]:
        """Of each window, the probability of every language, the likeliest first."""
        codes = list(self.tokens.languages)
        rows = np.asarray(self._language(self.parameters, encoded))
        pairs = [zip(codes, map(float, row), strict=True) for row in rows]
        return [dict(sorted(row, key=lambda pair: -pair[1])) for row in pairs]

    def decode(
        self,
        encoded: EncodedAudio,
        starts: Sequence[Sequence[int]],
        previous: Sequence[Sequence[int]],
        options: DecodingOptions,
        temperatures: Sequence[float],
        seeds: Sequence[int],
        boost: PhraseBoost | None = None,
    ) -> list[DecodedWindow]:
        """Decodes windows.

        Args:
            encoded: B windows.
            starts: tokens that each text is decoded from, all of one length.
            previous: tokens of the text before each, cut on the left to what a prompt may hold.
            options: how; of language, task and prompts `starts` and `previous` say everything.
            temperatures: of each; all 0, for the likeliest text, or none.
            seeds: of each window's random numbers.
            boost: phrases that are heard in them.
        """
        prompt, drawn = self._prompt(starts, previous, boost is not None), temperatures[0] > 0
        longest = self.positions + 1 - len(starts[0])
        steps = options.sample_len or (self.positions // 2 if self.frames >= THIRTY_SECONDS else longest)
        plan = Plan(
            search=_search(options, drawn),
            steps=min(steps, longest),
            positions=self.positions,
            start_length=len(starts[0]),
            timestamps=not options.without_timestamps,
            end_of_text=self.tokens.end_of_text,
            no_speech=self.tokens.no_speech,
            first_timestamp=self.tokens.first_timestamp,
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
        )
        biases = self._biases(options.decoding_part)._replace(phrases=boost)
        if encoded.draft is not None and not drawn:
            decoding = self._speculate(self.parameters, self.draft.parameters, encoded, prompt, biases, plan=plan)
        else:
            chance = _chance(seeds, temperatures) if drawn else (None, None)
            decoding = self._decode(self.parameters, encoded._replace(draft=None), prompt, biases, *chance, plan=plan)
        return self._best(jax.device_get(decoding), options, temperatures)

    def align(
        self,
        encoded: EncodedAudio,
        starts: Sequence[Sequence[int]],
        texts: Sequence[Sequence[int]],
        frames: Sequence[int],
    ) -> list[Alignment]:
        """Where in the audio the tokens of each window's text were said.

        Args:
            encoded: B windows.
            starts: tokens before each text, without timestamps and all of one length.
            texts: text tokens of each, without timestamps. What the decoder has no positions for is left out.
            frames: of each window that belong to it.
        """
        start = len(starts[0])
        texts = [list(text)[: self.positions - start - 1] for text in texts]
        longest = start + max(map(len, texts)) + 1
        length = min(-(-longest // ALIGNED_TOKENS) * ALIGNED_TOKENS, self.positions)
        rows = np.full((len(texts), length), self.tokens.end_of_text, np.int32)
        for row, before, text in zip(rows, starts, texts, strict=True):
            row[: start + len(text)] = [*before, *text]
        lengths = np.asarray([start + len(text) + 1 for text in texts], np.int32)
        positions = np.maximum(np.asarray(frames, np.int32) // 2, 1)
        aligned = jax.device_get(self._align(self.parameters, encoded, rows, lengths, positions, start=start))
        return [
            Alignment(begins[: len(text) + 1], probabilities[: len(text)])
            for text, begins, probabilities in zip(texts, *aligned, strict=True)
        ]

    # The programs, compiled for the shapes they are given.

    def _model(self, parameters: Parameters) -> Any:
        return nnx.merge(self._graphdef, parameters)

    def _max_log_mel_program(self, samples: jax.Array, frames: int) -> jax.Array:
        decades = mel_decades(samples, self.processor.num_mel_bins, jnp)
        return decades.max(where=jnp.arange(self.frames)[:, None] < frames, initial=-jnp.inf)

    def _encode_context_program(self, parameters: Parameters, ids: jax.Array, mask: jax.Array) -> ProjectedContext:
        model = self._model(parameters)
        states = model.encode_context(ids, mask)
        joined = ContextStates(states.hidden.reshape(1, -1, states.hidden.shape[-1]), mask.reshape(1, -1))
        return model.audio_encoder.project_context(joined)

    def _encode_program(
        self, parameters, samples, max_log_mel, frames, pad_value, context, compared, with_states
    ) -> EncodedAudio:
        model = self._model(parameters)
        features = self._features(samples, max_log_mel, frames, pad_value)
        project = model.decoder.stepwise().project_audio
        states = model.encode(features, context)
        plain = model.encode(features, None) if context is not None and (compared or with_states) else states
        return EncodedAudio(
            project(states), project(plain) if compared else None, states=plain if with_states else None
        )

    def _features(
        self, samples: jax.Array, max_log_mel: jax.Array, frames: jax.Array, pad_value: jax.Array
    ) -> jax.Array:
        """(B, F, M), with `pad_value` (B,) in the frames that are padding."""
        decades = mel_decades(samples, self.processor.num_mel_bins, jnp)
        features = compress(decades, max_log_mel[:, None, None], jnp)
        is_audio = jnp.arange(self.frames)[:, None] < frames[:, None, None]
        return jnp.where(is_audio, features, pad_value[:, None, None]).astype(self._dtype)

    def _contributions_program(self, parameters, samples, max_log_mel, frames, pad_value, context) -> jax.Array:
        features = self._features(samples, max_log_mel, frames, pad_value)
        return self._model(parameters).audio_encoder.context_contributions(features, context)

    def _language_program(self, parameters: Parameters, encoded: EncodedAudio) -> jax.Array:
        decoder = self._model(parameters).decoder.stepwise()
        logits = language_logits(decoder, encoded, self.tokens.id("<|startoftranscript|>"))
        return jax.nn.softmax(logits[:, np.asarray(list(self.tokens.languages.values()))])

    def _decode_program(self, parameters, encoded, prompt, biases, keys, temperature, plan: Plan) -> Decoding:
        decoder = self._model(parameters).decoder.stepwise()
        return decode(decoder, encoded, prompt, biases, keys, temperature, plan)

    def _speculate_program(self, parameters, draft_parameters, encoded, prompt, biases, plan: Plan) -> Decoding:
        decoders = (self._model(parameters).decoder, self.draft._model(draft_parameters).decoder)
        return speculate(*(decoder.stepwise() for decoder in decoders), encoded, prompt, biases, plan)

    def _align_program(self, parameters, encoded, rows, lengths, positions, start: int) -> tuple[jax.Array, jax.Array]:
        decoder = self._model(parameters).decoder.stepwise()
        return align(decoder, encoded, rows, lengths, positions, start, self._alignment_heads, self.tokens.end_of_text)

    # Around them.

    @property
    def longest_previous(self) -> int:
        """Most tokens of previous text in a prompt: half of the positions, but for the token before it."""
        return self.positions // 2 - 1

    def _prompt(self, starts: Sequence[Sequence[int]], previous: Sequence[Sequence[int]], has_phrases: bool) -> Prompt:
        """Prompts, padded to one of few lengths: without previous text, with a few phrases, or with all that may be."""
        rows = []
        for start, text in zip(starts, previous, strict=True):
            rows.append([*self.tokens.previous(text, self.longest_previous), *start])
        longest = 1 + self.longest_previous
        rooms = (0, longest // 4, longest) if has_phrases else (0, longest)
        length = next(len(starts[0]) + room for room in rooms if len(starts[0]) + room >= max(map(len, rows)))
        padding = np.asarray([length - len(row) for row in rows], np.int32)
        tokens = np.asarray([[self.tokens.end_of_text] * (length - len(row)) + row for row in rows], np.int32)
        return Prompt(tokens, padding)

    def _best(self, decoding: Decoding, options: DecodingOptions, temperatures: Sequence[float]) -> list[DecodedWindow]:
        """The candidate of each window with the highest mean log-probability, or by the length penalty of Wu et al.
        2016."""
        windows, longest = [], decoding.candidates.tokens.shape[-1]
        rows = zip(*decoding.candidates, decoding.no_speech, temperatures, strict=True)
        for tokens, total, valid, no_speech, temperature in rows:
            ends = tokens == self.tokens.end_of_text
            lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), longest)
            penalty = options.length_penalty
            scale = np.maximum(lengths, 1) if penalty is None else ((5 + lengths) / 6) ** penalty
            best = np.where(valid, total / scale, -np.inf).argmax()
            text = tokens[best, : lengths[best]].tolist()
            windows.append(
                DecodedWindow(
                    tokens=tuple(text),
                    text=self.tokens.text(text).strip(),
                    avg_logprob=float(total[best]) / (len(text) + 1),
                    no_speech_prob=float(no_speech),
                    temperature=temperature,
                )
            )
        return windows


def filled_up(rows: Sequence[Any]) -> list[Any]:
    """Rows, the last one repeated up to a power of two, so that few programs are compiled."""
    return [*rows, *[rows[-1]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]


def select_windows(encoded: EncodedAudio, rows: Sequence[int]) -> EncodedAudio:
    """Some of the windows, each as often as it is named."""
    chosen = jnp.asarray(rows)
    return jax.tree.map(lambda array: array[chosen], encoded)


def join_windows(parts: Sequence[EncodedAudio]) -> EncodedAudio:
    """The windows of several encodings as one."""
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def _require_draft(model: Programs, draft: Programs) -> None:
    if (model.vocabulary, model.frames) != (draft.vocabulary, draft.frames) or not model.tokens.agree(draft.tokens):
        raise CwjaxError(
            f"the draft has other tokens ({draft.vocabulary:,}, the model {model.vocabulary:,}) or windows: take one "
            "that goes with the model, such as tiny for base to large-v2, and distil-large-v3 or turbo for large-v3"
        )
    if draft.positions < model.positions:
        raise CwjaxError(f"the draft has {draft.positions} positions, the model {model.positions}: take another")


def _window_arrays(
    samples: np.ndarray, max_log_mel: Sequence[float], frames: Sequence[int], silence_after: Sequence[bool]
) -> tuple[np.ndarray, ...]:
    """Windows as the programs take them, with the value of the features of their padding."""
    max_log_mel = np.asarray(max_log_mel, np.float32)
    silence = compress(np.full_like(max_log_mel, -np.inf), max_log_mel)
    return samples, max_log_mel, np.asarray(frames, np.int32), np.where(silence_after, silence, np.float32(0))


def _search(options: DecodingOptions, drawn: bool) -> Search:
    if drawn:
        return Sampling(options.best_of or 1, random=True)
    if options.beam_size is None:
        return Sampling()
    return BeamSearch(options.beam_size, round(options.beam_size * (options.patience or 1)))


def _chance(seeds: Sequence[int], temperatures: Sequence[float]) -> tuple[jax.Array, jax.Array]:
    """Random keys of windows at their temperatures, and the temperatures."""
    keys = [
        jax.random.fold_in(jax.random.key(seed), round(1000 * temperature))
        for seed, temperature in zip(seeds, temperatures, strict=True)
    ]
    return jnp.stack(keys), jnp.asarray(temperatures, jnp.float32)


def _alignment_heads(named: Any, layers: int, heads: int) -> tuple[tuple[int, int], ...]:
    """Those that are named if they all exist, or else all heads of the upper half of the layers."""
    existing = [(layer, head) for layer in range(layers) for head in range(heads)]
    try:
        chosen = {(layer, head) for layer, head in named or ()}
    except (TypeError, ValueError):
        chosen = set()
    if chosen and chosen <= set(existing):
        return tuple(one for one in existing if one in chosen)
    if named is not None:
        told = "alignment_heads %.80s are not heads of this decoder (%d x %d): words are timed by its upper half"
        log.warning(told, named, layers, heads)
    return tuple(existing[layers // 2 * heads :])
