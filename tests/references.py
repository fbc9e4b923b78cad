"""The same weights in openai-whisper and in transformers, the references for decoding."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from test_whisper_tokens import TEXTS, multilingual_whisper
from tiny import write_bert

from cwjax.data.examples.processor import Processor
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.examples.whisper_tokens import train_tokenizer
from cwjax.models.audio_encoder import sinusoids
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.configuration_file import read_config
from cwjax.weights.model_directory import save_model
from cwjax.weights.name_table import extract
from cwjax.weights.text_encoder_checkpoints import bert_config
from cwjax.weights.whisper_checkpoints import HUGGING_FACE_TABLE, OPENAI_TABLE, openai_dimensions

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


def openai_model(config: WhisperConfig, parameters: Parameters):
    """openai-whisper's model with our parameters; context attention, which it has not, is left out."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    ours = dict(flatten({name: parameters[name] for name in ("audio_encoder", "decoder")}))
    named = extract({path: np.asarray(leaf, np.float32) for path, leaf in ours.items()}, OPENAI_TABLE)
    model = Whisper(ModelDimensions(**openai_dimensions(config)))
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(tensor)) for name, tensor in named})
    return model.eval()


def transformers_model(config: WhisperConfig, parameters: Parameters):
    """transformers' model with our parameters; context attention is left out."""
    import torch
    from transformers import WhisperConfig as TransformersConfig
    from transformers import WhisperForConditionalGeneration

    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flatten(parameters)}
    named = extract(leaves, HUGGING_FACE_TABLE)
    tensors = {f"model.{name}": torch.tensor(array.copy()) for name, array in named}
    padding = min(50256, config.vocab_size - 1)  # transformers' own is beyond small vocabularies
    model = WhisperForConditionalGeneration(TransformersConfig(**dataclasses.asdict(config), pad_token_id=padding))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["proj_out.weight"]  # it is the token embedding
    assert not unexpected
    return model.eval()


def wide_parameters(config: ContextWhisperConfig, seed: int = 0, scale: float = 0.2, gates: float = 0.5) -> Parameters:
    """Parameters drawn so wide that every part matters; the gates are open unless told otherwise."""
    random = np.random.default_rng(seed)

    def widen(path: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path.endswith("audio_encoder/positions"):
            return sinusoids(*leaf.shape)
        if path.endswith("context_gate"):
            return np.full(leaf.shape, gates, np.float32)
        return (random.normal(size=leaf.shape) * scale + path.endswith("scale")).astype(np.float32)

    return unflatten({path: widen(path, leaf) for path, leaf in flatten(abstract(config)[1])})


def real_vocabulary(directory: Path, sizes: WhisperConfig) -> tuple[ContextWhisperConfig, Processor]:
    """A configuration of these sizes with a tiny BERT, and a processor with the multilingual vocabulary."""
    bert = write_bert(directory / "bert")
    processor = Processor(
        tokens=multilingual_whisper(directory / "tokenizer"),
        context_tokenizer=TextTokenizer.read(bert),
        num_mel_bins=sizes.num_mel_bins,
        window_samples=sizes.max_source_positions * 320,
    )
    return ContextWhisperConfig(whisper=sizes, text_encoder=bert_config(read_config(bert))), processor


def write_smallest_model(directory: Path, scratch: Path) -> None:
    """Writes a model directory of a few kilobytes, which hears 1.2 seconds at a time and was never trained."""
    tokens, bert = train_tokenizer(TEXTS, 280, scratch / "tokenizer"), write_bert(scratch / "bert")
    widths = {"d_model": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 2}
    whisper = WhisperConfig(len(tokens), **widths, **heads, max_source_positions=60, max_target_positions=40)
    config = ContextWhisperConfig(whisper, bert_config(read_config(bert)))
    processor = Processor(tokens, TextTokenizer.read(bert), 80, 60 * 320)
    save_model(directory, config, flatten(wide_parameters(config)), processor, {})
