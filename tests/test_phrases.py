"""Lists of phrases: how they are read, and what a window's decoder is shown of them."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from references import wide_parameters
from test_batched import talk
from test_contexts import model  # noqa: F401
from test_transcriber import text_only
from test_writers import speech

from cwjax.errors import CwjaxError
from cwjax.inference import engine
from cwjax.inference import phrases as phrases_module
from cwjax.inference.contexts import listed_phrases
from cwjax.inference.options import DecodingOptions
from cwjax.inference.phrase_checks import is_echo, writes_more
from cwjax.inference.phrases import MOST_PHRASES, Phrases, boosted, is_written, occurrences, shown
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcript import Word
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

SPOTTER = PhraseSpotter(SpotterConfig(audio_width=32, hidden=8, width=8, rows=1400), key=jax.random.key(0))


@pytest.fixture(scope="module")
def transcriber(model) -> Transcriber:  # noqa: F811
    return Transcriber(model.config, wide_parameters(model.config), model.processor, find_spotter=lambda: SPOTTER)


@pytest.fixture
def heard(monkeypatch) -> dict[str, tuple[float, float]]:
    """What the spotter is to hear: spelling -> probability, and second in the window."""
    wanted: dict[str, tuple[float, float]] = {}
    spellings: list[str] = []
    encode = phrases_module.encode_phrases

    def noting(spotter, some):
        spellings[:] = some
        return encode(spotter, some)

    def detect(spotter, states, encoded):
        assert states.ndim == 3
        values = np.array([wanted.get(spelling, (0.0, 0.0)) for spelling in spellings], np.float32)
        rows = np.broadcast_to(values, (len(states), *values.shape))
        return rows[..., 0], rows[..., 1], rows[..., 1] + 0.5

    monkeypatch.setattr(phrases_module, "encode_phrases", noting)
    monkeypatch.setattr(phrases_module, "detect", detect)
    return wanted


@pytest.fixture
def asked(transcriber, monkeypatch) -> list[list[str]]:
    """The text before each window of each batch that is decoded, first without and then with phrases."""
    said: list[list[str]] = []
    decode = transcriber.programs.decode

    def noting(encoded, starts, previous, *others):
        assert encoded.states is None
        said.append([transcriber.programs.tokens.text(tokens) for tokens in previous])
        return decode(encoded, starts, previous, *others)

    monkeypatch.setattr(transcriber.programs, "decode", noting)
    return said


def test_lists_are_read_with_other_spellings_and_without_what_says_nothing(caplog) -> None:
    lists = Phrases(lambda: SPOTTER)
    found = lists.encode(("Goethe | gurta |  | guerte ", "", "  ", "Ada  Bo", "Ada Bo", "\u0007", "李白", "😀", "|x"))
    assert found.written == ("Goethe", "Ada Bo", "李白", "😀")
    (line,) = caplog.messages
    assert line == "4 phrases are looked for; left out are 2 empty, 1 doubled, 2 with nothing to be written"
    assert found.owners.tolist() == [0, 0, 0, 1, 2, 3]
    assert lists.encode(("", " | ")) is None
    assert lists.encode(("Goethe",)) is lists.encode(("Goethe",)), "read once"


def test_what_cannot_be_looked_for_is_refused() -> None:
    with pytest.raises(CwjaxError, match=r"no phrase spotter, which phrases need; launch/train_spotter\.py trains one"):
        Phrases(lambda: None).encode(("Ada",))
    with pytest.raises(CwjaxError, match="100,001 phrases: at most 100,000"):
        Phrases(lambda: SPOTTER).encode(tuple(f"name {number}" for number in range(MOST_PHRASES + 1)))
    for options in ({"phrases_used": -1}, {"phrases_threshold": 1.5}, {"phrases": ["Ada", None]}, {"phrases": 5}):
        with pytest.raises(CwjaxError, match=next(iter(options))):
            DecodingOptions(**options)


def test_a_hundred_thousand_phrases_are_used() -> None:
    found = Phrases(lambda: SPOTTER).encode(tuple(f"name {number}" for number in range(MOST_PHRASES)))
    assert len(found.written) == len(found.owners) == MOST_PHRASES
    states = np.random.default_rng(0).normal(size=(1, 20, 32)).astype(np.float32)
    (likeliest,) = Phrases(lambda: SPOTTER).spot(states, found, [DecodingOptions(phrases_threshold=0)])
    assert len(likeliest) == 10


STRANGE = {
    "李白": ("李白", ""),
    "محمد بن سلمان": ("محمد بن سلمان", ""),
    "श्रीनिवास रामानुजन्": ("श्रीनिवास रामानुजन्", ""),
    "👩\u200d👧 &": ("👩\u200d👧 &", ""),
    "می\u200cخواهم": ("می\u200cخواهم", ""),
    "\x1b[31mAda\x00\tBo\ufeff": ("[31mAda Bo", ""),
    "\ud800Ada": ("Ada", ""),
    "the": ("the", ""),
    "a": ("a", ""),
    "b" * 64: ("b" * 64, ""),
    "b" * 200: ("b" * 200, "1 phrases are long: they are looked for by their first 64 letters"),
    "b" * 63 + " c": ("b" * 63 + " c", "1 phrases are long: they are looked for by their first 64 letters"),
    "b" * 1001: (None, "0 phrases are looked for; left out are 1 of more than 1,000 letters"),
    "Ada |" + "b" * 10**7: (None, "0 phrases are looked for; left out are 1 of more than 1,000 letters"),
    "\x00\x1b": (None, "0 phrases are looked for; left out are 1 with nothing to be written"),
}


@pytest.mark.parametrize("phrase", STRANGE, ids=lambda phrase: ascii(phrase)[:20])
def test_strange_phrases_are_transcribed_with(phrase, transcriber, heard, asked, caplog) -> None:
    """Each is shown to the decoder as it is to be written when it is heard, or told to be left out."""
    written, told = STRANGE[phrase]
    heard[written] = (0.9, 0.3)
    options = replace(text_only(transcriber), phrases=(phrase,))
    found = transcriber.transcribe(talk((1, 0.3), noise=0.002), "", options)
    assert found.segments
    assert caplog.messages == [told] * bool(told)
    assert {one.text for one in found.phrases} == {written} - {None}
    assert f" {written or ''}".startswith(asked[0][-1].rstrip("\ufffd")), "as much as a prompt holds"
    assert len(asked[0][-1]) > 3 or len(written or "") <= 3


def test_the_likeliest_are_chosen_and_stand_in_order_of_time(heard) -> None:
    lists = Phrases(lambda: SPOTTER)
    phrases = lists.encode(("Ada | ayda", "Bo", "Caxton", "Dürer", "Ezra"))
    heard.update({"ayda": (0.9, 0.8), "Ada": (0.6, 0.1), "Bo": (0.8, 0.2), "Caxton": (0.7, 0.5), "Dürer": (0.4, 0.0)})
    states = np.zeros((2, 60, 32), np.float32)
    options = DecodingOptions(phrases_threshold=0.5)
    all_heard, two = lists.spot(states, phrases, [options, replace(options, phrases_used=2)])
    assert [(one.text, round(one.probability, 2)) for one in all_heard] == [("Bo", 0.8), ("Caxton", 0.7), ("Ada", 0.9)]
    assert [one.text for one in two] == ["Bo", "Ada"]
    assert lists.spot(states, phrases, [DecodingOptions(phrases_threshold=0.95)] * 2) == [(), ()]


def test_the_decoder_is_shown_what_is_heard_before_the_previous_text(transcriber, heard, asked) -> None:
    options = replace(text_only(transcriber), phrases=("Ada", "Bo"))
    samples = talk((3.6, 0.3), noise=0.002)
    plain = transcriber.transcribe(samples, "", replace(options, phrases=()))
    assert len(plain.segments) == 3
    asked.clear()
    nothing = transcriber.transcribe(samples, "", options)
    assert [one.tokens for one in nothing.segments] == [one.tokens for one in plain.segments], "nothing was heard"
    assert nothing.phrases == ()
    assert asked[0] == [""]
    heard["Bo"] = (0.9, 0.3)
    asked.clear()
    found = transcriber.transcribe(samples, "", options)
    assert asked[0] == ["", " Bo"]
    assert all(before.startswith(" Bo") for (_, before) in asked[:3])
    assert [(one.text, round(one.start, 2)) for one in found.phrases][:1] == [("Bo", 0.3)]
    longest = transcriber.programs.longest_previous
    names = tuple(f"name {number}" for number in range(200))
    heard.update(dict.fromkeys(names, (0.9, 0.1)))
    asked.clear()
    transcriber.transcribe(samples, "", replace(options, phrases=names, phrases_used=200))
    assert len(transcriber.programs.tokens.encode(asked[0][-1])) <= longest + 2, "no more than a prompt holds"


@pytest.mark.parametrize("fault", ["", "fails", "skips", "invents", "says it otherwise"])
def test_a_text_that_phrases_made_worse_is_not_believed(transcriber, heard, monkeypatch, fault: str) -> None:
    """It repeats itself, leaves out much of what is heard without phrases, is the only one that hears any speech, or
    has other words and none of the phrases."""
    samples = talk((1, 0.3), noise=0.002)
    options = replace(text_only(transcriber), phrases=("Ada", fault), compression_ratio_threshold=9.0)
    silence = {"no_speech_threshold": 0.6, "logprob_threshold": -1.0} if fault == "invents" else {}
    options = replace(options, **silence)
    decode = transcriber.programs.decode
    letters = [transcriber.programs.tokens.encode(letter)[-1] for letter in "abcdefghijkl"]

    def decoded(*given):
        plain, informed = decode(*given)
        good = {"avg_logprob": -0.5, "no_speech_prob": 0.0}
        plain = replace(plain, text="plain", tokens=tuple(letters), **good)
        left = letters[:2] + letters[10 if fault == "skips" else 9 :]
        text = {"fails": "Ada " * 500, "says it otherwise": "other words"}.get(fault, "Ada")
        informed = replace(informed, text=text, tokens=tuple(left), **good)
        if fault == "invents":
            plain = replace(plain, no_speech_prob=0.9, avg_logprob=-2.0)
        return [plain, informed]

    monkeypatch.setattr(transcriber.programs, "decode", decoded)
    heard["Ada"] = (0.9, 0.3)
    found = transcriber.transcribe(samples, "", options)
    assert len(found.phrases) == (fault in ("", "says it otherwise")), "it was heard for sure"
    expected = [] if fault == "invents" else letters if fault else letters[:2] + letters[9:]
    assert [token for one in found.segments for token in one.tokens if token in letters] == expected


@pytest.mark.parametrize(
    ("plain", "informed", "expected"),
    [
        ("an e bay", "an eBay", True),
        ("an ebay", "an eBay", True),
        ("an eBay", "an ebay", False),
        ("an eBay there", "the eBay here", False),
        ("ebay", "eBay and eBay", True),
        ("e bay", "eBaying", False),
    ],
)
def test_phrases_count_where_they_are_written_more_often_or_as_listed(plain: str, informed: str, expected: bool):
    assert writes_more([Word("Ada", 0.0, 1.0, 0.5), Word("eBay", 0.0, 1.0, 0.5)], plain, informed) == expected


def test_what_is_heard_is_boosted_where_it_is_heard(transcriber, heard, monkeypatch) -> None:
    """By a random model the text of each window then consists of the phrase that is heard in it."""
    options = replace(text_only(transcriber), phrases=("Ada", "Bo", "boost"), phrases_boost=1e4)
    samples = talk((1, 0.3), noise=0.002)
    monkeypatch.setattr("cwjax.inference.engine.Engine._believed", lambda *given: given[4])
    assert "Bo" not in transcriber.transcribe(samples, "", options).text, "not heard"
    heard["Bo"] = (0.9, 0.3)
    again = replace(options, phrases_boost=0.0)
    with_boost, without = (transcriber.transcribe(samples, "", some).text for some in (options, again))
    assert set(with_boost.split()) == {"Bo"}
    assert "Bo" not in without


def test_of_a_longer_list_phrases_have_to_be_likelier(heard) -> None:
    lists = Phrases(lambda: SPOTTER)
    heard.update({"Ada": (0.021, 0.0), "Bo": (0.039, 1.0), "Caxton": (0.051, 2.0)})
    shown_of = {}
    for size in (3, 100, 300, 2000):
        names = ("Ada", "Bo", "Caxton", *(f"other {number}" for number in range(size - 3)))
        (found,) = lists.spot(np.zeros((1, 200, 32), np.float32), lists.encode(names), [DecodingOptions()])
        shown_of[size] = [one.text for one in found]
    every = ["Ada", "Bo", "Caxton"]
    assert shown_of == {3: every, 100: every, 300: ["Bo", "Caxton"], 2000: ["Caxton"]}


def test_few_phrases_make_a_short_prompt(transcriber) -> None:
    """In whose room the text is the same as in that of a long one."""
    programs = transcriber.programs
    start, some, longest = [[1, 2, 3]], [[5, 6]], 1 + programs.longest_previous
    assert [programs._prompt(start, [[]], given).tokens.shape[1] for given in (False, True)] == [3, 3]
    short, long = (programs._prompt(start, some, given) for given in (True, False))
    assert (short.tokens.shape[1], long.tokens.shape[1]) == (3 + longest // 4, 3 + longest)
    texts = [one.tokens[0, one.padding[0] :].tolist() for one in (short, long)]
    assert texts == [[programs.tokens.id("<|startofprev|>"), 5, 6, 1, 2, 3]] * 2
    full = programs._prompt(start, [[5] * programs.longest_previous], True)
    assert full.tokens.shape[1] == 3 + longest
    assert full.padding.tolist() == [0]


def test_likelier_phrases_are_boosted_more(transcriber) -> None:
    tokens = transcriber.programs.tokens
    spotted = [[Word("Ada", 0.0, 0.5, 0.15), Word("Bo", 1.0, 1.5, 0.4)], []]
    options = [DecodingOptions(phrases_boost=2.0)] * 2
    boost = boosted(spotted, tokens, options)
    assert boost.first[:, :2].tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert boost.following[0, :2].tolist() == [2.0, 3.0]
    ids = tokens.encode("Bo")
    assert boost.tokens[0, 1].tolist() == ids + [-1] * (len(boost.tokens[0, 1]) - len(ids))
    assert (boost.tokens[1] == -1).all()
    assert boosted([[], []], tokens, options) is None


def test_lists_in_a_context_count_too(transcriber, heard, asked) -> None:
    heard["Caxton"] = (0.9, 0.3)
    context = "they sail on the sea. names: Ruttner, Caxton, bear"
    transcriber.transcribe(talk((1, 0.3), noise=0.002), context, text_only(transcriber))
    assert asked[0] == ["", " Caxton"]


def test_recordings_with_one_list_are_each_shown_what_is_heard(transcriber, heard, asked) -> None:
    options = text_only(transcriber)
    samples = talk((1, 0.3), noise=0.002)
    heard.update({"Ada": (0.9, 0.1)})
    both = transcriber.transcribe_many([samples] * 2, None, [replace(options, phrases=("Ada", "2"))] * 2, batch_size=2)
    assert sorted(text for batch in asked for text in batch) == ["", "", " Ada", " Ada"]
    one, other = ([segment.tokens for segment in transcript.segments] for transcript in both)
    assert one == other


def test_a_text_that_repeats_what_was_shown_is_not_believed(transcriber, heard, asked, monkeypatch) -> None:
    options = replace(text_only(transcriber), phrases=("Ada", "Bo", "Caxton"))
    samples = talk((1, 0.3), noise=0.002)
    expected = transcriber.transcribe(samples, "", replace(options, phrases=()))
    heard.update({"Ada": (0.9, 0.1), "Bo": (0.9, 0.2), "Caxton": (0.9, 0.3)})
    monkeypatch.setattr("cwjax.inference.engine.is_echo", lambda text, shown: bool(shown))
    asked.clear()
    found = transcriber.transcribe(samples, "", options)
    assert asked == [["", " Ada, Bo, Caxton"]]
    assert found.text == expected.text
    assert found.phrases == (), "none was used"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("They met Ada, Bo and Caxton.", False),
        ("Ada, Bo, Caxton, and others", True),
        ("ada, bo, caxton", True),
        ("Bo, Caxton, Dürer", True),
        ("nothing", False),
    ],
)
def test_an_echo_has_phrases_as_they_were_shown(text: str, expected: bool) -> None:
    spotted = [Word(name, 7.0 * n, 7.0 * n + 1, 0.9) for n, name in enumerate(("Ada", "Bo", "Caxton", "Dürer"))]
    assert shown(spotted) == "Ada, Bo, Caxton, Dürer"
    assert is_echo(text, spotted) == expected
    assert not is_echo("Ada, Bo", spotted[:2])
    in_a_row = [Word(one.text, one.start / 5, one.end / 5, 0.9) for one in spotted[:3]]  # 1.2 s between them
    assert is_echo(text, in_a_row) == (expected and "Bo, Caxton, Dürer" not in text)
    in_a_row = [Word(one.text, one.start / 10, one.start / 10 + 0.5, 0.9) for one in spotted]
    assert not is_echo(text, in_a_row), "a list that was read out"


@pytest.mark.parametrize(("probability", "is_kept"), [(0.05, False), (0.2, True)])
def test_a_phrase_where_it_was_not_heard_is_not_believed(
    transcriber, heard, asked, monkeypatch, probability: float, is_kept: bool
) -> None:
    """It is written in another segment than that in which it was heard, and is looked for there."""
    samples = talk((1, 0.3), noise=0.002)
    looked_for = []

    def heard_between(states, phrases, places):
        looked_for.extend(places)
        return np.array([probability] * len(places))

    def in_segments(window, tokens, seek, frames):
        said = {" They met Ada": (seek / 100, 4.0), " and Ada": (12.0, 15.0), " and Bo": (15.0, 16.0)}
        first = cut(window, tokens, seek, frames)
        segments = [replace(first.segments[0], start=start, end=end, text=text) for text, (start, end) in said.items()]
        return first._replace(segments=segments)

    cut = engine.cut_into_segments
    monkeypatch.setattr(transcriber.phrases, "heard_between", heard_between)
    monkeypatch.setattr(engine, "cut_into_segments", in_segments)
    heard.update({"Ada": (0.9, 0.5), "Bo": (0.8, 14.5)})
    phrases = ("Ada", "Bo", f"{probability}")  # a list of its own
    found = transcriber.transcribe(samples, "", replace(text_only(transcriber), phrases=phrases))
    places = [(one.text, *span) for one, *span in looked_for]
    assert places == [("Ada", 12.0, 15.0)], "only where the likeliest place is not"
    assert asked == [["", " Ada, Bo"], *([] if is_kept else [[" Bo"]])]
    assert [one.text for one in found.phrases] == ["Ada"] * is_kept


def test_a_transcript_tells_of_phrases_that_were_written_or_surely_heard(transcriber, heard, monkeypatch) -> None:
    """The decoder is shown unlikely ones, too, which are no news if it writes nothing of them."""

    def in_a_segment(window, tokens, seek, frames):
        first = cut(window, tokens, seek, frames)
        return first._replace(segments=[replace(first.segments[0], start=0.0, end=2.0, text=" They met Ada")])

    cut = engine.cut_into_segments
    monkeypatch.setattr(engine, "cut_into_segments", in_a_segment)
    heard.update({"Ada": (0.1, 0.5), "Bo": (0.1, 0.8), "Caxton": (0.9, 0.7)})
    options = replace(text_only(transcriber), phrases=("Ada", "Bo", "Caxton", "Fust"))
    found = transcriber.transcribe(talk((1, 0.3), noise=0.002), "", options)
    assert [one.text for one in found.phrases] == ["Ada", "Caxton"]


def test_phrases_are_looked_for_in_a_part_of_a_window(monkeypatch) -> None:
    lists = Phrases(lambda: SPOTTER)
    phrases = lists.encode(("Ada", "Goethe | gurta", "Bo"))
    asked = []

    def noting(spotter, states, some, listened):
        asked.append((np.asarray(some.lengths[0, :4]), np.asarray(listened)))
        return np.array([[0.1, 0.2, 0.3]] * len(states)), None, None

    monkeypatch.setattr(phrases_module, "detect", noting)
    states = np.zeros((300, 32), np.float32)  # six seconds
    ada, goethe = (Word(text, 0.0, 0.5, 0.9) for text in ("Ada", "Goethe"))
    found = lists.heard_between(states, phrases, [(ada, 0.0, 0.5), (goethe, 3.0, 3.2), (ada, 5.0, 9.0)])
    assert found.tolist() == [0.1, 0.3, 0.1], "of a phrase's likeliest spelling"
    ((lengths, listened),) = asked
    assert lengths.tolist() == [3, 6, 5, 0]
    seconds = [(row.argmax() * 0.04, (len(row) - row[::-1].argmax()) * 0.04) for row in listened]
    np.testing.assert_allclose(seconds, [(0, 1.52), (2.04, 4.2), (4.04, 6), (4.04, 6)], atol=0.03)


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("Ada", "Ada, ADA's and Canada; adamant.", ["Ada", "ADA"]),
        ("New  York", "in new york, New\nYork", ["new york", "New\nYork"]),
        ("C++ (new)", "C++ (new) c++ old", ["C++ (new)"]),
        ("李白", "我喜欢李白的诗", ["李白"]),
        ("عدن", "في عدن، اليوم وعدنان", ["عدن"]),
        ("straße", "Straße, Straßen", ["Straße"]),
        ("🐝", "a🐝b", ["🐝"]),
    ],
)
def test_where_phrases_stand_in_a_text(phrase: str, text: str, expected: list[str]) -> None:
    assert [text[place.start : place.stop] for place in occurrences(phrase, text)] == expected


def test_a_phrase_is_written_where_it_was_heard() -> None:
    segments = speech("they met Ada", "in New", "York today").segments  # four seconds each
    assert is_written(Word("Ada", 3.0, 3.5, 0.9), segments)
    assert is_written(Word("Ada", 4.5, 5.0, 0.9), segments), "times may be wrong by a second"
    assert not is_written(Word("Ada", 5.5, 6.0, 0.9), segments)
    assert is_written(Word("new york", 7.5, 8.2, 0.9), segments)
    assert not is_written(Word("new york", 2.0, 2.5, 0.9), segments)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("an interview about bee keeping; names: Ruttner, Ada, Bo", ["Ruttner", "Ada", "Bo"]),
        ("A talk. names: Ada Bo, Caxton.", ["Ada Bo", "Caxton"]),
        ("names: Ada, Bo\nplaces: Ulm, Köln", ["Ada", "Bo", "Ulm", "Köln"]),
        ("They sail on the sea, and the wind is in the water.", []),
        ("", []),
    ],
)
def test_entries_of_lists_in_a_context(context: str, expected: list[str]) -> None:
    assert listed_phrases(context) == expected


def test_phrases_take_no_more_windows_at_once(transcriber, heard, monkeypatch) -> None:
    """But two where there is one, and where memory does not suffice for these, one after the other."""
    options = replace(text_only(transcriber), phrases=("Ada", "memory"))
    samples = talk((1, 0.3), noise=0.002)
    heard["Ada"] = (0.9, 0.3)
    decode, sizes, most = transcriber.programs.decode, [], 99

    def noting(encoded, starts, *others):
        sizes.append(len(starts))
        if len(starts) > most:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
        return decode(encoded, starts, *others)

    monkeypatch.setattr(transcriber.programs, "decode", noting)
    transcriber.transcribe_many([samples] * 4, None, [options] * 4, batch_size=4)
    assert max(sizes) <= 4
    sizes.clear()
    expected = transcriber.transcribe(samples, "", options)
    assert max(sizes) == 2
    most = 1
    sizes.clear()
    try:
        found = transcriber.transcribe(samples, "", options)
    finally:
        transcriber.engine._most_windows = 1 << 30
    assert sizes[:3] == [2, 1, 1]
    assert [one.tokens for one in found.segments] == [one.tokens for one in expected.segments]
    assert [one.text for one in found.phrases] == [one.text for one in expected.phrases]
