"""The words of a text that were heard, with times: against what was said when, for any text and any reader."""

import random
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from coded_speech import prose, sentences
from hypothesis import given, settings
from hypothesis import strategies as st

from cwjax.alignment.anchors import chains
from cwjax.alignment.books import Book, Recording
from cwjax.alignment.heard import Heard, heard
from cwjax.alignment.hearing import HeardWord
from cwjax.alignment.placing import Placement, place
from cwjax.alignment.supervisions import (
    ANNOUNCED,
    DOUBTFUL,
    EXTRA,
    SILENT,
    UNMATCHED,
    UNREAD,
    Account,
    account,
    unplaced_words,
)
from cwjax.alignment.word_alignment import align
from cwjax.alignment.written import Written, plain, read_written, written
from cwjax.errors import CwjaxError

SECONDS_A_LETTER = 0.07
_split = str.split


@dataclass
class Read:
    """What a reader said: words as heard, when, and which word of the text each was, -1: none."""

    words: list[HeardWord]
    text_words: list[int]
    pauses: list[tuple[float, float]]
    duration: float

    @property
    def heard(self) -> Heard:
        return heard(self.words, self.pauses)


def read_aloud(said: list[tuple[str, int]], misheard: float = 0.0, seed: int = 0) -> Read:
    """Says words, each with its number in the text, with a pause where one ends in a full stop."""
    draw, at, words, pauses = random.Random(seed), 0.5, [], [(0.0, 0.5)]
    for word, _ in said:
        end = at + SECONDS_A_LETTER * len(plain(word))
        as_heard = "".join(draw.choice("aeiou") if one in "aeiou" else one for one in word)
        words.append(HeardWord(as_heard if draw.random() < misheard else word, at, end, 1.0))
        at = end
        if word.endswith("."):
            pauses.append((at, at + 0.5))
            at += 0.5
    return Read(words, [number for _, number in said], [*pauses, (at, at + 0.1)], at + 0.1)


def aligned(text: Written, *read: Read) -> tuple[Placement, list[Account]]:
    placement = place(text, [one.heard for one in read])
    found = [account(text, placement, number, one.heard, one.duration, f"r{number}") for number, one in enumerate(read)]
    return placement, found


def numbered(words: list[str], first: int = 0) -> list[tuple[str, int]]:
    return [(word, first + number) for number, word in enumerate(words)]


def require_nothing_lost(text: Written, placement: Placement, read: list[Read], found: list[Account]) -> None:
    """Every second and every word of the text is in one supervision or has one reason."""
    doubtful = np.zeros(len(text), bool)
    taken = np.zeros(len(text), int)
    for one, result in zip(read, found, strict=True):
        doubtful |= result.doubtful
        spans = [(each.start, each.end) for each in result.supervisions]
        spans += [(start, end) for start, end, _ in result.left_out]
        spans.sort()
        assert spans[0][0] == 0
        assert spans[-1][1] == pytest.approx(one.duration)
        assert all(first[1] == pytest.approx(second[0]) for first, second in pairwise(spans))
        assert all(start < end for start, end in spans)
        for each in result.supervisions:
            assert each.end - each.start <= 30
            times = [time for word in each.words for time in (word.start, word.end)]
            assert times == sorted(times)
            assert each.start <= times[0]
            assert times[-1] <= each.end
            first = int(np.searchsorted(text.begins, each.custom["characters"][0]))
            taken[first : first + len(each.words)] += 1
    for first, last, _ in unplaced_words(text, placement, doubtful):
        taken[first:last] += 1
    assert (taken == 1).all()


def test_a_book_with_passages_skipped_inserted_and_misheard_and_chapters_out_of_order():
    words = [word for one in sentences(prose(20_000, 1), 1) for word in one]
    text = written(" ".join(words))
    others = sentences(prose(3_000, 99), 2)
    draw, said, chapters = random.Random(3), [], [range(first, first + 1500) for first in range(3000, 15_000, 1500)]
    chapters[2], chapters[3] = chapters[3], chapters[2]
    ends = [number + 1 for number, word in enumerate(words) if word.endswith(".")]
    for chapter in chapters:
        bounds = [chapter.start, *(end for end in ends if chapter.start < end < chapter.stop), chapter.stop]
        for first, last in pairwise(bounds):
            if draw.random() >= 0.05:
                said += numbered(words[first:last], first)
            if draw.random() < 0.03:
                said += [(word, -1) for word in draw.choice(others)]
    read = read_aloud(said, misheard=0.15)
    placement, found = aligned(text, read)
    truth = {number: word for number, word in zip(read.text_words, read.words, strict=True) if number >= 0}
    placed = np.flatnonzero(placement.is_placed)
    right = [
        word in truth
        and placement.start[word] < truth[word].end + 0.1
        and placement.end[word] > truth[word].start - 0.1
        for word in placed.tolist()
    ]
    assert sum(word in truth for word in placed.tolist()) >= 0.97 * len(truth)
    assert np.mean(right) >= 0.99
    errors = [abs(placement.start[word] - truth[word].start) for word in placed.tolist() if word in truth]
    assert np.median(errors) < 0.01
    require_nothing_lost(text, placement, [read], found)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_is_lost_or_said_twice_whatever_is_read(data):
    """Any mixture of the text, in any order and twice, with other words between."""
    words = [
        word
        for one in sentences(prose(data.draw(st.integers(1, 400)), data.draw(st.integers(0, 9))), 5)
        for word in one
    ]
    text = written(" ".join(words))
    recordings = []
    for _ in range(data.draw(st.integers(1, 2))):
        said: list[tuple[str, int]] = []
        for _ in range(data.draw(st.integers(0, 6))):
            if data.draw(st.booleans()):
                first = data.draw(st.integers(0, len(words) - 1))
                said += numbered(words[first : first + data.draw(st.integers(1, 120))], first)
            else:
                said += [(word, -1) for word in prose(data.draw(st.integers(1, 30)), data.draw(st.integers(10, 20)))]
        recordings.append(read_aloud(said, data.draw(st.sampled_from([0.0, 0.2, 0.7])), data.draw(st.integers(0, 9))))
    placement, found = aligned(text, *recordings)
    require_nothing_lost(text, placement, recordings, found)


def test_what_is_not_written_and_not_read_is_left_out_with_its_reason():
    words = [word for one in sentences(prose(400, 1), 1) for word in one]
    announcement, aside = sentences(prose(24, 50), 7), sentences(prose(30, 51), 8)
    ends = [number + 1 for number, word in enumerate(words) if word.endswith(".")]
    first, skip, resume = ends[2], ends[12], ends[15]
    said = [(word, -1) for one in announcement for word in one]
    said += numbered(words[first:skip], first) + numbered(words[resume : ends[25]], resume)
    said += [(word, -1) for one in aside for word in one] + numbered(words[ends[25] : ends[30]], ends[25])
    text, read = written(" ".join(words)), read_aloud(said)
    placement, (found,) = aligned(text, read)
    require_nothing_lost(text, placement, [read], [found])
    reasons = {reason: (start, end) for start, end, reason in found.left_out if reason != SILENT}
    assert set(reasons) == {ANNOUNCED, EXTRA}
    assert reasons[EXTRA][0] == pytest.approx(read.words[read.text_words.index(ends[25] - 1) + 1].start, abs=0.2)
    lost = [(a, b, reason) for a, b, reason in unplaced_words(text, placement, found.doubtful)]
    assert lost == [(0, first, UNREAD), (skip, resume, UNREAD), (ends[30], len(words), UNREAD)]
    unknown = [one.custom["gap_before"] for one in found.supervisions]
    after_aside = next(number for number, one in enumerate(found.supervisions) if one.start > reasons[EXTRA][0])
    assert [number for number, is_unknown in enumerate(unknown) if is_unknown] == [0, after_aside]


def test_a_passage_heard_otherwise_is_no_match_and_a_barrier():
    words = [word for one in sentences(prose(200, 1), 1) for word in one]
    said = numbered(words[:100]) + [(word, -1) for word in prose(12, 77)] + numbered(words[112:], 112)
    text, read = written(" ".join(words)), read_aloud(said)
    placement, (found,) = aligned(text, read)
    runs = unplaced_words(text, placement, found.doubtful)
    assert {reason for *_, reason in runs} <= {UNMATCHED, DOUBTFUL}
    assert 8 <= sum(last - first for first, last, _ in runs) <= 30
    assert sum(one.custom["gap_before"] for one in found.supervisions) == 1


def test_of_a_phrase_that_was_half_heard_the_half_is_kept():
    words = [word for one in sentences(prose(300, 1), 1) for word in one]
    ends = [number + 1 for number, word in enumerate(words) if word.endswith(".")]
    first, last = next((a, b) for a, b in pairwise(ends) if b - a >= 8)
    text, read = written(" ".join(words)), read_aloud(numbered(words))
    placement = place(text, [read.heard])
    placement.likeness[first + 3 : last] = 0.2
    placement.likeness[last - 1] = 1.0  # a single word is chance
    found = account(text, placement, 0, read.heard, read.duration, "r")
    require_nothing_lost(text, placement, [read], [found])
    assert unplaced_words(text, placement, found.doubtful) == [(first + 3, last, DOUBTFUL)]
    (half,) = [one for one in found.supervisions if one.text == " ".join(words[first : first + 3])]
    assert half.custom["confidence"] == 1
    assert half.end <= read.words[first + 3].start + 0.001


def test_a_single_strange_word_and_a_doubtful_phrase_are_barriers():
    words = [word for one in sentences(prose(300, 1), 1) for word in one]
    ends = [number + 1 for number, word in enumerate(words) if word.endswith(".")]
    said = [*numbered(words[: ends[5]]), ("oh", -1), *numbered(words[ends[5] :], ends[5])]
    read = read_aloud(said)
    wrong = read.text_words.index(ends[10] + 1)
    read.words[wrong] = read.words[wrong]._replace(text="xyzzy")
    text = written(" ".join(words))
    placement = place(text, [read.heard])
    found = account(text, placement, 0, read.heard, read.duration, "r", least_confidence=0.99)
    require_nothing_lost(text, placement, [read], [found])
    begins = {number: int(text.begins[end]) for number, end in enumerate(ends[:-1])}
    barriers = {one.custom["characters"][0] for one in found.supervisions if one.custom["gap_before"]}
    assert barriers == {begins[5], begins[11]}
    (lost,) = [(start, end) for start, end, reason in found.left_out if reason == DOUBTFUL]
    assert lost[0] < read.words[wrong].start < read.words[wrong].end < lost[1]
    assert unplaced_words(text, placement, found.doubtful) == [(ends[10], ends[11], DOUBTFUL)]


def test_the_texts_own_spelling_case_and_marks_are_carried():
    passage = 'He _said_: "Colour--not color!"\n  Everyone, naïve Zoë;\n[12] every one of the 3 sisters’ cats — left.'
    before, after = prose(30, 1), prose(30, 2)
    text = written(" ".join([*before, passage, *after]))
    words = _split("he said color not color every one naive zoe 12 everyone of the three sisters cats left")
    read = read_aloud([(word, number) for number, word in enumerate([*before, *words, *after])])
    placement, (found,) = aligned(text, read)
    assert placement.is_placed.all()
    read.words = read.words[len(before) :]
    said = " ".join(one.text for one in found.supervisions)
    expected = 'He said: "Colour--not color!" Everyone, naïve Zoë; [12] every one of the 3 sisters’ cats — left.'
    assert said == " ".join([*before, expected, *after])
    words = {word.text: word for one in found.supervisions for word in one.words}
    every, one = words["Everyone,"], words["every"]
    assert (every.start, every.end) == pytest.approx((read.words[5].start, read.words[6].end))
    assert one.start == pytest.approx(read.words[10].start)
    assert words["one"].end == pytest.approx(read.words[10].end)
    assert one.end == words["one"].start == pytest.approx(read.words[10].start + 5 * SECONDS_A_LETTER)


def test_a_passage_read_twice_is_placed_once():
    words = prose(150, 1)
    text = written(" ".join(words))
    read = read_aloud(numbered(words[:100]) + numbered(words[60:], 60))
    placement, (found,) = aligned(text, read)
    require_nothing_lost(text, placement, [read], [found])
    assert placement.is_placed.all()
    assert placement.start[60] == pytest.approx(read.words[60].start)  # in the longer of the two readings
    twice = sum(end - start for start, end, reason in found.left_out if reason == EXTRA)
    assert twice == pytest.approx(sum(len(word) for word in words[60:100]) * SECONDS_A_LETTER, rel=0.1)


def test_the_same_words_elsewhere_in_the_text_are_not_taken():
    phrase, words = prose(6, 3), prose(600, 4)
    words[100:100] = phrase
    words[500:500] = phrase
    read = read_aloud(numbered(words[450:], 450))
    placement, _ = aligned(written(" ".join(words)), read)
    assert np.flatnonzero(placement.is_placed).tolist() == list(range(450, 612))


def test_another_book_is_not_found():
    assert chains(prose(5000, 1), prose(50_000, 2)) == []


def test_scripts_without_spaces_are_placed_character_by_character():
    draw = np.random.default_rng(0)
    signs = [chr(code) for code in draw.integers(0x4E00, 0x4E00 + 400, 600)]
    for place_ in range(20, 600, 20):
        signs[place_] = "。"
    text = written("".join(signs))
    words = ["".join(signs[first : first + 2]) for first in range(201, 400, 2)]
    placement, (found,) = aligned(text, read_aloud(numbered(words)))
    said = "".join(one.text for one in found.supervisions)
    assert said == "".join(signs[201:401])
    assert placement.is_placed.sum() == sum(sign != "。" for sign in signs[201:401])


def test_sentences_are_cut_in_pauses_and_long_ones_where_the_pause_is_longest():
    words = prose(300, 1)
    words[149] += ","
    read = read_aloud(numbered(words))
    for place_ in range(150, 300):  # a pause after the comma
        one = read.words[place_]
        read.words[place_] = one._replace(start=one.start + 0.4, end=one.end + 0.4)
    read.duration += 0.4
    read.pauses.append((read.words[149].end, read.words[150].start))
    placement, (found,) = aligned(written(" ".join(words)), read)
    require_nothing_lost(written(" ".join(words)), placement, [read], [found])
    assert any(one.words[-1].text == words[149] for one in found.supervisions)
    assert len(found.supervisions) == 2 * round(len(found.supervisions) / 2)
    assert min(one.end - one.start for one in found.supervisions) > 8
    assert not any(one.custom["gap_before"] for one in found.supervisions[1:])


def test_a_word_that_is_not_heard_is_placed_only_where_there_is_time_for_it():
    words = prose(120, 1)
    text = written(" ".join(words))
    read = read_aloud(numbered(words))
    del read.words[60]
    placement, _ = aligned(text, read)
    assert placement.start[60] == pytest.approx(read.words[59].end)
    assert placement.end[60] == pytest.approx(read.words[60].start)
    skipped = read_aloud(numbered(words[:60]) + numbered(words[66:], 66))
    placement, _ = aligned(text, skipped)
    assert not placement.is_placed[60:66].any()


def test_times_are_corrected_by_the_pauses_of_the_sound():
    words = [HeardWord("one", 0.9, 1.6, 1), HeardWord("two", 1.6, 2.7, 1), HeardWord("three", 3.2, 3.6, 1)]
    found = heard(words, [(0.0, 1.0), (1.5, 2.0), (2.5, 3.1), (3.7, 5.0)])
    placement = place(written("one two three"), [found])
    np.testing.assert_allclose(placement.start, [1.0, 2.0, 3.1])
    np.testing.assert_allclose(placement.end, [1.5, 2.5, 3.7])
    assert found.sounding(0.0, 5.0) == pytest.approx(0.5 + 0.5 + 0.6)
    assert found.sounding(1.25, 2.25) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "pause", "expected"),
    [
        ("one two three", (1.3, 1.6), [1.0, 1.3, 1.6, 2.0, 2.0, 2.5]),
        ("one two three", (1.7, 1.88), [1.0, 1.7, 1.88, 2.0, 2.0, 2.5]),  # the model looks ahead: "two" began too early
        ("one two, three", (1.75, 1.84), [1.0, 1.5, 1.5, 1.75, 1.84, 2.5]),  # a mark in the text
        ("one two three", (2.2, 2.28), [1.0, 1.5, 1.5, 2.0, 2.0, 2.5]),  # a stop within "three"
        ("one two three", (2.0, 2.08), [1.0, 1.5, 1.5, 2.0, 2.08, 2.5]),
    ],
)
def test_a_pause_is_put_where_it_is_likely(text, pause, expected):
    words = [HeardWord("one", 1.0, 1.5, 1), HeardWord("two", 1.5, 2.0, 1), HeardWord("three", 2.0, 2.5, 1)]
    placement = place(written(text), [heard(words, [pause])])
    np.testing.assert_allclose(np.stack([placement.start, placement.end], axis=1).ravel(), expected)


@pytest.mark.parametrize(
    ("spoken", "text", "expected"),
    [
        ("in to the house", "into the house", [(0, 2, 0, 1), (2, 3, 1, 2), (3, 4, 2, 3)]),
        ("alotof cats", "a lot of cats", [(0, 1, 0, 3), (1, 2, 3, 4)]),
        ("the gray cat", "the grey old cat", [(0, 1, 0, 1), (1, 2, 1, 2), (2, 3, 3, 4)]),
        ("", "words", []),
    ],
)
def test_words_between_anchors(spoken, text, expected):
    assert [match[:4] for match in align(_split(spoken), _split(text))] == expected


def test_an_open_alignment_ends_where_the_matches_do_from_both_sides():
    heard_words = _split("the grey cat sat quietly xylophone jazz")
    text = _split("the gray cat sat quietly dorothy climb bug")
    ahead = align(heard_words, text, open_end=True)
    assert [match.heard for match in ahead] == [0, 1, 2, 3, 4]
    back = align(heard_words[::-1], text[::-1], open_begin=True)
    assert [match.heard for match in back] == [2, 3, 4, 5, 6]
    assert [match.likeness for match in back] == pytest.approx([match.likeness for match in reversed(ahead)])


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"", None, "holds no words"),
        (b"-- * --\n", None, "holds no words"),
        (b"one\ntwo na\xefve", None, r"is no text in UTF-8 \(line 2\).*--encoding cp1252"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\xff", None, "is no plain text"),
        (b"%PDF\0\1\2 abc", None, "is no plain text"),
        (b"abc", "klingon", "is none that Python knows"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path, content, encoding, message):
    path = tmp_path / "book.txt"
    path.write_bytes(content)
    with pytest.raises(CwjaxError, match=message):
        read_written(path, encoding)


def test_other_encodings_are_read_when_named(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes("naïve".encode("cp1252"))
    assert read_written(path, "cp1252").plain == ["naive"]
    path.write_text("naïve", encoding="utf-16")
    assert read_written(path).plain == ["naive"]


def test_a_word_timed_before_the_first_file_of_an_article_has_no_time(tmp_path):
    folder = tmp_path / "Bridge"
    folder.mkdir()
    words = [("long", 1000, 1300), ("bridge", 2500, 2900), ("spans", 3000, 3400), ("river", 3500, 3900)]
    spoken = " ".join(f"<t>{one}<n pronunciation='{one}' start='{a}' end='{b}'/></t>" for one, a, b in words)
    (folder / "aligned.swc").write_text(f"<article><meta/><d><p><s>{spoken}</s></p></d></article>")
    (folder / "info.json").write_text('{"audio_files": [{"offset": 2.0}]}')
    soundfile.write(folder / "audio.flac", np.zeros(32_000), 16_000)
    book = Book("Bridge", folder / "aligned.swc", [Recording("Bridge/audio.flac", folder / "audio.flac")])
    _, known = book.read()
    assert known.is_placed.tolist() == [False, True, True, True]
    assert known.start[1:] == pytest.approx([0.5, 1.0, 1.5])
