"""What was heard in an evaluation, a line an item and condition, as `cwjax score` reads it: `hypotheses.jsonl`.

Lines are written as they come, each process's to a file of its own, `hypotheses.N.partial.jsonl`; when all are there,
the first process writes `hypotheses.jsonl`. Each line has a hash of all that it was made of, so that a line that is
there already is taken over only if the same would come out again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from cwjax.errors import CwjaxError
from cwjax.evaluation.conditions import Condition, Given
from cwjax.evaluation.items import Item
from cwjax.files import write_text
from cwjax.inference.transcript import Transcript

log = logging.getLogger(__name__)

HYPOTHESES_FILE = "hypotheses.jsonl"
PARTIAL = "hypotheses.{}.partial.jsonl"

Line = dict[str, Any]
"""`id`, `condition`, `hypothesis`, `context` (the text that was told, in whatever way), `phrases` (how many),
`duration` of the recording and `seconds` of work, `words` with times if there are, `made_of`, and what `described`
adds."""
_HEARD = ("id", "condition", "hypothesis", "context", "phrases", "duration", "seconds", "words", "made_of")


def line_of(
    item: Item, condition: Condition, given: Given, made_of: str, transcript: Transcript, seconds: float
) -> Line:
    """What is kept of a transcript."""
    line = {"id": item.id, "condition": condition.name, "hypothesis": transcript.text.strip(), "context": given.text}
    line |= {"phrases": len(given.phrases), "duration": round(transcript.duration, 2), "seconds": round(seconds, 4)}
    words = [
        {"word": word.text, "start": round(word.start, 2), "end": round(word.end, 2)}
        for segment in transcript.segments
        for word in segment.words or ()
    ]
    return described(line | ({"words": words} if words else {}) | {"made_of": made_of}, item)


def described(line: Line, item: Item) -> Line:
    """A line with what is known of its item now: `reference`, `language`, its phrases as `bias_words`, its fields."""
    bias_words = {"bias_words": list(item.phrases)} if item.phrases or item.distractors else {}
    heard = {name: line[name] for name in _HEARD if name in line}
    return heard | {"reference": item.reference, "language": item.language} | bias_words | dict(item.fields)


def hash_of(base: str, item: Item, given: Given) -> str:
    """A hash of all that a transcript depends on but the sound: model and options (`base`), and what was told."""
    parts = [base, item.language, given.context, given.options]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class HypothesesFile:
    """Takes lines as they come. Raises CwjaxError if a file cannot be read or written.

    Args:
        folder: of the files; made if need be.
        resume: take over lines that are there; otherwise they are replaced.
    """

    def __init__(self, folder: Path, resume: bool = False):
        self.path = folder / HYPOTHESES_FILE
        self._own = folder / PARTIAL.format(jax.process_index())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            left = sorted(folder.glob(PARTIAL.format("*")))
            self._known = [line for path in (self.path, *left) for line in _lines(path)] if resume else []
            if self._own in left and not resume:
                log.warning("%s: of an evaluation that was not finished; this one begins anew", self._own)
            mine = list(_lines(self._own)) if resume else []
            # The last line may have been cut short; what follows must not stick to it.
            write_text(self._own, "".join(map(_text, mine)))
            self._file = self._own.open("a", encoding="utf-8")
        except OSError as error:
            raise self._failed(error) from error

    def find(self, made_of: Callable[[Line], str | None]) -> list[Line]:
        """The lines that are there already, the last of each id and condition.

        Args:
            made_of: what a line must have been made of to be taken over; None: it is not asked for.

        Raises:
            CwjaxError: there are lines that are not asked for, and would be lost.
        """
        found: dict[tuple[str, str], Line] = {}
        others: dict[tuple[str, str], None] = {}
        wanted = [made_of(line) for line in self._known]
        if strange := [line for line, one in zip(self._known, wanted, strict=True) if one is None]:
            raise CwjaxError(
                f"{self.path}: {len(strange)} lines are of items or conditions that are not asked for, such as "
                f"{strange[0]['id']} with {strange[0]['condition']}, and would be lost; ask for them, too, or name "
                "another --output"
            )
        for line, one in zip(self._known, wanted, strict=True):
            key = line["id"], line["condition"]
            if one == line.get("made_of"):
                found[key] = line
            else:
                others[key] = None
        if self._known:
            log.info("%d lines are there already and are taken over", len(found))
        if again := len(others.keys() - found.keys()):
            log.warning("%s: %d lines are of another model, other options or texts: done again", self.path, again)
        return list(found.values())

    def add(self, line: Line) -> None:
        """Writes a line at once."""
        try:
            self._file.write(_text(line))
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Leaves the lines so far to be taken over, if it is not finished."""
        if not self._file.closed:
            self._file.close()
            log.info("%s: keeps what was heard so far (see --resume)", self._own)

    def finish(self, lines: Sequence[Line] | None) -> None:
        """Puts all lines where they belong, on the process that has them, and removes what was aside."""
        self._file.close()
        try:
            if lines is not None:
                write_text(self.path, "".join(map(_text, lines)))
                for path in self.path.parent.glob(PARTIAL.format("*")):
                    path.unlink(missing_ok=True)
            self._own.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> CwjaxError:
        return CwjaxError(f"{self.path}: cannot be written ({error.strerror}); choose another --output")


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _lines(path: Path) -> Iterator[Line]:
    """The lines of a file, but for what is damaged or of another program."""
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and all(isinstance(line.get(key), str) for key in ("id", "condition", "hypothesis")):
            yield line
