"""The same weights in openai-whisper, the reference for decoding."""

from pathlib import Path

import numpy as np
from test_whisper_tokens import multilingual_whisper
from tiny import write_bert

from cwjax.data.processor import Processor, read_context_tokenizer
from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.parameters import Parameters, flatten
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.configuration_file import read_config
from cwjax.weights.name_table import extract
from cwjax.weights.text_encoder_checkpoints import bert_config
from cwjax.weights.whisper_checkpoints import OPENAI_TABLE, openai_dimensions


def openai_model(config: WhisperConfig, parameters: Parameters):
    """openai-whisper's model with our parameters; context attention, which it has not, is left out."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    ours = dict(flatten({name: parameters[name] for name in ("audio_encoder", "decoder")}))
    named = extract({path: np.asarray(leaf, np.float32) for path, leaf in ours.items()}, OPENAI_TABLE)
    model = Whisper(ModelDimensions(**openai_dimensions(config)))
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(tensor)) for name, tensor in named})
    return model.eval()


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
