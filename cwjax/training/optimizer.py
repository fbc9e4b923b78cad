"""Optimizers by name, labelled by parameter group, and the moving average of what they train."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from cwjax.config import OptimizerSettings, freezable_groups
from cwjax.errors import CwjaxError
from cwjax.models.lora import KERNEL, LORA_A, LORA_B
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.training.groups import group_of


def learning_rate_schedule(settings: OptimizerSettings, peak: float, steps: int) -> optax.Schedule:
    """Linear warm-up from zero to `peak`, then the decay the settings name, over `steps` in all."""
    warmup = min(settings.warmup_steps, steps)
    rest = max(steps - warmup, 1)
    final = peak * settings.final_share
    decay = {
        "cosine": optax.cosine_decay_schedule(peak, rest, settings.final_share),
        "linear": optax.linear_schedule(peak, final, rest),
        "constant": optax.constant_schedule(peak),
    }[settings.schedule]
    # Step 0 must not be lost to a learning rate of zero.
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, decay], [warmup])


class AveragedState(NamedTuple):
    """The state of an optimizer, and the moving average of the parameters that it trains."""

    optimizer: optax.OptState
    average: Parameters


def make_optimizer(
    settings: OptimizerSettings, trained: Parameters, steps: int, ema_decay: float = 0.0
) -> optax.GradientTransformation:
    """The optimizer that the settings name with a learning rate per group, after clipping by the norm of all trained
    gradients.

    Args:
        settings: of the optimizer.
        trained: the tree that is trained (concrete or abstract); frozen parameters never come here.
        steps: of the whole run, for the schedule.
        ema_decay: of the moving average that the state then holds; 0: none.

    Raises:
        CwjaxError: a group learning rate is given for a group that has no trained parameter.
    """
    labels = {path: group_of(path) for path, _ in flatten(trained)}
    present = set(labels.values())
    for group in settings.group_learning_rates:
        if group not in present:
            raise CwjaxError(
                f"optim.group_learning_rates: '{group}' has no trained parameter; "
                f"groups: {', '.join(freezable_groups())}"
            )
    rates = {
        group: learning_rate_schedule(settings, settings.group_learning_rates.get(group, settings.learning_rate), steps)
        for group in sorted(present)
    }
    whole = optax.partition({group: _named(settings, rate) for group, rate in rates.items()}, unflatten(labels))
    if settings.max_gradient_norm:
        whole = optax.chain(optax.clip_by_global_norm(settings.max_gradient_norm), whole)
    return _averaging(whole, ema_decay) if ema_decay else whole


def _named(settings: OptimizerSettings, rate: optax.Schedule) -> optax.GradientTransformation:
    """An optimizer at a learning rate. In all of them weight decay is decoupled: times the learning rate."""
    betas, decay = {"b1": settings.beta1, "b2": settings.beta2}, settings.weight_decay
    match settings.optimizer:
        case "adamw":  # Loshchilov and Hutter 2019
            return optax.adamw(rate, **betas, eps=settings.epsilon, weight_decay=decay, mask=_kernels)
        case "lion":  # Chen et al. 2023
            return optax.lion(rate, **betas, weight_decay=decay, mask=_kernels)
        case "adafactor":  # Shazeer and Stern 2018
            # The learning rate is from outside, and the updates have their sign already.
            update = optax.adafactor(None, multiply_by_parameter_scale=False)
            return optax.chain(update, optax.add_decayed_weights(-decay, _kernels), optax.scale_by_schedule(rate))
        case "muon":  # Jordan et al. 2024; of the root mean square of AdamW's updates, so that its learning rates fit
            return optax.contrib.muon(
                rate,
                beta=settings.beta1,
                weight_decay=decay,
                weight_decay_mask=_kernels,
                adam_b1=settings.beta1,
                adam_b2=settings.beta2,
                eps=settings.epsilon,
                muon_weight_dimension_numbers=_matrices,
                consistent_rms=0.2,
            )
        case _:  # sgd
            momentum = optax.trace(settings.beta1) if settings.beta1 else optax.identity()
            return optax.chain(momentum, optax.add_decayed_weights(decay, _kernels), optax.scale_by_learning_rate(rate))


def _averaging(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The same, whose state also holds the exponential moving average of the parameters after each update."""

    def init(parameters: Parameters) -> AveragedState:
        return AveragedState(optimizer.init(parameters), jax.tree.map(jnp.copy, parameters))

    def update(gradients: Parameters, state: AveragedState, parameters: Parameters) -> tuple[Parameters, AveragedState]:
        updates, inner = optimizer.update(gradients, state.optimizer, parameters)
        after = optax.apply_updates(parameters, updates)
        return updates, AveragedState(inner, optax.incremental_update(after, state.average, 1 - decay))

    return optax.GradientTransformation(init, update)


def _matrices(parameters: Any) -> Any:
    """The axes of the matrices that Muon makes orthogonal: of the kernels in blocks. Adam trains all others."""

    def axes(path: tuple[Any, ...], leaf: Any) -> Any:
        names = [entry.key for entry in path]
        is_matrix = "blocks" in names and names[-1] == KERNEL
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1) if is_matrix else None

    return jax.tree_util.tree_map_with_path(axes, parameters)


def _kernels(parameters: Any) -> Any:
    """True at kernels and LoRA's pairs, the only parameters that weight decay pulls to zero."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in (KERNEL, LORA_A, LORA_B), parameters)
