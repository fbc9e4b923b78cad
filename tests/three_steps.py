"""Three training steps of a tiny model on several meshes, to be compared: python three_steps.py OUT MESH [MESH ...].

A MESH is DATA,FSDP,TENSOR; OUT is a folder for an .npz of each, with losses and parameters.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from quickly import compile_as_told

from cwjax.config import Config, DataSettings, MeshSettings, OptimizerSettings, TrainSettings
from cwjax.models.context_whisper import ContextWhisperConfig, init_params
from cwjax.models.lora import LoraSettings, is_pair, new_pair_parameter
from cwjax.models.parameters import flatten, merge, unflatten
from cwjax.models.spec_augment import SpecAugmentSettings
from cwjax.models.t5 import T5Config
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig
from cwjax.training.groups import split_parameters
from cwjax.training.sharding import gather, make_mesh, put_batch
from cwjax.training.train_step import abstract_state, init_state, make_train_step

VOCABULARY, TARGETS, CONTEXT, BATCH = 61, 12, 8, 8
MODEL = ContextWhisperConfig(
    whisper=WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=32,
        max_source_positions=256,
        max_target_positions=16,
    ),
    text_encoder=T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4),
    context=ContextAttentionConfig(gate_init=0.5),
)
"""Its audio attention is long enough to go head by head on a CPU."""
ADAPTED = ("decoder/blocks/cross_attn/query/kernel", "decoder/blocks/mlp/down/kernel")


def batch(seed: int) -> dict[str, np.ndarray]:
    """Random examples, some without context and with targets of different lengths."""
    random = np.random.default_rng(seed)
    lengths, contexts = random.integers(4, TARGETS + 1, BATCH), random.integers(0, CONTEXT + 1, BATCH)
    contexts[0] = 0
    return {
        "waveform": random.normal(0, 3000, (BATCH, 256 * 320)).astype(np.int16),
        "tokens": random.integers(0, VOCABULARY, (BATCH, TARGETS)).astype(np.int32),
        "targets": random.integers(0, VOCABULARY, (BATCH, TARGETS)).astype(np.int32),
        "is_target": np.arange(TARGETS) < lengths[:, None],
        "context_ids": random.integers(0, 50, (BATCH, CONTEXT)).astype(np.int32),
        "context_mask": np.arange(CONTEXT) < contexts[:, None],
    }


def settings(mesh: MeshSettings, **train: object) -> Config:
    """Everything is trained, two kernels by LoRA, at a rate at which three steps move every parameter. With so large an
    epsilon an update is nearly the gradient times the learning rate; with a small one it would not be smaller for a
    gradient that is nothing but rounding errors."""
    return Config(
        freeze=ADAPTED,
        lora=LoraSettings(rank=2, targets=ADAPTED),
        data=DataSettings(max_target_tokens=TARGETS, max_context_tokens=CONTEXT),
        optim=OptimizerSettings(learning_rate=1.0, epsilon=1.0, warmup_steps=0, weight_decay=0.01),
        train=TrainSettings(steps=10, batch_size=BATCH, spec_augment=SpecAugmentSettings(1, 100, 1, 20), **train),
        mesh=mesh,
    )


def main(out: str, *meshes: str) -> None:
    parameters = jax.device_get(init_params(MODEL, jax.random.key(0)))
    for mesh in meshes:
        axes = MeshSettings(*map(int, mesh.split(",")))
        config = settings(axes)
        devices = make_mesh(axes.data, axes.fsdp, axes.tensor, jax.devices()[: axes.data * axes.fsdp * axes.tensor])
        abstract, abstract_frozen = abstract_state(config, MODEL, devices)
        train_step = make_train_step(config, MODEL, devices)
        key, measured = jax.random.key(1), {}
        pairs = {path: leaf for path, leaf in flatten(abstract.trainable) if is_pair(path)}
        pairs = unflatten({path: new_pair_parameter(path, leaf.shape, key) for path, leaf in pairs.items()})
        with jax.set_mesh(devices):
            trainable, frozen = split_parameters(merge(parameters, pairs), config.freeze)
            state = init_state(config, trainable, abstract)
            frozen = jax.device_put(frozen, jax.tree.map(lambda leaf: leaf.sharding, abstract_frozen))
            for step in range(3):
                state, metrics = train_step(state, frozen, put_batch(batch(step), devices))
                for name, value in metrics.items():
                    measured[f"{step} {name}"] = np.asarray(value)
            for path, leaf in flatten(state.trainable):
                expected = dict(flatten(abstract.trainable))[path].sharding
                assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)
            measured |= dict(gather(state.trainable))
        np.savez(Path(out) / f"{mesh}.npz", **measured)


if __name__ == "__main__":
    compile_as_told()
    main(*sys.argv[1:])
