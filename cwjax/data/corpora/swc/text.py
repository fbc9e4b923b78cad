"""The text of a Spoken Wikipedia article: `aligned.swc` -> tokens in document order.

The file is mixed-content XML: spaces are the character data between the `<t>` elements, so a reader
that keeps only elements loses them, and one that groups children by tag loses the order. Both are
kept here. Text that was not read aloud (`<ignored>`) is dropped, and a sentence that a footnote cut
in two is joined again.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from lxml import etree

from cwjax.errors import CwjaxError

MAX_NESTING = 200
LATEST_TIME = 10**12  # ms; no recording lasts for thirty years

# Half of a file is the times of single sounds, which nothing here reads.
_PHONEME = re.compile(rb"<ph [^<>/]*+(?:></ph>|/>)")
_SENTENCE_END = ".!?…"
_CLOSERS = "\"'”“’‘»«›‹)]"


class Norm(NamedTuple):
    """One spoken form of (a part of) a token; both times in milliseconds, or both None if they tell no interval."""

    pronunciation: str
    start_ms: int | None = None
    end_ms: int | None = None


class Place(NamedTuple):
    """Where in the article a token stands; see `Token`."""

    kind: Literal["body", "title", "extra"]
    sentence: int
    paragraph: int
    section: tuple[str, ...]
    is_lead: bool


class Token(NamedTuple):
    """A word or a punctuation mark of the text.

    Attributes:
        surface: as written, runs of white space (also non-breaking) collapsed to one space.
        space_before: whether white space stands between this token and the one before it.
        norms: spoken forms: none for punctuation, several for "1938" or "A&B".
        kind: "extra" is an announcement that the makers of the corpus guessed; it is no text of
            the article and serves only by its times.
        sentence, paragraph: numbers that change where a new one begins; a title has its own.
        section: titles of the enclosing sections, outermost first.
        is_lead: stands before the first section.
    """

    surface: str
    space_before: bool
    norms: tuple[Norm, ...]
    kind: Literal["body", "title", "extra"]
    sentence: int
    paragraph: int
    section: tuple[str, ...]
    is_lead: bool


class Tokens:
    """The tokens of an article in document order. Kept in columns, for there are thousands.

    Attributes:
        surfaces, spaces, places: of each token what it is as written, whether white space stands before it, and where
            it stands.
        norms: of each spoken form the number of its token, ascending, its pronunciation, and when it starts and ends,
            milliseconds or None.
    """

    def __init__(self) -> None:
        self.surfaces: list[str] = []
        self.spaces: list[bool] = []
        self.places: list[Place] = []
        self.norms: list[tuple[int, str, int | None, int | None]] = []

    def __len__(self) -> int:
        return len(self.surfaces)

    def __getitem__(self, number: int) -> Token:
        number = range(len(self))[number]
        first, end = (bisect_left(self.norms, one, key=itemgetter(0)) for one in (number, number + 1))
        norms = tuple(Norm(*norm) for _, *norm in self.norms[first:end])
        return Token(self.surfaces[number], self.spaces[number], norms, *self.places[number])

    @cached_property
    def pieces(self) -> list[str]:
        """What each token adds to the text, the space before it included; guessed announcements add nothing."""
        written = _spaced(self.surfaces, self.spaces)
        return ["" if place.kind == "extra" else piece for piece, place in zip(written, self.places, strict=True)]

    def text(self, first: int = 0, end: int | None = None) -> str:
        """Tokens `first` to before `end` as written, with the spacing they have in the document."""
        return "".join(self.pieces[first:end]).strip()


def _spaced(surfaces: Sequence[str], spaces: Sequence[bool]) -> list[str]:
    return [" " + surface if space else surface for surface, space in zip(surfaces, spaces, strict=True)]


def is_spoken(pronunciation: str) -> bool:
    """Whether a form has a letter or digit; dashes and arrows come with a form that has none."""
    return any(map(str.isalnum, pronunciation))


def read_document(path: Path) -> etree._Element:
    """The root element of an `aligned.swc`; entities are never expanded and nothing else is opened.

    Raises CwjaxError for a file that cannot be read, is not well-formed, declares a document type
    or holds no article.
    """
    try:
        data = path.read_bytes() if path.is_file() or not path.exists() else b""
    except OSError as error:
        raise unusable(path, f"cannot be read ({error.strerror})") from None
    data = _PHONEME.sub(b"", data)
    if b"<!DOCTYPE" in data:
        raise unusable(path, "has a document type declaration (DOCTYPE), which the corpus never has")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
        encoding="utf-8",
    )
    try:
        document = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise unusable(path, f"is not well-formed XML ({error.msg})") from None
    if document.tag != "article" or document.find("d") is None:
        raise unusable(path, "is no Spoken Wikipedia article (no <article> with a <d>)")
    return document


def read_tokens(document: etree._Element, path: Path) -> Tokens:
    """All tokens of the document's `<d>` but the ignored ones, in document order.

    Raises CwjaxError, naming `path`, if an element is nested too deeply or a time is no number.
    """
    return _TokenCollector(path).collect(document)


def unusable(path: Path, reason: str) -> CwjaxError:
    """The error for an article that cannot be used; `path` is the file at fault."""
    return CwjaxError(f"{path}: {reason}; leave this article out or fetch it from the corpus again")


class _TokenCollector:
    """Walks the document once, in order, and collects its tokens."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens = Tokens()
        self._space = False  # white space seen since the last token
        self._sentence = 0
        self._paragraph = 0
        self._last_paragraph = 0  # number handed out last
        self._section: tuple[str, ...] = ()
        self._is_lead = True
        self._footnote_after: int | None = None  # paragraph in which a footnote directly follows a sentence

    def collect(self, document: etree._Element) -> Tokens:
        """The tokens of the document's `<d>`."""
        self._walk(document.find("d"), depth=0)
        return self._tokens

    def _walk(self, container: etree._Element, depth: int) -> None:
        """Children of `d`, `p`, `section` and `sectioncontent`, white space between them included."""
        if depth > MAX_NESTING:
            raise unusable(self._path, f"elements are nested more than {MAX_NESTING} deep")
        self._note_space(container.text)
        for child in container:
            tag = child.tag
            if tag == "s":
                self._read_sentence(child, in_paragraph=container.tag == "p")
            elif tag == "ignored":
                self._pass_ignored(child)
            else:
                self._footnote_after = None
                self._space = True
                if tag == "p":
                    self._walk_paragraph(child, depth)
                elif tag == "section":
                    outer, self._is_lead = self._section, False
                    self._walk(child, depth + 1)
                    self._section = outer
                elif tag == "sectiontitle":
                    self._read_title(child)
                elif tag == "sectioncontent":
                    self._walk_paragraph(child, depth)
                elif tag == "extra":
                    for sentence in child.iterfind("s"):
                        self._sentence += 1
                        self._read_tokens(sentence, "extra")
                self._space = True
                self._footnote_after = None
            self._note_space(child.tail)

    def _walk_paragraph(self, element: etree._Element, depth: int) -> None:
        outer = self._paragraph
        self._open_paragraph()
        self._walk(element, depth + 1)
        self._paragraph = outer

    def _open_paragraph(self) -> None:
        self._last_paragraph += 1
        self._paragraph = self._last_paragraph

    def _read_sentence(self, element: etree._Element, in_paragraph: bool) -> None:
        """A sentence; outside paragraphs it is the item of a list.

        A footnote cuts a sentence into two elements. The second continues the first when that one
        lacks the punctuation of a sentence's end.
        """
        continues = in_paragraph and self._footnote_after == self._paragraph and not self._ends_sentence()
        self._footnote_after = None
        if not continues:
            self._sentence += 1
        if not in_paragraph:
            self._space = True
        self._read_tokens(element, "body")

    def _ends_sentence(self) -> bool:
        for surface, place in zip(reversed(self._tokens.surfaces), reversed(self._tokens.places), strict=True):
            if place.sentence != self._sentence:
                return True
            if core := surface.rstrip(_CLOSERS):
                return core[-1] in _SENTENCE_END
        return True

    def _pass_ignored(self, element: etree._Element) -> None:
        """Ignored text was not read aloud; a footnote mark such as [1] does not even part two words."""
        first = element.find("s/t")
        if first is not None and (first.text or "").startswith("["):
            if self._tokens and self._tokens.places[-1].paragraph == self._paragraph:
                self._footnote_after = self._paragraph
        else:
            self._footnote_after = None
            self._space = True

    def _read_title(self, element: etree._Element) -> None:
        self._sentence += 1
        outer = self._paragraph
        self._open_paragraph()
        tokens, first = self._tokens, len(self._tokens)
        self._read_tokens(element, "title")
        title = "".join(_spaced(tokens.surfaces[first:], tokens.spaces[first:])).strip()
        if title:
            self._section = (*self._section, title)
            tokens.places[first:] = [place._replace(section=self._section) for place in tokens.places[first:]]
        self._paragraph = outer

    def _read_tokens(self, element: etree._Element, kind: Literal["body", "title", "extra"]) -> None:
        self._note_space(element.text)
        tokens, space = self._tokens, self._space
        surfaces, spaces, places, norms = tokens.surfaces, tokens.spaces, tokens.places, tokens.norms
        place = Place(kind, self._sentence, self._paragraph, self._section, self._is_lead)
        for child in element:
            if child.tag == "t":
                forms = child[:]
                text = child.get("text") if kind == "extra" else None
                if text is None:
                    text = child.text or ""
                    for form in forms:
                        text += form.tail or ""
                if text.isalnum():
                    surface, space_before, space_after = text, space, False
                else:
                    surface = " ".join(text.split())
                    space_before, space_after = space or text[:1].isspace(), text[-1:].isspace()
                if surface:
                    for form in forms:
                        start, end = form.get("start"), form.get("end")
                        if start is not None and end is not None:
                            try:
                                start, end = int(start), int(end)
                            except ValueError:
                                raise self._no_time(form) from None
                            if not 0 <= start < end < LATEST_TIME:
                                start = end = None
                        norms.append((len(surfaces), form.get("pronunciation", ""), start, end))
                    surfaces.append(surface)
                    spaces.append(space_before and bool(places))
                    places.append(place)
                    space = space_after
            if (tail := child.tail) and (tail[0].isspace() or tail[-1].isspace()):
                space = True
        self._space = space

    def _no_time(self, form: etree._Element) -> CwjaxError:
        name, start, end = form.get("pronunciation", ""), form.get("start", ""), form.get("end", "")
        times = f"({start[:20]!r} to {end[:20]!r})"
        return unusable(self._path, f"a time of {name!r} is no whole number of milliseconds {times}")

    def _note_space(self, text: str | None) -> None:
        if text and (text[0].isspace() or text[-1].isspace()):
            self._space = True
