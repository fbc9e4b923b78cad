"""Whole runs of a tiny experiment, which tests start, stop and compare."""

import subprocess
import time
from pathlib import Path

from tiny import write_bert

from cwjax.cli import main
from cwjax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]

CONFIG = """
from cwjax.config import *
from cwjax.data.demo_corpus import DemoCorpusSettings
from cwjax.models.whisper import WhisperConfig

config = Config(
    model=ModelSettings(
        whisper_size=WhisperConfig(
            d_model=32, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=1,
            decoder_attention_heads=2, decoder_ffn_dim=64, max_source_positions=120, max_target_positions=48,
        ),
        tokenizer_size=300,
        text_encoder={bert!r},
    ),
    data=DataSettings(
        corpus="demo", root={root!r}, demo=DemoCorpusSettings({demo}), max_target_tokens=44, max_context_tokens=16,
    ),
    freeze=("text_encoder",),
    optim=OptimizerSettings({optim}),
    train=TrainSettings(steps={steps}, batch_size=4, checkpoint_every=7, log_every=1),
    evaluation=EvaluationSettings(at_end=False),
)
"""

TINY_CORPUS = "pairs=2, train_articles=1, test_articles=1, sentences=(3, 3)"


def write_config(directory: Path, steps: int, optim: str = "learning_rate=1e-3, warmup_steps=5") -> Path:
    """A configuration whose corpus, once written, all runs share; also a BERT for it."""
    bert = write_bert(directory / "bert")
    path = directory / "tiny.py"
    path.write_text(
        CONFIG.format(bert=str(bert), root=str(directory / "corpus"), demo=TINY_CORPUS, steps=steps, optim=optim)
    )
    return path


def run(config: Path, workdir: Path, *overrides: str) -> int:
    """A run in this process; its exit status."""
    return main(["train", "--config", str(config), "--workdir", str(workdir), *overrides])


def losses(workdir: Path) -> dict[int, float]:
    """The loss of every step so far."""
    return {row["step"]: row["loss"] for row in read_metrics(workdir)}


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Waits until the run has come so far or ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if max(losses(workdir), default=0) >= step:
            return
        time.sleep(0.002)
