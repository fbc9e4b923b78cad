"""The Spoken Wikipedia Corpus 2.0 as a corpus: a folder an article, cut into segments by the times of its words."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cwjax.data.audio.decode import audio_duration
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.article import (
    ALIGNMENT_FILE,
    AUDIO_NAME,
    Article,
    article_folders,
    find_articles,
    read_article,
    with_durations,
)
from cwjax.data.corpora.swc.segmentation import segment_article
from cwjax.data.corpora.swc.text import unusable
from cwjax.errors import CwjaxError

TITLE = "Spoken Wikipedia Corpus (folders with aligned.swc and audio.ogg)"
LANGUAGES = {"en": "english", "de": "german", "nl": "dutch"}
"""Those whose categories and names of users the reader knows; the corpus has a folder for each."""
OFFSET_TOLERANCE = 0.1
"""Seconds by which an audio file may be longer or shorter than the offset of the next one says."""


def looks_like(root: Path) -> bool:
    """Whether an article lies somewhere below."""
    return next(article_folders(root), None) is not None


def articles(root: Path) -> Iterator[Unit]:
    """Every folder that is an article or the remains of one, up to three levels below the root."""
    for folder in find_articles(root):
        place = folder.relative_to(root)
        names = [] if folder.is_symlink() else sorted(os.listdir(folder))
        audio = tuple((place / name).as_posix() for name in names if AUDIO_NAME.fullmatch(name))
        yield Unit(place.as_posix(), audio)


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Reads an article and cuts it.

    Raises CwjaxError if a file is missing, malformed or leads out of the corpus, the offsets contradict the lengths of
    the audio files, the times are no milliseconds, or the language is not one of `LANGUAGES`.
    """
    folder = root / unit.name
    _require_inside(root, folder)
    article = read_article(folder, root)
    language = article.language or _language_of_folder(unit.name)
    if language not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise unusable(folder / ALIGNMENT_FILE, f"no rules for reading its language {language!r} (there are: {known})")
    article = _timed(root, replace(article, language=language))
    late = _require_milliseconds(folder, article)
    segmentation = segment_article(article, limits)
    if not segmentation.timed_words:
        raise unusable(folder / ALIGNMENT_FILE, "no word has a time that can be right")
    dropped: Counter[str] = Counter()
    for piece in segmentation.rejected:
        dropped[piece.reason] += piece.end - piece.start
    return Reading(
        tracks=segmentation.tracks,
        articles={article.identifier: segmentation.facts},
        dropped=dict(dropped),
        holes=segmentation.holes,
        timed_ratio=segmentation.timed_words / segmentation.words,
        reader=article.reader,
        warnings=(f"{late} words are timed after the end of the audio",) if late else (),
    )


def _require_inside(root: Path, folder: Path) -> None:
    """Refuses links that lead out of the corpus, or nowhere."""
    inside = root.resolve()
    for path in (folder, *sorted(folder.iterdir())):
        try:
            if path.is_symlink() and not path.resolve(strict=True).is_relative_to(inside):
                raise unusable(path, "is a link that leads out of the corpus")
        except (OSError, RuntimeError):
            raise unusable(path, "is a link that leads nowhere") from None


def _language_of_folder(name: str) -> str:
    """By the name of the folder that the corpus comes in."""
    parts = name.lower().split("/")[:-1]
    return next((code for code, folder in LANGUAGES.items() if folder in parts), "")


def _timed(root: Path, article: Article) -> Article:
    """The article with the lengths of its audio files, if its offsets agree with them."""
    durations = [audio_duration(root / part.path) for part in article.audio_parts]
    timed = with_durations(article, durations)
    position = 0.0
    for part in timed.audio_parts:
        if abs(part.offset - position) > OFFSET_TOLERANCE:
            raise CwjaxError(
                f"{root / part.path}: begins at {part.offset:.2f} s by its offset, but the audio before it ends at "
                f"{position:.2f} s; is a file shortened or exchanged? leave the article out or fetch it again"
            )
        position = part.offset + part.duration
    return timed


def _require_milliseconds(folder: Path, article: Article) -> int:
    """How many spoken forms are timed after the end of the audio; refuses times that fill none of it."""
    last = article.audio_parts[-1]
    audio_end = (last.offset + last.duration) * 1000
    ends = [norm.end_ms for token in article.tokens for norm in token.norms if norm.end_ms is not None]
    if ends and max(ends) < audio_end / 500:
        raise unusable(
            folder / ALIGNMENT_FILE,
            f"its times end at {max(ends)} ms of {audio_end:.0f} ms of audio: are they seconds, not milliseconds?",
        )
    return sum(end > audio_end for end in ends)
