"""The test articles of a corpus of ours, prepared by `cwjax prepare`: Spoken Wikipedia, or any other.

Title, lead and topic (title and sections) are without sentences that are said in the segment itself; of the keywords,
those that are said are phrases, the others distractors.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cwjax.data.context import describe, without_leaks
from cwjax.data.prepared import PreparedCorpus
from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import known
from cwjax.evaluation.suites.stored import Stored


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields the segments of the test split; their audio is read when its turn comes."""
    corpus = PreparedCorpus.read(folder)
    positions = corpus.positions("test")
    if not positions:
        raise CwjaxError(f"{folder}: has no segments in the split 'test'; prepare the corpus again, with splits")
    for position in positions:
        segment = corpus.segments[position]
        material, said = segment.context, segment.text.casefold()
        yield Item(
            id=segment.id,
            audio=Stored(segment.id, partial(corpus.pcm16, position)),
            reference=segment.text,
            language=segment.language,
            texts=known(
                title=" ".join(without_leaks([material.title], segment.text)),
                lead=" ".join(without_leaks([material.lead], segment.text)),
                topic=describe(segment, "section"),
                previous=material.previous,
            ),
            phrases=tuple(word for word in material.keywords if word.casefold() in said),
            distractors=tuple(word for word in material.keywords if word.casefold() not in said),
            fields=known(speaker=segment.speaker, recording=segment.article, topic=material.title),
        )
