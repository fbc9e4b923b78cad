"""HTML pages, from the templates beside this file; a page holds all that it shows and asks nothing of the network.

`static` holds style and scripts of pages, which the server's page loads as they are.
"""

import base64
import functools
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from cwjax.data.audio.log_mel import SAMPLING_RATE

if TYPE_CHECKING:
    from jinja2 import Environment

STATIC = Path(__file__).with_name("static")
_IMPORT = re.compile(r'^import (\{.*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:const|function|class) (\w+))", re.MULTILINE)


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


def style(name: str) -> str:
    """A style sheet of `static`, for a page that holds it."""
    return (STATIC / f"{name}.css").read_text(encoding="utf-8")


def script(name: str) -> str:
    """A module of `static` and those that it imports as one script, in which each is an object of what it exports."""
    modules: dict[str, str] = {}

    def add(name: str) -> None:
        text = (STATIC / f"{name}.js").read_text(encoding="utf-8")
        for _, other in _IMPORT.findall(text):
            if other not in modules:
                add(other)
        exported = ", ".join(name for _, name in _EXPORT.findall(text))
        text = _IMPORT.sub(lambda found: f"const {found[1].replace(' as ', ': ')} = {found[2]};", text)
        text = _EXPORT.sub(r"\1", text)
        modules[name] = f"const {name} = (() => {{\n{text}return {{ {exported} }};\n}})();\n"

    add(name)
    return "".join(modules.values())


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
    environment.globals |= {"script": script, "style": style}
    return environment
