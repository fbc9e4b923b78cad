"""The optimizer: AdamW (Loshchilov and Hutter 2019), labelled by parameter group."""

from typing import Any

import jax
import optax

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


def make_optimizer(settings: OptimizerSettings, trained: Parameters, steps: int) -> optax.GradientTransformation:
    """AdamW with a learning rate per group, after clipping by the norm of all trained gradients.

    Args:
        settings: of the optimizer.
        trained: the tree that is trained (concrete or abstract); frozen parameters never come here.
        steps: of the whole run, for the schedule.

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
    per_group = {
        group: optax.adamw(
            learning_rate_schedule(settings, settings.group_learning_rates.get(group, settings.learning_rate), steps),
            b1=settings.beta1,
            b2=settings.beta2,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            mask=_kernels,
        )
        for group in sorted(present)
    }
    grouped = optax.partition(per_group, unflatten(labels))
    if not settings.max_gradient_norm:
        return grouped
    return optax.chain(optax.clip_by_global_norm(settings.max_gradient_norm), grouped)


def _kernels(parameters: Any) -> Any:
    """True at kernels and LoRA's pairs, the only parameters that weight decay pulls to zero."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in (KERNEL, LORA_A, LORA_B), parameters)
