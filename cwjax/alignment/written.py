"""The text that is read aloud: its words, as written and as they are compared.

A word is what stands between white space, or between it and a dash; in scripts without spaces every character is one.
Marks without a letter or digit belong to the word before them.
"""

import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cwjax.errors import CwjaxError

_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff0f\uff1a-\uff20"
_DASH = r"--+|[\u2012-\u2015]+"
_PIECE = re.compile(rf"[{_SPACELESS}]|(?:(?!--)[^\s{_SPACELESS}\u2012-\u2015])+(?:{_DASH})?|{_DASH}")
_EMPHASIS = re.compile(r"(?<!\w)_+|_+(?!\w)")
"""How plain texts, those of Project Gutenberg among them, mark italics."""
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True)
class Written:
    """A text and its W words.

    Attributes:
        text: all of it.
        begins, ends: (W,) int, the characters of each word, with the marks that belong to it.
        plain: of each word its letters and digits, without case and accents.
    """

    text: str
    begins: np.ndarray
    ends: np.ndarray
    plain: list[str]

    def __len__(self) -> int:
        return len(self.plain)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(W,) int, letters and digits of each word."""
        return np.array([len(word) for word in self.plain], int)

    def between(self, first: int, last: int) -> str:
        """Words `first` to before `last` as written, in one line and without the marks of italics."""
        return " ".join(_EMPHASIS.sub("", self.text[self.begins[first] : self.ends[last - 1]]).split())


def written(text: str) -> Written:
    """Finds the words of a text."""
    begins, ends, words = [], [], []
    for found in _PIECE.finditer(text):
        word = plain(found[0])
        if word:
            begins.append(found.start())
            ends.append(found.end())
            words.append(word)
        elif words:
            ends[-1] = found.end()
    return Written(text, np.array(begins, int), np.array(ends, int), words)


def plain(word: str) -> str:
    """Letters and digits only, without case and accents."""
    if word.isascii():
        return "".join(filter(str.isalnum, word.lower()))
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", word).casefold()))


def ends_phrase(word: str) -> bool:
    """Whether a mark of punctuation follows a word as it is written."""
    return not word.strip()[-1:].isalnum()


def read_written(path: Path, encoding: str | None = None) -> Written:
    """The words of a text file.

    Args:
        path: in UTF-8, or in UTF-16 with a byte order mark.
        encoding: another one.

    Raises:
        CwjaxError: it cannot be read, is no text or in another encoding, or has no words.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be read ({error.strerror}); check the path of the text") from error
    marked = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    try:
        text = content.decode(encoding or ("utf-16" if marked else "utf-8-sig"))
    except LookupError:
        raise CwjaxError(f"--encoding {encoding}: is none that Python knows; cp1252 for instance is") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if _BINARY.search(content[:4096].decode("latin-1")):
            raise CwjaxError(f"{path}: is no plain text; save the book as text (.txt) in UTF-8") from None
        cure = "name its own, such as --encoding cp1252 for older Western texts, or save it as UTF-8"
        raise CwjaxError(f"{path}: is no text in {encoding or 'UTF-8'} (line {line}); {cure}") from None
    if _BINARY.search(text):
        raise CwjaxError(f"{path}: is no plain text; save the book as text (.txt) in UTF-8")
    words = written(text)
    if not len(words):
        raise CwjaxError(f"{path}: holds no words; give the text that is read")
    return words
