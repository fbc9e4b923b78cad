import importlib
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest

from cwjax.demo.corpus import DemoCorpusSettings
from cwjax.demo.espeak import SAMPLING_RATE, Speech, Voice, phonemes, synthesize
from cwjax.demo.homophones import read_homophones
from cwjax.errors import CwjaxError

pytest.importorskip("espeakng_loader", reason="eSpeak NG comes with the extra `demo`")

ACCENTS = DemoCorpusSettings().accents
PAIRS = read_homophones().pairs
CARRIERS = read_homophones().carriers


def spoken(text: str, speech: Speech) -> list[str]:
    return [text[word.offset : word.offset + word.length] for word in speech.words]


def level(samples: np.ndarray, start: float, end: float) -> float:
    piece = samples[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)].astype(np.float64)
    return float(np.abs(piece).mean())


def test_every_word_is_found_and_the_words_follow_each_other():
    text = "They wrote about the sail again."
    speech = synthesize(text, Voice("en-us", "m3"))
    assert spoken(text, speech) == text.split()
    assert speech.words[0].start < 0.05
    assert speech.words[-1].end == pytest.approx(speech.duration, abs=0.01)
    for word, following in pairwise(speech.words):
        assert word.start < word.end <= following.start


@pytest.mark.parametrize("voice", [Voice("en-us", "m3"), Voice("en", "f3"), Voice("en-gb-x-rp", "m6", 150)])
def test_a_word_changes_the_sound_where_its_time_says(voice):
    """Two sentences that differ in one word have equal samples up to that word and its transition."""
    first = synthesize("They wrote about the sail again.", voice)
    second = synthesize("They wrote about the mail again.", voice)
    length = min(len(first.samples), len(second.samples))
    difference = np.abs(first.samples[:length].astype(int) - second.samples[:length])
    changed = np.flatnonzero(difference > 300)[0] / SAMPLING_RATE
    assert -0.1 < changed - first.words[4].start < 0.05


def test_silence_between_sentences_belongs_to_no_word():
    text = "The plane landed. Nobody noticed."
    speech = synthesize(text, Voice("en-us", "m3"))
    landed, nobody = speech.words[2], speech.words[3]
    assert spoken(text, speech)[2:4] == ["landed.", "Nobody"]
    assert nobody.start - landed.end > 0.15
    loud = level(speech.samples, nobody.start, nobody.end)
    assert level(speech.samples, landed.end + 0.01, nobody.start - 0.01) < 0.02 * loud
    assert level(speech.samples, landed.start, landed.end) > 0.2 * loud


def test_words_that_are_run_together_leave_the_second_untimed():
    text = "It came because of the sail."
    speech = synthesize(text, Voice("en-us", "m3"))
    assert spoken(text, speech) == ["It", "came", "because", "of", "sail."]
    of, sail = speech.words[3:]
    assert 0.02 < sail.start - of.end < 0.2


def test_a_number_has_one_time():
    text = "In 1938 they left."
    speech = synthesize(text, Voice("en-us", "m3"))
    assert spoken(text, speech) == text.split()
    assert speech.words[1].end - speech.words[1].start > 0.8


def test_speed_and_pitch_are_heard():
    def fundamental(speech: Speech) -> float:
        """The strongest frequency of the envelope, which is the frequency of the glottis."""
        envelope = np.abs(speech.samples[: SAMPLING_RATE // 2].astype(np.float64))
        spectrum = np.abs(np.fft.rfft(envelope))
        frequencies = np.fft.rfftfreq(len(envelope), 1 / SAMPLING_RATE)
        return float(frequencies[np.argmax(spectrum * (frequencies > 50) * (frequencies < 350))])

    slow, fast = (synthesize("We saw the moon.", Voice("en-us", "m3", speed_wpm=speed)) for speed in (120, 240))
    assert slow.duration > 1.5 * fast.duration
    low, high = (synthesize("We saw the moon.", Voice("en-us", "m3", pitch=pitch, pitch_range=0)) for pitch in (10, 90))
    assert fundamental(high) > 1.3 * fundamental(low)


@pytest.mark.parametrize("variant", ["m1", "f2", "f5"])
def test_speech_depends_on_its_arguments_alone(variant):
    """These variants use noise and flutter, whose state outlives a sentence inside the library."""
    voice = Voice("en-us", variant)
    first = synthesize("Nobody forgot about the tale.", voice)
    synthesize("Something else was said.", Voice("en", "m2"))
    again = synthesize("Nobody forgot about the tale.", voice)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.words == again.words


@pytest.mark.parametrize("accent", ACCENTS)
def test_both_words_of_every_pair_sound_the_same(accent):
    for pair in PAIRS:
        for carrier in CARRIERS[::6]:
            first, second = (phonemes(carrier.format(word=entry.word), Voice(accent)) for entry in pair)
            assert first == second, pair[0].word
    first, second = (
        synthesize(" ".join(pair[index].word for pair in PAIRS), Voice(accent, "m3")) for index in range(2)
    )
    np.testing.assert_array_equal(first.samples, second.samples)


def test_words_of_different_pairs_sound_different():
    sounds = [phonemes(first.word, Voice("en-us")) for first, _ in PAIRS]
    assert all(first != second for first, second in combinations(sounds, 2))


def test_phonemes_tell_words_apart_that_some_accents_merge():
    assert phonemes("which", Voice("en-us")) == phonemes("witch", Voice("en-us"))
    assert phonemes("whale", Voice("en-gb-scotland")) != phonemes("wail", Voice("en-gb-scotland"))


@pytest.mark.parametrize(
    ("voice", "message"),
    [(Voice("en-moon"), "en-moon"), (Voice("en-us", "nobody"), "nobody"), (Voice("en-us", "../../en_dict"), "variant")],
)
def test_an_unknown_voice_is_refused(voice, message):
    with pytest.raises(CwjaxError, match=message):
        synthesize("Hello.", voice)


def test_a_text_without_sound_is_refused():
    with pytest.raises(CwjaxError, match="letters"):
        synthesize(" ", Voice())


def test_without_espeak_the_error_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    importlib.invalidate_caches()
    with pytest.raises(CwjaxError, match=r"pip install 'cwjax\[demo\]'"):
        synthesize("Hello.", Voice())
