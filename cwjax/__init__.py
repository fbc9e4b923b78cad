"""Whisper speech recognition that understands context, in JAX."""

from cwjax.errors import CwjaxError

__version__ = "0.1.0"
__all__ = ["CwjaxError"]
