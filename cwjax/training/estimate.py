"""How long an experiment will take on the devices here, estimated before it begins."""

import time

import jax
import jax.numpy as jnp

from cwjax.config import TrainSettings
from cwjax.training.cost import count_products
from cwjax.training.program import TrainProgram

SHARE_OF_PACE = 0.45
"""What a training step reaches of the pace of one large product on a CPU: 0.45 with `configs/demo.py`, about 0.5 with
Whisper tiny (`benchmarks/train_step.py`). On accelerators it was not measured."""

_SIDE = 1536
_REPETITIONS = 5


def estimate_seconds(program: TrainProgram, settings: TrainSettings, evaluated: int) -> dict[str, float]:
    """Seconds of training and of transcribing, for validation and at the end. Compiling and reading are not counted.

    The operations of a step are counted and divided by the pace of a matrix product, which is measured here. To
    transcribe a window takes about as long as to train on it: the decoder runs token by token, but without a gradient.

    Args:
        program: of the experiment.
        settings: how long it runs.
        evaluated: segments that are transcribed at the end, under three contexts each.
    """
    operations = count_products(program.trace().jaxpr.jaxpr).operations
    step = operations / (SHARE_OF_PACE * product_pace(program.dtype) * program.mesh.size)
    validations = -(-settings.steps // settings.validate_every) if settings.validate_every else 0
    segments = validations * settings.validation_examples + evaluated
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
