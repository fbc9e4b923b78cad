"""The engine: windows of all transcriptions at work in shared batches, on one thread that owns the device.

A transcription hands out jobs, one for each window that can be decoded now, and receives their results; what it makes
of them is its own business (see `cwjax.inference.windows`). The engine takes jobs round-robin from all
transcriptions, batches those that the same compiled programs can do, and knows nothing of recordings beyond a window.
"""

import atexit
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.inference.audio import FRAMES_PER_SECOND
from cwjax.inference.decoding import EncodedAudio
from cwjax.inference.growing import POLL
from cwjax.inference.jobs import WindowJob, WindowResult, Work
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrase_checks import is_echo, skips_speech, writes_more
from cwjax.inference.phrases import UNHEARD, Phrases, boosted, is_written, occurrences, shown
from cwjax.inference.programs import Programs, filled_up, join_windows, select_windows
from cwjax.inference.segments import Cut, DecodedWindow, cut_into_segments
from cwjax.inference.timing import Alignment
from cwjax.inference.transcript import Word
from cwjax.models.placement import is_split, platform

log = logging.getLogger(__name__)


_ENGINES: weakref.WeakSet["Engine"] = weakref.WeakSet()


@atexit.register
def _stop_engines() -> None:
    for engine in list(_ENGINES):
        engine.stop()


class Engine:
    """Does the jobs of any number of transcriptions at once.

    Args:
        programs: the model.
        phrases: the model's lists of phrases; None where no job has any.

    Attributes:
        on_batch: is told the number of windows of every batch.
    """

    def __init__(self, programs: Programs, phrases: Phrases | None = None):
        self.programs = programs
        self._phrases = phrases
        self.on_batch: Callable[[int], None] | None = None
        self._most_windows = 1 << 30  # that memory is not known to be too small for
        self._works: list[Work] = []
        self._batches = 0  # that were done
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        _ENGINES.add(self)

    def add(self, work: Work) -> None:
        """Begins with a transcription, on the engine's thread, which ends when there is nothing to do."""
        with self._lock:
            work.turn = self._batches
            self._works.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="cwjax-engine", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ends all transcriptions after the windows that are at work."""
        with self._lock:
            thread, works = self._thread, list(self._works)
        for work in works:
            work.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._lock:
                works = list(self._works)
                if not works:
                    self._thread = None
                    return
            try:
                left = self.step(works)
            except BaseException as error:  # nobody may wait for ever for a thread that has died
                for work in works:
                    work.fail(error)
                left = []
            with self._lock:
                new = [work for work in self._works if work not in works]
                self._works = sorted(left + new, key=lambda work: work.turn)

    def step(self, works: list[Work]) -> list[Work]:
        """Does one batch, and gives the unfinished transcriptions, those that were served last at the end.

        One that comes while a batch is done is served before those in it.
        """
        ready: list[tuple[Work, WindowJob]] = []
        for work in works:
            try:
                ready += [(work, job) for job in work.jobs()]
            except Exception as error:
                work.fail(error)
        if ready:
            first, job = ready[0]
            most = min(first.batch_size, self._most_windows)
            batch = [pair for pair in ready if pair[1].key == job.key][: 1 << (most.bit_length() - 1)]
            batch = batch[: _worth_filling(len(batch))]
            self._do_batch(batch)
            self._batches += 1
            for work, _ in batch:
                work.turn = self._batches
            works = sorted(works, key=lambda work: work.turn)
        left = [work for work in works if not work.finished]
        if left and not ready:
            time.sleep(POLL)  # for recordings that grow
        return left

    def _do_batch(self, batch: list[tuple[Work, WindowJob]]) -> None:
        try:
            results = self.run([job for _, job in batch])
        except Exception as error:
            at_once = min(self._most_windows, _most_rows([job for _, job in batch]))
            if _is_out_of_memory(error) and at_once > 1:
                self._most_windows = at_once // 2
                log.warning("out of memory with %d windows at once: going on with %d", at_once, self._most_windows)
                return  # the jobs are still to be done
            if _is_out_of_memory(error):
                error = CwjaxError(
                    "out of memory with a single window: use a smaller model, fewer beams, or bfloat16 weights "
                    "(--compute-dtype bfloat16)"
                )
            if len(batch) == 1:
                batch[0][0].fail(error)
            else:
                for pair in batch:  # only the guilty shall fail
                    self._do_batch([pair])
            return
        if self.on_batch is not None:
            self.on_batch(len(batch))
        for (work, job), result in zip(batch, results, strict=True):
            try:
                work.receive(job, result)
            except Exception as error:
                work.fail(error)

    def run(self, jobs: Sequence[WindowJob]) -> list[WindowResult]:
        """Does jobs of equal keys as one batch; their results in their order."""
        encoded = self._encode(jobs)
        languages, probabilities = self._languages(jobs, encoded)
        if not jobs[0].decoded:
            return [WindowResult(*row) for row in zip(languages, probabilities, strict=True)]
        starts = [
            [*self.programs.tokens.prompt(language, not job.options.without_timestamps, job.options.task), *job.prefix]
            for job, language in zip(jobs, languages, strict=True)
        ]
        spotted = self._spot(jobs, encoded)
        states, encoded = encoded.states, encoded._replace(states=None)
        windows, spotted = self._decode(jobs, encoded, starts, spotted, states)
        cuts = [self._cut(job, window) for job, window in zip(jobs, windows, strict=True)]
        alignments = self._align(jobs, encoded, languages, cuts)
        rows = zip(languages, probabilities, windows, cuts, alignments, spotted, strict=True)
        return [WindowResult(*row) for row in rows]

    def _spot(self, jobs: Sequence[WindowJob], encoded: EncodedAudio) -> list[tuple[Word, ...]]:
        """The phrases that are heard in each window, those with one list together."""
        spotted: list[tuple[Word, ...]] = [()] * len(jobs)
        for phrases in {id(job.phrases): job.phrases for job in jobs if job.phrases is not None}.values():
            rows = [row for row, job in enumerate(jobs) if job.phrases is phrases]
            states = encoded.states[np.asarray(filled_up(rows))]
            found = self._phrases.spot(states, phrases, [jobs[row].options for row in rows])
            for row, some in zip(rows, found, strict=True):
                spotted[row] = some
        return spotted

    def _previous(self, job: WindowJob, spotted: Sequence[Word]) -> tuple[int, ...]:
        """The text before a window, after the phrases that are heard in it."""
        if not spotted:
            return job.previous
        longest = self.programs.longest_previous
        names = self.programs.tokens.encode(shown(spotted))[:longest]
        return (*names, *job.previous[max(0, len(job.previous) - longest + len(names)) :])

    def _believed(
        self, job: WindowJob, plain: DecodedWindow, informed: DecodedWindow, spotted: Sequence[Word], states: Any
    ) -> tuple[Word, ...]:
        """The phrases shown to the decoder that nothing speaks against in what it wrote; none if the text is bad."""
        options = job.options
        if needs_another_try(informed, options) or is_silent(plain, options) or is_echo(informed.text, spotted):
            return ()
        texts = ([token for token in one.tokens if self.programs.tokens.is_text(token)] for one in (plain, informed))
        if not needs_another_try(plain, options) and skips_speech(*texts):
            return ()
        began = job.seek / FRAMES_PER_SECOND
        segments = self._cut(job, informed).segments
        segments = [replace(one, start=one.start - began, end=one.end - began) for one in segments]
        places = [
            (phrase, segment.start, segment.end)
            for phrase in spotted
            for segment in segments
            if occurrences(phrase.text, segment.text) and not is_written(phrase, [segment])
        ]
        if not places:
            return tuple(spotted)
        probabilities = self._phrases.heard_between(states, job.phrases, places)
        refuted = {phrase for (phrase, *_), heard in zip(places, probabilities, strict=True) if heard < UNHEARD}
        return tuple(phrase for phrase in spotted if phrase not in refuted)

    def _encode(self, jobs: Sequence[WindowJob]) -> EncodedAudio:
        """The windows encoded, those that share a context together, and padded to a power of two."""
        parts: list[EncodedAudio] = []
        order: list[int] = []
        contexts = {id(job.context): job.context for job in jobs}
        for number, context in contexts.items():
            rows = [row for row, job in enumerate(jobs) if id(job.context) == number]
            # A CPU encodes window after window, so that what passes between layers stays in its caches.
            for some in [[row] for row in rows] if platform() == "cpu" and not is_split() else [rows]:
                filled = filled_up(some)
                samples = [jobs[row].recording.window(jobs[row].seek, self.programs.frames) for row in filled]
                encoded = self.programs.encode(
                    np.stack(samples),
                    [jobs[row].max_log_mel for row in filled],
                    [jobs[row].frames for row in filled],
                    [jobs[row].closed for row in filled],
                    None if jobs[some[0]].options.context_scale == 0 else context,
                    jobs[0].is_compared,
                    jobs[0].decoded and jobs[0].phrases is not None,
                    jobs[0].decoded and self.programs.can_draft(jobs[0].options),
                )
                parts.append(encoded if len(filled) == len(some) else select_windows(encoded, range(len(some))))
                order += some
        encoded = join_windows(parts)
        rows = filled_up(np.argsort(order).tolist())
        if rows != list(range(len(order))):
            encoded = select_windows(encoded, rows)
        if encoded.plain is not None:
            scales = filled_up([job.options.context_scale for job in jobs])
            encoded = encoded._replace(scale=np.asarray(scales, np.float32))
        return encoded

    def _languages(self, jobs: Sequence[WindowJob], encoded: EncodedAudio) -> tuple[list[str], list[Any]]:
        if all(job.language for job in jobs):
            return [job.language for job in jobs], [None] * len(jobs)
        if not self.programs.tokens.is_multilingual:
            return ["en"] * len(jobs), [None] * len(jobs)
        found = self.programs.language_probabilities(encoded)[: len(jobs)]
        probabilities = [None if job.language else row for job, row in zip(jobs, found, strict=True)]
        return [job.language or next(iter(row)) for job, row in zip(jobs, found, strict=True)], probabilities

    def _decode(
        self,
        jobs: Sequence[WindowJob],
        encoded: EncodedAudio,
        starts: Sequence[Sequence[int]],
        spotted: Sequence[tuple[Word, ...]],
        states: Any,
    ) -> tuple[list[DecodedWindow], list[tuple[Word, ...]]]:
        """Decodes windows, and gives the phrases that each was shown.

        A window in which phrases are heard is decoded without and with them, and once more without those that something
        speaks against in what was written. Where none of them is written, they change nothing. Windows that fail are
        decoded again at the next of their temperatures; Radford et al. 2022, section 4.5. A window's result does not
        depend on the others.
        """
        shown_in = [row for row, some in enumerate(spotted) if some]
        attempts = [*((row, ()) for row in range(len(jobs))), *((row, spotted[row]) for row in shown_in)]
        windows = self._attempt(jobs, encoded, starts, attempts, 0)
        attempts, informed = attempts[len(jobs) :], windows[len(jobs) :]
        windows, used = windows[: len(jobs)], [()] * len(jobs)
        for again in (True, False):
            left = []
            for (row, phrases), window in zip(attempts, informed, strict=True):
                believed = self._believed(jobs[row], windows[row], window, phrases, states[row])
                if believed == phrases:
                    used[row] = phrases
                    if writes_more(phrases, windows[row].text, window.text):
                        windows[row] = window
                elif believed:
                    left.append((row, believed))
            if again:
                attempts, informed = left, self._attempt(jobs, encoded, starts, left, 0)
        for number in itertools.count(1):
            failed = [
                row
                for row, (job, window) in enumerate(zip(jobs, windows, strict=True))
                if number < len(job.options.temperature) and needs_another_try(window, job.options)
            ]
            if not failed:
                return windows, used
            again = self._attempt(jobs, encoded, starts, [(row, ()) for row in failed], number)
            for row, window in zip(failed, again, strict=True):
                windows[row] = window

    def _attempt(
        self,
        jobs: Sequence[WindowJob],
        encoded: EncodedAudio,
        starts: Sequence[Sequence[int]],
        attempts: Sequence[tuple[int, tuple[Word, ...]]],
        number: int,
    ) -> list[DecodedWindow]:
        """Decodes windows, each named by its row and with phrases, at so many of their temperatures."""
        windows: list[DecodedWindow] = []
        at_once = min(self._most_windows, _most_rows(jobs))
        for first in range(0, len(attempts), at_once):
            some = attempts[first : first + at_once]
            filled = filled_up(some)
            rows = [row for row, _ in filled]
            is_all = [row for row, _ in some] == list(range(len(jobs)))
            windows += self.programs.decode(
                encoded if is_all else select_windows(encoded, rows),
                [starts[row] for row in rows],
                [self._previous(jobs[row], phrases) for row, phrases in filled],
                jobs[0].options,
                [jobs[row].options.temperature[number] for row in rows],
                [jobs[row].seek for row in rows],
                boosted([phrases for _, phrases in filled], self.programs.tokens, [jobs[row].options for row in rows]),
            )[: len(some)]
        return windows

    def _cut(self, job: WindowJob, window: DecodedWindow) -> Cut:
        if is_silent(window, job.options):
            return Cut([], job.frames, True, None)
        cut = cut_into_segments(window, self.programs.tokens, job.seek, job.frames)
        return cut.closed() if job.closed else cut

    def _align(
        self, jobs: Sequence[WindowJob], encoded: EncodedAudio, languages: Sequence[str], cuts: Sequence[Cut]
    ) -> list[Alignment | None]:
        tokens = self.programs.tokens
        texts = [
            [token for segment in cut.segments for token in segment.tokens if tokens.is_text(token)] for cut in cuts
        ]
        if not jobs[0].options.word_timestamps or not any(texts):
            return [None] * len(jobs)
        rows = filled_up(range(len(jobs)))
        starts = [tokens.prompt(languages[row], timestamps=False, task=jobs[row].options.task) for row in rows]
        frames = [jobs[row].frames for row in rows]
        return self.programs.align(encoded, starts, [texts[row] for row in rows], frames)[: len(jobs)]


def needs_another_try(window: DecodedWindow, options: DecodingOptions) -> bool:
    """Whether a text repeats itself or is improbable, and the window is not silence."""
    limit, silence = options.logprob_threshold, options.no_speech_threshold
    improbable = limit is not None and window.avg_logprob < limit
    if improbable and silence is not None and window.no_speech_prob > silence:
        return False
    ratio = options.compression_ratio_threshold
    return improbable or (ratio is not None and window.compression_ratio > ratio)


def is_silent(window: DecodedWindow, options: DecodingOptions) -> bool:
    """Whether a window holds no speech: that is probable, and its text is not."""
    if options.no_speech_threshold is None or window.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or window.avg_logprob <= options.logprob_threshold


def _most_rows(jobs: Sequence[WindowJob]) -> int:
    """How many windows to decode at once: no more than are in the batch, but a single one with and without phrases."""
    return max(len(jobs), 2 if jobs[0].phrases is not None else 1)


def _worth_filling(windows: int) -> int:
    """How many of them to take as one batch: all, if few are missing to a power of two, or a smaller power of two."""
    whole = 1 << (windows - 1).bit_length()
    return windows if 4 * windows >= 3 * whole else whole // 2


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
