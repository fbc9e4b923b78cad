"""The text of a Spoken Wikipedia article: `aligned.swc` -> tokens in document order.

The file is mixed-content XML: spaces are the character data between the `<t>` elements, so a reader
that keeps only elements loses them, and one that groups children by tag loses the order. Both are
kept here. Text that was not read aloud (`<ignored>`) is dropped, and a sentence that a footnote cut
in two is joined again.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from lxml import etree

from cwjax.errors import CwjaxError

MAX_NESTING = 200
LATEST_TIME = 10**12  # ms; no recording lasts for thirty years

_SENTENCE_END = ".!?…"
_CLOSERS = "\"'”“’‘»«›‹)]"


class Norm(NamedTuple):
    """One spoken form of (a part of) a token; both times in milliseconds, or both None if they tell no interval."""

    pronunciation: str
    start_ms: int | None = None
    end_ms: int | None = None


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

    @property
    def piece(self) -> str:
        """What it adds to the text, the space before it included; a guessed announcement adds nothing."""
        return "" if self.kind == "extra" else " " * self.space_before + self.surface


def text_of(tokens: Iterable[Token]) -> str:
    """Tokens as written, with the spacing they have in the document."""
    return "".join(token.piece for token in tokens).strip()


def is_spoken(pronunciation: str) -> bool:
    """Whether a form has a letter or digit; dashes and arrows come with a form that has none."""
    return pronunciation.isalnum() or any(map(str.isalnum, pronunciation))


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
        document = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise unusable(path, f"is not well-formed XML ({error.msg})") from None
    if document.tag != "article" or document.find("d") is None:
        raise unusable(path, "is no Spoken Wikipedia article (no <article> with a <d>)")
    return document


def read_tokens(document: etree._Element, path: Path) -> list[Token]:
    """All tokens of the document's `<d>` but the ignored ones, in document order.

    Raises CwjaxError, naming `path`, if an element is nested too deeply or a time is no number.
    """
    reader = _TokenReader(path)
    reader.walk(document.find("d"), depth=0)
    return reader.tokens


def unusable(path: Path, reason: str) -> CwjaxError:
    """The error for an article that cannot be used; `path` is the file at fault."""
    return CwjaxError(f"{path}: {reason}; leave this article out or fetch it from the corpus again")


class _TokenReader:
    """Walks the document once, in order, and collects its tokens."""

    def __init__(self, path: Path) -> None:
        self.tokens: list[Token] = []
        self._path = path
        self._space = False  # white space seen since the last token
        self._sentence = self._paragraph = self._paragraphs = 0
        self._section: tuple[str, ...] = ()
        self._is_lead = True
        self._footnote_after: int | None = None  # paragraph in which a footnote directly follows a sentence

    def walk(self, container: etree._Element, depth: int) -> None:
        """Children of `d`, `p`, `section` and `sectioncontent`, white space between them included."""
        if depth > MAX_NESTING:
            raise unusable(self._path, f"elements are nested more than {MAX_NESTING} deep")
        self._note_space(container.text)
        for child in container:
            if child.tag == "s":
                self._read_sentence(child, in_paragraph=container.tag == "p")
            elif child.tag == "ignored":
                self._pass_ignored(child)
            else:
                self._read_block(child, depth)
            self._note_space(child.tail)

    def _read_block(self, block: etree._Element, depth: int) -> None:
        """What stands apart from the text before and after it."""
        self._space, self._footnote_after = True, None
        paragraph, section = self._paragraph, self._section
        if block.tag in ("p", "sectioncontent", "sectiontitle"):
            self._paragraphs += 1
            self._paragraph = self._paragraphs
        if block.tag == "section":
            self._is_lead = False
            self.walk(block, depth + 1)
            self._section = section
        elif block.tag in ("p", "sectioncontent"):
            self.walk(block, depth + 1)
        elif block.tag == "sectiontitle":
            self._read_title(block)
        elif block.tag == "extra":
            for sentence in block.iterfind("s"):
                self._sentence += 1
                self._read_tokens(sentence, "extra")
        self._paragraph = paragraph
        self._space, self._footnote_after = True, None

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
        for token in reversed(self.tokens):
            if token.sentence != self._sentence:
                return True
            if core := token.surface.rstrip(_CLOSERS):
                return core[-1] in _SENTENCE_END
        return True

    def _pass_ignored(self, element: etree._Element) -> None:
        """Ignored text was not read aloud; a footnote mark such as [1] does not even part two words."""
        first = element.find("s/t")
        if first is not None and (first.text or "").startswith("["):
            if self.tokens and self.tokens[-1].paragraph == self._paragraph:
                self._footnote_after = self._paragraph
        else:
            self._space, self._footnote_after = True, None

    def _read_title(self, element: etree._Element) -> None:
        self._sentence += 1
        first = len(self.tokens)
        self._read_tokens(element, "title")
        title = text_of(self.tokens[first:])
        if title:
            self._section = (*self._section, title)
            self.tokens[first:] = [token._replace(section=self._section) for token in self.tokens[first:]]

    def _read_tokens(self, element: etree._Element, kind: Literal["body", "title", "extra"]) -> None:
        self._note_space(element.text)
        for child in element:
            if child.tag == "t":
                self._read_token(child, kind)
            self._note_space(child.tail)

    def _read_token(self, element: etree._Element, kind: Literal["body", "title", "extra"]) -> None:
        text = element.get("text") if kind == "extra" else None
        if text is None:
            text = (element.text or "") + "".join(form.tail or "" for form in element)
        surface = " ".join(text.split())
        if not surface:
            return
        space_before = bool(self.tokens) and (self._space or text[0].isspace())
        norms = tuple(self._norm(form) for form in element)
        place = kind, self._sentence, self._paragraph, self._section, self._is_lead
        self.tokens.append(Token(surface, space_before, norms, *place))
        self._space = text[-1].isspace()

    def _norm(self, form: etree._Element) -> Norm:
        name, start, end = form.get("pronunciation", ""), form.get("start"), form.get("end")
        if start is None or end is None:
            return Norm(name)
        try:
            times = int(start), int(end)
        except ValueError:
            times = f"({start[:20]!r} to {end[:20]!r})"
            reason = f"a time of {name!r} is no whole number of milliseconds {times}"
            raise unusable(self._path, reason) from None
        return Norm(name, *times) if 0 <= times[0] < times[1] < LATEST_TIME else Norm(name)

    def _note_space(self, text: str | None) -> None:
        if text and (text[0].isspace() or text[-1].isspace()):
            self._space = True
