"""Configuration files, overrides, and errors that help."""

from pathlib import Path

import pytest

from cwjax.config import Config, TrainSettings, differences, load_config
from cwjax.errors import CwjaxError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text("from cwjax.config import Config, TrainSettings\nconfig = Config(train=TrainSettings(steps=7))\n")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads(path: Path) -> None:
    assert load_config(path).workdir == f"runs/{path.stem}"


def test_overrides(file: Path) -> None:
    overrides = ["--train.checkpoint-every", "3", "--optim.learning_rate=1e-3", "--freeze", "decoder", "text_encoder"]
    overrides += ["--workdir", "here", "--optim.group-learning-rates", "context", "0.5"]
    config = load_config(file, overrides)
    assert config.train == TrainSettings(steps=7, checkpoint_every=3)
    assert config.optim.learning_rate == 1e-3
    assert config.optim.group_learning_rates == {"context": 0.5}
    assert config.freeze == ("decoder", "text_encoder")
    assert config.workdir == "here"


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["--train.stps", "1"], r"unknown option --train.stps; did you mean '--train.steps'\?"),
        (["--steps", "1"], r"did you mean '--train.steps'\?"),
        (["--train.steps", "many"], "many"),
        (["--train.steps", "0"], "train.steps is 0: must be at least 1"),
        (["--optim.schedule", "square"], "square"),
        (["--data.context.none", "0.9"], "add up to 1"),
        (["stray"], "stray"),
    ],
)
def test_wrong_overrides_are_one_plain_line(file: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(CwjaxError, match=complaint) as caught:
        load_config(file, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("config = 3", "sets no `config`"),
        (
            "from cwjax.config import *\nconfig = Config(train=TrainSettings(stpes=3))",
            "TrainSettings has no field 'stpes'; did you mean 'steps'?",
        ),
        ("import nothing_like_this", "ModuleNotFoundError"),
        ("config = (", "SyntaxError"),
        ("from cwjax.config import *\nconfig = Config(train=TrainSettings(batch_size=-1))", "train.batch_size is -1"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(content)
    with pytest.raises(CwjaxError) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_lists_the_others(file: Path) -> None:
    with pytest.raises(CwjaxError, match=r"nothing.py: no such configuration file; those that exist: .*mine.py"):
        load_config(file.with_name("nothing.py"))


def test_help_lists_every_field(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load_config(file, ["--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    for option in ("--train.steps", "--model.text-encoder", "--mesh.fsdp", "--freeze", "--model.whisper-size.d-model"):
        assert option in shown


def test_differences_name_the_fields() -> None:
    ours, theirs = Config().as_dict(), Config(train=TrainSettings(steps=3), freeze=("decoder",)).as_dict()
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == ["freeze: ['decoder'] -> []", "train.steps: 3 -> 1000"]
