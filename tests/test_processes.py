"""Several real processes as one run: joining, agreeing, dying, going on in another number."""

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
from patience import PATIENCE
from safetensors.numpy import load_file
from tiny_runs import ROOT, SHORTER, losses, run, wait_until_paused, write_config
from tolerance import assert_close, layer_terms

from cwjax import processes
from cwjax.cli import main
from cwjax.errors import CwjaxError
from cwjax.training.metrics import read_metrics

pytest.importorskip("espeakng_loader", reason="the demo's speech needs the extra 'demo'")

pytestmark = pytest.mark.usefixtures("quick_compilation")

STEPS = 16
VALIDATING = ("--train.validate-every", "8", "--train.validation-examples", "7", "--evaluation.batch-size", "6")
TERMS = STEPS * (2 * (3 * (80 + 32) + layer_terms(32, 64, 120, 16) + layer_terms(32, 64, 48, 120)) + 4 * 240)
"""In every step a gradient goes through convolutions, a layer of audio and one of text and back, and is summed over
240 mel frames of four examples."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With so large an epsilon an update is nearly the gradient times the learning rate. With a small one every gradient
    # moves its parameter by the learning rate, even one that is nothing but rounding errors.
    optim = "learning_rate=0.3, epsilon=1.0, warmup_steps=5"
    return write_config(tmp_path_factory.mktemp("processes"), STEPS, optim, SHORTER)


@pytest.fixture(scope="module")
def alone(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    assert run(config, workdir, *VALIDATING) == 0
    return workdir


def free_address() -> str:
    """An address nobody listens on. The system gives such ports to nobody who does not ask for them, and two sessions
    of tests, or two workers of one, hardly hit on the same."""
    ports = random.SystemRandom()
    while True:
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", ports.randrange(12_000, 32_000)))
            except OSError:
                continue
            return f"127.0.0.1:{free.getsockname()[1]}"


def start(
    config: Path, workdir: Path, count: int, *overrides: str, pause_after: int | str | None = None
) -> list[subprocess.Popen]:
    """All processes of a run, the first of which may be told to wait after a step."""
    address = free_address()
    return [
        tiny_runs.start(
            config,
            workdir,
            *overrides,
            "--distributed",
            f"{address},{count},{number}",
            pause_after=None if number else pause_after,
        )
        for number in range(count)
    ]


def finish(started: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit status and standard error of each; none is left behind."""
    try:
        return [(one.communicate(timeout=PATIENCE)[1], one.returncode)[::-1] for one in started]
    finally:
        for one in started:
            one.kill()
            one.communicate()


def assert_same_run(ours: Path, theirs: Path) -> None:
    left, right = losses(ours), losses(theirs)
    assert sorted(left) == list(range(1, STEPS + 1))
    assert_close([left[step] for step in right], list(right.values()), TERMS)
    left, right = (load_file(run / "model" / "model.safetensors") for run in (ours, theirs))
    assert left.keys() == right.keys()
    for path in left:
        assert_close(left[path], right[path], TERMS, message=path)
    left, right = ([row for row in read_metrics(run) if "validation/score" in row] for run in (ours, theirs))
    assert [row["step"] for row in left] == [8, 16]
    for row, expected in zip(left, right, strict=True):
        assert "validation/loss" in row
        assert row == pytest.approx(expected, abs=1e-5)


def test_two_stopped_two_of_which_one_is_killed_and_four_do_what_one_does(
    config: Path, alone: Path, tmp_path: Path
) -> None:
    """One run, started four times: its losses, its validations and its model are those of a single process that nobody
    disturbed."""
    workdir, often = (
        tmp_path / "run",
        ("--train.checkpoint-every", "3", "--train.checkpoint-minutes", "0.01", *VALIDATING),
    )

    # SIGTERM to one of two that share the parameters: all save and end well.
    started = start(config, workdir, 2, "--mesh.fsdp", "2", *often, pause_after=2)
    wait_until_paused(started[0])
    started[1].send_signal(signal.SIGTERM)
    # JAX looks for the signal once a second. Process 0 waits until it knows of it and has said where it is itself.
    started[0].stdin.write(f"PREEMPTION_CURRENT_COUNTER/0 {1000 * PATIENCE:.0f}\n")
    started[0].stdin.flush()
    results = finish(started)
    assert [status for status, _ in results] == [0, 0], results
    assert "run the same command to continue" in results[0][1]
    assert (workdir / "stopped").exists()
    assert max(losses(workdir)) < 8

    # One of two that share the batch is killed in a validation: the other notices and says so.
    started = start(config, workdir, 2, *often, pause_after="validation")
    wait_until_paused(started[0])
    started[1].kill()
    (status, said), (killed, _) = finish(started)
    assert "continuing after step" in said
    assert killed == -signal.SIGKILL
    assert status not in (0, -signal.SIGKILL)
    assert "another task died" in said or "one of which has probably died" in said
    assert "Traceback" not in said
    assert max(losses(workdir)) == 8
    assert not any("validation/score" in row for row in read_metrics(workdir))

    # Four, each two of which share examples and split the heads, go on to the end.
    results = finish(start(config, workdir, 4, "--mesh.tensor", "2", *often))
    assert [status for status, _ in results] == [0] * 4, results
    assert "continuing after step" in results[0][1]
    assert all("step 16 of 16" not in said for _, said in results[1:])
    assert_same_run(workdir, alone)


def test_different_configurations_are_refused_by_all(config: Path, tmp_path: Path) -> None:
    address = free_address()
    started = [
        tiny_runs.start(
            config,
            tmp_path / "run",
            "--distributed",
            f"{address},2,{number}",
            "--optim.learning-rate",
            rate,
        )
        for number, rate in enumerate(("0.001", "0.5"))
    ]
    for status, said in finish(started):
        assert status == 1, said
        assert "process 1 has another configuration than process 0 (optim.learning_rate: 0.001 -> 0.5)" in said
    assert not (tmp_path / "run").exists()


def both(script: str, counts: tuple[int, int]) -> list[tuple[int, str]]:
    """Status and errors of two processes, each told how many there are and the address of the first."""
    address = free_address()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, f"{address},{count},{number}"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, count in enumerate(counts)
    ]
    said = [one.communicate(timeout=PATIENCE)[1] for one in started]
    return [(one.returncode, text) for one, text in zip(started, said, strict=True)]


def test_another_number_of_processes_is_refused_by_all() -> None:
    """Process 0 is told of two, process 1 of three; the address is one that nobody else can reach."""
    script = "import sys; from cwjax import processes as p; p.join(sys.argv[1], p.Patience(join=600))"
    for status, said in both(script, (2, 3)):
        assert status == 1, said
        assert "process 0 is one of 2 processes, process 1 one of 3" in said


def test_the_death_of_the_first_process_ends_the_others_with_a_plain_line() -> None:
    """JAX's threads abort the other, which is not communicating and so meets no error of its own."""
    script = (
        "import os, sys, time; from cwjax import processes as p; p.join(sys.argv[1]); "
        "p.is_first() and os.kill(os.getpid(), 9); time.sleep(600)"
    )
    (first, _), (second, said) = both(script, (2, 2))
    assert (first, second) == (-signal.SIGKILL, 1), said
    assert said.splitlines()[-1] == f"cwjax: error: {processes.LOST}; {processes.CONTINUE}"


def test_a_first_process_that_is_not_there_is_named() -> None:
    address = free_address()
    with pytest.raises(CwjaxError, match=f"process 0 cannot be reached at {address} within 1 s .*--join-timeout"):
        processes.join(f"{address},2,1", processes.Patience(join=1))


def test_others_that_do_not_come_are_waited_for_no_longer_than_said() -> None:
    address = free_address()
    script = f"from cwjax import processes as p; p.join('{address},2,0', p.Patience(join=2))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert f"{address}: not all processes joined within 2 s" in done.stderr
    assert "--join-timeout" in done.stderr


@pytest.mark.parametrize("option", ["--join-timeout", "--heartbeat-timeout"])
def test_no_patience_is_refused(option: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(config), "--distributed", "auto", option, "0"]) == 1
    assert f"{option} is 0: use at least 1 second" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["host,2,0", "host:1,2", "host:1,2,2", "automatic"])
def test_a_setting_that_cannot_be_read_is_explained(setting: str) -> None:
    with pytest.raises(CwjaxError, match="give auto, or HOST:PORT,N,I"):
        processes.join(setting)


def test_no_cluster_is_an_error_and_not_a_run_alone(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "launch/train.py", "--config", str(config), "--workdir", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--distributed", "auto"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "no cluster is recognised" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
