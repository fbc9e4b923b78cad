"""A phrase spotter learns, from sound that is simple enough to learn within seconds; its speech; its files."""

import dataclasses
import json
import random
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import soundfile
import soxr
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.evaluation.spotting import calibrate, measure
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig, detect, encode_phrases
from cwjax.spotting import batches as spotter_batches
from cwjax.spotting import speech as spotter_speech
from cwjax.spotting.batches import BatchSettings, batches, look_alikes
from cwjax.spotting.mixing import draw_mixture, mix
from cwjax.spotting.speech import Sentence, SpeechSettings, make_window, vocabulary
from cwjax.spotting.spoken_sentences import SpokenSentence, spoken_sentences
from cwjax.spotting.states import EncodedWindow, encoded_windows
from cwjax.training.spotter import SpotterTraining, fit, mixed_batches
from cwjax.weights import spotter_files
from cwjax.weights.spotter_files import encoder_sha256, load_spotter, save_spotter

pytestmark = pytest.mark.usefixtures("quick_compilation")

WIDTH = 24
TEN = ("gutenberg", "schoeffer", "fust", "pannartz", "sweynheym", "subiaco", "missal", "psalter", "mentelin", "jenson")
OTHERS = ("gutenburg", "schaffer", "faust", "panniers", "swaying", "bianco", "missile", "salter", "mandolin", "johnson")


def sound_of(text: str, chance: np.random.Generator) -> np.ndarray:
    """States in which every letter sounds for four positions as it always does, and a little noise."""
    letters = np.random.default_rng(0).normal(size=(128, WIDTH))
    states = np.repeat([letters[ord(letter)] for letter in text], 4, axis=0)
    return (states + 0.3 * chance.normal(size=states.shape)).astype(np.float16)


def window_of(words: list[str], chance: np.random.Generator, positions: int = 200) -> EncodedWindow:
    text = " ".join(words)
    states = sound_of(text.ljust(positions // 4)[: positions // 4], chance)
    return EncodedWindow(states, (Sentence(text, 0.0, len(text) * 0.08, tuple(words), "none"),))


@pytest.fixture(scope="module")
def windows() -> list[EncodedWindow]:
    chance = np.random.default_rng(2)
    return [window_of([TEN[number % 10], TEN[(number * 3 + 1) % 10]], chance) for number in range(40)]


@pytest.fixture(scope="module")
def trained(windows) -> PhraseSpotter:
    settings = SpotterTraining(
        size=SpotterConfig(audio_width=WIDTH, width=16, hidden=32, text_layers=1, text_kernel=3),
        steps=120,
        batch=BatchSettings(slices=8, slice_seconds=4.0, phrases=3),
        learning_rate=5e-3,
        dropout=0.0,
    )
    spotter = PhraseSpotter(settings.size, key=jax.random.key(0))
    loss = fit(spotter, batches(windows, TEN + OTHERS, settings.batch, settings.size.rows, 0), settings)
    assert np.isfinite(loss)
    calibrate(spotter, windows[:20], OTHERS, 0)
    return spotter


def test_ten_phrases_are_learned_in_seconds(trained, windows):
    untrained = PhraseSpotter(trained.config, key=jax.random.key(0))
    before, after = (measure(spotter, windows[20:], OTHERS, 1) for spotter in (untrained, trained))
    assert after["recall in 5 of 100"] > 0.95 > before["recall in 5 of 100"]


def test_said_phrases_are_likely_where_they_are_said(trained, windows):
    probability, start, end = map(
        np.asarray, detect(nnx.split(trained), jnp.asarray(windows[0].states[None]), encode_phrases(trained, TEN))
    )
    said = [TEN.index(phrase) for phrase in windows[0].sentences[0].phrases]
    assert probability[0, said].min() > np.delete(probability[0], said).max()
    at = 0.0
    for phrase, column in zip(windows[0].sentences[0].phrases, said, strict=True):
        assert start[0, column] < at + 0.08 * len(phrase)
        assert end[0, column] > at - 0.16
        at += 0.08 * (len(phrase) + 1)


def test_look_alikes_look_alike_and_sound_different():
    found = look_alikes("schaffer", ("Shaffer", "Schoeffer", "Umbrella", "Schaffner", "Whale", "Table", "Ocean"))
    assert "schaffner" in found
    assert "shaffer" not in found  # spoken like "Schaffer"
    for word, other in (("Meyer", "Maier"), ("Philipp", "Filip"), ("Wagner", "Vagner"), ("Zoë", "Soe"), ("Jan", "Ian")):
        assert spotter_batches._sound_alike(word, other)
    for word, other in (("Schoeffer", "Schonfer"), ("Fust", "Fusk"), ("Anna", "Ada")):
        assert not spotter_batches._sound_alike(word, other)


def test_windows_are_mixed_of_sentences_as_drawn():
    """Against a sum of resampled sentences, where there is neither noise nor room."""
    times = np.arange(48_000) / 16_000
    tones = [np.sin(2 * np.pi * hertz * times) * np.hanning(48_000) for hertz in (220, 700)]
    samples = np.concatenate([np.round(8000 * tone).astype(np.int16) for tone in tones])
    spoken = [SpokenSentence(f"tone {n}", ("tone",), "v", 48_000 * n, 48_000) for n in range(2)]
    settings = SpeechSettings(noise_share=0.0, room_share=0.0, no_speech_share=0.0, speed=(0.8, 1.2))
    mixture, windows = draw_mixture(spoken, settings, 3, 12.0, random.Random(1))
    mixture = mixture._replace(tilt=np.zeros(3, np.float32), highest=np.full(3, 8001.0, np.float32))
    mixed = np.asarray(mix(jnp.asarray(samples), mixture, jax.random.key(0), 192_000))
    said = 0
    for row, window in enumerate(windows):
        expected = np.zeros(192_000)
        for column in np.flatnonzero(mixture.gain[row]):
            number = mixture.first[row, column] // 48_000
            played = soxr.resample(
                samples[48_000 * number :][:48_000] / 32768, 16_000 * mixture.speed[row, column], 16_000
            )
            start = mixture.place[row, column]
            played = played[: max(0, 192_000 - start)] * mixture.gain[row, column]
            expected[start : start + len(played)] += played
        np.testing.assert_allclose(mixed[row], expected, atol=0.004)
        for sentence in window.sentences:
            column = int(np.argmin(np.abs(mixture.place[row] - 16_000 * sentence.start)))
            assert spoken[mixture.first[row, column] // 48_000].text == sentence.text
            assert sentence.end - sentence.start == pytest.approx(3 / mixture.speed[row, column])
            said += 1
        assert window.states[[0, -1]].tolist() == [[row, 0], [row, 599]]
    assert said >= 3
    quiet = mixture._replace(noise=np.full(3, 0.1, np.float32))
    noise = np.asarray(mix(jnp.asarray(samples), quiet, jax.random.key(0), 192_000)) - mixed
    ratios = 10 * np.log10(np.square(mixed).sum(axis=1) / np.square(noise).sum(axis=1))
    np.testing.assert_allclose(ratios, 20, atol=1.5)


def test_batches_of_mixed_windows_follow_from_the_seed(words, tmp_path):
    speech = SpeechSettings(words=str(words), train_voices=("espeak",), no_speech_share=0.0)
    spoken = spoken_sentences(tmp_path / "s", speech, 50, 0)
    again = spoken_sentences(tmp_path / "s", speech, 50, 0)
    np.testing.assert_array_equal(spoken.samples, again.samples)
    assert spoken.sentences == again.sentences
    assert len(spoken.sentences) == 50
    settings = SpotterTraining(speech=speech, batch=BatchSettings(slices=6, slice_seconds=3.0, phrases=4), sentences=50)

    def encode(samples):
        return samples[:, : 50 * 12 * 4].reshape(len(samples), -1, 4)

    vocabulary_of_training = vocabulary(str(words))["train"]
    made = mixed_batches(spoken, vocabulary_of_training, settings, 12.0, encode)
    first, second = next(made), next(made)
    assert first.states.shape == (6, 150, 4)
    assert first.said.any()
    assert not np.array_equal(first.states, second.states)
    other = next(mixed_batches(spoken, vocabulary_of_training, settings, 12.0, encode))
    np.testing.assert_array_equal(first.states, other.states)
    np.testing.assert_array_equal(first.ids, other.ids)
    made.close()


@pytest.fixture
def words(tmp_path):
    chance = random.Random(0)
    words = {"".join(chance.choice("bdfgklmn") + chance.choice("aeiou") for _ in range(3)) for _ in range(400)}
    file = tmp_path / "words.txt"
    file.write_text("\n".join([*sorted(words), "", "Bafala", "bafala"]))
    return file


def test_no_word_and_no_voice_is_in_two_splits(words):
    splits = vocabulary(str(words))
    folded = [{word.casefold() for word in one} for one in splits.values()]
    assert sum(map(len, folded)) == len(set.union(*folded)) == sum(map(len, splits.values()))
    for table in (spotter_speech._VARIANTS, spotter_speech._SENTENCES):
        assert not set(table["train"]) & set(table["test"])
        assert not set(table["train"]) & set(table["validation"])
        assert not set(table["validation"]) & set(table["test"])


def test_windows_follow_from_the_seed_and_say_their_sentences(words):
    settings = SpeechSettings(words=str(words), test_voices=("espeak",), no_speech_share=0.0)
    first, again, other = (make_window(settings, "test", 12.0, seed) for seed in ("1", "1", "2"))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.sentences == again.sentences != other.sentences
    assert first.samples.shape == (12 * 16000,)
    assert first.sentences
    assert all(phrase in one.text for one in first.sentences for phrase in one.phrases)
    assert all(one.end < other.start for one, other in pairwise(first.sentences))


def test_windows_without_speech(words):
    settings = SpeechSettings(words=str(words), no_speech_share=1.0)
    windows = [make_window(settings, "train", 3.0, str(seed)) for seed in range(12)]
    assert not any(window.sentences for window in windows)
    assert any(not window.samples.any() for window in windows)
    assert all(np.isfinite(window.samples).all() and np.abs(window.samples).max() <= 1.5 for window in windows)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """In the place of flite and RHVoice, programs that beep and note what they are told."""
    soundfile.write(tmp_path / "beep.wav", np.sin(np.arange(24000) / 10), 24000)
    for name in ("flite", "RHVoice-test"):
        lines = (
            *("#!/bin/sh", f'echo "$@ $(/bin/cat)" >> {tmp_path}/told', 'while [ "$1" != -o ]; do shift; done'),
            f'/bin/cp {tmp_path}/beep.wav "$2"',
        )
        (tmp_path / name).write_text("\n".join(lines))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    spotter_speech.cast.cache_clear()
    yield tmp_path / "told"
    spotter_speech.cast.cache_clear()


def test_voices_speak_as_often_as_they_are_told_to(words, programs):
    voices = ("espeak=0.5", "flite:rms=2", "rhvoice:alan", "rhvoice:bdl=0")
    settings = SpeechSettings(words=str(words), train_voices=("espeak",), test_voices=voices, no_speech_share=0.0)
    said = [one for seed in range(8) for one in make_window(settings, "test", 30.0, str(seed)).sentences]
    heard = Counter("espeak" if "+" in one.voice else one.voice for one in said)
    assert set(heard) == {"espeak", "flite:rms", "rhvoice:alan"}
    assert heard["flite:rms"] > heard["rhvoice:alan"] > heard["espeak"]
    for one in said:
        assert "+" in one.voice or 1 / 1.12 < one.end - one.start < 1 / 0.88 + 0.01  # a second at some speed
    told = programs.read_text()
    for voice in ("-voice rms", "-p alan"):
        assert voice in told
    assert all(one.text in told for one in said if "+" not in one.voice)


def test_a_sentence_that_a_voice_does_not_say_is_left_out(words, programs):
    soundfile.write(programs.with_name("beep.wav"), np.zeros(0), 24000)
    settings = SpeechSettings(words=str(words), test_voices=("flite:rms", "espeak"), no_speech_share=0.0)
    window = make_window(settings, "test", 30.0, "1")
    assert programs.exists()
    assert window.sentences
    assert all("+" in one.voice for one in window.sentences)


def test_voices_without_a_program_are_left_out_and_told_of(words, programs, caplog):
    settings = SpeechSettings(words=str(words), test_voices=("flite:rms", "pico:en-GB"))
    assert spotter_speech.cast(settings, "test") == {"flite:rms": 1.0}
    assert "pico:en-GB does not speak" in caplog.text
    with pytest.raises(CwjaxError, match="none of its voices is installed"):
        spotter_speech.cast(dataclasses.replace(settings, test_voices=("pico:en-GB",)), "test")


def test_no_two_splits_share_a_voice(programs):
    settings = SpeechSettings(test_voices=("espeak", "flite:slt=2"))
    assert "flite:slt" in spotter_speech.cast(SpeechSettings(), "train")
    for split in ("train", "test"):
        with pytest.raises(CwjaxError, match="flite:slt: speaks in"):
            spotter_speech.cast(settings, split)


@pytest.mark.parametrize("voice", ["", "flite", "flite:", "siri:one", "espeak:m1", "espeak=", "espeak=-1", "espeak=x"])
def test_a_voice_that_cannot_be_read_is_a_plain_line(voice):
    with pytest.raises(CwjaxError, match="is no voice; write"):
        spotter_speech.cast(SpeechSettings(test_voices=(voice,)), "test")


def test_a_voice_that_is_not_installed_is_a_plain_line(words, programs, tmp_path):
    for voice, cure in (
        ("flite:rms", "install the voice"),
        (f"piper:{tmp_path}/none.onnx", "fetch it again|pip install"),
    ):
        (tmp_path / "flite").write_text("#!/bin/sh\nexit 1\n")
        settings = SpeechSettings(words=str(words), test_voices=(voice,), no_speech_share=0.0)
        with pytest.raises(CwjaxError, match=cure):
            make_window(settings, "test", 3.0, "1")


@pytest.fixture
def piper(tmp_path, monkeypatch):
    """A voice of piper whose network only makes noise, half a second times the slowness, from the process's seed."""
    seeds = []

    class Session:
        def __init__(self, file, options, providers):
            self.noise = np.random.default_rng(seeds.pop() if seeds else None)

        def run(self, names, inputs):
            assert inputs["input"].shape == (1, inputs["input_lengths"][0])
            return [self.noise.normal(size=(1, 1, round(11025 * inputs["scales"][1]))).astype(np.float32)]

    runtime = SimpleNamespace(InferenceSession=Session, SessionOptions=SimpleNamespace, set_seed=seeds.append)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    facts = {
        "phoneme_id_map": {sound: [number] for number, sound in enumerate("^_$abdefiklmnoɡ.")},
        "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "audio": {"sample_rate": 22050},
    }
    (tmp_path / "ada=1.onnx.json").write_text(json.dumps(facts))
    return tmp_path / "ada=1.onnx"


def test_pipers_noise_follows_from_the_seed(words, piper):
    settings = SpeechSettings(words=str(words), test_voices=(f"piper:{piper}=0.3",), no_speech_share=0.0)
    first, other, again = (make_window(settings, "test", 10.0, seed) for seed in ("1", "2", "1"))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert not np.array_equal(first.samples, other.samples)
    assert {one.voice for one in first.sentences} == {"piper:ada=1"}
    lengths = [one.end - one.start for one in first.sentences]
    assert len({round(length, 3) for length in lengths}) > 2
    assert all(0.5 * 0.85 / 1.13 < length < 0.5 * 1.15 / 0.87 for length in lengths)


def test_hibari_speaks_from_the_seed(words, monkeypatch):
    class Hibari:
        sample_rate = 24000

        def __init__(self, voice):
            if voice != "heart":
                raise RuntimeError("no network")

        def __call__(self, text, seed):
            return np.random.default_rng(seed).normal(size=12000).astype(np.float32)

    monkeypatch.setitem(sys.modules, "hibari", SimpleNamespace(Hibari=Hibari))
    spotter_speech._hibari.cache_clear()
    settings = SpeechSettings(words=str(words), test_voices=("hibari:heart",), no_speech_share=0.0)
    first, again = (make_window(settings, "test", 5.0, "1") for _ in range(2))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert {one.voice for one in first.sentences} == {"hibari:heart"}
    with pytest.raises(CwjaxError, match=r"no network.*comes with the package"):
        make_window(dataclasses.replace(settings, test_voices=("hibari:emma",)), "test", 5.0, "1")
    spotter_speech._hibari.cache_clear()


def test_kokoro_speaks_from_its_folder(words, tmp_path, monkeypatch):
    spoken = []

    class Kokoro:
        def __init__(self, network, voices):
            self.files = Path(network).name, Path(voices).name

        def create(self, text, voice, lang):
            if voice == "bf_nobody":
                raise ValueError(f"Voice {voice} not found in available voices")
            spoken.append((*self.files, voice, lang))
            return np.sin(np.arange(12000, dtype=np.float32)), 24000

    def window(voice: str):
        settings = SpeechSettings(words=str(words), test_voices=(f"kokoro:{tmp_path}/{voice}",), no_speech_share=0.0)
        return make_window(settings, "test", 3.0, "1")

    spotter_speech._kokoro_model.cache_clear()
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    with pytest.raises(CwjaxError, match="pip install kokoro-onnx"):
        window("bf_emma")
    monkeypatch.setitem(sys.modules, "kokoro_onnx", SimpleNamespace(Kokoro=Kokoro))
    (tmp_path / "kokoro-v1.0.int8.onnx").touch()
    with pytest.raises(CwjaxError, match=r"voices-\*\.bin is missing.*releases on GitHub"):
        window("bf_emma")
    (tmp_path / "voices-v1.0.bin").touch()
    with pytest.raises(CwjaxError, match="bf_nobody not found"):
        window("bf_nobody")
    for voice, accent in (("bf_emma", "en-gb"), ("am_puck", "en-us")):
        said = window(voice)
        assert {one.voice for one in said.sentences} == {f"kokoro:{voice}"}
        assert set(spoken) == {("kokoro-v1.0.int8.onnx", "voices-v1.0.bin", voice, accent)}
        spoken.clear()
    first = said.sentences[0]
    assert 0.5 / 1.13 < first.end - first.start < 0.5 / 0.87  # half a second, played faster or slower
    spotter_speech._kokoro_model.cache_clear()


def test_a_missing_list_of_words_is_a_plain_line(tmp_path):
    with pytest.raises(CwjaxError, match="cannot be read"):
        vocabulary(str(tmp_path / "none.txt"))
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    with pytest.raises(CwjaxError, match="some thousand"):
        vocabulary(str(tmp_path / "few.txt"))


def test_states_are_kept_and_made_only_once(words, tmp_path):
    settings = SpeechSettings(words=str(words), train_voices=("espeak",), train_windows=3)
    calls = []

    def encoder(windows):
        calls.append(len(windows))
        return np.stack([window[: 50 * 8].reshape(50, 8) for window in windows])

    def read(settings=settings, sha256="a", folder=tmp_path / "states"):
        return encoded_windows(folder, "train", settings, 4.0, 0, encoder, sha256)

    first = read()
    assert sum(calls) == len(first) == 3
    again = read()
    assert sum(calls) == 3
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.states, other.states)
        assert one.sentences == other.sentences
    with pytest.raises(CwjaxError, match="encoder_sha256"):
        read(sha256="b")
    with pytest.raises(CwjaxError, match="rare_share"):
        read(dataclasses.replace(settings, rare_share=0.1))
    next((tmp_path / "states").glob("*.npy")).write_bytes(b"\x93NUMPY")
    with pytest.raises(CwjaxError, match="is damaged"):
        read()


def a_model(width: int = WIDTH, seed: int = 0, dtype=np.float16):
    """As much of a model as a spotter looks at."""
    chance = np.random.default_rng(seed)
    kernel = chance.normal(size=(width, width)).astype(np.float16).astype(dtype)
    parameters = {"audio_encoder": {"conv1": {"kernel": kernel}, "positions": chance.normal(size=3)}}
    config = SimpleNamespace(whisper=SimpleNamespace(d_model=width))
    return SimpleNamespace(params=parameters, config=config, source=SimpleNamespace(place=Path("a model")))


def test_hash_of_an_encoder():
    ours = encoder_sha256(a_model().params)
    assert (
        ours
        == encoder_sha256(a_model(dtype=np.float32).params)
        == encoder_sha256(a_model(dtype=ml_dtypes.bfloat16).params)
    )
    assert ours != encoder_sha256(a_model(seed=1).params)
    with_context = a_model().params
    with_context["audio_encoder"]["blocks"] = {"context_gate": np.zeros(2)}
    assert ours == encoder_sha256(with_context)


@pytest.fixture
def saved(trained, tmp_path):
    file = tmp_path / "spotters" / "ours.safetensors"
    save_spotter(trained, file, encoder_sha256(a_model().params), {"note": "naïve"})
    return file


def test_a_saved_spotter_is_found_by_its_encoder(trained, saved, windows, monkeypatch):
    monkeypatch.setattr(spotter_files, "SHIPPED", saved.parent)
    states, one = jnp.asarray(windows[0].states[None]), load_spotter(a_model())
    assert one.config == trained.config
    for ours, read in zip(
        *(detect(nnx.split(spotter), states, encode_phrases(spotter, TEN)) for spotter in (trained, one)), strict=True
    ):
        np.testing.assert_allclose(ours, read, atol=0.05)
    assert load_spotter(a_model(seed=1)) is None
    assert load_spotter(a_model(width=WIDTH + 1)) is None
    with pytest.raises(CwjaxError, match="another audio encoder"):
        load_spotter(a_model(seed=1), saved)


def test_a_spotter_of_another_width_is_refused_by_name(saved):
    with pytest.raises(CwjaxError, match="another audio encoder"):
        load_spotter(a_model(width=WIDTH + 1), saved)


@pytest.mark.parametrize(
    "harm", ["missing", "cut", "no safetensors", "other kind", "nan", "other shapes", "bad config"]
)
def test_a_damaged_spotter_is_a_plain_line(trained, saved, harm, monkeypatch, caplog):
    content = saved.read_bytes()
    if harm == "missing":
        saved.unlink()
    elif harm == "cut":
        saved.write_bytes(content[: len(content) // 2])
    elif harm == "no safetensors":
        saved.write_bytes(b"no safetensors")
    elif harm == "other kind":
        saved.write_bytes(content.replace(b"cwjax phrase spotter 1", b"cwjax phrase spotter 9"))
    elif harm == "other shapes":
        saved.write_bytes(content.replace(b'\\"hidden\\": 32', b'\\"hidden\\": 48'))
    elif harm == "bad config":
        saved.write_bytes(content.replace(b'\\"hidden\\": 32', b'\\"hidden\\": {}'))
    else:
        bad = nnx.clone(trained)
        bad.verdict[...] = jnp.full_like(bad.verdict[...], jnp.nan)
        save_spotter(bad, saved, encoder_sha256(a_model().params), {})
    with pytest.raises(CwjaxError) as caught:
        load_spotter(a_model(), saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(spotter_files, "SHIPPED", saved.parent)
    assert load_spotter(a_model()) is None, "what needs no phrases goes on"
    assert caplog.messages == [str(caught.value)] * (harm != "missing")
    save_spotter(trained, saved.parent / "z.safetensors", encoder_sha256(a_model().params), {})
    assert load_spotter(a_model()) is not None, "of those that are whole"


def test_shipped_spotters_are_small_and_whole():
    for file in spotter_files.SHIPPED.glob("*.safetensors"):
        config, sha256 = spotter_files._header(file)
        assert spotter_files._read(file, config).config == config
        assert len(sha256) == 64
        assert file.stat().st_size <= 2e6
        card = file.with_suffix(".md").read_text(encoding="utf-8")
        assert sha256 in card
