"""What the product may assume of a machine: little."""

import ast
import io
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest
from patience import PATIENCE

import cwjax
from cwjax import machine
from cwjax.cli import main
from cwjax.demo import corpus as demo_corpus
from cwjax.errors import CwjaxError
from cwjax.files import local_path

PACKAGE = Path(cwjax.__file__).parent
ROOT = PACKAGE.parent

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")


@pytest.fixture
def one_core():
    """Lets this thread, and what it starts, use one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@needs_affinity
def test_cores_are_those_of_the_affinity(one_core: None) -> None:
    assert machine.available_cores() == 1


@pytest.mark.parametrize(("cores", "articles", "processes"), [(1, 1000, 1), (512, 90, 1), (512, 250, 3), (4, 1000, 4)])
def test_no_more_processes_than_help(
    cores: int, articles: int, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def pool(size: int, **_: object) -> ThreadPoolExecutor:
        sizes.append(size)
        return ThreadPoolExecutor(size)

    monkeypatch.setattr(demo_corpus, "available_cores", lambda: cores)
    monkeypatch.setattr(demo_corpus, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(demo_corpus, "write_article", lambda plan, directory: 1.0)
    assert list(demo_corpus._each_length([None] * articles, tmp_path, 0)) == [1.0] * articles
    assert sizes == [processes] * (processes > 1)


def test_peak_memory_is_in_bytes() -> None:
    held = b"x" * 2**28
    assert len(held) < machine.peak_memory() < 2**38


WITHOUT = """
import builtins, contextlib, importlib, pkgutil, sys, tempfile

genuine = builtins.__import__

def without(name, globals=None, *others, **more):
    importer = (globals or {}).get("__name__", "")
    if name in {"fcntl", "grp", "posix", "pwd", "resource", "termios"} and importer.split(".")[0] == "cwjax":
        raise ImportError(f"{importer} imports {name}, which Windows does not have")
    return genuine(name, globals, *others, **more)

builtins.__import__ = without
sys.modules["array_record"] = None

from numba.core.caching import CacheImpl, UserProvidedCacheLocator
CacheImpl._locator_classes = [UserProvidedCacheLocator]  # what is left where neither packages nor HOME can be written

import cwjax
for found in pkgutil.walk_packages(cwjax.__path__, "cwjax."):
    importlib.import_module(found.name)

from cwjax.machine import peak_memory
print("peak", peak_memory())

from cwjax.data.audio.log_mel import mel_filters
print("filters", mel_filters(80).shape)

from cwjax.cli import main
folder = tempfile.mkdtemp()
for arguments in (["train"], ["transcribe"], ["convert"], ["prepare"], ["evaluate"]):
    with contextlib.suppress(SystemExit):
        main([*arguments, "--help"])
for arguments in (
    ["prepare", "swc", "--root", folder, "--output", f"{folder}/prepared"],
    ["evaluate", "--model", folder, "--data", folder],
    ["train", "--config", "configs/demo.py", "--workdir", f"{folder}/run"],
):
    print(arguments[0], "ends with", main(arguments))
"""


def test_every_module_can_be_imported_on_windows_and_without_array_record() -> None:
    """No module that only POSIX systems have; no array_record, whose wheels are for Linux and macOS and which Grain
    needs; and nowhere to write but in the folder for temporary files."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "peak None" in done.stdout
    assert "filters (201, 80)" in done.stdout
    for command in ("train", "transcribe", "convert", "prepare", "evaluate"):
        assert f"usage: cwjax {command}" in done.stdout
    complaints = [line for line in done.stderr.splitlines() if "cwjax: error" in line]
    assert len(complaints) == 3, done.stderr
    reasons = {"prepare": "does not look like", "evaluate": "a prepared corpus", "train": "array_record.* WSL"}
    for (command, reason), complaint in zip(reasons.items(), complaints, strict=True):
        assert f"{command} ends with 1" in done.stdout
        assert re.search(reason, complaint)


def test_text_files_name_their_encoding() -> None:
    """Left to itself, Python takes that of the locale."""
    careless = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            called = ast.unparse(call.func)
            owner, _, name = called.rpartition(".")
            # Bare `read_text` and `write_text` are functions of our own, and these others open no text.
            if name not in {"open", "read_text", "write_text"} or called in {"read_text", "write_text"}:
                continue
            if owner[:1].isupper() or called in {"av.open", "os.open", "tarfile.open", "item.open"}:
                continue
            modes = [one.value for one in call.args if isinstance(one, ast.Constant)]
            binary = any("b" in str(mode) and set(str(mode)) <= set("rwaxb+") for mode in modes)
            binary |= called == "gzip.open" and not modes
            if not binary and not any(one.arg == "encoding" for one in call.keywords):
                careless.append(f"{path.name}:{call.lineno}: {called}")
    assert not careless


def test_a_drive_is_no_address() -> None:
    assert local_path("C:/corpora/swc") == Path("C:/corpora/swc")
    with pytest.raises(CwjaxError, match="gs://"):
        local_path("gs://corpora/swc")


def test_help_can_be_read_where_letters_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    demo = (ROOT / "configs" / "demo.py").read_text(encoding="utf-8")
    config = tmp_path / "config.py"
    config.write_text(
        f"{demo}\nimport dataclasses\nconfig = dataclasses.replace(config, workdir='Läufe')\n", encoding="utf-8"
    )
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(config), "--help"])
    assert not stop.value.code
    sys.stdout.flush()
    assert b"L?ufe" in written.getvalue()


@pytest.mark.parametrize("home", ["a file", "none"])
def test_without_a_place_for_compiled_programs_work_goes_on(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home == "none":
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user that the system does not know
    else:
        (tmp_path / "home").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        machine.keep_compiled_programs()
        assert not jax.config.jax_compilation_cache_dir
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    (line,) = caplog.messages
    assert line.startswith("compiled programs are not kept")
    assert str(tmp_path / "home" if home == "a file" else "no home directory") in line
    assert "JAX_COMPILATION_CACHE_DIR" in line
