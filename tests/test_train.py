"""Training as users meet it: what it starts from, how it is left, what it says. Kills are in test_runs.py."""

import dataclasses
import json
import logging
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny import write_bert
from tiny_runs import losses, run, write_config

import cwjax
from cwjax import machine
from cwjax.config import Config, DataSettings, Measure, ModelSettings, OptimizerSettings, TrainSettings
from cwjax.data.examples.context import describe_for_evaluation
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError
from cwjax.evaluation.evaluator import Evaluator
from cwjax.models.context_whisper import abstract, init_params
from cwjax.models.lora import LoraSettings
from cwjax.models.parameters import flatten, unflatten
from cwjax.training import meter as metering
from cwjax.training import parts, train
from cwjax.training.best import NOTHING_VALIDATED, note_validation, require_measure, rescore
from cwjax.training.exports import exact_arrays
from cwjax.training.groups import split_parameters
from cwjax.training.memory import name_out_of_memory
from cwjax.training.metrics import MetricsWriter, read_metrics
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import abstract_state
from cwjax.training.workdir import opened_workdir
from cwjax.weights.model_directory import read_model_config, read_parameters, read_training_facts
from cwjax.weights.tensors import open_tensors

pytestmark = pytest.mark.usefixtures("quick_compilation")

EARLIER = Path(__file__).with_name("data") / "model-0.1.0"
STEPS = 12
KERNELS = ("decoder/blocks/attn/query/kernel", "decoder/blocks/cross_attn/value/kernel")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader", reason="the demo's speech needs the extra 'demo'")
    return write_config(tmp_path_factory.mktemp("train"), STEPS)


VALIDATING = (
    *("--train.validate-every", "4", "--train.validation-examples", "6", "--train.checkpoint-every", "100"),
    *("--train.label-smoothing", "0.1"),
)
"""Smoothing, of which the loss in validation must know nothing."""


@pytest.fixture(scope="module")
def validated(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three validations, of which only the first compiles anything."""
    workdir = tmp_path_factory.mktemp("validated") / "a [1] \\ run"
    compiled: list[int] = []
    count = 0

    def note(event: str, *_: object, **__: object) -> None:
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    def counting(*arguments: object) -> dict[str, float] | None:
        before = count
        measured = validate(*arguments)
        compiled.append(count - before)
        return measured

    validate = train.validate
    jax.monitoring.register_event_duration_secs_listener(note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "validate", counting)
        assert run(config, workdir, *VALIDATING) == 0
    assert compiled[0] > 0
    assert compiled[1:] == [0, 0]
    return workdir


def scores(workdir: Path) -> dict[int, float]:
    return {row["step"]: row["validation/score"] for row in read_metrics(workdir) if "validation/score" in row}


def model(workdir: Path) -> dict[str, np.ndarray]:
    return load_file(workdir / "model" / "model.safetensors")


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert losses(ours) == losses(theirs)
    assert scores(ours) == scores(theirs)
    assert sorted(losses(ours)) == list(range(1, STEPS + 1))
    left, right = model(ours), model(theirs)
    assert left.keys() == right.keys()
    for path in left:
        np.testing.assert_array_equal(left[path], right[path], err_msg=path)


def test_a_validation_is_left_when_a_signal_comes_and_made_again(
    config: Path, validated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    heard = Evaluator._heard

    def terminate(*arguments: object) -> object:
        assert (workdir / "checkpoints").exists()
        os.kill(os.getpid(), signal.SIGTERM)
        return heard(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "_heard", terminate)
        assert run(config, workdir, *VALIDATING) == 0
    assert (workdir / "stopped").exists()
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["4"]
    assert scores(workdir) == {}
    assert max(losses(workdir)) == 4
    assert run(config, workdir, *VALIDATING) == 0
    assert not (workdir / "stopped").exists()
    assert_same_run(workdir, validated)


def test_a_kill_after_a_validation_makes_it_again(
    config: Path, validated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its score is in the metrics already, and in no checkpoint yet."""
    write = MetricsWriter.write

    def die(writer: MetricsWriter, row: dict[str, float]) -> None:
        write(writer, row)
        if row["step"] == 8 and "validation/score" in row:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", die)
        assert run(config, tmp_path / "run", *VALIDATING) == 130
    assert run(config, tmp_path / "run", *VALIDATING) == 0
    assert_same_run(tmp_path / "run", validated)


def test_the_best_is_kept_and_is_what_the_checkpoint_says(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed while step 12 is validated, and gone on with fewer steps: the best of the last checkpoint is exported."""
    given = {4: 0.9, 8: 0.5, 12: 0.7}
    seen: dict[int, np.ndarray] = {}

    def validate(_: object, parameters: dict, *__: object) -> dict[str, float]:
        step = 4 * (len(seen) + 1)
        seen[step] = np.array(parameters["decoder"]["token_embedding"]["embedding"])
        if step == 12:
            raise KeyboardInterrupt
        return {"validation/wer/right": given[step]}

    with monkeypatch.context() as patch:
        patch.setattr(train, "validate", validate)
        assert run(config, tmp_path / "run", *VALIDATING) == 130
        patch.setattr(train, "validate", lambda *_: {"validation/wer/right": 0.7})
        assert run(config, tmp_path / "run", *VALIDATING, "--train.steps", "9") == 0
    assert "keeping the parameters of step 8" in capfd.readouterr().err
    np.testing.assert_array_equal(model(tmp_path / "run")["decoder/token_embedding/embedding"], seen[8])


def test_the_loss_in_validation_is_that_of_the_true_transcripts(config: Path, validated: Path) -> None:
    """Against logits of whole targets, one segment after another, of the exported model: the best one."""
    rows = {row["step"]: row for row in read_metrics(validated) if "validation/loss" in row}
    assert sorted(rows) == [4, 8, 12]
    assert {f"validation/{by}" for by in get_args(Measure)} <= rows[4].keys(), "whatever the best may be chosen by"
    model, corpus = cwjax.load(validated / "model"), PreparedCorpus.read(config.parent / "corpus-prepared")
    positions = train.validation_positions(Config(train=TrainSettings(validate_every=4, validation_examples=6)), corpus)
    tokens = model.processor.tokens

    @jax.jit
    def logits(*inputs: jax.Array) -> jax.Array:
        return nnx.merge(abstract(model.config)[0], model.params)(*inputs)

    losses, right = [], []
    for position in positions:
        segment = corpus.segments[position]
        prompt, said = tokens.prompt("en", timestamps=False), tokens.transcript(segment.utterances, timestamps=False)
        read = np.full((1, 44), tokens.end_of_text)
        read[0, : len(prompt + said) - 1] = (prompt + said)[:-1]
        context = model.processor.context([describe_for_evaluation(segment)], 16)
        found = logits(model.processor.features(corpus.audio(position))[None], read, *context)
        found = np.asarray(found, np.float64)[0, len(prompt) - 1 :][: len(said)]
        losses += list(np.log(np.exp(found).sum(axis=-1)) - found[np.arange(len(said)), said])
        right += list(found.argmax(axis=-1) == said)
    best = min(rows.values(), key=lambda row: (row["validation/wer/right"], row["step"]))
    assert best["validation/loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert best["validation/token_accuracy"] == pytest.approx(np.mean(right), abs=0.02)
    assert rows[4]["validation/loss"] > rows[12]["validation/loss"]


def test_training_ends_when_validations_get_no_better(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second without a better one is killed before it is saved, and made again, as in a run that nobody killed."""
    losses_given = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.25, 10: 1.0, 12: 0.5}
    killed = False

    class Given:
        segments = 1

        def __init__(self, *_: object):
            self.validations = 4 if killed else 1

        def measure(self, _: dict) -> dict[str, float]:
            nonlocal killed
            step = 2 * self.validations
            self.validations += 1
            if step == 8 and not killed:
                killed = True
                raise KeyboardInterrupt
            return {"validation/loss": losses_given[step], "validation/token_accuracy": 1 / losses_given[step]}

    monkeypatch.setattr(train, "validate", lambda *_: {"validation/wer/right": 1.0})
    monkeypatch.setattr(train, "ValidationLoss", Given)
    options = ("--train.validate-every", "2", "--train.best-by", "loss", "--train.patience", "2")
    assert run(config, tmp_path / "run", *options) == 130
    assert run(config, tmp_path / "run", *options) == 0
    assert max(losses(tmp_path / "run")) == 8
    assert scores(tmp_path / "run") == {step: losses_given[step] for step in (2, 4, 6, 8)}
    said = capfd.readouterr().err
    assert "stopping early: 2 validations without a better one" in said
    assert "keeping the parameters of step 4" in said
    assert read_training_facts(tmp_path / "run/model")["steps"] == 8


def test_the_best_is_the_lowest_or_the_highest_and_can_be_judged_anew(caplog: pytest.LogCaptureFixture) -> None:
    progress = dict(NOTHING_VALIDATED)
    first = {"validation/wer/right": 0.5, "validation/homophones/right": 0.5}
    worse = {"validation/wer/right": 0.4, "validation/homophones/right": 0.4}
    assert note_validation(progress, 2, first, "homophones/right")
    assert not note_validation(progress, 4, worse, "homophones/right")
    assert not note_validation(progress, 6, dict(first), "homophones/right"), "no better than the best"
    assert (progress["best_step"], progress["validated"], progress["stale"]) == (2, 6, 2)
    assert first["validation/score"] == 0.5
    assert rescore(progress, "wer/right")
    assert note_validation(progress, 8, worse, "wer/right")
    assert rescore({**NOTHING_VALIDATED, "score": 0.3}, "wer/right"), "of a run before there was a choice"
    assert not caplog.text
    assert not rescore(progress, "loss")
    assert "train.best_by is loss, which was not measured before" in caplog.text
    assert note_validation(progress, 10, {"validation/loss": 9.0}, "loss")
    progress = dict(NOTHING_VALIDATED)
    assert note_validation(progress, 2, {"validation/cer/wrong": 0.5}, "cer/wrong")
    assert note_validation(progress, 4, {"validation/cer/wrong": 0.4}, "cer/wrong"), "less is better"
    for by in ("homophones/wrong", "token_accuracy"):
        with pytest.raises(CwjaxError, match=f"train.best_by is {by}, but "):
            require_measure(by, False, False, Path("here"))


def test_frozen_weights_are_those_that_were_trained_with(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first checkpoint others may take their place; afterwards they are refused."""
    write = MetricsWriter.write

    def die(writer: MetricsWriter, row: dict[str, float]) -> None:
        write(writer, row)
        raise KeyboardInterrupt

    bert, workdir = tmp_path / "bert", tmp_path / "run"
    shutil.copytree(config.parent / "bert", bert)
    source = ("--model.text-encoder", str(bert))
    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", die)
        assert run(config, workdir, *source) == 130
    shutil.rmtree(bert)
    write_bert(bert, seed=1)
    assert run(config, workdir, *source, "--train.steps", "3") == 0
    ours = model(workdir)["text_encoder/blocks/attn/query/kernel"]
    np.testing.assert_array_equal(ours[0], _query_kernel(bert))
    shutil.rmtree(bert)
    write_bert(bert, seed=2)
    assert run(config, workdir, *source, "--train.steps", "4") == 1
    error = capsys.readouterr().err
    assert f"{bert}: " in error.replace("new and ", "")
    assert "of the frozen parameters are others than when the run began" in error


def _query_kernel(bert: Path) -> np.ndarray:
    tensors = open_tensors(bert)
    (name,) = (name for name in tensors.shapes if name.endswith("layer.0.attention.self.query.weight"))
    return tensors.read(name).T


def test_a_signal_before_the_first_step_leaves_word_for_the_launcher(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "open_parts", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert run(config, tmp_path / "run") == 0
    assert (tmp_path / "run" / "stopped").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_out_of_memory_is_one_line_with_what_helps(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(*_: object) -> object:
        return lambda *_: jax.block_until_ready(jax.numpy.zeros((1 << 20, 1 << 28)))

    monkeypatch.setattr(train, "make_train_step", step)
    assert run(config, tmp_path / "run") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "out of memory: the training step does not fit on cpu (it asked for" in error
    for cure in ("--train.batch-size", "--train.accumulation", "--train.remat", "--mesh.fsdp", "cwjax plan"):
        assert cure in error


@pytest.mark.parametrize(
    ("message", "figure"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating 1126999418470400 bytes.", "it asked for 1126999418470400 bytes"),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 95.37GiB.", "it asked for 95.37GiB"),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.51G of "
         "15.75G hbm. Exceeded hbm capacity by 4.76G.", "it asked for 20.51G"),
    ],
)  # fmt: skip
def test_out_of_memory_says_how_much(message: str, figure: str) -> None:
    with pytest.raises(CwjaxError, match=figure), name_out_of_memory("the step"):
        raise jax.errors.JaxRuntimeError(message)
    with pytest.raises(jax.errors.JaxRuntimeError), name_out_of_memory("the step"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_devices_are_named_and_one_that_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setattr(machine, "ACCELERATORS", {f"{tmp_path}/*": "do this"})
    asked = jax.config.jax_platforms
    try:
        with caplog.at_level(logging.INFO, "cwjax"):
            jax.config.update("jax_platforms", "cpu")
            machine.log_devices()
            assert caplog.records[0].message == f"devices: {jax.device_count()} x cpu (cpu)"
            assert "accelerator" not in caplog.text
            jax.config.update("jax_platforms", None)
            machine.log_devices()
    finally:
        jax.config.update("jax_platforms", asked)
    assert "0000:01:00.0: an accelerator is here, but JAX does not use it: do this" in caplog.text


def test_no_validation_examples_are_all_and_no_split_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def chosen(**settings: int) -> list[int]:
        corpus = SimpleNamespace(positions=lambda split: splits[split], directory="here")
        return train.validation_positions(Config(train=TrainSettings(**settings)), corpus)

    splits = {"validation": [3, 5, 8]}
    assert chosen(validate_every=2, validation_examples=0) == [3, 5, 8]
    assert len(chosen(validate_every=2, validation_examples=2)) == 2
    assert chosen(validate_every=0) == []
    assert not caplog.text
    splits = {"validation": []}
    assert chosen(validate_every=2) == []
    assert "here: has no validation split" in caplog.text


def stored(workdir: Path, config: Config, **changed: object) -> Config:
    """A run directory with a checkpoint, made with a configuration."""
    config = dataclasses.replace(config, workdir=str(workdir))
    (workdir / "checkpoints" / "5").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(config.as_dict() | changed))
    return config


@pytest.mark.parametrize(
    "change", [{"remat": "full"}, {"accumulation": 4}, {"validate_every": 7}, {"best_by": "loss"}, {"keep_every": 9}]
)
def test_what_changes_no_loss_may_change(tmp_path: Path, change: dict, caplog: pytest.LogCaptureFixture) -> None:
    config = stored(tmp_path, Config())
    with (
        caplog.at_level(logging.INFO, "cwjax"),
        opened_workdir(dataclasses.replace(config, train=dataclasses.replace(config.train, **change))),
    ):
        assert f"changed since the run began: train.{next(iter(change))}" in caplog.text
    kept = json.loads((tmp_path / "config.json").read_text())["train"]
    assert kept.items() >= change.items()


def test_what_changes_losses_is_refused_after_the_first_checkpoint_only(tmp_path: Path) -> None:
    config = stored(tmp_path, Config())
    other = dataclasses.replace(config, optim=OptimizerSettings(learning_rate=0.5))
    with pytest.raises(CwjaxError, match=r"optim.learning_rate: 0.0001 -> 0.5"), opened_workdir(other):
        pass
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "tokenizer").mkdir()
    with opened_workdir(other):
        assert not (tmp_path / "tokenizer").exists(), "it is of the other configuration"


def test_runs_of_other_versions_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that lacks a field, has one by its old name, and one that nobody knows."""
    config = stored(tmp_path, Config(train=TrainSettings(remat="dots")))
    path = tmp_path / "config.json"
    older = json.loads(path.read_text())
    del older["train"]["remat"], older["data"]["speed"], older["mesh"]
    older["train"]["recomputed"] = "cheap"
    older["data"]["dreams"] = 3
    path.write_text(json.dumps(older))
    with caplog.at_level(logging.INFO, "cwjax"), opened_workdir(config):
        pass
    assert "changed" not in caplog.text
    assert "data.dreams" in caplog.text
    path.write_text(json.dumps(older))
    with (
        pytest.raises(CwjaxError, match=r"data.examples: 0 -> 7"),
        opened_workdir(dataclasses.replace(config, data=DataSettings(examples=7))),
    ):
        pass


@pytest.mark.parametrize("content", ["null", "5", "[]", "{", "[" * 100_000, "\xff"])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: str) -> None:
    config = stored(tmp_path, Config())
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CwjaxError, match=r"config\.json: "), opened_workdir(config):
        pass


def test_two_runs_in_one_directory_are_refused(tmp_path: Path) -> None:
    config = Config(workdir=str(tmp_path / "run"))
    refused = pytest.raises(CwjaxError, match="another run is at work in it")
    with opened_workdir(config), refused, opened_workdir(config):
        pass
    with opened_workdir(config):
        pass


def test_damaged_metrics_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [b'{"step": 1, "loss": 2.0}', b"null", b"5", b'{"loss": 1}', b'{"step": "2"}', b'{"step": 3, "t": "\xc3']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows))
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
    assert "left out 5 lines" in caplog.text


def test_the_pace_is_of_the_steps_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds for a batch, one for a step, of which two processes read the same and two others the rest."""
    now = 0.0
    monkeypatch.setattr(metering.time, "perf_counter", lambda: now)
    rows: list[dict] = []
    silent = SimpleNamespace(advance=lambda: None, report=lambda row: None)
    settings = TrainSettings(steps=9, batch_size=8, log_every=2)
    meter = metering.Meter(settings, SimpleNamespace(write=rows.append), silent, shares=2)
    for step in range(1, 10):
        with meter.waiting():
            now += 3
        meter.dispatched(step, {"loss": np.float32(1), "gradient_norm": np.float32(1)}, audio_seconds=10.0)
        now += 1
    meter.flush()
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 9]
    assert all(0 <= row["data_wait"] <= 1 for row in rows)
    assert rows[1]["seconds_per_step"] == 4
    assert rows[1]["data_wait"] == 0.75
    assert rows[1]["audio_seconds_per_second"] == 2 * 2 * 10 / 8


def test_a_tokenizer_that_was_being_written_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert = write_bert(tmp_path / "bert")
    config = Config()
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, text_encoder=str(bert), tokenizer_size=260),
        data=DataSettings(max_context_tokens=16),
    )
    opened = parts.open_parts(config)
    write = parts.train_tokenizer

    def die(texts: object, size: int, directory: Path) -> None:
        write(texts, size, directory)
        next(path for path in directory.iterdir()).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "train_tokenizer", die)
    with pytest.raises(KeyboardInterrupt):
        parts.make_processor(config, opened, ["a sail"], tmp_path / "tokenizer")
    monkeypatch.undo()
    assert not (tmp_path / "tokenizer").exists()
    processor = parts.make_processor(config, opened, ["a sail"], tmp_path / "tokenizer")
    assert parts.with_vocabulary(opened, processor).whisper.vocab_size == len(processor.tokens)


def test_a_model_written_in_between_has_its_frozen_weights_unrounded() -> None:
    """The text encoder is pretrained, the positions are new; training holds both in bfloat16."""
    model, mesh = read_model_config(EARLIER), make_mesh(-1, 1, 1)
    whole = dict(read_parameters(EARLIER, model))
    opened = parts.ModelParts(
        model, lambda: ((path, whole[path]) for path in whole if path.startswith("text_encoder/")), None, EARLIER, {}
    )
    config = Config(freeze=("text_encoder",), train=TrainSettings(compute_dtype="bfloat16"))
    shapes = abstract_state(config, model, mesh)[1]
    exact = jax.tree.map(lambda leaf: leaf.update(dtype=jax.numpy.float32), shapes)
    trainable = jax.device_put(split_parameters(unflatten(whole), config.freeze)[0])
    frozen = parts.initial_parameters(opened, model, shapes, seed=0)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(frozen)} == {"bfloat16"}
    written = dict(exact_arrays(opened, model, trainable, frozen, exact, scale=1.0, seed=0))
    whole["audio_encoder/positions"] = init_params(model, jax.random.key(0))["audio_encoder"]["positions"]
    assert written.keys() == whole.keys()
    for path, array in written.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, whole[path], err_msg=path)


def test_a_model_written_in_between_has_pairs_merged_into_unrounded_kernels() -> None:
    """One of the adapted kernels is pretrained, one is new; both are frozen, and rounded in training."""
    model, mesh, lora = read_model_config(EARLIER), make_mesh(-1, 1, 1), LoraSettings(2, 3.0, KERNELS)
    whole = dict(read_parameters(EARLIER, model))
    config = Config(freeze=("text_encoder", "decoder"), lora=lora, train=TrainSettings(compute_dtype="bfloat16"))
    pretrained = {path: whole[path] for path in whole if path.startswith(("text_encoder/", "decoder/"))}
    del pretrained[KERNELS[1]]
    opened = parts.ModelParts(model, lambda: iter(pretrained.items()), None, EARLIER, {})
    state, shapes = abstract_state(config, model, mesh)
    exact = jax.tree.map(lambda leaf: leaf.update(dtype=jax.numpy.float32), shapes)
    random = np.random.default_rng(0)
    trainable = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), state.trainable)
    trained = dict(flatten(trainable))
    frozen = parts.initial_parameters(opened, model, shapes, seed=0)
    written = dict(exact_arrays(opened, model, jax.device_put(trainable), frozen, exact, lora.scale, seed=0))
    assert written.keys() == whole.keys()
    bases = {
        KERNELS[0]: whole[KERNELS[0]],
        KERNELS[1]: dict(flatten(init_params(model, jax.random.key(0))))[KERNELS[1]],
    }
    for path, base in bases.items():
        head = path.removesuffix("kernel")
        merged = base + 3 / 2 * trained[head + "lora_a"] @ trained[head + "lora_b"]
        np.testing.assert_allclose(written[path], merged, rtol=1e-5, atol=1e-5, err_msg=path)
    for path in written.keys() - bases.keys() - {"audio_encoder/positions"}:
        np.testing.assert_array_equal(written[path], trained.get(path, whole[path]), err_msg=path)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_trained_from(
    tmp_path: Path, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a part, and those of a whole model."""
    monkeypatch.setattr(parts, "_require_room", lambda *_: None)  # the model is smaller than any example
    bert, model = write_bert(tmp_path / "bert"), shutil.copytree(EARLIER, tmp_path / "model")
    for directory in (bert, model):
        tensors = load_file(directory / "model.safetensors")
        name = next(name for name in sorted(tensors) if name.endswith(("LayerNorm.bias", "/bias")))
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = wrong
        save_file(tensors, directory / "model.safetensors")
    for settings, source in (
        (ModelSettings(text_encoder=str(bert), tokenizer_size=260), bert),
        (ModelSettings(start=str(model)), model),
    ):
        opened = parts.open_parts(Config(model=settings))
        with pytest.raises(CwjaxError, match=rf"{source}: .*/bias: holds numbers that are not finite"):
            list(opened.read())


def test_a_text_encoder_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    """What transformers makes up in its place knows five tokens."""
    bert = write_bert(tmp_path / "bert")
    words = (bert / "vocab.txt").read_text().splitlines()
    (bert / "vocab.txt").write_text("\n".join(words[:5]) + "\n")
    config = Config()
    settings = dataclasses.replace(config.model, text_encoder=str(bert), tokenizer_size=260)
    config = dataclasses.replace(config, model=settings, data=DataSettings(max_context_tokens=16))
    with pytest.raises(CwjaxError, match=rf"the tokenizer has 5 tokens, the text encoder {len(words)}"):
        parts.make_processor(config, parts.open_parts(config), ["a sail"], tmp_path / "tokenizer")
