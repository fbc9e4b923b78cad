"""`cwjax transcribe` with a stand-in for the model: files, failures, contexts, batches, what is printed."""

import io
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from test_writers import speech

from cwjax.cli import main
from cwjax.commands.comparison import GREEN, PLAIN, RED, comparison
from cwjax.commands.progress import AudioProgress, clock
from cwjax.errors import CwjaxError

RATE = 16_000


class StandIn:
    """Hears the loudness of a recording, and says the context after it; fails where it is told to."""

    def __init__(self):
        self.processor = SimpleNamespace(window_samples=RATE, tokens=SimpleNamespace(language_code=self.language_code))
        self.calls: list[tuple] = []
        self.on_call = lambda: None

    @staticmethod
    def language_code(language: str) -> str:
        if language != "en":
            raise CwjaxError(f"language {language!r} is not known to this model; it knows en")
        return language

    def transcribe(self, audio, context="", options=None, progress=None):
        self.calls.append(("one", context, options))
        self.on_call()
        return self._hear(audio, context, progress)

    def transcribe_batched(self, recordings, contexts, options, batch_size, progress=None):
        self.calls.append((len(recordings), tuple(contexts), batch_size))
        self.on_call()
        return [self._hear(*pair, progress) for pair in zip(recordings, contexts, strict=True)]

    def _hear(self, audio, context, progress):
        loudness = round(100 * float(np.abs(audio).max()))
        if loudness == 66:
            raise CwjaxError("too loud for this model")
        if loudness == 77:
            raise ValueError("what is\nthis?")
        progress(len(audio) / RATE, len(audio) / RATE)
        return speech(*f"heard {loudness} {context}".strip().split(" | "))


@pytest.fixture(autouse=True)
def _without_handlers_of_earlier_tests():
    """The command logs to the stderr of its own test, which is closed after it."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


@pytest.fixture
def model(monkeypatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr("cwjax.commands.transcribe.load_transcriber", lambda _: (stand_in, stand_in.processor))
    return stand_in


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(*loudness: int, folder: Path = Path()) -> list[str]:
    """Half a second for each loudness, as `50.wav`."""
    for percent in loudness:
        soundfile.write(folder / f"{percent}.wav", np.full(RATE // 2, percent / 100), RATE)
    return [str(folder / f"{percent}.wav") for percent in loudness]


def transcribe(*arguments: str) -> int:
    return main(["transcribe", "--model", "m", *arguments])


def errors(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("cwjax: error: ")]


def test_bad_files_are_named_and_the_others_are_done(folder, model, capsys):
    files = record(10, 66, 20, 77, 30)
    Path("text.wav").write_text("this is no sound")
    Path("empty.wav").write_bytes(b"")
    soundfile.write("nan.wav", np.array([0, np.nan]), RATE, subtype="FLOAT")
    files[1:1] = ["missing.ogg", "text.wav", "empty.wav", "nan.wav", str(folder)]
    assert transcribe(*files, "--output-dir", "out/here", "--output-format", "txt") == 1
    assert sorted(os.listdir("out/here")) == ["10.txt", "20.txt", "30.txt"]
    assert Path("out/here/20.txt").read_text() == "heard 20\n"
    told = errors(capsys)
    reasons = (
        "no such audio",
        "cannot be read as audio",
        "is empty",
        "not finite",
        "no such",
        "too loud",
        "ValueError",
    )
    names = ("missing.ogg", "text.wav", "empty.wav", "nan.wav", str(folder), "66.wav", "77.wav")
    assert len(told) == len(names)
    for line, name, reason in zip(told, names, reasons, strict=True):
        assert line.startswith(f"cwjax: error: {name}: "), line
        assert reason in line


def test_all_formats_by_default_and_what_is_printed(folder, model, capsys):
    assert transcribe(*record(10), "--context", "bees | wax") == 0
    assert {path.name for path in folder.glob("10.*")} == {
        "10.wav",
        *(f"10.{s}" for s in ["txt", "vtt", "srt", "tsv", "json"]),
    }
    assert capsys.readouterr().out == ("[00:00.000 --> 00:04.000]  heard 10 bees\n[00:04.000 --> 00:08.000]  wax\n")
    assert transcribe(*record(10), "--verbose", "False") == 0
    assert capsys.readouterr().out == ""


def test_what_is_done_is_written_at_once(folder, model):
    def interrupt():
        if len(model.calls) == 3:
            assert Path("10.json").exists()
            assert json.loads(Path("20.json").read_text())["text"] == " heard 20"
            raise KeyboardInterrupt

    model.on_call = interrupt
    assert transcribe(*record(10, 20, 30)) == 130
    assert not Path("30.json").exists()
    assert not list(folder.glob("*.partial"))


def test_the_transcript_is_written_before_the_comparison_begins(folder, model):
    def fail():
        if len(model.calls) == 2:
            assert Path("10.txt").exists()
            raise CwjaxError("no power")

    model.on_call = fail
    assert transcribe(*record(10), "--context", "bees", "--compare-context") == 1


def test_contexts_come_from_the_line_a_file_or_a_list(folder, model, capsys):
    files = record(10, 20, 30)
    Path("context.txt").write_text("bees\nand wax\n")
    Path("list.json").write_text(json.dumps([{"audio": files[1], "context": "sails"}, {"audio": files[2]}]))
    assert transcribe(files[0], "--context-file", "context.txt", "--list", "list.json") == 0
    assert [context for _, context, _ in model.calls] == ["bees\nand wax\n", "sails", "bees\nand wax\n"]
    for wrong in (["--context", "bees", "--context-file", "context.txt"], ["--context-file", "missing.txt"]):
        assert transcribe(files[0], *wrong) == 1
    assert len(model.calls) == 3
    both, missing = errors(capsys)
    assert "leave one out" in both
    assert "missing.txt: cannot be read" in missing


def test_options_reach_the_model(folder, model):
    transcribe(*record(10), "--beam_size", "3", "--language", "en", "--task", "translate", "--context-scale", "2")
    options = model.calls[0][2]
    assert (options.beam_size, options.language, options.task, options.context_scale) == (3, "en", "translate", 2.0)


def test_batches_are_filled_from_several_files_and_fail_one_by_one(folder, model, capsys):
    assert transcribe(*record(1, 2, 3, 4, 5, 66, 7, 8, 9), "--batch-size", "1", "-f", "txt", "--context", "bees") == 1
    # Half a window each, four batches of one at once; the failed group is done one by one.
    assert [count for count, _, _ in model.calls] == [8, *[1] * 8, 1]
    assert {path.stem for path in folder.glob("*.txt")} == set("12345789")
    (line,) = errors(capsys)
    assert "66.wav: too loud" in line
    assert Path("9.txt").read_text() == "heard 9 bees\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no audio to transcribe"),
        (["--list", "list.txt", "10.wav"], "list.txt"),
        (["10.wav", "--batch-size", "0"], "--batch-size"),
        (["10.wav", "--batch-size", "2", "--context-from-history"], "--context-from-history needs one window"),
        (
            ["10.wav", "--batch-size", "2", "--word-timestamps", "--hallucination-silence-threshold", "1"],
            "--hallucination-silence-threshold needs one",
        ),
        (["10.wav", "--explain", "--context", "a", "--context-from-history"], "leave out --context-from-history"),
        (["10.wav", "--beam-size", "0"], "beam_size"),
        (["10.wav", "--highlight-words"], "--word-timestamps"),
        (["10.wav", "--explain"], "--explain needs a context"),
        (["10.wav", "--compare-context", "--context", " "], "--compare-context needs a context"),
        (["10.wav", "--output-dir", "10.wav"], "--output-dir 10.wav: cannot be written"),
        (["10.wav", "--output-dir", "10.wav/below"], "--output-dir 10.wav/below: cannot be written"),
    ],
)
def test_what_can_be_known_before_the_model_is_loaded(folder, monkeypatch, capsys, arguments, reason):
    monkeypatch.setattr("cwjax.commands.transcribe.load_transcriber", lambda _: pytest.fail("loaded"))
    record(10)
    assert transcribe(*arguments) == 1
    (line,) = errors(capsys)
    assert reason in line


def test_an_unknown_language(folder, model, capsys):
    assert transcribe(*record(10), "--language", "Klingon") == 1
    (line,) = errors(capsys)
    assert "'Klingon' is not known" in line
    assert not model.calls


def test_a_missing_model(folder, capsys):
    assert transcribe(*record(10)) == 1
    (line,) = errors(capsys)
    assert "m: holds no config.json" in line


def test_a_full_disk_spares_the_other_files(folder, model, monkeypatch, capsys):
    real = Path.write_text

    def write(path: Path, text: str, **options) -> int:
        if path.name.startswith("20.vtt"):
            raise OSError(28, os.strerror(28))
        return real(path, text, **options)

    monkeypatch.setattr(Path, "write_text", write)
    assert transcribe(*record(10, 20, 30)) == 1
    assert {"10.json", "20.txt", "30.json"} <= set(os.listdir())
    (line,) = errors(capsys)
    assert "20.vtt: cannot be written (No space left on device)" in line


def test_debug_shows_where_and_goes_on(folder, model, capsys):
    assert transcribe(*record(77, 10), "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
    assert Path("10.txt").exists()


def test_comparing(folder, model, capsys):
    Path("list.csv").write_text(f"audio,context\n{record(10)[0]},bees\n{record(20)[0]},\n")
    assert transcribe("--list", "list.csv", "--compare-context", "--verbose", "False") == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "10.wav:\nwithout context: heard 10 [...]\nwith context:    heard 10 [bees]\nthe context changes 1 of 3 words\n"
    )
    assert "20.wav: has no context" in printed.err
    assert [context for _, context, _ in model.calls] == ["bees", "", ""]


def test_differences_are_marked_with_colour_only_on_request():
    pair = ("The Sale is, really, big today", "the sail is big to day")
    assert comparison(*pair, colour=False) == (
        "without context: The [Sale] is, [really,] big [today]\n"
        "with context:    the [sail] is [...] big [to day]\n"
        "the context changes 4 of 6 words"
    )
    lines = comparison(*pair, colour=True).splitlines()
    assert f"The {RED}[Sale]{PLAIN} is" in lines[0]
    assert f"the {GREEN}[sail]{PLAIN} is" in lines[1]
    assert "changes nothing" in comparison("Bees!", "bees", colour=False)
    assert comparison("", "bees", colour=False).splitlines()[:2] == [
        "without context: [...]",
        "with context:    [bees]",
    ]


def test_progress_is_a_bar_on_terminals_and_lines_elsewhere(monkeypatch, caplog):
    caplog.set_level("INFO")
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with AudioProgress("talk.ogg") as progress:
        for now in (1.0, 31.0, 40.0, 62.0):
            progress(30 * now, 3723)
    assert [line.getMessage() for line in caplog.records] == [
        "talk.ogg: 15:30 of 1:02:03 of audio",
        "talk.ogg: 31:00 of 1:02:03 of audio",
    ]
    monkeypatch.undo()
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with AudioProgress("talk.ogg") as progress:
        progress(15, 60)
        progress(61, 60)
    assert " 0% |" in terminal.getvalue()
    assert "100% |" in terminal.getvalue()
    assert clock(59.6) == "01:00"
