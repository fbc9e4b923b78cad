"""The public suites of `cwjax evaluate --suite`: where to get each, and how it is read (docs/suites.md)."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites import (
    contextasr,
    contextual_earnings22,
    earnings21,
    is21,
    m3av,
    mlperf,
    open_asr,
    profasr,
    spoken_wikipedia,
)
from cwjax.evaluation.suites.folder import suite_folder

log = logging.getLogger(__name__)

NAMED = 20
"""Items that are left out are named one by one up to so many, and counted beyond."""


@dataclass(frozen=True)
class Suite:
    """A suite.

    Attributes:
        read: yields the items of a folder's variant, and for one that cannot be used the reason.
        title: what it is.
        source: where to get it.
        licence: of its data.
        variants: its parts, as `NAME/VARIANT` asks for them; empty: it has one.
        hub: the data set on the Hugging Face hub; empty: there is none.
        patterns: of the files there that are needed, with {variant} in them.
    """

    read: Callable[[Path, str], Iterator[Item | str]]
    title: str
    source: str
    licence: str
    variants: tuple[str, ...] = ()
    hub: str = ""
    patterns: tuple[str, ...] = ()


SUITES = {
    "is21": Suite(
        is21.read,
        "LibriSpeech with lists of rare words and distractors",
        "https://www.openslr.org/12, and beside it is21_deep_bias of https://github.com/facebookresearch/fbai-speech",
        "CC BY 4.0; lists MIT",
        variants=is21.VARIANTS,
    ),
    "contextasr": Suite(
        contextasr.read,
        "ContextASR-Bench: speech and dialogues full of names, with domain and entities",
        "https://huggingface.co/datasets/MrSupW/ContextASR-Bench",
        "MIT",
        variants=contextasr.VARIANTS,
        hub="MrSupW/ContextASR-Bench",
        patterns=("*ContextASR-{variant}*",),
    ),
    "profasr": Suite(
        profasr.read,
        "ProfASR-Bench: professional talk with profile, domain and what was said before",
        "https://huggingface.co/datasets/prdeepakbabu/ProfASR-Bench",
        "Apache-2.0",
        hub="prdeepakbabu/ProfASR-Bench",
        patterns=("data/train/*.arrow",),
    ),
    "contextual-earnings22": Suite(
        contextual_earnings22.read,
        "Contextual Earnings-22: clips of earnings calls with names of the clip and of the call",
        "https://huggingface.co/datasets/argmaxinc/contextual-earnings22",
        "Earnings-22: CC BY-SA 4.0",
        hub="argmaxinc/contextual-earnings22",
        patterns=("*test-*.parquet",),
    ),
    "earnings21": Suite(
        earnings21.read,
        "Earnings-21 with ConEC: whole earnings calls with participants and words of the slides",
        "https://github.com/huangruizhe/ConEC and, with Git LFS, https://github.com/revdotcom/speech-datasets, both "
        "cloned into one folder",
        "Earnings-21: CC BY-SA 4.0",
    ),
    "m3av": Suite(
        m3av.read,
        "M3AV: academic lectures with title, description and tags of the video",
        "https://huggingface.co/datasets/CHHHH/M3AV_v1.0, unpacked, and set_split.json of "
        "https://github.com/Jack-ZC8/M3AV-dataset beside it",
        "CC BY-NC-SA 4.0",
        variants=m3av.VARIANTS,
    ),
    "spoken-wikipedia": Suite(
        spoken_wikipedia.read,
        "Spoken Wikipedia: test articles with title, lead and sections",
        "cwjax prepare (docs/corpora.md); give the prepared folder",
        "CC BY-SA 4.0",
    ),
    "open-asr": Suite(
        open_asr.read,
        "short sets of the Open ASR leaderboard, without context",
        "https://huggingface.co/datasets/hf-audio/esb-datasets-test-only-sorted",
        "each set's own",
        variants=open_asr.VARIANTS,
        hub="hf-audio/esb-datasets-test-only-sorted",
        patterns=("{variant}-*.parquet",),
    ),
    "mlperf": Suite(
        mlperf.read,
        "LibriSpeech packed to 30 s, for speed",
        "speech2text of https://github.com/mlcommons/inference: download_dataset.sh",
        "CC BY 4.0",
    ),
}
"""By name."""


def open_suite(name: str, directory: str | Path | None, limit: int = 0) -> Iterator[Item]:
    """The items of a suite, read as they are asked for.

    What cannot be used is left out: each reason is logged, with file and line, and at the end how many they are. Items
    hold no audio, only where it is; what is inside of tables, archives and longer recordings is quickest in order.

    Args:
        name: of `SUITES`, with a variant where it has some: "is21/test-clean.biasing_100".
        directory: its folder, or the id of a data set of the same layout on the Hugging Face hub; None: its own there.
        limit: only the first so many; 0: all.

    Raises:
        CwjaxError: no such suite or variant, its folder cannot be found or fetched, or a list of it cannot be read; and
            while it is read, if no item can be used.
    """
    base, _, part = name.partition("/")
    suite = SUITES.get(base.lower())
    if suite is None:
        raise CwjaxError(f"no suite is called {base!r}; there are: {', '.join(SUITES)}")
    variants = {one.lower(): one for one in suite.variants or ("",)}
    if part.lower() not in variants:
        ways = ", ".join(f"{base}/{one}" for one in suite.variants) or base
        raise CwjaxError(f"{name}: is no part of {suite.title}; say {ways}")
    variant = variants[part.lower()]
    patterns = [pattern.format(variant=variant) for pattern in suite.patterns]
    folder = suite_folder(name, suite.source, suite.hub, patterns, directory)
    return _usable(name, folder, suite.read(folder, variant), limit)


def _usable(name: str, folder: Path, read: Iterator[Item | str], limit: int) -> Iterator[Item]:
    counted: Counter[str] = Counter()
    first = ""
    for one in read:
        if isinstance(one, Item):
            counted["items"] += 1
            yield one
            if counted["items"] == limit:
                break
            continue
        first = first or one
        counted["left out"] += 1
        if counted["left out"] <= NAMED:
            log.warning("%s: left out: %s", name, one)
    if not counted["items"]:
        raise CwjaxError(f"{folder}: no item of {name} can be used{f'; the first: {first}' if first else ''}")
    say = log.warning if counted["left out"] else log.info
    say("%s: %d items, %d left out", name, counted["items"], counted["left out"])
