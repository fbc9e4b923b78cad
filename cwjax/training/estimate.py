"""How long an experiment will take on the devices here, estimated before it begins."""

import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cwjax.config import Config
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.training.cost import count_products
from cwjax.training.train_step import trace_step

SHARE_OF_PACE = 0.45
"""What a training step reaches of the pace of one large product on a CPU: 0.45 with `configs/demo.py`, about 0.5 with
Whisper tiny (`benchmarks/train_step.py`). On accelerators it was not measured."""

_SIDE = 1536
_REPETITIONS = 5


def estimate_seconds(
    config: Config, model: ContextWhisperConfig, mesh: Mesh, validated: int, evaluated: int
) -> dict[str, float]:
    """Seconds of training and of transcribing, for validation and at the end. Compiling and reading are not counted.

    The operations of a step are counted and divided by the pace of a matrix product, which is measured here. To
    transcribe a window takes about as long as to train on it: the decoder runs token by token, but without a gradient.

    Args:
        config: of the experiment.
        model: sizes.
        mesh: of the devices.
        validated: segments that are transcribed in every validation, under three contexts each.
        evaluated: those of the end.
    """
    settings = config.train
    operations = count_products(trace_step(config, model, mesh).jaxpr.jaxpr).operations
    step = operations / (SHARE_OF_PACE * product_pace(jnp.dtype(settings.compute_dtype)) * mesh.size)
    validations = -(-settings.steps // settings.validate_every) if settings.validate_every else 0
    segments = validations * validated + evaluated
    return {"training": step * settings.steps, "transcribing": step * 3 * segments / settings.batch_size}


def product_pace(dtype: jnp.dtype) -> float:
    """Float operations a second of a large matrix product on one device; the best of a few."""
    matrix = jnp.ones((_SIDE, _SIDE), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / min(seconds)
