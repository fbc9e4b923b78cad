"""The training step: what moves, what does not, and what it costs."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tolerance import assert_close, text_encoder_terms, whisper_terms

from cwjax.config import Config, OptimizerSettings, TrainSettings
from cwjax.data.audio.log_mel import log_mel
from cwjax.data.audio.pcm16 import from_pcm16
from cwjax.errors import CwjaxError
from cwjax.models.bert import BertConfig
from cwjax.models.context_whisper import ContextWhisperConfig, abstract, init_params
from cwjax.models.parameters import Parameters, flatten, merge
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig
from cwjax.training import loss
from cwjax.training.groups import split_parameters
from cwjax.training.loss import vocabulary_loss
from cwjax.training.optimizer import learning_rate_schedule, make_optimizer
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import abstract_state, init_state, make_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

VOCABULARY = 61
CONFIG = ContextWhisperConfig(
    whisper=WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        max_source_positions=20,
        max_target_positions=16,
    ),
    text_encoder=BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    ),
    context=ContextAttentionConfig(),
)
# With so large an epsilon an update is nearly the gradient times the learning rate. With a small one every gradient
# moves its parameter by the learning rate, even one that is nothing but rounding errors.
SETTINGS = OptimizerSettings(learning_rate=1.0, epsilon=1.0, warmup_steps=0)
TERMS = 2 * (text_encoder_terms(CONFIG.text_encoder, 6) + whisper_terms(CONFIG.whisper, 6)) + 4 * 40
"""Of a gradient: there and back, then over all mel frames of all examples."""


def make_batch(seed: int = 0, rows: int = 4) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, VOCABULARY, (rows, 9))
    mask = np.arange(6) < generator.integers(0, 7, (rows, 1))
    return {
        "waveform": jnp.asarray(generator.normal(0, 3000, (rows, 40 * 160)), jnp.int16),
        "tokens": jnp.asarray(tokens[:, :-1], jnp.int32),
        "targets": jnp.asarray(tokens[:, 1:], jnp.int32),
        "is_target": jnp.asarray(np.arange(8) >= 2)[None].repeat(rows, 0),
        "context_ids": jnp.asarray(generator.integers(0, 40, (rows, 6)), jnp.int32),
        "context_mask": jnp.asarray(mask),
    }


@cache
def initial_parameters() -> Parameters:
    return jax.device_get(init_params(CONFIG, jax.random.key(0)))


PROGRAMS: dict[str, tuple] = {}
"""By configuration: the step, compiled once for all tests of it, and the shapes of its state."""


def prepare(
    freeze: tuple[str, ...],
    dtype: str = "float32",
    settings: OptimizerSettings = SETTINGS,
    remat: str = "none",
    accumulation: int = 1,
    parameters: Parameters | None = None,
):
    """A step, its first state and the frozen parameters."""
    train = TrainSettings(steps=50, batch_size=4, compute_dtype=dtype, remat=remat, accumulation=accumulation)
    config = Config(freeze=freeze, optim=settings, train=train)
    trainable, frozen = split_parameters(parameters or initial_parameters(), freeze)
    if repr(config) not in PROGRAMS:
        mesh = make_mesh(-1, 1, 1)
        PROGRAMS[repr(config)] = make_train_step(config, CONFIG, mesh), abstract_state(config, CONFIG, mesh)[0]
    step, abstract = PROGRAMS[repr(config)]
    return step, init_state(config, trainable, abstract), jax.device_put(frozen)


def host(tree: Parameters) -> dict[str, np.ndarray]:
    return {path: np.array(leaf) for path, leaf in flatten(tree)}


@pytest.mark.parametrize("chunk_bytes", [2**30, 4 * 11 * 5])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_loss_and_gradients_equal_pytorch(chunk_bytes: int, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece, and in chunks of five rows, the last of which is not full; on a GPU rows and vocabulary are filled
    up to multiples of eight."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(loss, "platform", lambda: platform)
    monkeypatch.setattr(loss, "CHUNK_BYTES", chunk_bytes)
    generator = np.random.default_rng(0)
    stream = generator.normal(0, 2, (3, 7, 6)).astype(np.float32)
    embedding = generator.normal(0, 1, (11, 6)).astype(np.float32)
    targets = generator.integers(0, 11, (3, 7))
    counts = generator.random((3, 7)) < 0.6

    def mean_loss(stream, embedding):
        total, right = vocabulary_loss(stream, embedding, jnp.asarray(targets), jnp.asarray(counts))
        return total / counts.sum(), right

    (value, right), gradients = jax.value_and_grad(mean_loss, (0, 1), has_aux=True)(stream, embedding)
    theirs = [torch.tensor(array, requires_grad=True) for array in (stream, embedding)]
    logits = theirs[0] @ theirs[1].T
    labels = torch.tensor(np.where(counts, targets, -100)).flatten()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels)
    expected.backward()
    terms = 6 + 11 + counts.size  # width, vocabulary, rows
    assert_close(value, expected.item(), terms, scale=float(logits.detach().abs().max()))
    assert right == (logits.argmax(-1).numpy() == targets)[counts].sum()
    for ours, their in zip(gradients, theirs, strict=True):
        assert_close(ours, their.grad, terms)


def test_the_loss_of_a_step_is_the_mean_over_its_targets() -> None:
    step, state, frozen = prepare(("text_encoder",))
    batch = make_batch()

    @jax.jit
    def logits(parameters: Parameters) -> jax.Array:
        features = log_mel(from_pcm16(batch["waveform"]), 80, jnp)
        model = nnx.merge(abstract(CONFIG)[0], parameters)
        return model(features, batch["tokens"], batch["context_ids"], batch["context_mask"])

    rows = np.asarray(logits(merge(state.trainable, frozen)), np.float64)[batch["is_target"]]
    targets = np.asarray(batch["targets"][batch["is_target"]])
    losses = np.log(np.exp(rows).sum(axis=-1)) - rows[np.arange(len(rows)), targets]
    _, metrics = step(state, frozen, batch)
    assert_close(metrics["loss"], losses.mean(), TERMS)
    assert metrics["token_accuracy"] == pytest.approx((rows.argmax(axis=-1) == targets).mean())


def test_a_longer_padding_changes_nothing() -> None:
    step, state, frozen = prepare(("text_encoder",))
    _, padded_state, _ = prepare(("text_encoder",))
    batch = make_batch()
    padded = {
        name: jnp.pad(array, ((0, 0), (0, 7))) if name in ("tokens", "targets", "is_target") else array
        for name, array in batch.items()
    }
    state, metrics = step(state, frozen, batch)
    padded_state, padded_metrics = step(padded_state, frozen, padded)
    for name, value in metrics.items():
        assert_close(padded_metrics[name], value, TERMS, message=name)
    assert float(padded_metrics["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    ours, longer = host(state.trainable), host(padded_state.trainable)
    for path, leaf in ours.items():
        assert_close(longer[path], leaf, TERMS, 1.0, message=path)


@pytest.mark.parametrize("options", [{"remat": "dots", "accumulation": 2}, {"remat": "full"}])
def test_ways_to_save_memory_change_nothing(options: dict[str, Any]) -> None:
    runs = [prepare(("text_encoder",)), prepare(("text_encoder",), **options)]
    before = host(runs[0][1].trainable)
    for _ in range(2):
        measured = []
        for number, (step, state, frozen) in enumerate(runs):
            state, metrics = step(state, frozen, make_batch())
            runs[number] = step, state, frozen
            measured.append(metrics)
        for name, value in measured[0].items():
            assert_close(measured[1][name], value, TERMS, message=name)
    plain, saving = (host(state.trainable) for _, state, _ in runs)
    farthest = max(np.abs(leaf - before[path]).max() for path, leaf in plain.items())
    for path, leaf in plain.items():
        assert_close(saving[path], leaf, TERMS, farthest, message=path)


def test_a_step_is_compiled_once() -> None:
    """What a step gives has the types of what it was given, so that the second step is the same program."""
    step, state, frozen = prepare(("text_encoder",), parameters=init_params(CONFIG, jax.random.key(0)))
    given = jax.tree.map(jax.typeof, state)
    state, _ = step(state, frozen, make_batch())
    assert jax.tree.map(jax.typeof, state) == given


@pytest.mark.parametrize("freeze", [("text_encoder",), ("text_encoder", "audio_encoder", "decoder")])
def test_frozen_groups_stay_bit_identical_and_out_of_the_optimizer(freeze: tuple[str, ...]) -> None:
    step, state, frozen = prepare(freeze)
    frozen_before, trained_before = host(frozen), host(state.trainable)
    batch = make_batch()
    losses = []
    for _ in range(50):
        state, metrics = step(state, frozen, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    after = host(frozen)
    for path, leaf in frozen_before.items():
        np.testing.assert_array_equal(leaf, after[path], err_msg=path)
    moved = host(state.trainable)
    # Keys have no influence through a softmax that sees one position; everything else that is trained moves.
    unmoved = [path for path in moved if np.array_equal(moved[path], trained_before[path])]
    assert not unmoved, unmoved
    optimizer_size = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert optimizer_size == 2 * sum(leaf.size for leaf in trained_before.values())


def test_freezing_saves_the_work_of_gradients() -> None:
    batch = make_batch()

    def flops(*freeze: str) -> float:
        step, state, frozen = prepare(freeze)
        return step.lower(state, frozen, batch).cost_analysis()["flops"]

    whole, no_text, context_only = flops(), flops("text_encoder"), flops("text_encoder", "audio_encoder", "decoder")
    assert context_only < no_text < whole
    # Frozen weights need no weight gradient: of forward, input gradients and weight gradients, a third falls away.
    assert context_only < 0.8 * whole


def test_bfloat16_computes_close_to_float32() -> None:
    losses = {}
    for dtype in ("float32", "bfloat16"):
        step, state, frozen = prepare(("text_encoder",), dtype)
        state, metrics = step(state, frozen, make_batch())
        losses[dtype] = float(metrics["loss"])
        assert {leaf.dtype for leaf in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=2e-2)


def test_clipping_sees_trained_gradients_only() -> None:
    """An update of plain gradient descent has the norm that clipping allows, whatever is frozen."""
    trained = {"decoder": {"blocks": {"out": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}}}
    optimizer = make_optimizer(OptimizerSettings(max_gradient_norm=0.5), trained, 10)
    gradients = jax.tree.map(lambda leaf: 100 * leaf, trained)
    state = optimizer.init(trained)
    _, state = optimizer.update(gradients, state, trained)
    first_moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim and (leaf > 0).all()]
    clipped = optax.tree.norm(first_moments[: len(jax.tree.leaves(trained))])
    assert_close(clipped, 0.5 * 0.1, terms=16)  # (1 - beta1) of the clipped gradient


def test_schedules() -> None:
    schedule = learning_rate_schedule(OptimizerSettings(warmup_steps=4, final_share=0.1), 1.0, 24)
    values = [float(schedule(step)) for step in range(25)]
    chosen = [*values[:5], values[14], values[24]]
    assert_close(chosen, [0.2, 0.4, 0.6, 0.8, 1.0, 0.55, 0.1], terms=4)
    constant = learning_rate_schedule(OptimizerSettings(warmup_steps=0, schedule="constant"), 1.0, 5)
    assert [float(constant(step)) for step in range(5)] == [1.0] * 5


def test_groups_have_their_own_learning_rates() -> None:
    settings = OptimizerSettings(learning_rate=1e-3, group_learning_rates={"context": 1e-2}, warmup_steps=0)
    step, state, frozen = prepare(("text_encoder",), settings=settings)
    before = host(state.trainable)
    # AdamW's first update is the learning rate times the gradient's sign, where the gradient is not tiny.
    state, _ = step(state, frozen, make_batch())
    change = {path: np.abs(leaf - before[path]).max() for path, leaf in host(state.trainable).items()}
    np.testing.assert_allclose(change["audio_encoder/blocks/context_gate"], 1e-2, rtol=0.05)
    np.testing.assert_allclose(change["decoder/token_embedding/embedding"], 1e-3, rtol=0.05)
    with pytest.raises(CwjaxError, match="'text_encoder' has no trained parameter"):
        prepare(("text_encoder",), settings=OptimizerSettings(group_learning_rates={"text_encoder": 1.0}))
