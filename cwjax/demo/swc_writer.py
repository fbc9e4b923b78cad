"""Writes a spoken article as the Spoken Wikipedia Corpus 2.0 lays it out: the counterpart of
`cwjax.data.corpora.swc.article`.

`aligned.swc` is mixed-content XML: tokens with the words pronounced for them and their times in milliseconds,
spaces between tokens as character data (schema swc-1.0.rnc, published with the corpus). `wiki.html` and `wiki.txt`
hold the same text as a page and as wikitext, `info.json` and `audiometa.txt` describe the recording.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

LICENCE = "Apache-2.0"
ENCYCLOPEDIA = "https://encyclopedia.example/wiki/"

_RECORDED = "2020-01-01 00:00:00"
_TOKEN = re.compile(r"(\s*)(\w+|[^\w\s])")


@dataclass(frozen=True)
class SpokenWordTime:
    """A pronounced word (`<n>`); `start` and `end` are milliseconds on the article's timeline, if known."""

    pronunciation: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class WrittenToken:
    """A written word with what is pronounced for it, or a punctuation mark, for which nothing is."""

    surface: str
    space_before: bool
    spoken: tuple[SpokenWordTime, ...]


Sentence = tuple[WrittenToken, ...]


@dataclass(frozen=True)
class SpokenArticle:
    """An article as it was read.

    Attributes:
        title, reader, accent: for the description.
        audio: (file name, milliseconds where it begins on the article's timeline) of each file.
        announcement: what was said before the text; empty if nothing.
        lead: the sentences before the first section.
        sections: title and sentences.
        categories: subject headings.
        ignored: add text that nobody speaks: a table of contents, edit links, and a footnote inside the first
            sentence.
    """

    title: str
    reader: str
    accent: str
    audio: tuple[tuple[str, int], ...]
    announcement: Sentence
    lead: tuple[Sentence, ...]
    sections: tuple[tuple[Sentence, tuple[Sentence, ...]], ...]
    categories: tuple[str, ...]
    ignored: bool

    @property
    def identifier(self) -> str:
        """`DC.identifier`: the title as in an address."""
        return identifier(self.title)


def identifier(title: str) -> str:
    """The title as in an address."""
    return title.replace(" ", "_")


def folder_name(title: str) -> str:
    """The folder of an article: lower-case percent escapes, and of dots only the last one escaped."""
    name = re.sub(
        r"[^\w.()&!-]", lambda match: quote(match.group(), safe="").lower(), identifier(title), flags=re.ASCII
    )
    return name[:-1] + "%2e" if name.endswith(".") else name


def tokenize(text: str) -> Sentence:
    """Splits text into words, each pronounced as it is written, and punctuation marks."""
    return tuple(
        WrittenToken(surface, bool(space), (SpokenWordTime(surface),) * surface.isalnum())
        for space, surface in _TOKEN.findall(text)
    )


def surface_text(sentence: Sequence[WrittenToken]) -> str:
    """The text as written."""
    return "".join(" " * token.space_before + token.surface for token in sentence)


def aligned_swc(article: SpokenArticle) -> str:
    """The content of `aligned.swc`."""
    body = [_paragraph(article.lead, footnote=article.ignored), "\n"]
    if article.ignored:
        body.append(_table_of_contents(article))
    edit = f"<ignored>{_tokens(tokenize('[edit]'))}</ignored>" if article.ignored else ""
    for title, sentences in article.sections:
        body.append(f'<section level="2"><sectiontitle>{_tokens(title)}{edit}</sectiontitle><sectioncontent>\n')
        body.append(f"{_paragraph(sentences)}</sectioncontent></section>\n")
    content = f"{_meta(article)}<d>{_extra(article.announcement)}{''.join(body)}</d>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<article>{content}</article>\n'


def wiki_html(article: SpokenArticle) -> str:
    """The content of `wiki.html`; its text is the text of `aligned.swc`, white space aside."""
    lead = [_html(sentence) for sentence in article.lead]
    contents = edit = ""
    if article.ignored:
        before, after = _cut(article.lead[0])
        lead[0] = f"{_html(before)}<sup>[1]</sup>{_html(after)}"
        lines = [f"{number} {_html(title)}" for number, (title, _) in enumerate(article.sections, 1)]
        contents = f'<div id="toc"><h2>Contents</h2>\n{"<br/>".join(lines)}</div>\n'
        edit = "<span>[edit]</span>"
    sections = "".join(
        f"<h2>{_html(title)}{edit}</h2>\n<p>{' '.join(map(_html, sentences))}</p>\n"
        for title, sentences in article.sections
    )
    return f'<div class="mw-parser-output"><p>{" ".join(lead)}</p>\n{contents}{sections}</div>\n'


def wiki_text(article: SpokenArticle) -> str:
    """The content of `wiki.txt`: the wikitext that was read."""
    lead = [surface_text(sentence) for sentence in article.lead]
    if article.ignored:
        before, after = _cut(article.lead[0])
        lead[0] = f"{surface_text(before)}<ref>Catalogue of the reading room</ref>{surface_text(after)}"
    sections = "".join(
        f"\n\n== {surface_text(title)} ==\n{' '.join(map(surface_text, sentences))}"
        for title, sentences in article.sections
    )
    categories = "".join(f"\n[[Category:{category}]]" for category in article.categories)
    return f"{' '.join(lead)}{sections}\n{categories}\n"


def info(article: SpokenArticle) -> dict[str, object]:
    """The content of `info.json`."""
    titles = [f"File:{article.title} {name}" for name, _ in article.audio]
    read = {
        "reader": article.reader,
        "date_read": _RECORDED,
        "is_date_normalized": True,
        "article_oldid": 1,
        "oldid_quality": 2,
        "oldURL": None,
    }
    return {
        "error": None,
        "article": {
            "revision": 1,
            "pageid": 1,
            "title": article.title,
            "canonicalurl": _address(article),
            "identifier": article.identifier,
            "language": "en",
        },
        "article_parsed": {**read, "audio_file_titles": titles},
        "audio_files": [
            {
                "revision": -1,
                "pageid": -1,
                "title": title,
                "repository": "shared",
                "downloadurl": f"{_address(article)}/{name}",
                "timestamp": _RECORDED,
                "offset": offset / 1000,
            }
            for title, (name, offset) in zip(titles, article.audio, strict=True)
        ],
        "audio_file_parsed": {**read, "audio_file_titles": None},
    }


def audio_description(article: SpokenArticle) -> str:
    """The content of `audiometa.txt`: the description page of the first audio file."""
    return (
        "== {{int:filedesc}} ==\n{{Spoken article\n"
        f" |title     = {article.title}\n |user_name = {article.reader}\n |date      = {_RECORDED[:10]}\n"
        f" |accent    = {article.accent}\n |oldid     = 1\n"
        " |comment   = Synthetic speech of eSpeak NG\n}}\n"
    )


def _paragraph(sentences: Sequence[Sentence], footnote: bool = False) -> str:
    """`<p>`; a footnote cuts the first sentence into two elements, as it does in the corpus."""
    elements = [f"<s>{_tokens(sentence)}</s>" for sentence in sentences]
    if footnote:
        before, after = _cut(sentences[0])
        note = f"<ignored><s>{_tokens(tokenize('[1]'))}</s></ignored>"
        elements[0] = f"<s>{_tokens(before)}</s>{note}<s>{_tokens(after)}</s>"
    return f"<p>{' '.join(elements)}</p>"


def _table_of_contents(article: SpokenArticle) -> str:
    entries = "\n".join(
        f"<s>{_tokens(tokenize(f'{number} {surface_text(title)}'))}</s>"
        for number, (title, _) in enumerate(article.sections, 1)
    )
    heading = f"<sectiontitle>{_tokens(tokenize('Contents'))}</sectiontitle>"
    return (
        f'<ignored><section level="2">{heading}<sectioncontent><p>{entries}</p></sectioncontent></section></ignored>\n'
    )


def _cut(sentence: Sentence) -> tuple[Sentence, Sentence]:
    """The sentence before and after a footnote in its middle."""
    return sentence[: len(sentence) // 2], sentence[len(sentence) // 2 :]


def _html(sentence: Sentence) -> str:
    return escape(surface_text(sentence), quote=False)


def _tokens(sentence: Sentence) -> str:
    """`<t>` elements with the spaces between them."""
    return "".join(
        f"{' ' * token.space_before}<t>{escape(token.surface, quote=False)}{_spoken(token)}</t>" for token in sentence
    )


def _extra(announcement: Sentence) -> str:
    """`<extra>`: no part of the text, which is why its words sit in attributes."""
    if not announcement:
        return ""
    text = quoteattr(surface_text(announcement))
    tokens = "".join(f"<t text={quoteattr(token.surface)}>{_spoken(token)}</t>" for token in announcement)
    return f"<extra text={text}><s text={text}>{tokens}</s></extra>\n"


def _spoken(token: WrittenToken) -> str:
    """The `<n>` elements of a token."""
    return "".join(
        f"<n pronunciation={quoteattr(word.pronunciation)}"
        + ("" if word.start is None else f' start="{word.start}" end="{word.end}"')
        + " />"
        for word in token.spoken
    )


def _meta(article: SpokenArticle) -> str:
    entries = [
        ("link", "DC.conformsto", "http://nats.gitlab.io/swc/schema/swc-1.0.rnc", ""),
        ("prop", "DC.license", LICENCE, ""),
        ("prop", "DC.title", article.title, ""),
        ("prop", "DC.language", "en", ""),
        ("prop", "DC.identifier", article.identifier, ""),
        ("prop", "DC.date.read", _RECORDED, ""),
        ("link", "DC.source", _address(article), ""),
        ("prop", "reader.name", article.reader, ""),
    ]
    for number, (name, offset) in enumerate(article.audio, 1):
        entries.append(("link", "DC.source.audio", f"{_address(article)}/{name}", f"audio{number}"))
        entries.append(("prop", "DC.source.audio.offset", str(offset / 1000), f"audio{number}"))
    elements = (
        f"<{kind} key={quoteattr(key)} value={quoteattr(value)}{f' group={quoteattr(group)}' if group else ''} />"
        for kind, key, value, group in entries
    )
    return f"<meta>{''.join(elements)}</meta>"


def _address(article: SpokenArticle) -> str:
    return ENCYCLOPEDIA + quote(article.identifier)
