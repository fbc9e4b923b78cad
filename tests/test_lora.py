"""LoRA: pairs that are trained and merged, written for PEFT and read from it."""

import dataclasses
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from references import transformers_model
from safetensors.numpy import load_file, save_file
from test_step import CONFIG as MODEL
from test_step import SETTINGS, host, initial_parameters, make_batch
from tolerance import assert_close

from cwjax.config import Config, ModelSettings, TrainSettings
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import abstract
from cwjax.models.lora import LoraSettings, is_pair, merge_lora, new_pair_parameter
from cwjax.models.parameters import Parameters, flatten, merge, unflatten
from cwjax.models.whisper import WHISPER_SIZES
from cwjax.training.groups import count_parameters, split_parameters
from cwjax.training.result import pairs_of, save_adapter
from cwjax.training.sharding import make_mesh, parameter_shardings
from cwjax.training.train_step import TrainState, abstract_state, init_state, make_train_step
from cwjax.weights.adapters import ADAPTER_CONFIG, ADAPTER_FILE, adapted, open_adapter

pytestmark = pytest.mark.usefixtures("quick_compilation")

WHISPER = ("audio_encoder", "decoder", "text_encoder")
VALUE = "audio_encoder/blocks/context_attn/value"
"""Its inputs are as wide as the text encoder."""
LORA = LoraSettings(rank=8, alpha=24, targets=("audio_encoder/blocks/attn/*/kernel", "decoder/blocks/*/kernel"))
"""All linear maps of the decoder."""


def config_of(lora: LoraSettings = LORA, freeze: tuple[str, ...] = WHISPER) -> Config:
    train = TrainSettings(steps=50, batch_size=4)
    return Config(model=ModelSettings(whisper="some/whisper"), freeze=freeze, lora=lora, optim=SETTINGS, train=train)


@cache
def trained() -> tuple[TrainState, Parameters]:
    """After three steps in which the decoder has pairs and context attention is trained as it is."""
    config, mesh = config_of(), make_mesh(-1, 1, 1)
    state, frozen = first_state(config)
    step = make_train_step(config, MODEL, mesh)
    for seed in range(3):
        state, metrics = step(state, frozen, make_batch(seed))
    assert np.isfinite(metrics["loss"])
    return state, frozen


def first_state(config: Config) -> tuple[TrainState, Parameters]:
    shapes, _ = abstract_state(config, MODEL, make_mesh(-1, 1, 1))
    key = jax.random.key(1)
    pairs = {path: new_pair_parameter(path, leaf.shape, key) for path, leaf in flatten(pairs_of(shapes.trainable))}
    trainable, frozen = split_parameters(merge(initial_parameters(), unflatten(pairs)), config.freeze)
    return init_state(config, trainable, shapes), jax.device_put(frozen)


def test_pairs_begin_as_nothing_and_kernels_under_them_stay() -> None:
    state, frozen = first_state(config_of())
    merged = host(merge_lora(merge(state.trainable, frozen), LORA.scale))
    before = host(initial_parameters())
    assert merged.keys() == before.keys()
    assert all(np.array_equal(merged[path], leaf) for path, leaf in before.items())
    after, frozen = trained()
    assert all(np.array_equal(leaf, before[path]) for path, leaf in host(frozen).items())
    moved = {path: np.abs(leaf - host(state.trainable)[path]).max() for path, leaf in host(after.trainable).items()}
    assert all(moved.values()), moved
    assert {path for path in moved if not is_pair(path)} == {path for path in before if "/context_" in path}


def test_a_step_moves_a_pair_as_the_chain_rule_says() -> None:
    """PEFT's forward pass, x W + scale (x A) B, differentiated by hand from the gradient of the whole kernel."""
    generator = np.random.default_rng(0)
    a, b, kernel, upstream = (generator.normal(size=shape) for shape in ((2, 6, 3), (2, 3, 5), (2, 6, 5), (2, 6, 5)))
    head = "decoder/blocks/attn/query/"

    def inner(pair: dict[str, jax.Array]) -> jax.Array:
        merged = merge_lora(unflatten({head + "kernel": jnp.asarray(kernel, jnp.float32), **pair}), 2.5)
        return (merged["decoder"]["blocks"]["attn"]["query"]["kernel"] * upstream).sum()

    pair = {head + "lora_a": jnp.asarray(a, jnp.float32), head + "lora_b": jnp.asarray(b, jnp.float32)}
    gradients = jax.grad(inner)(pair)
    assert_close(gradients[head + "lora_a"], 2.5 * upstream @ b.swapaxes(1, 2), 5)
    assert_close(gradients[head + "lora_b"], 2.5 * a.swapaxes(1, 2) @ upstream, 6)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory's adapter, of the trained pairs."""
    model = tmp_path_factory.mktemp("model")
    state, _ = trained()
    save_adapter(model, iter(host(pairs_of(state.trainable)).items()), state.trainable, config_of())
    return model / "adapter"


def features(rows: int = 2) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(rows, 40, 80)).astype(np.float32)


def our_logits(parameters: Parameters, tokens: np.ndarray) -> np.ndarray:
    model = nnx.merge(abstract(MODEL)[0], parameters)
    return np.asarray(model.decode(jnp.asarray(tokens), model.encode(jnp.asarray(features()))))


def test_peft_computes_the_same_from_base_and_adapter(directory: Path) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    state, frozen = trained()
    tokens = np.asarray(make_batch()["tokens"][:2])

    def their_logits(model: Any) -> np.ndarray:
        with torch.no_grad():
            heard = torch.tensor(features().swapaxes(1, 2))
            return model(input_features=heard, decoder_input_ids=torch.tensor(tokens)).logits.numpy()

    base = transformers_model(MODEL.whisper, initial_parameters())
    plain = their_logits(base)
    theirs = their_logits(peft.PeftModel.from_pretrained(base, str(directory)).eval())
    ours = our_logits(merge_lora(merge(state.trainable, frozen), LORA.scale), tokens)
    assert np.abs(theirs - plain).max() > 0.01
    assert np.abs(ours - theirs).max() < 1e-5
    assert json.loads((directory / ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == "some/whisper"


def test_what_peft_saved_is_merged_as_peft_merges_it(tmp_path: Path) -> None:
    """Ranks and factors of their own, rank-stabilised, and only some layers."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    torch.manual_seed(0)
    settings = peft.LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False,
        rank_pattern={"fc1": 2, r"encoder\.layers\.1\.self_attn\.q_proj": 3}, alpha_pattern={"v_proj": 5},
        layers_to_transform=[1], layers_pattern="layers",
    )  # fmt: skip
    whole = MODEL.whisper
    model = peft.get_peft_model(transformers_model(whole, initial_parameters()), settings)
    model.save_pretrained(tmp_path)
    reference = {name: tensor.numpy() for name, tensor in model.merge_and_unload().state_dict().items()}
    before = {path: leaf for path, leaf in host(initial_parameters()).items() if "/context_" not in path}
    after = dict(adapted(lambda: iter(before.items()), str(tmp_path))())
    assert before.keys() == after.keys()
    name, path = "model.encoder.layers.1.self_attn.{}_proj.weight", "audio_encoder/blocks/attn/{}/kernel"
    for letter, word in {"q": "query", "k": "key", "v": "value"}.items():
        assert_close(after[path.format(word)][1].T, reference[name.format(letter)], 4)
        assert np.array_equal(after[path.format(word)][0], before[path.format(word)][0])
        assert np.array_equal(after[path.format(word)], before[path.format(word)]) == (letter == "k")
    assert_close(after["audio_encoder/blocks/mlp/up/kernel"][1].T, reference["model.encoder.layers.1.fc1.weight"], 2)


def test_what_was_written_is_read_again(directory: Path) -> None:
    state, frozen = trained()
    merged = host(merge_lora(merge(state.trainable, frozen), LORA.scale))
    base = host(initial_parameters())
    again = dict(adapted(lambda: iter(base.items()), str(directory))())
    for path in base:
        if "/context_" not in path:
            assert_close(again[path], merged[path], LORA.rank, message=path)
    assert adapted(dict, "") is dict


def change_config(directory: Path, **changes: Any) -> None:
    file = directory / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"use_dora": True}, "uses use_dora, which is not supported"),
        ({"bias": "all"}, "uses bias"),
        ({"modules_to_save": ["proj_out"]}, "uses modules_to_save"),
        ({"init_lora_weights": "pissa_niter_16"}, "uses init_lora_weights pissa_niter_16"),
        ({"peft_type": "IA3"}, "of a 'IA3' adapter"),
        ({"r": 3}, "has no pair of the rank 3"),
        ({"r": 0}, r"adapter_config.json: r, lora_alpha or their patterns are no numbers"),
        ({"lora_alpha": "much"}, "are no numbers"),
        ({"rank_pattern": {"(": 3}}, "are no numbers"),
    ],
)
def test_adapters_that_are_more_than_pairs_are_refused(
    directory: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change_config(tmp_path, **changes)
    with pytest.raises(CwjaxError, match=complaint) as caught:
        open_adapter(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_adapters_of_another_whisper_are_refused(directory: Path, tmp_path: Path) -> None:
    tensors = load_file(directory / ADAPTER_FILE)
    (tmp_path / ADAPTER_CONFIG).write_bytes((directory / ADAPTER_CONFIG).read_bytes())
    name = next(iter(tensors))
    for changed, complaint in (
        (tensors | {"base_model.model.proj_out.lora_A.weight": tensors[name]}, "belongs to no linear map"),
        ({one: tensor for one, tensor in tensors.items() if one != name}, "has no pair of the rank 8"),
        ({one.replace("layers.0", "layers.7"): tensor for one, tensor in tensors.items()}, "use the Whisper that the"),
        (
            {one: np.repeat(tensor, 1 + ("lora_A" in one), axis=1) for one, tensor in tensors.items()},
            "is 64 x 32, where",
        ),
    ):
        save_file(changed, tmp_path / ADAPTER_FILE)
        with pytest.raises(CwjaxError, match=complaint):
            dict(adapted(lambda: iter(host(initial_parameters()).items()), str(tmp_path))())
    with pytest.raises(CwjaxError, match="is no adapter of PEFT's"):
        open_adapter(str(directory.parent))
    with pytest.raises(CwjaxError, match="no such directory"):
        open_adapter("./nowhere")


def test_what_the_adapter_does_not_hold_is_told(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, _ = trained()
    with caplog.at_level(logging.INFO, "cwjax"):
        save_adapter(tmp_path, iter(host(pairs_of(state.trainable)).items()), state.trainable, config_of())
    others = [path for path in host(state.trainable) if "/context_" in path]
    assert f"{len(others)} other arrays that were trained, such as {others[0]}" in caplog.text
    save_adapter(tmp_path / "none", iter(()), {}, config_of())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("lora", "freeze", "complaint"),
    [
        (LoraSettings(4), (), "match nothing that is frozen"),
        (
            LoraSettings(4, targets=("decoder/*/qery/kernel",)),
            WHISPER,
            "'decoder/\\*/qery/kernel' matches no parameter",
        ),
        (LoraSettings(4, targets=("decoder/ln/*",)), WHISPER, "decoder/ln/bias is no kernel of a linear map"),
        (
            LoraSettings(4, targets=("audio_encoder/conv1/kernel",)),
            WHISPER,
            "conv1/kernel is no kernel of a linear map",
        ),
        (LoraSettings(32), WHISPER, r"lora.rank is 32: must be below the widths of audio_encoder/blocks/attn/query"),
    ],
)
def test_targets_that_cannot_be_meant_are_refused(lora: LoraSettings, freeze: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(CwjaxError, match=complaint):
        abstract_state(config_of(lora, freeze), MODEL, make_mesh(-1, 1, 1))


@pytest.mark.parametrize(
    ("values", "complaint"), [({"rank": -1}, "lora.rank is -1"), ({"alpha": float("nan")}, "lora.alpha is nan")]
)
def test_wrong_settings_are_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CwjaxError, match=complaint):
        LoraSettings(**values)


def test_the_state_of_whisper_tiny_is_a_hundredth() -> None:
    """By default queries and values of all attention; what `freeze` leaves is trained as it is."""
    model, mesh = dataclasses.replace(MODEL, whisper=WHISPER_SIZES["tiny"]), make_mesh(-1, 1, 1)

    def numbers(config: Config) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(abstract_state(config, model, mesh)[0].opt_state))

    config = Config(freeze=(*WHISPER, "context"), lora=LoraSettings(rank=8))
    state, frozen = abstract_state(config, model, mesh)
    pairs = {path: leaf.shape for path, leaf in flatten(state.trainable)}
    assert pairs == {
        f"{part}/{name}/lora_{half}": (4, 8, 384) if half == "b" else (4, 16 if f"{part}/{name}" == VALUE else 384, 8)
        for part in (
            "audio_encoder/blocks/attn",
            "audio_encoder/blocks/context_attn",
            "decoder/blocks/attn",
            "decoder/blocks/cross_attn",
        )
        for name in ("query", "value")
        for half in "ab"
    }  # fmt: skip
    counts = count_parameters(state.trainable, frozen)
    assert counts["trained"] == 4 * 8 * (15 * 384 + 16)
    assert counts["parameters"] == sum(leaf.size for _, leaf in flatten(abstract(model)[1]))
    assert numbers(config) < 0.01 * numbers(Config())


def test_pairs_lie_where_their_kernels_do() -> None:
    mesh = jax.sharding.AbstractMesh((1, 2, 2), ("data", "fsdp", "tensor"))
    shapes, _ = abstract_state(config_of(), MODEL, make_mesh(-1, 1, 1))
    specs = {path: sharding.spec for path, sharding in flatten(parameter_shardings(shapes.trainable, mesh))}
    assert specs["decoder/blocks/attn/query/lora_a"] == P(None, "fsdp", None)
    assert specs["decoder/blocks/attn/query/lora_b"] == P(None, None, "tensor")
    assert specs["decoder/blocks/mlp/down/lora_a"] == P(None, "tensor", None)
    assert specs["decoder/blocks/mlp/down/lora_b"] == P(None, None, "fsdp")
