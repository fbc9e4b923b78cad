"""Packages that transcribing does without: which extra brings each."""

import importlib.util

from cwjax.errors import CwjaxError

EXTRAS = {
    "grain": "train",
    "optax": "train",
    "orbax": "train",
    "transformers": "train",
    "tyro": "train",
    "langcodes": "prepare",
    "lxml": "prepare",
    "pysubs2": "prepare",
    "matplotlib": "charts",
    "espeakng_loader": "demo",
    "contractions": "scoring",
    "pyarrow": "suites",
    "starlette": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
}
"""Package -> extra; an extra may bring those of others, too."""


def require_package(name: str, purpose: str) -> None:
    """Raises `CwjaxError` if a package is not installed; `purpose` is what needs it."""
    if importlib.util.find_spec(name) is None:
        raise missing_package(name, purpose)


def missing_package(name: str, purpose: str) -> CwjaxError:
    """What to say of a package that is not installed."""
    return CwjaxError(f"{purpose} needs the package {name}, not installed here: pip install 'cwjax[{EXTRAS[name]}]'")
