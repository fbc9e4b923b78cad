"""What is aligned: a text, the recordings in which it is read, and the times of words that are known already."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from cwjax.alignment.placing import Placement
from cwjax.alignment.written import Written, plain, read_written
from cwjax.data.audio.decode import audio_duration
from cwjax.errors import CwjaxError

ALIGNMENT_FILE = "aligned.swc"
AUDIO_NAME = re.compile(r"audio([1-9]\d*|)\.\w+", re.IGNORECASE)
"""Of a Spoken Wikipedia's article."""


@dataclass(frozen=True)
class Recording:
    """A file of a book's sound, and its name among those of all books."""

    name: str
    path: Path


@dataclass(frozen=True)
class Book:
    """A text that is read aloud.

    Attributes:
        name: for messages and reports.
        text_path: where the text is from.
        recordings: in which it is read, in the order in which it mostly is.
        encoding: of a plain text; None: UTF-8.
    """

    name: str
    text_path: Path
    recordings: Sequence[Recording]
    encoding: str | None = None

    def read(self) -> tuple[Written, Placement | None]:
        """The words of the text, and where those are whose times are known; None: of none.

        Raises:
            CwjaxError: the text cannot be read, see `read_written`.
        """
        if self.text_path.suffix == ".swc":
            return _read_article(self.text_path.parent, [one.path.name for one in self.recordings])
        return read_written(self.text_path, self.encoding), None


def find_books(root: Path, recordings: Sequence[Recording], encoding: str | None) -> tuple[list[Book], dict[str, str]]:
    """The books below a folder: LibriVox's layout, chapters and one text in a folder, and Spoken Wikipedia's articles.

    Args:
        root: the folder.
        recordings: all that lie below it.
        encoding: of plain texts.

    Returns:
        The books, and what is wrong with other folders that hold recordings, by their names.
    """
    folders: dict[Path, list[Recording]] = {}
    for one in recordings:
        folders.setdefault(one.path.parent, []).append(one)
    books, failures = [], {}
    for folder, here in folders.items():
        name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
        texts = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.is_file())
        if (folder / ALIGNMENT_FILE).is_file():
            numbers = {one: AUDIO_NAME.fullmatch(one.path.name) for one in here}
            parts = sorted((one for one in here if numbers[one]), key=lambda one: int(numbers[one][1] or 0))
            books.append(Book(name, folder / ALIGNMENT_FILE, parts))
        elif len(texts) == 1:
            books.append(Book(name, texts[0], here, encoding))
        else:
            names = ", ".join(path.name for path in texts[:3])
            found = f"holds {len(texts)} texts ({names})" if texts else "holds recordings but no text"
            failures[name] = f"{folder}: {found}; keep one .txt beside the recordings"
    return books, failures


def _read_article(folder: Path, names: Sequence[str]) -> tuple[Written, Placement]:
    """A Spoken Wikipedia article: its words, and where those are that have a time that can be right, by the names of
    recordings."""
    from cwjax.data.corpora.segmentation_settings import SegmentationSettings
    from cwjax.data.corpora.swc.article import read_article, with_durations  # need lxml
    from cwjax.data.corpora.swc.word_times import forget_bad_times, read_words, speaking_rate

    article = read_article(folder)
    parts = article.audio_parts
    parts = with_durations(article, [audio_duration(folder / Path(part.path).name) for part in parts]).audio_parts
    words = read_words(article.tokens)
    borders = [1000 * (part.offset + part.duration) for part in parts]
    forget_bad_times(words, speaking_rate(words), borders, SegmentationSettings())
    pieces = [token.piece for token in article.tokens]
    places, text = [0, *accumulate(map(len, pieces))], "".join(pieces)
    kept, begins, ends, forms = [], [], [], []
    for word in words:
        begin, end = places[word.begin], places[word.finish]
        form = plain(text[begin:end]) or plain("".join(norm[0] for norm in article.tokens[word.token].norms))
        if form and not word.is_extra:
            kept.append(word)
            begins.append(begin)
            ends.append(end)
            forms.append(form)
    if not kept:
        raise CwjaxError(f"{folder / ALIGNMENT_FILE}: holds no words; give the text that is read")
    known = Placement.empty(len(kept))
    for number, word in enumerate(kept):
        if word.is_timed:
            started = [part for part in parts if part.offset <= word.heard_start / 1000]
            name = Path(started[-1].path).name if started else ""
            if name in names:
                known.recording[number], known.likeness[number] = names.index(name), 1
                known.start[number] = word.heard_start / 1000 - started[-1].offset
                known.end[number] = word.heard_end / 1000 - started[-1].offset
    return Written(text, np.array(begins), np.array(ends), forms), known
