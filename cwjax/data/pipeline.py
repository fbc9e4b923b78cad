"""Training examples with Grain: shuffled anew every epoch, shared by processes, resumable anywhere.

Legend: B batch, N samples, T target tokens, S context tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grain
import numpy as np

from cwjax.data.augmentation import perturb_speed, perturb_utterances
from cwjax.data.context import ContextProbabilities, draw_context
from cwjax.data.prepared import PreparedCorpus
from cwjax.data.processor import Processor
from cwjax.data.segment import Segment

Batch = dict[str, np.ndarray]
"""Arrays of a batch: `waveform` (B, N) float32; `tokens` (B, T) int32, what the decoder reads; `targets` (B, T)
int32, what it is to say next; `is_target` (B, T) bool, where that counts; `context_ids` (B, S) int32 and
`context_mask` (B, S) bool; `seconds` (B,) float32, audio before padding."""


@dataclass(frozen=True)
class ExampleSettings:
    """Shapes of an example, and what is drawn for it."""

    max_target_tokens: int
    max_context_tokens: int
    context: ContextProbabilities
    timestamps: float
    speed: tuple[float, float] = (1.0, 1.0)
    """Lowest and highest factor of speed perturbation; never so slow that a segment outgrows the window."""


def fits(segment: Segment, processor: Processor, settings: ExampleSettings) -> bool:
    """Whether a segment's target, in its longest form, has room in T tokens and its audio in the window."""
    with_timestamps = settings.timestamps > 0
    tokens = processor.tokens.prompt(segment.language, timestamps=False)
    tokens = tokens + processor.tokens.transcript(segment.utterances, with_timestamps)
    return len(tokens) - 1 <= settings.max_target_tokens and segment.duration <= processor.window_seconds + 1e-6


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
class MakeExample(grain.transforms.RandomMap):
    """Draws an example from the position of a segment."""

    corpus: PreparedCorpus
    positions: Sequence[int]
    processor: Processor
    settings: ExampleSettings

    def random_map(self, position: int, generator: np.random.Generator) -> Batch:
        """Reads the audio, draws context and form of the target, and gives the arrays of one example."""
        segment = self.corpus.segments[position]
        waveform = self.corpus.audio(position)
        context = draw_context(segment, self.settings.context, generator, lambda source: self._other(segment, source))
        timestamps = bool(generator.random() < self.settings.timestamps)
        speed = generator.uniform(*self.settings.speed)
        speed = max(speed, segment.duration / self.processor.window_seconds)
        tokens = self.processor.tokens
        ids, mask = self.processor.context([context], self.settings.max_context_tokens)
        return {
            "waveform": self.processor.pad(perturb_speed(waveform, speed)),
            **target_arrays(
                tokens.prompt(segment.language, timestamps),
                tokens.transcript(perturb_utterances(segment.utterances, speed), timestamps),
                self.settings.max_target_tokens,
                tokens.end_of_text,
            ),
            "context_ids": ids[0],
            "context_mask": mask[0],
            "seconds": np.float32(segment.duration / speed),
        }

    def _other(self, segment: Segment, generator: np.random.Generator) -> Segment:
        """A segment of another article, or after many vain draws (a corpus of one article) any."""
        for _ in range(20):
            other = self.corpus.segments[self.positions[generator.integers(len(self.positions))]]
            if other.article != segment.article:
                break
        return other


def training_batches(
    corpus: PreparedCorpus,
    positions: Sequence[int],
    processor: Processor,
    settings: ExampleSettings,
    batch_size: int,
    seed: int,
    reading_threads: int,
    share: tuple[int, int] = (0, 1),
    first_example: int = 0,
) -> grain.DatasetIterator:
    """An endless iterator of batches, one process's share of each.

    Examples are counted over all processes and epochs. Which example has which number, and what is drawn for it,
    depends on nothing but the seed, so a run may go on from any example with another number of processes.

    Args:
        corpus: the prepared corpus.
        positions: of the segments to train on, the same on every process.
        processor: makes the arrays.
        settings: shapes and probabilities.
        batch_size: examples per batch over all processes.
        seed: decides order and every draw.
        reading_threads: threads that work ahead.
        share: which share of each batch is read here, as (number, of how many).
        first_example: number of the first example of the first batch.
    """
    number, count = share
    dataset = (
        grain.MapDataset.source(positions)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(MakeExample(corpus, positions, processor, settings))[first_example + number :: count]
        .batch(batch_size // count, drop_remainder=True)
    )
    options = grain.ReadOptions(num_threads=reading_threads, prefetch_buffer_size=4 * reading_threads)
    return iter(dataset.to_iter_dataset(options))
