"""One sample, everything but the text encoder trained: the loss must go to zero, or something is broken."""

from dataclasses import replace
from pathlib import Path

from cwjax.config import Config, EvaluationSettings, OptimizerSettings, TrainSettings, load_config
from cwjax.data.examples.context import ContextProbabilities
from cwjax.demo.corpus import DemoCorpusSettings

demo = load_config(Path(__file__).with_name("demo.py"))

config = Config(
    model=replace(demo.model, tokenizer_size=512),
    data=replace(
        demo.data,
        root="data/overfit",
        demo=DemoCorpusSettings(pairs=1, train_articles=1, test_articles=1, headings_read=0),
        examples=1,
        speed=(1.0, 1.0),
        context=ContextProbabilities(title=0, section=1, lead=0, none=0, wrong=0),
    ),
    freeze=("text_encoder",),
    optim=OptimizerSettings(learning_rate=1e-3, warmup_steps=10, schedule="constant"),
    train=TrainSettings(steps=200, batch_size=1, checkpoint_every=100, log_every=20),
    evaluation=EvaluationSettings(split="train", examples=1, batch_size=1),
)
