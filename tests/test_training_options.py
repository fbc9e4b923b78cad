"""Whole runs that train with all that others have: LoRA, a teacher, dropout, an average, another optimizer."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import write_bert
from tiny_runs import losses, run, write_config

import cwjax
from cwjax.cli import main
from cwjax.config import Config, DataSettings, ModelSettings
from cwjax.data.examples.whisper_tokens import train_tokenizer
from cwjax.errors import CwjaxError
from cwjax.training.parts import open_parts
from cwjax.weights.model_directory import read_training_facts

pytest.importorskip("espeakng_loader", reason="the demo's speech needs the extra 'demo'")

pytestmark = pytest.mark.usefixtures("quick_compilation")

OPTIONS = (
    "--freeze", "audio_encoder", "decoder", "text_encoder", "--lora.rank", "3", "--distil.decoder-layers", "2",
    "--train.dropout", "0.1", "--train.layer-drop", "0.1", "--train.label-smoothing", "0.1", "--train.ema-decay", "0.5",
    "--train.compute-dtype", "bfloat16", "--optim.optimizer", "lion", "--optim.schedule", "constant",
    "--optim.warmup-steps", "0",
    "--data.max-target-tokens", "90",
)  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("options"), 4)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of transformers' with three layers in its decoder."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("source") / "whisper"
    tokens = train_tokenizer(["the sail in the wind"], 270, place)
    settings = transformers.WhisperConfig(
        vocab_size=len(tokens), d_model=32, encoder_layers=1, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=100,
        max_target_positions=90, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    transformers.WhisperForConditionalGeneration(settings).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def trained(config: Path, whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert run(config, workdir, *options(whisper, workdir)) == 0
    return workdir


def options(whisper: Path, workdir: Path) -> list[str]:
    prepared = workdir.parent / "prepared"
    return [
        "--model.whisper",
        str(whisper),
        "--distil.teacher",
        str(whisper),
        "--data.prepared",
        str(prepared),
        *OPTIONS,
    ]


def test_a_run_that_goes_on_ends_as_one_at_once(config: Path, whisper: Path, trained: Path, tmp_path: Path) -> None:
    workdir, how = tmp_path / "run", options(whisper, trained)
    assert run(config, workdir, *how, "--train.steps", "2") == 0
    assert run(config, workdir, *how) == 0
    assert losses(workdir) == losses(trained)
    ours, theirs = (load_file(one / "model" / "model.safetensors") for one in (workdir, trained))
    assert ours.keys() == theirs.keys()
    assert not [path for path in ours if "lora" in path or "teacher" in path]
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)


def test_the_result_is_a_plain_student_beside_its_adapter(whisper: Path, trained: Path) -> None:
    model = cwjax.load(trained / "model")
    assert model.config.whisper.decoder_layers == 2
    assert read_training_facts(trained / "model")["teacher"] == "whisper"
    card = (trained / "model" / "README.md").read_text()
    assert "rank 3, alpha 16" in card
    source = load_file(whisper / "model.safetensors")
    kernels = model.params["decoder"]["blocks"]["cross_attn"]
    np.testing.assert_array_equal(
        kernels["key"]["kernel"][1].T, source["model.decoder.layers.2.encoder_attn.k_proj.weight"]
    )
    query = kernels["query"]["kernel"][1].T - source["model.decoder.layers.2.encoder_attn.q_proj.weight"]
    adapter = load_file(trained / "model" / "adapter" / "adapter_model.safetensors")
    name = "base_model.model.model.decoder.layers.1.encoder_attn.q_proj.lora_{}.weight"
    product = adapter[name.format("B")] @ adapter[name.format("A")]
    assert np.abs(query).max() > 1e-5
    np.testing.assert_allclose(query, 16 / 3 * product, atol=1e-7)


def test_an_adapter_is_merged_by_conversion_and_by_training(
    whisper: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The adapter of the student, on layers of the Whisper that have its shapes."""
    adapter, bert = str(trained / "model" / "adapter"), str(write_bert(tmp_path / "bert"))
    parts = ["--whisper", str(whisper), "--text-encoder", bert]
    for name, more in {"plain": [], "adapted": ["--adapter", adapter]}.items():
        assert main(["convert", *parts, *more, "--output", str(tmp_path / name)]) == 0
    plain, adapted = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "adapted"))
    changed = {path for path in plain if not np.array_equal(plain[path], adapted[path])}
    targets = ("audio_encoder/blocks/attn", "decoder/blocks/attn", "decoder/blocks/cross_attn")
    assert changed == {f"{part}/{kind}/kernel" for part in targets for kind in ("query", "value")}
    assert json.loads((tmp_path / "adapted" / "config.json").read_text())["training"]["adapter"] == "adapter"
    data = DataSettings(max_target_tokens=90, max_context_tokens=16)
    for source in ({"start": str(tmp_path / "plain")}, {"whisper": str(whisper), "text_encoder": bert}):
        parts = open_parts(Config(model=ModelSettings(adapter=adapter, **source), data=data))
        read = dict(parts.read())
        assert changed <= read.keys()
        for path, array in read.items():
            np.testing.assert_array_equal(array, adapted[path], err_msg=path)
    assert main(["convert", "--original", "x", "--adapter", adapter, "--output", str(tmp_path / "no")]) == 1
    assert "--adapter goes with --whisper" in capsys.readouterr().err
    with pytest.raises(CwjaxError, match=r"model.adapter: adapts a pretrained Whisper"):
        open_parts(Config(model=ModelSettings(adapter=adapter, text_encoder=bert), data=data))
