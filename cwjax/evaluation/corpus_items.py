"""Segments of a prepared corpus as items of an evaluation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cwjax.data.examples.context import PREVIOUS_WORDS, describe, describe_for_evaluation, without_leaks
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.segment import Segment
from cwjax.evaluation.contrast import wrong_contexts
from cwjax.evaluation.homophones import ArticleHomophones
from cwjax.evaluation.items import Item
from cwjax.scoring.normalisers import plain_words


@dataclass(frozen=True, eq=False)
class SegmentSound:
    """The samples of a segment, (n,) float32 at 16 kHz, read when numpy asks for them."""

    corpus: PreparedCorpus
    position: int

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.corpus.audio(self.position), dtype)


def corpus_items(corpus: PreparedCorpus, positions: Sequence[int], homophones: ArticleHomophones | None) -> list[Item]:
    """Segments with what the corpus knows about them.

    The wrong context is that of an article about the other word of the segment's pair of homophones, the hardest
    there is, or of any other article of the same split where there is no such pair.
    """
    segments = [corpus.segments[position] for position in positions]
    wrong = wrong_contexts(corpus, positions, homophones)
    return [
        segment_item(segment, SegmentSound(corpus, position), homophones, *other)
        for segment, position, other in zip(segments, positions, wrong, strict=True)
    ]


def segment_item(
    segment: Segment,
    audio: Any,
    homophones: ArticleHomophones | None = None,
    wrong: str = "",
    is_homophones: bool = False,
) -> Item:
    """One segment.

    Args:
        segment: the segment.
        audio: its sound.
        homophones: of the corpus.
        wrong: the context of another article.
        is_homophones: whether that is about the word that sounds the same.
    """
    material = segment.context
    lead = " ".join(without_leaks([material.lead], segment.text))
    texts = {
        "right": describe_for_evaluation(segment),
        "topic": re.split(r"(?<=[.!?])\s+", lead)[0],
        "title": describe(segment, "title"),
        "lead": describe(segment, "lead") if lead else "",
        "previous": " ".join(material.previous.split()[-PREVIOUS_WORDS:]),
        "wrong": wrong,
        "homophone": wrong if is_homophones else "",
    }
    fields: dict[str, Any] = {
        "speaker": segment.speaker,
        "recording": segment.article,
        "subset": segment.subset or segment.split,
    }
    if homophones and segment.article in homophones.words:
        words = homophones.words[segment.article], homophones.partners[segment.article]
        fields["homophone"] = dict(zip(("word", "partner"), words, strict=True))
    said = f" {' '.join(plain_words(segment.text, segment.language))} "
    spoken = {one: f" {' '.join(plain_words(one, segment.language))} " in said for one in material.keywords}
    return Item(
        id=segment.id,
        audio=audio,
        reference=segment.text,
        language=segment.language,
        texts={kind: text for kind, text in texts.items() if text},
        phrases=tuple(one for one, is_said in spoken.items() if is_said),
        distractors=tuple(one for one, is_said in spoken.items() if not is_said),
        fields=fields,
    )
