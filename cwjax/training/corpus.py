"""The speech of an experiment: prepared, spoken first for the demo, and how examples are drawn of it."""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator

import numpy as np
from jax.sharding import Mesh

from cwjax.config import Config
from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION, SAMPLING_RATE
from cwjax.data.audio.mixing import Mixer
from cwjax.data.examples.pipeline import ExampleSettings
from cwjax.data.examples.windows import Selection
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.demo.corpus import plan_corpus, seconds_to_write, write_demo_corpus
from cwjax.errors import CwjaxError
from cwjax.files import local_path
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.whisper import WhisperConfig
from cwjax.training.estimate import estimate_seconds
from cwjax.training.plan import planned_sizes
from cwjax.training.sharding import make_mesh

log = logging.getLogger(__name__)


def prepare_corpus(config: Config, whisper: WhisperConfig) -> PreparedCorpus:
    """The prepared corpus, cut for the window of `whisper`; the demo's speech, too, is synthesised first."""
    root = local_path(config.data.root)
    if config.data.corpus == "demo" and not root.exists():
        plans = plan_corpus(config.data.demo_seed, config.data.demo)
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)

        def sentences(split: str) -> int:
            return sum(len(section.sentences) for one in plans if one.split == split for section in one.sections)

        log_estimate(config, planned_sizes(config), mesh, sentences, seconds_to_write(plans))
        write_demo_corpus(root, config.data.demo_seed, config.data.demo)
    seconds = round(whisper.max_source_positions * SAMPLES_PER_POSITION / SAMPLING_RATE, 6)
    segmentation = dataclasses.replace(config.data.segmentation, max_duration=seconds)
    corpus = "swc" if config.data.corpus == "demo" else config.data.corpus
    return prepare(corpus, root, config.data.prepared_directory, segmentation)


def example_settings(config: Config, whisper: WhisperConfig) -> ExampleSettings:
    """Shapes and probabilities of training examples."""
    return ExampleSettings(
        max_target_tokens=config.data.max_target_tokens,
        max_context_tokens=config.data.max_context_tokens,
        context=config.data.context,
        timestamps=config.data.timestamps,
        speed=config.data.speed,
        mixer=Mixer.open(config.data.mixing),
        previous_text=config.data.previous_text,
        max_previous_tokens=whisper.max_target_positions // 2 - 1,
        target_lengths=config.data.target_lengths,
    )


def selection(config: Config) -> Selection:
    """Which utterances are trained on."""
    data = config.data
    return Selection(data.examples, data.max_cer, data.max_edge_cer)


def log_estimate(
    config: Config,
    model: ContextWhisperConfig,
    mesh: Mesh,
    segments: Callable[[str], int],
    speaking: float | None = None,
) -> None:
    """Says how long the whole will take here.

    Args:
        config: of the experiment.
        model: sizes.
        mesh: of the devices.
        segments: how many a split has.
        speaking: seconds for the speech of the demo; None: it is there.
    """
    validated, evaluated = segments("validation"), segments(config.evaluation.split)
    validated = min(validated, config.train.validation_examples or validated)
    evaluated = min(evaluated, config.evaluation.examples or evaluated) if config.evaluation.at_end else 0
    parts = {} if speaking is None else {"speaking": speaking}
    parts |= estimate_seconds(config, model, mesh, validated, evaluated)
    shares = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in parts.items())
    log.info("this will take about %.0f minutes here: %s", math.ceil(sum(parts.values()) / 60), shares)


def next_batch(batches: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The next batch. Raises our own error that a library wrapped in its own, or else says what went wrong."""
    try:
        return next(batches)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, CwjaxError):
            cause = cause.__cause__ or cause.__context__
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise CwjaxError(str(cause) if cause else f"reading training data failed: {lines[0]}") from error
