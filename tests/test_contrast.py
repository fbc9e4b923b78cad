"""Wrong contexts: of which articles they are, and how much of a corpus is read for them."""

from types import SimpleNamespace

import numpy as np
from segmented import ListedSegments

from cwjax.data.segment import ContextMaterial, Segment
from cwjax.evaluation.contrast import wrong_contexts
from cwjax.evaluation.homophones import ArticleHomophones


class CountedSegments(ListedSegments):
    """Segments that count how often one is read; each is of one supervision."""

    reads = 0

    def __getitem__(self, place):
        self.reads += 1
        return super().__getitem__(place)


def corpus_of(articles: int, segments: int) -> SimpleNamespace:
    """Articles by turns of the splits 0 and 2, the first segment of each in its lead."""
    made, rows = CountedSegments(), np.zeros(articles * segments, [("split", np.int8), ("article", np.int32)])
    for place in range(articles * segments):
        article, number = place % articles, place // articles
        section = (f"section {number}",) if number else ()
        context = ContextMaterial(f"title {article}", section)
        made.append(Segment(f"{article}-{number}", f"a{article}", 0, 0.0, 1.0, "words", (), context))
        rows[place] = (2 * (article % 2), article)
    return SimpleNamespace(supervisions=rows, segments=made)


def test_another_article_of_the_same_split_whatever_is_chosen() -> None:
    corpus = corpus_of(10, 3)
    wrong = wrong_contexts(corpus, range(30), None)
    assert wrong == wrong_contexts(corpus, range(30), None)
    seen: dict[int, set[int]] = {}
    for place, (text, is_partner) in enumerate(wrong):
        other = int(text.split()[1].rstrip("."))
        assert other % 2 == place % 10 % 2, "of another split"
        assert other != place % 10
        assert not is_partner
        assert "section" in text, "the lead's own segments say less"
        seen.setdefault(place % 10 % 2, set()).add(other)
    assert seen == {0: {0, 2, 4, 6, 8}, 1: {1, 3, 5, 7, 9}}


def test_the_article_about_the_other_word_comes_first() -> None:
    corpus = corpus_of(10, 2)
    homophones = ArticleHomophones(
        {"a2": "sail", "a6": "sale", "a3": "sale"}, {"a2": "sale", "a6": "sail", "a3": "sail"}
    )
    (sail, is_partner), (other, is_other_partner) = wrong_contexts(corpus, [12, 14], homophones)
    assert sail.startswith("title 6")
    assert is_partner
    assert not is_other_partner
    assert not other.startswith("title 4")


def test_there_is_no_other_article() -> None:
    assert wrong_contexts(corpus_of(2, 3), [0, 1], None) == [("", False)] * 2


def test_few_segments_are_read_of_a_large_corpus() -> None:
    corpus = corpus_of(20_000, 2)
    wrong_contexts(corpus, range(0, 40_000, 4000), None)
    assert corpus.segments.reads <= 10 * 20
