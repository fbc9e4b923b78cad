"""Reading `config.json` of a checkpoint in Hugging Face's layout."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from cwjax.errors import CwjaxError

CONFIG_FILE = "config.json"

Sizes = TypeVar("Sizes")


def read_config(directory: str | Path) -> dict[str, Any]:
    """The settings in `config.json`.

    Raises:
        CwjaxError: it is missing or no JSON object.
    """
    file = Path(directory) / CONFIG_FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CwjaxError(
            f"{file}: cannot be read ({error.strerror}); name a directory that holds a whole checkpoint"
        ) from error
    except ValueError as error:
        raise CwjaxError(f"{file}: is no valid JSON ({error}); fetch it again") from error
    if not isinstance(settings, dict):
        raise CwjaxError(f"{file}: holds no JSON object; fetch it again")
    return settings


def sizes_from(kind: type[Sizes], settings: dict[str, Any]) -> Sizes:
    """The sizes that `settings` names; what is left out has the default of transformers, which is the default here."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in settings.items() if name in names})


def require_setting(settings: dict[str, Any], name: str, wanted: Any, default: Any = None) -> None:
    """Raises `CwjaxError` unless a setting has the one value that is supported."""
    found = settings.get(name, default)
    if found != wanted:
        raise CwjaxError(
            f"{CONFIG_FILE}: {name} is {found!r}, but only {wanted!r} is supported here; choose another checkpoint"
        )
