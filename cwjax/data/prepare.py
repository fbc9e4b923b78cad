"""From a Spoken Wikipedia Corpus on disk to a prepared one.

Corrupt articles are counted and named in `report.json`; they end the work only if all are corrupt.
The output appears whole or not at all: it is written aside and renamed.
"""

import json
import logging
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cwjax.data.audio import audio_duration, read_audio
from cwjax.data.homophones import HOMOPHONES_FILE
from cwjax.data.log_mel import SAMPLING_RATE
from cwjax.data.prepared import CORPUS_FILE, PreparedCorpus, write_prepared
from cwjax.data.segment import Segment
from cwjax.data.segmentation import SegmentationSettings, segment_article
from cwjax.data.splits import assign_splits
from cwjax.data.swc import find_articles, read_article, with_durations
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class _ArticleResult:
    """What one article gave: segments with 16-bit samples, or the reason why it gave nothing."""

    folder: str
    segments: tuple[tuple[Segment, np.ndarray], ...] = ()
    dropped: Counter[str] | None = None
    holes: Counter[str] | None = None
    failure: str = ""


def prepare_swc(root: str | Path, output: str | Path, settings: SegmentationSettings) -> PreparedCorpus:
    """Prepares every article below `root`, or returns what an earlier call with equal settings wrote.

    Args:
        root: a Spoken Wikipedia Corpus; `homophones.json` at its root is carried along.
        output: folder of the prepared corpus.
        settings: how articles are cut into segments.

    Raises:
        CwjaxError: no article can be read, the disk is full, or `output` holds another corpus.
    """
    root, output = Path(root), Path(output)
    # Written and compared as JSON knows it: tuples are lists there.
    made_of = json.loads(json.dumps({"root": str(root.resolve()), "segmentation": asdict(settings)}))
    if output.exists():
        _require_same_corpus(output, made_of)
        return PreparedCorpus.read(output)
    folders = find_articles(root) if root.is_dir() else []
    if not folders:
        raise CwjaxError(f"{root}: holds no article of a Spoken Wikipedia Corpus (a folder with aligned.swc)")
    aside = output.with_name(output.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        report = _prepare_into(aside, root, folders, settings)
        (aside / REPORT_FILE).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        (aside / CORPUS_FILE).write_text(json.dumps(made_of, indent=2) + "\n")
        if (root / HOMOPHONES_FILE).exists():
            shutil.copy(root / HOMOPHONES_FILE, aside / HOMOPHONES_FILE)
        aside.rename(output)
    except OSError as error:
        raise CwjaxError(f"{output}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return PreparedCorpus.read(output)


def _require_same_corpus(output: Path, made_of: dict[str, Any]) -> None:
    try:
        found = json.loads((output / CORPUS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise CwjaxError(f"{output}: exists but is no prepared corpus; delete it or set data.prepared") from error
    if found != made_of:
        raise CwjaxError(
            f"{output}: was prepared from another corpus or with other window lengths; delete it or set data.prepared"
        )


def _prepare_into(aside: Path, root: Path, folders: list[Path], settings: SegmentationSettings) -> dict[str, Any]:
    failures: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    holes: Counter[str] = Counter()

    def audible_segments() -> Iterator[tuple[Segment, np.ndarray]]:
        progress = tqdm(
            _each_article(root, folders, settings),
            total=len(folders),
            desc="preparing",
            unit="article",
            disable=not sys.stderr.isatty(),
        )
        for result in progress:
            if result.failure:
                failures[result.folder] = result.failure
                log.warning("left out: %s", result.failure)
                continue
            dropped.update(result.dropped)
            holes.update(result.holes)
            yield from result.segments

    log.info("preparing %d articles of %s", len(folders), root)
    segments = write_prepared(aside, audible_segments(), partial(assign_splits, root=root))
    if len(failures) == len(folders):
        raise CwjaxError(
            f"{root}: none of {len(folders)} articles can be read; the first: {next(iter(failures.values()))}"
        )
    if not segments:
        raise CwjaxError(f"{root}: the articles hold no usable segment; dropped: {dict(dropped)}")
    splits = {
        split: {
            "segments": len(chosen),
            "hours": round(sum(segment.duration for segment in chosen) / 3600, 4),
            "articles": len({segment.article for segment in chosen}),
            "speakers": len({segment.speaker for segment in chosen}),
        }
        for split in ("train", "validation", "test")
        if (chosen := [segment for segment in segments if segment.split == split])
    }
    for split, numbers in splits.items():
        log.info("%s: %s", split, ", ".join(f"{value} {name}" for name, value in numbers.items()))
    if failures:
        log.warning("%d of %d articles left out, named in %s", len(failures), len(folders), REPORT_FILE)
    return {"splits": splits, "failures": failures, "dropped": dict(dropped), "holes": dict(holes)}


def _each_article(root: Path, folders: list[Path], settings: SegmentationSettings) -> Iterator[_ArticleResult]:
    """Reads articles on all cores, in order."""
    read = partial(_read_audible_article, root, settings)
    workers = min(os.cpu_count() or 1, len(folders) // 8)
    if workers < 2:
        yield from map(read, folders)
        return
    # Fresh interpreters: forking a process whose JAX threads hold locks can hang it.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(read, folders, chunksize=4)
        except BrokenProcessPool as error:
            raise CwjaxError(f"{root}: a process that read articles was killed; is memory short?") from error


def _read_audible_article(root: Path, settings: SegmentationSettings, folder: Path) -> _ArticleResult:
    name = folder.relative_to(root).as_posix()
    try:
        article = read_article(folder, root)
        durations = [audio_duration(root / part.path) for part in article.audio_parts]
        segmentation = segment_article(with_durations(article, durations), settings)
        audible: list[tuple[Segment, np.ndarray]] = []
        parts: dict[str, np.ndarray] = {}
        for segment in segmentation.segments:
            if segment.audio not in parts:
                parts[segment.audio] = read_audio(root / segment.audio)
            samples = parts[segment.audio]
            first = round((segment.start - segment.audio_offset) * SAMPLING_RATE)
            last = round((segment.end - segment.audio_offset) * SAMPLING_RATE)
            audible.append((segment, samples[first:last]))
    except CwjaxError as error:
        return _ArticleResult(name, failure=str(error))
    return _ArticleResult(name, tuple(audible), Counter(segmentation.dropped), Counter(segmentation.holes))
