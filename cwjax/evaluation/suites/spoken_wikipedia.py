"""The test articles of a corpus of ours, prepared by `cwjax prepare`: Spoken Wikipedia, or any other."""

from collections.abc import Iterator
from pathlib import Path

from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError
from cwjax.evaluation.corpus_items import corpus_items
from cwjax.evaluation.homophones import ArticleHomophones
from cwjax.evaluation.items import Item


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields the segments of the test split; their audio is read when its turn comes."""
    corpus = PreparedCorpus.read(folder)
    positions = corpus.positions("test")
    if not positions:
        raise CwjaxError(f"{folder}: has no segments in the split 'test'; prepare the corpus again, with splits")
    yield from corpus_items(corpus, positions, ArticleHomophones.of_corpus(corpus.directory))
