"""Training examples with Grain: shuffled anew every epoch, shared by processes, resumable anywhere.

Legend: B batch, N samples, T target tokens, S context tokens.
"""

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cwjax.data.audio.augmentation import perturb_speed, perturb_utterances
from cwjax.data.audio.mixing import Mixer
from cwjax.data.audio.pcm16 import from_pcm16, to_pcm16
from cwjax.data.examples.context import ContextProbabilities, draw_context
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.target_lengths import TargetLengths, lengths_up_to
from cwjax.data.examples.windows import Limits, Selection, TrainingWindows, Window
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


def require_grain() -> None:
    """Raises CwjaxError if Grain cannot be imported, as on Windows."""
    try:
        importlib.import_module("grain")
    except ImportError as error:
        raise CwjaxError(
            f"training needs the package grain, which cannot be imported here ({error}): pip install 'cwjax[train]'; "
            "on Windows, train in WSL 2"
        ) from error


def fits(segment: Segment, processor: Processor, settings: ExampleSettings) -> bool:
    """Whether a segment's target, in its longest form, has room in T tokens and its audio in the window."""
    tokens = transcript_tokens(segment, processor, settings)
    return tokens <= room_for_transcript(processor, settings) and segment.duration <= processor.window_seconds + 1e-6


def transcript_tokens(segment: Segment, processor: Processor, settings: ExampleSettings) -> int:
    """Tokens of a segment's transcript in its longest form, without its end."""
    return len(processor.tokens.transcript(segment.utterances, settings.timestamps > 0, segment.language)) - 1


def room_for_transcript(processor: Processor, settings: ExampleSettings) -> int:
    """Tokens of transcripts for which a target has room beside prompt and end."""
    return settings.max_target_tokens - len(processor.tokens.prompt("en", timestamps=False))


def training_windows(
    corpus: PreparedCorpus, processor: Processor, settings: ExampleSettings, selection: Selection, seed: int = 0
) -> TrainingWindows:
    """The windows to train on. Raises CwjaxError as `TrainingWindows` does."""
    around = 2 if settings.timestamps > 0 else 0
    limits = Limits(processor.window_seconds, room_for_transcript(processor, settings), around)
    return TrainingWindows(corpus, processor.tokens, limits, selection, seed)


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
        sound: where it is heard: number of the recording, and seconds of it.
        speed: factor by which it is played faster.
        mixing_seed: decides rooms and noise.
        prompt, transcript: tokens of the target.
        previous: the text that was said before.
        arrays: all of the example but its waveform and its target.
    """

    sound: tuple[int, float, float]
    speed: float
    mixing_seed: int
    prompt: list[int]
    transcript: list[int]
    previous: str
    arrays: Batch


@dataclass(frozen=True)
class DrawExample:
    """Draws an example from a window."""

    windows: TrainingWindows
    processor: Processor
    settings: ExampleSettings

    def __call__(self, window: Window, generator: np.random.Generator) -> DrawnExample:
        """Draws context, form of the target and augmentation."""
        wants_previous = self.settings.previous_text > 0 or self.settings.context.previous > 0
        segment = self.windows.segment(window, wants_previous)
        context = draw_context(
            segment, self.settings.context, generator, lambda source: self.windows.another(segment.article, source)
        )
        timestamps = bool(generator.random() < self.settings.timestamps)
        speed = generator.uniform(*self.settings.speed)
        speed = max(speed, segment.duration / self.processor.window_seconds)
        tokens = self.processor.tokens
        ids, mask = self.processor.context([context], self.settings.max_context_tokens)
        return DrawnExample(
            self.windows.sound(window),
            speed,
            int(generator.integers(2**63)),
            tokens.prompt(segment.language, timestamps),
            tokens.transcript(perturb_utterances(segment.utterances, speed), timestamps, segment.language),
            segment.context.previous if self.settings.previous_text else "",
            {"context_ids": ids[0], "context_mask": mask[0], "seconds": np.float32(segment.duration / speed)},
        )


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
        """The samples, (n,) int16; what augmentation made too loud is turned down."""
        samples = self.corpus.sound(*example.sound)
        mixer = self.settings.mixer
        if example.speed == 1 and not mixer:
            return samples
        waveform = perturb_speed(from_pcm16(samples), example.speed)
        if mixer:
            waveform = mixer(waveform, np.random.default_rng(example.mixing_seed))
        return to_pcm16(waveform / max(1, np.abs(waveform).max()))


def training_batches(
    corpus: PreparedCorpus,
    windows: TrainingWindows,
    processor: Processor,
    settings: ExampleSettings,
    batch_size: int,
    seed: int,
    reading_threads: int,
    share: tuple[int, int] = (0, 1),
    first_example: int = 0,
) -> "grain.DatasetIterator":
    """An endless iterator of batches, one process's share of each.

    Examples are counted over all processes and epochs. Which example has which number, and what is drawn for it,
    depends on nothing but the seed, so a run may go on from any example with another number of processes.

    Args:
        corpus: the prepared corpus.
        windows: to train on, the same on every process, drawn with the same seed.
        processor: makes the arrays.
        settings: shapes and probabilities.
        batch_size: examples per batch over all processes.
        seed: decides order and every draw.
        reading_threads: threads that work ahead.
        share: which share of each batch is read here, as (number, of how many).
        first_example: number of the first example of the first batch.
    """
    import grain

    number, count = share
    lengths = lengths_up_to(settings.max_target_tokens, settings.target_lengths)
    prompt = settings.max_target_tokens - room_for_transcript(processor, settings)
    targets = TargetLengths(windows, prompt, settings.max_previous_tokens, lengths, settings.previous_text, seed)
    make_batch = MakeBatch(corpus, processor, settings)

    def together(numbered: Sequence[tuple[int, DrawnExample]]) -> Batch:
        numbers, examples = zip(*numbered, strict=True)
        length = targets.of_batch(numbers[0] - number, batch_size)
        return make_batch(examples, [targets.has_previous(one) for one in numbers], length)

    dataset = (
        grain.MapDataset.source(windows)
        .seed(seed)
        .random_map(DrawExample(windows, processor, settings))
        .map_with_index(lambda place, example: (place, example))[first_example + number :: count]
        .batch(batch_size // count, drop_remainder=True, batch_fn=together)
    )
    options = grain.ReadOptions(num_threads=reading_threads, prefetch_buffer_size=4 * reading_threads)
    return iter(dataset.to_iter_dataset(options))
