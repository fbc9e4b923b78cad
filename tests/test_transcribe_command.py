"""`cwjax transcribe` with a stand-in for the model: files, failures, contexts, channels, what is printed."""

import codecs
import contextlib
import dataclasses
import io
import json
import logging
import os
import subprocess
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
from cwjax.commands.terminal import printable
from cwjax.commands.transcribe import join_channels
from cwjax.errors import CwjaxError
from cwjax.inference.transcript import Skipped, Word

RATE = 16_000


class StandIn:
    """Hears the loudness of a recording, and says the context after it, a segment each; fails where it is told to.

    It hears every phrase, but writes only those without a space.
    In batches it takes as many recordings as fit, hears a segment of each in turn, and the last is done first.
    """

    takes_context, spots_phrases = True, False

    def __init__(self):
        self.tokens = SimpleNamespace(language_code=self.language_code)
        self.loads: list[tuple] = []
        self.calls: list[tuple] = []
        self.pulled = 0
        self.on_call = lambda: None

    @staticmethod
    def language_code(language: str) -> str:
        if language != "en":
            raise CwjaxError(f"language {language!r} is not known to this model; it knows en")
        return language

    def stream_many(self, requests, batch_size):
        requests = iter(requests)
        while group := [request for _, request in zip(range(batch_size or 1), requests, strict=False)]:
            self.pulled += len(group)
            heard = [self._hear(request, batch_size) for request in group]
            for place in range(max(map(len, heard))):
                for events in reversed(heard):
                    yield from events[place : place + 1]

    def _hear(self, request, batch_size) -> list:
        self.calls.append((request.context, request.options, batch_size, request.name))
        self.on_call()
        try:
            samples = read(request.audio) if isinstance(request.audio, Path) else request.audio.samples
            loudness = round(100 * float(np.abs(samples).max()))
            if loudness == 66:
                raise CwjaxError("too loud for this model")
            if loudness == 77:
                raise ValueError("what is\nthis?")
        except Exception as error:
            return [event(request, error=error)]
        seconds = len(samples) / RATE
        phrases = tuple(Word(phrase, 0.25, 0.5, 0.9) for phrase in request.options.phrases if phrase)
        written = [one.text for one in phrases if " " not in one.text]
        transcript = speech(
            *" ".join(["heard", str(loudness), *filter(None, [request.context]), *written]).split(" | ")
        )
        transcript = dataclasses.replace(
            transcript,
            duration=seconds,
            phrases=phrases,
            language_probabilities={"en": 0.966, "de": 0.034},
            skipped=(Skipped(1.0, 2.5, "digital silence"), Skipped(5.0, 5.5, "digital silence")),
        )
        said = [event(request, segment=one, done=seconds / 2, total=seconds) for one in transcript.segments]
        return [*said, event(request, transcript=transcript, done=seconds, total=seconds)]

    def explain(self, audio, context, transcript, separate=False, progress=None):
        raise CwjaxError("explains nothing")


def read(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return soundfile.read(file, always_2d=True)[0].mean(axis=1)
    except soundfile.LibsndfileError:
        raise CwjaxError(f"{path}: cannot be read as audio") from None


def event(request, segment=None, transcript=None, error=None, done=0.0, total=0.0) -> SimpleNamespace:
    return SimpleNamespace(request=request, segment=segment, done=done, total=total, transcript=transcript, error=error)


@pytest.fixture(autouse=True)
def _without_handlers_of_earlier_tests():
    """The command logs to the stderr of its own test, which is closed after it."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


@pytest.fixture
def model(monkeypatch) -> StandIn:
    stand_in = StandIn()

    def load(*how):
        stand_in.loads.append(how)
        return stand_in

    monkeypatch.setattr("cwjax.commands.transcribe.load_model", load)
    return stand_in


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


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
    Path("without").mkdir()
    files[1:1] = ["missing.ogg", "text.wav", "without"]
    assert transcribe(*files, "--output-dir", "out/here", "--output-format", "txt") == 1
    assert sorted(os.listdir("out/here")) == ["10.txt", "20.txt", "30.txt"]
    assert Path("out/here/20.txt").read_text() == "heard 20\n"
    reasons = {
        "missing.ogg": "no such audio",
        "without": "no recordings in this folder",
        "text.wav": "cannot be read as audio",
        "66.wav": "too loud",
        "77.wav": "ValueError: what is this?",
    }
    told = errors(capsys)
    assert len(told) == len(reasons)
    for line, (name, reason) in zip(told, reasons.items(), strict=True):
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


def test_what_is_done_is_written_at_once(folder, model, capsys):
    def interrupt():
        if model.pulled == 3:
            assert Path("10.json").exists()
            assert json.loads(Path("20.json").read_text())["text"] == " heard 20"
            raise KeyboardInterrupt

    model.on_call = interrupt
    assert transcribe(*record(10, 20, 30)) == 130
    assert "2 of 3 recordings were transcribed" in capsys.readouterr().err
    assert not Path("30.json").exists()
    assert not list(folder.glob(".*"))


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
    assert [call[0] for call in model.calls] == ["bees\nand wax\n", "sails", "bees\nand wax\n"]
    for wrong in (["--context", "bees", "--context-file", "context.txt"], ["--context-file", "missing.txt"]):
        assert transcribe(files[0], *wrong) == 1
    assert len(model.calls) == 3
    both, missing = errors(capsys)
    assert "leave one out" in both
    assert "missing.txt: cannot be read" in missing


def test_options_reach_the_model(folder, model):
    transcribe(*record(10), "--beam_size", "3", "--language", "en", "--task", "translate", "--context-scale", "2")
    options = model.calls[0][1]
    assert (options.beam_size, options.language, options.task, options.context_scale) == (3, "en", "translate", 2.0)


def test_several_files_at_once_fail_one_by_one_and_print_one_after_the_other(folder, model, capsys):
    assert transcribe(*record(1, 2, 66, 4, 5), "--batch-size", "3", "-f", "txt", "--context", "bees | wax") == 1
    assert {path.stem for path in folder.glob("*.txt")} == set("1245")
    assert [(call[1].independent_windows, call[2]) for call in model.calls] == [(True, 3)] * 5
    printed = capsys.readouterr()
    assert printed.out == "".join(
        f"{one}.wav:\n[00:00.000 --> 00:04.000]  heard {one} bees\n[00:04.000 --> 00:08.000]  wax\n"
        for one in (1, 2, 4, 5)
    )
    (line,) = [line for line in printed.err.splitlines() if line.startswith("cwjax: error: ")]
    assert line == "cwjax: error: 66.wav: too loud for this model"


def test_segments_are_printed_as_they_come(folder, model, capsys):
    """The first of two files at once is printed while it is transcribed, the second when the first is done."""
    seen = []
    stream = model.stream_many

    def watched(requests, batch_size):
        for one in stream(requests, batch_size):
            seen.append((one.request.name, one.transcript is not None, capsys.readouterr().out))
            yield one
        seen.append(("", False, capsys.readouterr().out))

    model.stream_many = watched
    assert transcribe(*record(1, 2), "--batch-size", "2", "-f", "txt", "--context", "bees | wax") == 0
    first, second = ("[00:00.000 --> 00:04.000]  heard {} bees\n", "[00:04.000 --> 00:08.000]  wax\n")
    assert seen == [
        ("2.wav", False, ""),
        ("1.wav", False, ""),
        ("2.wav", False, "1.wav:\n" + first.format(1)),
        ("1.wav", False, ""),
        ("2.wav", True, second),
        ("1.wav", True, ""),
        ("", False, "2.wav:\n" + first.format(2) + second),
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no audio to transcribe"),
        (["--list", "list.txt", "10.wav"], "list.txt"),
        (["10.wav", "--batch-size", "0"], "--batch-size"),
        (["10.wav", "--threads", "0"], "--threads is 0"),
        (["10.wav", "--batch-size", "2", "--context-from-history"], "context_from_history needs one window"),
        (
            ["10.wav", "--batch-size", "2", "--word-timestamps", "--hallucination-silence-threshold", "1"],
            "hallucination_silence_threshold needs one",
        ),
        (["10.wav", "--explain", "--context", "a", "--context-from-history"], "leave out --context-from-history"),
        (["10.wav", "--beam-size", "0"], "beam_size"),
        (["10.wav", "--highlight-words"], "--word-timestamps"),
        (["10.wav", "--explain"], "--explain needs a context or phrases"),
        (["10.wav", "--compare-context", "--context", " "], "--compare-context needs a context"),
        (["10.wav", "--explain", "--context", "a", "--channel", "each"], "--explain shows one channel"),
        (["10.wav", "--overwrite", "--skip-existing"], "leave one out"),
        (["10.wav", "--context-file", "none.txt"], "none.txt: cannot be read"),
        (["missing.wav"], "missing.wav: no such audio file"),
        (["https://example.org/talk.mp3"], "https://example.org/talk.mp3: is an address: download it first"),
        (["no*.wav"], "no*.wav: no such audio file, and as a pattern it matches nothing"),
        (["a\0b.wav"], r"a\x00b.wav: is no path"),
        (["x" * 300 + ".wav"], "File name too long"),
        (["10.wav", "--output-dir", "10.wav"], "--output-dir 10.wav: cannot be written"),
        (["10.wav", "--output-dir", "10.wav/below"], "--output-dir 10.wav/below: cannot be written"),
    ],
)
def test_what_can_be_known_before_the_model_is_loaded(folder, monkeypatch, capsys, arguments, reason):
    monkeypatch.setattr("cwjax.commands.transcribe.load_model", lambda *_: pytest.fail("loaded"))
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
    assert line.startswith("cwjax: error: m: ")


def test_a_full_disk_spares_the_other_files(folder, model, monkeypatch, capsys):
    real = Path.replace

    def put(aside: Path, path: Path) -> Path:
        if path.name == "20.vtt":
            raise OSError(28, os.strerror(28))
        return real(aside, path)

    monkeypatch.setattr(Path, "replace", put)
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
    assert "20.wav: has neither context nor phrases" in printed.err
    assert [call[0] for call in model.calls] == ["bees", "", ""]


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


INPUTS = pytest.mark.parametrize(
    ("arguments", "inputs"),
    [
        (["10.wav", "--context-file", "10.txt"], ["10.txt"]),
        (["10.wav", "--context-file", "10.TXT"], ["10.TXT"]),
        (["--list", "10.json"], ["10.json"]),
        (["10.wav", "10.txt", "--context", "bees"], ["10.txt"]),
        (["10.wav", "--context-file", "linked/../elsewhere.txt"], ["elsewhere.txt"]),
    ],
)


@INPUTS
def test_no_input_is_overwritten(folder, model, capsys, arguments, inputs):
    record(10)
    os.mkdir("linked")
    for name in inputs:
        Path(name).write_text('[{"audio": "10.wav"}]')
    if "elsewhere.txt" in inputs:
        os.link("elsewhere.txt", "10.txt")
    for more in ([], ["--overwrite"]):
        assert transcribe(*arguments, *more) == 1
        (line,) = errors(capsys)
        assert "is an input and would be overwritten; choose another --output-dir" in line
    assert not model.loads
    assert Path(inputs[0]).read_text() == '[{"audio": "10.wav"}]'


def test_files_of_other_hands_are_replaced_only_on_request(folder, model, capsys):
    record(10)
    Path("10.srt").write_text("made by hand")
    assert transcribe("10.wav") == 1
    (line,) = errors(capsys)
    assert line.startswith("cwjax: error: 10.srt: would be replaced")
    assert not model.loads
    assert (Path("10.srt").read_text(), Path("10.txt").exists()) == ("made by hand", False)
    assert transcribe("10.wav", "--overwrite") == 0
    assert "heard 10" in Path("10.srt").read_text()
    # The same command again, and another, replace what this command wrote, until somebody works on it.
    assert transcribe("10.wav") == transcribe("10.wav", "--context", "bees") == 0
    assert "bees" in Path("10.srt").read_text()
    Path("10.srt").write_text(Path("10.srt").read_text() + "corrected")
    assert transcribe("10.wav") == 1
    assert Path("10.srt").read_text().endswith("corrected")


def test_recordings_that_have_their_transcripts_are_left_out(folder, model, capsys):
    record(10, 20)
    Path("10.srt").write_text("made by hand")
    assert transcribe("10.wav", "20.wav", "-f", "srt", "--skip-existing") == 0
    assert [call[3] for call in model.calls] == ["20.wav"]
    assert transcribe("10.wav", "20.wav", "-f", "srt", "--skip-existing") == 0
    assert len(model.loads) == 1
    assert "2 of 2 recordings have their transcripts already" in capsys.readouterr().err
    assert Path("10.srt").read_text() == "made by hand"


def test_long_names(folder, model):
    names = ["ü" * 122 + ".wav", "ü" * 125 + "y.wav", "x" * 251 + ".wav", "x" * 250 + "y.wav"]
    for name in names:
        record(10)
        os.rename("10.wav", name)
    assert transcribe(*names, "-f", "json,txt") == 0
    written = sorted(name for name in os.listdir() if name not in names)
    assert len(written) == 8
    assert {"ü" * 122 + ".json", "ü" * 122 + ".txt"} < set(written)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there are Unicode")
def test_names_that_are_no_text_and_no_control_character_reaches_the_terminal(folder, model, capsys):
    record(10, 20)
    names = [os.fsdecode(b"\xff\x1b[2J\n.wav"), "-rf.wav"]
    for old, new in zip(("10.wav", "20.wav"), names, strict=True):
        os.rename(old, new)
    context = "\x1b]0;title\x07 bees \x9b1m"
    model.on_call = lambda: logging.getLogger("some.library").warning("\x1b[1m\x9b2J")
    assert transcribe("-f", "txt", "--context", context, "--compare-context", "--", *names, "gone\x1b.wav") == 1
    assert b"\xff\x1b[2J\n.txt" in os.listdir(b".")
    assert Path("-rf.txt").exists()
    shown = capsys.readouterr()
    assert set("".join(shown)) & set(map(chr, [*range(32), *range(127, 160)])) == {"\n"}
    assert "\\xff\\x1b[2J\\x0a.wav:\n" in shown.out
    assert "\\x1b]0;title\\x07 bees \\x9b1m" in shown.out
    assert printable("za\u200dż 蜂\ud800") == "za\u200dż 蜂\\ud800"


def test_recordings_from_stdin(folder, model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(record(10)[0]).read_bytes())))
    os.rename(record(20)[0], "stdin.wav")
    assert transcribe("stdin.wav", "-", "-f", "txt") == 0
    assert (Path("stdin.txt").read_text(), Path("stdin-2.txt").read_text()) == ("heard 20\n", "heard 10\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no sound")))
    assert transcribe("-", "-f", "txt") == 1
    (line,) = errors(capsys)
    assert line.startswith("cwjax: error: stdin: cannot be read as audio")


STANDING_IN = """
import sys
sys.path[:0] = {path!r}
import test_transcribe_command, cwjax.commands.transcribe
cwjax.commands.transcribe.load_model = lambda *_: test_transcribe_command.StandIn()
from cwjax.cli import main
sys.exit(main(["transcribe", "--model", "m", *sys.argv[1:]]))
"""


def run(*arguments: str, **streams) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [sys.executable, "-c", STANDING_IN.format(path=sys.path), *arguments]
    return subprocess.run(command, text=True, check=False, **streams)


@pytest.fixture
def closed_pipe(monkeypatch):
    """To write into, but nobody reads."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_who_goes_is_no_failure(folder, closed_pipe, both):
    done = run(*record(1, 2, 3), "-f", "txt", stdout=closed_pipe, stderr=closed_pipe if both else subprocess.PIPE)
    assert done.returncode == 0
    assert both or "roke" not in done.stderr
    assert len(list(folder.glob("[0-9]*.txt"))) == 3
    assert run("gone.wav", stdout=closed_pipe, stderr=closed_pipe).returncode == 1
    # What is short fails only when Python ends.
    command = [sys.executable, "-m", "cwjax.cli", "--version"]
    done = subprocess.run(command, stdout=closed_pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only some systems have such a device")
def test_a_full_disk_behind_stdout_spares_the_files(folder):
    with open("/dev/full", "wb") as full:
        done = run(*record(1, 2), "-f", "txt", stdout=full, stderr=subprocess.PIPE)
    assert done.stderr.count("nothing more can be printed (No space left on device)") == 1
    assert (done.returncode, len(list(folder.glob("[0-9]*.txt")))) == (0, 2)


def test_language_and_what_was_left_out_are_said(folder, model, capsys):
    assert transcribe(*record(10)) == 0
    said = capsys.readouterr().err
    assert "10.wav: language en (97 %)" in said
    assert "10.wav: 2.0 s left out (digital silence), in 2 stretches" in said


@pytest.mark.parametrize(("takes_context", "warning"), [(False, "stock Whisper and takes no context"), (True, "")])
def test_models_to_which_a_context_is_nothing(folder, model, capsys, takes_context, warning):
    model.takes_context = takes_context
    assert transcribe(*record(10, 20)) == 0
    assert "context" not in capsys.readouterr().err
    assert transcribe(*record(10, 20), "--context", "bees") == 0
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if "context" in line]
    assert len(said) == bool(warning)
    assert all(" m: " in line and warning in line for line in said)
    assert {call[0] for call in model.calls[2:]} == {"bees" if takes_context else ""}
    assert transcribe(*record(10, 20), "--context", "bees", "--compare-context") == (0 if takes_context else 1)


def test_phrases_come_from_a_file_and_from_lists_in_a_context(folder, model, capsys):
    Path("names.txt").write_text("\ufeffGoethe | gurta\n\nAda Bo\n", encoding="utf-8")
    line = ["--phrases", "names.txt", "--phrases-used", "5", "--context", "a talk; names: Caxton, Ruttner"]
    model.spots_phrases = True
    assert transcribe(*record(10), *line) == 0
    context, options, *_ = model.calls[-1]
    assert (options.phrases, options.phrases_used) == (("Goethe | gurta", "", "Ada Bo"), 5)
    assert context == "a talk; names: Caxton, Ruttner", "the engine reads the lists of a context"
    assert "spotter" not in capsys.readouterr().err
    model.spots_phrases = False
    assert transcribe("10.wav", *line) == 1
    assert "m: this Whisper has no phrase spotter" in capsys.readouterr().err
    model.takes_context, model.spots_phrases = False, True
    assert transcribe("10.wav", *line) == 0
    context, options, *_ = model.calls[-1]
    assert (context, options.phrases) == ("", ("Goethe | gurta", "", "Ada Bo", "Caxton", "Ruttner"))
    assert "takes no context: only the lists in it are used" in capsys.readouterr().err
    assert transcribe("10.wav", "--phrases", "nothing.txt") == 1
    assert "nothing.txt: cannot be read" in capsys.readouterr().err
    Path("names.wav").write_bytes(Path("10.wav").read_bytes())
    assert transcribe("names.wav", "--phrases", "names.txt", "-f", "txt", "-o", ".") == 1
    assert "names.txt: is an input and would be overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeffAda\r\nBö\r\n".encode("utf-8"), ("Ada", "Bö")),
        ("Ada\nBö 李白\n".encode("utf-16"), ("Ada", "Bö 李白")),
        (codecs.BOM_UTF16_BE + "Ada\r\nBö\r\n".encode("utf-16-be"), ("Ada", "Bö")),
        ("Ada\nBö\n".encode("latin-1"), "names.txt: is no UTF-8 text (line 2); save it as UTF-8"),
        ("Ada\nBö\n".encode("utf-16-le"), "names.txt: is no UTF-8 text (line 2); save it as UTF-8"),
        ("Ada\nBo\n".encode("utf-16-le"), "names.txt: is no text, for it has bytes that are zero"),
        (b"", ()),
        (None, "names.txt: cannot be read (Is a directory); check the path"),
    ],
)
def test_files_of_phrases_in_any_encoding(folder, model, capsys, content, expected):
    model.spots_phrases = True
    Path("names.txt").mkdir() if content is None else Path("names.txt").write_bytes(content)
    refused = isinstance(expected, str)
    assert transcribe(*record(10), "--phrases", "names.txt", "-f", "txt") == refused
    assert expected in errors(capsys)[0] if refused else model.calls[-1][1].phrases == expected


def test_how_the_model_is_loaded(folder, model, monkeypatch):
    threads = []
    monkeypatch.setattr("cwjax.machine.set_threads", threads.append, raising=False)
    assert transcribe(*record(10)) == 0
    line = [
        "--device",
        "cuda:1",
        "--compute_dtype",
        "bfloat16",
        "--threads",
        "3",
        "--draft",
        "tiny",
        "--spotter",
        "ours",
    ]
    assert main(["transcribe", "--model", "small", *line, "10.wav"]) == 0
    assert model.loads == [("m", None, None, None, None), ("small", "bfloat16", "cuda:1", "tiny", "ours")]
    assert transcribe("10.wav", "--fp16", "False") == transcribe("10.wav", "--fp16") == 0
    assert [dtype for _, dtype, *_ in model.loads[2:]] == ["float32", "float16"]
    assert threads == [3]


@pytest.fixture
def channels(monkeypatch):
    """Stand-ins for what reads channels."""

    def open_recording(path, channel):
        samples = soundfile.read(path, always_2d=True)[0]
        samples = samples.mean(axis=1) if channel is None else samples[:, channel]
        return SimpleNamespace(samples=samples, duration=len(samples) / RATE)

    monkeypatch.setattr("cwjax.commands.transcribe.open_recording", open_recording)
    monkeypatch.setattr("cwjax.commands.transcribe.channels_of", lambda path: soundfile.info(path).channels)


def test_every_channel_is_a_speaker(folder, model, channels, capsys):
    soundfile.write("two.wav", np.tile([0.2, 0.4], (RATE, 1)), RATE)
    soundfile.write("three.wav", np.tile([0.66, 0.2, 0.66], (RATE, 1)), RATE)
    soundfile.write("one.wav", np.full(RATE, 0.5), RATE)
    arguments = ["two.wav", "three.wav", "one.wav", "--channel", "each", "--batch-size", "2", "--context", "bees | wax"]
    assert transcribe(*arguments, "--compare-context") == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(
        "two.wav:\n"
        "[00:00.000 --> 00:04.000] left:  heard 20 bees\n[00:00.000 --> 00:04.000] right:  heard 40 bees\n"
        "[00:04.000 --> 00:08.000] left:  wax\n[00:04.000 --> 00:08.000] right:  wax\n"
        "one.wav:\n[00:00.000 --> 00:04.000]  heard 50 bees\n[00:04.000 --> 00:08.000]  wax\n"
    )
    assert shown.err.count("cwjax: error: three.wav: too loud") == shown.err.count("cwjax: error: ") == 1
    assert "two.wav: 2.0 s left out (right: digital silence)" in shown.err
    segments = json.loads(Path("two.json").read_text())["segments"]
    assert [(one["id"], one["speaker"], one["text"]) for one in segments] == [
        (0, "left", " heard 20 bees"),
        (1, "right", " heard 40 bees"),
        (2, "left", " wax"),
        (3, "right", " wax"),
    ]
    assert not Path("three.json").exists()


@pytest.mark.parametrize(("channel", "heard"), [("mix", 30), ("left", 20), ("right", 40), ("1", 20), ("2", 40)])
def test_one_channel(folder, model, channels, channel, heard):
    soundfile.write("two.wav", np.tile([0.2, 0.4], (RATE, 1)), RATE)
    assert transcribe("two.wav", "--channel", channel, "-f", "txt") == 0
    assert Path("two.txt").read_text() == f"heard {heard}\n"


def test_the_language_of_channels_is_that_of_most_text():
    parts = [speech("a"), dataclasses.replace(speech("bee keeping"), language="de", duration=9.0)]
    joined = join_channels(parts, ["left", "right"])
    assert (joined.language, joined.duration, joined.text) == ("de", 9.0, " a bee keeping")


def test_phrases_of_all_channels_are_kept():
    said = [dataclasses.replace(speech("a"), phrases=(Word(name, at, 9, 0.9),)) for name, at in (("Bo", 2), ("Ada", 1))]
    assert [phrase.text for phrase in join_channels(said, ["left", "right"]).phrases] == ["Ada", "Bo"]


def test_phrases_alone_are_told_and_compared(folder, model, capsys):
    """What was heard, where, how probably, whether it is written, and what it changed; no context is needed."""
    Path("names.txt").write_text("Ada\nBo Caxton\n", encoding="utf-8")
    model.takes_context, model.spots_phrases = False, True
    options = ["--phrases", "names.txt", "--compare-context", "-f", "txt"]
    assert transcribe(*record(10), *options) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "[00:00.000 --> 00:04.000]  heard 10 Ada",
        "[00:00.250 --> 00:00.500] heard “Ada” (90 %), written",
        "[00:00.250 --> 00:00.500] heard “Bo Caxton” (90 %), not written",
        "10.wav:",
        "without context: heard 10 [...]",
        "with context:    heard 10 [Ada]",
        "the context changes 1 of 3 words",
    ]
    assert "10.wav: 2 phrases heard" in printed.err
    assert Path("10.txt").read_text() == "heard 10 Ada\n"
    assert [call[1].phrases for call in model.calls] == [("Ada", "Bo Caxton"), ()]
    assert transcribe("10.wav", *options, "--context", "bees", "--verbose", "False", "--overwrite") == 0
    printed = capsys.readouterr()
    assert "with context:    heard 10 [Ada]" in printed.out
    assert "written" not in printed.out


def test_a_model_that_breaks_off_is_one_line(folder, model, capsys):
    def broken(requests, batch_size):
        yield from list(model._hear(next(iter(requests)), batch_size))
        raise RuntimeError("the device\nis gone")

    model.stream_many = broken
    assert transcribe(*record(10, 20), "-f", "txt") == 1
    (line,) = errors(capsys)
    assert "broke off after 1 of 2 recordings (RuntimeError: the device is gone)" in line
    assert Path("10.txt").exists()
    with pytest.raises(CwjaxError), contextlib.redirect_stderr(io.StringIO()):
        transcribe(*record(10, 20), "-f", "txt", "--debug")
