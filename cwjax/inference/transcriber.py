"""From recordings to transcripts: the one thing that other rooms need to know of inference."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cwjax.data.processor import Processor
from cwjax.errors import CwjaxError
from cwjax.inference.batched import BatchedTranscription
from cwjax.inference.contexts import CHUNK_TOKENS, encode_chunks, join_contexts, last_chunk, split_context
from cwjax.inference.decoding_options import DecodingOptions
from cwjax.inference.explain import Explanation, explain_windows, locate_words
from cwjax.inference.recognizer import Recognizer
from cwjax.inference.recording import Recording
from cwjax.inference.sequential import Progress, SequentialTranscription
from cwjax.inference.transcript import Transcript
from cwjax.models.audio_encoder import ProjectedContext
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters

Audio = str | Path | np.ndarray

WINDOWS_AT_ONCE = 8
"""Where one window after the other was asked for, but they do not depend on each other."""


class Transcriber:
    """Transcribes recordings with a model. Its programs are compiled when first needed, and kept.

    Args:
        config: of the model.
        parameters: of the model; their dtype is that of the computation.
        processor: the model's inputs.
        alignment_heads: (layer, head) pairs for the times of words, see `Recognizer`.
        knows_timestamps: whether the model has learned them. One that has not cannot say where the speech of a window
            ends, so its windows are cut in pauses and do not depend on each other, however it is asked to transcribe.
    """

    def __init__(
        self,
        config: ContextWhisperConfig,
        parameters: Parameters,
        processor: Processor,
        alignment_heads: Sequence[tuple[int, int]] | None = None,
        knows_timestamps: bool = True,
    ):
        self._processor = processor
        self._chunk_tokens = min(CHUNK_TOKENS, config.text_encoder.max_position_embeddings or CHUNK_TOKENS)
        self._context_layers = config.context.layers_of(config.whisper.encoder_layers)
        self._recognizer = Recognizer(config, parameters, processor, alignment_heads)
        self._knows_timestamps = knows_timestamps

    def transcribe(
        self,
        audio: Audio,
        context: str = "",
        options: DecodingOptions | None = None,
        progress: Progress | None = None,
    ) -> Transcript:
        """Transcribes a recording of any length, one window after the other, as openai-whisper does.

        Args:
            audio: a file, or mono samples at 16 kHz, (n,) float32.
            context: what is known about the recording: sentences, or lists such as "names: Ann, Bob".
            options: how.
            progress: is told the seconds done and the seconds in all after every window.

        Raises:
            CwjaxError: the audio cannot be read, or an option does not go with the model.
        """
        if not self._knows_timestamps:
            return self.transcribe_batched([audio], [context], options, WINDOWS_AT_ONCE, progress)[0]
        options = self._checked(options)
        recording = Recording.open(audio)
        known = self._read(split_context(context, self._processor, self._chunk_tokens))

        def context_after(previous: str) -> ProjectedContext | None:
            if not options.context_from_history:
                return known
            return join_contexts([known, self._read(last_chunk(previous, self._processor, self._chunk_tokens))])

        return SequentialTranscription(self._recognizer, recording, context_after, options).run(progress)

    def transcribe_batched(
        self,
        recordings: Sequence[Audio],
        contexts: Sequence[str] | None = None,
        options: DecodingOptions | None = None,
        batch_size: int = 16,
        progress: Progress | None = None,
    ) -> list[Transcript]:
        """Transcribes several recordings, many windows at once: faster, without the text before each window.

        Args:
            recordings: files, or mono samples at 16 kHz.
            contexts: of each recording, empty for none; None: no context for any.
            options: how.
            batch_size: windows at once.
            progress: is told the seconds of speech done and those in all.

        Raises:
            CwjaxError: audio cannot be read, there are more or fewer contexts than recordings, or an option does
                not go with the model or needs one window after the other.
        """
        options = self._checked(options)
        contexts = [""] * len(recordings) if contexts is None else contexts
        if len(contexts) != len(recordings):
            raise CwjaxError(f"there are {len(recordings)} recordings but {len(contexts)} contexts: give one for each")
        opened = [Recording.open(audio) for audio in recordings]
        read = {text: self._read(split_context(text, self._processor, self._chunk_tokens)) for text in set(contexts)}
        known = [read[text] for text in contexts]
        return BatchedTranscription(self._recognizer, opened, known, options, batch_size).run(progress)

    def explain(
        self,
        audio: Audio,
        context: str,
        transcript: Transcript,
        separate_windows: bool = False,
        progress: Progress | None = None,
    ) -> Explanation:
        """Which words of the context each stretch of a recording attended to when it was transcribed.

        Args:
            audio: as it was transcribed.
            context: with which it was transcribed.
            transcript: that came out.
            separate_windows: it was transcribed in batches, whose windows do not hear each other's sound.
            progress: is told the seconds done and the seconds in all after every window.

        Raises:
            CwjaxError: the audio cannot be read, or there is no context.
        """
        chunks = split_context(context, self._processor, self._chunk_tokens)
        if not chunks:
            raise CwjaxError("there is no context to explain: give one")
        ids, mask = encode_chunks(chunks, self._processor, self._chunk_tokens)
        words, owners = locate_words(chunks, self._processor.context_tokenizer, ids.shape)
        known = self._recognizer.read_context(ids, mask)
        recording = Recording.open(audio)
        windows = []
        for window in explain_windows(
            self._recognizer,
            recording,
            known,
            transcript,
            owners,
            len(words),
            separate_windows or not self._knows_timestamps,
        ):
            windows.append(window)
            if progress is not None:
                progress(window.end, recording.duration)
        return Explanation(context, words, self._context_layers, tuple(windows))

    def _checked(self, options: DecodingOptions | None) -> DecodingOptions:
        options = options or DecodingOptions()
        tokens = self._processor.tokens
        if options.language is not None:
            tokens.language_code(options.language)
        if options.task == "translate" and not tokens.is_multilingual:
            raise CwjaxError("task is 'translate', but this model knows English only: use 'transcribe'")
        return options if self._knows_timestamps else replace(options, without_timestamps=True)

    def _read(self, chunks: Sequence[str]) -> ProjectedContext | None:
        if not chunks:
            return None
        return self._recognizer.read_context(*encode_chunks(chunks, self._processor, self._chunk_tokens))
