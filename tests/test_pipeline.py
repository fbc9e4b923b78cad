"""The Grain pipeline: order, shares, shapes, exact resume."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from tiny import write_bert

from cwjax.data.examples.context import ContextProbabilities
from cwjax.data.examples.pipeline import ExampleSettings, fits, target_arrays, training_batches, training_windows
from cwjax.data.examples.processor import Processor
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.examples.whisper_tokens import train_tokenizer
from cwjax.data.examples.windows import Selection
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus

COUNT = 23
SETTINGS = ExampleSettings(24, 12, ContextProbabilities(), timestamps=0.5)


PAUSE = 0.1


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """Recordings of four utterances, whose every sample is their own number over a thousand, so that batches tell where
    they came from; between them 0.1 s of silence."""
    root = tmp_path_factory.mktemp("root")
    rows = []
    for article in range(-(-COUNT // 4)):
        samples = np.zeros(0)
        for number in range(4 * article, min(4 * article + 4, COUNT)):
            start = len(samples) / 16000
            said = np.full(round(16000 * (0.5 + number / 100)), number / 1000)
            rows.append(
                {
                    "id": str(number),
                    "audio": f"{article}.wav",
                    "start": start,
                    "end": start + len(said) / 16000,
                    "text": f"the word was {number}",
                    "title": f"sea {article}",
                    "section": "wind",
                    "lead": "The water.",
                    "speaker": "jo",
                    "split": "train",
                }
            )
            samples = np.concatenate([samples, said, np.zeros(round(PAUSE * 16000))])
        soundfile.write(root / f"{article}.wav", samples, 16000)
    (root / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return PreparedCorpus.read(prepare("manifest", root, root / "prepared").directory, 0.5)


@pytest.fixture(scope="module")
def processor(corpus: PreparedCorpus, tmp_path_factory: pytest.TempPathFactory) -> Processor:
    directory = tmp_path_factory.mktemp("tokenizers")
    tokens = train_tokenizer((segment.text for segment in corpus.segments), 300, directory / "whisper")
    bert = write_bert(directory / "bert")
    return Processor(tokens, TextTokenizer.read(bert), num_mel_bins=80, window_samples=16000)


def batches(corpus: PreparedCorpus, processor: Processor, size: int = 4, **changes: int):
    options = {"seed": 3, "reading_threads": 2, **changes}
    windows = training_windows(corpus, processor, SETTINGS, Selection(), options["seed"])
    return training_batches(corpus, windows, processor, SETTINGS, size, **options)


def numbers(batch: dict[str, np.ndarray]) -> list[int]:
    return [round(float(row[0]) / 32768 * 1000) for row in batch["waveform"]]


def test_mixing_is_drawn_anew_for_each_example_but_by_the_seed(corpus: PreparedCorpus, processor: Processor) -> None:
    def add_draw(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return np.full_like(samples, generator.uniform(0.1, 0.9))

    settings = replace(SETTINGS, mixer=add_draw)

    def drawn(seed: int) -> list[int]:
        windows = training_windows(corpus, processor, settings, Selection(), seed)
        iterator = training_batches(corpus, windows, processor, settings, 4, seed, reading_threads=2)
        return [int(row[0]) for _ in range(2 * COUNT // 4) for row in next(iterator)["waveform"]]

    draws = drawn(3)
    assert draws == drawn(3) != drawn(4)
    assert len(set(draws)) > 0.9 * len(draws), "over two epochs"


def test_every_epoch_holds_every_segment_once_in_a_new_order(corpus: PreparedCorpus, processor: Processor) -> None:
    iterator = batches(corpus, processor, size=1)
    epochs = [[numbers(next(iterator))[0] for _ in range(COUNT)] for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
    assert epochs[0] != epochs[1] != epochs[2]


def test_same_seed_same_batches(corpus: PreparedCorpus, processor: Processor) -> None:
    first, second, other = (batches(corpus, processor, seed=seed) for seed in (3, 3, 4))
    ours, theirs, others = ([next(one) for _ in range(4)] for one in (first, second, other))
    for left, right in zip(ours, theirs, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])
    assert [numbers(batch) for batch in ours] != [numbers(batch) for batch in others]


@pytest.mark.parametrize("threads", [1, 4])
def test_resumes_exactly_at_any_batch(corpus: PreparedCorpus, processor: Processor, threads: int) -> None:
    whole = batches(corpus, processor)
    for done in range(12):
        wanted = next(whole)
        resumed = next(batches(corpus, processor, reading_threads=threads, first_example=4 * done))
        for name, array in resumed.items():
            np.testing.assert_array_equal(array, wanted[name])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_every_batch(corpus: PreparedCorpus, processor: Processor, count: int) -> None:
    """Whatever their number, they read the same examples with the same draws, and resume from any other number."""
    alone = batches(corpus, processor)
    together = [batches(corpus, processor, share=(number, count)) for number in range(count)]
    seen: Counter[int] = Counter()
    for done in range(COUNT):
        wanted = next(alone)
        resumed = [batches(corpus, processor, share=(number, count), first_example=4 * done) for number in range(count)]
        for shares in (together, resumed):
            parts = [next(share) for share in shares]
            for name, array in wanted.items():
                joined = np.stack([part[name] for part in parts], axis=1).reshape(array.shape)
                np.testing.assert_array_equal(joined, array)
        seen.update(numbers(wanted))
    assert seen == Counter(dict.fromkeys(range(COUNT), 4))


def test_arrays_of_an_example(corpus: PreparedCorpus, processor: Processor) -> None:
    batch = next(batches(corpus, processor))
    assert batch["waveform"].shape == (4, 16000)
    assert batch["waveform"].dtype == np.int16
    assert batch["tokens"].shape == batch["targets"].shape == batch["is_target"].shape == (4, 24)
    assert batch["context_ids"].shape == batch["context_mask"].shape == (4, 12)
    for row, number in enumerate(numbers(batch)):
        duration = corpus.segments[number].duration
        assert batch["seconds"][row] == pytest.approx(duration)
        assert np.count_nonzero(batch["waveform"][row]) in (0, round(16000 * duration))
        said = batch["targets"][row][batch["is_target"][row]]
        assert processor.tokens.decode(said) == corpus.segments[number].text
        assert said[-1] == processor.tokens.end_of_text
        # The decoder reads what it has said so far, one step later.
        np.testing.assert_array_equal(batch["tokens"][row][np.flatnonzero(batch["is_target"][row])[1:]], said[:-1])


@pytest.mark.parametrize("timestamps", [0.0, 1.0])
def test_windows_are_continuous_and_drawn_anew(corpus: PreparedCorpus, processor: Processor, timestamps: float) -> None:
    """Every utterance once an epoch, with the pauses between them as they are in the recording."""
    settings = replace(SETTINGS, timestamps=timestamps, max_target_tokens=60)
    wide = replace(processor, window_samples=40_000)
    windows = training_windows(corpus, wide, settings, Selection(), 3)
    batches = training_batches(corpus, windows, wide, settings, 1, 3, reading_threads=1)
    boundaries, sizes = [], Counter()
    for _ in range(3):
        seen: list[int] = []
        begins = []
        while len(seen) < COUNT:
            batch = next(batches)
            said = batch["targets"][0][batch["is_target"][0]]
            numbers = [int(word) for word in wide.tokens.decode(said).split() if word.isdigit()]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            lengths = [round(16000 * (0.5 + number / 100)) for number in numbers]
            pause = np.zeros(round(PAUSE * 16000), np.int16)
            parts = [np.full(n, round(k / 1000 * 32768), np.int16) for n, k in zip(lengths, numbers, strict=True)]
            sound = np.concatenate([one for part in parts for one in (part, pause)][:-1])
            np.testing.assert_allclose(batch["waveform"][0][: len(sound)], sound, atol=1)
            assert not batch["waveform"][0][len(sound) :].any()
            assert batch["seconds"][0] == pytest.approx(len(sound) / 16000, abs=1e-3)
            if timestamps:
                times = [(one - wide.tokens.first_timestamp) * 0.02 for one in said if wide.tokens.is_timestamp(one)]
                starts = np.cumsum([0, *(n / 16000 + PAUSE for n in lengths[:-1])])
                ends = starts + np.array(lengths) / 16000
                assert times == pytest.approx(np.stack([starts, ends], axis=1).ravel().tolist(), abs=0.011)
            begins.append(numbers[0])
            sizes[len(numbers)] += 1
            seen += numbers
        assert sorted(seen) == list(range(COUNT))
        boundaries.append(sorted(begins))
    assert boundaries[0] != boundaries[1] != boundaries[2]
    assert max(sizes) == 3, "as many as there is room for"


@pytest.mark.parametrize(("longest", "positions"), [(60, 14), (60, 448), (24, 448)])
def test_text_before_stands_in_the_prompt_as_whisper_decodes_it(
    corpus: PreparedCorpus, processor: Processor, longest: int, positions: int
) -> None:
    """The prompt is that of openai-whisper, of the whole text before, of half of the positions, or of what the target
    leaves room for; what is to be said is the same as without."""
    decoding = pytest.importorskip("whisper.decoding")
    tokens = processor.tokens
    settings = replace(SETTINGS, max_target_tokens=longest, max_previous_tokens=positions // 2 - 1)

    def batch(share: float):
        told = replace(settings, previous_text=share)
        windows = training_windows(corpus, processor, told, Selection(), 3)
        return next(training_batches(corpus, windows, processor, told, 16, seed=3, reading_threads=1))

    plain, drawn, told = batch(0), batch(0.5), batch(1)
    have = 0
    for row, number in enumerate(numbers(plain)):
        said = plain["targets"][row][plain["is_target"][row]]
        for one in (drawn, told):
            np.testing.assert_array_equal(one["targets"][row][one["is_target"][row]], said)
        start = np.flatnonzero(plain["is_target"][row])[0] + 1
        task = object.__new__(decoding.DecodingTask)
        task.sot_sequence = tuple(plain["tokens"][row][:start].tolist())
        task.n_ctx = min(positions, 2 * (longest - start - len(said) + 1))
        task.tokenizer = SimpleNamespace(encode=tokens.pieces, sot_prev=tokens.id("<|startofprev|>"))
        task.options = SimpleNamespace(prefix=None, prompt=corpus.segments[number].context.previous)
        expected = task._get_initial_tokens() if task.n_ctx > 3 else task.sot_sequence
        given = np.flatnonzero(told["is_target"][row])[0] + 1
        assert tuple(told["tokens"][row][:given].tolist()) == expected
        starts = {one["tokens"][row][0] for one in (drawn, told)}
        have += int(len(starts) > 1)
    assert have, "some of those that have text before them are not told it"


def test_targets_are_padded_to_the_least_length_that_holds_all(corpus: PreparedCorpus, processor: Processor) -> None:
    """In every share of a batch to the same one, after every start, and with the same content as ever."""
    settings = replace(SETTINGS, max_target_tokens=60, previous_text=0.5, target_lengths=(24, 14, 90, 18))

    def started(share=(0, 1), first=0, settings=settings):
        windows = training_windows(corpus, processor, settings, Selection(), 3)
        return training_batches(corpus, windows, processor, settings, 2, 3, 2, share, first)

    whole, padded = started(), started(settings=replace(settings, target_lengths=()))
    shares = [started((number, 2)) for number in range(2)]
    lengths = Counter()
    for step in range(24):
        ours, full = next(whole), next(padded)
        length = ours["tokens"].shape[1]
        lengths[length] += 1
        longest = np.flatnonzero(full["is_target"].any(axis=0))[-1] + 1
        assert longest <= length
        for name, array in full.items():
            cut = array[:, :length] if name in ("tokens", "targets", "is_target") else array
            np.testing.assert_array_equal(ours[name], cut)
        resumed = [next(started(first=2 * step))] if step % 8 == 5 else []
        for one in [*map(next, shares), *resumed]:
            assert one["tokens"].shape[1] == length
    assert set(lengths) <= {14, 18, 24, 60}
    assert len(lengths) > 2


def test_speed_perturbation_never_outgrows_the_window(corpus: PreparedCorpus, processor: Processor) -> None:
    slow = replace(SETTINGS, speed=(0.5, 1.3))
    windows = training_windows(corpus, processor, slow, Selection())
    batch = next(training_batches(corpus, windows, processor, slow, 64, seed=0, reading_threads=1))
    assert batch["seconds"].max() <= processor.window_seconds + 1e-6
    durations = {round(corpus.segments[place].duration, 6) for place in corpus.positions("train")}
    assert not {round(float(seconds), 6) for seconds in batch["seconds"]} & durations
    # What is not silence lasts as long as is said.
    for row, seconds in zip(batch["waveform"], batch["seconds"], strict=True):
        assert np.flatnonzero(row).size in (0, pytest.approx(16000 * seconds, abs=3))


def test_targets_are_shifted_and_the_prompt_is_not_learned() -> None:
    arrays = target_arrays([1, 2, 3], [10, 11, 12], length=7, padding=0)
    assert arrays["tokens"].tolist() == [1, 2, 3, 10, 11, 0, 0]
    assert arrays["targets"].tolist() == [2, 3, 10, 11, 12, 0, 0]
    assert arrays["is_target"].tolist() == [False, False, True, True, True, False, False]


def test_what_does_not_fit_is_left_out(corpus: PreparedCorpus, processor: Processor) -> None:
    segment = corpus.segments[0]
    needed = len(processor.tokens.prompt("en", True) + processor.tokens.transcript(segment.utterances, True))
    for length, answer in ((needed, True), (needed - 2, False)):
        assert fits(segment, processor, ExampleSettings(length, 12, ContextProbabilities(), 0.5)) is answer
    short = Processor(processor.tokens, processor.context_tokenizer, 80, window_samples=4000)
    assert not fits(segment, short, SETTINGS)


def test_contexts_have_fixed_shape_and_empty_ones_no_position(processor: Processor) -> None:
    ids, mask = processor.context(["the sea", "", " the" * 50], 8)
    assert mask.sum(axis=1).tolist() == [4, 0, 8]
    assert ids[0, :4].tolist() == processor.context_tokenizer.encode("the sea")
    assert ids[2, -1] == processor.context_tokenizer.get_vocab()["[SEP]"]
