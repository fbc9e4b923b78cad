"""Whole runs from the command line: killed, damaged, refused, and the experiments of the original project."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE
from safetensors.numpy import load_file
from tiny import write_bert
from tiny_runs import SHORTER, losses, run, start, wait_until_paused, write_config

import cwjax
from cwjax.cli import main
from cwjax.data.examples.context import describe
from cwjax.data.examples.whisper_tokens import train_tokenizer
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.models.t5 import T5Config
from cwjax.weights.model_directory import read_training_facts

pytest.importorskip("espeakng_loader", reason="the demo's speech needs the extra 'demo'")

pytestmark = pytest.mark.usefixtures("quick_compilation")

STEPS = 60


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose corpus, once written, all tests of this file share."""
    directory = tmp_path_factory.mktemp("runs")
    return write_config(directory, STEPS, data=SHORTER)


@pytest.fixture(scope="module")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a profile, which changes nothing: runs without one end with the same numbers."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run(config, workdir, "--profile") == 0
    return workdir


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert losses(ours) == losses(theirs)
    assert sorted(losses(ours)) == list(range(1, STEPS + 1))
    left, right = (load_file(run / "model" / "model.safetensors") for run in (ours, theirs))
    assert left.keys() == right.keys()
    for path in left:
        np.testing.assert_array_equal(left[path], right[path], err_msg=path)


def test_killed_and_stopped_the_run_ends_as_if_it_never_was(config: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """With more checkpoints, by steps and by time, and with models written in between, in one of which it is killed."""
    often = ["--train.keep-every", "20", "--train.checkpoint-minutes", "0.02", "--train.export-every", "30"]
    workdir, seeded = tmp_path / "run", random.Random(0)
    reached = 0
    for number, pause in (
        (signal.SIGKILL, seeded.randint(4, 14)),
        (signal.SIGTERM, seeded.randint(15, 25)),
        (signal.SIGKILL, "export"),
    ):
        process = start(config, workdir, *often, pause_after=pause)
        wait_until_paused(process)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
        assert ("this will take about" in said) == (reached == 0), said
        reached = max(losses(workdir))
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
        else:
            assert process.returncode == 0, said
            assert "run the same command to continue" in said
            assert (workdir / "checkpoints" / str(reached)).exists()
    assert [path.name for path in (workdir / "exports").iterdir()] == [".step-30.cwjax-partial"]
    assert run(config, workdir, *often) == 0
    assert_same_run(workdir, uninterrupted)
    assert sorted(path.name for path in (workdir / "exports").iterdir()) == ["step-30", "step-60"]
    ours, last = (load_file(path / "model.safetensors") for path in (workdir / "exports/step-60", workdir / "model"))
    assert all(np.array_equal(ours[path], last[path]) for path in last.keys() | ours.keys())
    assert cwjax.load(workdir / "exports/step-30").source.facts()["steps"] == 30
    saved = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert {20, 40, 60} < set(saved)
    assert len(saved) == 5, "and the latest two of the others"


def test_a_checkpoint_cut_short_gives_way_to_the_one_before(
    config: Path, uninterrupted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    shutil.rmtree(workdir / "model")
    latest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    largest = max((path for path in latest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    assert run(config, workdir) == 0
    error = capfd.readouterr().err
    assert f"{latest}: damaged" in error
    assert "Traceback" not in error
    assert_same_run(workdir, uninterrupted)


def test_without_any_whole_checkpoint_nothing_is_overwritten(
    config: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        for file in checkpoint.rglob("*"):
            if file.is_file() and file.parent.name == "d":
                os.truncate(file, 3)
    assert run(config, workdir) == 1
    assert "none of the checkpoints" in capsys.readouterr().err
    assert len(list((workdir / "damaged").iterdir())) == 2


def test_a_workdir_of_another_configuration_is_refused(
    config: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (uninterrupted / "config.json").read_text()
    assert run(config, uninterrupted, "--optim.learning-rate", "0.5") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "optim.learning_rate: 0.001 -> 0.5" in error
    assert str(uninterrupted) in error
    assert (uninterrupted / "config.json").read_text() == before


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explosive = ["--optim.learning-rate", "1e38", "--optim.warmup-steps", "0", "--train.checkpoint-every", "1"]
    assert run(config, tmp_path / "run", *explosive) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "training has diverged" in error
    stopped = int(error.split("step ")[1].split(":")[0])
    saved = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(saved) < stopped


def test_only_the_text_encoder_behind_closed_gates_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, tmp_path / "run", "--freeze", "audio_encoder", "decoder", "context") == 1
    assert "closed gates" in capsys.readouterr().err


def test_a_profile_is_written(uninterrupted: Path) -> None:
    assert [path.stat().st_size > 0 for path in uninterrupted.glob("profile/plugins/profile/*/*.xplane.pb")] == [True]


def test_evaluation_writes_its_report(config: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert read_training_facts(uninterrupted / "model")["timestamps"] is False, "new, and trained without them"
    prepared = config.parent / "corpus-prepared"
    arguments = ["--model", uninterrupted / "model", "--data", prepared, "--output", tmp_path, "--batch-size", 8]
    assert main(["evaluate", *map(str, arguments)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    for condition in ("right", "none", "wrong"):
        assert set(report["homophones"][condition]) >= {"share", "low", "high", "count"}
        assert report["wer"][condition] >= 0
        assert condition in report["wer_elsewhere"]
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_evaluation_under_a_ladder_of_contexts(
    config: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = config.parent / "corpus-prepared"
    arguments = ["--model", uninterrupted / "model", "--data", prepared, "--output", tmp_path, "--examples", 2]
    names = ["none", "title", "title:prompt", "title:context+hotwords", "phrases:5"]
    command = ["evaluate", *map(str, arguments), "--seen", str(prepared), "--word-timestamps", "--conditions"]
    assert main([*command, *names[:2]]) == 0
    earlier = (tmp_path / "hypotheses.jsonl").read_text().splitlines()
    assert main([*command, *names, "--resume"]) == 0
    assert "4 lines are there already" in (said := capsys.readouterr().err)
    assert "phrases:5: left out for all 2 items: the model has no phrase spotter" in said
    lines = (tmp_path / "hypotheses.jsonl").read_text().splitlines()
    assert set(earlier) <= set(lines)
    corpus = PreparedCorpus.read(prepared)
    model = cwjax.load(uninterrupted / "model")
    options = cwjax.DecodingOptions(language="en", word_timestamps=True)
    for line in map(json.loads, lines):
        (position,) = (place for place, one in enumerate(corpus.segments) if one.id == line["id"])
        title = describe(corpus.segments[position], "title")
        told = {
            "none": {},
            "title": {"context": title},
            "title:prompt": {"initial_prompt": title, "carry_initial_prompt": True},
            "title:context+hotwords": {"context": title, "hotwords": title},
        }.get(line["condition"])
        if told is not None:
            transcript = model.transcribe(corpus.audio(position), options=options, **told)
            assert line["hypothesis"] == transcript.text.strip()
            assert [word["word"] for word in line.get("words", ())] == [
                word.text for segment in transcript.segments for word in segment.words
            ]
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["wer"]) == set(report["conditions"]["runs"]) == set(names[:-1])
    assert "WER of seen words" in report["conditions"]["runs"]["none"]["rates"]
    assert "Compared with none" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "nowhere", "--data", "PREPARED"], "nowhere: no such directory or file"),
        (["--model", "MODEL", "--data", "nowhere"], "is nowhere a prepared corpus?"),
        (["--model", "MODEL", "--data", "PREPARED", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["--model", "MODEL"], "--data is missing"),
        (["--model", "MODEL", "--data", "PREPARED", "--seen", "nowhere"], "is nowhere a prepared corpus?"),
        (
            ["--model", "MODEL", "--data", "PREPARED", "--conditions", "loud"],
            "no condition is called 'loud': use none, right",
        ),
        (["--model", "MODEL", "--data", "PREPARED", "--output", "PREPARED"], "is what --data names"),
        (["--model", "MODEL", "--data", "PREPARED", "--output", "MODEL"], "is what --model names"),
        (["--model", "MODEL", "--data", "PREPARED", "--conditions", "phrases:5"], "phrases:5 can be served"),
    ],
)
def test_evaluation_names_what_is_wrong(
    config: Path, uninterrupted: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"MODEL": uninterrupted / "model", "PREPARED": config.parent / "corpus-prepared"}
    assert main(["evaluate", *(str(places.get(one, one)) for one in arguments)]) == 1
    assert complaint in capsys.readouterr().err


def test_an_experiment_has_conditions_of_its_own(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--train.steps", "3", "--evaluation.at-end", "--evaluation.examples", "2", "--evaluation.conditions"]
    assert run(config, tmp_path / "run", *told, "right", "loud") == 1
    assert "no condition is called 'loud'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "it is refused before the work"
    assert run(config, tmp_path / "run", *told, "right", "none", "wrong", "title:prompt") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    scores = read_training_facts(tmp_path / "run" / "model")["scores"]["word error rate, test split"]
    assert scores == report["wer"]
    assert scores.keys() == {"right", "none", "wrong", "title:prompt"}


def test_training_starts_from_anybodys_weights(config: Path, tmp_path: Path) -> None:
    """A Whisper and a T5 that transformers wrote, as they are and joined by conversion: the same first loss."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokens = train_tokenizer(["the sail in the wind"], 270, tmp_path / "whisper")
    settings = transformers.WhisperConfig(
        vocab_size=len(tokens), d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=100,
        max_target_positions=90, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    transformers.WhisperForConditionalGeneration(settings).save_pretrained(tmp_path / "whisper")
    bert = write_bert(tmp_path / "bert")
    vocabulary = len((bert / "vocab.txt").read_text().splitlines())
    sizes = transformers.T5Config(vocab_size=vocabulary, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformers.T5EncoderModel(sizes).save_pretrained(tmp_path / "t5")
    for file in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(bert / file, tmp_path / "t5" / file)

    sources = ["--model.whisper", str(tmp_path / "whisper"), "--model.text-encoder", str(tmp_path / "t5")]
    # Windows of 2 s instead of 2.4 s: the corpus is prepared anew.
    common = ["--data.prepared", str(tmp_path / "prepared"), "--train.steps", "2", "--data.max-target-tokens", "90"]
    assert run(config, tmp_path / "parts", *sources, *common) == 0
    pair = [one.replace("--model.", "--") for one in sources]
    assert main(["convert", *pair, "--output", str(tmp_path / "joined")]) == 0
    assert run(config, tmp_path / "whole", "--model.start", str(tmp_path / "joined"), *common) == 0
    assert losses(tmp_path / "whole")[1] == losses(tmp_path / "parts")[1]
    trained = cwjax.load(tmp_path / "whole/model")
    assert read_training_facts(tmp_path / "whole/model")["timestamps"], "a pretrained Whisper knows them"
    assert isinstance(trained.config.text_encoder, T5Config)
    # Going on from a trained model, its opened gates included.
    assert np.abs(trained.params["audio_encoder"]["blocks"]["context_gate"]).min() > 0
    assert run(config, tmp_path / "more", "--model.start", str(tmp_path / "whole/model"), *common) == 0
    assert losses(tmp_path / "more")[1] < losses(tmp_path / "whole")[1]
    assert read_training_facts(tmp_path / "more/model")["timestamps"]


def test_a_context_longer_than_the_text_encoder_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, tmp_path / "run", "--data.max-context-tokens", "65") == 1
    assert "data.max_context_tokens is 65, but the text encoder reads at most 64 tokens" in capsys.readouterr().err
