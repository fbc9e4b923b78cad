"""The kinds of corpora that can be prepared, by name."""

import logging
from pathlib import Path
from typing import Literal

from cwjax.data.corpora import (
    common_voice,
    earnings,
    fisher,
    gigaspeech,
    huggingface,
    lhotse,
    libriheavy,
    librispeech,
    manifest,
    mls,
    peoples_speech,
    subtitles,
    switchboard,
    tedlium,
    webdataset,
)
from cwjax.data.corpora.reader import CorpusReader
from cwjax.data.corpora.swc import reader as swc_corpus
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

CorpusName = Literal[
    "swc",
    "librispeech",
    "libriheavy",
    "common_voice",
    "switchboard",
    "gigaspeech",
    "tedlium",
    "fisher",
    "mls",
    "peoples_speech",
    "earnings",
    "manifest",
    "subtitles",
    "lhotse",
    "webdataset",
    "huggingface",
]

READERS: dict[CorpusName, CorpusReader] = {
    "swc": swc_corpus,
    "librispeech": librispeech,
    "libriheavy": libriheavy,
    "common_voice": common_voice,
    "switchboard": switchboard,
    "gigaspeech": gigaspeech,
    "tedlium": tedlium,
    "fisher": fisher,
    "mls": mls,
    "peoples_speech": peoples_speech,
    "earnings": earnings,
    "manifest": manifest,
    "subtitles": subtitles,
    "lhotse": lhotse,
    "webdataset": webdataset,
    "huggingface": huggingface,
}


def reader(name: CorpusName) -> CorpusReader:
    """The reader of a kind of corpus.

    Raises:
        CwjaxError: there is no such kind.
    """
    try:
        return READERS[name]
    except KeyError:
        raise CwjaxError(f"no corpus is called {name!r}; those that can be read: {', '.join(READERS)}") from None


def require_corpus(name: CorpusName, root: Path) -> None:
    """Checks that a folder holds a corpus of a kind, and logs what its reader has to remark on it.

    Raises:
        CwjaxError: it does not; the message says what it looks like instead.
    """
    if not root.is_dir():
        raise CwjaxError(f"{root}: no such folder; give the folder that holds the extracted corpus")
    if reader(name).looks_like(root):
        for remark in getattr(READERS[name], "remarks", lambda _: ())(root):
            log.warning("%s: %s", root, remark)
        return
    wanted = f"{root}: does not look like a {READERS[name].TITLE}"
    others = [other for other in READERS if other != name and READERS[other].looks_like(root)]
    if others:
        raise CwjaxError(f"{wanted}, but like a {READERS[others[0]].TITLE}: that one is called {others[0]}")
    raise CwjaxError(f"{wanted}; give the folder that holds the extracted corpus")
