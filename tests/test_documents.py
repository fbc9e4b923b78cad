"""What the documents tell people to type is accepted, and their examples in Python run."""

import contextlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from references import write_smallest_model
from tones import sound, utterances

import cwjax.commands.transcribe
import cwjax.processes
from cwjax.cli import _COMMANDS, main
from cwjax.commands import prepare
from cwjax.commands.transcribe_options import decoding_options, parse_options
from cwjax.data.prepared import build

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"
PLACEHOLDERS = {"CONFIG": "configs/demo.py", "KIND": "swc"}


def _blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of what stands between fences."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands(document: Path) -> Iterator[list[str]]:
    """The words of every command in a block or a table; in running text commands are not whole."""
    text = document.read_text(encoding="utf-8")
    blocks = [block for language, block in _blocks(text) if language in ("", "console", "sh")]
    blocks += re.findall(r"^ {4}(?:cwjax|python|pip) .*$", text, re.MULTILINE)
    blocks += re.findall(r"^\|.*?`((?:cwjax|python launch/)[^`]*)`", text, re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for command in re.split(r"\s(?:\||&&)\s", re.sub(r"\\\|", "|", line)):
            found = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:cwjax|python launch/(\w+)\.py) (.*)", command)
            if not found:
                continue
            words = [*filter(None, [found[1]]), *shlex.split(found[2], comments=True)]
            if len(words) > 1 and "..." not in words and not words[0].isupper():
                yield [PLACEHOLDERS.get(word, word) for word in words]


NOTEBOOK = ROOT / "docs/quick_start.ipynb"
CELLS = [
    cell["source"].splitlines()
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]
COMMANDS = [(document.name, words) for document in DOCUMENTS for words in _commands(document)]
COMMANDS += [(NOTEBOOK.name, shlex.split(line)[1:]) for lines in CELLS for line in lines if line.startswith("!cwjax ")]


class Reached(BaseException):
    """The command line was understood, and work would begin."""


@pytest.fixture
def nothing_is_done(monkeypatch, tmp_path):
    def reach(*_arguments, **_named):
        raise Reached

    def transcribe(arguments, _debug):
        options = parse_options(arguments)
        options.phrases = None
        decoding_options(options)
        reach()

    monkeypatch.setattr(prepare, "run", reach)
    for command, _ in _COMMANDS.values():
        monkeypatch.setattr(command, "run", reach)
    monkeypatch.setattr(cwjax.commands.transcribe, "transcribe", transcribe)
    monkeypatch.setattr("cwjax.training.plan.planned_sizes", reach)
    monkeypatch.setattr("cwjax.training.train.train", reach)
    monkeypatch.setattr("cwjax.training.spotter.train_spotter", reach)
    monkeypatch.setattr(cwjax.processes, "joined", lambda *_: contextlib.nullcontext())
    monkeypatch.chdir(ROOT)


def test_there_are_commands_in_the_documents():
    assert {"train", "transcribe", "prepare", "evaluate", "score", "convert", "plan", "push"} <= {
        words[0] for _, words in COMMANDS
    }


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize(("document", "words"), COMMANDS, ids=[f"{name}-{' '.join(words)}" for name, words in COMMANDS])
def test_a_command_is_accepted(document, words, monkeypatch, capsys):
    with contextlib.suppress(Reached):
        if words[0] == "train_spotter":
            monkeypatch.setattr("sys.argv", [f"launch/{words[0]}.py", *words[1:]])
            pytest.fail(f"ended with {runpy.run_path('launch/train_spotter.py')['main']()}: {capsys.readouterr().err}")
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
        assert "--help" in words, f"{document}: ended with {status}: {capsys.readouterr().err}"
        assert status == 0


def test_the_site_builds(tmp_path):
    pytest.importorskip("sphinx", reason="Sphinx is not installed")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "phrases" in (tmp_path / "api.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", document.read_text(encoding="utf-8")):
        place, _, heading = (target[0] or target[1]).partition("#")
        if place.startswith("http"):
            continue
        file = document.parent / place if place else document
        assert file.exists(), f"{document.name} names {place}, which is not there"
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{document.name} names the heading #{heading} of {file.name}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the model and the recording that the examples name."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("runs/demo/model", "models/small"):
        write_smallest_model(folder / name, tmp_path_factory.mktemp("parts"))

    random = np.random.default_rng(0)
    seconds = 2.4
    for name in ("talk.ogg", "audio.ogg"):
        soundfile.write(folder / name, sound(utterances(random, seconds), seconds, random), 16000)
    soundfile.write(folder / "talk.wav", sound(utterances(random, seconds), seconds, random), 24000)  # 1.6 s
    (folder / "own").mkdir()
    (folder / "own/list.jsonl").write_text(json.dumps({"audio": str(folder / "talk.ogg"), "text": "tone"}))
    build.prepare("manifest", folder / "own", folder / "data/swc-prepared")
    return folder


EXAMPLES = [
    pytest.param(code, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, (language, code) in enumerate(_blocks(document.read_text(encoding="utf-8")))
    if language == "python"
]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_in_python_runs(code, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    with _served_if_needed(code) as address:
        exec(compile(code.replace(ADDRESS, address), "example", "exec"), {})


@contextlib.contextmanager
def _served_if_needed(code: str) -> Iterator[str]:
    """The address of a server, where the example wants one."""
    if ADDRESS not in code:
        yield ADDRESS
        return
    pytest.importorskip("openai", reason="OpenAI's client is not installed")
    from served import running, served

    with running(served(cwjax.load("runs/demo/model").transcriber)) as server:
        yield server.url


@pytest.mark.usefixtures("quick_compilation")
def test_the_notebook_runs(workplace, monkeypatch):
    """From its own folder, where Jupyter begins. What it installs is there, and what it trains, smaller."""
    shown = []
    display = SimpleNamespace(Audio=lambda filename: soundfile.info(filename), HTML=shown.append, display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    for folder in ("docs", "configs", "data/demo/english/Everything_must_go_at_half_price"):
        (workplace / folder).mkdir(parents=True)
    (workplace / "configs/demo.py").touch()
    (workplace / "runs/demo/report.html").write_text("<h1>The report</h1>")
    shutil.copy(workplace / "talk.ogg", workplace / "data/demo/english/Everything_must_go_at_half_price/audio.ogg")
    monkeypatch.chdir(workplace / "docs")
    names = {}
    for lines in CELLS:
        for line in lines:
            if line.startswith("!cwjax transcribe"):
                assert main(shlex.split(line.format(**names))[1:]) == 0
        code = "\n".join(line for line in lines if not line.startswith(("!", "%")))
        exec(compile(code, NOTEBOOK.name, "exec"), names)
    recording, explained, report = shown
    assert recording.duration == pytest.approx(2.4)
    page = next((workplace / "explained").glob("*.html")).read_text(encoding="utf-8")
    assert page in unescape(explained)
    assert "<h1>The report</h1>" in unescape(report)
