"""Whisper tiny and BERT base learn the Spoken Wikipedia's contexts; only the context attention is trained.

Both come from the hub. Without a network: --model.whisper DIR --model.text-encoder DIR.
"""

from cwjax.config import Config, DataSettings, ModelSettings, OptimizerSettings, TrainSettings

config = Config(
    model=ModelSettings(whisper="openai/whisper-tiny", text_encoder="google-bert/bert-base-uncased"),
    data=DataSettings(root="data/swc"),
    freeze=("text_encoder", "audio_encoder", "decoder"),
    optim=OptimizerSettings(learning_rate=1e-3, warmup_steps=500, weight_decay=0.01),
    train=TrainSettings(steps=10_000, batch_size=32, compute_dtype="bfloat16", validate_every=1000),
)
