"""The launchers of clusters: their syntax, what they would run, and when they start again."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from patience import PATIENCE, end_when_hung

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
TPU = {"PROJECT": "speech", "ZONE": "us-east5-b", "ACCELERATOR": "v5litepod-64", "REPOSITORY": "https://example.org/x"}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def bash(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_well_formed(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    checker = shutil.which("shellcheck") or pytest.skip("shellcheck is not installed")
    found = subprocess.run([checker, script], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A stand-in for Python that notes its arguments and ends with the statuses listed in a file."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!/usr/bin/env bash\ncd {tmp_path}\n"
        'echo "$@" >> calls\nstatus=$(sed -n "$(wc -l < calls)p" statuses)\nexit "${status:-0}"\n'
    )
    stand_in.chmod(0o755)
    return stand_in


def calls(python: Path, statuses: list[int], *arguments: str, script: str = "keep_training.sh", **environment: str):
    (python.parent / "statuses").write_text("".join(f"{status}\n" for status in statuses))
    done = bash(script, *arguments, PYTHON=str(python), PAUSE="0", **environment)
    return done.returncode, (python.parent / "calls").read_text().splitlines()


def test_training_that_died_starts_again(python: Path) -> None:
    status, made = calls(python, [137, 134, 0], "--config", "a b.py")
    assert status == 0
    assert made == ["launch/train.py --config a b.py"] * 3


def test_what_the_user_must_mend_is_not_tried_again(python: Path) -> None:
    assert calls(python, [1, 0], "--config", "x.py") == (1, ["launch/train.py --config x.py"])


def test_a_process_among_others_starts_again_after_any_failure_but_not_for_ever(python: Path) -> None:
    arguments = {"NODES": "2", "NODE": "1", "COORDINATOR": "host:1"}
    status, made = calls(python, [1, 1, 1, 0], "--config", "x.py", script="multi_gpu.sh", **arguments)
    assert status == 1
    assert made == ["launch/train.py --config x.py --distributed host:1,2,1"] * 3


def test_a_signal_is_passed_on_and_ends_it(tmp_path: Path) -> None:
    """A stand-in for Python trains for ever. On the signal it saves, as slowly as the test reads what it says."""
    never, saving = tmp_path / "never", tmp_path / "saving"
    os.mkfifo(never)
    os.mkfifo(saving)
    python = tmp_path / "python"
    python.write_text(
        f"#!/usr/bin/env bash\ncd '{tmp_path}'\n"
        "trap 'kill $!; echo saving; read -r _ < saving; echo saved > calls; exit 0' TERM\n"
        "echo began\nread -r _ < never &\nwait $!\n"
    )
    python.chmod(0o755)
    process = subprocess.Popen(
        ["bash", LAUNCH / "keep_training.sh"],
        env=os.environ | {"PYTHON": str(python)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    hung = end_when_hung(process)
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saving\n"
    assert process.poll() is None, "it does not wait until all is saved"
    saving.write_text("\n")
    assert process.wait(timeout=PATIENCE) == 0
    hung.cancel()
    assert (tmp_path / "calls").read_text() == "saved\n"


def test_missing_settings_are_named() -> None:
    for script, environment, name in (
        ("multi_gpu.sh", {"NODES": "2"}, "NODE"),
        ("tpu_pod.sh", {}, "PROJECT"),
        ("slurm.sbatch", {}, "--workdir"),
    ):
        done = bash(script, "--config", "x.py", **environment)
        assert done.returncode != 0
        assert f"give {name}" in done.stderr


def test_a_pod_runs_the_same_command_on_all_workers() -> None:
    done = bash("tpu_pod.sh", "--config", "configs/a b.py", DRY_RUN="yes", **TPU)
    assert done.returncode == 0, done.stderr
    setup, train, delete = done.stdout.splitlines()
    for line in (setup, train):
        assert line.startswith("gcloud compute tpus tpu-vm ssh cwjax --project speech --zone us-east5-b --worker all")
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {train}"], capture_output=True, text=True).stdout
    command = words.splitlines()[-1]
    assert command.endswith("launch/train.py --config configs/a\\ b.py --distributed auto")
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0
    assert "queued-resources delete cwjax" in delete


def test_the_job_set_starts_training_on_every_machine() -> None:
    job_set = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (worker,) = job_set["spec"]["replicatedJobs"]
    job = worker["template"]["spec"]
    assert job["parallelism"] == job["completions"]
    assert job["completionMode"] == "Indexed"  # by which JAX tells processes apart
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:2] == ["python", "launch/train.py"]
    assert "--distributed=auto" in container["command"]
    config = next(word for word in container["command"] if word.startswith("--config="))
    assert (LAUNCH.parent / config.removeprefix("--config=")).is_file()
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert rows * columns == job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
