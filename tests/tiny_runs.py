"""Whole runs of a tiny experiment, which tests start, stop and compare."""

import os
import subprocess
import sys
from pathlib import Path

from patience import end_when_hung
from tiny import write_bert

from cwjax.cli import main
from cwjax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
CHILD = Path(__file__).with_name("child.py")

CONFIG = """
from cwjax.config import *
from cwjax.demo.corpus import DemoCorpusSettings
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
        {data}
    ),
    freeze=("text_encoder",),
    optim=OptimizerSettings({optim}),
    train=TrainSettings(steps={steps}, batch_size=4, checkpoint_every=7, log_every=1),
    evaluation=EvaluationSettings(at_end=False),
)
"""

PAUSING = """
import os, sys

from cwjax.data.examples.processor import Processor
from cwjax.evaluation.evaluator import Evaluator
from cwjax.training.metrics import MetricsWriter


def pause():
    print("paused", flush=True)
    if awaited := sys.stdin.readline().split():
        from jax._src.distributed import global_state

        global_state.client.blocking_key_value_get(awaited[0], int(awaited[1]))


def write_and_pause(writer, row):
    write(writer, row)
    if row["step"] == int(os.environ["PAUSE_AFTER"]):
        pause()


def transcribe_and_pause(*arguments):
    heard = transcribe(*arguments)
    pause()
    return heard


def save_and_pause(processor, directory):
    save(processor, directory)
    pause()


write, transcribe, save = MetricsWriter.write, Evaluator._heard, Processor.save
if os.environ.get("PAUSE_AFTER") == "export":
    Processor.save = save_and_pause
elif os.environ.get("PAUSE_AFTER") == "validation":
    Evaluator._heard = transcribe_and_pause
elif "PAUSE_AFTER" in os.environ:
    MetricsWriter.write = write_and_pause
"""
"""A run of such a configuration can be told by the environment to wait when it has noted a step, in a validation, or in
the middle of writing a model. It goes on when its standard input is closed, or when the processes know a key of which
it is told there, with milliseconds to wait."""

SHORTER = "previous_text=0.5, target_lengths=(24, 34),"
"""Targets of three lengths, half of which have text before them."""
TINY_CORPUS = "pairs=2, train_articles=1, test_articles=1, sentences=(3, 3)"


def write_config(
    directory: Path, steps: int, optim: str = "learning_rate=1e-3, warmup_steps=5", data: str = ""
) -> Path:
    """A configuration whose corpus, once written, all runs share; also a BERT for it."""
    bert = write_bert(directory / "bert")
    path = directory / "tiny.py"
    places = {"bert": str(bert), "root": str(directory / "corpus")}
    text = CONFIG.format(**places, demo=TINY_CORPUS, steps=steps, optim=optim, data=data)
    path.write_text(text + PAUSING)
    return path


def run(config: Path, workdir: Path, *overrides: str) -> int:
    """A run in this process; its exit status."""
    return main(["train", "--config", str(config), "--workdir", str(workdir), *overrides])


def losses(workdir: Path) -> dict[int, float]:
    """The loss of every step so far."""
    return {row["step"]: row["loss"] for row in read_metrics(workdir) if "loss" in row}


def start(config: Path, workdir: Path, *options: str, pause_after: int | str | None = None) -> subprocess.Popen:
    """A run in a process of its own. If told so, it waits after noting a step, in a "validation" or in an "export",
    until its standard input is closed, as `communicate` does."""
    command = [sys.executable, str(CHILD), "train", "--config", str(config), "--workdir", str(workdir), *options]
    pausing = {} if pause_after is None else {"PAUSE_AFTER": str(pause_after)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | pausing,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_paused(process: subprocess.Popen) -> None:
    """Waits until the run waits."""
    hung = end_when_hung(process)
    paused = any(line == "paused\n" for line in process.stdout)
    hung.cancel()
    assert paused, f"the run ended before it was to pause: {process.communicate()[1]}"
