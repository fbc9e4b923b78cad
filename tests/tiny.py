"""What tests share: a tiny BERT on disk, words, trees of parameters from checkpoints."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from cwjax.models.bert import BertConfig
from cwjax.models.parameters import Parameters
from cwjax.models.t5 import T5Config
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.name_table import as_tree
from cwjax.weights.tensors import open_tensors, tensors_in_memory
from cwjax.weights.text_encoder_checkpoints import bert_parameters, t5_parameters
from cwjax.weights.whisper_checkpoints import whisper_from_hugging_face

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


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint."""
    tensors = open_tensors(directory)
    return {name: tensors.read(name) for name in tensors.shapes}


def whisper_params(tensors: dict[str, np.ndarray], config: WhisperConfig) -> Parameters:
    """A Whisper of Hugging Face's tensors as our tree, float32."""
    return as_tree(whisper_from_hugging_face(tensors_in_memory(tensors), config))


def bert_params(tensors: dict[str, np.ndarray], config: BertConfig) -> Parameters:
    """The same for a BERT."""
    return as_tree(bert_parameters(tensors_in_memory(tensors), config))


def t5_params(tensors: dict[str, np.ndarray], config: T5Config) -> Parameters:
    """The same for a T5."""
    return as_tree(t5_parameters(tensors_in_memory(tensors), config))
