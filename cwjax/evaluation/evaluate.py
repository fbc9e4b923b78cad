"""Transcribing segments under right, no and wrong context."""

import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from cwjax.data.context import describe_for_evaluation
from cwjax.data.prepared import PreparedCorpus
from cwjax.data.segment import Segment
from cwjax.evaluation.homophones import Homophones, partner_articles
from cwjax.evaluation.transcription import CONDITIONS, Transcription
from cwjax.inference.windows import WindowTranscriber
from cwjax.models.parameters import Parameters


def transcribe_conditions(
    transcriber: WindowTranscriber,
    parameters: Parameters,
    corpus: PreparedCorpus,
    positions: Sequence[int],
    homophones: Homophones | None,
    quiet: bool = False,
) -> list[Transcription]:
    """Transcribes segments three times each.

    The wrong context is that of an article about the other word of the segment's pair of homophones, the
    hardest there is, or of any other article of the same split where there is no such pair.

    Args:
        transcriber: compiled for the model.
        parameters: of the model.
        corpus: where the segments lie.
        positions: of the segments in the corpus.
        homophones: pairs and their articles, or None.
        quiet: show no progress.
    """
    segments = [corpus.segments[place] for place in positions]
    contexts = {
        "right": [describe_for_evaluation(segment) for segment in segments],
        "none": [""] * len(segments),
        "wrong": wrong_contexts(segments, corpus.segments, homophones),
    }
    hypotheses: dict[str, list[str]] = {condition: [] for condition in CONDITIONS}
    chunk = max(1, transcriber.batch_size)
    progress = tqdm(
        total=len(segments) * len(CONDITIONS),
        desc="transcribing",
        unit="window",
        disable=quiet or not sys.stderr.isatty(),
    )
    with progress:
        for first in range(0, len(segments), chunk):
            part = slice(first, first + chunk)
            waveforms = [corpus.audio(place) for place in positions[part]]
            languages = [segment.language for segment in segments[part]]
            for condition in CONDITIONS:
                hypotheses[condition] += transcriber(parameters, waveforms, contexts[condition][part], languages)
                progress.update(len(waveforms))
    return [
        Transcription(
            segment,
            {condition: contexts[condition][row] for condition in CONDITIONS},
            {condition: hypotheses[condition][row] for condition in CONDITIONS},
        )
        for row, segment in enumerate(segments)
    ]


def wrong_contexts(segments: Sequence[Segment], corpus: Sequence[Segment], homophones: Homophones | None) -> list[str]:
    """For each segment the context of a segment of another article of its split; the same choice at every call."""
    generator = np.random.default_rng(0)
    by_article: dict[tuple[str, str], list[Segment]] = {}
    for segment in corpus:
        by_article.setdefault((segment.split, segment.article), []).append(segment)
    wrong = []
    for segment in segments:
        here = [name for split, name in by_article if split == segment.split and name != segment.article]
        partners = set(partner_articles(homophones, segment.article)) if homophones else set()
        articles = [name for name in here if name in partners] or here
        if not articles:
            wrong.append("")
            continue
        candidates = by_article[segment.split, articles[generator.integers(len(articles))]]
        # The lead's own segments say less about their article than the others do.
        candidates = [one for one in candidates if not one.is_lead] or candidates
        wrong.append(describe_for_evaluation(candidates[generator.integers(len(candidates))]))
    return wrong
