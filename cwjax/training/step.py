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
from cwjax.models.parameters import Parameters, flatten, merge
from cwjax.training.sharding import optimizer_shardings, parameter_shardings, replicated

Metrics = dict[str, jax.Array]


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


def target_loss(logits: jax.Array, targets: jax.Array, is_target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and share of right guesses over the positions that count.

    Args:
        logits: (B, T, V) float32.
        targets: (B, T) int32, the token after each position.
        is_target: (B, T) bool, False for prompt and padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    count = jnp.maximum(is_target.sum(), 1)
    right = jnp.argmax(logits, axis=-1) == targets
    return jnp.where(is_target, losses, 0).sum() / count, (right & is_target).sum() / count


def make_loss(
    graphdef: nnx.GraphDef, num_mel_bins: int, dtype: jnp.dtype
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The loss as a function of (trained, frozen, batch); gives (loss, token accuracy)."""

    def loss(trained: Parameters, frozen: Parameters, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, cast(merge(trained, frozen), dtype))
        features = log_mel(batch["waveform"], num_mel_bins, jnp).astype(dtype)
        states = model.encode_context(batch["context_ids"], batch["context_mask"])
        logits = model.decode(batch["tokens"], model.encode(features, states))
        return target_loss(logits.astype(jnp.float32), batch["targets"], batch["is_target"])

    return loss


def make_train_step(
    loss: Callable[..., tuple[jax.Array, jax.Array]],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[TrainState, Parameters, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """The jitted step `(state, frozen, batch) -> (state, metrics)`. The old state is given up (donated).

    Metrics are of the parameters before the update: `loss`, `token_accuracy`, `gradient_norm` (before clipping),
    `learning_rate`, `gate` (mean opening |tanh| of the context gates, if there are any).
    """

    def train_step(state: TrainState, frozen: Parameters, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        (value, accuracy), gradients = jax.value_and_grad(loss, has_aux=True)(state.trained, frozen, batch)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.trained)
        metrics = {
            "loss": value,
            "token_accuracy": accuracy,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": schedule(state.step),
        }
        gates = [leaf for path, leaf in flatten(merge(state.trained, frozen)) if path.endswith("context_gate")]
        if gates:
            metrics["gate"] = jnp.abs(jnp.tanh(gates[0])).mean()
        return TrainState(state.step + 1, optax.apply_updates(state.trained, updates), optimizer_state), metrics

    return jax.jit(train_step, donate_argnums=0)


def init_state(trained: Parameters, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state before the first step, each array in its shards, the optimizer's beside their parameters."""
    shardings = parameter_shardings(trained, mesh)
    placed_as = optimizer_shardings(jax.eval_shape(optimizer.init, trained), shardings, mesh)
    placed = jax.device_put(trained, shardings)
    state = jax.jit(optimizer.init, out_shardings=placed_as)(placed)
    return TrainState(jax.device_put(jnp.zeros((), jnp.int32), replicated(mesh)), placed, state)


def place_parameters(parameters: Parameters, mesh: Mesh) -> Parameters:
    """Parameters on the devices, each in its shards."""
    return jax.device_put(parameters, parameter_shardings(parameters, mesh)) if parameters else {}


def describe_parameters(trained: Parameters, frozen: Parameters) -> dict[str, Any]:
    """Counts for the log: all parameters, those trained, and those of context attention."""

    def count(tree: Parameters) -> int:
        return sum(leaf.size for _, leaf in flatten(tree))

    context = sum(leaf.size for path, leaf in flatten(merge(trained, frozen)) if "/context_" in path)
    return {"parameters": count(trained) + count(frozen), "trained": count(trained), "context_attention": context}
