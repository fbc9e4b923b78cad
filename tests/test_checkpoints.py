"""Checkpoints on disks that fill up, flip bits, lose files. Whole runs, killed and continued, are in test_runs.py."""

import contextlib
import os
import random
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cwjax.errors import CwjaxError
from cwjax.training import checkpoints
from cwjax.training.checkpoints import Checkpoint, Checkpoints
from cwjax.training.sharding import make_mesh, replicated, with_shardings
from cwjax.training.train_step import TrainState

OPTIMIZER = optax.adamw(1e-3)


def state(step: int) -> TrainState:
    """A state whose numbers are its step's own."""
    trainable = {"decoder": {"kernel": jnp.asarray(np.random.default_rng(step).normal(size=(200, 300)), jnp.float32)}}
    whole = TrainState(jnp.int32(step), trainable, OPTIMIZER.init(trainable))
    return jax.device_put(whole, replicated(make_mesh(-1, 1, 1)))


def abstract(optimizer: optax.GradientTransformation = OPTIMIZER) -> TrainState:
    whole = state(0)
    shapes = TrainState(whole.step, whole.trainable, jax.eval_shape(optimizer.init, whole.trainable))
    return with_shardings(shapes, jax.tree.map(lambda _: replicated(make_mesh(-1, 1, 1)), shapes))


def write(workdir: Path, *steps: int, kept: int = 2) -> None:
    workdir.mkdir(exist_ok=True)
    with Checkpoints(workdir, kept) as written:
        for step in steps:
            best = state(step - 1).trainable if step > 1 else None
            written.save(Checkpoint(state(step), best, {"examples": 10 * step}))


def restore(workdir: Path, kept: int = 2) -> Checkpoint | None:
    with Checkpoints(workdir, kept) as written:
        return written.restore(abstract())


def assert_is(found: Checkpoint, step: int) -> None:
    jax.tree.map(np.testing.assert_array_equal, found.state, state(step))
    assert found.progress == {"examples": 10 * step}
    if step > 1:
        jax.tree.map(np.testing.assert_array_equal, found.best, state(step - 1).trainable)
    else:
        assert found.best is None


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """A limit on the size of files makes writes fail in the operating system, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("two")
    write(workdir, 1, 2)
    return workdir


def copied(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "run"))


@pytest.mark.parametrize("name", ["plain", "a [1]", "back\\slash", "sta*r"])
def test_what_is_saved_is_restored_wherever_it_lies(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, 1, 2, 3)
    assert sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) == ["2", "3"]
    assert_is(restore(tmp_path / name), 3)


def test_what_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with full_disk(), pytest.raises(CwjaxError, match=r"checkpoints: the checkpoint of step 2 .*of step 1 remains"):
        write(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    write(tmp_path, 2)
    assert_is(restore(tmp_path), 2)


def test_what_a_kill_leaves_is_taken_away(two: Path, tmp_path: Path) -> None:
    """A checkpoint that was being written, one that was being deleted, and one too many."""
    workdir = copied(two, tmp_path)
    folder = workdir / "checkpoints"
    for leftover in ("3.partial", "3.partial.orbax-checkpoint-tmp", "0.deleted"):
        shutil.copytree(folder / "1", folder / leftover)
    assert_is(restore(workdir, kept=1), 2)
    assert [path.name for path in folder.iterdir()] == ["2"]


def test_no_flipped_bit_is_trained_on(two: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seeded = random.Random(0)
    files = [path.relative_to(two) for path in sorted((two / "checkpoints" / "2").rglob("*")) if path.is_file()]
    files = [file for file in files if (two / file).stat().st_size]
    for number, file in enumerate(files):
        workdir = copied(two, tmp_path / str(number))
        content = bytearray((workdir / file).read_bytes())
        content[seeded.randrange(len(content))] ^= 1 << seeded.randrange(8)
        (workdir / file).write_bytes(content)
        assert_is(restore(workdir), 1)
        assert (workdir / "damaged" / "2").is_dir()
        assert f"{file.name} has other bytes than were written" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b'{"sha256": 3, "content": 4}', b'{"content": "{}"}', b"\xff", b"[" * 100_000]
)
def test_a_description_that_is_none_is_damage(two: Path, tmp_path: Path, content: bytes) -> None:
    workdir = copied(two, tmp_path)
    (workdir / "checkpoints" / "2" / checkpoints.DESCRIPTION_FILE).write_bytes(content)
    assert_is(restore(workdir), 1)


def test_a_lost_file_is_damage_and_without_any_whole_checkpoint_nothing_is_overwritten(
    two: Path, tmp_path: Path
) -> None:
    workdir = copied(two, tmp_path)
    for step in ("1", "2"):
        os.remove(next((workdir / "checkpoints" / step / "state").rglob("d/*")))
    with pytest.raises(CwjaxError, match=r"none of the checkpoints of steps \[2, 1\] is whole"):
        restore(workdir)
    assert sorted(path.name for path in (workdir / "damaged").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 77 bytes"),
            "out of memory: restoring",
        ),
        (MemoryError(), "out of memory: restoring"),
        (PermissionError(13, "Permission denied"), "2: is whole, but cannot be read"),
        (ValueError("anything"), "2: is whole, but cannot be read"),
    ],
)
def test_what_is_no_damage_moves_nothing(
    two: Path, tmp_path: Path, error: Exception, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copied(two, tmp_path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(checkpoints.ocp, "load_checkpointables", fail)
    with pytest.raises(CwjaxError, match=complaint):
        restore(workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]
    assert not (workdir / "damaged").exists()


def test_another_optimizer_or_model_is_named_and_moves_nothing(two: Path, tmp_path: Path) -> None:
    workdir = copied(two, tmp_path)
    with Checkpoints(workdir, 2) as written:
        with pytest.raises(CwjaxError, match="of another optimizer"):
            written.restore(abstract(optax.sgd(1e-3, momentum=0.9)))
        other = abstract()
        other.trainable["decoder"]["bias"] = other.trainable["decoder"].pop("kernel")
        with pytest.raises(CwjaxError, match="of another model: decoder/bias is None there"):
            written.restore(other)
    assert not (workdir / "damaged").exists()


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "5" / "progress").mkdir(parents=True)
    with pytest.raises(CwjaxError, match="5: was written by an earlier version of cwjax"):
        restore(tmp_path)
    assert (tmp_path / "checkpoints" / "5").exists()


def test_a_directory_that_is_gone_is_told_at_the_next_checkpoint(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()
    with Checkpoints(workdir, 2) as written:
        written.save(Checkpoint(state(1), None, {}))
        written.wait()
        shutil.rmtree(workdir)
        with pytest.raises(CwjaxError, match="the run's directory is gone"):
            written.save(Checkpoint(state(2), None, {}))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert restore(tmp_path) is None
