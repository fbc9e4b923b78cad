"""From a corpus on disk to a prepared one, on all cores.

Units that cannot be used are counted and named in `report.json`; they end the work only if all are so. The output
appears whole or not at all: it is put together aside, shard by shard, and renamed. Whoever stops the work loses the
shards that were being written, and goes on from there with the same command.
"""

import json
import logging
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cwjax.data.corpora.registry import CorpusName, reader, require_corpus
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.prepared.assembly import Assembly
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.prepared.index import CORPUS_FILE, FORMAT, VERSION, AudioFormat
from cwjax.data.prepared.page import write_page
from cwjax.data.prepared.report import REPORT_FILE, report
from cwjax.data.prepared.shards import ShardSummary, ShardTask, corpus_folder, write_shard
from cwjax.data.prepared.sources import changed_source, note_sources
from cwjax.data.prepared.splits import article_splits
from cwjax.data.prepared.survey import grouped, require_room, survey_corpus
from cwjax.data.prepared.working_folder import aside_of, only_process, publish
from cwjax.demo.homophones import HOMOPHONES_FILE
from cwjax.errors import CwjaxError
from cwjax.files import local_path, read_json, write_text
from cwjax.machine import available_cores

log = logging.getLogger(__name__)

ONE_PROCESS_SECONDS = 3600
"""A corpus with less audio is prepared before other processes would have started."""

SETTINGS_FILE = "settings.json"
"""Beside shards that are not yet put together: what they are made of."""
SOURCES_FILE = "sources.json"
"""In a prepared corpus: what it was made of."""

_SECONDS_BETWEEN_LINES = 30.0


def prepare(
    corpus: CorpusName,
    root: str | Path,
    output: str | Path,
    limits: SegmentationSettings | None = None,
    audio: AudioFormat | None = None,
    processes: int = 0,
) -> PreparedCorpus:
    """Prepares every unit of a corpus, or returns what an earlier call with equal settings wrote.

    Args:
        corpus: its kind.
        root: where it lies; `homophones.json` at its root is carried along.
        output: folder of the prepared corpus.
        limits: how articles are cut into segments.
        audio: form in which the audio is kept; None: 16-bit samples, or whatever an earlier call chose.
        processes: how many work; 0: as many as there are cores to use, or one if there is little to do.

    Raises:
        CwjaxError: `root` holds no such corpus, nothing in it can be used, the disk is too small, or `output` holds
            something else or what has changed since.
    """
    root, output = local_path(root), local_path(output)
    limits = limits or SegmentationSettings()
    # Written and compared as JSON knows it: tuples are lists there.
    made_of = {"corpus": corpus, "root": str(root.resolve()), "segmentation": asdict(limits)}
    made_of = json.loads(json.dumps(made_of | ({"audio": audio} if audio else {})))
    audio = audio or "pcm16"
    if output.exists():
        if not (output / "index.jsonl").exists():  # that of the first version
            _require_same(output, CORPUS_FILE, made_of)
        found = PreparedCorpus.read(output, limits.max_duration)
        _require_unchanged(output, root, output)
        shutil.rmtree(aside_of(output), ignore_errors=True)  # of a process that was killed when it had published
        return found
    require_corpus(corpus, root)
    try:
        with only_process(output) as aside:
            if aside:
                _prepare_into(aside, output, corpus, root, limits, audio, processes, made_of)
                publish(corpus_folder(aside), output)
    except OSError as error:
        raise CwjaxError(
            f"{output}: cannot be written ({error.strerror or error}); make room, and the same command goes on"
        ) from error
    return PreparedCorpus.read(output, limits.max_duration)


def _require_same(folder: Path, file: str, made_of: dict[str, Any]) -> None:
    """Refuses a folder that was not made of the same corpus in the same way; its windows may be of any length."""
    try:
        found = read_json(folder / file)
        found["segmentation"] |= {"max_duration": made_of["segmentation"]["max_duration"]}
        different = [name for name in made_of if found.get(name) != made_of[name]]
    except (CwjaxError, KeyError, TypeError) as error:
        raise CwjaxError(f"{folder}: exists but is no prepared corpus; delete it or name another output") from error
    if "root" in different and not Path(made_of["root"]).exists():
        different.remove("root")  # the corpus itself stayed on the machine where it was prepared
    if different:
        what = {"corpus": "another corpus", "root": "another corpus", "segmentation": "other limits"}
        reasons = dict.fromkeys(what.get(name, f"another form of {name}") for name in different)
        raise CwjaxError(
            f"{folder}: was prepared from {' and '.join(reasons)}; delete it or name another output (data.prepared)"
        )


def _require_unchanged(folder: Path, root: Path, output: Path) -> None:
    """Refuses what was made of files that have changed, unless they stayed on another machine."""
    if root.is_dir():
        noted = read_json(folder / SOURCES_FILE, f"delete {folder} and prepare again")
        if changed := changed_source(root, noted, [output, aside_of(output)]):
            raise CwjaxError(
                f"{folder}: was prepared before {root / changed} changed; delete it and prepare again, or name another "
                "output (data.prepared)"
            )


def _prepare_into(
    aside: Path,
    output: Path,
    corpus: CorpusName,
    root: Path,
    limits: SegmentationSettings,
    audio: AudioFormat,
    processes: int,
    made_of: dict[str, Any],
) -> None:
    if (aside / SETTINGS_FILE).exists():
        _require_same(aside, SETTINGS_FILE, made_of)
        _require_unchanged(aside, root, output)
        log.info("going on with what an earlier run has left in %s", aside)
    else:
        write_text(aside / SOURCES_FILE, json.dumps(note_sources(root, [output, aside])) + "\n")
    survey = survey_corpus(corpus, root)
    if not survey.units:
        raise CwjaxError(f"{root}: holds no unit of a {reader(corpus).TITLE}")
    require_room(aside, survey, audio)
    for folder in (aside / "parts", corpus_folder(aside) / "shards"):
        folder.mkdir(parents=True, exist_ok=True)
    settings = made_of | {"audio": audio}
    write_text(aside / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")
    log.info("preparing %d articles of %s, about %.1f hours of audio", survey.units, root, survey.seconds / 3600)
    tasks = (
        ShardTask(corpus, root, units, aside, number, audio, limits)
        for number, units in enumerate(grouped(corpus, root, survey))
    )
    summaries: dict[int, ShardSummary] = {}
    workers = processes or (available_cores() if survey.seconds >= ONE_PROCESS_SECONDS else 1)
    with tqdm(total=survey.units, desc="preparing", unit="article", disable=not sys.stderr.isatty()) as progress:
        next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
        for task, summary in _each_shard(tasks, workers):
            summaries[task.number] = summary
            for unit in summary.units:
                if unit.failure:
                    log.warning("left out: %s", unit.failure)
                for warning in unit.warnings:
                    log.warning("%s: %s", unit.name, warning)
            progress.update(len(summary.units))
            if progress.disable and time.monotonic() > next_line:
                done = sum(len(one.units) for one in summaries.values())
                log.info("%d of %d articles are prepared", done, survey.units)
                next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
    _put_together(aside, root, settings, dict(sorted(summaries.items())))
    shutil.copy(aside / SOURCES_FILE, corpus_folder(aside))


def _each_shard(tasks: Iterable[ShardTask], workers: int) -> Iterator[tuple[ShardTask, ShardSummary]]:
    """Writes shards, several at a time, and gives them as they are ready."""
    if workers < 2:
        for task in tasks:
            yield task, write_shard(task)
        return
    running: dict[Future[ShardSummary], ShardTask] = {}
    # Fresh interpreters: forking a process whose JAX threads hold locks can hang it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            tasks = iter(tasks)
            while True:
                while len(running) < 2 * workers and (task := next(tasks, None)):
                    running[pool.submit(write_shard, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running[future], future.result()
                    del running[future]
        except BrokenProcessPool as error:
            names = ", ".join(unit.name for task in running.values() for unit in task.units[:3])
            raise CwjaxError(
                f"a process was killed while it read one of {names} ...; is memory short? the same command goes on, "
                "with --processes 1 if need be"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """Lets a worker end when the process that started it is killed."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _put_together(aside: Path, root: Path, settings: dict[str, Any], summaries: dict[int, ShardSummary]) -> None:
    """Splits, index and report, once all shards are written."""
    units = [unit for summary in summaries.values() for unit in summary.units]
    failures = [unit.failure for unit in units if unit.failure]
    if not any(summary.recordings for summary in summaries.values()):
        shutil.rmtree(aside)
        if len(failures) == len(units):
            raise CwjaxError(f"{root}: none of {len(units)} articles can be read; the first: {failures[0]}")
        reasons = sorted({reason for unit in units for reason in unit.dropped})
        raise CwjaxError(f"{root}: no article holds a usable sentence (reasons: {', '.join(reasons)})")
    splits = article_splits((member for summary in summaries.values() for member in summary.members), root=root)
    folder = corpus_folder(aside)
    assembly = Assembly(aside, splits)
    for number, summary in summaries.items():
        if summary.recordings:
            assembly.add(number)
    settings = {"format": FORMAT, "version": VERSION, **settings, **assembly.finish()}
    write_text(folder / CORPUS_FILE, json.dumps(settings, indent=2) + "\n")
    content = report(list(summaries.values()), assembly.portions)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / REPORT_FILE).write_text(text, encoding="utf-8", errors="replace")
    write_page(PreparedCorpus.read(folder), f"{root.resolve().name}: {reader(settings['corpus']).TITLE}", content)
    if (root / HOMOPHONES_FILE).exists():
        shutil.copy(root / HOMOPHONES_FILE, folder / HOMOPHONES_FILE)
    for split, numbers in content["splits"].items():
        log.info("%s: %s", split, ", ".join(f"{value} {name}" for name, value in numbers.items()))
    if failures:
        log.warning("%d of %d articles left out, named in %s", len(failures), len(units), REPORT_FILE)
