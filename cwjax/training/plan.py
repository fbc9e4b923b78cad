"""Whether a training step fits on devices that need not be here, how long it takes at best, and what would fit better.

The real step is compiled ahead of time for the real topology.
"""

import dataclasses
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import jax
import jax.numpy as jnp

from cwjax.config import NEW, Config
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.layers import Remat
from cwjax.models.parameters import Parameters, flatten
from cwjax.models.whisper import published_sizes
from cwjax.training.cost import count_collectives, count_products
from cwjax.training.distillation import thinned_sizes
from cwjax.training.groups import count_parameters
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import abstract_state, trace_step
from cwjax.weights.model_directory import read_model_config
from cwjax.weights.pretrained import TEXT_ENCODER_SIZES, open_text_encoder, open_whisper
from cwjax.weights.sources import locate

log = logging.getLogger(__name__)

LOCAL = "local"


@dataclass(frozen=True)
class Chip:
    """What a vendor publishes of a chip.

    Attributes:
        memory: bytes.
        operations_per_second: bfloat16, dense.
        bytes_per_second: of the memory.
        link_bytes_per_second: to all neighbours together, one way.
    """

    memory: float
    operations_per_second: float
    bytes_per_second: float
    link_bytes_per_second: float


GIB = 2**30
CHIPS = {
    # docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e ("System architecture"); links are half of the "bidirectional ICI
    # bandwidth per chip".
    "v4": Chip(32 * GIB, 275e12, 1228e9, 300e9),
    "v5e": Chip(16 * GIB, 197e12, 819e9, 200e9),
    "v5p": Chip(95 * GIB, 459e12, 2765e9, 600e9),
    "v6e": Chip(32 * GIB, 918e12, 1600e9, 400e9),
    # NVIDIA's data sheets; links are NVLink. What is called A100 alone has 40 GB.
    "A100": Chip(40e9, 312e12, 1555e9, 300e9),
    "A100-SXM4-80GB": Chip(80e9, 312e12, 2039e9, 300e9),
    "A100 80GB PCIe": Chip(80e9, 312e12, 1935e9, 300e9),
    "H100": Chip(80e9, 989e12, 3350e9, 450e9),
    "H100 PCIe": Chip(80e9, 756e12, 2000e9, 300e9),
    "H100 NVL": Chip(94e9, 835e12, 3900e9, 300e9),
    "H200": Chip(141e9, 989e12, 4800e9, 450e9),
    "GH200": Chip(96e9, 989e12, 4000e9, 450e9),
    "B200": Chip(180e9, 2250e12, 7700e9, 900e9),
    "GB200": Chip(186e9, 2500e12, 8000e9, 900e9),
}
KINDS = {"v5 lite": "v5e", "v5": "v5p", "v6 lite": "v6e"}
"""JAX's names of chips that differ from those above."""
LARGEST_BATCH = 64
"""Examples per chip at which a search ends."""


@dataclass(frozen=True)
class Plan:
    """What compiling a step told. Memory, operations and bytes are those of one chip.

    Attributes:
        topology: where.
        chips: their number.
        mesh: sizes of its axes.
        batch_size: examples of a step, of all chips together.
        remat: `train.remat`.
        parameters, trained: of the model, of all chips together.
        arguments, temporaries: bytes of memory of the step.
        best, copies: those that validation adds: the best parameters so far, all the time, and copies while it
            transcribes.
        peak: bytes of memory at most, without what transcribing itself needs.
        memory: bytes that a chip has; 0 when nobody knows.
        operations: that are carried out, those of remat included.
        useful: operations per chip without those that are computed again.
        sent: bytes by kind of collective.
        gathered_in_loops: most bytes gathered or summed up on a chip in one turn of a loop over layers.
        computing: seconds of the products by the roofline; 0 when nobody knows the chip.
        sending: seconds of the collectives at the links' full pace.
        expected_mfu: useful operations over what the chip could do in the time of the step.
    """

    topology: str
    chips: int
    mesh: dict[str, int]
    batch_size: int
    remat: Remat
    parameters: int
    trained: int
    arguments: int
    temporaries: int
    best: int
    copies: int
    peak: int
    memory: int
    operations: float
    useful: float
    sent: dict[str, int]
    gathered_in_loops: int
    computing: float
    sending: float
    expected_mfu: float

    @property
    def fits(self) -> bool:
        """Whether a chip has the memory, as far as is known."""
        return not self.memory or self.peak <= self.memory

    @property
    def seconds(self) -> float:
        """Of a step at best, when sending is hidden behind computing."""
        return max(self.computing, self.sending)

    @property
    def windows_per_second(self) -> float:
        """Of all chips together at best; 0 when nobody knows the chip."""
        return self.batch_size / self.seconds if self.seconds else 0.0


def planned_sizes(config: Config) -> ContextWhisperConfig:
    """Sizes of an experiment's model. Published checkpoints whose sizes are known need not be here, nor a network.

    Raises:
        CwjaxError: a part is neither here nor known.
    """
    settings = config.model
    if settings.start:
        return read_model_config(locate(settings.start))
    whisper = dataclasses.replace(settings.whisper_size, vocab_size=settings.tokenizer_size)
    if settings.whisper != NEW:
        whisper = published_sizes(settings.whisper) or open_whisper(locate(settings.whisper)).config
    whisper = thinned_sizes(config, whisper)
    text_encoder = (
        TEXT_ENCODER_SIZES.get(settings.text_encoder) or open_text_encoder(locate(settings.text_encoder)).config
    )
    return ContextWhisperConfig(whisper, text_encoder, settings.context_attention)


def devices_of(topology: str) -> list[jax.Device]:
    """The devices of a topology, of which none need be here.

    Args:
        topology: "local", or a TPU's such as "v5e:16x16".

    Raises:
        CwjaxError: there is no such topology, or libtpu is not installed.
    """
    if topology == LOCAL:
        return jax.devices()
    if not re.fullmatch(r"v\d\w*:\d+x\d+(x\d+)?", topology):
        raise CwjaxError(
            f"--topology {topology}: name a generation and its shape, such as v4:2x2x4, v5e:16x16, v5p:2x2x4, "
            f"v6e:16x16, or {LOCAL}"
        )
    from jax.experimental import topologies

    # A host has four chips unless told otherwise.
    single = {"chips_per_host_bounds": [1, 1, 1]} if re.search(r":1x1(x1)?$", topology) else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **single).devices)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error) else type(error).__name__
        if "libtpu" in reason or "not found" in reason.lower() or isinstance(error, ImportError):
            raise CwjaxError(
                f"--topology {topology}: compiling for TPUs needs libtpu: pip install 'cwjax[tpu]' ({reason})"
            ) from error
        raise CwjaxError(
            f"--topology {topology}: there is no such topology ({reason}); slices of v4 and v5p have three sizes "
            "(2x2x1, 2x2x4, 4x4x4, ...), those of v5e and v6e two (1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16)"
        ) from error


def chip_of(device: jax.Device) -> Chip | None:
    """What is known of a device; None of those that are not in the table. The longest name that fits is its own."""
    kind = device.device_kind.removeprefix("TPU ").removeprefix("NVIDIA ")
    kind = KINDS.get(kind, kind)
    return CHIPS.get(max((name for name in CHIPS if kind.startswith(name)), key=len, default=""))


def make_plan(config: Config, model: ContextWhisperConfig, topology: str, devices: list[jax.Device]) -> Plan:
    """Compiles the step of an experiment and reads off what it needs.

    Args:
        config: of the experiment.
        model: sizes.
        topology: name of where, for the plan.
        devices: to compile for.

    Raises:
        CwjaxError: mesh, devices and batch do not go together, or the compiler finds that it cannot fit.
    """
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    traced = trace_step(config, model, mesh)
    chip = chip_of(devices[0])
    pace = (chip.operations_per_second, chip.bytes_per_second) if chip else ()
    counted = count_products(traced.jaxpr.jaxpr, *pace) * (1 / len(devices))
    keeping = dataclasses.replace(config, train=dataclasses.replace(config.train, remat="none"))
    useful = count_products(trace_step(keeping, model, mesh, "definition").jaxpr.jaxpr).operations / len(devices)
    try:
        with jax.set_mesh(mesh):
            compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        raise CwjaxError(_too_large(error)) from error
    memory = compiled.memory_analysis()
    collectives = count_collectives(compiled.as_text())
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    computing = counted.seconds if chip else 0.0
    sending = collectives.total / chip.link_bytes_per_second if chip else 0.0
    seconds = max(computing, sending)
    state, frozen = abstract_state(config, model, mesh)
    counts = count_parameters(state.trainable, frozen)
    best, copies = validation_bytes(config, state.trainable, frozen, len({one.process_index for one in devices}))
    return Plan(
        topology=topology,
        chips=len(devices),
        mesh=dict(mesh.shape),
        batch_size=config.train.batch_size,
        remat=config.train.remat,
        parameters=counts["parameters"],
        trained=counts["trained"],
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        best=best,
        copies=copies,
        peak=kept + best + max(memory.temp_size_in_bytes, copies),
        memory=int(chip.memory) if chip else 0,
        operations=counted.operations,
        useful=useful,
        sent=collectives.sent,
        gathered_in_loops=collectives.gathered_in_loops,
        computing=computing,
        sending=sending,
        expected_mfu=useful / chip.operations_per_second / seconds if chip and seconds else 0.0,
    )


def validation_bytes(config: Config, trainable: Parameters, frozen: Parameters, processes: int) -> tuple[int, int]:
    """What validation adds on a chip: bytes of the best parameters so far, and of the copies that it transcribes with.

    Several processes have a copy each of all parameters in the precision of the computation; one has copies of those
    only that it holds in another (`cwjax.evaluation.evaluator.local_parameters`).
    """
    if not config.train.validate_every:
        return 0, 0
    dtype = jnp.dtype(config.train.compute_dtype)
    everything = [leaf for tree in (trainable, frozen) for _, leaf in flatten(tree)]

    def of_a_chip(leaf: jax.ShapeDtypeStruct) -> int:
        return math.prod(leaf.sharding.shard_shape(leaf.shape))

    best = sum(of_a_chip(leaf) * leaf.dtype.itemsize for _, leaf in flatten(trainable))
    if processes > 1:
        return best, sum(leaf.size for leaf in everything) * dtype.itemsize
    return best, sum(of_a_chip(leaf) for leaf in everything if leaf.dtype != dtype) * dtype.itemsize


def alternatives(
    config: Config, model: ContextWhisperConfig, topology: str, devices: list[jax.Device]
) -> Iterator[Plan]:
    """Plans of every `remat`, each with twice as many examples per chip as long as it fits."""
    parts = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    parts = parts.shape["data"] * parts.shape["fsdp"]
    for remat in get_args(Remat):
        examples = 1
        while examples <= LARGEST_BATCH:
            train = dataclasses.replace(config.train, remat=remat, batch_size=examples * parts, accumulation=1)
            try:
                plan = make_plan(dataclasses.replace(config, train=train), model, topology, devices)
            except CwjaxError as error:
                log.info("remat %s, %d examples per chip: %s", remat, examples, error)
                break
            yield plan
            if not plan.fits:
                break
            examples *= 2


def _too_large(error: Exception) -> str:
    """The compiler's refusal in one line."""
    text = str(error)
    exceeded = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm. Exceeded hbm capacity by ([\d.]+\w)", text)
    if exceeded:
        return f"the step needs {exceeded[1]} of a chip's {exceeded[2]} of memory, {exceeded[3]} too much"
    return f"the step cannot be compiled ({text.splitlines()[0][:300]})"
