"""One training step: loss, gradients of the trained parameters, update; a single jitted program.

Legend: B batch, N samples, T target tokens, S context tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from cwjax.data.log_mel import log_mel
from cwjax.data.pcm16 import from_pcm16
from cwjax.models.layers import Recomputed, recomputing
from cwjax.models.parameters import Parameters, flatten, merge
from cwjax.models.placement import on_own_examples
from cwjax.models.spec_augment import SpecAugmentSettings, spec_augment
from cwjax.training.loss import vocabulary_loss
from cwjax.training.sharding import optimizer_shardings, parameter_shardings, replicated, with_shardings

Metrics = dict[str, jax.Array]
Loss = Callable[[Parameters, Parameters, dict[str, jax.Array]], tuple[jax.Array, jax.Array]]
"""From trained and frozen parameters and a batch to the summed loss and the number of right guesses."""


class TrainState(NamedTuple):
    """All that changes in training, besides the position in the data.

    Attributes:
        step: steps done, int32.
        trained: the trained parameters, float32.
        optimizer: optax's state for them.
    """

    step: jax.Array
    trained: Parameters
    optimizer: optax.OptState


def cast(parameters: Parameters, dtype: jnp.dtype) -> Parameters:
    """Floating-point leaves in another precision; gradients come back in the old one."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, parameters
    )


def make_loss(
    graphdef: nnx.GraphDef,
    num_mel_bins: int,
    dtype: jnp.dtype,
    recomputed: Recomputed = "nothing",
    hiding: SpecAugmentSettings | None = None,
) -> Loss:
    """The loss of a batch.

    Args:
        graphdef: of the ContextWhisper.
        num_mel_bins: M.
        dtype: of the computation.
        recomputed: what the gradient computes again instead of finding it kept.
        hiding: of the features; the batch then holds `mask_keys`.
    """

    def loss(trained: Parameters, frozen: Parameters, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, cast(merge(trained, frozen), dtype))
        features = on_own_examples(lambda waveform: log_mel(from_pcm16(waveform), num_mel_bins, jnp), batch["waveform"])
        if hiding and hiding.hides:
            features = spec_augment(features, jax.random.wrap_key_data(batch["mask_keys"]), hiding)
        with recomputing(recomputed):
            states = model.encode_context(batch["context_ids"], batch["context_mask"])
            audio = model.encode(features.astype(dtype), states)
            stream = model.decoder.states(batch["tokens"], audio)
        embedding = model.decoder.token_embedding.embedding[...]
        return vocabulary_loss(stream, embedding, batch["targets"], batch["is_target"])

    return loss


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    shardings: TrainState,
    accumulation: int = 1,
    mask_seed: int | None = None,
) -> Callable[[TrainState, Parameters, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """The jitted step `(state, frozen, batch) -> (state, metrics)`. The old state is given up (donated).

    Metrics are of the parameters before the update: `loss` (mean over the targets of the batch), `token_accuracy`,
    `gradient_norm` (before clipping), `learning_rate`, `gate` (mean opening |tanh| of the context gates, if there are
    any).

    Args:
        loss: of a batch.
        optimizer: of the trained parameters.
        schedule: of the learning rate, for the metrics.
        shardings: of the state.
        accumulation: parts of the batch that are computed one after another.
        mask_seed: with the number of the step it decides the `mask_keys` of the examples; None: there are none.
    """

    def train_step(state: TrainState, frozen: Parameters, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        count = jnp.maximum(batch["is_target"].sum(), 1)
        if mask_seed is not None:
            keys = jax.random.split(jax.random.fold_in(jax.random.key(mask_seed), state.step), len(batch["targets"]))
            batch = {**batch, "mask_keys": jax.random.key_data(keys)}

        def mean_loss(trained: Parameters, part: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            total, right = loss(trained, frozen, part)
            return total / count, right / count

        def differentiate(part: dict[str, jax.Array]) -> tuple[tuple[jax.Array, jax.Array], Parameters]:
            measured, gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.trained, part)
            # Summed over the devices only into the shards that need them.
            return measured, jax.lax.with_sharding_constraint(gradients, shardings.trained)

        (value, accuracy), gradients = _summed_over_parts(differentiate, batch, accumulation)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.trained)
        metrics = {
            "loss": value,
            "token_accuracy": accuracy,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": schedule(state.step),
        }
        gates = [leaf for path, leaf in flatten(merge(state.trained, frozen)) if path.endswith("context_gate")]
        if gates:
            metrics["gate"] = jnp.abs(jnp.tanh(gates[0].astype(jnp.float32))).mean()
        return TrainState(state.step + 1, optax.apply_updates(state.trained, updates), optimizer_state), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, replicated(shardings.step.mesh)))


def _summed_over_parts(function: Callable[[Any], Any], batch: dict[str, jax.Array], parts: int) -> Any:
    """The sum of what a function gives for equal parts of a batch, one after another."""
    if parts == 1:
        return function(batch)
    # Every part takes some examples of every device, so that none has to move.
    cut = {name: jnp.swapaxes(array.reshape(-1, parts, *array.shape[1:]), 0, 1) for name, array in batch.items()}
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, jax.tree.map(lambda array: array[0], cut)))
    return jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, function(part)), None), zeros, cut)[0]


def state_shardings(trained: Parameters, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Where the state of training belongs, for a tree of trained parameters (concrete or abstract).

    Raises:
        CwjaxError: a parameter does not divide over the mesh.
    """
    shardings = parameter_shardings(trained, mesh)
    optimizer_state = optimizer_shardings(jax.eval_shape(optimizer.init, trained), shardings, mesh)
    return TrainState(replicated(mesh), shardings, optimizer_state)


def init_state(trained: Parameters, optimizer: optax.GradientTransformation, shardings: TrainState) -> TrainState:
    """The state before the first step; the optimizer's arrays are born beside their parameters."""
    trained = jax.device_put(trained, shardings.trained)
    step, optimizer_state = jax.jit(
        lambda trained: (jnp.zeros((), jnp.int32), optimizer.init(trained)),
        out_shardings=(shardings.step, shardings.optimizer),
    )(trained)
    return TrainState(step, trained, optimizer_state)


def abstract_state(trained: Parameters, optimizer: optax.GradientTransformation, shardings: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of the state; takes no memory."""

    def init(trained: Parameters) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained))

    return with_shardings(jax.eval_shape(init, trained), shardings)


def describe_parameters(trained: Parameters, frozen: Parameters) -> dict[str, Any]:
    """Counts for the log: all parameters, those trained, and those of context attention."""

    def count(tree: Parameters) -> int:
        return sum(leaf.size for _, leaf in flatten(tree))

    context = sum(leaf.size for path, leaf in flatten(merge(trained, frozen)) if "/context_" in path)
    return {"parameters": count(trained) + count(frozen), "trained": count(trained), "context_attention": context}
