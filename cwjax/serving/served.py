"""The model that is served."""

import re
from dataclasses import dataclass
from pathlib import Path

from cwjax.inference.transcriber import Transcriber

_ALIASES = re.compile(r"whisper-1|gpt-realtime-whisper|gpt-[\w.-]*transcribe[\w.-]*")
"""What clients ask for because they know no other names."""


@dataclass(frozen=True)
class Served:
    """A model, and what requests that say nothing are given.

    Attributes:
        transcriber: does the work.
        name: what the model was loaded from.
        takes_context: whether contexts have an effect.
        context: of recordings that come without one.
        created: when the server began, in seconds since 1970.
    """

    transcriber: Transcriber
    name: str
    takes_context: bool
    context: str = ""
    created: int = 0

    @property
    def id(self) -> str:
        """What the model is called in answers: OWNER/NAME, or the name of its folder, or of the run that it is of."""
        place = Path(self.name)
        if not place.exists():
            return self.name
        place = place.resolve()
        return place.parent.name if place.name == "model" else place.name

    def knows(self, model: str) -> bool:
        """Whether a name means this model."""
        return model in (self.id, self.name) or bool(_ALIASES.fullmatch(model))

    @property
    def spots_phrases(self) -> bool:
        """Whether it can listen for phrases."""
        return self.transcriber.phrases.spotter is not None
