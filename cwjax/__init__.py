"""Whisper speech recognition that understands context, in JAX."""

from typing import TYPE_CHECKING, Any

from cwjax.errors import CwjaxError

if TYPE_CHECKING:
    from cwjax.model import Model, load

__version__ = "0.1.0"
__all__ = ["CwjaxError", "Model", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Model` bring JAX along only when they are used, so that `--help` is quick."""
    if name in ("Model", "load"):
        from cwjax import model

        return getattr(model, name)
    raise AttributeError(f"module 'cwjax' has no attribute {name!r}")
