"""The text of a Spoken Wikipedia article: `aligned.swc` -> tokens in document order.

The file is mixed-content XML: spaces are the character data between the `<t>` elements, so a reader
that keeps only elements loses them, and one that groups children by tag loses the order. Both are
kept here. Text that was not read aloud (`<ignored>`) is dropped, and a sentence that a footnote cut
in two is joined again.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lxml import etree

from cwjax.errors import CwjaxError

MAX_NESTING = 200

# Half of a file is the times of single sounds, which nothing here reads.
_PHONEME = re.compile(rb"<ph [^<>]*(?:/>|></ph>)")
_SENTENCE_END = ".!?…"
_CLOSERS = "\"'”“’‘»«›‹)]"


class Norm(NamedTuple):
    """One spoken form of (a part of) a token; both times in milliseconds, or both None."""

    pronunciation: str
    start_ms: int | None = None
    end_ms: int | None = None

    @property
    def is_spoken(self) -> bool:
        """Has a letter or digit; dashes and arrows come with a form that has none."""
        return self.pronunciation.isalnum() or any(map(str.isalnum, self.pronunciation))


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


def surface_text(tokens: Sequence[Token]) -> str:
    """The tokens as written, with the spacing they have in the document."""
    return "".join(" " + token.surface if token.space_before else token.surface for token in tokens).strip()


def read_document(path: Path) -> etree._Element:
    """The root element of an `aligned.swc`; entities are never expanded and nothing else is opened.

    Raises CwjaxError for a file that cannot be read, is not well-formed, declares a document type
    or holds no article.
    """
    try:
        data = path.read_bytes() if path.is_file() or not path.exists() else b""
    except OSError as error:
        raise unusable(path, f"cannot be read ({error.strerror})") from None
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
        document = etree.fromstring(_PHONEME.sub(b"", data), parser)
    except etree.XMLSyntaxError as error:
        raise unusable(path, f"is not well-formed XML ({error.msg})") from None
    if document.tag != "article" or document.find("d") is None:
        raise unusable(path, "is no Spoken Wikipedia article (no <article> with a <d>)")
    return document


def read_tokens(document: etree._Element, path: Path) -> tuple[Token, ...]:
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
        self._tokens: list[Token] = []
        self._space = False  # white space seen since the last token
        self._sentence = 0
        self._paragraph = 0
        self._last_paragraph = 0  # number handed out last
        self._section: tuple[str, ...] = ()
        self._is_lead = True
        self._footnote_after: int | None = None  # paragraph in which a footnote directly follows a sentence

    def collect(self, document: etree._Element) -> tuple[Token, ...]:
        """The tokens of the document's `<d>`."""
        self._walk(document.find("d"), depth=0)
        return tuple(self._tokens)

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
        for token in reversed(self._tokens):
            if token.sentence != self._sentence:
                return True
            if core := token.surface.rstrip(_CLOSERS):
                return core[-1] in _SENTENCE_END
        return True

    def _pass_ignored(self, element: etree._Element) -> None:
        """Ignored text was not read aloud; a footnote mark such as [1] does not even part two words."""
        first = element.find("s/t")
        if first is not None and (first.text or "").startswith("["):
            if self._tokens and self._tokens[-1].paragraph == self._paragraph:
                self._footnote_after = self._paragraph
        else:
            self._footnote_after = None
            self._space = True

    def _read_title(self, element: etree._Element) -> None:
        self._sentence += 1
        outer = self._paragraph
        self._open_paragraph()
        first = len(self._tokens)
        self._read_tokens(element, "title")
        title = surface_text(self._tokens[first:])
        if title:
            self._section = (*self._section, title)
            self._tokens[first:] = [token._replace(section=self._section) for token in self._tokens[first:]]
        self._paragraph = outer

    def _read_tokens(self, element: etree._Element, kind: Literal["body", "title", "extra"]) -> None:
        self._note_space(element.text)
        tokens, space = self._tokens, self._space
        place = (kind, self._sentence, self._paragraph, self._section, self._is_lead)
        for child in element:
            if child.tag == "t":
                forms = child[:]
                text = child.get("text") if kind == "extra" else None
                if text is None:
                    text = child.text or ""
                    for form in forms:
                        text += form.tail or ""
                if text and (surface := text if text.isalnum() else " ".join(text.split())):
                    norms = tuple([self._read_norm(form) for form in forms if form.tag == "n"]) if forms else ()
                    tokens.append(Token(surface, (space or text[0].isspace()) and bool(tokens), norms, *place))
                    space = text[-1].isspace()
            if (tail := child.tail) and (tail[0].isspace() or tail[-1].isspace()):
                space = True
        self._space = space

    def _read_norm(self, element: etree._Element) -> Norm:
        pronunciation = element.get("pronunciation", "")
        start = element.get("start")
        if start is None or (end := element.get("end")) is None:
            return Norm(pronunciation)
        try:
            start_ms, end_ms = int(start), int(end)
        except ValueError:
            reason = f"a time of {pronunciation!r} is no whole number of milliseconds ({start[:20]!r} to {end[:20]!r})"
            raise unusable(self._path, reason) from None
        return Norm(pronunciation, start_ms, end_ms) if 0 <= start_ms < end_ms else Norm(pronunciation)

    def _note_space(self, text: str | None) -> None:
        if text and (text[0].isspace() or text[-1].isspace()):
            self._space = True
