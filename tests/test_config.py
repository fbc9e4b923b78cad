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
        (["--train.validation-examples", "-1"], "train.validation_examples is -1: must not be negative"),
        (["--train.validate-every", "-1"], "train.validate_every is -1: must not be negative"),
        (["--train.patience", "2"], "train.patience is 2, but nothing is validated: set train.validate_every too"),
        (["--train.checkpoint-minutes", "nan"], "train.checkpoint_minutes is nan: must not be negative"),
        (["--train.keep-every", "-1"], "train.keep_every is -1: must not be negative"),
        (["--train.export-every", "-1"], "train.export_every is -1: must not be negative"),
        (["--train.best-by", "luck"], "luck"),
        (["--train.best-by", "wrong:wer"], "wrong:wer.*wer/wrong"),
        (["--train.remat", "everything"], "everything"),
        (["--optim.weight-decay", "-0.1"], "optim.weight_decay is -0.1: must not be negative"),
        (["--optim.learning-rate", "nan"], "optim.learning_rate is nan: must be positive"),
        (["--optim.group-learning-rates", "context", "-1"], "group_learning_rates context is -1.0: must be positive"),
        (["--optim.epsilon", "0"], "optim.epsilon is 0.0: must be positive"),
        (["--optim.beta2", "1.5"], "optim.beta2 is 1.5: must be at least 0 and below 1"),
        (["--optim.final-share", "2"], "optim.final_share is 2.0: use a share in 0..1"),
        (["--evaluation.batch-size", "0"], "evaluation.batch_size is 0: must be at least 1"),
        (["--evaluation.examples", "-3"], "evaluation.examples is -3: must not be negative"),
        (["--data.examples", "-3"], "data.examples is -3: must not be negative"),
        (["--data.previous-text", "nan"], "data.previous_text is nan: use a share in 0..1"),
        (["--data.target-lengths", "64", "-1"], "data.target_lengths must all be at least 8"),
        (["--data.max-cer", "-0.5"], "data.max_cer is -0.5: must not be negative"),
    ],
)
def test_wrong_overrides_are_one_plain_line(file: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(CwjaxError, match=complaint) as caught:
        load_config(file, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--train.recomputed", "cheap"], "dots"),
        (["--train.recomputed=blocks"], "full"),
        (["--train.recomputed", "nothing", "--train.steps", "3"], "none"),
        (["--train.remat", "full"], "full"),
    ],
)
def test_old_names_are_taken_with_a_note(
    file: Path, overrides: list[str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_config(file, overrides).train.remat == expected
    assert ("--train.recomputed is called --train.remat now" in caplog.text) == ("recomputed" in overrides[0])


def test_old_names_in_a_file_are_taken_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "older.py"
    path.write_text("from cwjax.config import *\nconfig = Config(train=TrainSettings(steps=3, recomputed='cheap'))\n")
    assert load_config(path, ["--train.batch-size", "2"]).train == TrainSettings(steps=3, remat="dots", batch_size=2)
    assert "train.recomputed is called train.remat now" in caplog.text


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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--train.steps", "x"], "Error parsing --train.steps: invalid literal for int() with base 10: 'x'"),
        (["--data.speed", "1"], "Missing value for argument '--data.speed'. Expected 2 values."),
        (["--train.steps", "1", "2"], "Unrecognized options: 2"),
    ],
)
def test_complaints_are_one_plain_line(arguments: list[str], complaint: str) -> None:
    with pytest.raises(CwjaxError) as caught:
        load_config(CONFIGS[0], arguments)
    assert str(caught.value) == complaint
