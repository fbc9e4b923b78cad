"""The same weights in openai-whisper and in transformers, the references for decoding."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
from test_whisper_tokens import multilingual_whisper
from tiny import write_bert

from cwjax.data.processor import Processor, read_context_tokenizer
from cwjax.models.context_whisper import ContextWhisperConfig, init_params
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.hugging_face import WHISPER_TABLE, bert_config, read_config

SMALL = WhisperConfig(
    d_model=64,
    encoder_layers=2,
    encoder_attention_heads=4,
    encoder_ffn_dim=256,
    decoder_layers=2,
    decoder_attention_heads=4,
    decoder_ffn_dim=256,
)
"""With Whisper's windows of 30 s and its multilingual vocabulary."""

NAMES = {
    "audio_encoder/positions": "encoder.positional_embedding",
    "decoder/positions": "decoder.positional_embedding",
    "decoder/token_embedding/embedding": "decoder.token_embedding.weight",
}
PARTS = {
    "audio_encoder": "encoder",
    "mlp/up": "mlp.0",
    "mlp/down": "mlp.2",
    "kernel": "weight",
    "scale": "weight",
}


def openai_model(config: WhisperConfig, parameters: Parameters):
    """openai-whisper's model with our parameters; context attention, which it has not, is left out."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    tensors = {}
    for path, leaf in flatten({name: parameters[name] for name in ("audio_encoder", "decoder")}):
        leaf = np.asarray(leaf, np.float32)
        if "/context_" in path:
            continue
        if "/blocks/" in path:
            for layer, part in enumerate(leaf):
                tensors[_name(path.replace("/blocks/", f"/blocks/{layer}/"))] = _transposed(path, part)
        else:
            tensors[_name(path)] = _transposed(path, leaf)
    model = Whisper(
        ModelDimensions(
            config.num_mel_bins,
            config.max_source_positions,
            config.d_model,
            config.encoder_attention_heads,
            config.encoder_layers,
            config.vocab_size,
            config.max_target_positions,
            config.d_model,
            config.decoder_attention_heads,
            config.decoder_layers,
        )
    )
    missing, unexpected = model.load_state_dict(
        {name: torch.tensor(np.ascontiguousarray(tensor)) for name, tensor in tensors.items()}, strict=False
    )
    assert not unexpected
    assert not missing
    return model.eval()


def transformers_model(config: WhisperConfig, parameters: Parameters):
    """transformers' model with our parameters; context attention is left out."""
    import torch
    from transformers import WhisperConfig as TransformersConfig
    from transformers import WhisperForConditionalGeneration

    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flatten(parameters)}
    tensors = {}
    for theirs, (ours, parts) in WHISPER_TABLE.items():
        for part in parts:
            leaf = leaves[f"{ours}/{part.ours}".rstrip("/")]
            layers = list(enumerate(leaf)) if "#" in theirs else [(0, leaf)]
            for layer, array in layers:
                if part.axes:
                    array = array.transpose(np.argsort(part.axes))
                tensors[f"model.{theirs.replace('#', str(layer))}.{part.theirs}"] = torch.tensor(array.copy())
    model = WhisperForConditionalGeneration(TransformersConfig(**dataclasses.asdict(config)))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["proj_out.weight"]  # it is the token embedding
    assert not unexpected
    return model.eval()


def wide_parameters(config: ContextWhisperConfig, seed: int = 0, scale: float = 0.2) -> Parameters:
    """Parameters drawn so wide that every part matters, the gates open."""
    random = np.random.default_rng(seed)

    def widen(path: str, leaf: np.ndarray) -> np.ndarray:
        if path.endswith("audio_encoder/positions"):
            return leaf
        if path.endswith("context_gate"):
            return np.full_like(leaf, 0.5)
        return (random.normal(size=leaf.shape) * scale + path.endswith("scale")).astype(np.float32)

    leaves = jax.device_get(init_params(config, jax.random.key(0)))
    return unflatten({path: widen(path, leaf) for path, leaf in flatten(leaves)})


def _name(path: str) -> str:
    if path in NAMES:
        return NAMES[path]
    for ours, theirs in PARTS.items():
        path = re.sub(rf"(^|/){ours}($|/)", rf"\1{theirs}\2", path)
    return path.replace("/", ".")


def _transposed(path: str, leaf: np.ndarray) -> np.ndarray:
    return leaf.transpose() if path.endswith("kernel") else leaf


def real_vocabulary(directory: Path, sizes: WhisperConfig) -> tuple[ContextWhisperConfig, Processor]:
    """A configuration of these sizes with a tiny BERT, and a processor with the multilingual vocabulary."""
    bert = write_bert(directory / "bert")
    processor = Processor(
        tokens=multilingual_whisper(directory / "tokenizer"),
        context_tokenizer=read_context_tokenizer(bert),
        num_mel_bins=sizes.num_mel_bins,
        window_samples=sizes.max_source_positions * 320,
    )
    return ContextWhisperConfig(whisper=sizes, text_encoder=bert_config(read_config(bert))), processor
