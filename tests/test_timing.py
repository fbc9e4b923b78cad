"""Times of words, against openai-whisper's functions."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from references import SMALL, openai_model, real_vocabulary, wide_parameters
from test_whisper_tokens import multilingual_whisper
from tolerance import assert_close, largest_logit, whisper_terms

from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.inference.audio import Recording
from cwjax.inference.hallucinations import Surroundings, is_anomalous, skip_hallucinations
from cwjax.inference.options import APPENDED, PREPENDED, DecodingOptions
from cwjax.inference.programs import Programs
from cwjax.inference.timing import (
    POSITIONS_PER_SECOND,
    Alignment,
    add_words,
    last_word_end,
    merge_punctuation,
    smooth,
    split_into_words,
    warp,
)
from cwjax.inference.transcript import Segment, Word

TEXTS = [
    "",
    " a. b. c.",
    " Don't stop: 3.5 metres (or so), he said. “Really?!”",
    " Öl, naïve -- 12%",
    " 日本語 🙂 half",
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> WhisperTokens:
    return multilingual_whisper(tmp_path_factory.mktemp("tokenizer"))


def their_begins(weights: np.ndarray) -> np.ndarray:
    """Where the rows of openai-whisper's path begin."""
    pytest.importorskip("torch")
    from whisper.timing import dtw_cpu

    rows, columns = dtw_cpu(-weights.astype(np.float64))
    return np.asarray([columns[rows == row].min() for row in range(len(weights))])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 5), (4, 30), (12, 7), (20, 3), (3, 1), (40, 300)])
@pytest.mark.parametrize("ties", [False, True])
def test_warping_equals_openai_whispers(shape: tuple[int, int], ties: bool) -> None:
    """For several windows at once, whose padding must not count."""
    random, windows = np.random.default_rng(shape), 6
    weights = random.normal(size=(windows, *shape)).astype(np.float32)
    if ties:
        weights = np.round(weights)
    rows, columns = (random.integers(1, size + 1, windows).astype(np.int32) for size in shape)
    rows[0], columns[0] = shape
    for window, (row, column) in enumerate(zip(rows, columns, strict=True)):
        weights[window, row:] = weights[window, :, column:] = random.choice([-1e9, 1e9, np.nan])
    begins = np.asarray(jax.jit(warp)(weights, rows, columns))
    for window, (row, column) in enumerate(zip(rows, columns, strict=True)):
        np.testing.assert_array_equal(begins[window, :row], their_begins(weights[window, :row, :column]))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_warping_adds_as_openai_whisper_does(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a whole window the sums are so long that their rounding decides between paths."""
    monkeypatch.setattr("cwjax.inference.timing.platform", lambda: platform)
    weights = np.random.default_rng(0).integers(0, 2, (1, 100, 1500)).astype(np.float32) * np.float32(0.1)
    program = jax.jit(lambda *arrays: warp(*arrays))  # anew, for what is compiled is kept by function
    begins = program(weights, np.asarray([100], np.int32), np.asarray([1500], np.int32))
    np.testing.assert_array_equal(begins[0], their_begins(weights[0]))


def test_an_accelerator_warps_in_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the last does not fill its loop; the paths are the same ones."""
    random, windows = np.random.default_rng(1), 5
    given = random.normal(size=(windows, 13, 61)).astype(np.float32), np.arange(9, 14), np.arange(20, 61, 10)
    begins, turns = {}, {}
    for name in ("cpu", "gpu"):
        monkeypatch.setattr("cwjax.inference.timing.platform", lambda name=name: name)
        program = jax.jit(lambda *arrays: warp(*arrays))  # anew, for what is compiled is kept by function
        begins[name] = np.asarray(program(*given))
        loops = [one for one in program.trace(*given).jaxpr.eqns if one.primitive.name == "scan"]
        turns[name] = sum(one.params["length"] // one.params["unroll"] for one in loops)
    np.testing.assert_array_equal(begins["gpu"], begins["cpu"])
    assert turns["gpu"] < turns["cpu"] / 4


def best_sum(begins: np.ndarray, weights: np.ndarray) -> float:
    """The highest sum of weights over the monotone paths whose rows begin there."""
    total = 0.0
    for row, (first, following) in enumerate(zip(begins, [*begins[1:], weights.shape[1]], strict=True)):
        # A row ends beside or right above the beginning of the next one.
        diagonal, straight = weights[row, first:following].sum(), weights[row, first : following + 1].sum()
        total += straight if first == following else max(diagonal, straight)
    return float(total)


def test_windows_are_aligned_as_openai_whisper_does(tmp_path: Path) -> None:
    """Two windows at once, with texts and audio of unlike lengths; rounding may decide between equally good paths."""
    pytest.importorskip("torch")
    from whisper import log_mel_spectrogram, pad_or_trim, timing
    from whisper.tokenizer import get_tokenizer

    config, processor = real_vocabulary(tmp_path, SMALL)
    parameters = wide_parameters(config)
    model, programs = openai_model(SMALL, parameters), Programs(config, parameters, processor)
    tokenizer, random = get_tokenizer(True, num_languages=99, language="en"), np.random.default_rng(0)
    recordings = [Recording.open(random.normal(size=160 * frames).astype(np.float32) * 0.1) for frames in (900, 2500)]
    texts = [tokenizer.encode(TEXTS[2]), tokenizer.encode(" ".join(TEXTS * 3))]
    frames = [recording.frames for recording in recordings]
    windows = np.stack([recording.window(0, 3000) for recording in recordings])
    largest = [programs.max_log_mel(recording) for recording in recordings]
    encoded = programs.encode(windows, largest, frames, [False, False])
    ours = programs.align(encoded, [processor.tokens.prompt("en", timestamps=False)] * 2, texts, frames)
    for alignment, text, recording in zip(ours, texts, recordings, strict=True):
        mel = log_mel_spectrogram(recording.samples, 80, padding=480_000)[:, : recording.frames]
        with pytest.MonkeyPatch.context() as patch:
            given, dtw = [], timing.dtw
            patch.setattr(timing, "dtw", lambda costs, given=given, dtw=dtw: given.append(costs) or dtw(costs))
            words = timing.find_alignment(model, tokenizer, text, pad_or_trim(mel, 3000), recording.frames)
        weights = -given[0].numpy()
        terms, scale = whisper_terms(SMALL), np.abs(weights).max() * sum(weights.shape)
        assert_close(best_sum(alignment.begins, weights), best_sum(their_begins(weights), weights), terms, scale)
        bounds = np.cumsum([0, *(len(word.tokens) for word in words)])
        probabilities = [alignment.probabilities[first:last].mean() for first, last in itertools.pairwise(bounds)]
        expected = [word.probability for word in words]
        assert_close(np.log(probabilities), np.log(expected), terms, largest_logit(parameters))
        assert len(alignment.probabilities) == len(text)


@pytest.mark.parametrize("positions", [40, 23, 4, 3, 1])
def test_weights_are_openai_whispers(positions: int) -> None:
    torch = pytest.importorskip("torch")
    from whisper.timing import median_filter

    scores = np.random.default_rng(0).normal(size=(12, 40)).astype(np.float32) * 3
    length = 9
    weights = torch.tensor(scores[None, :length, :positions]).softmax(dim=-1)
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    expected = median_filter((weights - mean) / deviation, 7)[0].numpy()
    ours = jax.jit(smooth)(scores, length, positions)[:length, :positions]
    if positions == 1:
        expected = np.zeros_like(expected)  # where nothing differs, theirs is not a number
    largest = float((weights / deviation).max()) if positions > 1 else 0
    assert_close(ours, expected, terms=positions + length, scale=largest)
    other = jax.jit(smooth)(jnp.asarray(scores).at[length:].set(7).at[:, positions:].set(-7), length, positions)
    np.testing.assert_array_equal(other[:length, :positions], ours)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", " Don't stop: 3.5 metres (or so), he said. “Really?!”"),
        ("de", " Öl, naïve Übergrößenträger -- 12% mehr."),
        ("zh", "你好，世界。日本語 🙂 ok"),
        ("en", " 日本語 🙂 half"),
        ("fr", ""),
    ],
)
def test_words_are_openai_whispers(tokens: WhisperTokens, language: str, text: str) -> None:
    from whisper.tokenizer import get_tokenizer

    theirs = get_tokenizer(True, num_languages=99, language=language, task="transcribe")
    ids = theirs.encode(text)
    for part in (ids, ids[:-1], ids[1:], ids[2:5]):  # which may cut through characters
        words, groups = theirs.split_to_word_tokens([*part, theirs.eot])
        expected = list(zip(words[:-1], map(len, groups[:-1]), strict=True))
        ours = split_into_words(part, tokens, language)
        if sum(count for _, count in ours) < len(part):
            # The text is cut within a character. Theirs may lose the whole word before it, too.
            assert ours[: len(expected)] == expected
            assert len(ours) <= len(expected) + 1
        else:
            assert ours == expected


def test_punctuation_is_merged_as_openai_whisper_does() -> None:
    pytest.importorskip("torch")
    from whisper.timing import merge_punctuations

    random = np.random.default_rng(0)
    choices = [" a", "b", ' "', " (", "“", ",", ".", "?!", ")", "”", " -", " 'tis", "。", " ", " c "]
    for _ in range(200):
        texts = [str(text) for text in random.choice(choices, int(random.integers(1, 9)))]
        theirs = [SimpleNamespace(word=text, tokens=[place]) for place, text in enumerate(texts)]
        merge_punctuations(theirs, PREPENDED, APPENDED)
        ours = merge_punctuation([(text, 1) for text in texts], PREPENDED, APPENDED)
        assert ours == [(word.word, len(word.tokens)) for word in theirs]


def segment_of(start: float, end: float, tokens: tuple[int, ...] = (), words: tuple[Word, ...] = ()) -> Segment:
    return Segment(0, 0, start, end, "", tokens, 0.0, 0.0, 1.0, 0.0, words)


Window = tuple[list[tuple[str, float, float]], list[int], float, float]


@st.composite
def spoken_windows(draw: st.DrawFn) -> Window:
    """Texts of a window's segments with their times in it, jumps between the tokens' beginnings, and two times."""
    texts = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
    times = sorted(draw(st.lists(st.integers(0, 1500), min_size=2 * len(texts), max_size=2 * len(texts))))
    segments = [(text, *times[2 * place : 2 * place + 2]) for place, text in enumerate(texts)]
    jumps = draw(st.lists(st.sampled_from([0, 0, 1, 5, 10, 20, 100, 400]), min_size=1, max_size=100))
    began = draw(st.integers(0, 3000))
    return segments, jumps, began / 100, draw(st.integers(0, began)) / 100


def align_by_hand(window: Window, tokens: WhisperTokens) -> tuple[list[Segment], Alignment]:
    """The window's segments, and a path that makes the jumps, over and over."""
    spoken, jumps, began, _ = window
    segments = []
    for text, first, last in spoken:
        stamps = (tokens.first_timestamp + place for place in (first, last))
        start, end = (began + place / POSITIONS_PER_SECOND for place in (first, last))
        segments.append(segment_of(start, end, (next(stamps), *tokens.pieces(text), next(stamps))))
    count = sum(len(segment.tokens) - 2 for segment in segments)
    begins = np.minimum(np.cumsum([0, *np.resize(jumps, count)]), 1499).astype(np.int32)
    return segments, Alignment(begins, np.linspace(0.1, 0.9, count, dtype=np.float32))


LONG_FIRST_WORD = ([(" a. b. c.", 28, 1400)], [30, 50, 50, 50, 50, 50], 0.0, 0.0)
"""Half a second before its segment, in a window of long words."""


@example(window=LONG_FIRST_WORD)
@given(window=spoken_windows())
def test_word_times_are_openai_whispers(tokens: WhisperTokens, window: Window) -> None:
    """Their function is given the words as it would have found them."""
    pytest.importorskip("torch")
    from whisper import timing
    from whisper.tokenizer import get_tokenizer

    segments, alignment = align_by_hand(window, tokens)
    _, _, began, last_speech = window
    tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")

    def find_alignment(model: Any, tokenizer: Any, text: list[int], *rest: Any) -> list[timing.WordTiming]:
        words, groups = tokenizer.split_to_word_tokens([*text, tokenizer.eot])
        found, place = [], 0
        for word, group in zip(words[:-1], groups[:-1], strict=True):
            times = alignment.begins[[place, place + len(group)]] / POSITIONS_PER_SECOND
            probability = np.mean(alignment.probabilities[place : place + len(group)].tolist())
            found.append(timing.WordTiming(word, group, *times, probability))
            place += len(group)
        return found

    # Their windows begin where their first segment says, in frames.
    theirs = [
        {"seek": round(began * 100), "start": segment.start, "end": segment.end, "tokens": list(segment.tokens)}
        for segment in segments
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "find_alignment", find_alignment)
        timing.add_word_timestamps(
            segments=theirs,
            model=None,
            tokenizer=tokenizer,
            mel=None,
            num_frames=3000,
            last_speech_timestamp=last_speech,
        )
    ours = add_words(segments, alignment, tokens, "en", began, last_speech, DecodingOptions())
    for segment, expected in zip(ours, theirs, strict=True):
        assert (segment.start, segment.end) == (expected["start"], expected["end"])
        assert [(word.text, word.start, word.end, word.probability) for word in segment.words] == [
            (word["word"], word["start"], word["end"], word["probability"]) for word in expected["words"]
        ]


@example(window=LONG_FIRST_WORD, share=1.0, language="en")
@given(window=spoken_windows(), share=st.floats(0, 1), language=st.sampled_from(["en", "ja"]))
def test_words_end_after_they_start(tokens: WhisperTokens, window: Window, share: float, language: str) -> None:
    segments, alignment = align_by_hand(window, tokens)
    aligned = round(share * len(alignment.probabilities))  # what the decoder had no positions for is left out
    alignment = Alignment(alignment.begins[: aligned + 1], alignment.probabilities[:aligned])
    timed = add_words(segments, alignment, tokens, language, *window[2:], DecodingOptions())
    assert [segment.tokens for segment in timed] == [segment.tokens for segment in segments]
    for segment in timed:
        assert 0 <= segment.start <= segment.end
        assert all(0 <= word.start <= word.end for word in segment.words)
        assert all(0 < word.probability < 1 for word in segment.words)
    said = "".join(word.text for segment in timed for word in segment.words)
    texts = "".join(text for text, _, _ in window[0])
    assert said == texts if share == 1 else texts.startswith(said.rstrip("\ufffd"))  # cut within a character
    ends = [word.end for segment in timed for word in segment.words]
    assert last_word_end(timed) == (ends[-1] if ends else timed[-1].end)


SAID = [Word(" so", 10.0, 10.4, 0.9), Word(" it", 10.4, 10.7, 0.9), Word(",", 10.7, 10.7, 0.01)]
HURRIED = [Word(" Thanks", 20.0, 20.02, 0.05), Word(" bye", 20.02, 20.04, 0.05), Word("!", 20.04, 20.5, 0.9)]
DRAWN_OUT = [Word(" Mm", 14.0, 20.0, 0.9)]


def spoken(words: list[Word], later: float = 0.0) -> Segment:
    words = [Word(word.text, word.start + later, word.end + later, word.probability) for word in words]
    return segment_of(words[0].start, words[-1].end, words=tuple(words))


def test_most_of_a_segments_first_words_make_it_anomalous() -> None:
    assert is_anomalous(spoken(HURRIED))
    assert is_anomalous(spoken(DRAWN_OUT))
    assert not is_anomalous(spoken(SAID))  # marks do not count
    assert is_anomalous(spoken(HURRIED + HURRIED[:1] + SAID * 9))  # three are enough
    assert not is_anomalous(spoken(SAID * 4 + HURRIED * 9))  # only the first eight count
    assert not is_anomalous(segment_of(0, 1))
    assert not is_anomalous(None)


@pytest.mark.parametrize(
    ("segments", "kept"),
    [
        ([spoken(SAID)], (1, 3700)),
        ([spoken(HURRIED)], 2000),  # the window is to begin with it
        ([spoken(SAID), spoken(HURRIED)], (1, 2000)),
        ([spoken(SAID), segment_of(11, 11), spoken(HURRIED), spoken(SAID, 15)], (2, 2000)),
        ([spoken(SAID), spoken(HURRIED), spoken(HURRIED, 0.6)], (1, 2000)),  # another invented one follows
        ([spoken(SAID), spoken(HURRIED), spoken(SAID, 11)], (3, 3700)),  # speech follows at once
        ([spoken(SAID, 8.5), spoken(HURRIED), spoken(SAID, 15)], (3, 3700)),  # speech comes right before
        ([spoken(SAID, 8.5), spoken(HURRIED), spoken(HURRIED, 3)], (2, 2300)),  # silence before the second
        ([spoken(SAID), spoken(HURRIED, 18)], (1, 6000)),  # nothing but silence until the recording ends
    ],
)
def test_invented_segments_in_silence_are_dropped(segments: list[Segment], kept: tuple[int, int] | int) -> None:
    """What is heard again: mel frames; what stays: how many segments, and the frame of the next window."""
    here = Surroundings(seek=1000, began=10.0, ended=40.0, length=30.0, last_speech=9.0, frames=6000, duration=40.0)
    result = skip_hallucinations(segments, 3700, 2.0, here)
    assert (result if isinstance(result, int) else (len(result[0]), result[1])) == kept
    if not isinstance(result, int):
        assert result[0] == segments[: len(result[0])]
