"""One sample, only the text encoder trained: it must learn to say the transcript through the context attention.

Whisper is random and frozen, so everything that is learned reaches it through the gates, which start open.
"""

from dataclasses import replace
from pathlib import Path

from cwjax.config import Config, load_config
from cwjax.models.whisper import ContextAttentionConfig

overfit = load_config(Path(__file__).with_name("overfit.py"))

config = Config(
    model=replace(
        overfit.model,
        # A frozen random decoder can only say something definite if its embeddings are far apart.
        whisper_size=replace(overfit.model.whisper_size, init_std=0.3),
        context_attention=ContextAttentionConfig(gate_init=2.0),
    ),
    data=overfit.data,
    freeze=("audio_encoder", "decoder", "context"),
    optim=replace(overfit.optim, learning_rate=1e-3),
    train=replace(overfit.train, steps=350),
    evaluation=overfit.evaluation,
)
