"""`cwjax transcribe`: recordings to transcripts, each written as soon as it is done."""

import argparse
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cwjax.commands.audio_files import AudioFile, AudioFiles, read_text
from cwjax.commands.comparison import comparison
from cwjax.commands.outputs import Outputs
from cwjax.commands.progress import AudioProgress, clock
from cwjax.commands.terminal import InOrder, printable, say_error
from cwjax.commands.transcribe_options import decoding_options, parse_options, subtitle_layout
from cwjax.errors import CwjaxError
from cwjax.files import write_text
from cwjax.inference.options import NO_SPOTTER, DecodingOptions
from cwjax.inference.transcript import Segment, Transcript, Word
from cwjax.inference.writers import save_transcript, timestamp

log = logging.getLogger(__name__)

SOURCE_ENDS = 1.0
"""Seconds that the source of a live recording has to end by itself, when it is interrupted."""
EMBEDDED_SECONDS = 600
"""Longer recordings are not put into the page that explains them, which then plays the file itself."""


def transcribe(arguments: Sequence[str], debug: bool = False) -> int:
    """Runs the command.

    Args:
        arguments: after its name.
        debug: show the traceback of what goes wrong with a file.

    Returns:
        Exit status: 1 if any file failed.

    Raises:
        CwjaxError: nothing can be transcribed as asked; what can be known is known before the model is loaded.
    """
    with closing(TranscribeCommand(parse_options(arguments), debug)) as command:
        return command.run()


@dataclass
class _Job:
    """A recording that is being transcribed; each of its channels may be transcribed by itself.

    Attributes:
        file: the recording.
        channels: to transcribe, counted from 0; None: all together.
        speakers: what the channels are called.
        done: seconds of each channel that are done.
        transcripts: of the channels that are done.
    """

    file: AudioFile
    channels: Sequence[int | None]
    speakers: Sequence[str]
    done: dict[int, float] = field(default_factory=dict)
    transcripts: dict[int, Transcript] = field(default_factory=dict)


class TranscribeCommand:
    """One run of the command.

    Args:
        options: of `parse_options`.
        debug: show the traceback of what goes wrong with a file.
    """

    def __init__(self, options: argparse.Namespace, debug: bool):
        self._options, self._debug = options, debug
        self._decoding, self._layout = decoding_options(options), subtitle_layout(options)
        _check(options)
        _check_live(options)
        context = _common_context(options)
        self._outputs = Outputs(Path(options.output_dir), [*options.output_format, *["html"] * options.explain])
        self._live: Any = None
        self._inputs = AudioFiles([] if options.live else options.audio, options.list, context)
        self._files = self._inputs.files
        if options.live:
            name = "stdin" if options.audio == ["-"] else Path(options.audio[0]).name
            self._files = [AudioFile(Path(name), context, name, printable(name))]
        self._failed: set[str] = set()
        self._done, self._seconds = 0, 0.0
        self._has_phrases = any(line.strip() for line in self._decoding.phrases)
        self._takes_context = True

    def close(self) -> None:
        """Removes what was kept for the run alone, and listens no more."""
        if self._live is not None:
            self._live.end()
        self._inputs.close()

    def run(self) -> int:
        """Loads the model and transcribes; gives the exit status."""
        self._choose_files()
        if not self._files:
            return 1 if self._inputs.missing else 0
        self._load()
        began, total = time.monotonic(), len(self._files) + len(self._inputs.missing)
        try:
            with _ended_by_interrupt(self._live):
                self._transcribe()
        except KeyboardInterrupt:
            log.info("%d of %d recordings were transcribed, into %s", self._done, total, self._options.output_dir)
            raise
        except CwjaxError:
            raise
        except Exception as error:
            raise CwjaxError(
                f"transcription broke off after {self._done} of {total} recordings ({_one_line(error)}); "
                "what is done is written"
            ) from error
        taken = max(time.monotonic() - began, 1e-3)
        log.info(
            "%d of %d recordings transcribed, into %s: %s of audio in %.1f s, %.1f x real time",
            self._done,
            total,
            self._options.output_dir,
            clock(self._seconds),
            taken,
            self._seconds / taken,
        )
        return 1 if self._failed or self._inputs.missing else 0

    def _choose_files(self) -> None:
        """All that can be known to be wrong before the model is loaded."""
        options = self._options
        for line in self._inputs.missing:
            say_error(line)
        if not self._files and not self._inputs.missing:
            raise CwjaxError("transcribe: no audio to transcribe; name files, or a --list of them")
        told = self._has_phrases or any(file.context.strip() for file in self._files)
        for name in ("compare_context", "explain"):
            if self._files and getattr(options, name) and not told:
                raise CwjaxError(
                    f"--{name.replace('_', '-')} needs a context or phrases: give --context, --phrases, or a context "
                    "in the --list"
                )
        inputs = [file.path for file in self._files]
        named = (options.context_file, options.list, options.phrases)
        inputs += [Path(name) for name in named if name is not None]
        if options.skip_existing:
            missing = [file for file in self._files if not self._outputs.exist(file)]
            log.info(
                "%d of %d recordings have their transcripts already", len(self._files) - len(missing), len(self._files)
            )
            self._files = missing
        self._outputs.prepare(self._files, inputs, options.overwrite)
        if options.live and self._files:
            self._live = listen(options.audio[0], options.pcm, options.channel)

    def _load(self) -> None:
        options = self._options
        if options.threads is not None:
            from cwjax.machine import set_threads

            set_threads(options.threads)
        dtype = options.compute_dtype or {None: None, True: "float16", False: "float32"}[options.fp16]
        self._model = load_model(options.model, dtype, options.device, options.draft, options.spotter)
        if options.language is not None:
            self._model.tokens.language_code(options.language)
        if self._has_phrases and not self._model.spots_phrases:
            raise CwjaxError(f"{options.model}: {NO_SPOTTER}")
        if not any(file.context.strip() for file in self._files):
            return
        self._takes_context = self._model.takes_context
        if self._takes_context:
            return
        if (options.compare_context or options.explain) and not any(map(self._is_told, self._files)):
            raise CwjaxError(f"{options.model}: is a stock Whisper and takes no context that could be shown")
        used = "only the lists in it are used" if self._model.spots_phrases else "it is left out"
        log.warning("%s: is a stock Whisper and takes no context: %s", options.model, used)

    def _transcribe(self) -> None:
        shown = self._options.compare_context or self._options.explain
        transcripts: dict[str, Transcript] = {}
        lines = InOrder({file.name: file.label if len(self._files) > 1 else "" for file in self._files})
        for file, transcript in self._stream(self._files, lines, self._options.verbose):
            with self._noting_failure(file, lines):
                self._finish(file, transcript)
                if shown and self._is_told(file):
                    transcripts[file.name] = transcript
                elif shown:
                    log.warning(
                        "%s: has neither context nor phrases, so there is nothing to compare or to explain", file.label
                    )
        if transcripts:
            self._show_what_context_does(transcripts)

    def _show_what_context_does(self, transcripts: dict[str, Transcript]) -> None:
        """Compares with transcripts made without context and phrases, and explains."""
        files = [file for file in self._files if file.name in transcripts]
        lines = InOrder({file.name: file.label for file in files})
        for file, without in self._stream(files, lines, verbose=False, plain=True):
            with self._noting_failure(file, lines):
                if self._options.compare_context:
                    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
                    texts = (printable(transcript.text) for transcript in (without, transcripts[file.name]))
                    lines.add(file.name, comparison(*texts, colour))
                if self._options.explain:
                    self._explain(file, transcripts[file.name], without)
            lines.close(file.name)

    def _stream(
        self, files: Sequence[AudioFile], lines: InOrder, verbose: bool, plain: bool = False
    ) -> Iterator[tuple[AudioFile, Transcript]]:
        """Transcripts in the order in which they are done; their segments are printed before, if `verbose`.

        `plain`: made without what is known about the recordings.
        """
        from cwjax.inference.transcription import Request

        jobs: dict[int, tuple[_Job, int, Request]] = {}

        def requests() -> Iterator[Request]:
            for file in files:
                with self._noting_failure(file, lines):
                    job = self._job(file)
                    for place, channel in enumerate(job.channels):
                        audio = self._live
                        if audio is None:
                            audio = file.path if channel is None else open_recording(file.path, channel)
                        told = ("", replace(self._decoding, phrases=())) if plain else self._told(file)
                        request = Request(audio, *told, name=file.label)
                        jobs[id(request)] = job, place, request
                        yield request

        name = files[0].label if len(files) == 1 else "transcribing"
        with (
            AudioProgress(name, len(files)) as progress,
            closing(self._model.stream_many(requests(), self._options.batch_size)) as events,
        ):
            for event in events:
                job, place, _ = jobs[id(event.request)]
                file, alone = job.file, len(job.channels) == 1
                if event.transcript is not None or event.error is not None:
                    del jobs[id(event.request)]
                if file.name in self._failed:
                    continue
                job.done[place] = event.done
                progress(sum(job.done.values()) / len(job.channels), event.total, file.name)
                if event.error is not None:
                    with self._noting_failure(file, lines):
                        raise event.error
                if event.segment is not None and verbose and alone:
                    _add(lines, file, event.segment)
                if event.transcript is None:
                    continue
                job.transcripts[place] = event.transcript
                if len(job.transcripts) == len(job.channels):
                    transcript = join_channels(
                        [job.transcripts[place] for place in range(len(job.channels))], job.speakers
                    )
                    for segment in transcript.segments if verbose and not alone else ():
                        _add(lines, file, segment)
                    if verbose:
                        _add_phrases(lines, file, transcript)
                        lines.close(file.name)
                    yield file, transcript

    def _job(self, file: AudioFile) -> _Job:
        if self._options.channel != "each":
            return _Job(file, [self._options.channel], [""])
        count = channels_of(file.path)
        speakers = {1: [""], 2: ["left", "right"]}.get(count, [f"channel {place + 1}" for place in range(count)])
        return _Job(file, range(count), speakers)

    def _told(self, file: AudioFile) -> tuple[str, DecodingOptions]:
        """The context of a recording and its options; a stock Whisper can use only the phrases in the context."""
        if self._takes_context or not file.context.strip():
            return file.context, self._decoding
        from cwjax.inference.contexts import listed_phrases

        if not self._model.spots_phrases:
            return "", self._decoding
        return "", replace(self._decoding, phrases=(*self._decoding.phrases, *listed_phrases(file.context)))

    def _is_told(self, file: AudioFile) -> bool:
        context, options = self._told(file)
        return bool(context.strip() or any(phrase.strip() for phrase in options.phrases))

    def _finish(self, file: AudioFile, transcript: Transcript) -> None:
        """Writes a transcript, and says what it does not tell."""
        for path in self._outputs.of(file)[: len(self._options.output_format)]:
            save_transcript(transcript, path, self._layout)
            self._outputs.note(path)
        self._done += 1
        self._seconds += transcript.duration
        if probability := transcript.language_probabilities.get(transcript.language):
            log.info("%s: language %s (%.0f %%)", file.label, transcript.language, 100 * probability)
        if transcript.phrases:
            log.info("%s: %d phrases heard", file.label, len(transcript.phrases))
        for reason in dict.fromkeys(one.reason for one in transcript.skipped):
            stretches = [one.end - one.start for one in transcript.skipped if one.reason == reason]
            log.info("%s: %.1f s left out (%s), in %d stretches", file.label, sum(stretches), reason, len(stretches))

    def _explain(self, file: AudioFile, transcript: Transcript, without: Transcript) -> None:
        from cwjax.evaluation.explanation_page import explanation_page
        from cwjax.pages import audio_uri

        page = self._outputs.of(file)[-1]
        recording = open_recording(file.path, self._options.channel)
        with AudioProgress(f"{file.label}, explaining") as progress:
            separate = self._decoding.independent_windows or self._decoding.vad != "none"
            explanation = self._model.explain(recording, self._told(file)[0], transcript, separate, progress)
        if recording.duration <= EMBEDDED_SECONDS or printable(file.path) != file.label:
            audio = audio_uri(recording.samples)
        else:
            audio = quote(os.fsencode(Path(os.path.relpath(file.path, page.parent)).as_posix()))
        title = Path(file.label).name
        try:
            write_text(page, explanation_page(title, audio, recording.samples, transcript, without, explanation))
        except OSError as error:
            raise CwjaxError(f"{page}: cannot be written ({error.strerror}); choose another --output-dir") from error
        self._outputs.note(page)
        log.info("%s: explained in %s", file.label, page)

    @contextmanager
    def _noting_failure(self, file: AudioFile, lines: InOrder) -> Iterator[None]:
        """What goes wrong with one file is said in one line, and the others are still done."""
        try:
            yield
        except Exception as error:
            self._failed.add(file.name)
            if self._debug:
                traceback.print_exc()
            reason = printable(error if isinstance(error, CwjaxError) else f"failed ({_one_line(error)})")
            reason = reason.replace(printable(file.path), file.label)
            say_error(reason if file.label in reason else f"{file.label}: {reason}")
            lines.close(file.name)


def load_model(source: str, dtype: str | None, device: str | None, draft: str | None, spotter: str | None) -> Any:
    """A model; late, because JAX is slow to load."""
    import cwjax

    return cwjax.load(source, dtype=dtype, device=device, draft=draft, spotter=spotter)


def open_recording(path: Path, channel: int | None) -> Any:
    """A recording in memory; one channel of it, counted from 0, or None: their mean."""
    from cwjax.inference.audio import Recording

    return Recording.open(path, channel=channel)


def listen(name: str, pcm: str | None, channel: int | None) -> Any:
    """What comes through a pipe as a recording, which takes it in from now on."""
    from cwjax.inference.growing import GrowingRecording

    try:
        # Without a buffer, whose lock a thread that still reads would hold when the program ends.
        pipe = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer) if name == "-" else io.FileIO(name)
    except OSError as error:
        raise CwjaxError(f"{name}: cannot be read ({error.strerror}); check the path and its permissions") from None
    return GrowingRecording.of(pipe, pcm=pcm, channel=channel)


@contextmanager
def _ended_by_interrupt(live: Any) -> Iterator[None]:
    """Lets a first Ctrl-C end a live recording, whose source may end by it, too; what has come is still transcribed."""

    def end(*_: Any) -> None:
        signal.signal(signal.SIGINT, before)
        threading.Timer(SOURCE_ENDS, live.end).start()

    if live is None:
        yield
        return
    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def channels_of(path: Path) -> int:
    """How many channels a recording has."""
    from cwjax.data.audio import decode as audio

    return audio.channels_of(path)


def join_channels(transcripts: Sequence[Transcript], speakers: Sequence[str]) -> Transcript:
    """One transcript of several speakers, in order of time; its language is that of the one with most text."""
    if len(transcripts) == 1:
        return transcripts[0]
    pairs = list(zip(transcripts, speakers, strict=True))
    said = [replace(one, speaker=speaker) for transcript, speaker in pairs for one in transcript.segments]
    said.sort(key=lambda segment: (segment.start, segment.end))
    skipped = [
        replace(one, reason=f"{speaker}: {one.reason}") for transcript, speaker in pairs for one in transcript.skipped
    ]
    main = max(transcripts, key=lambda transcript: len(transcript.text))
    return replace(
        main,
        text="".join(segment.text for segment in said),
        segments=tuple(replace(segment, id=number) for number, segment in enumerate(said)),
        duration=max(transcript.duration for transcript in transcripts),
        skipped=tuple(sorted(skipped, key=lambda one: one.start)),
        phrases=tuple(sorted((one for some in transcripts for one in some.phrases), key=lambda one: one.start)),
    )


def _add(lines: InOrder, file: AudioFile, segment: Segment) -> None:
    if segment.text.strip():
        speaker = f" {segment.speaker}:" if segment.speaker else ""
        lines.add(file.name, f"{_times(segment)}{speaker} {printable(segment.text)}")


def _add_phrases(lines: InOrder, file: AudioFile, transcript: Transcript) -> None:
    """The phrases that were heard, and whether they are written there."""
    from cwjax.inference.phrases import is_written

    for phrase in transcript.phrases:
        written = "written" if is_written(phrase, transcript.segments) else "not written"
        heard = f"heard “{printable(phrase.text)}” ({100 * phrase.probability:.0f} %), {written}"
        lines.add(file.name, f"{_times(phrase)} {heard}")


def _times(stretch: Segment | Word) -> str:
    return f"[{timestamp(stretch.start)} --> {timestamp(stretch.end)}]"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _check(options: argparse.Namespace) -> None:
    for name in ("batch_size", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise CwjaxError(f"--{name.replace('_', '-')} is {getattr(options, name)}: it must be at least 1, or none")
    if options.explain and options.context_from_history:
        raise CwjaxError("--explain shows one context for the whole recording: leave out --context-from-history")
    if options.explain and options.channel == "each":
        raise CwjaxError("--explain shows one channel: choose it by --channel")
    if options.overwrite and options.skip_existing:
        raise CwjaxError("--overwrite replaces what --skip-existing leaves alone: leave one out")


def _check_live(options: argparse.Namespace) -> None:
    if not options.live:
        if options.pcm is not None:
            raise CwjaxError("--pcm tells the format of what comes --live: add that, or leave it out")
        return
    if len(options.audio) != 1 or options.list is not None or Path(options.audio[0]).is_file():
        raise CwjaxError("--live transcribes one recording, that comes through a pipe: give its name, or - for stdin")
    if options.audio == ["-"] and sys.stdin.isatty():
        raise CwjaxError("stdin is a terminal: pipe a recording into it")
    for name in ("compare_context", "explain"):
        if getattr(options, name):
            raise CwjaxError(f"--{name.replace('_', '-')} has to hear the recording twice: leave out --live")
    if options.channel == "each":
        raise CwjaxError("--live transcribes one channel: choose it by --channel, or leave it out for all together")


def _common_context(options: argparse.Namespace) -> str:
    if options.context_file is None:
        return options.context
    if options.context:
        raise CwjaxError("--context and --context-file both give the context of all recordings: leave one out")
    return read_text(options.context_file)
