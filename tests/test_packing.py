"""Joining segments: nothing lost, nothing twice, limits kept, nothing left to join."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwjax.data.examples.context import ContextProbabilities, draw_context
from cwjax.data.examples.packing import Candidate, joined, pack_segments
from cwjax.data.segment import ContextMaterial, Segment, Utterance

SECONDS, TOKENS = 30.0, 40


@st.composite
def candidates(draw):
    found = []
    for position in range(draw(st.integers(0, 30))):
        duration = draw(st.floats(0.5, 35))
        article, speaker = draw(st.sampled_from("ab")), draw(st.sampled_from("xy"))
        start = draw(st.floats(0, 1000))
        found.append(Candidate(position, ("en", article, speaker), start, duration, draw(st.integers(1, 50))))
    return found


@given(candidates())
def test_windows_hold_every_segment_once_and_keep_their_limits(found):
    windows = pack_segments(found, SECONDS, TOKENS)
    assert sorted(itertools.chain(*windows)) == list(range(len(found)))

    def size(window):
        return sum(found[place].duration for place in window), sum(found[place].tokens for place in window)

    for window in windows:
        seconds, tokens = size(window)
        assert len(window) == 1 or (seconds <= SECONDS + 1e-4 and tokens <= TOKENS)
        assert len({found[place].voice for place in window}) == 1
        starts = [found[place].start for place in window]
        assert starts == sorted(starts)
    for left, right in itertools.pairwise(windows):
        following = found[right[0]]
        if found[left[0]].voice == following.voice:
            seconds, tokens = size(left)
            assert seconds + following.duration > SECONDS - 1e-4 or tokens + following.tokens > TOKENS


def test_joined_segments_follow_each_other():
    first = Segment("a", "article", "a.ogg", 10, 12, "one two", (Utterance(0.1, 1, "one"), Utterance(1, 1.9, "two")))
    second = Segment("b", "article", "a.ogg", 20, 23, "three", (Utterance(0.2, 2.9, "three"),))
    whole = joined([first, second])
    assert (whole.start, whole.duration, whole.text) == (10, 5, "one two three")
    assert whole.utterances == (*first.utterances, Utterance(pytest.approx(2.2), pytest.approx(4.9), "three"))
    assert joined([second]) is second


def test_a_context_gives_no_joined_segment_away():
    lead = "The tall ships of the harbour were built in nineteen hundred and two. They sank."
    segments = [
        Segment("a", "x", "a.ogg", 0, 2, "Nothing of it.", (), ContextMaterial(title="Ships", lead=lead)),
        Segment("b", "x", "a.ogg", 2, 9, lead.split(". ")[0] + ".", ()),
    ]
    always = ContextProbabilities(title=0, section=0, lead=1, none=0, wrong=0)
    generator = np.random.default_rng(0)
    assert "tall ships" in draw_context(segments[0], always, generator, None)
    assert draw_context(joined(segments), always, generator, None) == "Ships. They sank."
