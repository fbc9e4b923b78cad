"""The launchers, run with commands of our own in place of python, srun, scontrol and gcloud."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ["supervised.sh", "multi_gpu.sh", "slurm.sbatch", "tpu_pod.sh"]


class Commands:
    """A folder of stand-ins that come before the real commands; each writes down how it was called."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.workdir = folder / "run"
        self.workdir.mkdir()
        self.environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "RESTART_SECONDS": "0",
            "POLL_SECONDS": "0",
            "SLURM_JOB_ID": "77",
            "SLURM_SUBMIT_DIR": str(ROOT),
        }

    def add(self, name: str, script: str) -> None:
        """A bash script; `$calls` is how often it was called before."""
        log = self.folder / f"{name}.log"
        path = self.folder / name
        path.write_text(
            f'#!/bin/bash\ntouch {log}\ncalls=$(wc -l < {log})\nprintf "%s " "$@" >> {log}\necho >> {log}\n{script}\n'
        )
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        log = self.folder / f"{name}.log"
        return [line.strip() for line in log.read_text().splitlines()] if log.exists() else []

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        command = ["bash", str(ROOT / "launch" / script), *arguments]
        environment = {**self.environment, **environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_valid_bash(script: str) -> None:
    path = str(ROOT / "launch" / script)
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)
    assert os.access(path, os.X_OK)


def test_status_tells_whether_to_start_again(commands: Commands) -> None:
    arguments = ["c.py", str(commands.workdir), "--train.steps", "3"]
    for said in (0, 1, 7):
        commands.add("python", f"exit {said}")
        assert commands.run("supervised.sh", *arguments).returncode == said
    assert commands.calls("python")[0].endswith(f"train.py --config c.py --workdir {commands.workdir} --train.steps 3")
    commands.add("python", f"touch {commands.workdir}/stopped")
    assert commands.run("supervised.sh", *arguments).returncode == 75
    assert commands.run("supervised.sh", "c.py").returncode == 2


def test_sigterm_reaches_training_and_its_end_is_waited_for(commands: Commands) -> None:
    workdir = commands.workdir
    commands.add("python", f"trap 'sleep 0.3; touch {workdir}/stopped; exit 0' TERM\nwhile true; do sleep 0.05; done")
    for script, status in {"supervised.sh": 75, "multi_gpu.sh": 0}.items():
        (workdir / "stopped").unlink(missing_ok=True)
        before = len(commands.calls("python"))
        process = subprocess.Popen(
            ["bash", str(ROOT / "launch" / script), "c.py", str(workdir)], env=commands.environment
        )
        deadline = time.monotonic() + 10
        while len(commands.calls("python")) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == status
        assert (workdir / "stopped").exists()
        assert len(commands.calls("python")) == before + 1


def test_on_one_machine_a_killed_run_starts_again_and_a_wrong_one_does_not(commands: Commands) -> None:
    commands.add("python", "[[ $calls -ge 2 ]] || kill -KILL $$")
    assert commands.run("multi_gpu.sh", "c.py", str(commands.workdir)).returncode == 0
    assert len(commands.calls("python")) == 3
    commands.add("python", "exit 1")
    assert commands.run("multi_gpu.sh", "c.py", str(commands.workdir)).returncode == 1
    assert len(commands.calls("python")) == 4
    commands.add("python", "kill -KILL $$")
    assert commands.run("multi_gpu.sh", "c.py", str(commands.workdir), RESTARTS="2").returncode == 137
    assert len(commands.calls("python")) == 7


def test_slurm_queues_a_stopped_run_again(commands: Commands) -> None:
    commands.add("srun", 'shift; exec "$@"')
    commands.add("scontrol", "")
    commands.add("python", "exit 3")
    assert commands.run("slurm.sbatch", "c.py", str(commands.workdir)).returncode == 3
    assert not commands.calls("scontrol")
    commands.add("python", f"touch {commands.workdir}/stopped")
    assert commands.run("slurm.sbatch", "c.py", str(commands.workdir)).returncode == 0
    assert commands.calls("scontrol") == ["requeue 77"]
    assert commands.calls("python")[0].endswith(f"--workdir {commands.workdir} --distributed auto")


GCLOUD = """
state=$(cat STATE 2>/dev/null)
case "$*" in
    *"queued-resources create"*) echo ACTIVE > STATE ;;
    *"queued-resources delete"*) rm -f STATE ;;
    *"queued-resources describe"*) cat STATE ;;
    *supervised*)
        if [[ ! -e PREEMPTED ]]; then touch PREEMPTED; echo SUSPENDED > STATE; exit 255; fi ;;
esac
"""


def test_a_preempted_pod_is_asked_for_again_and_given_back(commands: Commands) -> None:
    script = GCLOUD.replace("STATE", str(commands.folder / "state")).replace("PREEMPTED", str(commands.folder / "gone"))
    commands.add("gcloud", script)
    where = {"NAME": "pod", "ZONE": "z", "TYPE": "v6e-64", "BUCKET": "b", "SPOT": "1"}
    done = commands.run("tpu_pod.sh", "configs/x.py", "--train.steps", "3", **where)
    assert done.returncode == 0, done.stderr
    text = "\n".join(commands.calls("gcloud"))
    asked = re.findall(r"queued-resources (create|delete)|tpu-vm (scp)|(mkdir)|(supervised)", text)
    assert ["".join(groups) for groups in asked] == ["create", "scp", "mkdir", "supervised", "delete"] * 2
    assert "--spot" in text
    assert "supervised.sh cwjax/configs/x.py bucket/runs/pod --train.steps 3" in text
    assert "--worker all" in text


def test_the_jobset_has_a_pod_for_every_machine() -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load((ROOT / "launch" / "gke_jobset.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = document["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == rows * columns // chips
    assert container["args"][-2:] == ["--distributed", "auto"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
