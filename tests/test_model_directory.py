"""Model directories: of earlier versions, and written where something lies already."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import cwjax
from cwjax.errors import CwjaxError
from cwjax.models.configuration import ADDED, require_fields
from cwjax.models.parameters import flatten
from cwjax.weights.model_directory import write_model, written_aside

EARLIER = Path(__file__).parent / "data" / "model-0.1.0"
"""Written by version 0.1.0, with the logits that it gave for `inputs`."""


def inputs() -> tuple[np.ndarray, ...]:
    """Features, tokens, and ids and mask of a context."""
    features = np.sin(np.arange(40 * 80, dtype=np.float32)).reshape(1, 40, 80)
    return features, np.asarray([[1, 2, 3]]), np.asarray([[2, 5, 3, 0]]), np.asarray([[True, True, True, False]])


def logits(model: cwjax.Model) -> np.ndarray:
    features, tokens, ids, mask = inputs()
    return np.asarray(model.decode(tokens, model.encode(features, model.encode_context(ids, mask))))


def test_a_model_of_an_earlier_version_computes_what_it_did() -> None:
    expected = np.load(EARLIER / "logits.npy")
    np.testing.assert_allclose(logits(cwjax.load(EARLIER)), expected, atol=1e-4 * np.abs(expected).max())


def test_a_field_that_was_added_later_has_its_default() -> None:
    @dataclass
    class Sizes:
        width: int = 3
        tilt: float = field(default=0.0, metadata=ADDED)

    require_fields(Sizes, {"width"}, "config.json: sizes")
    require_fields(Sizes, {"width", "tilt"}, "config.json: sizes")
    with pytest.raises(CwjaxError, match=r"wrong entries \(width\)"):
        require_fields(Sizes, {"tilt"}, "config.json: sizes")
    with pytest.raises(CwjaxError, match=r"wrong entries \(more\); was the model written by a newer version"):
        require_fields(Sizes, {"width", "more"}, "config.json: sizes")


def test_an_entry_that_is_missing_or_unknown_is_refused(tmp_path: Path) -> None:
    for change in ({"d_model": None}, {"depth": 3}):
        directory = Path(shutil.copytree(EARLIER, tmp_path / next(iter(change))))
        settings = json.loads((directory / "config.json").read_text())
        whisper = settings["whisper"] | change
        settings["whisper"] = {name: value for name, value in whisper.items() if value is not None}
        (directory / "config.json").write_text(json.dumps(settings))
        with pytest.raises(CwjaxError, match=f"whisper has the wrong entries .{next(iter(change))}"):
            cwjax.load(directory)


@pytest.mark.parametrize(
    ("size", "value", "told"),
    [
        ("encoder_layers", 10**9, "encoder_layers is 1000000000, more than any model has"),
        (
            "encoder_layers",
            10**6,
            "audio_encoder/blocks/attn/query/kernel is missing or not of the shape .1000000, 8, 8",
        ),
        ("max_source_positions", 10**7, "audio_encoder/positions is missing or not of the shape .10000000, 8"),
    ],
)
def test_absurd_sizes_are_compared_with_the_tensors_first(tmp_path: Path, size: str, value: int, told: str) -> None:
    directory = Path(shutil.copytree(EARLIER, tmp_path / "model"))
    settings = json.loads((directory / "config.json").read_text())
    settings["whisper"][size] = value
    (directory / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CwjaxError, match=told):
        cwjax.load(directory)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.asarray([1.0, np.nan], ml_dtypes.bfloat16), "b: holds numbers that are not finite"),
        (np.asarray([1.0, np.inf], np.float32), "b: holds numbers that are not finite"),
        (np.asarray([1, 2], np.int32), "b: holds numbers of the type int32"),
    ],
)
def test_what_is_no_weight_is_not_written(tmp_path: Path, wrong: np.ndarray, told: str) -> None:
    config = cwjax.load(EARLIER).config
    with pytest.raises(CwjaxError, match=told), written_aside(tmp_path / "model") as aside:
        write_model(aside, config, iter({"a": np.ones(2, np.float16), "b": wrong}.items()), {})
    assert not list(tmp_path.iterdir())


def test_no_paths_of_this_machine_are_told(tmp_path: Path) -> None:
    model = cwjax.load(EARLIER)
    parameters = dict(flatten(model.params))
    facts = {"start": str(EARLIER), "whisper": "openai/whisper-tiny", "text_encoder": str(tmp_path), "steps": 3}
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", model.config, ((path, np.asarray(leaf)) for path, leaf in parameters.items()), facts)
    told = (tmp_path / "out" / "config.json").read_text() + (tmp_path / "out" / "README.md").read_text()
    assert str(tmp_path.parent) not in told
    assert str(EARLIER.parent) not in told
    assert "model-0.1.0" in told
    assert "base_model:\n- openai/whisper-tiny\n" in told


def test_nothing_of_the_users_is_removed(tmp_path: Path) -> None:
    """Folders beside it by names that we once took, and the folder behind a link."""
    for name in ("model.partial", "model.replaced", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with written_aside(tmp_path / "model", replace=True) as aside:
        (aside / "config.json").touch()
    assert (tmp_path / "model").is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "model", "model.partial", "model.replaced"]
    assert (tmp_path / "model.partial" / "mine").exists()


def test_here_is_a_directory_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    monkeypatch.chdir(tmp_path / "full")
    with pytest.raises(CwjaxError, match="full: exists and is not empty"), written_aside(Path(".")):
        pass
    (tmp_path / "full" / "mine").unlink()
    with written_aside(Path(".")) as aside:
        (aside / "config.json").touch()
    assert os.listdir(tmp_path / "full") == ["config.json"]


def test_a_kill_while_a_directory_is_replaced_loses_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "old").touch()
    rename = Path.rename

    def die(path: Path, target: Path) -> Path:
        if target == model:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt), written_aside(model, replace=True):
            pass
    assert not model.exists()
    with pytest.raises(CwjaxError, match="not empty"), written_aside(model):
        pass
    assert (model / "old").exists()
