"""What is transcribed and scored in an evaluation, wherever it comes from: a prepared corpus or a public suite."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from cwjax.data.audio.decode import log as reading_log
from cwjax.data.audio.decode import name_of
from cwjax.errors import CwjaxError
from cwjax.inference.audio import Recording
from cwjax.inference.audio import log as recording_log


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

    def open(self, again: bool = False) -> Recording:
        """Reads its audio. What is wrong with it is said under the file's or the item's name, and not `again`.

        Raises:
            CwjaxError: it cannot be read.
        """
        nameless = name_of(None)

        def tell(record: logging.LogRecord) -> bool:
            record.args = tuple(self.id if one == nameless else one for one in record.args or ())
            return not again

        with ExitStack() as opened:
            for log in (reading_log, recording_log):
                log.addFilter(tell)
                opened.callback(log.removeFilter, tell)
            try:
                found = Recording.open(self.audio)
            except CwjaxError as error:
                raise CwjaxError(str(error).replace(nameless, self.id)) from error
        return replace(found, name=found.name.replace(nameless, self.id))
