"""The training step against the same step in PyTorch, in one run, both in turn.

    python benchmarks/train_step.py [--whisper tiny] [--batch 4] [--tokens 128] [--dtype float32] [--trained all]
    python benchmarks/train_step.py --lengths 64 128 224 448

PyTorch's is transformers' Whisper with SDPA, cross-entropy, clipping and a fused AdamW; it is given the log-mel
features, which ours computes from the waveform inside the step. `stock` is our step for Whisper alone, as PyTorch's;
`context` reads 128 tokens of context with BERT base too, which PyTorch has not. Random weights and audio.
Prints windows and seconds of audio per second (medians), float operations against what large matrix products of the
same framework reach here (MFU), memory on a GPU, and the ratio of PyTorch's time to ours, of steps that ran in turn and
of the fastest of each.
With other work on the machine trust the latter more: PyTorch's threads wait for each other, and suffer most from it.
With `--lengths`, our step for Whisper alone with targets of so many tokens, in turn: what shorter targets save.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.config import Config, DataSettings, OptimizerSettings, TrainSettings
from cwjax.data.audio.log_mel import SAMPLES_PER_POSITION, SAMPLING_RATE, log_mel
from cwjax.data.audio.pcm16 import from_pcm16
from cwjax.machine import available_cores
from cwjax.models.attention import Implementation
from cwjax.models.bert import BertConfig
from cwjax.models.context_whisper import ContextWhisperConfig, abstract, init_params
from cwjax.models.lora import LoraSettings, is_pair
from cwjax.models.parameters import cast, flatten, merge, unflatten
from cwjax.models.whisper import WHISPER_SIZES, WhisperConfig
from cwjax.training.cost import count_products
from cwjax.training.groups import split_parameters
from cwjax.training.loss import vocabulary_loss
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import Loss, abstract_state, init_state, make_loss, make_train_step

CONTEXT = 128
FROZEN = {
    "all": ("text_encoder",),
    "decoder-frozen": ("text_encoder", "decoder"),
    "context": ("text_encoder", "audio_encoder", "decoder"),
    "lora": ("text_encoder", "audio_encoder", "decoder"),
}
ALONE = ("context", "lora")
"""What PyTorch's step, which has no context attention, is no match for."""
RANK = 8
"""Of the pairs with `--trained lora`, beside the context attention, which is then trained too."""


def main() -> None:
    """Runs the steps in turn and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--whisper", default="tiny", choices=sorted(WHISPER_SIZES))
    parser.add_argument("--batch", type=int, default=4, help="windows of a step")
    parser.add_argument("--tokens", type=int, default=128, help="target tokens of a window")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--trained", default="all", choices=sorted(FROZEN))
    parser.add_argument("--remat", default="none", choices=("none", "dots", "full"))
    parser.add_argument("--threads", type=int, default=available_cores(), help="of PyTorch on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", help="compare target lengths instead")
    options = parser.parse_args()
    whisper = WHISPER_SIZES[options.whisper]
    if options.lengths:
        print(json.dumps({"settings": vars(options), **_by_length(whisper, options)}, indent=2))
        return
    batch = _batch(whisper, options)
    steps: dict[str, Callable[[], float]] = {}
    operations = {}
    for name in ("stock", "context"):
        if name == "stock" and options.trained in ALONE:
            continue
        steps[name], operations[name] = _ours(name, whisper, batch, options)
    if options.trained not in ALONE:
        steps["PyTorch"] = _pytorch(whisper, batch, options)
        operations["PyTorch"] = operations["stock"]
    losses = {name: step() for name, step in steps.items()}  # and warm-up
    took: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            took[name].append(time.perf_counter() - began)
    reached = {name: _reached(name == "PyTorch", options.dtype) for name in steps}
    window = whisper.max_source_positions * SAMPLES_PER_POSITION / SAMPLING_RATE
    report: dict[str, Any] = {"settings": vars(options), "device": jax.devices()[0].device_kind}
    for name, seconds in took.items():
        pace = options.batch / statistics.median(seconds)
        report[name] = {
            "first_loss": losses[name],
            "seconds": round(statistics.median(seconds), 4),
            "fastest": round(min(seconds), 4),
            "windows_per_second": round(pace, 3),
            "audio_seconds_per_second": round(pace * window, 1),
            "gigaflops_of_products": round(reached[name] / 1e9),
            "mfu": round(operations[name] / statistics.median(seconds) / reached[name], 3),
        }
    report["peak_memory"] = _peak_memory()
    for name in steps.keys() - {"PyTorch"} if "PyTorch" in steps else ():
        ratios = [theirs / ours for theirs, ours in zip(took["PyTorch"], took[name], strict=True)]
        report[f"PyTorch_over_{name}"] = round(statistics.median(ratios), 3)
        report[f"PyTorch_over_{name}_fastest"] = round(min(took["PyTorch"]) / min(took[name]), 3)
    print(json.dumps(report, indent=2))


def _by_length(whisper: WhisperConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step by its target length, medians and fastest, and their shares of the longest's."""
    steps = {}
    for length in sorted(options.lengths):
        settings = argparse.Namespace(**{**vars(options), "tokens": length})
        steps[length] = _ours("stock", whisper, _batch(whisper, settings), settings)[0]
        steps[length]()
    took: dict[int, list[float]] = {length: [] for length in steps}
    for _ in range(options.rounds):
        for length, step in steps.items():
            began = time.perf_counter()
            step()
            took[length].append(time.perf_counter() - began)
    longest = took[max(took)]
    return {
        f"{length} tokens": {
            "seconds": round(statistics.median(seconds), 4),
            "fastest": round(min(seconds), 4),
            "share_of_longest": round(statistics.median(map(float.__truediv__, seconds, longest)), 3),
            "share_of_longest_fastest": round(min(seconds) / min(longest), 3),
        }
        for length, seconds in took.items()
    }


def _batch(whisper: WhisperConfig, options: argparse.Namespace) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shape = options.batch, options.tokens
    return {
        "waveform": random.normal(0, 3000, (options.batch, whisper.max_source_positions * SAMPLES_PER_POSITION)).astype(
            np.int16
        ),
        "tokens": random.integers(0, whisper.vocab_size, shape).astype(np.int32),
        "targets": random.integers(0, whisper.vocab_size, shape).astype(np.int32),
        "is_target": np.ones(shape, bool),
        "context_ids": random.integers(0, 1000, (options.batch, CONTEXT)).astype(np.int32),
        "context_mask": np.ones((options.batch, CONTEXT), bool),
    }


def _ours(
    name: str, whisper: WhisperConfig, batch: dict[str, np.ndarray], options: argparse.Namespace
) -> tuple[Callable[[], float], float]:
    """The step, which gives its loss, and its useful float operations: nothing counts twice that is computed twice."""
    model = ContextWhisperConfig(whisper=whisper, text_encoder=BertConfig())
    config = Config(
        data=DataSettings(max_target_tokens=options.tokens, max_context_tokens=CONTEXT),
        freeze=FROZEN[options.trained] + (("context",) if name == "stock" else ()),
        lora=LoraSettings(RANK if options.trained == "lora" else 0),
        optim=OptimizerSettings(learning_rate=1e-5, warmup_steps=0),
        train=TrainSettings(batch_size=options.batch, compute_dtype=options.dtype, remat=options.remat),
    )
    losses = _stock_loss if name == "stock" else make_loss
    mesh = make_mesh(-1, 1, 1, jax.devices()[:1])
    abstract, abstract_frozen = abstract_state(config, model, mesh)
    step = make_train_step(config, model, mesh, losses(config, model))
    defined = make_train_step(config, model, mesh, losses(config, model, "definition"))
    with jax.set_mesh(mesh):
        pairs = {path: jnp.zeros(leaf.shape) for path, leaf in flatten(abstract.trainable) if is_pair(path)}
        initial = merge(init_params(model, jax.random.key(0)), unflatten(pairs))
        trainable, frozen = split_parameters(initial, config.freeze)
        state = init_state(config, trainable, abstract)
        frozen = cast(frozen, jnp.dtype(options.dtype))
        batch = jax.device_put(batch)
        operations = count_products(defined.trace(abstract, abstract_frozen, batch).jaxpr.jaxpr).operations

    def run() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = step(state, frozen, batch)
        return float(jax.block_until_ready(metrics)["loss"])

    return run, operations


def _stock_loss(config: Config, model: ContextWhisperConfig, attention: Implementation | None = None) -> Loss:
    """The loss of Whisper alone."""
    graphdef, _ = abstract(model, config.train.remat, attention)
    num_mel_bins, dtype = model.whisper.num_mel_bins, jnp.dtype(config.train.compute_dtype)

    def loss(parameters, batch):
        model = nnx.merge(graphdef, cast(parameters, dtype))
        audio = model.encode(log_mel(from_pcm16(batch["waveform"]), num_mel_bins, jnp).astype(dtype))
        stream = model.decoder.states(batch["tokens"], audio)
        embedding = model.decoder.token_embedding.embedding[...]
        return vocabulary_loss(stream, embedding, batch["targets"], batch["is_target"])

    return loss


def _pytorch(whisper: WhisperConfig, batch: dict[str, np.ndarray], options: argparse.Namespace) -> Callable[[], float]:
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {
        name: getattr(whisper, name)
        for name in (
            "vocab_size", "d_model", "num_mel_bins", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim",
            "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim", "max_source_positions",
            "max_target_positions",
        )
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**sizes, use_cache=False, attn_implementation="sdpa")
    model = transformers.WhisperForConditionalGeneration(config).to(device).train()
    for parameter in model.model.decoder.parameters() if options.trained == "decoder-frozen" else ():
        parameter.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True)
    features = np.swapaxes(log_mel(from_pcm16(batch["waveform"]), whisper.num_mel_bins, np), 1, 2)
    features = torch.tensor(np.ascontiguousarray(features), device=device)
    tokens, targets = (torch.tensor(batch[name], device=device).long() for name in ("tokens", "targets"))

    def run() -> float:
        with torch.autocast(device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            logits = model(input_features=features, decoder_input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def _reached(by_torch: bool, dtype: str) -> float:
    """Float operations per second of a large matrix product, the best of ten."""
    size = 8192 if jax.default_backend() != "cpu" else 2048
    if by_torch:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        matrix = torch.ones((size, size), dtype=getattr(torch, dtype), device=device)

        def multiply() -> None:
            (matrix @ matrix)[0, 0].item()
    else:
        matrix = jnp.ones((size, size), dtype)
        product = jax.jit(lambda left, right: left @ right)

        def multiply() -> None:
            product(matrix, matrix).block_until_ready()

    best = float("inf")
    for _ in range(11):  # the first compiles
        began = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _peak_memory() -> dict[str, int]:
    """Bytes at most in use on a GPU, of each framework; a CPU does not say."""
    statistics_ = jax.devices()[0].memory_stats() or {}
    found = {"jax": statistics_.get("peak_bytes_in_use", 0)}
    try:
        import torch

        found["torch"] = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    except ImportError:
        pass
    return {name: size for name, size in found.items() if size}


if __name__ == "__main__":
    main()
