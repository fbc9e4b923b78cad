"""The experiments of the original PyTorch project, run as their configurations say but with a tiny model."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import write_bert
from tolerance import assert_close

from cwjax.cli import main
from cwjax.models.context_whisper import init_params
from cwjax.models.parameters import flatten
from cwjax.training.metrics import read_metrics
from cwjax.weights.model_directory import read_model_config

pytest.importorskip("espeakng_loader", reason="the demo's speech needs the extra 'demo'")

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("experiments")
    bert = write_bert(directory / "bert", hidden_size=64, layers=2, spread=0.05)
    sizes = {"d-model": 64, "encoder-layers": 2, "encoder-ffn-dim": 128, "decoder-layers": 1, "decoder-ffn-dim": 128}
    return [
        *(f"--model.whisper-size.{name}={size}" for name, size in sizes.items()),
        *("--model.text-encoder", str(bert), "--model.text-encoder-sha256", ""),
        *("--data.root", str(directory / "corpus"), "--evaluation.no-at-end"),
    ]


@pytest.fixture(scope="module")
def listener(places: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper that knows the sentences of both words of a pair but has no context: it cannot tell them apart."""
    workdir = tmp_path_factory.mktemp("listener")
    several = ["--data.examples", "24", "--train.batch-size", "8", "--train.steps", "200", "--freeze"]
    several += ["text_encoder", "context"]
    contexts = {"title": 0, "section": 0, "lead": 0, "none": 1, "wrong": 0}
    for kind, probability in contexts.items():
        several += [f"--data.context.{kind}", str(probability)]
    assert run("overfit", workdir, places, *several) == 0
    return workdir / "model"


def run(name: str, workdir: Path, places: list[str], *overrides: str) -> int:
    arguments = ["--config", str(CONFIGS / f"{name}.py"), "--workdir", str(workdir), *places, *overrides]
    return main(["train", *arguments])


def weights(workdir: Path) -> dict[str, np.ndarray]:
    return load_file(workdir / "model" / "model.safetensors")


def test_overfit_one_sample(places: list[str], tmp_path: Path) -> None:
    assert run("overfit", tmp_path / "run", places, "--train.steps", "300") == 0
    losses = [row["loss"] for row in read_metrics(tmp_path / "run")]
    assert losses[0] > 1
    assert losses[-1] < 0.01


def test_one_sample_trains_the_text_encoder_alone(places: list[str], listener: Path, tmp_path: Path) -> None:
    start = ["--model.whisper", str(listener), "--optim.learning-rate", "3e-3", "--train.steps", "600"]
    assert run("overfit_text_encoder", tmp_path / "run", places, *start, "--train.log-every", "1") == 0
    losses = [row["loss"] for row in read_metrics(tmp_path / "run")]
    assert losses[0] > 0.05
    assert losses[-1] < 0.5 * losses[0]
    # Its Whisper is the one that it started from, and its context attention is as it was drawn.
    heard, after = weights(listener.parent), weights(tmp_path / "run")
    stock = [path for path in heard if path.startswith(("audio_encoder/", "decoder/")) and "/context_" not in path]
    assert stock
    assert all(np.array_equal(heard[path], after[path]) for path in stock)
    drawn = dict(flatten(init_params(read_model_config(tmp_path / "run" / "model"), jax.random.key(0))))
    context = [path for path in after if "/context_" in path]
    assert context
    for path in context:
        assert_close(after[path], drawn[path], terms=1, message=path)
    text_encoder = [path for path in heard if path.startswith("text_encoder/")]
    assert not all(np.array_equal(heard[path], after[path]) for path in text_encoder)


def test_with_closed_gates_it_is_refused(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = ["--model.whisper", "new", "--model.context-attention.gate-init", "0"]
    assert run("overfit_text_encoder", tmp_path / "run", places, *closed) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("cwjax: error: freeze: everything that is trained lies behind closed gates")
