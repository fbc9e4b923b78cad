"""One sample, only the text encoder trained: the loss must fall through the context attention alone.

Whisper is random and frozen, so all that is learned reaches it through the gates, which start open. How far the loss
falls is decided by that random Whisper; everything but the text encoder is bit-identical afterwards.
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
    train=overfit.train,
    evaluation=overfit.evaluation,
)
