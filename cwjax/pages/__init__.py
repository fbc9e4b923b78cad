"""HTML pages, from the templates beside this file; a page holds all that it shows and asks nothing of the network."""

import base64
import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from cwjax.data.audio.log_mel import SAMPLING_RATE

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """A page as HTML; text in the values is escaped, and a template that asks for another value raises.

    Args:
        template: file name in `templates`.
        values: what it shows, by name.
    """
    return _environment().get_template(template).render(values)


def audio_uri(samples: np.ndarray) -> str:
    """Samples at 16 kHz, (n,), as the address of a sound that a page holds itself: MP3, which every browser plays."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="MP3")
    return "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # transcribing does without

    environment = Environment(
        loader=PackageLoader("cwjax.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["audio_uri"] = audio_uri
    return environment
