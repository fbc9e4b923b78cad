"""One experiment from its configuration to its report: the rooms of the project joined in order."""

import collections
import dataclasses
import json
import logging
import math
import time
from pathlib import Path

import jax
import numpy as np

from cwjax import __version__
from cwjax.config import Config, differences
from cwjax.data.demo_corpus import plan_corpus, seconds_to_write, write_demo_corpus
from cwjax.data.log_mel import SAMPLES_PER_POSITION, SAMPLING_RATE
from cwjax.data.mixing import Mixer
from cwjax.data.pipeline import ExampleSettings, Selection, training_batches, training_windows
from cwjax.data.prepare import prepare
from cwjax.data.prepared import PreparedCorpus, require_array_record
from cwjax.data.processor import Processor
from cwjax.errors import CwjaxError
from cwjax.evaluation.evaluate import evaluate, log_summary, read_homophones, scores_of, transcribe_conditions
from cwjax.evaluation.report import summarise
from cwjax.files import local_path, write_text
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.machine import peak_memory
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters
from cwjax.models.whisper import WhisperConfig
from cwjax.starting_point import describe_model, initial_parameters, open_start, planned_sizes, require_room
from cwjax.training.estimate import estimate_seconds
from cwjax.training.loop import Run, Validate, fit
from cwjax.training.metrics import METRICS_FILE
from cwjax.training.processes import first_alone, is_first, require_same_settings
from cwjax.training.program import TrainProgram, make_program
from cwjax.training.sharding import batch_share, gather
from cwjax.training.step import describe_parameters
from cwjax.weights.model_directory import record_facts, save_model

log = logging.getLogger(__name__)

MAY_CHANGE = (
    "workdir",
    "train.steps",
    "train.checkpoint_every",
    "train.checkpoints_kept",
    "train.log_every",
    "train.profile",
    "evaluation.",
    "mesh.",
    "data.reading_threads",
)
"""Fields in which a run may differ from the one its directory holds."""


def train(config: Config) -> Path:
    """Trains, writes the model directory `WORKDIR/model`, evaluates and reports.

    A run that was interrupted goes on where its last checkpoint was written.

    Returns:
        The model directory.

    Raises:
        CwjaxError: whatever the user can mend.
    """
    began = time.monotonic()
    require_array_record()
    require_same_settings({**config.as_dict(), "cwjax": __version__, "jax": jax.__version__})
    workdir = first_alone(lambda: open_workdir(config))
    start = open_start(config)
    require_room(config, start)
    is_new = is_first() and not (workdir / METRICS_FILE).exists()
    is_spoken = config.data.corpus != "demo" or local_path(config.data.root).exists()
    corpus = first_alone(lambda: prepare_corpus(config, start.whisper))
    new = describe_model(config, start, (corpus.segments[place].text for place in corpus.positions("train")), workdir)
    program = make_program(config, new.config)
    if is_new and is_spoken:
        _log_estimate(config, program, len(corpus.positions(config.evaluation.split)))
    mesh = program.mesh
    log.info("mesh: %s", ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items()))
    counts = describe_parameters(program.state.trained, program.frozen)
    log.info("%s", ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in counts.items()))

    settings = example_settings(config)
    data = config.data
    selection = Selection(data.examples, data.packing, data.max_cer, data.max_edge_cer)
    windows = training_windows(corpus, new.processor, settings, selection)
    share = batch_share(mesh)
    run = Run(
        workdir=workdir,
        program=program,
        start=lambda: initial_parameters(start, new.config, config.train.seed, mesh),
        freeze=config.freeze,
        batches=lambda first: training_batches(
            corpus,
            windows,
            new.processor,
            settings,
            config.train.batch_size,
            config.train.seed,
            config.data.reading_threads,
            share,
            first,
        ),
        validate=_validation(config, corpus, program, new.config, new.processor),
    )
    with jax.set_mesh(mesh):
        parameters = fit(run, config.train)
    durations = [corpus.segments[place].duration for window in windows for place in window]
    facts = {
        **new.facts,
        **counts,
        "frozen": list(config.freeze),
        "steps": config.train.steps,
        "training_hours": round(sum(durations) / 3600, 3),
        "training_segments": len(durations),
    }
    directory = workdir / "model"
    whole = gather(parameters)
    if not is_first():
        collections.deque(whole, maxlen=0)
        return directory
    save_model(directory, new.config, whole, new.processor, facts)
    log.info("model written to %s", directory)
    if config.evaluation.at_end:
        facts["minutes"] = round((time.monotonic() - began) / 60, 1)
        summary = evaluate(
            directory,
            corpus,
            workdir,
            config.evaluation.split,
            config.evaluation.batch_size,
            config.evaluation.examples,
            facts,
        )
        record_facts(directory, {"scores": scores_of(summary, config.evaluation.split)})
    if (peak := peak_memory()) is not None:
        log.info("peak memory %.2f GiB", peak / 2**30)
    return directory


def _log_estimate(config: Config, program: TrainProgram, evaluated: int, speaking: float | None = None) -> None:
    """Says how long the whole will take here."""
    evaluated = min(evaluated, config.evaluation.examples or evaluated) if config.evaluation.at_end else 0
    parts = {} if speaking is None else {"speaking": speaking}
    parts |= estimate_seconds(program, config.train, evaluated)
    shares = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in parts.items())
    log.info("this will take about %.0f minutes here: %s", math.ceil(sum(parts.values()) / 60), shares)


def open_workdir(config: Config) -> Path:
    """Makes the run directory, or refuses one that belongs to another configuration."""
    workdir = local_path(config.workdir)
    path = workdir / "config.json"
    ours = config.as_dict()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            changed = differences(ours, json.loads(path.read_text(encoding="utf-8")))
            forbidden = [line for line in changed if not line.startswith(MAY_CHANGE)]
            if forbidden:
                raise CwjaxError(
                    f"{workdir}: holds a run with another configuration ({'; '.join(forbidden[:5])}); "
                    "use another --workdir, or delete it to start again"
                )
            for line in changed:
                if not line.startswith("workdir"):
                    log.info("changed since the run began: %s", line)
        if is_first():
            write_text(path, json.dumps(ours, indent=2) + "\n")
    except ValueError as error:
        raise CwjaxError(f"{path}: is damaged ({error}); delete {workdir} to start again") from error
    except OSError as error:
        raise CwjaxError(f"{workdir}: cannot be written ({error.strerror})") from error
    return workdir


def prepare_corpus(config: Config, whisper: WhisperConfig) -> PreparedCorpus:
    """The prepared corpus, cut for the window of `whisper`; the demo's speech, too, is synthesised first."""
    root = local_path(config.data.root)
    if config.data.corpus == "demo" and not root.exists():
        plans = plan_corpus(config.data.demo_seed, config.data.demo)
        tested = [one for one in plans if one.split == config.evaluation.split]
        sentences = sum(len(section.sentences) for one in tested for section in one.sections)
        _log_estimate(config, make_program(config, planned_sizes(config)), sentences, seconds_to_write(plans))
        write_demo_corpus(root, config.data.demo_seed, config.data.demo)
    seconds = round(whisper.max_source_positions * SAMPLES_PER_POSITION / SAMPLING_RATE, 6)
    segmentation = dataclasses.replace(config.data.segmentation, max_duration=seconds)
    corpus = "swc" if config.data.corpus == "demo" else config.data.corpus
    return prepare(corpus, root, config.data.prepared_directory, segmentation)


def example_settings(config: Config) -> ExampleSettings:
    """Shapes and probabilities of training examples."""
    return ExampleSettings(
        max_target_tokens=config.data.max_target_tokens,
        max_context_tokens=config.data.max_context_tokens,
        context=config.data.context,
        timestamps=config.data.timestamps,
        speed=config.data.speed,
        mixer=Mixer.open(config.data.mixing),
    )


def _validation(
    config: Config, corpus: PreparedCorpus, program: TrainProgram, model: ContextWhisperConfig, processor: Processor
) -> Validate | None:
    positions = corpus.positions("validation")
    if not config.train.validate_every or not positions:
        return None
    order = np.random.default_rng(0).permutation(positions)
    chosen = sorted(int(place) for place in order[: config.train.validation_examples])
    # Quick and the same at every step: greedy, once. Without timestamps, which a model learns late.
    options = DecodingOptions(
        temperature=0.0,
        sample_len=config.data.max_target_tokens - 4,
        without_timestamps=True,
        independent_windows=True,
    )
    batch_size = min(config.evaluation.batch_size, len(chosen))
    transcriber: Transcriber | None = None
    homophones = read_homophones(corpus)

    def validate(parameters: Parameters) -> dict[str, float]:
        nonlocal transcriber
        rounded = program.rounded(parameters)
        if transcriber is None:
            transcriber = Transcriber(model, rounded, processor)
        transcriber.use(rounded)
        transcriptions = transcribe_conditions(transcriber, corpus, chosen, homophones, options, batch_size, quiet=True)
        summary = summarise(transcriptions, homophones)
        measured = {f"validation/wer/{condition}": rate for condition, rate in summary["wer"].items()}
        for condition, decisions in summary.get("homophones", {}).items():
            measured[f"validation/homophones/{condition}"] = decisions["share"]
        log_summary(summary)
        return {"validation/score": measured["validation/wer/right"], **measured}

    return validate
