"""From a corpus on disk to a prepared one, on all cores.

Units that cannot be used are counted and named in `report.json`; they end the work only if all are so. The output
appears whole or not at all: it is put together aside, shard by shard, and renamed. Whoever stops the work loses the
shards that were being written, and goes on from there with the same command.
"""

import json
import logging
import multiprocessing
import os
import re
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
from cwjax.data.prepared.corpus import CORPUS_FILE, AudioFormat, PreparedCorpus, require_array_record
from cwjax.data.prepared.index import INDEX_FILE
from cwjax.data.prepared.page import write_page
from cwjax.data.prepared.report import REPORT_FILE, report
from cwjax.data.prepared.shards import ShardSummary, ShardTask, lines_file, write_shard
from cwjax.data.prepared.splits import article_splits
from cwjax.data.prepared.survey import grouped, require_room, survey_corpus
from cwjax.data.prepared.working_folder import only_process, publish
from cwjax.demo.homophones import HOMOPHONES_FILE
from cwjax.errors import CwjaxError
from cwjax.files import local_path
from cwjax.machine import available_cores

log = logging.getLogger(__name__)

ONE_PROCESS_SECONDS = 3600
"""A corpus with less audio is prepared before other processes would have started."""

_HEAD = re.compile(r'\{"id": ("(?:[^"\\]|\\.)*")(, "shard": "[^"]*", "split": )"[^"]*"')
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
        CwjaxError: `root` holds no such corpus, nothing in it can be used, the disk is too small, `output` holds
            something else, or the package array_record is missing.
    """
    require_array_record()
    root, output = local_path(root), local_path(output)
    limits = limits or SegmentationSettings()
    # Written and compared as JSON knows it: tuples are lists there.
    made_of = {"corpus": corpus, "root": str(root.resolve()), "segmentation": asdict(limits)}
    made_of = json.loads(json.dumps(made_of | ({"audio": audio} if audio else {})))
    audio = audio or "pcm16"
    if output.exists():
        _require_same(output, made_of)
        return PreparedCorpus.read(output)
    require_corpus(corpus, root)
    try:
        with only_process(output) as aside:
            if aside:
                _prepare_into(aside, corpus, root, limits, audio, processes, made_of)
                publish(aside, output)
    except OSError as error:
        raise CwjaxError(
            f"{output}: cannot be written ({error.strerror or error}); make room, and the same command goes on"
        ) from error
    return PreparedCorpus.read(output)


def _require_same(folder: Path, made_of: dict[str, Any]) -> None:
    """Refuses a folder that was not made of the same corpus in the same way."""
    try:
        found = json.loads((folder / CORPUS_FILE).read_text(encoding="utf-8"))
        different = [name for name in made_of if found.get(name) != made_of[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise CwjaxError(f"{folder}: exists but is no prepared corpus; delete it or name another output") from error
    if "root" in different and not Path(made_of["root"]).exists():
        different.remove("root")  # the corpus itself stayed on the machine where it was prepared
    if different:
        what = {"corpus": "another corpus", "root": "another corpus", "segmentation": "other window lengths or limits"}
        reasons = dict.fromkeys(what.get(name, f"another form of {name}") for name in different)
        raise CwjaxError(
            f"{folder}: was prepared from {' and '.join(reasons)}; delete it or name another output (data.prepared)"
        )


def _prepare_into(
    aside: Path,
    corpus: CorpusName,
    root: Path,
    limits: SegmentationSettings,
    audio: AudioFormat,
    processes: int,
    made_of: dict[str, Any],
) -> None:
    if (aside / CORPUS_FILE).exists():
        _require_same(aside, made_of)
        log.info("going on with what an earlier run has left in %s", aside)
    survey = survey_corpus(corpus, root)
    if not survey.units:
        raise CwjaxError(f"{root}: holds no unit of a {reader(corpus).TITLE}")
    require_room(aside, survey, audio)
    (aside / CORPUS_FILE).write_text(json.dumps(made_of | {"audio": audio}, indent=2) + "\n", encoding="utf-8")
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
    _put_together(aside, corpus, root, [summaries[number] for number in sorted(summaries)])


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


def _put_together(aside: Path, corpus: CorpusName, root: Path, summaries: list[ShardSummary]) -> None:
    """Splits, index and report, once all shards are written."""
    units = [unit for summary in summaries for unit in summary.units]
    failures = [unit.failure for unit in units if unit.failure]
    if not any(summary.segments for summary in summaries):
        shutil.rmtree(aside)
        if len(failures) == len(units):
            raise CwjaxError(f"{root}: none of {len(units)} articles can be read; the first: {failures[0]}")
        reasons = sorted({reason for unit in units for reason in unit.dropped})
        raise CwjaxError(f"{root}: no article holds a usable segment (reasons: {', '.join(reasons)})")
    splits = article_splits((member for summary in summaries for member in summary.members), root=root)
    with (aside / INDEX_FILE).open("w", encoding="utf-8") as index:
        index.writelines(_index_lines(aside, summaries, splits))
    content = report(summaries, splits)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (aside / REPORT_FILE).write_text(text, encoding="utf-8", errors="replace")
    write_page(PreparedCorpus.read(aside), f"{root.resolve().name}: {reader(corpus).TITLE}", content)
    if (root / HOMOPHONES_FILE).exists():
        shutil.copy(root / HOMOPHONES_FILE, aside / HOMOPHONES_FILE)
    shards = {summary.shard for summary in summaries if summary.segments}
    for path in aside.glob("audio-*"):
        if path.name not in shards:
            path.unlink()
    for split, numbers in content["splits"].items():
        log.info("%s: %s", split, ", ".join(f"{value} {name}" for name, value in numbers.items()))
    if failures:
        log.warning("%d of %d articles left out, named in %s", len(failures), len(units), REPORT_FILE)


def _index_lines(aside: Path, summaries: list[ShardSummary], splits: dict[str, str]) -> Iterator[str]:
    """The lines of all shards, with their splits, and with ids that are unique even if two units have one name."""
    seen: dict[str, int] = {}
    for summary in summaries:
        with lines_file(aside, summary.shard).open(encoding="utf-8") as lines:
            for line in lines:
                article, _, record = line.partition("\t")
                head = _HEAD.match(record)
                identifier, split = head[1], splits[json.loads(article)]
                seen[identifier] = count = seen.get(identifier, 0) + 1
                if count > 1:
                    identifier = f'{identifier[:-1]}~{count}"'
                yield f'{{"id": {identifier}{head[2]}{json.dumps(split)}{record[head.end() :]}'
