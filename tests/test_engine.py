"""The engine: recordings in shared batches come out as each alone, end at any window, and survive a lack of memory."""

import gc
import logging
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from references import wide_parameters
from test_batched import PLAIN, RATE, talk
from test_contexts import model  # noqa: F401
from test_transcriber import text_only

from cwjax.errors import CwjaxError
from cwjax.inference.audio import Recording
from cwjax.inference.engine import WindowJob, WindowResult, _worth_filling
from cwjax.inference.options import DecodingOptions
from cwjax.inference.segments import DecodedWindow, cut_into_segments
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcript import Transcript, Word
from cwjax.inference.transcription import Event, Request, Transcription
from cwjax.models.parameters import merge

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONTEXTS = ["they sail on the sea.", "", "the wind", "a bear is bare in the forest. names: market, sail"]


@pytest.fixture(scope="module")
def transcriber(model) -> Transcriber:  # noqa: F811
    return Transcriber(model.config, wide_parameters(model.config), model.processor)


def requests_of(transcriber: Transcriber, count: int) -> list[Request]:
    """Recordings of unlike length, each with a context and options of its own."""
    random = np.random.default_rng(3)
    plain = text_only(transcriber)
    kinds = [
        plain,
        replace(plain, independent_windows=True, compression_ratio_threshold=1.0, temperature=(0.0, 0.4)),
        replace(plain, condition_on_previous_text=False, context_scale=1.5),
    ]
    return [
        Request(
            talk((0.3, 0), (random.uniform(0.3, 5), 0.3), (0.8, 0), (random.uniform(0.2, 2), 0.2), noise=0.002),
            CONTEXTS[number % len(CONTEXTS)],
            kinds[number % len(kinds)],
            name=str(number),
        )
        for number in range(count)
    ]


def collect(events) -> tuple[dict[str, Transcript], dict[str, list[Event]]]:
    by_name: dict[str, list[Event]] = {}
    for event in events:
        assert event.error is None, event.error
        by_name.setdefault(event.request.name, []).append(event)
    return {name: some[-1].transcript for name, some in by_name.items()}, by_name


def tokens_of(transcript: Transcript) -> list:
    return [(one.id, one.seek, one.start, one.end, one.tokens) for one in transcript.segments]


def test_twenty_recordings_at_once_are_those_of_each_alone(transcriber: Transcriber) -> None:
    requests = requests_of(transcriber, 20)
    together, events = collect(transcriber.stream_many(requests, batch_size=4))
    assert len(together) == 20
    for request in requests:
        alone = transcriber.transcribe(request.audio, request.context, request.options, batch_size=1)
        assert tokens_of(together[request.name]) == tokens_of(alone)
        assert together[request.name].text == alone.text
        own = events[request.name]
        segments = [event.segment for event in own if event.segment is not None]
        assert segments == list(together[request.name].segments), "what was told on the way is what comes out"
        assert [event.done for event in own] == sorted(event.done for event in own)
        assert own[-1].done == own[-1].total > 0


def test_segments_come_as_soon_as_they_are_known(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_windows(transcriber, monkeypatch)
    request = Request(talk((12, 0.3), noise=0.002), "the wind", text_only(transcriber))
    events = transcriber.stream_many([request], threaded=False)
    for number in range(1, 5):
        assert next(event.segment for event in events if event.segment is not None).id == number - 1
        assert len(decoded) == number
    events.close()


def count_windows(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are decoded from now on."""
    sizes: list[int] = []
    decode = transcriber.programs.decode

    def counting(encoded, starts, *others):
        sizes.append(len(starts))
        return decode(encoded, starts, *others)

    monkeypatch.setattr(transcriber.programs, "decode", counting)
    return sizes


def test_cancelling_at_any_moment_ends_within_a_window(transcriber: Transcriber, monkeypatch) -> None:
    random = np.random.default_rng(5)
    options = text_only(transcriber)
    decoded = count_windows(transcriber, monkeypatch)
    kept = []
    for _ in range(50):
        recording = Recording(talk((12, 0.3), noise=0.002))
        kept.append(weakref.ref(recording))
        stream = transcriber.stream(recording, "the wind", options)
        for _ in range(int(random.integers(4))):
            next(stream)
        stream.close()
        before = len(decoded)
        thread = transcriber.engine._thread
        if thread is not None:
            thread.join()
        assert len(decoded) <= before + 1
        del recording, stream
    gc.collect()
    assert not any(one() is not None for one in kept), "a cancelled recording stays in memory"


def test_one_that_fails_leaves_the_others_alone(transcriber: Transcriber) -> None:
    plain = text_only(transcriber)
    sound = talk((2, 0.3), noise=0.002)
    requests = [
        Request(sound, "", plain, "good"),
        Request("nothing.wav", "", plain, "missing"),
        Request(sound, "", replace(plain, language="klingon"), "unknown"),
        Request(sound, "", replace(plain, suppress_tokens=(10**6,)), "impossible"),
        Request(sound, "", plain, "good too"),
    ]
    last = {event.request.name: event for event in transcriber.stream_many(requests, batch_size=4) if event.is_last}
    assert all(isinstance(last[name].error, CwjaxError) for name in ("missing", "unknown", "impossible"))
    assert last["good"].transcript == last["good too"].transcript


def test_a_lack_of_memory_halves_the_batch(transcriber: Transcriber, monkeypatch, caplog) -> None:
    options = replace(text_only(transcriber), independent_windows=True)
    samples = talk(*[(1, 0.3), (0.8, 0)] * 8, noise=0.002)
    expected = transcriber.transcribe(samples, "", options, batch_size=1)
    sizes, decode = [], transcriber.programs.decode

    def short_of_memory(encoded, starts, *others):
        sizes.append(len(starts))
        if len(starts) > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
        return decode(encoded, starts, *others)

    monkeypatch.setattr(transcriber.programs, "decode", short_of_memory)
    engine = transcriber.engine
    try:
        with caplog.at_level(logging.WARNING):
            found = transcriber.transcribe(samples, "", options, batch_size=8)
        assert tokens_of(found) == tokens_of(expected)
        assert sizes[:3] == [8, 4, 2]
        assert max(sizes[3:]) == 2
        assert "going on with 4" in caplog.text
        assert "going on with 2" in caplog.text
        monkeypatch.setattr(transcriber.programs, "decode", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(CwjaxError, match="out of memory with a single window: use a smaller model"):
            transcriber.transcribe(samples, "", options)
    finally:
        engine._most_windows = 1 << 30


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_no_batch_is_larger_than_asked_for(transcriber: Transcriber, monkeypatch, batch_size: int) -> None:
    """Not where windows are decoded again, either."""
    sizes = count_windows(transcriber, monkeypatch)
    options = replace(
        text_only(transcriber), independent_windows=True, compression_ratio_threshold=0.0, temperature=(0.0, 0.5)
    )
    transcriber.transcribe(talk(*[(1, 0.3), (0.8, 0)] * 7, noise=0.002), "", options, batch_size=batch_size)
    assert max(sizes) <= batch_size
    assert len(sizes) > 7 / batch_size


@pytest.mark.parametrize(
    ("windows", "taken"), [(1, 1), (2, 2), (3, 3), (5, 4), (6, 6), (8, 8), (9, 8), (11, 8), (12, 12)]
)
def test_batches_are_filled_up_with_little(windows: int, taken: int) -> None:
    assert _worth_filling(windows) == taken


def test_threads_share_batches(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    options = text_only(transcriber)
    samples = [talk((4, 0.3 - 0.05 * number), noise=0.002) for number in range(4)]
    expected = [transcriber.transcribe(some, "", options) for some in samples]
    sizes = count_windows(transcriber, monkeypatch)
    found: dict[int, Transcript] = {}

    def work(number: int) -> None:
        found[number] = transcriber.transcribe(samples[number], "", options)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tokens_of(found[number]) for number in range(4)] == [tokens_of(one) for one in expected]
    assert max(sizes) > 1


class Scripted:
    """Stands in for the engine: tells a transcription what each of its windows says."""

    def __init__(self, transcriber: Transcriber, samples: np.ndarray, options: DecodingOptions):
        self.tokens = transcriber.programs.tokens
        self.events: list[Event] = []
        self.spotted: list[list[Word]] = []
        recording = Recording.open(samples)
        programs = SimpleNamespace(
            frames=3000, tokens=self.tokens, longest_previous=200, max_log_mel=lambda recording: 0.0
        )
        contexts = SimpleNamespace(encode=lambda text: None)
        self.work = Transcription(Request(samples), recording, programs, contexts, None, options, self.events.append, 4)

    def run(self, *windows: list[float | str]) -> Transcript:
        """Each window's timestamps and texts."""
        self.asked: list[WindowJob] = []
        for said in windows:
            job, *_ = self.work.jobs()
            self.asked.append(job)
            tokens = []
            for one in said:
                tokens += [self.tokens.timestamp(one)] if isinstance(one, float) else self.tokens.encode(one)
            window = DecodedWindow(tuple(tokens), "", -0.1, 0.0, 0.0)
            cut = cut_into_segments(window, self.tokens, job.seek, job.frames)
            cut = cut.closed() if job.closed else cut
            spotted = self.spotted.pop(0) if self.spotted else ()
            self.work.receive(
                job, SimpleNamespace(language="en", window=window, cut=cut, alignment=None, spotted=spotted)
            )
        assert not self.work.jobs()
        return self.events[-1].transcript


@pytest.mark.parametrize("mode", [{"independent_windows": True}, {"vad": "energy"}])
@pytest.mark.parametrize("end", [[4.0, 4.0], [4.0]])
def test_what_a_model_stops_before_is_decoded_again(transcriber: Transcriber, mode: dict, end: list[float]) -> None:
    """Two speakers with a pause, in one window: the model writes down the first and ends."""
    samples = talk((0.5, 0), (3.5, 0.3), (2, 0), (4, 0.2), (1, 0))
    script = Scripted(transcriber, samples, DecodingOptions(language="en", **mode))
    transcript = script.run([0.0, "the first", *end], [0.3, "the second", 4.2, 4.2])
    assert [segment.text for segment in transcript.segments] == [" the first", " the second"]
    first, second = transcript.segments
    assert first.end < 5 < second.start < second.end <= 10.2


def test_a_phrase_is_told_once_where_windows_overlap(transcriber: Transcriber) -> None:
    """The first window reaches to 30 s and hears a phrase at 25 s, but the next begins at 20 s and hears it, too."""
    script = Scripted(transcriber, talk((40, 0.3)), DecodingOptions(language="en"))
    script.spotted = [[Word("Ada", 3.0, 4.0, 0.9), Word("Bo", 25.0, 26.0, 0.9)]]
    script.spotted += [[Word("Bo", 5.0, 6.0, 0.8)]]
    transcript = script.run([0.0, "of Ada", 20.0, 20.0], [0.0, "and of Bo", 20.0])
    assert [(phrase.text, phrase.start, phrase.probability) for phrase in transcript.phrases] == [
        ("Ada", 3.0, 0.9),
        ("Bo", 25.0, 0.8),
    ]


def test_times_end_with_the_recording(transcriber: Transcriber) -> None:
    script = Scripted(transcriber, talk((5, 0.3)), DecodingOptions(language="en"))
    transcript = script.run([0.0, "all of it", 9.0])
    assert (transcript.segments[0].end, transcript.duration) == (5.0, 5.0)


def test_what_is_left_out_is_told(transcriber: Transcriber) -> None:
    samples = np.concatenate([talk((2, 0.3)), np.zeros(35 * RATE, np.float32), talk((2, 0.3))])
    script = Scripted(transcriber, samples, DecodingOptions(language="en", independent_windows=True))
    (one, other) = script.work.jobs()
    assert (one.seek, other.seek) == (0, pytest.approx(3680, abs=2))
    assert [(skipped.reason, round(skipped.end - skipped.start)) for skipped in script.work._skipped] == [
        ("no voice activity", 35)
    ]


def test_options_are_checked_by_name(transcriber: Transcriber) -> None:
    with pytest.raises(CwjaxError, match="no option is called beam; DecodingOptions has language, "):
        transcriber.transcribe(talk((1, 0.3)), beam=3)
    plain = transcriber.transcribe(talk((1, 0.3)), "", PLAIN, without_timestamps=True)
    assert plain == transcriber.transcribe(talk((1, 0.3)), "", replace(PLAIN, without_timestamps=True))


def test_languages_are_detected(transcriber: Transcriber) -> None:
    samples = talk((3, 0.3), noise=0.002)
    probabilities = transcriber.detect_language(samples)
    assert set(probabilities) == set(transcriber.programs.tokens.languages)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
    found = transcriber.transcribe(samples, "", replace(text_only(transcriber), language=None))
    assert found.language == next(iter(probabilities))
    assert found.language_probabilities == probabilities
    assert found.duration == 3.0


def test_a_context_without_effect_is_told_once(model, caplog) -> None:  # noqa: F811
    weights = wide_parameters(model.config)
    closed = merge(weights, {"audio_encoder": {"blocks": {"context_gate": np.zeros(2, np.float32)}}})
    transcriber = Transcriber(model.config, closed, model.processor)
    with caplog.at_level(logging.WARNING):
        transcriber.transcribe(talk((1, 0.3)), "", PLAIN)
        assert not caplog.records
        for _ in range(2):
            transcriber.transcribe(talk((1, 0.3)), "they sail", PLAIN)
    assert [record.message for record in caplog.records] == [
        "the model's context attention is untrained (all gates are closed): no context has an effect"
    ]


MINUTE = [[0.0, "of bees", 29.0, 29.0], [0.0, "of honey", 30.0, 30.0], [0.0, "of wax", 1.0]]
"""What three windows of a minute say."""


def test_words_to_expect_stand_before_every_window(transcriber: Transcriber) -> None:
    script = Scripted(transcriber, talk((60, 0.3)), DecodingOptions(language="en", hotwords="Ada, Bo"))
    script.run(*MINUTE)
    first, second, third = (script.tokens.text(job.previous) for job in script.asked)
    assert (first, second, third) == (" Ada, Bo", " Ada, Bo of bees", " Ada, Bo of bees of honey")
    long = Scripted(transcriber, talk((60, 0.3)), DecodingOptions(language="en", hotwords="bees and honey, " * 100))
    long.run(*MINUTE)
    assert {len(job.previous) for job in long.asked} == {200}


def test_a_prefix_begins_the_first_window_alone(transcriber: Transcriber) -> None:
    options = DecodingOptions(language="en", prefix="It is", hotwords="Ada", initial_prompt=(5, 6, 7))
    script = Scripted(transcriber, talk((60, 0.3)), options)
    script.run(*MINUTE)
    assert [script.tokens.text(job.prefix) for job in script.asked] == [" It is", "", ""]
    assert script.asked[0].previous == (5, 6, 7), "words to expect do not go with it"
    cut = Scripted(transcriber, talk((60, 0.3)), replace(options, independent_windows=True))
    assert [bool(job.prefix) for job in cut.work.jobs()] == [True, *[False] * (len(cut.work.jobs()) - 1)]


def test_windows_may_be_shorter_and_of_several_languages(transcriber: Transcriber) -> None:
    options = DecodingOptions(language="en", chunk_length=20, multilingual=True)
    script = Scripted(transcriber, talk((50, 0.3)), options)
    script.run(["one"], ["two"], ["three"])
    assert [(job.seek, job.frames) for job in script.asked] == [(0, 2000), (2000, 2000), (4000, 1000)]
    assert {job.language for job in script.asked} == {None}


@pytest.mark.parametrize(
    ("said", "options", "language", "asked"),
    [
        ([{"de": 0.4}, {"en": 0.9}], {"language_detection_segments": 3}, "en", 2),
        ([{"de": 0.4}, {"en": 0.3}, {"de": 0.3}], {"language_detection_segments": 3}, "de", 3),
        ([{"de": 0.4}], {}, "de", 1),
        ([{"de": 0.4}, {"en": 0.3}], {"language_detection_segments": 9}, "de", 2),
    ],
)
def test_the_language_is_that_of_the_first_certain_window(transcriber, said, options, language, asked) -> None:
    seconds = 30 * len(said) if options.get("language_detection_segments") == 9 else 90
    script = Scripted(transcriber, talk((seconds, 0.3)), DecodingOptions(**options))
    for number, probabilities in enumerate(said):
        (job,) = script.work.jobs()
        assert (job.decoded, job.language, job.seek) == (False, None, 3000 * number)
        script.work.receive(job, WindowResult(next(iter(probabilities)), probabilities))
    (job,) = script.work.jobs()
    assert (job.decoded, job.language, len(said)) == (True, language, asked)


def test_voice_activity_keeps_the_text_before_each_window(transcriber: Transcriber) -> None:
    samples = talk((2, 0.3), (40, 0), (2, 0.3), (10, 0))
    script = Scripted(transcriber, samples, DecodingOptions(language="en", vad="energy"))
    transcript = script.run([0.0, "the first", 2.0], [0.0, "the second", 2.0])
    assert script.tokens.text(script.asked[1].previous) == " the first"
    assert [round(segment.start) for segment in transcript.segments] == [0, 42]
    assert sum(one.end - one.start for one in transcript.skipped) == pytest.approx(50, abs=1)


def test_a_recording_is_looked_through_on_the_thread_that_begins(transcriber: Transcriber, monkeypatch) -> None:
    (request,) = requests_of(transcriber, 1)
    expected = transcriber.transcribe(request.audio, request.context, request.options)
    threads, events, over = [], [], threading.Event()
    look = transcriber.programs.max_log_mel
    monkeypatch.setattr(
        transcriber.programs, "max_log_mel", lambda audio: threads.append(threading.current_thread()) or look(audio)
    )

    def take(event: Event) -> None:
        events.append(event)
        if event.is_last:
            over.set()

    transcriber.start(request, take)
    over.wait()
    assert threads == [threading.current_thread()]
    assert tokens_of(events[-1].transcript) == tokens_of(expected)
