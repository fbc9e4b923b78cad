"""The loss in validation: of the true transcripts, told the right context, by all processes at once.

No SpecAugment, no other augmentation, no timestamps: the same numbers at every step and on every mesh, but for
rounding.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cwjax.config import Config, DistilSettings
from cwjax.data.examples.context import describe_for_evaluation
from cwjax.data.examples.pipeline import (
    DrawnExample,
    ExampleSettings,
    MakeBatch,
    fits,
    room_for_transcript,
    transcript_tokens,
)
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.target_lengths import lengths_up_to
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters
from cwjax.models.spec_augment import SpecAugmentSettings
from cwjax.training.sharding import batch_share, put_batch, replicated
from cwjax.training.train_step import make_loss

log = logging.getLogger(__name__)


class ValidationLoss:
    """Measures loss and token accuracy on segments of a corpus; its program is compiled once.

    Args:
        config: of the experiment.
        model: sizes.
        mesh: of the devices.
        corpus: where the segments lie.
        positions: of the segments in it, the same in all processes.
        processor: makes the arrays.
        settings: of training examples, of which shapes alone are taken.
        stop_asked: whether to leave; all processes ask equally often, after every batch.
    """

    def __init__(
        self,
        config: Config,
        model: ContextWhisperConfig,
        mesh: Mesh,
        corpus: PreparedCorpus,
        positions: Sequence[int],
        processor: Processor,
        settings: ExampleSettings,
        stop_asked: Callable[[], bool] = lambda: False,
    ):
        plain = dataclasses.replace(settings, timestamps=0.0, mixer=None, previous_text=0.0)
        self._positions = [one for one in positions if fits(corpus.segments[one], processor, plain)]
        if left_out := len(positions) - len(self._positions):
            log.warning("%d validation segments do not fit and are left out of the validation loss", left_out)
        self._corpus, self._processor, self._settings = corpus, processor, plain
        self._mesh, self._share, self._stop_asked = mesh, batch_share(mesh), stop_asked
        self._rows = config.train.batch_size // config.train.accumulation
        self._make_batch = MakeBatch(corpus, processor, plain)
        prompt = plain.max_target_tokens - room_for_transcript(processor, plain)
        tokens = (transcript_tokens(corpus.segments[one], processor, plain) for one in self._positions)
        longest = prompt + max(tokens, default=0)
        lengths = lengths_up_to(plain.max_target_tokens, plain.target_lengths)
        self._length = next(length for length in lengths if length >= longest)
        loss = make_loss(_plain(config), model)

        def measure(parameters: Parameters, batch: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
            return *loss(parameters, batch), batch["is_target"].sum()

        self._program = jax.jit(measure, out_shardings=replicated(mesh))

    @property
    def segments(self) -> int:
        """How many are measured."""
        return len(self._positions)

    def measure(self, parameters: Parameters) -> dict[str, float] | None:
        """Mean loss of a token and share of those guessed right, in the mesh's shards; None if it was left."""
        sums = np.zeros(3)
        for first in range(0, len(self._positions), self._rows):
            batch = put_batch(self._batch(first), self._mesh)
            sums += [float(one) for one in jax.device_get(self._program(parameters, batch))]
            if self._stop_asked():
                return None
        total, right, count = sums
        if not count:
            return {}
        return {"validation/loss": total / count, "validation/token_accuracy": right / count}

    def _batch(self, first: int) -> dict[str, np.ndarray]:
        """This process's share of a batch; where segments are lacking, rows that do not count."""
        number, shares = self._share
        mine = self._positions[first : first + self._rows][number::shares]
        lacking = self._rows // shares - len(mine)
        examples = [self._example(position) for position in [*mine, *[self._positions[0]] * lacking]]
        batch = self._make_batch(examples, [False] * len(examples), self._length)
        batch["is_target"][len(mine) :] = False
        del batch["seconds"]
        return batch

    def _example(self, position: int) -> DrawnExample:
        segment, tokens = self._corpus.segments[position], self._processor.tokens
        ids, mask = self._processor.context([describe_for_evaluation(segment)], self._settings.max_context_tokens)
        arrays: dict[str, Any] = {"context_ids": ids[0], "context_mask": mask[0], "seconds": np.float32(0)}
        prompt = tokens.prompt(segment.language, timestamps=False)
        sound = segment.recording, segment.start, segment.end
        said = tokens.transcript(segment.utterances, False, segment.language)
        return DrawnExample(sound, 1.0, 0, prompt, said, "", arrays)


def _plain(config: Config) -> Config:
    """The experiment, whose loss is the cross-entropy of what was said, and nothing that helps to learn it."""
    train = dataclasses.replace(config.train, spec_augment=SpecAugmentSettings(), label_smoothing=0.0)
    return dataclasses.replace(config, train=train, distil=DistilSettings())
