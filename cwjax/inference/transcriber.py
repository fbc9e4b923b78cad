"""A model that transcribes: one recording or many, at once or segment by segment."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from cwjax.data.examples.processor import Processor
from cwjax.errors import CwjaxError
from cwjax.inference.contexts import Contexts, listed_phrases
from cwjax.inference.engine import Engine
from cwjax.inference.growing import opened
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrases import PhraseList, Phrases
from cwjax.inference.programs import Programs
from cwjax.inference.transcript import Segment, Transcript
from cwjax.inference.transcription import Event, Request, Transcription
from cwjax.models.context_whisper import ContextWhisperConfig, context_is_inert
from cwjax.models.parameters import Parameters
from cwjax.models.phrase_spotter import PhraseSpotter

log = logging.getLogger(__name__)

BATCH_SIZE = 8
"""Most windows at once where nobody says how many."""

Progress = Callable[[float, float], None]
"""Is told the seconds done and the seconds in all."""


class Transcriber:
    """Transcribes recordings with a model. Its programs are compiled when first needed, and kept.

    Args:
        config: of the model.
        parameters: of the model; their dtype is that of the computation.
        processor: the model's inputs.
        alignment_heads: (layer, head) pairs for the times of words, see `Programs`.
        knows_timestamps: whether the model has learned them. One that has not cannot say where the speech of a window
            ends, so its windows are cut in pauses and do not depend on each other, whatever is asked for.
        int8: round weights, see `cwjax.models.quantisation`.
        find_spotter: gives the model's phrase spotter when one is needed, None if there is none.
        draft: of the model, see `Programs`.
    """

    def __init__(
        self,
        config: ContextWhisperConfig,
        parameters: Parameters,
        processor: Processor,
        alignment_heads: Sequence[tuple[int, int]] | None = None,
        knows_timestamps: bool = True,
        int8: bool = False,
        find_spotter: Callable[[], PhraseSpotter | None] = lambda: None,
        draft: Programs | None = None,
    ):
        self.programs = Programs(config, parameters, processor, alignment_heads, int8, draft)
        self._warns_of_draft = draft is not None
        self.contexts = Contexts(self.programs, config)
        self.context_layers = config.context.layers_of(config.whisper.encoder_layers) if config.context else ()
        self._warns_of_context = context_is_inert(config, parameters)
        self.phrases = Phrases(find_spotter)
        self.engine = Engine(self.programs, self.phrases)
        self.knows_timestamps = knows_timestamps

    def use(self, parameters: Parameters) -> None:
        """Goes on with other parameters of the same shapes, such as those of a later step of training."""
        self.programs.use(parameters)
        self.contexts.forget()

    def stream_many(
        self, requests: Iterable[Request], batch_size: int | None = None, threaded: bool = True
    ) -> Iterator[Event]:
        """Transcribes recordings, and tells what becomes known as soon as it does.

        Requests are asked for when there is room for them in the batches. A transcript does not depend on what else is
        transcribed at the same time. Closing the generator cancels what is not done.

        Args:
            requests: any number.
            batch_size: most windows that are decoded at once, of all requests; None: one recording after the other.
            threaded: let the engine's thread do it, which others share; False: this one.

        Raises:
            CwjaxError: `batch_size` is impossible. What is wrong with a request is an event of it.
        """
        if batch_size is not None and batch_size < 1:
            raise CwjaxError(f"batch_size is {batch_size}: it must be at least 1")
        return self._stream_many(iter(requests), batch_size, threaded)

    def _stream_many(self, requests: Iterator[Request], batch_size: int | None, threaded: bool) -> Iterator[Event]:
        events: SimpleQueue[Event] = SimpleQueue()
        running: dict[int, Transcription] = {}
        more = True
        try:
            while True:
                while more and sum(work.open_windows for work in running.values()) < (batch_size or 1):
                    request = next(requests, None)
                    more = request is not None
                    if more:
                        try:
                            running[id(request)] = self._begin(request, events.put, batch_size or BATCH_SIZE)
                        except Exception as error:
                            yield Event(request, error=error)
                        else:
                            if threaded:
                                self.engine.add(running[id(request)])
                if not running:
                    return
                if not threaded and events.empty():
                    self.engine.step(list(running.values()))
                    continue
                event = events.get()
                if event.is_last:
                    del running[id(event.request)]
                yield event
        finally:
            for work in running.values():
                work.cancel()

    def start(self, request: Request, emit: Callable[[Event], None], batch_size: int = BATCH_SIZE) -> Transcription:
        """Begins with a request on the engine's thread, which others share. What a recording needs before its first
        window is computed on the thread that calls, which may be any.

        Args:
            request: a recording.
            emit: is called with its events, on the engine's thread.
            batch_size: most windows of a batch that begins with one of its own.

        Returns: what is begun, of which `cancel` ends it at the next window, without an event.

        Raises:
            CwjaxError: the audio cannot be read, or an option does not go with the model.
        """
        work = self._begin(request, emit, batch_size)
        work.prepare()
        self.engine.add(work)
        return work

    def _begin(self, request: Request, emit: Callable[[Event], None], batch_size: int) -> Transcription:
        recording = opened(request.audio)
        options = self._checked(request.options)
        if request.context.strip() and self._warns_of_context:
            log.warning("the model's context attention is untrained (all gates are closed): no context has an effect")
            self._warns_of_context = False
        if self._warns_of_draft and not self.programs.can_draft(options):
            log.warning("the draft is of no use here: it needs beam_size none, temperature 0 and context_scale 0 or 1")
            self._warns_of_draft = False
        phrases = self._phrases(request, options)
        return Transcription(request, recording, self.programs, self.contexts, phrases, options, emit, batch_size)

    def _phrases(self, request: Request, options: DecodingOptions) -> PhraseList | None:
        """Those of the options, which need a spotter, and those of lists in the context, which use one if there is."""
        listed = tuple(listed_phrases(request.context)) if request.context.strip() else ()
        if not options.phrases and (not listed or self.phrases.spotter is None):
            return None
        return self.phrases.encode((*options.phrases, *listed))

    def stream(
        self,
        audio: Any,
        context: str = "",
        options: DecodingOptions | None = None,
        batch_size: int | None = None,
        **decoding: Any,
    ) -> Iterator[Segment]:
        """The segments of a recording, each as soon as it is known. Arguments as of `transcribe`."""
        for event in self.stream_many([Request(audio, context, _options(options, decoding))], batch_size):
            if event.error is not None:
                raise event.error
            if event.segment is not None:
                yield event.segment

    def transcribe(
        self,
        audio: Any,
        context: str = "",
        options: DecodingOptions | None = None,
        progress: Progress | None = None,
        batch_size: int | None = None,
        **decoding: Any,
    ) -> Transcript:
        """Transcribes a recording of any length; arguments and errors are those of `cwjax.model.Model.transcribe`."""
        request = Request(audio, context, _options(options, decoding))
        return next(self._transcripts([request], batch_size, progress))

    def transcribe_many(
        self,
        recordings: Sequence[Any],
        contexts: Sequence[str] | None = None,
        options: DecodingOptions | Sequence[DecodingOptions] | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
        **decoding: Any,
    ) -> list[Transcript]:
        """Transcribes several recordings, windows of all of them at once.

        Args:
            recordings: see `transcribe`.
            contexts: of each recording, empty for none; None: no context for any.
            options: how, for all or for each.
            batch_size: most windows at once.
            progress: is told the seconds done and those in all.
            decoding: fields of `DecodingOptions`, over those of `options`.

        Raises:
            CwjaxError: as of `transcribe`, or there are more or fewer contexts or options than recordings.
        """
        given = list(options) if isinstance(options, Sequence) else [options] * len(recordings)
        contexts = [""] * len(recordings) if contexts is None else contexts
        for name, values in (("contexts", contexts), ("options", given)):
            if len(values) != len(recordings):
                raise CwjaxError(f"there are {len(recordings)} recordings but {len(values)} {name}: give one for each")
        requests = [
            Request(audio, context, _options(one, decoding))
            for audio, context, one in zip(recordings, contexts, given, strict=True)
        ]
        return list(self._transcripts(requests, BATCH_SIZE if batch_size is None else batch_size, progress))

    def _transcripts(
        self, requests: Sequence[Request], batch_size: int | None, progress: Progress | None
    ) -> Iterator[Transcript]:
        transcripts: dict[int, Transcript] = {}
        done: dict[int, tuple[float, float]] = {}
        for event in self.stream_many(requests, batch_size):
            if event.error is not None:
                raise event.error
            if event.transcript is not None:
                transcripts[id(event.request)] = event.transcript
            if progress is not None and event.total and done.get(id(event.request)) != (event.done, event.total):
                done[id(event.request)] = event.done, event.total
                progress(*map(sum, zip(*done.values(), strict=True)))
        for request in requests:
            yield transcripts[id(request)]

    def detect_language(self, audio: Any, **decoding: Any) -> dict[str, float]:
        """The probability of every language that the model knows, the likeliest first.

        Arguments and errors as of `transcribe`.
        """
        request = Request(audio, options=_options(None, {**decoding, "language": None}), only_language=True)
        (transcript,) = self._transcripts([request], None, None)
        return transcript.language_probabilities

    def _checked(self, options: DecodingOptions) -> DecodingOptions:
        """The options as they hold for this model."""
        if options.language is not None:
            self.programs.tokens.language_code(options.language)
        if options.task == "translate" and not self.programs.tokens.is_multilingual:
            raise CwjaxError("task is 'translate', but this model knows English only: use 'transcribe'")
        if self.knows_timestamps:
            return options
        return dataclasses.replace(options, without_timestamps=True, independent_windows=True)


def _options(options: DecodingOptions | None, decoding: dict[str, Any]) -> DecodingOptions:
    """The options with some of them replaced."""
    try:
        return dataclasses.replace(options or DecodingOptions(), **decoding)
    except TypeError:
        known = DecodingOptions.__dataclass_fields__
        unknown = ", ".join(name for name in decoding if name not in known)
        raise CwjaxError(f"no option is called {unknown}; DecodingOptions has {', '.join(known)}") from None
