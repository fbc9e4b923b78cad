"""Tiny stand-ins that tests share: a BERT on disk, a corpus, a configuration."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WORDS = (
    "the", "a", "of", "in", "on", "and", "to", "is", "was", "bear", "bare", "sail", "sale",
    "sea", "price", "market", "wind", "water", "forest", "animal", "word", "they",
)  # fmt: skip


def write_bert(directory: Path, hidden_size: int = 16, layers: int = 1, seed: int = 0, spread: float = 0.3) -> Path:
    """A random BERT in Hugging Face's layout, with a WordPiece tokenizer of whole words and letters.

    `spread` is the weights' standard deviation: wide for comparisons of arithmetic, narrow to be trained.
    """
    directory.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *("##" + one for one in letters), "."]
    vocabulary = list(dict.fromkeys(vocabulary))
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    config = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    (directory / "config.json").write_text(json.dumps(config))
    generator = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}

    def matrix(name: str, *shape: int) -> None:
        tensors[name] = generator.normal(0, spread, shape).astype(np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = np.ones(hidden_size, np.float32)
        tensors[f"{name}.bias"] = np.zeros(hidden_size, np.float32)

    matrix("embeddings.word_embeddings.weight", len(vocabulary), hidden_size)
    matrix("embeddings.position_embeddings.weight", 64, hidden_size)
    matrix("embeddings.token_type_embeddings.weight", 2, hidden_size)
    norm("embeddings.LayerNorm")
    for layer in range(layers):
        head = f"encoder.layer.{layer}"
        for name, (out, into) in {
            "attention.self.query": (hidden_size, hidden_size),
            "attention.self.key": (hidden_size, hidden_size),
            "attention.self.value": (hidden_size, hidden_size),
            "attention.output.dense": (hidden_size, hidden_size),
            "intermediate.dense": (2 * hidden_size, hidden_size),
            "output.dense": (hidden_size, 2 * hidden_size),
        }.items():
            matrix(f"{head}.{name}.weight", out, into)
            matrix(f"{head}.{name}.bias", out)
        norm(f"{head}.attention.output.LayerNorm")
        norm(f"{head}.output.LayerNorm")
    save_file(tensors, directory / "model.safetensors")
    return directory
