"""Windows: nothing lost, nothing twice, limits and runs kept, other boundaries in every epoch."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cwjax.data.cuts import Supervision, TimedWord
from cwjax.data.examples.context import ContextProbabilities, draw_context
from cwjax.data.examples.whisper_tokens import WhisperTokens, train_tokenizer
from cwjax.data.examples.windows import Limits, Selection, TrainingWindows, token_counts
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.prepared.windows import Runs, divided
from cwjax.data.segment import segment_of
from cwjax.errors import CwjaxError

SECONDS, TOKENS = 30.0, 40


@st.composite
def supervisions(draw):
    """Start, end, begin of a run and tokens of each."""
    rows, time = [], 0.0
    for number in range(draw(st.integers(1, 40))):
        begins = number == 0 or draw(st.integers(0, 6)) == 0
        time = draw(st.floats(0, 50)) if begins else time + draw(st.floats(0, 4))
        end = time + draw(st.floats(0.1, 35))
        rows.append((time, end, begins, draw(st.integers(0, 50))))
        time = end
    return [np.array(column) for column in zip(*rows, strict=True)]


def greedy(rows, seconds, tokens, first=None):
    """The same by a loop; `first`: seconds of the first window of each run."""
    begins, run, limit, window, used = [], -1, seconds, 0.0, 0
    for place, (start, end, is_new, count) in enumerate(zip(*rows, strict=True)):
        if is_new or end - window > limit + 1e-6 or used + count > tokens:
            run += int(is_new)
            limit = first[run] if is_new and first is not None else seconds
            begins.append(place)
            window, used = start, 0
        used += count
    return begins


@given(supervisions(), st.randoms(use_true_random=False))
def test_windows_are_those_of_a_loop(rows, random):
    start, end, begins, tokens = rows
    runs = Runs(start, end, begins, tokens)
    furthest = runs.furthest(SECONDS, TOKENS)
    assert runs.windows(furthest).tolist() == greedy(rows, SECONDS, TOKENS)
    first = np.array([random.uniform(0, SECONDS) for _ in runs.starts])
    drawn = runs.windows(furthest, runs.furthest(first, TOKENS, runs.starts))
    assert drawn.tolist() == greedy(rows, SECONDS, TOKENS, first)
    alone = Runs(start, end, begins)
    assert alone.windows(alone.furthest(SECONDS)).tolist() == greedy(rows, SECONDS, 10**9)


def spoken(count: int, pause: int = 0) -> Supervision:
    """Words of 0.5 s, one after another, with 0.4 s of silence before one of them."""
    words = []
    for number in range(count):
        start = number * 0.5 + 0.4 * (0 < pause <= number)
        words.append(TimedWord(f"w{number}", start, start + 0.5))
    text = ", ".join(word.text for word in words) + "."
    return Supervision("a", 0.0, words[-1].end, text, words=tuple(words), custom={"article": "x"})


def test_what_is_too_long_is_cut_between_words():
    long = spoken(30, pause=11)
    parts = divided(long, 7.0)
    assert [part.text for part in parts] == [
        ", ".join(f"w{number}" for number in range(*ends)) + end
        for ends, end in (((0, 11), ","), ((11, 24), ","), ((24, 30), "."))
    ]
    assert [time for part in parts for time in (part.start, part.end)] == pytest.approx([0, 5.7, 5.7, 12.4, 12.4, 15.4])
    assert " ".join(part.text for part in parts) == long.text
    assert [word for part in parts for word in part.words] == list(long.words)
    assert all(part.end - part.start <= 7.0 for part in parts)


def test_nothing_is_cut_where_the_times_are_guesses():
    long = spoken(30)
    guessed = Supervision(
        "a", 0.0, long.end, long.text, words=tuple(TimedWord(one.text, one.start, one.end, 0.0) for one in long.words)
    )
    other = Supervision("a", 0.0, long.end, "another text", words=long.words)
    silent = Supervision("a", 0.0, long.end, long.text)
    for one in (guessed, other, silent):
        assert divided(one, 7.0) == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """Four recordings of fifty utterances of 1 s each, with a gap after every tenth; and one of 12 s."""
    root = tmp_path_factory.mktemp("root")
    rows = []
    for recording in range(4):
        soundfile.write(root / f"{recording}.wav", np.zeros(RATE * 95), RATE)
        time = 0.0
        for number in range(50):
            time += 6.0 if number % 10 == 0 else 0.25
            text = f"number {50 * recording + number} is said"
            rows.append({"audio": f"{recording}.wav", "start": time, "end": time + 1, "text": text, "speaker": "jo"})
            time += 1
    rows.append({"audio": "long.wav", "text": "it is too long", "speaker": "ann"})
    soundfile.write(root / "long.wav", np.zeros(RATE * 12), RATE)
    (root / "table.jsonl").write_text("\n".join(json.dumps(row | {"split": "train"}) for row in rows))
    return prepare("manifest", root, root / "prepared")


RATE = 16_000


@pytest.fixture(scope="module")
def tokens(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> WhisperTokens:
    return train_tokenizer(corpus.texts("train"), 300, tmp_path_factory.mktemp("tokenizer"))


def numbers(windows: TrainingWindows, place: int) -> list[int]:
    return [int(word) for word in windows.segment(windows[place]).text.split() if word.isdigit()]


def test_epochs(corpus: PreparedCorpus, tokens: WhisperTokens, caplog: pytest.LogCaptureFixture) -> None:
    windows = TrainingWindows(corpus, tokens, Limits(8.0, 1000), Selection(), seed=5)
    again = TrainingWindows(corpus, tokens, Limits(8.0, 1000), Selection(), seed=5)
    other = TrainingWindows(corpus, tokens, Limits(8.0, 1000), Selection(), seed=6)
    assert "1 training utterances do not fit and are left out" in caplog.text
    assert (windows.count, windows.seconds) == (200, pytest.approx(200))
    place, epochs = 0, []
    for _ in range(4):
        seen: list[int] = []
        begins: list[int] = []
        while len(seen) < 200:
            said = numbers(windows, place)
            assert said == list(range(said[0], said[-1] + 1))
            assert said[0] // 10 == said[-1] // 10, "over a gap"
            recording, start, end = windows.sound(windows[place])
            assert end - start == pytest.approx(1.25 * len(said) - 0.25)
            assert end - start <= 8.0
            assert recording == said[0] // 50
            assert windows.tokens(windows[place]) == len(tokens.encode(windows.segment(windows[place]).text))
            previous = windows.segment(windows[place]).context.previous
            assert previous == " ".join(f"number {one} is said" for one in range(said[0] // 10 * 10, said[0]))
            assert windows.tokens_before(windows[place]) == (len(tokens.encode(previous)) if previous else 0)
            seen += said
            begins.append(said[0])
            place += 1
        assert sorted(seen) == list(range(200))
        epochs.append(begins)
    assert len({tuple(sorted(begins)) for begins in epochs}) == 4, "other boundaries"
    # At any number, without what came before.
    assert [again[one] for one in range(place - 1, 0, -7)] == [windows[one] for one in range(place - 1, 0, -7)]
    assert [other[one] for one in range(20)] != [windows[one] for one in range(20)]


def test_tokens_are_counted_once(
    corpus: PreparedCorpus, tokens: WhisperTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = token_counts(corpus, tokens)
    expected = [len(tokens.encode(said.text)) for said in corpus.all_supervisions()]
    assert counts[:, 0].tolist() == expected
    monkeypatch.setattr(PreparedCorpus, "all_supervisions", None)
    assert token_counts(PreparedCorpus.read(corpus.directory), tokens).tolist() == counts.tolist()


def test_the_first_windows_alone(corpus: PreparedCorpus, tokens: WhisperTokens) -> None:
    windows = TrainingWindows(corpus, tokens, Limits(8.0, 1000), Selection(examples=3), seed=5)
    assert windows.count == 6 + 4 + 6, "a window of six, the rest up to the gap, the next six"
    assert {number for place in range(12) for number in numbers(windows, place)} == set(range(16))


def test_tokens_limit_windows_and_utterances(corpus: PreparedCorpus, tokens: WhisperTokens) -> None:
    longest = max(len(tokens.encode(said.text)) for said in corpus.all_supervisions())
    windows = TrainingWindows(corpus, tokens, Limits(30.0, 2 * longest), Selection(), seed=0)
    assert max(windows.tokens(windows[place]) for place in range(200)) <= 2 * longest
    with pytest.raises(CwjaxError, match=r"no training utterance remains; raise data\.max_target_tokens"):
        TrainingWindows(corpus, tokens, Limits(30.0, 1), Selection(), seed=0)


def test_what_is_too_long_is_trained_on_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part once an epoch, with its own sound, and the parts before it as what was said before."""
    long = spoken(30, pause=11)
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE * 20), RATE)
    (tmp_path / "table.jsonl").write_text(json.dumps({"audio": "a.wav", "text": long.text, "split": "train"}))
    monkeypatch.setattr("cwjax.data.corpora.manifest.ListedUtterance", with_words(long))
    corpus = prepare("manifest", tmp_path, tmp_path / "prepared")
    tokens = train_tokenizer([long.text], 300, tmp_path / "tokenizer")
    windows = TrainingWindows(corpus, tokens, Limits(7.0, 1000), Selection(), seed=0)
    parts = divided(corpus.read_supervisions(0, 1)[0], 7.0)
    assert windows.count == len(parts) == 3
    epoch = sorted((windows[place] for place in range(3)), key=lambda window: window.first)
    for place, (window, part) in enumerate(zip(epoch, parts, strict=True)):
        segment = windows.segment(window)
        assert (segment.text, segment.duration) == (part.text, pytest.approx(part.end - part.start))
        assert segment.context.previous == " ".join(one.text for one in parts[:place])
        assert windows.sound(window) == (0, pytest.approx(part.start), pytest.approx(part.end))
        assert windows.tokens(window) == len(tokens.encode(part.text))


def with_words(said: Supervision):
    """A reader of tables that have the times of words."""
    from cwjax.data.corpora.listed_utterances import ListedUtterance

    return lambda **fields: ListedUtterance(**fields | {"words": said.words, "start": said.start, "end": said.end})


def test_a_context_gives_nothing_of_a_window_away():
    lead = "The tall ships of the harbour were built in nineteen hundred and two. They sank."
    said = [
        Supervision("a", 0.0, 2.0, "Nothing of it.", custom={"article": "x"}),
        Supervision("b", 2.5, 9.0, lead.split(". ")[0] + ".", custom={"article": "x"}),
    ]
    always = ContextProbabilities(title=0, section=0, lead=1, none=0, wrong=0)
    generator = np.random.default_rng(0)
    facts = {"title": "Ships", "lead": lead}
    assert "tall ships" in draw_context(segment_of(said[:1], facts, 0), always, generator, None)
    assert draw_context(segment_of(said, facts, 0), always, generator, None) == "Ships. They sank."


@pytest.mark.parametrize(("language", "text"), [("zh", "你好。世界。"), ("en", "你好。 世界。")])
def test_texts_are_joined_as_their_language_is_written(language, text):
    said = [
        Supervision(f"a-{place}", place, place + 1.0, one, language=language, custom={"article": "a"})
        for place, one in enumerate(("你好。", "世界。"))
    ]
    assert segment_of(said, {}, 0).text == text
