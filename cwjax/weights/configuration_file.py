"""Reading `config.json` of a checkpoint in Hugging Face's layout."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from cwjax.errors import CwjaxError
from cwjax.files import read_json
from cwjax.models.configuration import configured

CONFIG_FILE = "config.json"

Sizes = TypeVar("Sizes")


def read_config(directory: str | Path) -> dict[str, Any]:
    """The settings in `config.json`.

    Raises:
        CwjaxError: it is missing or no JSON object.
    """
    return read_json(Path(directory) / CONFIG_FILE, "name a directory that holds a whole checkpoint")


@contextlib.contextmanager
def errors_name(directory: str | Path) -> Iterator[None]:
    """Puts the path of `config.json` before what is said of its values."""
    try:
        yield
    except CwjaxError as error:
        reason = str(error).removeprefix(f"{CONFIG_FILE}: ")
        raise CwjaxError(f"{Path(directory) / CONFIG_FILE}: {reason}") from error


def sizes_from(kind: type[Sizes], settings: dict[str, Any]) -> Sizes:
    """The sizes that `settings` names; what is left out has the default of transformers, which is the default here."""
    names = {field.name for field in dataclasses.fields(kind)}
    return configured(kind, {name: value for name, value in settings.items() if name in names}, CONFIG_FILE)


def require_setting(settings: dict[str, Any], name: str, wanted: Any, default: Any = None) -> None:
    """Raises `CwjaxError` unless a setting has the one value that is supported."""
    found = settings.get(name, default)
    if found != wanted:
        raise CwjaxError(
            f"{CONFIG_FILE}: {name} is {found!r}, but only {wanted!r} is supported here; choose another checkpoint"
        )
