"""Segments without a prepared corpus: what readers gave, and as a corpus has them."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from cwjax.data.corpora.reader import Reading
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.article import Article
from cwjax.data.corpora.swc.segmentation import segment_article
from cwjax.data.prepared.splits import SPLITS
from cwjax.data.prepared.windows import gathered
from cwjax.data.segment import Segment, latest_text, segment_of


def segmented(article: Article, settings: SegmentationSettings) -> SimpleNamespace:
    """What an article gave, and as `segments` its sentences in windows as long as they may be, in seconds of the
    article; what was said before is the text up to the last gap."""
    result = segment_article(article, settings)
    segments = []
    for number, track in enumerate(result.tracks):
        (offset,) = (part.offset for part in article.audio_parts if part.path == track.audio)
        previous = ""
        for said in gathered(track.supervisions, settings.max_duration):
            if said[0].custom.get("gap_before"):
                previous = ""
            one = segment_of(said, result.facts, number, previous)
            segments.append(replace(one, start=one.start + offset, end=one.end + offset))
            previous = latest_text(f"{previous} {one.text}".strip(), settings.previous_characters)
    fields = ("tracks", "rejected", "holes", "words", "timed_words", "kept_words", "rate", "dropped")
    return SimpleNamespace(segments=segments, **{name: getattr(result, name) for name in fields})


def listed(reading: Reading) -> list[Segment]:
    """A segment for every supervision of a reading, by the names of its audio files; what was said before is the text
    up to the last gap."""
    segments = []
    for number, track in enumerate(sorted(reading.tracks, key=lambda track: track.audio)):
        before = ""
        for said in track.supervisions:
            before = "" if said.custom.get("gap_before") else said.custom.get("previous", before)
            article = said.custom["article"]
            segment = segment_of([said], reading.articles[article], number, before)
            segments.append(replace(segment, split=segment.split or reading.splits.get(article, "")))
            before = f"{before} {said.text}".strip()
    return segments


class ListedSegments(list):
    """Segments as a corpus has them, of a supervision each."""

    @property
    def begins(self) -> np.ndarray:
        return np.arange(len(self))


def supervisions_of(segments: Sequence[Segment]) -> np.ndarray:
    """Of the corpus's table what says of which split and article segments are."""
    articles = {name: number for number, name in enumerate(dict.fromkeys(one.article for one in segments))}
    rows = [(SPLITS.index(one.split or "train"), articles[one.article]) for one in segments]
    return np.array(rows, [("split", np.int8), ("article", np.int32)])
