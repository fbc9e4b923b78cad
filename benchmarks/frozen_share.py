"""What training the context attention alone saves against training everything: memory of the trained, and operations.

    python benchmarks/frozen_share.py [--whisper openai/whisper-large-v3] [--text-encoder google/flan-t5-large]

Counted in the program of the training step; nothing is loaded, compiled or run.
"""

import argparse
from pathlib import Path

import jax

from cwjax.config import load_config
from cwjax.training.cost import count_products
from cwjax.training.plan import planned_sizes
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import abstract_state, trace_step

CONFIG = Path(__file__).parents[1] / "configs/whisper_small_flan_t5.py"


def main() -> None:
    """Counts three ways of freezing and prints their shares of the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--whisper", default="openai/whisper-large-v3")
    parser.add_argument("--text-encoder", default="google/flan-t5-large")
    options = parser.parse_args()
    ways = {
        "everything": (),
        "all but the text encoder": ("text_encoder",),
        "context attention alone": ("text_encoder", "audio_encoder", "decoder"),
    }
    counted = {name: _count(options, freeze) for name, freeze in ways.items()}
    whole_bytes, whole_operations = counted["everything"]
    for name, (size, operations) in counted.items():
        print(
            f"{name:26} trained and optimizer {size / 2**30:6.2f} GiB ({size / whole_bytes:6.1%}), "
            f"{operations / 1e12:6.2f} TFLOP a window ({operations / whole_operations:6.1%})"
        )


def _count(options: argparse.Namespace, freeze: tuple[str, ...]) -> tuple[int, float]:
    """Bytes of trained parameters and optimizer state, and operations of a step on one window."""
    parts = ["--model.whisper", options.whisper, "--model.text-encoder", options.text_encoder]
    config = load_config(CONFIG, [*parts, "--train.batch-size", "1", "--freeze", *freeze])
    model, mesh = planned_sizes(config), make_mesh(-1, 1, 1)
    state, _ = abstract_state(config, model, mesh)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return size, count_products(trace_step(config, model, mesh).jaxpr.jaxpr).operations


if __name__ == "__main__":
    main()
