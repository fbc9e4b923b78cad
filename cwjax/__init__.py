"""Whisper speech recognition that understands context, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from cwjax.errors import CwjaxError

if TYPE_CHECKING:
    from cwjax.inference.options import DecodingOptions
    from cwjax.inference.transcript import Segment, Transcript, Word
    from cwjax.model import Model, load

__version__ = "0.2.0"

_MODULES = {
    "DecodingOptions": "cwjax.inference.options",
    "Model": "cwjax.model",
    "Segment": "cwjax.inference.transcript",
    "Transcript": "cwjax.inference.transcript",
    "Word": "cwjax.inference.transcript",
    "load": "cwjax.model",
}
__all__ = ["CwjaxError", "DecodingOptions", "Model", "Segment", "Transcript", "Word", "load"]


def __getattr__(name: str) -> Any:
    """What brings JAX along is imported only when it is used, so that `--help` is quick."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'cwjax' has no attribute {name!r}")
