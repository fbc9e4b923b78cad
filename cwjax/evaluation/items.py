"""What is transcribed and scored in an evaluation, wherever it comes from: a prepared corpus or a public suite."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """A recording with what was said in it and what is known about it.

    Attributes:
        id: unique in the evaluation.
        audio: whatever `cwjax.inference.audio.Recording.open` takes; opened when its turn comes.
        reference: what was said.
        language: Whisper's code.
        texts: what a user could say about the recording, by kind: `topic`, `title`, `lead`, `previous` (what was said
            before), `wrong` (the topic of another), `homophone` (that of the word that sounds the same), `right` (all
            that a careful user would say). Kinds that are not known are missing.
        phrases: words and names that are said and hard to spell, as they are written.
        distractors: those that the suite lists beside them and that are not said, in the suite's order.
        fields: what `cwjax score` is to know, such as `speaker`, `recording`, `subset`, `topic`, `cluster`,
            `bias_words`, `entities`, `keywords`, `homophone`; JSON values.
    """

    id: str
    audio: Any
    reference: str
    language: str = "en"
    texts: Mapping[str, str] = field(default_factory=dict)
    phrases: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
