"""Training from a configuration to a model directory, read from top to bottom.

A run is continued by running it again: state and data position come from its last checkpoint, so every later loss
equals that of a run that was never interrupted. The mesh and the number of processes may have changed in between.
"""

import collections
import contextlib
import itertools
import logging
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cwjax import __version__
from cwjax.config import Config
from cwjax.data.examples.pipeline import require_grain, training_batches, training_windows
from cwjax.data.examples.processor import TOKENIZER_FOLDER
from cwjax.data.examples.windows import token_counts
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError
from cwjax.evaluation.conditions import Condition
from cwjax.evaluation.evaluate import Ladder, evaluate, scores_of, validate
from cwjax.evaluation.evaluator import Evaluator
from cwjax.files import local_path
from cwjax.inference.transcriber import Transcriber
from cwjax.machine import log_devices, peak_memory
from cwjax.models.parameters import Parameters, cast, merge
from cwjax.processes import first_alone, is_first, require_same_settings
from cwjax.training.best import NOTHING_VALIDATED, note_validation, require_measure, rescore
from cwjax.training.checkpoints import Checkpoint, Checkpoints
from cwjax.training.corpus import example_settings, log_estimate, next_batch, prepare_corpus, selection
from cwjax.training.exports import exact_arrays, model_facts, write_export
from cwjax.training.fingerprint import fingerprint
from cwjax.training.groups import count_parameters, require_open_way, split_parameters, whole_model, without_teacher
from cwjax.training.memory import name_out_of_memory
from cwjax.training.meter import Meter
from cwjax.training.metrics import METRICS_FILE, MetricsWriter, Progress, read_metrics
from cwjax.training.parts import initial_parameters, make_processor, open_parts, with_vocabulary
from cwjax.training.profiler import Profiler
from cwjax.training.result import pairs_of, save_adapter
from cwjax.training.sharding import batch_share, gather, make_mesh, put_batch
from cwjax.training.signals import StoppedBySignal, StopSignal
from cwjax.training.timer import Timer
from cwjax.training.trackers import Trackers, flat
from cwjax.training.train_step import abstract_batch, abstract_state, init_state, make_train_step
from cwjax.training.validation_loss import ValidationLoss
from cwjax.training.workdir import opened_workdir
from cwjax.weights.model_directory import record_facts, save_model

log = logging.getLogger(__name__)


def train(config: Config) -> Path:
    """Trains, writes the model directory `WORKDIR/model`, evaluates and reports.

    Returns:
        The model directory.

    Raises:
        CwjaxError: whatever the user can mend.
        StoppedBySignal: a signal asked to stop; nothing is lost.
    """
    began = time.monotonic()
    settings, steps, dtype = config.train, config.train.steps, jnp.dtype(config.train.compute_dtype)
    for name in config.evaluation.conditions:
        Condition.named(name)  # refuses what is none before the work, not after it
    log_devices()
    require_grain()
    require_same_settings({**config.as_dict(), "cwjax": __version__, "jax": jax.__version__})
    with contextlib.ExitStack() as stack:
        workdir = stack.enter_context(opened_workdir(config))
        stop = stack.enter_context(StopSignal(workdir))

        # The model, opened but not read, and the speech that it is trained on.
        parts = open_parts(config)
        is_spoken = config.data.corpus != "demo" or local_path(config.data.root).exists()
        corpus = first_alone(lambda: prepare_corpus(config, parts.config.whisper))
        texts = corpus.texts("train")
        processor = first_alone(lambda: make_processor(config, parts, texts, workdir / TOKENIZER_FOLDER))
        model = with_vocabulary(parts, processor)
        examples = example_settings(config, parts.config.whisper)
        first_alone(lambda: token_counts(corpus, processor.tokens))
        windows = training_windows(corpus, processor, examples, selection(config), settings.seed)

        # The step, and the shapes that it works on.
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
        stack.enter_context(jax.set_mesh(mesh))
        train_step = make_train_step(config, model, mesh)
        abstract, abstract_frozen = abstract_state(config, model, mesh)
        abstract_batch(config, model, mesh)  # refuses what does not divide
        counts = count_parameters(abstract.trainable, abstract_frozen)
        log.info("mesh: %s", ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items()))
        log.info("%s", ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in counts.items()))
        if is_spoken and is_first() and not (workdir / METRICS_FILE).exists():
            log_estimate(config, model, mesh, lambda split: len(corpus.positions(split)))

        # What the run starts from: its own last checkpoint; or else `model.start`, or else pretrained parts, and new
        # parameters where there are none. What is frozen comes from there again, and must be what it was.
        checkpoints = stack.enter_context(Checkpoints(workdir, settings.checkpoints_kept))
        with name_out_of_memory("the state of training", "a larger --mesh.fsdp, or to --freeze more"):
            restored = checkpoints.restore(abstract)
            if restored:
                state, best, progress = restored
                progress = {**NOTHING_VALIDATED, "exported": 0, **progress}
                best = best if rescore(progress, settings.best_by) else None
                frozen = initial_parameters(parts, model, abstract_frozen, settings.seed)
                require_same_frozen(progress["frozen"], frozen, config)
                log.info("continuing after step %d", int(state.step))
            else:
                wanted = merge(abstract.trainable, abstract_frozen)
                initial = initial_parameters(parts, model, wanted, settings.seed)
                trainable, frozen = split_parameters(initial, config.freeze)
                require_open_way(trainable, frozen)
                state, best = init_state(config, trainable, abstract), None
                progress = {"examples": 0, **NOTHING_VALIDATED, "exported": 0, "frozen": fingerprint(frozen)}
                del initial, trainable
        exact_frozen = jax.tree.map(lambda leaf: leaf.update(dtype=jnp.float32), without_teacher(abstract_frozen))
        step = saved = int(state.step)

        # What feeds the loop, and what measures.
        share = batch_share(mesh)
        batches = training_batches(
            corpus,
            windows,
            processor,
            examples,
            settings.batch_size,
            settings.seed,
            config.data.reading_threads,
            share,
            progress["examples"],
        )
        validated_on = validation_positions(config, corpus)
        evaluator = Evaluator(
            lambda parameters: Transcriber(model, parameters, processor, knows_timestamps=parts.facts["timestamps"]),
            dtype,
            corpus,
            config.evaluation.batch_size,
            stop.asked,
        )
        if validated_on:
            losses = ValidationLoss(config, model, mesh, corpus, validated_on, processor, examples, stop.asked)
            require_measure(settings.best_by, evaluator.homophones is not None, losses.segments > 0, corpus.directory)
        trackers = Trackers(settings.trackers, workdir, flat(config.as_dict()), read_metrics(workdir))
        writer = MetricsWriter(workdir, step, progress["validated"], stack.enter_context(trackers))
        meter = stack.enter_context(Meter(settings, writer, Progress(step, steps), share[1]))
        profiler = Profiler(workdir / "profile" if settings.profile else None, step)
        timer = Timer(settings.checkpoint_minutes, settings.log_every)
        lengths: set[int] = set()

        # The loop. A step is saved before it is validated, so that either can be left at any time.
        with profiler, stop.deferred(), name_out_of_memory("the training step"):
            while True:
                last, stopping = step >= steps, stop.asked()
                keeps = is_due(step, every=settings.keep_every)
                saves = is_due(step, every=settings.checkpoint_every) or keeps or last or stopping or timer.passed(step)
                validates = is_due(step, every=settings.validate_every) or (last and settings.validate_every)
                validates = validates and validated_on and progress["validated"] < step
                if (saves or validates) and step > saved:
                    meter.flush()
                    progress["examples"] = step * settings.batch_size
                    checkpoints.save(Checkpoint(state, best, progress), for_good=keeps)
                    saved = step
                    timer.restart()
                if validates and not stopping:
                    with name_out_of_memory("validation", "a smaller --evaluation.batch-size"):
                        whole = whole_model(state.kept, frozen, config.lora)
                        measured = validate(evaluator, whole, validated_on, config.data.max_target_tokens)
                        loss = None if measured is None else losses.measure(whole)
                        del whole
                    stopping = loss is None
                    if not stopping:
                        measured |= loss
                        if note_validation(progress, step, measured, settings.best_by):
                            best = jax.tree.map(jnp.copy, state.kept)
                        writer.write({"step": step, **measured})
                        if settings.patience and progress["stale"] >= settings.patience:
                            log.info("stopping early: %d validations without a better one", progress["stale"])
                            last = True
                if is_due(step, every=settings.export_every) and progress["exported"] < step and not stopping:
                    meter.flush()
                    own = without_teacher(frozen)
                    arrays = exact_arrays(parts, model, state.kept, own, exact_frozen, config.lora.scale, settings.seed)
                    facts = model_facts(config, parts, counts, windows, step)
                    write_export(workdir, step, settings.exports_kept, model, arrays, processor, facts)
                    progress["exported"] = step
                    meter.restart()
                if stopping:
                    checkpoints.wait()
                    raise StoppedBySignal(f"stopped after step {step}; run the same command to continue")
                if last:
                    break
                if saved == step:
                    meter.restart()
                step += 1
                with meter.waiting():
                    batch = next_batch(batches)
                compiles = (length := batch["targets"].shape[1]) not in lengths
                if compiles:
                    lengths.add(length)
                    log.info("compiling the step for targets of %d tokens", length)
                seconds = float(np.sum(batch.pop("seconds")))
                profiler.before(step, state)
                state, metrics = train_step(state, frozen, put_batch(batch, mesh))
                meter.dispatched(step, metrics, seconds)
                if compiles:
                    meter.restart()
        checkpoints.wait()

        # The result: the best parameters in validation, or else the last.
        if best is not None:
            log.info("keeping the parameters of step %d, the best in validation", progress["best_step"])
        trainable = state.kept if best is None else best
        del state, best
        frozen = without_teacher(frozen)
        if dtype != jnp.float32:  # those in use are rounded
            frozen = initial_parameters(parts, model, exact_frozen, settings.seed)
            require_same_frozen(progress["frozen"], cast(frozen, dtype), config)
        parameters = whole_model(trainable, frozen, config.lora)
        facts = model_facts(config, parts, counts, windows, step)
        directory = workdir / "model"
        arrays, pairs = gather(parameters), gather(pairs_of(trainable))
        if is_first():
            save_model(directory, model, arrays, processor, facts)
            save_adapter(directory, pairs, trainable, config)
            log.info("model written to %s", directory)
        collections.deque(itertools.chain(arrays, pairs), maxlen=0)  # all processes must take all
        if config.evaluation.at_end:
            facts["minutes"] = round((time.monotonic() - began) / 60, 1)
            split, count, title = config.evaluation.split, config.evaluation.examples, workdir.resolve().name
            history = read_metrics(workdir)
            ladder = Ladder(config.evaluation.conditions, takes_context=model.takes_context, spots_phrases=False)
            summary = evaluate(evaluator, parameters, workdir, split, count, title, facts, history, ladder)
            if summary is None:
                raise StoppedBySignal("stopped in the evaluation; run the same command to continue")
            if is_first():
                record_facts(directory, {"scores": scores_of(summary, split)})
    if (peak := peak_memory()) is not None:
        log.info("peak memory %.2f GiB", peak / 2**30)
    return directory


def is_due(step: int, *, every: int) -> bool:
    """Whether it is time for what is done every so many steps; 0: never."""
    return every > 0 and step % every == 0


def validation_positions(config: Config, corpus: PreparedCorpus) -> list[int]:
    """The segments to validate on, the same ones every time; none if there is no validation."""
    if not config.train.validate_every:
        return []
    positions = corpus.positions("validation")
    if not positions:
        log.warning(
            "%s: has no validation split, so nothing is validated and the last parameters are kept", corpus.directory
        )
    order = np.random.default_rng(0).permutation(positions)
    return sorted(int(position) for position in order[: config.train.validation_examples or None])


def require_same_frozen(before: dict[str, int], frozen: Parameters, config: Config) -> None:
    """Raises `CwjaxError` if frozen parameters are not those that the run has trained with so far."""
    changed = sorted(path for path, bits in fingerprint(frozen).items() if before.get(path) != bits)
    if changed:
        source = config.model.start or f"{config.model.whisper} and {config.model.text_encoder}"
        raise CwjaxError(
            f"{source}: {len(changed)} of the frozen parameters are others than when the run began, such as "
            f"{changed[0]}; bring back the weights that it began with, or use another --workdir"
        )
