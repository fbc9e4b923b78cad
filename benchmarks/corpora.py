"""Corpora: reading the Spoken Wikipedia's XML, preparing, and feeding windows to the training step.

    pip install xmltodict
    python benchmarks/corpora.py [--repeated 25] [--copies 4 16]

eSpeak NG reads a few long articles, which are copied to make corpora of two sizes. Everything is on one core.
- Reading: the tokens and times of `aligned.swc`, and the whole way to segments, against what xmltodict needs for a
  parse and a walk to the same tokens (which loses spacing and order; see docs/corpora.md).
- Preparing: how much faster than the audio, and by how much memory and disk grow with its hours.
- Feeding: windows of 30 s that the input pipeline makes in a second, tokens and contexts included; the log-mel
  spectrogram is the device's work.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xmltodict

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references import SMALL, real_vocabulary

from cwjax.data.context import ContextProbabilities
from cwjax.data.demo_article import write_article
from cwjax.data.demo_corpus import DemoCorpusSettings, plan_articles
from cwjax.data.homophones import Homophones, read_homophones
from cwjax.data.pipeline import ExampleSettings, training_batches
from cwjax.data.prepared import PreparedCorpus, write_prepared
from cwjax.data.segment import ContextMaterial, Segment, Utterance
from cwjax.data.segmentation import segment_article
from cwjax.data.segmentation_settings import SegmentationSettings
from cwjax.data.swc import Article, read_article, with_durations

PREPARE = """
import resource, sys, time
from cwjax.data.prepare import prepare
began = time.process_time()
corpus = prepare("swc", sys.argv[1], sys.argv[2], audio=sys.argv[3], processes=1)
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    """Measures all three and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeated", type=int, default=25, help="how often an article's sentences are read (25)")
    parser.add_argument("--copies", type=int, nargs=2, default=[4, 16], help="of six articles, in either corpus (4 16)")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory() as scratch:
        articles = Path(scratch) / "articles"
        _write_long_articles(articles, options.repeated)
        _reading(articles)
        _preparing(articles, Path(scratch), options.copies)
        for audio in ("pcm16", "flac"):
            _feeding(Path(scratch) / audio, audio)


def _write_long_articles(root: Path, repeated: int) -> None:
    """Six articles of the demo, the sentences of each read again and again."""
    homophones = read_homophones()
    few = DemoCorpusSettings(pairs=1, train_articles=1, test_articles=1)
    for plan in plan_articles(Homophones(homophones.pairs[:1], homophones.carriers), 0, few):
        sections = [replace(section, sentences=section.sentences * repeated) for section in plan.sections]
        write_article(replace(plan, sections=tuple(sections)), root)


def _reading(root: Path) -> None:
    folders = [file.parent for file in sorted(root.rglob("aligned.swc"))]
    seconds = {
        "xmltodict, parse and walk": _seconds(lambda: [_walk(folder / "aligned.swc") for folder in folders]),
        "tokens": _seconds(lambda: [read_article(folder, root) for folder in folders]),
        "tokens and segments": _seconds(lambda: [_segments(read_article(folder, root)) for folder in folders]),
    }
    peer = seconds.pop("xmltodict, parse and walk")
    for name, own in seconds.items():
        print(f"reading, {name}: {peer / own:.2f} x the pace of xmltodict's parse and walk")


def _walk(file: Path) -> list[tuple[Any, Any, Any]]:
    """Texts and times of all tokens, in the order in which xmltodict leaves them."""
    found, waiting = [], [xmltodict.parse(file.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            tokens = node.pop("t", None) or []
            for token in tokens if isinstance(tokens, list) else [tokens]:
                form = token.get("n") if isinstance(token, dict) else None
                times = (form.get("@start"), form.get("@end")) if isinstance(form, dict) else (None, None)
                found.append((token.get("#text") if isinstance(token, dict) else token, *times))
            waiting += node.values()
    return found


def _segments(article: Article) -> int:
    last = max((form.end_ms or 0 for token in article.tokens for form in token.norms), default=0) / 1000
    begins = [*(part.offset for part in article.audio_parts), last + 1]
    durations = [max(end - start, 0.1) for start, end in itertools.pairwise(begins)]
    return len(segment_article(with_durations(article, durations), SegmentationSettings()).segments)


def _preparing(articles: Path, scratch: Path, copies: list[int]) -> None:
    measured = []
    for count in copies:
        root = scratch / f"corpus-{count}"
        for number in range(count):
            for folder in (file.parent for file in sorted(articles.rglob("aligned.swc"))):
                shutil.copytree(folder, root / "english" / f"{folder.name}_{number}")
        output = scratch / f"prepared-{count}"
        command = [sys.executable, "-c", PREPARE, str(root), str(output), "pcm16"]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds, peak = map(float, printed.split())
        hours = sum(segment.duration for segment in PreparedCorpus.read(output).segments) / 3600
        size = sum(file.stat().st_size for file in output.iterdir())
        measured.append((hours, seconds, peak, size / 1e9))
    hours, seconds, peak, size = measured[-1]
    slopes = [(measured[1][place] - measured[0][place]) / (hours - measured[0][0]) for place in (2, 3)]
    print(f"preparing: {hours:.1f} hours at {hours * 3600 / seconds:.0f} x real time on one core")
    print(f"memory: peak {peak:.0f} MiB, {slopes[0]:.1f} MiB more an hour; disk: {slopes[1]:.3f} GB an hour")
    print(f"400 hours: {peak + 400 * max(slopes[0], 0):.0f} MiB a worker, {400 * slopes[1]:.0f} GB")


def _feeding(folder: Path, audio: str) -> None:
    folder.mkdir()
    _, processor = real_vocabulary(folder / "parts", SMALL)
    text = " ".join(["the quick brown fox jumps over the lazy dog"] * 8)
    context = ContextMaterial(title="The sea", section=("Wind",), lead="The water is cold and deep.")
    draw = np.random.default_rng(0)

    def segments() -> Iterator[tuple[Segment, np.ndarray]]:
        for number in range(200):
            segment = Segment(
                str(number), f"{number // 10}", "a", 0, 30, text, (Utterance(0, 30, text),), context, split="train"
            )
            yield segment, draw.normal(0, 0.1, processor.window_samples).astype(np.float32)

    write_prepared(folder, segments(), list, audio)
    corpus = PreparedCorpus.read(folder)
    settings = ExampleSettings(128, 64, ContextProbabilities(), timestamps=0.0)
    batches = training_batches(corpus, [(place,) for place in range(200)], processor, settings, 16, 0, 1)
    for _ in range(8):
        next(batches)
    count = 40
    seconds = _seconds(lambda: [next(batches) for _ in range(count)], repeats=3)
    print(f"feeding, {audio}: {16 * count / seconds:.0f} windows of 30 s a second")


def _seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of several runs."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


if __name__ == "__main__":
    main()
