"""Reader of the Spoken Wikipedia Corpus 2.0: one article folder -> one `Article`.

A folder holds `aligned.swc` (mixed-content XML: the text, and the times of its words), the audio
(`audio.ogg`, or `audio1.ogg`, `audio2.ogg`, ...), `info.json` (reader, audio offsets), `audiometa.txt` (the
audio's page) and `wiki.txt` (the wikitext that was read). Spaces between tokens are the character data between the
`<t>` elements, so the text is rebuilt in document order with the spacing it was written with.
Times are milliseconds on one timeline that runs over all audio files of the article.

Format: Köhn, Stegen, Baumann, "Mining the Spoken Wikipedia for Speech Data and Beyond",
LREC 2016, and the schema swc-1.0.rnc published with the corpus.
"""

import html
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lxml import etree

from cwjax.data.corpora.swc.text import Token, is_spoken, read_document, read_tokens, text_of, unusable
from cwjax.errors import CwjaxError

ALIGNMENT_FILE = "aligned.swc"
SEARCH_DEPTH = 3
SHORTEST_KEYWORD = 6

AUDIO_NAME = re.compile(r"audio([1-9]\d{0,3}|)\.(?:ogg|oga|opus|flac|wav|mp3)", re.IGNORECASE)

_ARTICLE_FILES = ("info.json", "wiki.txt", "audiometa.txt")
_CATEGORY = re.compile(r"\[\[\s*(?:Category|Kategorie|Categorie)\s*:\s*([^\[\]|\n]{1,300})", re.IGNORECASE)
_LINK = re.compile(r"\[\[([^\[\]|\n]{1,300})(?:\|([^\[\]|\n]{1,300}))?\]\]")
_NAMESPACE = re.compile(r"\s*:|[^:]*:\S")
_READER_LINK = re.compile(r"\[\[([^\[\]|]+)(?:\|[^\[\]]*)?\]\]|\[\w{1,20}://[^\s\[\]]+\s{1,9}([^\s\[\]][^\[\]]*)\]")
_READER_FIELD = re.compile(r"^[ \t]*\|[ \t]*user_name[ \t]*=[ \t]*(\S.*)$", re.MULTILINE)
_READER_PREFIX = re.compile(r"^(?:[^:]*:)*(?:user|benutzer|benutzerin|gebruiker)(?: talk)?:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AudioPart:
    """One audio file of an article.

    Attributes:
        path: relative to the corpus root, "/" between its parts.
        offset: seconds, where the file begins on the article's timeline; None if unknown.
        duration: seconds; None until the audio was measured.
    """

    path: str
    offset: float | None
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class Article:
    """One spoken article; `tokens` are in document order, ignored text is not among them."""

    identifier: str
    title: str
    language: str
    reader: str
    reader_key: str
    licence: str
    source: str
    audio_parts: tuple[AudioPart, ...]
    tokens: Sequence[Token]
    categories: tuple[str, ...]
    keywords: tuple[str, ...]

    @property
    def text(self) -> str:
        """The article's text with its original spacing, titles included."""
        return text_of(self.tokens)

    @property
    def lead(self) -> str:
        """The text before the first section."""
        return text_of(token for token in self.tokens if token.is_lead and token.kind == "body")


def find_articles(root: Path) -> list[Path]:
    """Article folders up to three levels below `root`, sorted; also those of which only parts are there.

    Raises CwjaxError if `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise CwjaxError(f"{root}: no such folder; give the folder that holds the extracted corpus")
    return sorted(article_folders(root))


def article_folders(folder: Path, depth: int = SEARCH_DEPTH) -> Iterator[Path]:
    """The folders of `find_articles` as they are found.

    A link to a folder is followed only so far as to say that it holds an article.
    """
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if ALIGNMENT_FILE in names or (names.intersection(_ARTICLE_FILES) and any(map(AUDIO_NAME.fullmatch, names))):
        yield folder
    for entry in entries if depth else ():
        if entry.is_dir(follow_symlinks=False):
            yield from article_folders(folder / entry.name, depth - 1)
        elif entry.is_symlink() and (folder / entry.name / ALIGNMENT_FILE).exists():
            yield folder / entry.name


def read_article(folder: Path, root: Path | None = None, *, require_audio: bool = True) -> Article:
    """Read one article.

    Args:
        folder: holds `aligned.swc` and the files beside it.
        root: the corpus root, to which audio paths are relative; the folder's parent if not given.
        require_audio: refuse an article whose audio files are not all there.

    Raises CwjaxError, naming the file and the reason, for a missing or malformed file, an article
    without words, missing audio, or a document type declaration. Callers that read a whole
    corpus count such articles and go on.
    """
    folder = Path(folder)
    place = folder.relative_to(root) if root is not None else Path(folder.name)
    document = read_document(folder / ALIGNMENT_FILE)
    info = _read_info(folder / "info.json")
    properties, meta_offsets = _read_meta(document)
    wikitext = _read_wikitext(folder / "wiki.txt")

    tokens = read_tokens(document, folder / ALIGNMENT_FILE)
    if not any(is_spoken(norm.pronunciation) for token in tokens if token.kind != "extra" for norm in token.norms):
        raise unusable(folder / ALIGNMENT_FILE, "the article has no words")
    title = (
        properties.get("DC.title") or _text_member(info, "article", "title") or unquote(folder.name).replace("_", " ")
    )
    reader = (
        properties.get("reader.name")
        or _text_member(info, "article_parsed", "reader")
        or _text_member(info, "audio_file_parsed", "reader")
        or _described_reader(folder / "audiometa.txt")
    )
    return Article(
        identifier=properties.get("DC.identifier") or _text_member(info, "article", "identifier") or folder.name,
        title=title,
        language=(properties.get("DC.language") or _text_member(info, "article", "language")).lower().split("-")[0],
        reader=reader,
        reader_key=reader_key(reader),
        licence=properties.get("DC.license", ""),
        source=properties.get("DC.source") or _text_member(info, "article", "canonicalurl"),
        audio_parts=_audio_parts(folder, place, info, meta_offsets, require_audio),
        tokens=tokens,
        categories=_categories(wikitext),
        keywords=_keywords(wikitext),
    )


def with_durations(article: Article, durations: Sequence[float]) -> Article:
    """The article with the measured length (seconds) of each audio file.

    Offsets that neither `info.json` nor `aligned.swc` gives become the sum of the lengths before.
    """
    parts: list[AudioPart] = []
    position = 0.0
    for part, duration in zip(article.audio_parts, durations, strict=True):
        position = part.offset if part.offset is not None else position
        parts.append(replace(part, offset=position, duration=duration))
        position += duration
    return replace(article, audio_parts=tuple(parts))


def reader_key(reader: str) -> str:
    """A reader's name freed of wiki markup, case and underscores: equal for one person's spellings."""
    name = html.unescape(unicodedata.normalize("NFKC", reader)).replace("_", " ")
    if link := _READER_LINK.search(name):
        name = link[1] or link[2]
    name = _READER_PREFIX.sub("", name.strip()).split("/")[0]
    return " ".join(name.casefold().split())


def _read_wikitext(path: Path) -> str:
    """A text without its comments, empty if there is no such file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    kept: list[str] = []
    place = 0
    while (begin := text.find("<!--", place)) >= 0 and (end := text.find("-->", begin + 4)) >= 0:
        kept.append(text[place:begin])
        place = end + 3
    return "".join([*kept, text[place:]])


def _described_reader(path: Path) -> str:
    """The reader whom the description page of the audio names."""
    match = _READER_FIELD.search(_read_wikitext(path))
    return match[1].strip() if match else ""


def _read_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise unusable(path, f"is not valid JSON ({error})") from None
    return info if isinstance(info, dict) else {}


def _text_member(info: dict[str, Any], group: str, key: str) -> str:
    members = info.get(group)
    value = members.get(key) if isinstance(members, dict) else None
    return value if isinstance(value, str) and value != "null" else ""


def _read_meta(document: etree._Element) -> tuple[dict[str, str], dict[int, float | None]]:
    """Ungrouped properties by key, and the offset (s) of audio file K from the group "audioK"."""
    properties: dict[str, str] = {}
    offsets: dict[int, float | None] = {}
    for item in document.iterfind("meta/*"):
        key, value, group = item.get("key", ""), item.get("value", ""), item.get("group", "")
        if not group and value != "null":
            properties.setdefault(key, value)
        elif key.startswith("DC.source.audio") and re.fullmatch(r"audio\d{1,4}", group):
            number = int(group.removeprefix("audio"))
            offset = _offset(value) if key == "DC.source.audio.offset" else None
            offsets[number] = offset if offset is not None else offsets.get(number)
    return properties, offsets


def _offset(value: Any) -> float | None:
    """A usable offset in seconds, or None."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _audio_parts(
    folder: Path,
    place: Path,
    info: dict[str, Any],
    meta_offsets: dict[int, float | None],
    require_audio: bool,
) -> tuple[AudioPart, ...]:
    """The audio files in the order of their numbers, with the offsets of info.json, else of meta."""
    listed = info.get("audio_files")
    listed = listed if isinstance(listed, list) else []
    numbered: dict[int, str] = {}
    single = None
    for entry in sorted(os.listdir(folder)):
        if match := AUDIO_NAME.fullmatch(entry):
            if match[1]:
                numbered.setdefault(int(match[1]), entry)
            else:
                single = single or entry
    count = len(listed) or max(meta_offsets, default=0) or len(numbered) or 1
    if count == 1:
        names = [single or numbered.get(1, "audio.ogg")]
    else:
        names = [numbered.get(number, f"audio{number}.ogg") for number in range(1, count + 1)]

    parts: list[AudioPart] = []
    for index, name in enumerate(names):
        if require_audio and not (folder / name).is_file():
            raise unusable(folder / name, "the audio file is missing")
        entry = listed[index] if index < len(listed) else None
        offset = _offset(entry.get("offset")) if isinstance(entry, dict) else None
        if offset is None:
            offset = meta_offsets.get(index + 1)
        if index == 0:
            offset = offset or 0.0
        known = [part.offset for part in parts if part.offset is not None]
        if offset is not None and known and offset <= known[-1]:
            raise unusable(folder, f"the offset of {name} ({offset} s) is not after the file before it")
        parts.append(AudioPart((place / name).as_posix(), offset))
    return tuple(parts)


def _categories(wikitext: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(match[1].split()) for match in _CATEGORY.finditer(wikitext)))


def _keywords(wikitext: str) -> tuple[str, ...]:
    """Link anchors of at least six characters and without digits, in order of appearance.

    These are mostly names and terms; the recipe is that of SpellMapper (arXiv 2306.02317).
    Links with a namespace (files, categories, other languages) are left out.
    """
    anchors: dict[str, None] = {}
    for target, anchor in _LINK.findall(wikitext):
        if _NAMESPACE.match(target):
            continue
        words = " ".join(html.unescape(anchor or target).replace("''", "").strip("-– ").split())
        if len(words) >= SHORTEST_KEYWORD and not any(letter.isdigit() for letter in words):
            anchors[words] = None
    return tuple(anchors)
