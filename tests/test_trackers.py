"""Trackers: real ones where they are installed, and stand-ins for what goes wrong."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cwjax.training import trackers
from cwjax.training.trackers import Trackers, flat

ROWS = [
    {"step": 1, "loss": 4.0, "gradient_norm": 0.5},
    {"step": 2, "loss": 2.0, "gradient_norm": 0.25},
    {"step": 2, "validation/score": 0.5},
    {"step": 3, "loss": 1.0, "gradient_norm": 0.125},
]


class Recorder:
    """A tracker that keeps what it is told, and raises when it is told so."""

    package = "recorder"
    told: list[tuple[int, dict[str, float]]]
    runs: list[str]
    failing = 0

    def start(self, name: str, config: dict[str, Any], workdir: Path, run: str) -> str:
        self.runs.append(run)
        return run or "the name it gives"

    def log(self, step: int, numbers: dict[str, float]) -> None:
        if step == self.failing:
            raise ConnectionError("the line is dead\nand long")
        self.told.append((step, numbers))

    def finish(self) -> None:
        self.told.append((-1, {}))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    kind = type("Fresh", (Recorder,), {"told": [], "runs": []})
    monkeypatch.setitem(trackers.TRACKERS, "wandb", kind)
    return kind


def tell(
    workdir: Path, rows: list[dict[str, float]], before: Sequence[dict[str, float]] = (), names=("wandb",)
) -> None:
    with Trackers(names, workdir, {}, before) as told:
        for row in rows:
            told.log(row)


def test_nothing_is_told_twice_however_often_a_run_goes_on(tmp_path: Path, recorder: type[Recorder]) -> None:
    """Killed after step 3, killed again after step 2, which was done again, and then left alone."""
    tell(tmp_path, ROWS)
    tell(tmp_path, ROWS[1:3], before=ROWS)
    last = [*ROWS[1:], {"step": 4, "loss": 0.5}, {"step": 4, "validation/score": 0.25}]
    tell(tmp_path, last, before=ROWS[:3])
    told = [(step, *numbers) for step, numbers in recorder.told if step > 0]
    assert told == [
        (1, "loss", "gradient_norm"),
        (2, "loss", "gradient_norm"),
        (2, "validation/score"),
        (3, "loss", "gradient_norm"),
        (4, "loss"),
        (4, "validation/score"),
    ]
    assert recorder.runs == ["", "the name it gives", "the name it gives"]
    assert recorder.told.count((-1, {})) == 3


def test_one_that_comes_later_or_pauses_misses_nothing_that_is_done_again(
    tmp_path: Path, recorder: type[Recorder]
) -> None:
    tell(tmp_path, ROWS[:1])
    tell(tmp_path, ROWS[1:], before=ROWS[:1], names=())
    tell(tmp_path, ROWS[1:], before=ROWS)
    assert [step for step, _ in recorder.told if step > 0] == [1, 2, 2, 3]


def test_one_that_fails_is_named_once_and_the_others_go_on(
    tmp_path: Path, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = type("Other", (Recorder,), {"told": [], "runs": []})
    broken = type("Broken", (Recorder,), {"told": [], "runs": [], "start": lambda *_: 1 / 0})
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", other)
    monkeypatch.setitem(trackers.TRACKERS, "trackio", broken)
    recorder.failing = 2
    tell(tmp_path, ROWS, names=("trackio", "wandb", "mlflow"))
    assert [step for step, _ in recorder.told] == [1]
    assert [step for step, _ in other.told] == [1, 2, 2, 3, -1]
    assert caplog.messages == [
        "train.trackers: trackio cannot be started and is left out (ZeroDivisionError: division by zero)",
        "train.trackers: wandb fails and is told nothing any more (ConnectionError: the line is dead)",
    ]


def test_one_that_is_not_installed_is_a_line_that_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("tensorboardX", "wandb", "trackio", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    tell(tmp_path, ROWS, names=tuple(trackers.TRACKERS))
    assert [message.split("pip install ")[1] for message in caplog.messages] == [
        "tensorboardX", "wandb", "trackio", "mlflow",
    ]  # fmt: skip


def test_trackio_is_called_as_its_reference_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    def init(project: str, name: str | None = None, *, config: dict | None = None, resume: str = "never") -> None:
        calls.append(("init", (project, name, config, resume)))

    stand_in = SimpleNamespace(
        init=init,
        log=lambda metrics, step=None: calls.append(("log", (metrics, step))),
        finish=lambda: calls.append(("finish", ())),
    )
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    tell(tmp_path, ROWS[:1], names=("trackio",))
    tell(tmp_path, ROWS[:2], before=ROWS[:1], names=("trackio",))
    name = calls[0][1][1]
    assert name.startswith(tmp_path.name + "-")
    begins = ("init", ("cwjax", name, {}, "allow"))
    first, second = (
        ("log", ({name: row[name] for name in ("loss", "gradient_norm")}, row["step"])) for row in ROWS[:2]
    )
    assert calls == [begins, first, ("finish", ()), begins, second, ("finish", ())]


def test_tensorboard_has_every_number_once(tmp_path: Path) -> None:
    """The event files, read back as what they are: records of protocol buffers."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    tell(tmp_path, ROWS[:3], names=("tensorboard",))
    tell(tmp_path, ROWS[2:], before=ROWS[:3], names=("tensorboard",))
    found = []
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        content = file.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    assert sorted(found) == sorted(
        (row["step"], name, value) for row in ROWS for name, value in row.items() if name != "step"
    )


def test_mlflow_keeps_them_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with Trackers(("mlflow",), tmp_path, flat({"train": {"steps": 3}}), []) as told:
        for row in ROWS[:3]:
            told.log(row)
    tell(tmp_path, ROWS[2:], before=ROWS[:3], names=("mlflow",))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("cwjax").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.steps": "3"}
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")] == [
        (1, 4.0), (2, 2.0), (3, 1.0),
    ]  # fmt: skip


def test_weights_and_biases_runs_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: ModuleType = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tell(tmp_path, ROWS[:3], names=("wandb",))
    tell(tmp_path, ROWS[2:], before=ROWS[:3], names=("wandb",))
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1, "of one run"
    assert wandb.run is None


def test_settings_are_told_by_their_paths(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert flat({"a": 1, "b": {"c": [2], "d": {"e": "f"}}}) == {"a": 1, "b.c": [2], "b.d.e": "f"}
