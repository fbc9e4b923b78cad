"""`cwjax transcribe`: recordings to transcripts, each written as soon as it is done."""

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from cwjax.commands.audio_files import AudioFile, gather_audio_files, read_text
from cwjax.commands.comparison import comparison
from cwjax.commands.progress import AudioProgress, clock
from cwjax.commands.transcribe_options import decoding_options, parse_options, subtitle_layout
from cwjax.data.audio import read_audio
from cwjax.data.log_mel import SAMPLING_RATE
from cwjax.errors import CwjaxError
from cwjax.files import write_text
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcript import Transcript
from cwjax.inference.writers import FORMATS, timestamp, write_transcript

log = logging.getLogger(__name__)

BATCHES_AT_ONCE = 4
"""Recordings are gathered until they fill so many batches: enough to keep batches full, little to lose."""
EMBEDDED_SECONDS = 600
"""Longer recordings are not put into the page that explains them, which then plays the file itself."""

Loaded = tuple[AudioFile, np.ndarray]


def transcribe(arguments: Sequence[str], debug: bool = False) -> int:
    """Runs the command.

    Args:
        arguments: behind its name.
        debug: show the traceback of what goes wrong with a file.

    Returns:
        Exit status: 1 if any file failed.

    Raises:
        CwjaxError: nothing can be transcribed as asked; what can be known is known before the model is loaded.
    """
    return TranscribeCommand(parse_options(arguments), debug).run()


class TranscribeCommand:
    """One run of the command.

    Args:
        options: of `parse_options`.
        debug: show the traceback of what goes wrong with a file.
    """

    def __init__(self, options: argparse.Namespace, debug: bool):
        self._options, self._debug = options, debug
        self._decoding: DecodingOptions = decoding_options(options)
        self._layout = subtitle_layout(options)
        self._formats = tuple(FORMATS) if options.output_format == "all" else (options.output_format,)
        _check_combinations(options)
        self._files = gather_audio_files(options.audio, options.list, _common_context(options))
        if not self._files:
            raise CwjaxError("transcribe: no audio to transcribe; name files, or a --list of them")
        for name in ("compare_context", "explain"):
            if getattr(options, name) and not any(file.context.strip() for file in self._files):
                raise CwjaxError(f"--{name.replace('_', '-')} needs a context: give --context, or one in the --list")
        self._output = _writable_folder(Path(options.output_dir))
        self._failed: set[AudioFile] = set()

    def run(self) -> int:
        """Loads the model and transcribes; gives the exit status."""
        self._transcriber, self._processor = load_transcriber(self._options.model)
        if self._options.language is not None:
            self._processor.tokens.language_code(self._options.language)
        for group in self._groups():
            self._transcribe_group(group)
            group.clear()  # before the next is read
        if len(self._files) > 1 or self._failed:
            done = len(self._files) - len(self._failed)
            log.info("%d of %d recordings transcribed, into %s", done, len(self._files), self._output)
        return 1 if self._failed else 0

    def _groups(self) -> Iterator[list[Loaded]]:
        """The files that can be read, one at a time or, in batches, as many as keep them full."""
        enough = BATCHES_AT_ONCE * (self._options.batch_size or 0)
        group: list[Loaded] = []
        for file in self._files:
            with self._noting_failure(file):
                group.append((file, read_audio(file.path)))
            windows = sum(len(samples) / self._processor.window_samples for _, samples in group)
            if group and windows >= enough:
                yield group
                group = []
        if group:
            yield group

    def _transcribe_group(self, group: list[Loaded]) -> None:
        """Transcribes several recordings, and where that fails each for itself, so that only the guilty fail."""
        began = time.monotonic()
        try:
            transcripts = self._transcripts(group, [file.context for file, _ in group])
        except Exception as error:
            if len(group) > 1:
                for one in group:
                    self._transcribe_group([one])
                return
            with self._noting_failure(group[0][0]):
                raise error
            return
        taken, length = max(time.monotonic() - began, 1e-3), _seconds(group)
        log.info("%s: %s of audio in %.1f s, %.1f x real time", _name(group), clock(length), taken, length / taken)
        for one, transcript in zip(group, transcripts, strict=True):
            with self._noting_failure(one[0]):
                self._write(one[0], transcript)
        if self._options.compare_context or self._options.explain:
            self._show_what_context_does(group, transcripts)

    def _transcripts(self, group: list[Loaded], contexts: list[str]) -> list[Transcript]:
        recordings = [samples for _, samples in group]
        with AudioProgress(_name(group)) as progress:
            if self._options.batch_size is None:
                return [self._transcriber.transcribe(recordings[0], contexts[0], self._decoding, progress)]
            return self._transcriber.transcribe_batched(
                recordings, contexts, self._decoding, self._options.batch_size, progress
            )

    def _write(self, file: AudioFile, transcript: Transcript) -> None:
        write_transcript(transcript, self._output, file.name, self._formats, self._layout)
        if not self._options.verbose:
            return
        if len(self._files) > 1:
            print(f"{file.path}:")
        for segment in transcript.segments:
            if segment.text.strip():
                print(f"[{timestamp(segment.start)} --> {timestamp(segment.end)}] {segment.text}", flush=True)

    def _show_what_context_does(self, group: list[Loaded], transcripts: list[Transcript]) -> None:
        """Compares with transcripts made without context, and explains."""
        for one, transcript in zip(group, transcripts, strict=True):
            file, samples = one
            if not file.context.strip():
                log.warning("%s: has no context, so there is nothing to compare or to explain", file.path)
                continue
            with self._noting_failure(file):
                (without,) = self._transcripts([one], [""])
                if self._options.compare_context:
                    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
                    print(f"{file.path}:\n{comparison(without.text, transcript.text, colour)}", flush=True)
                if self._options.explain:
                    self._explain(file, samples, transcript, without)

    def _explain(self, file: AudioFile, samples: np.ndarray, transcript: Transcript, without: Transcript) -> None:
        from cwjax.evaluation.explanation_page import explanation_page
        from cwjax.evaluation.page import audio_uri

        in_batches = self._options.batch_size is not None
        with AudioProgress(f"{file.path.name}, explaining") as progress:
            explanation = self._transcriber.explain(samples, file.context, transcript, in_batches, progress)
        if len(samples) <= EMBEDDED_SECONDS * SAMPLING_RATE:
            audio = audio_uri(samples)
        else:
            audio = quote(Path(os.path.relpath(file.path, self._output)).as_posix())
        page = self._output / f"{file.name}.html"
        try:
            write_text(page, explanation_page(file.path.name, audio, samples, transcript, without, explanation))
        except OSError as error:
            raise CwjaxError(f"{page}: cannot be written ({error.strerror}); choose another --output-dir") from error
        log.info("%s: explained in %s", file.path, page)

    @contextmanager
    def _noting_failure(self, file: AudioFile) -> Iterator[None]:
        """What goes wrong with one file is said in one line, and the others are still done."""
        try:
            yield
        except Exception as error:
            self._failed.add(file)
            if self._debug:
                traceback.print_exc()
            reason = str(error) if isinstance(error, CwjaxError) else f"failed ({type(error).__name__}: {error})"
            reason = " ".join(reason.split())
            named = reason if str(file.path) in reason else f"{file.path}: {reason}"
            print(f"cwjax: error: {named}", file=sys.stderr, flush=True)


def load_transcriber(directory: str) -> tuple[Any, Any]:
    """The model of a directory, ready to transcribe, and what knows its inputs."""
    from cwjax.model import load

    model = load(directory)
    return model.transcriber, model.processor


def _name(group: list[Loaded]) -> str:
    return group[0][0].path.name if len(group) == 1 else f"{len(group)} recordings"


def _seconds(group: list[Loaded]) -> float:
    return sum(len(samples) for _, samples in group) / SAMPLING_RATE


def _check_combinations(options: argparse.Namespace) -> None:
    if options.batch_size is not None and options.batch_size < 1:
        raise CwjaxError(f"--batch-size is {options.batch_size}: it must be at least 1, or none")
    if options.batch_size is not None and options.context_from_history:
        raise CwjaxError("--context-from-history needs one window after the other: leave out --batch-size")
    if options.batch_size is not None and options.hallucination_silence_threshold is not None:
        raise CwjaxError("--hallucination-silence-threshold needs one window after the other: leave out --batch-size")
    if options.explain and options.context_from_history:
        raise CwjaxError("--explain shows one context for the whole recording: leave out --context-from-history")


def _common_context(options: argparse.Namespace) -> str:
    if options.context_file is None:
        return options.context
    if options.context:
        raise CwjaxError("--context and --context-file both give the context of all recordings: leave one out")
    return read_text(options.context_file)


def _writable_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise CwjaxError(f"--output-dir {folder}: cannot be written ({error.strerror}); choose another") from error
