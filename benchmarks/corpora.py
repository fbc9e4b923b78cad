"""Corpora: reading the Spoken Wikipedia's XML, preparing, and feeding windows to the training step.

    pip install xmltodict
    python benchmarks/corpora.py [--repeated 25] [--copies 4 16] [--swc DIR] [--clips 1000000]

eSpeak NG reads a few long articles, which are copied to make corpora of two sizes. Everything is on one core.
- Reading `aligned.swc`, of these articles or of those in DIR: the parse, the tokens with their times, and the whole way
  to segments, against the way of the original PyTorch project: xmltodict, a tree of dataclasses, flat tokens, texts
  between the times of single words (which loses spacing, order and words of several forms).
- Preparing: how much faster than the audio, and by how much memory and disk grow with its hours.
- Feeding: windows of 30 s that the input pipeline makes in a second, tokens and contexts included; the log-mel
  spectrogram is the device's work.
- Starting: how long it takes until the first windows of a corpus of many short clips are drawn, the first time and
  later, and the memory for it; its sound is not there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import xmltodict

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references import SMALL, real_vocabulary

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.article import read_article
from cwjax.data.corpora.swc.segmentation import segment_article
from cwjax.data.corpora.swc.text import Token, read_document, read_tokens
from cwjax.data.cuts import Cut, Recording, Supervision
from cwjax.data.examples.context import ContextProbabilities
from cwjax.data.examples.pipeline import ExampleSettings, training_batches, training_windows
from cwjax.data.examples.windows import Selection
from cwjax.data.prepared.assembly import Assembly
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.prepared.index import CORPUS_FILE, FORMAT, VERSION, sounds_file
from cwjax.data.prepared.shards import corpus_folder, part_file
from cwjax.demo.article import write_article
from cwjax.demo.corpus import DemoCorpusSettings, plan_articles
from cwjax.demo.homophones import HomophonePairs, read_homophones

PREPARE = """
import re, sys, time
from pathlib import Path
from cwjax.data.prepared.build import prepare
def peak():  # not that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
began = time.process_time()
corpus = prepare("swc", sys.argv[1], sys.argv[2], audio=sys.argv[3], processes=1)
print(time.process_time() - began, peak())
"""
START = """
import re, sys, time
from pathlib import Path
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.data.examples.windows import Limits, Selection, TrainingWindows
from cwjax.data.prepared.corpus import PreparedCorpus
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
began = time.perf_counter()
corpus = PreparedCorpus.read(sys.argv[1])
windows = TrainingWindows(corpus, WhisperTokens.read(sys.argv[2]), Limits(30.0, 100), Selection(), 0)
windows.segment(windows[0])
len(corpus.positions("train"))
print(time.perf_counter() - began, peak())
"""


def main() -> None:
    """Measures all four and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeated", type=int, default=25, help="how often an article's sentences are read (25)")
    parser.add_argument("--swc", type=Path, metavar="DIR", help="Spoken Wikipedia whose aligned.swc are read")
    parser.add_argument("--copies", type=int, nargs=2, default=[4, 16], help="of six articles, in either corpus (4 16)")
    parser.add_argument("--clips", type=int, default=1_000_000, help="of the corpus that is started with (1000000)")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory() as scratch:
        articles = Path(scratch) / "articles"
        _write_long_articles(articles, options.repeated)
        _reading(options.swc or articles)
        _preparing(articles, Path(scratch), options.copies)
        for audio in ("pcm16", "flac"):
            _feeding(Path(scratch) / audio, audio)
        _starting(Path(scratch) / "clips", options.clips)


def _write_long_articles(root: Path, repeated: int) -> None:
    """Six articles of the demo, the sentences of each read again and again."""
    homophones = read_homophones()
    few = DemoCorpusSettings(pairs=1, train_articles=1, test_articles=1)
    for plan in plan_articles(HomophonePairs(homophones.pairs[:1], homophones.carriers), 0, few):
        sections = [replace(section, sentences=section.sentences * repeated) for section in plan.sections]
        write_article(replace(plan, sections=tuple(sections)), root)


def _reading(root: Path) -> None:
    # Neither way reads what lies beside the alignment: that is done before.
    articles = {
        file: read_article(file.parent, root, require_audio=False) for file in sorted(root.rglob("aligned.swc"))
    }
    settings = SegmentationSettings()

    def tokens(file: Path) -> list[Token]:
        return read_tokens(read_document(file), file)

    ways: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
        "the parse": (lambda file: xmltodict.parse(file.read_bytes()), read_document),
        "to tokens": (lambda file: list(_flat(_original_document(file))), tokens),
        "to segments": (
            _original_segments,
            lambda file: segment_article(replace(articles[file], tokens=tokens(file)), settings),
        ),
    }
    for name, (original, ours) in ways.items():
        theirs, own = (_seconds(lambda way=way: [way(file) for file in articles], 20) for way in (original, ours))
        print(f"reading, {name}: {theirs / own:.2f} x the pace of the original way ({theirs:.3f} s, {own:.3f} s)")


@dataclass
class _Form:
    pronunciation: str
    start: str | None
    end: str | None
    phonemes: list[Any]


@dataclass
class _OriginalToken:
    text: str | None
    forms: list[_Form]


@dataclass
class _Content:
    """Of a document or section: what has the same tag stands together, so the order of the text is lost."""

    title: list[_OriginalToken]
    sentences: list[list[_OriginalToken]]
    sections: list["_Content"]


def _listed(value: Any) -> list[Any]:
    """xmltodict gives one element alone, several in a list, and None for an empty one."""
    return [one for one in (value if isinstance(value, list) else [value]) if one is not None]


def _members(node: Any, tag: str) -> list[Any]:
    return _listed(node.get(tag)) if isinstance(node, dict) else []


def _original_tokens(node: Any) -> list[_OriginalToken]:
    return [
        _OriginalToken(
            token.get("#text") if isinstance(token, dict) else token,
            [
                _Form(form.get("@pronunciation"), form.get("@start"), form.get("@end"), _members(form, "ph"))
                for form in _members(token, "n")
            ],
        )
        for token in _members(node, "t")
    ]


def _original_content(node: Any, title: Any = None) -> _Content:
    paragraphs = _members(node, "p")
    return _Content(
        _original_tokens(title),
        [_original_tokens(sentence) for one in [*paragraphs, node] for sentence in _members(one, "s")],
        [
            _original_content(section.get("sectioncontent"), section.get("sectiontitle"))
            for section in _members(node, "section")
        ],
    )


def _original_document(file: Path) -> _Content:
    return _original_content(xmltodict.parse(file.read_bytes())["article"]["d"])


def _flat(content: _Content) -> Iterator[_OriginalToken]:
    yield from content.title
    for sentence in content.sentences:
        yield from sentence
    for section in content.sections:
        yield from _flat(section)


def _original_segments(file: Path) -> list[tuple[int, int, str]]:
    """Texts up to each token that has one timed form, and all times in order, side by side."""
    texts, text, times = [], "", {0}
    for token in _flat(_original_document(file)):
        text += f" {token.text or ''}"
        if len(token.forms) == 1 and (form := token.forms[0]).start and form.end:
            texts.append(text)
            text = ""
            times |= {int(form.start), int(form.end)}
    ordered = sorted(times)
    return list(zip(ordered, ordered[1:], texts, strict=False))


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
        hours = sum(PreparedCorpus.read(output)._files.table("cuts")["samples"]) / 16_000 / 3600
        size = sum(file.stat().st_size for file in output.rglob("*"))
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
    draw = np.random.default_rng(0)
    rows = []
    for article in range(20):
        sound = draw.normal(0, 0.1, 10 * processor.window_samples)
        soundfile.write(folder / f"{article}.wav", sound, 16_000)
        known = {
            "audio": f"{article}.wav",
            "title": "The sea",
            "section": "Wind",
            "lead": "The water is cold and deep.",
        }
        rows += [{**known, "start": 30 * place, "end": 30 * place + 30, "text": text} for place in range(10)]
    (folder / "table.jsonl").write_text("\n".join(json.dumps(row | {"split": "train"}) for row in rows))
    corpus = prepare("manifest", folder, folder / "prepared", audio=audio, processes=1)
    settings = ExampleSettings(128, 64, ContextProbabilities(), timestamps=0.0)
    windows = training_windows(corpus, processor, settings, Selection())
    batches = training_batches(corpus, windows, processor, settings, 16, 0, 1)
    for _ in range(8):
        next(batches)
    count = 40

    def feed() -> None:
        for _ in range(count):
            next(batches)  # and let it go, as a training step does

    seconds = _seconds(feed, repeats=3)
    print(f"feeding, {audio}: {16 * count / seconds:.0f} windows of 30 s a second")


def _starting(folder: Path, clips: int) -> None:
    aside, shard_size = folder / "partial", 10_000
    for place in (aside / "parts", corpus_folder(aside) / "shards"):
        place.mkdir(parents=True)
    _, processor = real_vocabulary(folder / "parts", SMALL)
    assembly = Assembly(aside, {f"clip {number}": "train" for number in range(clips)})
    for shard in range(-(-clips // shard_size)):
        (corpus_folder(aside) / sounds_file(shard)).touch()
        part_file(aside, shard, "blocks").touch()
        with (
            part_file(aside, shard, "cuts").open("w") as cuts,
            part_file(aside, shard, "articles").open("w") as articles,
        ):
            for number in range(shard * shard_size, min((shard + 1) * shard_size, clips)):
                said = "the quick brown fox jumps over the lazy dog"
                one = Supervision(
                    f"{number}", 0.0, 5.0, said, f"{number // 100}", "en", (), {"article": f"clip {number}"}
                )
                custom = {"source": f"{number}.mp3", "offset": 0, "size": 0, "crc32": 0}
                cut = Cut(f"{number}", Recording(f"{number}", 16_000, 80_000), 0.0, 5.0, (one,), custom=custom)
                cuts.write(json.dumps(cut.as_dict()) + "\n")
                articles.write(json.dumps({"id": f"clip {number}", "licence": "CC0"}) + "\n")
        assembly.add(shard)
    made_of = {
        "format": FORMAT,
        "version": VERSION,
        "segmentation": {"max_duration": 30.0, "previous_characters": 1000},
        "audio": "pcm16",
    }
    (corpus_folder(aside) / CORPUS_FILE).write_text(json.dumps(made_of | assembly.finish()))
    processor.tokens.tokenizer.save(folder / "tokenizer")
    for when in ("first", "second"):
        command = [sys.executable, "-c", START, str(corpus_folder(aside)), str(folder / "tokenizer")]
        seconds, peak = map(
            float, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        )
        print(f"starting, {clips:,} clips, the {when} time: {seconds:.1f} s, peak memory {peak:.0f} MiB")


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
