"""Whisper small and the encoder of Flan-T5 base learn the Spoken Wikipedia's contexts; the decoder is trained too.

Both come from the hub. Without a network: --model.whisper DIR --model.text-encoder DIR.
"""

from cwjax.config import Config, DataSettings, ModelSettings, OptimizerSettings, TrainSettings

config = Config(
    model=ModelSettings(whisper="openai/whisper-small", text_encoder="google/flan-t5-base"),
    # Half of the targets with timestamps, as Whisper learned them, so that the decoder does not forget them.
    data=DataSettings(root="data/swc", timestamps=0.5),
    freeze=("text_encoder", "audio_encoder", "embeddings"),
    optim=OptimizerSettings(
        learning_rate=1e-5, group_learning_rates={"context": 1e-3}, warmup_steps=500, weight_decay=0.01
    ),
    train=TrainSettings(steps=20_000, batch_size=64, compute_dtype="bfloat16", validate_every=2000),
)
