"""One training step: loss, gradients of what is trainable, update; a single jitted program, and the shapes it works on.

Legend: B batch, N samples, T target tokens, S context tokens, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cwjax.config import Config
from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION, log_mel
from cwjax.data.audio.pcm16 import from_pcm16
from cwjax.models.attention import Implementation
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.dropout import Dropout
from cwjax.models.layers import named_key
from cwjax.models.lora import merge_lora
from cwjax.models.parameters import Parameters, cast, flatten, merge
from cwjax.models.placement import on_own_examples
from cwjax.models.spec_augment import spec_augment
from cwjax.training.distillation import make_teacher, teacher_shapes
from cwjax.training.groups import TEACHER, split_parameters, with_pairs, without_teacher
from cwjax.training.loss import Objective, vocabulary_loss
from cwjax.training.optimizer import AveragedState, learning_rate_schedule, make_optimizer
from cwjax.training.sharding import (
    BATCH,
    optimizer_shardings,
    parameter_shardings,
    replicated,
    require_divisible_batch,
    require_divisible_heads,
    with_shardings,
)

Batch = dict[str, jax.Array]
Loss = Callable[[Parameters, Batch], tuple[jax.Array, jax.Array]]
"""From all parameters and a batch to the summed loss and the number of right guesses."""


class TrainState(NamedTuple):
    """All that changes in training, besides the position in the data.

    Attributes:
        step: steps done, int32.
        trainable: the parameters that are trained, float32.
        opt_state: optax's state for them.
    """

    step: jax.Array
    trainable: Parameters
    opt_state: optax.OptState

    @property
    def kept(self) -> Parameters:
        """What is validated and makes the result: the moving average, or where there is none, what is trained."""
        return self.opt_state.average if isinstance(self.opt_state, AveragedState) else self.trainable


def abstract_state(config: Config, model: ContextWhisperConfig, mesh: Mesh) -> tuple[TrainState, Parameters]:
    """Shapes, dtypes and shardings of the state and of the frozen parameters, which are held in the precision of the
    computation; takes no memory.

    Raises:
        CwjaxError: mesh and parameters do not go together, or nothing is left to train.
    """
    require_divisible_heads(model, mesh)
    whole = with_pairs(abstract(model)[1], config.lora, config.freeze)
    trainable, frozen = split_parameters(merge(whole, teacher_shapes(config, model)), config.freeze)
    opt_state = jax.eval_shape(_optimizer(config, trainable).init, trainable)
    trainable = with_shardings(trainable, parameter_shardings(trainable, mesh))
    state = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh)),
        trainable,
        with_shardings(opt_state, optimizer_shardings(opt_state, trainable, mesh)),
    )
    frozen = jax.eval_shape(partial(cast, dtype=jnp.dtype(config.train.compute_dtype)), frozen)
    return state, with_shardings(frozen, parameter_shardings(frozen, mesh))


def abstract_batch(config: Config, model: ContextWhisperConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what `training_batches` makes, without the `seconds`, which stay on the host.

    Raises:
        CwjaxError: the batch does not divide over the mesh.
    """
    require_divisible_batch(config.train.batch_size, config.train.accumulation, mesh)
    targets, context = (config.data.max_target_tokens,), (config.data.max_context_tokens,)
    shapes = {
        "waveform": ((model.whisper.max_source_positions * SAMPLES_PER_POSITION,), jnp.int16),
        "tokens": (targets, jnp.int32),
        "targets": (targets, jnp.int32),
        "is_target": (targets, jnp.bool_),
        "context_ids": (context, jnp.int32),
        "context_mask": (context, jnp.bool_),
    }
    return {
        name: jax.ShapeDtypeStruct((config.train.batch_size, *shape), dtype, sharding=NamedSharding(mesh, BATCH))
        for name, (shape, dtype) in shapes.items()
    }


def init_state(config: Config, trainable: Parameters, abstract: TrainState) -> TrainState:
    """The state before the first step; the optimizer's arrays are born beside their parameters."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    trainable = jax.device_put(trainable, shardings.trainable)
    optimizer = _optimizer(config, trainable)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(trainable)
    return TrainState(jax.device_put(jnp.zeros((), jnp.int32), shardings.step), trainable, opt_state)


def make_loss(config: Config, model: ContextWhisperConfig, attention: Implementation | None = None) -> Loss:
    """The loss of a batch; where SpecAugment masks anything, the batch also holds `mask_keys`, and `dropout_keys` where
    something is dropped."""
    graphdef, _ = abstract(model, config.train.remat, attention)
    augment, num_mel_bins = config.train.spec_augment, model.whisper.num_mel_bins
    dtype, scale = jnp.dtype(config.train.compute_dtype), config.lora.scale
    distil, teach = config.distil, make_teacher(config, attention)
    objective = Objective(config.train.label_smoothing, distil.ce_weight, distil.kl_weight, distil.temperature)

    def loss(parameters: Parameters, batch: Batch) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, cast(merge_lora(without_teacher(parameters), scale), dtype))
        features = on_own_examples(lambda waveform: log_mel(from_pcm16(waveform), num_mel_bins, jnp), batch["waveform"])
        if augment.masks:
            features = spec_augment(features, jax.random.wrap_key_data(batch["mask_keys"]), augment)
        states = model.encode_context(batch["context_ids"], batch["context_mask"])
        dropout = None
        if "dropout_keys" in batch:
            keys = jax.random.wrap_key_data(batch["dropout_keys"])
            dropout = Dropout(keys, config.train.dropout, config.train.layer_drop)
        audio = model.encode(features.astype(dtype), states, dropout)
        stream = model.decoder.states(batch["tokens"], audio, dropout)
        embedding = model.decoder.token_embedding.embedding[...]
        taught = teach(parameters[TEACHER], batch) if teach else None
        return vocabulary_loss(stream, embedding, batch["targets"], batch["is_target"], objective, taught)

    return loss


def make_train_step(config: Config, model: ContextWhisperConfig, mesh: Mesh, loss: Loss | None = None) -> Any:
    """The jitted step `(state, frozen, batch) -> (state, metrics)`. The old state is given up (donated).

    Metrics are of the parameters before the update: `loss` (mean over the targets of the batch), `token_accuracy`,
    `gradient_norm` (before clipping), `learning_rate`, `gate` (mean opening |tanh| of the context gates, if there are
    any).

    Args:
        config: of the experiment.
        model: sizes.
        mesh: of devices, which need not be here.
        loss: another than `make_loss`.
    """
    state, _ = abstract_state(config, model, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    optimizer = _optimizer(config, state.trainable)
    schedule = learning_rate_schedule(config.optim, config.optim.learning_rate, config.train.steps)
    loss = loss or make_loss(config, model)

    def train_step(state: TrainState, frozen: Parameters, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        count = jnp.maximum(batch["is_target"].sum(), 1)

        def keys(draw: Callable[[jax.Array], jax.Array]) -> jax.Array:
            """Of every example, other ones at every step."""
            key = draw(jax.random.fold_in(jax.random.key(config.train.seed), state.step))
            return jax.random.key_data(jax.random.split(key, len(batch["targets"])))

        drawn = {}
        if config.train.spec_augment.masks:
            drawn["mask_keys"] = keys(lambda key: key)
        if config.train.dropout or config.train.layer_drop:
            drawn["dropout_keys"] = keys(lambda key: named_key(key, "dropout"))
        batch = batch | drawn

        def mean_loss(trainable: Parameters, part: Batch) -> tuple[jax.Array, jax.Array]:
            total, right = loss(merge(trainable, frozen), part)
            return total / count, right / count

        def differentiate(part: Batch) -> tuple[tuple[jax.Array, jax.Array], Parameters]:
            measured, gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.trainable, part)
            # Summed over the devices only into the shards that need them.
            return measured, jax.lax.with_sharding_constraint(gradients, shardings.trainable)

        (value, accuracy), gradients = _summed_over_parts(differentiate, batch, config.train.accumulation)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trainable)
        metrics = {
            "loss": value,
            "token_accuracy": accuracy,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": schedule(state.step),
        }
        gates = [leaf for path, leaf in flatten(merge(state.trainable, frozen)) if path.endswith("context_gate")]
        if gates:
            metrics["gate"] = jnp.abs(jnp.tanh(gates[0].astype(jnp.float32))).mean()
        return TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), opt_state), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


def _optimizer(config: Config, trainable: Parameters) -> optax.GradientTransformation:
    return make_optimizer(config.optim, trainable, config.train.steps, config.train.ema_decay)


def trace_step(
    config: Config, model: ContextWhisperConfig, mesh: Mesh, attention: Implementation | None = None
) -> jax.stages.Traced:
    """The step on the shapes that it works on, to be counted, or lowered and compiled for the devices of the mesh."""
    step = make_train_step(config, model, mesh, make_loss(config, model, attention))
    with jax.set_mesh(mesh):
        return step.trace(*abstract_state(config, model, mesh), abstract_batch(config, model, mesh))


def _summed_over_parts(function: Callable[[Any], Any], batch: Batch, parts: int) -> Any:
    """The sum of what a function gives for equal parts of a batch, one after another."""
    if parts == 1:
        return function(batch)
    # Every part takes some examples of every device, so that none has to move.
    cut = {name: jnp.swapaxes(array.reshape(-1, parts, *array.shape[1:]), 0, 1) for name, array in batch.items()}
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, jax.tree.map(lambda array: array[0], cut)))
    return jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, function(part)), None), zeros, cut)[0]
