"""A whole model for people who write Python: `cwjax.load`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from cwjax.data.examples.processor import Processor
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Progress, Transcriber
from cwjax.inference.transcript import Segment, Transcript
from cwjax.inference.transcription import Event, Request
from cwjax.machine import compute_dtype, find_device, keep_compiled_programs
from cwjax.models.audio_encoder import ContextStates
from cwjax.models.context_whisper import ContextWhisperConfig, abstract, context_is_inert
from cwjax.models.parameters import Parameters
from cwjax.weights.name_table import as_tree
from cwjax.weights.opening import OpenedModel, open_model
from cwjax.weights.sources import locate
from cwjax.weights.spotter_files import load_spotter

if TYPE_CHECKING:
    from cwjax.evaluation.explanation import Explanation


@dataclass(frozen=True)
class Model:
    """A ContextWhisper with its parameters on the default device.

    Shapes: B batch, S context tokens, E width of the text encoder, F mel frames, M mels, A audio positions, D width,
    T target tokens, V vocabulary.

    Attributes:
        config: its sizes.
        params: the tree of parameters.
        source: where it was loaded from.
        int8: whether it transcribes with weights rounded to int8; `params` are as they were.
        draft: a smaller model that guesses for it.
        spotter_file: of its phrase spotter; None: the package's, if that has one for it.
    """

    config: ContextWhisperConfig
    params: Parameters
    source: OpenedModel
    int8: bool = False
    draft: "Model | None" = None
    spotter_file: Path | None = None

    @property
    def takes_context(self) -> bool:
        """Whether there is a text encoder; False: a stock Whisper, which can be given no context."""
        return self.config.takes_context

    @cached_property
    def context_is_inert(self) -> bool:
        """Whether a context changes nothing: there is no text encoder, or every gate is exactly zero."""
        return context_is_inert(self.config, self.params)

    @property
    def spots_phrases(self) -> bool:
        """Whether there is a phrase spotter for this model, so that it can be given `phrases`."""
        return self.transcriber.phrases.spotter is not None

    @property
    def tokens(self) -> WhisperTokens:
        """The Whisper tokenizer."""
        return self.processor.tokens

    @cached_property
    def processor(self) -> Processor:
        """From sound and text to arrays.

        Raises:
            CwjaxError: the directory has no tokenizers, as happens with converted weights that came without.
        """
        return self.source.processor()

    def encode_context(self, ids: jax.Array, mask: jax.Array) -> ContextStates:
        """Reads contexts, once for all windows of a recording: (B, S) int and (B, S) bool, False at padding."""
        return _encode_context(self._graphdef, self.params, jnp.asarray(ids), jnp.asarray(mask))

    def encode(self, features: jax.Array, states: ContextStates | None = None) -> jax.Array:
        """Encodes log-mel features (B, F, M) -> (B, A, D); without `states` as stock Whisper does."""
        return _encode(self._graphdef, self.params, jnp.asarray(features), states)

    def decode(self, tokens: jax.Array, audio: jax.Array) -> jax.Array:
        """Logits of the next tokens: (B, T) int and (B, A, D) -> (B, T, V) float32."""
        return _decode(self._graphdef, self.params, jnp.asarray(tokens), audio)

    def transcribe(
        self,
        audio: Any,
        context: str = "",
        options: DecodingOptions | None = None,
        progress: Progress | None = None,
        **decoding: Any,
    ) -> Transcript:
        """Transcribes a recording of any length.

            model.transcribe("talk.mp3", context="bee keeping; names: Ada, Bo", language="en", word_timestamps=True)

        Args:
            audio: a file, bytes, a file object, samples, or a recording, see `cwjax.inference.audio.Recording.open`; or
                an iterator of blocks of samples, each (n,) or (n, channels) at 16 kHz, whose windows are decoded as
                they come, see `cwjax.inference.growing.GrowingRecording`.
            context: what is known about the recording: sentences, or lists such as "names: Ann, Bob".
            options: how.
            progress: is told the seconds done and the seconds in all after every window.
            decoding: fields of `DecodingOptions`, over those of `options`; and `batch_size`, most windows at once,
                which matters with `independent_windows`.

        Raises:
            CwjaxError: the audio cannot be read, an option does not go with the model, or tokenizers are missing.
        """
        return self.transcriber.transcribe(audio, context, options, progress, **decoding)

    def stream(
        self, audio: Any, context: str = "", options: DecodingOptions | None = None, **decoding: Any
    ) -> Iterator[Segment]:
        """The segments of a recording, each as soon as it is known; arguments and errors as of `transcribe`.

        Leave the loop, or close the iterator, and the transcription ends after the window it is at.
        """
        return self.transcriber.stream(audio, context, options, **decoding)

    def transcribe_many(self, recordings: Sequence[Any], *arguments: Any, **decoding: Any) -> list[Transcript]:
        """Transcribes several recordings, windows of all of them at once; see `Transcriber.transcribe_many`."""
        return self.transcriber.transcribe_many(recordings, *arguments, **decoding)

    def stream_many(self, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[Event]:
        """What becomes known of many recordings, as soon as it does; see `Transcriber.stream_many`."""
        return self.transcriber.stream_many(requests, batch_size)

    def detect_language(self, audio: Any, **decoding: Any) -> dict[str, float]:
        """The probability of every language, the likeliest first; arguments and errors as of `transcribe`."""
        return self.transcriber.detect_language(audio, **decoding)

    def explain(self, audio: Any, context: str, transcript: Transcript, *arguments: Any) -> "Explanation":
        """Which words of the context each stretch attended to; see `cwjax.evaluation.explanation.explain`."""
        from cwjax.evaluation.explanation import explain

        return explain(self.transcriber, audio, context, transcript, *arguments)

    @cached_property
    def transcriber(self) -> Transcriber:
        """All ways to transcribe, with the model's compiled programs."""
        heads = self.source.generation().get("alignment_heads")
        timestamps = self.source.facts().get("timestamps", True)
        draft = self.draft and self.draft.transcriber.programs
        find_spotter = partial(load_spotter, self, self.spotter_file)
        given = (self.config, self.params, self.processor, heads, timestamps, self.int8)
        return Transcriber(*given, find_spotter, draft)

    def save(self, directory: str | Path) -> None:
        """Writes a model directory with these parameters; one that is there already is replaced.

        Raises:
            CwjaxError: it cannot be written.
        """
        self.source.save(Path(directory), self.params)

    def push_to_hub(self, repository: str, private: bool = False, license: str = "") -> str:
        """Uploads the model to the Hugging Face hub and gives the address of the commit.

        Args:
            repository: OWNER/NAME; made if it does not exist.
            private: nobody else may see it.
            license: of the weights, by the hub's name for it, such as apache-2.0.

        Raises:
            CwjaxError: there is no token, the hub cannot be reached, or it refuses.
        """
        import tempfile

        from cwjax.weights.hub_upload import contents_of, upload

        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "model"
            self.save(directory)
            return upload(repository, contents_of(directory, repository, license), private)

    @cached_property
    def _graphdef(self) -> nnx.GraphDef:
        return abstract(self.config)[0]


def load(
    source: str | Path,
    *,
    dtype: Any = None,
    device: str | None = None,
    draft: str | Path | None = None,
    spotter: str | Path | None = None,
) -> Model:
    """Loads a model: ours, or a stock Whisper, which takes no context.

    Args:
        source: a model directory; a directory with a Whisper of Hugging Face or CTranslate2 (faster-whisper); one of
            OpenAI's `.pt` files; a hub id OWNER/NAME of any of them; or the name of a published Whisper, such as
            "tiny", "small.en", "large-v3", "turbo" or "distil-large-v3".
        dtype: what to compute in: "float32", "bfloat16" or "float16"; "int8": with the largest weights rounded to that,
            the rest in float32, which saves time on CPUs; None: bfloat16 on GPUs and TPUs, else float32.
        device: such as "cpu", "gpu" or "cuda:1"; None: JAX's first.
        draft: a smaller Whisper of the same tokens, whose guesses the model confirms or corrects: greedy decoding is
            faster where most are right, and its text the same. "tiny" goes with "base" to "large-v2", "turbo" and
            "distil-large-v3" with "large-v3".
        spotter: file of a phrase spotter that launch/train_spotter.py trained for this model; None: the one that comes
            with the package, if there is one for it.

    Raises:
        CwjaxError: it is neither here nor can be fetched, or it is damaged or another kind of model; or there is no
            such dtype or device; or the draft has other tokens; or the spotter is another model's.
    """
    keep_compiled_programs()
    opened = open_model(locate(str(source)))
    chosen = find_device(device)
    int8 = dtype == "int8"
    parameters = as_tree(opened.parameters(), compute_dtype("float32" if int8 else dtype, chosen))
    helper = None if draft is None else load(draft, dtype=dtype, device=device)
    file = None if spotter is None else Path(spotter)
    model = Model(opened.config, jax.device_put(parameters, chosen), opened, int8, helper, file)
    if helper is not None or file is not None:
        _ = model.transcriber.phrases.spotter  # refuses what does not go together
    return model


@partial(jax.jit, static_argnums=0)
def _encode_context(graphdef: nnx.GraphDef, params: Parameters, ids: jax.Array, mask: jax.Array) -> ContextStates:
    return nnx.merge(graphdef, params).encode_context(ids, mask)


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, params: Parameters, features: jax.Array, states: ContextStates | None) -> jax.Array:
    model = nnx.merge(graphdef, params)
    return model.encode(features.astype(model.decoder.positions.dtype), states)


@partial(jax.jit, static_argnums=0)
def _decode(graphdef: nnx.GraphDef, params: Parameters, tokens: jax.Array, audio: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, params).decode(tokens, audio)
