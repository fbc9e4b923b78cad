"""One sample, only the text encoder trained: the loss must go to zero through the context attention alone.

Starts from the Whisper of configs/demo.py, which hears the sample well but cannot know which of two words that sound
the same is meant. Its new context attention is random, with open gates; all but the text encoder stays bit-identical.
"""

from dataclasses import replace
from pathlib import Path

from cwjax.config import Config, load_config
from cwjax.models.whisper import ContextAttentionConfig

overfit = load_config(Path(__file__).with_name("overfit.py"))

config = Config(
    model=replace(overfit.model, whisper="runs/demo/model", context_attention=ContextAttentionConfig(gate_init=2.0)),
    data=overfit.data,
    freeze=("audio_encoder", "decoder", "context"),
    optim=overfit.optim,
    train=overfit.train,
    evaluation=overfit.evaluation,
)
