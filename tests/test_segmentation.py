"""Cutting articles into segments: golden article, real articles, and small ones made for a rule each."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from segmented import segmented

from cwjax.data.corpora.swc.article import Article, AudioPart, read_article
from cwjax.data.corpora.swc.segmentation import SegmentationSettings, clean_text
from cwjax.data.corpora.swc.text import Norm, Token
from cwjax.data.corpora.swc.word_times import estimate_times, find_spans, forget_bad_times, read_words, speaking_rate
from cwjax.errors import CwjaxError

GOLDEN = Path(__file__).parent / "data" / "Test_Bridge%2c_Ohio"
GERMAN = Path(__file__).resolve().parents[1].parent / "shared/fixtures/swc/german"

FIRST = "Test Bridge (built 1938) spans 5 km – over the A&B river in Ohio. The toll was abolished. History"


def golden() -> Article:
    return read_article(GOLDEN, require_audio=False)


def article_of(*sentences: list[tuple], parts: tuple[AudioPart, ...] = (AudioPart("a/audio.ogg", 0.0),)) -> Article:
    """An article from (surface, start_ms, end_ms) or (surface,) tuples; surfaces are pronounced as written."""
    tokens = []
    for number, sentence in enumerate(sentences):
        for surface, *times in sentence:
            word = any(letter.isalnum() for letter in surface)
            norms = (Norm(surface, *times),) if word else ()
            tokens.append(Token(surface, word and bool(tokens), norms, "body", number, 0, (), True))
    return Article("A", "A", "en", "", "", "", "", parts, tokens, (), ())


def steady(text: str, start: int, rate: int = 60) -> list[tuple]:
    """Words spoken one after the other at `rate` ms per character, 60 ms apart; "*" marks untimed ones."""
    words = []
    for surface in text.split():
        spoken = surface.strip("*.")
        end = start + rate * len(spoken)
        words.append((spoken,) if surface.startswith("*") else (spoken, start, end))
        if surface.endswith("."):
            words.append((".",))
        start = end + 60
    return words


LOOSE = SegmentationSettings(min_timed_ratio=0, min_coverage=0, min_words=1)


def test_golden_rate_words_and_holes():
    result = segmented(golden(), SegmentationSettings())
    assert (result.words, result.rate) == (37, 75.0)
    assert result.holes == {"sent": 1, "long": 2, "file": 1}


def test_golden_words_that_lose_their_times():
    tokens = golden().tokens
    words = read_words(tokens)
    timed_before = {tokens[word.token].surface for word in words if word.is_timed}
    forget_bad_times(words, 75.0, [40_000, float("inf")], SegmentationSettings())
    timed_after = {tokens[word.token].surface for word in words if word.is_timed}
    assert timed_before - timed_after == {"immediately", "straddling"}
    (year,) = [word for word in words if tokens[word.token].surface == "1938"]
    assert (year.heard_start, year.is_anchor, year.is_timed, year.tail) == (4100, True, False, len("eight"))


def test_golden_segments():
    segments = segmented(golden(), SegmentationSettings()).segments
    found = [(one.id, one.text, one.context.section, one.is_lead) for one in segments]
    assert found == [
        ("Test_Bridge,_Ohio/00003000", FIRST, (), True),
        (
            "Test_Bridge,_Ohio/00014500",
            "Work began immediately after approval. Nested paragraph.",
            ("History",),
            False,
        ),
        ("Test_Bridge,_Ohio/00030000", "Design It is long", ("History", "Design"), False),
    ]
    spoken = [(one.start + one.utterances[0].start, one.start + one.utterances[-1].end) for one in segments]
    assert spoken == [pytest.approx(times) for times in [(3.0, 13.6), (14.5, 18.6), (30.0, 31.9)]]
    # 300 ms after the announcement "wikipedia", whose time counts although its text does not.
    assert segments[0].start == 2.85
    assert (segments[1].start, segments[1].end) == (14.3, 18.8)


def test_golden_utterances_have_the_times_of_their_own_words():
    first = segmented(golden(), SegmentationSettings()).segments[0]
    texts = [piece.text for piece in first.utterances]
    assert texts == [FIRST[:65], "The toll was abolished.", "History"]
    starts = [first.start + piece.start for piece in first.utterances]
    ends = [first.start + piece.end for piece in first.utterances]
    assert ends == [pytest.approx(time) for time in (8.9, 11.7, 13.6)]
    # "The" is untimed: three characters at 75 ms, directly before "toll".
    assert starts == [pytest.approx(time, abs=0.001) for time in (3.0, 10.375, 13.0)]


def test_golden_rejected_and_second_audio_file():
    article = golden()
    result = segmented(article, SegmentationSettings())
    assert result.dropped == {"duration": 2}
    assert [(one.start, one.end, one.text) for one in result.rejected] == [
        (38.5, 38.7, "and"),
        (43.0, 43.9, "audio files."),
    ]
    more = segmented(article, replace(SegmentationSettings(), min_duration=0.5))
    last = more.segments[-1]
    assert more.tracks[last.recording].audio == "Test_Bridge%2c_Ohio/audio2.ogg"
    assert (last.start + last.utterances[0].start, last.text) == (43.0, "audio files.")


def test_golden_context_material():
    first, second, _ = segmented(golden(), SegmentationSettings()).segments
    assert first.context.title == "Test Bridge, Ohio"
    assert first.context.lead == "", "the lead is no context for itself"
    assert second.context.lead == FIRST.removesuffix(" History")
    assert (first.language, first.speaker, first.licence) == ("en", "jo reader", "CC-BY-SA")
    assert second.context.previous == "", "a hole lies between"


def german(name: str) -> Article:
    if not (GERMAN / name).is_dir():
        pytest.skip("the real German articles are not here")
    return read_article(GERMAN / name, GERMAN.parent, require_audio=False)


def test_real_articles_keep_nine_tenths_of_the_audio():
    spoken = kept = words = kept_words = segment_seconds = 0.0
    for name in ("Radio", "Philosophie"):
        article = german(name)
        limits = SegmentationSettings()
        borders = [*(part.offset * 1000 for part in article.audio_parts[1:]), float("inf")]
        own = [word for word in read_words(article.tokens) if not word.is_extra]
        rate = speaking_rate(own)
        forget_bad_times(own, rate, borders, limits)
        spans, _ = find_spans(own, rate, borders, limits)
        anchors = [number for number, word in enumerate(own) if word.is_anchor]
        read_aloud = anchors[-1] + 1 - anchors[0]  # hatnotes and templates lie outside
        spoken += own[anchors[-1]].heard_end - own[anchors[0]].heard_start
        kept += sum(own[finish - 1].heard_end - own[begin].heard_start for begin, finish in spans)
        words += read_aloud
        kept_words += sum(finish - begin for begin, finish in spans)

        result = segmented(article, limits)
        segment_seconds += sum(one.duration for one in result.segments)
        assert result.kept_words / read_aloud > 0.94
        assert max(one.duration for one in result.segments) <= 30
        assert sum(one.duration for one in result.segments) / len(result.segments) > 20
        assert 58 <= result.rate <= 67
    assert kept / spoken >= 0.90
    assert kept_words / words >= 0.97
    # The segments hold less than the spans: the pauses between them are left out.
    assert segment_seconds * 1000 / spoken >= 0.87


def test_real_article_previous_text_is_what_was_said_before():
    segments = segmented(german("Radio"), SegmentationSettings()).segments
    followed = 0
    for before, after in pairwise(segments):
        if after.context.previous:
            followed += 1
            assert after.context.previous.endswith(before.text[-900:])
            assert after.start - before.end < 5
            assert len(after.context.previous) <= 1000
    assert followed > len(segments) / 2


def test_untimed_words_share_a_plausible_gap():
    article = article_of(steady("Early *steam engines were often *quite large.", 0))
    assert segmented(article, LOOSE).segments[0].text == "Early steam engines were often quite large."
    words = read_words(article.tokens)
    estimate_times(words, [(0, len(words))], 60.0)
    assert (words[1].start, words[1].end) == pytest.approx((words[0].end, words[2].start))


@pytest.mark.parametrize(
    ("kind", "shift", "text"),
    [
        ("short", -600, "Early *steamships engines were often large."),
        ("long", 3000, "Early *steam engines were often large."),
        ("run", 0, "Early *a *b *c *d *e *f *g engines were often large."),
    ],
)
def test_gaps_that_do_not_fit_are_holes(kind, shift, text):
    first, *rest = steady(text, 0)
    moved = [(word[0], *(time + shift for time in word[1:])) for word in rest]
    result = segmented(article_of([first, *moved]), LOOSE)
    assert result.holes == {kind: 1}
    assert all("*" not in one.text and "steam" not in one.text for one in result.segments)


def test_a_sentence_without_times_is_a_hole():
    sentences = [
        steady("The engine was large.", 0),
        [("Main",), ("article",), ("Engines",)],
        steady("It was built in Ohio.", 2400),
    ]
    result = segmented(article_of(*sentences), LOOSE)
    assert result.holes == {"sent": 1}
    assert [one.text for one in result.segments] == ["The engine was large.", "It was built in Ohio."]


def test_long_sentences_are_cut_in_a_pause():
    words = steady(" ".join(["engine"] * 30), 0)
    words = [*words[:12], *((w[0], w[1] + 400, w[2] + 400) for w in words[12:])]
    limits = replace(LOOSE, max_duration=7.0)
    segments = segmented(article_of(words), limits).segments
    assert [len(one.text.split()) for one in segments] == [12, 15, 3]
    pause_start, pause_end = words[11][2] / 1000, words[12][1] / 1000
    assert segments[0].end == pytest.approx(pause_start + 0.2)
    assert segments[1].start == pytest.approx(pause_end - 0.2)
    assert segments[1].end == segments[2].start, "the middle of a short pause"
    assert segments[1].context.previous == segments[0].text


def test_no_padding_where_an_untimed_word_may_be_spoken():
    words = [("One",), *steady("engine was built there", 1000)]
    first = segmented(article_of(words), LOOSE).segments[0]
    assert (first.text, first.start) == ("engine was built there", 1.0)
    last = segmented(article_of([*words, ("Now",)]), LOOSE).segments[-1]
    assert (last.text, last.end) == ("engine was built there", words[-1][2] / 1000)


def test_marks_before_the_first_word_and_after_the_last_belong_to_them():
    article = article_of([("„",), *steady("The engine was very large.", 0), ("“",)])
    assert segmented(article, LOOSE).segments[0].text == '" The engine was very large."'


def test_an_untimed_form_between_timed_ones_leaves_the_word_timed():
    norms = Norm("A", 0, 200), Norm("and"), Norm("B", 500, 700)
    (word,) = read_words([Token("A&B", False, norms, "body", 0, 0, (), True)])
    assert (word.head, word.tail, word.characters) == (0, 0, 5)
    assert (word.heard_start, word.heard_end) == (0, 700)
    assert word.is_timed


def test_closing_quotation_mark_at_the_start_of_a_sentence_belongs_to_the_one_before():
    first, second = steady("It is large.", 0), steady("It was built.", 1200)
    article = article_of(first, [("“",), *second])
    texts = [piece.text for piece in segmented(article, LOOSE).segments[0].utterances]
    assert texts == ['It is large."', "It was built."]


@pytest.mark.parametrize(("border", "first_end", "second_start"), [(1.25, 1.25, 1.4), (1.55, 1.4, 1.55)])
def test_end_of_a_file_parts_segments_and_bounds_them(border, first_end, second_start):
    sentences = [steady("The engine was large.", 0), steady("It was built in Ohio.", 1600)]
    parts = (AudioPart("a/audio1.ogg", 0.0), AudioPart("a/audio2.ogg", border, 2.9 - border))
    result = segmented(article_of(*sentences, parts=parts), LOOSE)
    assert result.holes == {"file": 1}
    first, second = result.segments
    assert [track.audio for track in result.tracks] == ["a/audio1.ogg", "a/audio2.ogg"]
    assert (first.recording, first.start, first.end) == (0, 0.0, first_end)
    assert (second.recording, second.start) == (1, second_start)
    assert second.utterances[-1].end + second.start == pytest.approx(2.8)
    assert second.end == pytest.approx(2.9), "where the last file ends"


def test_edges_and_speed_and_coverage_are_judged():
    partial = [steady("The engine was large", 0), []]
    year = Token("1938", True, (Norm("nineteen", 1300, 1700), Norm("eight")), "body", 0, 0, (), True)
    article = article_of(*partial)
    article = replace(article, tokens=[*article.tokens, year])
    result = segmented(article, LOOSE)
    assert [(one.reason, one.text) for one in result.rejected] == [("edge", "1938")]
    assert [one.text for one in result.segments] == ["The engine was large"]

    slow = article_of(steady("The engine was large.", 0, rate=200))
    assert segmented(slow, replace(LOOSE, max_rate=999)).dropped == {"characters_per_second": 1}
    assert segmented(slow, LOOSE).dropped == {"article_rate": 1}

    lonely = article_of(steady("Extraordinarily.", 0, rate=80))
    assert segmented(lonely, replace(LOOSE, min_words=2)).dropped == {"few_words": 1}
    assert segmented(lonely, LOOSE).dropped == {}

    sparse = article_of(steady("The *engine *was *very large indeed.", 0))
    assert segmented(sparse, replace(LOOSE, min_coverage=0.7)).dropped == {"coverage": 1}
    assert segmented(sparse, replace(LOOSE, min_timed_ratio=0.6)).dropped == {"article_timed_ratio": 1}


def trusted(words: list[tuple], border: float = float("inf")) -> list[bool]:
    """Which of the words keep their times, at 60 ms per character."""
    found = read_words(article_of(words).tokens)
    forget_bad_times(found, 60.0, [border], SegmentationSettings())
    return [word.is_timed for word in found]


def test_times_across_a_border_out_of_order_or_implausible_are_not_trusted():
    words = [("one", 0, 200), ("two", 200, 500), ("three", 600, 900)]
    assert trusted(words) == [True, True, True]
    assert trusted(words, border=300) == [True, False, False]
    assert trusted(words, border=500) == [True, True, False]
    assert trusted([("one", 1000, 1200), ("two", 200, 500), ("three", 1150, 1400)]) == [True, False, True]
    assert trusted([("one", 1000, 1300), ("two", 1100, 1400)]) == [True, False]
    assert trusted([("immediately", 0, 100), ("ab", 110, 120), ("six", 200, 1700), ("six", 1700, 3201)]) == [
        False,
        True,
        True,
        False,
    ]


def test_guessed_text_does_not_tell_the_speaking_rate():
    tokens = article_of([("slow", 0, 4000), ("slow", 4000, 8000), *steady("engine", 8000)]).tokens
    announced = [token._replace(kind="extra") if number < 2 else token for number, token in enumerate(tokens)]
    assert speaking_rate(read_words(announced)) == 60


def test_rejected_speech_is_no_previous_text():
    sentences = [
        steady("The engine was large.", 0),
        steady("It was so slow indeed.", 1400, rate=230),
        steady("Nobody ever used the engine.", 5800),
    ]
    limits = replace(LOOSE, max_duration=5.0, max_rate=999, longest_word_ratio=99)
    result = segmented(article_of(*sentences), limits)
    assert result.dropped == {"characters_per_second": 1}
    assert [(one.text[:3], one.context.previous) for one in result.segments] == [("The", ""), ("Nob", "")]


def test_sentences_too_short_for_a_timestamp_join_the_one_before():
    sentences = [steady("The engine was large.", 0), [("II",)], steady("It was built.", 1200)]
    result = segmented(article_of(*sentences), LOOSE)
    pieces = result.segments[0].utterances
    assert [piece.text for piece in pieces] == ["The engine was large. II", "It was built."]


def test_utterances_of_overlapping_words_follow_each_other():
    sentences = [steady("The engine was large.", 0), steady("It was built.", 1150)]
    first, second = segmented(article_of(*sentences), LOOSE).segments[0].utterances
    assert (first.end, second.start) == (1.175, 1.2)


def test_long_sentences_without_a_pause_are_cut_between_timed_words():
    words = steady(" ".join(["engine"] * 8 + ["*engine", "*engine"] + ["engine"] * 8), 0)
    segments = segmented(article_of(words), replace(LOOSE, max_duration=4.5)).segments
    assert [len(one.text.split()) for one in segments] == [7, 9]
    assert segments[0].utterances[-1].end == pytest.approx(words[6][2] / 1000)


def test_article_without_times_gives_nothing():
    result = segmented(article_of([("No",), ("times",)]), SegmentationSettings())
    assert (result.segments, result.rejected, result.rate) == ([], (), 0.0)
    for nothing in ([], [("–",), (".",)]):
        empty = segmented(article_of(nothing), SegmentationSettings())
        assert (empty.segments, empty.words, empty.holes) == ([], 0, {})


def test_unknown_offset_is_refused():
    parts = (AudioPart("a/audio1.ogg", 0.0), AudioPart("a/audio2.ogg", None))
    with pytest.raises(CwjaxError, match=r"audio2\.ogg: its offset is unknown"):
        segmented(article_of(steady("One two three.", 0), parts=parts), SegmentationSettings())


@pytest.mark.parametrize("wrong", [{"pad": -0.1}, {"pad": 15.0}, {"min_duration": 29.7}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(CwjaxError, match="segmentation"):
        SegmentationSettings(**wrong)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\xa0b  c", "a b c"),
        ("„Liebe“ ‚zur’ »Weisheit«", '"Liebe" \'zur\' "Weisheit"'),
        ("word[1], next [A 2].", "word, next."),
        ("History [edit]", "History"),
        ("Titel [Bearbeiten | Quelltext bearbeiten]", "Titel"),
        ("[er] sagte 1972 ↑", "er sagte 1972"),
        ("(built 1938)", "(built 1938)"),
        ("– over the river", "over the river"),
        ("-5 Grad", "-5 Grad"),
    ],
)
def test_clean_text(raw, clean):
    assert clean_text(raw) == clean
