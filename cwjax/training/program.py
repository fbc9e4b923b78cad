"""The program of an experiment's training step, from configuration and sizes alone; nothing is read or computed.

Legend: B batch, N samples, T target tokens, S context tokens.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cwjax.config import Config
from cwjax.data.log_mel import SAMPLES_PER_POSITION
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters
from cwjax.training.groups import split_parameters
from cwjax.training.optimizer import learning_rate_schedule, make_optimizer
from cwjax.training.sharding import (
    BATCH,
    make_mesh,
    parameter_shardings,
    require_divisible_batch,
    require_divisible_heads,
    with_shardings,
)
from cwjax.training.step import TrainState, abstract_state, cast, make_loss, make_train_step, state_shardings

Shapes = Any
"""A tree of shapes, dtypes and shardings."""


@dataclass(frozen=True)
class TrainProgram:
    """The step and the shapes of all it works on.

    Attributes:
        graphdef: of the ContextWhisper.
        mesh: of the devices, which need not be here.
        optimizer: of what is trained.
        state: shapes of the state.
        frozen: shapes of the parameters that do not change, float32.
        batch: shapes of a batch.
        step: the jitted `(state, frozen, batch) -> (state, metrics)`.
        dtype: of the computation, and of frozen parameters while they are used.
    """

    graphdef: nnx.GraphDef
    mesh: Mesh
    optimizer: optax.GradientTransformation
    state: TrainState
    frozen: Shapes
    batch: Shapes
    step: Any
    dtype: jnp.dtype

    def trace(self) -> jax.stages.Traced:
        """The step on the shapes it works on."""
        frozen = with_shardings(
            jax.eval_shape(partial(cast, dtype=self.dtype), self.frozen),
            jax.tree.map(lambda leaf: leaf.sharding, self.frozen),
        )
        with jax.set_mesh(self.mesh):
            return self.step.trace(self.state, frozen, self.batch)

    def lower(self) -> jax.stages.Lowered:
        """The step, ready to be compiled for the devices of the mesh."""
        with jax.set_mesh(self.mesh):
            return self.trace().lower()

    def rounded(self, parameters: Parameters) -> Parameters:
        """Parameters as the step computes with them, which is all that training needs of those that are frozen."""
        if self.dtype == jnp.float32:
            return parameters
        return jax.jit(partial(cast, dtype=self.dtype))(parameters)


def make_program(config: Config, model: ContextWhisperConfig, devices: list[jax.Device] | None = None) -> TrainProgram:
    """The program of an experiment.

    Args:
        config: of the experiment.
        model: sizes.
        devices: to compile for; None: all there are.

    Raises:
        CwjaxError: mesh, devices, batch and parameters do not go together, or nothing is left to train.
    """
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    require_divisible_batch(config.train.batch_size, config.train.accumulation, mesh)
    require_divisible_heads(model, mesh)
    graphdef, parameters = abstract(model)
    trained, frozen = split_parameters(parameters, config.freeze)
    optimizer = make_optimizer(config.optim, trained, config.train.steps)
    shardings = state_shardings(trained, optimizer, mesh)
    dtype = jnp.dtype(config.train.compute_dtype)
    step = make_train_step(
        make_loss(graphdef, model.whisper.num_mel_bins, dtype, config.train.recomputed, config.train.spec_augment),
        optimizer,
        learning_rate_schedule(config.optim, config.optim.learning_rate, config.train.steps),
        shardings,
        config.train.accumulation,
        config.train.seed if config.train.spec_augment.hides else None,
    )
    return TrainProgram(
        graphdef=graphdef,
        mesh=mesh,
        optimizer=optimizer,
        state=abstract_state(trained, optimizer, shardings),
        frozen=with_shardings(frozen, parameter_shardings(frozen, mesh)),
        batch=_batch_shapes(config, model, mesh),
        step=step,
        dtype=dtype,
    )


def _batch_shapes(config: Config, model: ContextWhisperConfig, mesh: Mesh) -> Shapes:
    """Shapes of what `training_batches` makes, without the `seconds`, which stay on the host."""
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
