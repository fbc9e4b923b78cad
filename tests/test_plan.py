"""What a step costs, before it runs: counted operations and collectives against arithmetic, and refusals."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from patience import PATIENCE
from tiny import write_bert

from cwjax.cli import main
from cwjax.config import load_config
from cwjax.errors import CwjaxError
from cwjax.evaluation.evaluator import local_parameters
from cwjax.models.parameters import merge
from cwjax.training import plan
from cwjax.training.cost import count_products
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import abstract_state

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[1]

CONFIG = """
from cwjax.config import *
from cwjax.models.whisper import WhisperConfig

config = Config(
    model=ModelSettings(
        whisper_size=WhisperConfig(
            d_model=32, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=128, decoder_layers=3,
            decoder_attention_heads=2, decoder_ffn_dim=128, max_source_positions=64, max_target_positions=48,
        ),
        text_encoder={bert!r},
    ),
    freeze=("text_encoder",),
    data=DataSettings(max_target_tokens=16, max_context_tokens=16),
    train=TrainSettings(batch_size=1),
)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plan")
    path = directory / "tiny.py"
    path.write_text(CONFIG.format(bert=str(write_bert(directory / "bert"))))
    return path


@pytest.fixture(scope="module")
def search(config: Path) -> dict[str, Any]:
    """What a search says that tries every remat with one example."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setitem(plan.CHIPS, "cpu", plan.Chip(2**40, 1e12, 1e11, 1e10))
        patch.setattr(plan, "LARGEST_BATCH", 1)
        assert main(["plan", "--config", str(config), "--search", "--json"]) == 0
    return json.loads(output.getvalue())


def test_operations_in_loops_and_gradients_count_as_often_as_they_run() -> None:
    rows, width, layers = 6, 10, 5

    def loss(kernels: jax.Array, stream: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda stream, kernel: (stream @ kernel, None), stream, kernels)[0].sum()

    kernels, stream = jnp.zeros((layers, width, width)), jnp.zeros((rows, width))
    product = 2 * rows * width * width
    assert count_products(jax.make_jaxpr(loss)(kernels, stream).jaxpr).operations == layers * product
    gradient = jax.make_jaxpr(jax.grad(loss, (0, 1)))(kernels, stream).jaxpr
    assert count_products(gradient).operations == 3 * layers * product
    recomputing = jax.make_jaxpr(jax.grad(jax.checkpoint(loss), (0, 1)))(kernels, stream).jaxpr
    assert count_products(recomputing).operations == 4 * layers * product


def test_operations_of_a_convolution() -> None:
    convolve = partial(
        jax.lax.conv_general_dilated, window_strides=(2,), padding="SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    counted = count_products(jax.make_jaxpr(convolve)(jnp.zeros((3, 20, 4)), jnp.zeros((5, 4, 7))).jaxpr)
    assert counted.operations == 2 * 3 * 10 * 7 * 5 * 4


def test_collectives_of_a_loop_are_those_of_arithmetic() -> None:
    """Eight devices gather a kernel in each of five turns, and sum an array once."""
    script = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from cwjax.training.cost import count_collectives

mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

def work(kernels, stream):
    def turn(stream, kernel):
        return jnp.tanh(stream @ jax.lax.all_gather(kernel, "fsdp", axis=0, tiled=True)), None
    stream = jax.lax.scan(turn, stream, kernels)[0]
    return jax.lax.psum(stream, "fsdp")

split = jax.shard_map(work, mesh=mesh, in_specs=(P(None, "fsdp"), P("fsdp")), out_specs=P(), check_vma=False)
compiled = jax.jit(split).lower(jnp.zeros((5, 32, 32)), jnp.zeros((16, 32))).compile()
found = count_collectives(compiled.as_text())
print(found.sent["all-gather"], found.sent["all-reduce"], found.gathered_in_loops)
"""
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(ROOT),
        "JAX_ENABLE_COMPILATION_CACHE": "0",
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    kernel, stream = 4 * 32 * 32, 4 * 2 * 32
    assert list(map(int, done.stdout.split())) == [5 * kernel * 7 // 8, 2 * stream * 7 // 8, kernel]


def test_a_plan_of_the_devices_here(config: Path, search: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", str(config), "--json", "--train.validate-every", "5"]) == 0
    made = json.loads(capsys.readouterr().out)["plan"]
    assert made["chips"] == 1
    assert made["trained"] < made["parameters"]
    assert made["peak"] > made["arguments"] > 4 * made["parameters"] + 8 * made["trained"]
    assert made["sent"] == {}
    # Validation keeps the best parameters; one process in one precision has no other copies.
    assert (made["best"], made["copies"]) == (4 * made["trained"], 0)
    assert 0 <= made["peak"] - made["arguments"] - made["temporaries"] - made["best"] < 4096, "metrics"
    # Remat costs operations, and none of those that are useful.
    (saving,) = (one for one in search["tried"] if one["remat"] == "full")
    assert made["useful"] == saving["useful"]
    # The gradient of attention computes the scores again in any case.
    assert made["useful"] < made["operations"] < 1.05 * made["useful"]
    assert 1.2 * made["useful"] < saving["operations"] < 1.4 * made["useful"]


def test_what_validation_holds_is_counted(config: Path) -> None:
    """The best parameters in float32, and copies of what is held in another precision, or of all among processes."""
    rounded = load_config(config, ["--train.compute-dtype", "bfloat16", "--train.validate-every", "5"])
    mesh = make_mesh(-1, 1, 1)
    state, frozen = abstract_state(rounded, plan.planned_sizes(rounded), mesh)
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.trainable))
    parameters = trained + sum(leaf.size for leaf in jax.tree.leaves(frozen))
    counted = [plan.validation_bytes(rounded, state.trainable, frozen, processes) for processes in (1, 2)]
    assert counted == [(4 * trained, 2 * trained), (4 * trained, 2 * parameters)]

    held = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), merge(state.trainable, frozen))
    copies = local_parameters(held, jnp.dtype("bfloat16"))
    fresh = [new for new, old in zip(*map(jax.tree.leaves, (copies, held)), strict=True) if new is not old]
    assert sum(leaf.nbytes for leaf in fresh) == 2 * trained, "what validation does"


def test_what_cannot_fit_is_refused_by_how_much(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(plan.CHIPS, "cpu", plan.Chip(2**20, 1e12, 1e11, 1e10))
    assert main(["plan", "--config", str(config)]) == 1
    said = capsys.readouterr()
    assert "of 1 MiB" in said.out
    needs = re.search(r"the step needs ([\d,]+) MiB, ([\d,]+) MiB too much", said.err)
    peak, excess = (int(number.replace(",", "")) for number in needs.groups())
    assert abs(peak - 1 - excess) <= 1


def test_the_fastest_that_fits_is_named(search: dict[str, Any]) -> None:
    assert [one["remat"] for one in search["tried"]] == ["none", "dots", "full"]
    paces = [one["batch_size"] / one["seconds"] for one in search["tried"]]
    assert search["best"] == search["tried"][paces.index(max(paces))]


@pytest.mark.parametrize(
    ("kind", "gigabytes"),
    [
        ("NVIDIA A100-SXM4-40GB", 40),
        ("NVIDIA A100-PCIE-40GB", 40),
        ("NVIDIA A100-SXM4-80GB", 80),
        ("NVIDIA A100 80GB PCIe", 80),
        ("NVIDIA H100 80GB HBM3", 80),
        ("NVIDIA H100 NVL", 94),
        ("NVIDIA GH200 480GB", 96),
        ("NVIDIA B200", 180),
        ("NVIDIA GB200", 186),
        ("NVIDIA H200", 141),
    ],
)
def test_chips_are_known_by_the_names_that_drivers_give_them(kind: str, gigabytes: int) -> None:
    assert plan.chip_of(SimpleNamespace(device_kind=kind)).memory == gigabytes * 1e9
    assert plan.chip_of(SimpleNamespace(device_kind="NVIDIA T4")) is None


@pytest.mark.parametrize("topology", ["v5e", "v9", "16x16", "v5e:16"])
def test_a_topology_that_is_no_name_is_explained(topology: str) -> None:
    with pytest.raises(CwjaxError, match="name a generation and its shape, such as v4:2x2x4"):
        plan.devices_of(topology)


def test_topologies_that_exist_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    assert [len(plan.devices_of(topology)) for topology in ("v5e:1x1", "v5p:1x1x1", "v5e:2x4")] == [1, 1, 8]
    for topology in ("v5e:3x7", "v9:2x2"):
        with pytest.raises(CwjaxError, match=r"there is no such topology .*16x16"):
            plan.devices_of(topology)


def test_a_step_is_compiled_for_tpus_that_are_not_here(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four chips that split the parameters gather one layer's at a time and sum up its gradients, and no more."""
    pytest.importorskip("libtpu")
    axes = ["--mesh.data", "1", "--mesh.fsdp", "4", "--topology", "v5e:2x2", "--train.batch-size", "8"]
    layers = [f"--model.whisper-size.{part}-layers=4" for part in ("encoder", "decoder")]
    assert main(["plan", "--config", str(config), "--json", *axes, *layers]) == 0
    made = json.loads(capsys.readouterr().out)["plan"]
    assert made["chips"] == 4
    # The decoder's layers are the largest: two attentions of 4 D² each and an MLP of 8 D², in float32.
    assert 0 < made["gathered_in_loops"] <= 2 * 16 * 32**2 * 4
