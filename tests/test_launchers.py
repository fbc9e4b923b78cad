"""The launchers of clusters: their syntax, what they would run, and when they start again."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from patience import PATIENCE, end_when_hung

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch", LAUNCH.parent / ".ci/run"])
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


def slurm(tmp_path: Path, *arguments: str, stopped: bool = False) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Runs the batch script under stand-ins. The one for srun starts two tasks with what Slurm tells them, and with the
    GPUs that they see by the options of job and step (Slurm's documentation of --gpus-per-task and --gpu-bind); JAX's
    own code says which of them a task takes."""
    workdir = tmp_path / "run"
    workdir.mkdir(exist_ok=True)
    if stopped:
        (workdir / "stopped").touch()
    script = (LAUNCH / "slurm.sbatch").read_text()
    each = "--gpus-per-task=1" in script and "--gpu-bind=none" not in script
    task = tmp_path / "task.py"
    task.write_text(
        "from jax._src.clusters import SlurmCluster\n"
        "import os\n"
        "ids = SlurmCluster.auto_detect_unset_distributed_params(None, None, None, None, None, 10)[3]\n"
        "seen = os.environ['CUDA_VISIBLE_DEVICES'].split(',')\n"
        "assert ids is None or max(ids) < len(seen), f'device {ids} of {seen}'\n"
        "print('takes', seen if ids is None else [seen[one] for one in ids])\n"
    )
    tasks = "\n".join(
        f"SLURM_LOCALID={number} SLURM_PROCID={number} CUDA_VISIBLE_DEVICES={number if each else '0,1'} "
        f"{sys.executable} {task}"
        for number in range(2)
    )
    for name, content in {"srun": tasks, "scontrol": f'echo "$@" > {tmp_path}/requeued'}.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\nset -e\n{content}\n")
        (tmp_path / name).chmod(0o755)
    told = {"SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    done = bash(
        "slurm.sbatch", *arguments, PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHONPATH=str(LAUNCH.parent), **told
    )
    return done, [line for line in done.stdout.splitlines() if line.startswith("takes")]


def test_every_task_of_slurm_takes_a_gpu_of_its_own(tmp_path: Path) -> None:
    done, taken = slurm(tmp_path, "--workdir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert taken == ["takes ['0']", "takes ['1']"]
    assert not (tmp_path / "requeued").exists()


def test_a_stopped_run_is_queued_again_however_its_directory_is_named(tmp_path: Path) -> None:
    done, _ = slurm(tmp_path, f"--workdir={tmp_path / 'run'}", stopped=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"


def test_the_count_of_failures_begins_anew_with_a_checkpoint_only(python: Path, tmp_path: Path) -> None:
    """A run that dies at every validation ends; one that gets on does not."""
    workdir = tmp_path / "run with [1]"
    arguments = ["--config=x.py", f"--workdir={workdir}", "--distributed=host:1,2,1"]
    status, made = calls(python, [1, 1, 1, 0], *arguments)
    assert (status, len(made)) == (1, 3)
    (tmp_path / "calls").unlink()
    counting = f'mkdir -p "{workdir}/checkpoints/$(wc -l < calls)"\n'
    python.write_text(python.read_text().replace("status=$(", counting + "status=$("))
    status, made = calls(python, [1, 1, 1, 1, 0], *arguments)
    assert (status, len(made)) == (0, 5)
