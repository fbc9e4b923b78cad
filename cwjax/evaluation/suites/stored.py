"""Audio inside of a table, an archive or a longer recording, read when its turn comes: suites outgrow memory."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cwjax.data.audio.decode import read_audio


@dataclass(frozen=True, eq=False)
class Stored:
    """Samples at 16 kHz, (n,), which are read each time that numpy asks for them.

    Attributes:
        where: it stands, for messages.
        load: gives the samples, or the content of an audio file.
    """

    where: str
    load: Callable[[], bytes | np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Raises CwjaxError if it can no longer be read, or is no audio."""
        content = self.load()
        if isinstance(content, bytes):
            file = io.BytesIO(content)
            file.name = self.where
            content = read_audio(file)
        return np.asarray(content, dtype)
