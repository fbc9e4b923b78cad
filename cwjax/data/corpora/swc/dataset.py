"""The Spoken Wikipedia as a Python sequence, for whoever wants its segments without preparing it."""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cwjax.data.audio.spans import read_spans
from cwjax.data.corpora.registry import require_corpus
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc import reader as swc_corpus
from cwjax.data.examples.context import describe_for_evaluation
from cwjax.data.prepared.windows import gathered
from cwjax.data.segment import Segment, segment_of
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)


class SpokenSegments(NamedTuple):
    """Segments of one or more articles; all lists are equally long.

    Attributes:
        descriptions: what a careful user would say about each: title, section and lead of its article, without
            anything that is said in the segment itself.
        waveforms: samples at 16 kHz, (n,) float32 in -1..1.
        texts: what is said.
        segments: all else that is known, such as the times of the sentences.
    """

    descriptions: list[str]
    waveforms: list[np.ndarray]
    texts: list[str]
    segments: list[Segment]


class SWCDataset(Sequence[SpokenSegments]):
    """The articles of a Spoken Wikipedia Corpus, decoded when they are asked for.

    ```python
    dataset = SWCDataset("spoken-wikipedia-corpus-2.0/english")
    descriptions, waveforms, texts, _ = dataset[0]         # the segments of an article
    for descriptions, waveforms, texts, _ in dataset.batches(8):  # of eight articles at a time
        ...
    ```

    Args:
        root: folder of the corpus, or one above it.
        limits: by which articles are cut; the defaults give segments of up to 30 s.

    Raises CwjaxError if `root` holds no article.
    """

    def __init__(self, root: str | Path, limits: SegmentationSettings | None = None):
        self.root = Path(root)
        self.limits = limits or SegmentationSettings()
        require_corpus("swc", self.root)
        self.articles = tuple(swc_corpus.articles(self.root))

    def __len__(self) -> int:
        return len(self.articles)

    def __getitem__(self, index: int | slice) -> SpokenSegments:
        """The segments of an article, or of several.

        Raises CwjaxError if an article cannot be used, with the reason.
        """
        chosen = self.articles[index] if isinstance(index, slice) else (self.articles[index],)
        segments = SpokenSegments([], [], [], [])
        for unit in chosen:
            for segment, waveform in self._read(unit):
                segments.descriptions.append(describe_for_evaluation(segment))
                segments.waveforms.append(waveform)
                segments.texts.append(segment.text)
                segments.segments.append(segment)
        return segments

    def batches(self, articles: int) -> Iterator[SpokenSegments]:
        """The segments of so many articles at a time, in order; articles that cannot be used are named in the log."""
        batch: list[SpokenSegments] = []
        for index in range(len(self)):
            try:
                batch.append(self[index])
            except CwjaxError as error:
                log.warning("left out: %s", error)
            if batch and (len(batch) == articles or index == len(self) - 1):
                yield SpokenSegments(*(list(chain(*lists)) for lists in zip(*batch, strict=True)))
                batch = []

    def _read(self, unit: swc_corpus.Unit) -> Iterator[tuple[Segment, np.ndarray]]:
        reading = swc_corpus.read(self.root, unit, self.limits)
        for number, track in enumerate(reading.tracks):
            windows = gathered(track.supervisions, self.limits.max_duration)
            spans = [(said[0].start, said[-1].end) for said in windows]
            facts = reading.articles[track.supervisions[0].custom["article"]]
            for place, samples in read_spans(self.root / track.audio, spans):
                yield segment_of(windows[place], facts, number), samples.astype(np.float32) / 32768
