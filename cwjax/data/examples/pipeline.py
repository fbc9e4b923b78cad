"""Training examples with Grain: shuffled anew every epoch, shared by processes, resumable anywhere.

Legend: B batch, N samples, T target tokens, S context tokens.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cwjax.data.audio.augmentation import perturb_speed, perturb_utterances
from cwjax.data.audio.mixing import Mixer
from cwjax.data.audio.pcm16 import from_pcm16, to_pcm16
from cwjax.data.examples.context import ContextProbabilities, draw_context
from cwjax.data.examples.packing import Candidate, Window, joined, pack_segments
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.target_lengths import TargetLengths, lengths_up_to
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError

if TYPE_CHECKING:
    import grain

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
"""Arrays of a batch: `waveform` (B, N) int16; `tokens` (B, T) int32, what the decoder reads; `targets` (B, T)
int32, what it is to say next; `is_target` (B, T) bool, where that counts; `context_ids` (B, S) int32 and
`context_mask` (B, S) bool; `seconds` (B,) float32, audio before padding. T is that of the batch."""


@dataclass(frozen=True)
class ExampleSettings:
    """Shapes of an example, and what is drawn for it."""

    max_target_tokens: int
    max_context_tokens: int
    context: ContextProbabilities
    timestamps: float
    speed: tuple[float, float] = (1.0, 1.0)
    """Lowest and highest factor of speed perturbation; never so slow that a segment outgrows the window."""
    mixer: Mixer | None = None
    """Puts the audio into rooms and noise."""
    previous_text: float = 0.0
    """Probability that what was said before stands in the prompt, as in Whisper's own training and decoding."""
    max_previous_tokens: int = 223
    """The most of it."""
    target_lengths: tuple[int, ...] = ()
    """Shorter targets than the longest, to which a batch may be padded."""


@dataclass(frozen=True)
class Selection:
    """Which segments are trained on, and whether they are joined."""

    examples: int = 0
    """The first so many segments; 0: all."""
    packing: bool = False
    """Whether short segments of an article share a window."""
    max_cer: float | None = None
    max_edge_cer: float | None = None
    """Highest character error rate of a segment, and of either end of it, where a model has scored the corpus."""


def fits(segment: Segment, processor: Processor, settings: ExampleSettings) -> bool:
    """Whether a segment's target, in its longest form, has room in T tokens and its audio in the window."""
    tokens = transcript_tokens(segment, processor, settings)
    return tokens <= room_for_transcript(processor, settings) and segment.duration <= processor.window_seconds + 1e-6


def transcript_tokens(segment: Segment, processor: Processor, settings: ExampleSettings) -> int:
    """Tokens of a segment's transcript in its longest form, without its end."""
    return len(processor.tokens.transcript(segment.utterances, settings.timestamps > 0)) - 1


def room_for_transcript(processor: Processor, settings: ExampleSettings) -> int:
    """Tokens of transcripts for which a target has room beside prompt and end."""
    return settings.max_target_tokens - len(processor.tokens.prompt("en", timestamps=False))


def training_windows(
    corpus: PreparedCorpus, processor: Processor, settings: ExampleSettings, selection: Selection
) -> tuple[list[Window], np.ndarray]:
    """The windows to train on: the training segments that are chosen and fit, joined if asked for.

    Returns:
        The windows, and what their targets need at most, as `TargetLengths` has it.

    Raises:
        CwjaxError: no segment remains, or segments are to be chosen by rates that the corpus does not have.
    """
    chosen = []
    too_long = too_wrong = 0
    for place in corpus.positions("train"):
        segment = corpus.segments[place]
        if _disagrees(segment, selection, corpus):
            too_wrong += 1
        elif not fits(segment, processor, settings):
            too_long += 1
        else:
            before = len(processor.tokens.encode(previous)) if (previous := previous_text(segment, settings)) else 0
            chosen.append(Candidate.of(place, segment, transcript_tokens(segment, processor, settings), before))
    if too_wrong:
        log.info("%d training segments are left out by their character error rates", too_wrong)
    if too_long:
        log.warning("%d training segments do not fit and are left out", too_long)
    if not chosen:
        raise CwjaxError(
            f"{corpus.directory}: no training segment remains; raise data.max_target_tokens"
            + (" or data.max_cer" if too_wrong else "")
        )
    chosen = chosen[: selection.examples or None]
    if selection.packing:
        windows = pack_segments(chosen, processor.window_seconds, room_for_transcript(processor, settings))
    else:
        windows = [(one.position,) for one in chosen]
    seconds = sum(one.duration for one in chosen)
    log.info(
        "%d training segments in %d windows of %.1f s, %.0f %% of them padding",
        len(chosen),
        len(windows),
        processor.window_seconds,
        100 - 100 * seconds / (len(windows) * processor.window_seconds),
    )
    needed = _needed_tokens(windows, {one.position: one for one in chosen}, processor, settings)
    if settings.previous_text:
        log.info("%d windows have text before them", np.count_nonzero(needed[:, 1] > needed[:, 0]))
    return windows, needed


def _needed_tokens(
    windows: Sequence[Window], chosen: dict[int, Candidate], processor: Processor, settings: ExampleSettings
) -> np.ndarray:
    prompt = settings.max_target_tokens - room_for_transcript(processor, settings)
    needed = np.empty((len(windows), 2), np.int32)
    for row, window in zip(needed, windows, strict=True):
        previous = min(chosen[window[0]].previous, settings.max_previous_tokens)
        row[:] = prompt + sum(chosen[place].tokens for place in window)
        row[1] = min(row[0] + (1 + previous if previous else 0), settings.max_target_tokens)
    return needed


def previous_text(segment: Segment, settings: ExampleSettings) -> str:
    """What may stand before a segment's target: the text before it in the recording."""
    return segment.context.previous.strip() if settings.previous_text else ""


def _disagrees(segment: Segment, selection: Selection, corpus: PreparedCorpus) -> bool:
    """Whether what a model heard in a segment is too far from its text."""
    if selection.max_cer is None and selection.max_edge_cer is None:
        return False
    if segment.quality is None:
        raise CwjaxError(
            f"{corpus.directory}: has no character error rates, by which segments are to be chosen; run cwjax prepare "
            "once more with --score-with MODEL, or leave out data.max_cer and data.max_edge_cer"
        )
    highest = math.inf if selection.max_cer is None else selection.max_cer
    highest_edge = math.inf if selection.max_edge_cer is None else selection.max_edge_cer
    edge = max(segment.quality.start_cer, segment.quality.end_cer)
    return segment.quality.cer > highest or edge > highest_edge


def target_arrays(prompt: Sequence[int], transcript: Sequence[int], length: int, padding: int) -> Batch:
    """Decoder input, shifted targets and where they count, each (T,), T = `length`.

    The prompt is given, not said: its tokens are no targets, but the last of them predicts the transcript's first.
    """
    sequence = [*prompt, *transcript]
    tokens = np.full(length, padding, np.int32)
    targets = np.full(length, padding, np.int32)
    is_target = np.zeros(length, bool)
    steps = len(sequence) - 1
    tokens[:steps] = sequence[:-1]
    targets[:steps] = sequence[1:]
    is_target[len(prompt) - 1 : steps] = True
    return {"tokens": tokens, "targets": targets, "is_target": is_target}


@dataclass(frozen=True)
class DrawnExample:
    """An example whose audio is still to be read.

    Attributes:
        window: positions of its segments.
        speed: factor by which they are played faster.
        mixing_seed: decides rooms and noise.
        prompt, transcript: tokens of the target.
        previous: the text that was said before.
        arrays: all of the example but its waveform and its target.
    """

    window: Window
    speed: float
    mixing_seed: int
    prompt: list[int]
    transcript: list[int]
    previous: str
    arrays: Batch


@dataclass(frozen=True)
class DrawExample:
    """Draws an example from the segments of a window."""

    corpus: PreparedCorpus
    windows: Sequence[Window]
    processor: Processor
    settings: ExampleSettings

    def __call__(self, place: int, generator: np.random.Generator) -> DrawnExample:
        """Draws context, form of the target and augmentation for the window in that place."""
        window = self.windows[place]
        segment = joined([self.corpus.segments[place] for place in window])
        context = draw_context(segment, self.settings.context, generator, lambda source: self._other(segment, source))
        timestamps = bool(generator.random() < self.settings.timestamps)
        speed = generator.uniform(*self.settings.speed)
        speed = max(speed, segment.duration / self.processor.window_seconds)
        tokens = self.processor.tokens
        ids, mask = self.processor.context([context], self.settings.max_context_tokens)
        return DrawnExample(
            window,
            speed,
            int(generator.integers(2**63)),
            tokens.prompt(segment.language, timestamps),
            tokens.transcript(perturb_utterances(segment.utterances, speed), timestamps),
            previous_text(segment, self.settings),
            {"context_ids": ids[0], "context_mask": mask[0], "seconds": np.float32(segment.duration / speed)},
        )

    def _other(self, segment: Segment, generator: np.random.Generator) -> Segment:
        """A segment of another article, or after many vain draws (a corpus of one article) any."""
        for _ in range(20):
            other = self.corpus.segments[self.windows[generator.integers(len(self.windows))][0]]
            if other.article != segment.article:
                break
        return other


@dataclass(frozen=True)
class MakeBatch:
    """Puts examples together. Each one's audio goes straight from its record to its row, which halves the copying.

    Attributes:
        corpus, processor, settings: of the examples.
    """

    corpus: PreparedCorpus
    processor: Processor
    settings: ExampleSettings

    def __call__(self, examples: Sequence[DrawnExample], has_previous: Sequence[bool], length: int) -> Batch:
        """Reads the audio and gives the arrays of the batch, whose targets have `length` tokens."""
        waveform = np.empty((len(examples), self.processor.window_samples), np.int16)
        for row, example in zip(waveform, examples, strict=True):
            samples = self._sound(example)[: len(row)]
            row[: len(samples)] = samples
            row[len(samples) :] = 0
        padding = self.processor.tokens.end_of_text
        arrays = [
            one.arrays | target_arrays(self._prompt(one, previous), one.transcript, length, padding)
            for one, previous in zip(examples, has_previous, strict=True)
        ]
        return {"waveform": waveform} | {name: np.stack([one[name] for one in arrays]) for name in arrays[0]}

    def _prompt(self, example: DrawnExample, has_previous: bool) -> list[int]:
        """The prompt, with as much of the end of the text before it as the target leaves room for."""
        if not (has_previous and example.previous):
            return example.prompt
        tokens, settings = self.processor.tokens, self.settings
        room = settings.max_target_tokens - len(example.prompt) - len(example.transcript)
        longest = min(settings.max_previous_tokens, room)
        return [*tokens.previous(tokens.encode(example.previous), longest), *example.prompt]

    def _sound(self, example: DrawnExample) -> np.ndarray:
        """The window's segments, one after another, (n,) int16; what augmentation made too loud is turned down."""
        parts = [self.corpus.pcm16(place) for place in example.window]
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        mixer = self.settings.mixer
        if example.speed == 1 and not mixer:
            return samples
        waveform = perturb_speed(from_pcm16(samples), example.speed)
        if mixer:
            waveform = mixer(waveform, np.random.default_rng(example.mixing_seed))
        return to_pcm16(waveform / max(1, np.abs(waveform).max()))


def training_batches(
    corpus: PreparedCorpus,
    windows: Sequence[Window],
    processor: Processor,
    settings: ExampleSettings,
    batch_size: int,
    seed: int,
    reading_threads: int,
    share: tuple[int, int] = (0, 1),
    first_example: int = 0,
    needed: np.ndarray | None = None,
) -> "grain.DatasetIterator":
    """An endless iterator of batches, one process's share of each.

    Examples are counted over all processes and epochs. Which example has which number, and what is drawn for it,
    depends on nothing but the seed, so a run may go on from any example with another number of processes.

    Args:
        corpus: the prepared corpus.
        windows: to train on, the same on every process.
        processor: makes the arrays.
        settings: shapes and probabilities.
        batch_size: examples per batch over all processes.
        seed: decides order and every draw.
        reading_threads: threads that work ahead.
        share: which share of each batch is read here, as (number, of how many).
        first_example: number of the first example of the first batch.
        needed: tokens of targets, as `training_windows` gives them; None: all are padded to the longest.
    """
    import grain

    number, count = share
    order = grain.MapDataset.source(range(len(windows))).seed(seed).shuffle().repeat()
    shorter = () if needed is None else settings.target_lengths
    lengths = lengths_up_to(settings.max_target_tokens, shorter)
    targets = TargetLengths(order, needed, lengths, settings.previous_text, seed)
    make_batch = MakeBatch(corpus, processor, settings)

    def together(numbered: Sequence[tuple[int, DrawnExample]]) -> Batch:
        numbers, examples = zip(*numbered, strict=True)
        length = targets.of_batch(numbers[0] - number, batch_size)
        return make_batch(examples, [targets.has_previous(one) for one in numbers], length)

    dataset = (
        order.random_map(DrawExample(corpus, windows, processor, settings))
        .map_with_index(lambda place, example: (place, example))[first_example + number :: count]
        .batch(batch_size // count, drop_remainder=True, batch_fn=together)
    )
    options = grain.ReadOptions(num_threads=reading_threads, prefetch_buffer_size=4 * reading_threads)
    return iter(dataset.to_iter_dataset(options))
