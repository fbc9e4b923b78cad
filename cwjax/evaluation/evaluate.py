"""Evaluating a model: every segment transcribed under right, no and wrong context, and the report of it."""

import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import cwjax
from cwjax.data.context import describe_for_evaluation
from cwjax.data.homophones import HOMOPHONES_FILE
from cwjax.data.prepared import PreparedCorpus
from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError
from cwjax.evaluation.homophones import Homophones, partner_articles
from cwjax.evaluation.report import summarise, write_report
from cwjax.evaluation.transcription import CONDITIONS, Transcription
from cwjax.inference.audio import Recording
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcription import Request
from cwjax.training.metrics import read_metrics
from cwjax.weights.model_directory import read_training_facts

log = logging.getLogger(__name__)


def evaluate(
    model_directory: str | Path,
    corpus: PreparedCorpus,
    output: str | Path,
    split: str,
    batch_size: int,
    examples: int = 0,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Transcribes a split with right, no and wrong context and writes `report.json` and `report.html`.

    Args:
        model_directory: what training wrote.
        corpus: prepared, whose `homophones.json` is used if it has one.
        output: folder of the report; curves are drawn if it holds a `metrics.jsonl`.
        split: which segments.
        batch_size: windows at once.
        examples: only the first so many segments; 0: all.
        facts: for the report's table; None: those in the model directory.

    Returns:
        The summary, as in `report.json`.
    """
    transcriber = cwjax.load(model_directory).transcriber
    positions = corpus.positions(split)[: examples or None]
    if not positions:
        raise CwjaxError(f"{corpus.directory}: has no segments in the split '{split}'")
    homophones = read_homophones(corpus)
    facts = facts or read_training_facts(model_directory)
    log.info("transcribing %d segments of the %s split with right, no and wrong context", len(positions), split)
    transcriptions = transcribe_conditions(transcriber, corpus, positions, homophones, DecodingOptions(), batch_size)
    summary = summarise(transcriptions, homophones)
    place = {segment.id: position for position, segment in enumerate(corpus.segments)}
    Path(output).mkdir(parents=True, exist_ok=True)
    write_report(
        Path(output),
        summary,
        transcriptions,
        read_metrics(output),
        lambda segment: corpus.audio(place[segment.id]),
        title=f"{Path(model_directory).resolve().parent.name}: {split} split",
        facts=_presentable(facts),
    )
    log_summary(summary)
    log.info("report written to %s", Path(output) / "report.html")
    return summary


def scores_of(summary: dict[str, Any], split: str) -> dict[str, dict[str, float]]:
    """The measures of a summary by context, for a model card."""
    scores = {f"word error rate, {split} split": dict(summary["wer"])}
    if "homophones" in summary:
        shares = {condition: decisions["share"] for condition, decisions in summary["homophones"].items()}
        scores[f"homophones spelled as meant, {split} split"] = shares
    return scores


def transcribe_conditions(
    transcriber: Transcriber,
    corpus: PreparedCorpus,
    positions: Sequence[int],
    homophones: Homophones | None,
    options: DecodingOptions,
    batch_size: int,
    quiet: bool = False,
) -> list[Transcription]:
    """Transcribes segments three times each.

    The wrong context is that of an article about the other word of the segment's pair of homophones, the
    hardest there is, or of any other article of the same split where there is no such pair.

    Args:
        transcriber: the model.
        corpus: where the segments lie.
        positions: of the segments in the corpus.
        homophones: pairs and their articles, or None.
        options: how to decode; the language is each segment's.
        batch_size: windows at once.
        quiet: show no progress.

    Raises:
        CwjaxError: a segment cannot be transcribed.
    """
    segments = [corpus.segments[place] for place in positions]
    contexts = {
        "right": [describe_for_evaluation(segment) for segment in segments],
        "none": [""] * len(segments),
        "wrong": wrong_contexts(segments, corpus.segments, homophones),
    }
    asked: dict[Request, tuple[int, str]] = {}

    def requests() -> Iterator[Request]:
        for row, (place, segment) in enumerate(zip(positions, segments, strict=True)):
            recording = Recording.open(corpus.audio(place))
            spoken = dataclasses.replace(options, language=segment.language)
            for condition in CONDITIONS:
                request = Request(recording, contexts[condition][row], spoken)
                asked[request] = row, condition
                yield request

    hypotheses: list[dict[str, str]] = [{} for _ in segments]
    with tqdm(
        total=len(segments) * len(CONDITIONS),
        desc="transcribing",
        unit="segment",
        disable=quiet or not sys.stderr.isatty(),
    ) as progress:
        for event in transcriber.stream_many(requests(), batch_size, threaded=False):
            if event.error is not None:
                raise event.error
            if event.transcript is not None:
                row, condition = asked.pop(event.request)
                hypotheses[row][condition] = event.transcript.text.strip()
                progress.update()
    return [
        Transcription(segment, {condition: contexts[condition][row] for condition in CONDITIONS}, hypotheses[row])
        for row, segment in enumerate(segments)
    ]


def wrong_contexts(segments: Sequence[Segment], corpus: Sequence[Segment], homophones: Homophones | None) -> list[str]:
    """For each segment the context of a segment of another article of its split; the same choice at every call."""
    generator = np.random.default_rng(0)
    by_article: dict[tuple[str, str], list[int]] = {}  # places, for a corpus may be larger than memory
    for place, segment in enumerate(corpus):
        by_article.setdefault((segment.split, segment.article), []).append(place)
    wrong = []
    for segment in segments:
        here = [name for split, name in by_article if split == segment.split and name != segment.article]
        partners = set(partner_articles(homophones, segment.article)) if homophones else set()
        articles = [name for name in here if name in partners] or here
        if not articles:
            wrong.append("")
            continue
        article = articles[generator.integers(len(articles))]
        candidates = [corpus[place] for place in by_article[segment.split, article]]
        # The lead's own segments say less about their article than the others do.
        candidates = [one for one in candidates if not one.is_lead] or candidates
        wrong.append(describe_for_evaluation(candidates[generator.integers(len(candidates))]))
    return wrong


def read_homophones(corpus: PreparedCorpus) -> Homophones | None:
    """The homophones a corpus is about, if it says so."""
    path = corpus.directory / HOMOPHONES_FILE
    return Homophones.read(path) if path.exists() else None


def log_summary(summary: dict[str, Any]) -> None:
    """One line for each condition."""
    for condition, rate in summary["wer"].items():
        decided = summary.get("homophones", {}).get(condition)
        share = f"{100 * decided['share']:5.1f} % of homophones right, " if decided and decided["count"] else ""
        log.info("%5s context: %sWER %.1f %%", condition, share, 100 * rate)


def _presentable(facts: dict[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        match value:
            case bool():
                return "yes" if value else "no"
            case int():
                return f"{value:,}"
            case list():
                return ", ".join(value)
            case _:
                return str(value)

    return {name.replace("_", " "): text(value) for name, value in facts.items()}
