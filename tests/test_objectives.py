"""What is minimised, and by which optimizer: against PyTorch and plain definitions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import CONFIG as MODEL
from test_step import host, initial_parameters, make_batch
from tolerance import assert_close

from cwjax.config import Config, OptimizerSettings, TrainSettings
from cwjax.errors import CwjaxError
from cwjax.models.parameters import flatten
from cwjax.training import loss
from cwjax.training.groups import split_parameters
from cwjax.training.loss import Objective, vocabulary_loss
from cwjax.training.optimizer import make_optimizer
from cwjax.training.sharding import make_mesh, optimizer_shardings, parameter_shardings, with_shardings
from cwjax.training.train_step import abstract_state, init_state, make_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    "objective",
    [
        Objective(label_smoothing=0.1),
        Objective(0.0, 0.8, 1.0, 2.0),
        Objective(0.2, 0.5, 1.5, 1.0),
        Objective(0, 0, 1, 0.5),
    ],
)
@pytest.mark.parametrize(("platform", "chunk_bytes"), [("cpu", 2**30), ("gpu", 4 * 11 * 5)])
def test_loss_and_gradients_equal_pytorch(
    objective: Objective, platform: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smoothed, and taught by a teacher of another width, in chunks that are filled up to multiples of eight too."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(loss, "platform", lambda: platform)
    monkeypatch.setattr(loss, "CHUNK_BYTES", chunk_bytes)
    generator = np.random.default_rng(0)
    shapes = {"stream": (3, 7, 6), "embedding": (11, 6), "their stream": (3, 7, 4), "their embedding": (11, 4)}
    arrays = [generator.normal(0, 1, shape).astype(np.float32) for shape in shapes.values()]
    targets, counts = generator.integers(0, 11, (3, 7)), generator.random((3, 7)) < 0.6
    taught = objective.kl_weight > 0

    def ours(*arrays: jax.Array) -> jax.Array:
        teacher = tuple(arrays[2:]) if taught else None
        total, _ = vocabulary_loss(*arrays[:2], jnp.asarray(targets), jnp.asarray(counts), objective, teacher)
        return total

    value, gradients = jax.value_and_grad(ours, (0, 1, 2, 3))(*arrays)
    stream, embedding, their_stream, their_embedding = (torch.tensor(array, requires_grad=True) for array in arrays)
    logits = (stream @ embedding.T)[torch.tensor(counts)]
    expected = torch.nn.functional.cross_entropy(
        logits, torch.tensor(targets[counts]), label_smoothing=objective.label_smoothing, reduction="sum"
    )
    if taught:
        heat = objective.temperature
        theirs = torch.softmax((their_stream @ their_embedding.T)[torch.tensor(counts)].detach() / heat, dim=-1)
        divergence = torch.nn.functional.kl_div(torch.log_softmax(logits / heat, dim=-1), theirs, reduction="sum")
        expected = objective.ce_weight * expected + objective.kl_weight * heat**2 * divergence
    expected.backward()
    terms, largest = 6 + 11 + counts.size, float(logits.detach().abs().max())  # width, vocabulary, rows
    assert_close(value, expected.item(), terms, scale=counts.sum() * largest)
    for gradient, reference in zip(gradients, (stream.grad, embedding.grad), strict=False):
        assert_close(gradient, reference, 2 * terms, scale=largest * max(objective[1:]))
    assert not np.any(gradients[2]), "a teacher learns nothing"
    assert not np.any(gradients[3])


TREE = {"decoder": {"blocks": {"out": {"kernel": (2, 6, 4), "bias": (2, 4)}}, "ln": {"scale": (4,)}}}
RATE, DECAY, STEPS = 0.1, 0.3, 3


def lion(moment: Any, gradient: np.ndarray, _: int) -> tuple[np.ndarray, Any]:
    return np.sign(0.9 * moment + 0.1 * gradient), 0.98 * moment + 0.02 * gradient


def sgd(moment: Any, gradient: np.ndarray, _: int) -> tuple[np.ndarray, Any]:
    return 0.9 * moment + gradient, 0.9 * moment + gradient


def adafactor(moment: Any, gradient: np.ndarray, step: int) -> tuple[np.ndarray, Any]:
    """Of parameters that are too small to be factored; the update's root mean square is held to 1."""
    share = 1 - (step + 1) ** -0.8
    moment = share * moment + (1 - share) * gradient**2
    update = gradient / np.sqrt(moment)
    return update / max(1, np.sqrt((update**2).mean())), moment


@pytest.mark.parametrize("rule", [lion, sgd, adafactor])
def test_optimizers_do_what_their_papers_say(rule: Callable) -> None:
    how = {"learning_rate": RATE, "warmup_steps": 0, "schedule": "constant", "max_gradient_norm": 0}
    settings = OptimizerSettings(optimizer=rule.__name__, weight_decay=DECAY, **how)
    generator = np.random.default_rng(0)

    def draw() -> dict[str, Any]:
        return jax.tree.map(
            lambda shape: generator.normal(size=shape).astype(np.float32), TREE, is_leaf=lambda one: type(one) is tuple
        )

    parameters = draw()
    expected, moments = dict(flatten(parameters)), dict.fromkeys(dict(flatten(parameters)), 0.0)
    optimizer = make_optimizer(settings, parameters, STEPS)
    state = optimizer.init(parameters)
    for step in range(STEPS):
        gradients = draw()
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = jax.tree.map(jnp.add, parameters, updates)
        for path, gradient in flatten(gradients):
            update, moments[path] = rule(moments[path], gradient, step)
            pulled = DECAY * expected[path] if path.endswith("kernel") else 0
            expected[path] = expected[path] - RATE * (update + pulled)
    for path, leaf in flatten(parameters):
        assert_close(leaf, expected[path], 24 * STEPS, message=path)


def test_muon_makes_updates_of_kernels_orthogonal_and_the_others_adams() -> None:
    generator = np.random.default_rng(0)
    tree = {
        "decoder": {
            "blocks": {"out": {"kernel": generator.normal(size=(2, 64, 32)), "bias": generator.normal(size=(2, 32))}}
        }
    }
    settings = OptimizerSettings(
        optimizer="muon", learning_rate=1.0, warmup_steps=0, epsilon=1e-12, max_gradient_norm=0
    )
    optimizer = make_optimizer(settings, tree, 9)
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree)
    out = updates["decoder"]["blocks"]["out"]
    signs = -np.sign(tree["decoder"]["blocks"]["out"]["bias"])
    np.testing.assert_allclose(out["bias"], signs * np.abs(out["bias"]).mean(), rtol=1e-5)  # Adam's first update
    for kernel in np.asarray(out["kernel"]):
        lengths = np.linalg.svd(kernel, compute_uv=False) / (0.2 * 64**0.5)
        assert (lengths > 0.6).all(), lengths  # Newton and Schulz's five steps come so near to 1
        assert (lengths < 1.3).all(), lengths


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "muon", "sgd"])
def test_what_an_optimizer_keeps_lies_where_its_parameter_does(name: str) -> None:
    mesh = jax.sharding.AbstractMesh((1, 2, 2), ("data", "fsdp", "tensor"))
    shapes = {"decoder": {"blocks": {"query": {"kernel": (2, 256, 128), "bias": (2, 128)}}}}
    trained = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), shapes, is_leaf=lambda one: type(one) is tuple
    )
    trained = with_shardings(trained, parameter_shardings(trained, mesh))
    optimizer = make_optimizer(OptimizerSettings(optimizer=name), trained, 9)
    state = jax.eval_shape(optimizer.init, trained)
    placed = with_shardings(state, optimizer_shardings(state, trained, mesh))
    kernel = trained["decoder"]["blocks"]["query"]["kernel"]
    whole = [leaf for leaf in jax.tree.leaves(placed) if leaf.shape == kernel.shape]
    assert len(whole) == {"adamw": 2, "lion": 1, "adafactor": 0, "muon": 1, "sgd": 1}[name]
    assert all(leaf.sharding == kernel.sharding for leaf in whole)
    others = [leaf for leaf in jax.tree.leaves(placed) if leaf.ndim and leaf.shape not in (kernel.shape, (2, 128))]
    assert all(leaf.sharding.is_fully_replicated for leaf in others)
    assert {(2, 256), (2, 128)} <= {leaf.shape for leaf in jax.tree.leaves(placed)} or name != "adafactor"


def test_the_moving_average_is_that_of_a_plain_loop() -> None:
    """With all of it at once: Muon, smoothed targets, an average."""
    train = TrainSettings(steps=9, batch_size=4, ema_decay=0.75, label_smoothing=0.1)
    config = Config(freeze=("text_encoder",), optim=OptimizerSettings(optimizer="muon"), train=train)
    mesh = make_mesh(-1, 1, 1)
    shapes, _ = abstract_state(config, MODEL, mesh)
    trainable, frozen = split_parameters(initial_parameters(), config.freeze)
    state = init_state(config, trainable, shapes)
    step = make_train_step(config, MODEL, mesh)
    expected = host(state.kept)
    for seed in range(3):
        state, _ = step(state, frozen, make_batch(seed))
        expected = {path: 0.75 * expected[path] + 0.25 * leaf for path, leaf in host(state.trainable).items()}
    average = host(state.kept)
    assert jax.tree.map(jax.typeof, state.kept) == jax.tree.map(jax.typeof, state.trainable)
    for path, leaf in average.items():
        assert_close(leaf, expected[path], 9, message=path)
    kernel = "decoder/blocks/attn/query/kernel"
    assert np.abs(average[kernel] - host(state.trainable)[kernel]).max() > 1e-6


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: OptimizerSettings(optimizer="adam"), "optim.optimizer is 'adam': use one of adamw, lion, adafactor"),
        (lambda: TrainSettings(label_smoothing=1.0), "train.label_smoothing is 1.0: must be at least 0 and below 1"),
        (lambda: TrainSettings(ema_decay=float("nan")), "train.ema_decay is nan: must be at least 0 and below 1"),
    ],
)
def test_wrong_settings_are_named(make: Callable, complaint: str) -> None:
    with pytest.raises(CwjaxError, match=complaint):
        make()
