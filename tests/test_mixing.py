"""Noise at the wanted ratio, rooms that delay nothing, and every draw from the generator alone."""

import pickle

import numpy as np
import pytest
import soundfile

from cwjax.data.audio.mixing import Mixer, MixingSettings, add_noise, reverberate
from cwjax.errors import CwjaxError

RATE = 16_000
SPEECH = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


def decibels(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


@pytest.mark.parametrize("ratio", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("length", [100, RATE, 3 * RATE])
def test_noise_is_as_loud_as_wanted(ratio, length):
    noise = np.random.default_rng(1).normal(0, 3, length).astype(np.float32)
    mixed = add_noise(SPEECH, noise, ratio)
    assert mixed.dtype == np.float32
    assert decibels(SPEECH) - decibels(mixed - SPEECH) == pytest.approx(ratio, abs=0.01)


def test_silence_is_no_noise():
    np.testing.assert_array_equal(add_noise(SPEECH, np.zeros(5, np.float32), 0), SPEECH)
    assert not add_noise(np.zeros(9, np.float32), SPEECH, 10).any()


def test_a_room_is_a_convolution_that_keeps_loudness_and_time():
    response = np.array([1, 0, 0.5, 0.25], np.float32)
    heard = reverberate(SPEECH, response)
    wanted = np.convolve(SPEECH, response)[:RATE]
    np.testing.assert_allclose(heard / heard[0], wanted / wanted[0], atol=1e-3)
    assert decibels(heard) == pytest.approx(decibels(SPEECH), abs=0.01)
    np.testing.assert_allclose(reverberate(SPEECH, np.array([0.3], np.float32)), SPEECH, atol=1e-6)


@pytest.fixture
def folders(tmp_path):
    """Noise at 44.1 kHz in stereo, a tone, and a room whose direct sound comes after 50 ms."""
    draw = np.random.default_rng(2)
    (tmp_path / "noise/more").mkdir(parents=True)
    soundfile.write(tmp_path / "noise/a.flac", draw.normal(0, 0.1, (44_100 * 3, 2)), 44_100)
    soundfile.write(tmp_path / "noise/more/b.wav", np.sin(np.arange(8000) / 3), 8000)
    (tmp_path / "noise/broken.wav").write_bytes(b"RIFF")
    (tmp_path / "noise/LICENSE").write_text("free")
    (tmp_path / "rooms").mkdir()
    response = np.zeros(RATE)
    response[800], response[1600] = 0.9, 0.3
    soundfile.write(tmp_path / "rooms/hall.wav", response, RATE, subtype="FLOAT")
    return tmp_path


def test_draws_follow_the_generator(folders, caplog):
    mixer = Mixer.open(MixingSettings(str(folders / "noise"), 1.0, (3, 9), str(folders / "rooms"), 1.0))
    assert "1 files cannot be read" in caplog.text
    assert [path.name for path, _ in mixer.noises] == ["a.flac", "b.wav"]
    results = [mixer(SPEECH, np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3)]
    travelled = pickle.loads(pickle.dumps(mixer))
    np.testing.assert_array_equal(results[0], travelled(SPEECH, np.random.default_rng(0)))
    np.testing.assert_array_equal(results[0], results[1])
    assert not any(np.array_equal(results[0], other) for other in results[2:])
    assert all(one.shape == SPEECH.shape and np.isfinite(one).all() for one in results)


def test_the_direct_sound_stays_where_it_was(folders):
    click = np.zeros(RATE, np.float32)
    click[5000] = 1
    heard = Mixer.open(MixingSettings(rooms=str(folders / "rooms"), rooms_share=1))(click, np.random.default_rng(0))
    assert np.abs(heard).argmax() == 5000
    assert heard[5800] == pytest.approx(heard[5000] / 3, rel=1e-3)


def test_shares_are_kept(folders):
    mixer = Mixer.open(MixingSettings(noise=str(folders / "noise"), noise_share=0.3))
    generator = np.random.default_rng(0)
    changed = sum(not np.array_equal(mixer(SPEECH[:800], generator), SPEECH[:800]) for _ in range(400))
    assert changed == pytest.approx(120, abs=30)


def test_folders_that_cannot_serve_are_named(tmp_path):
    assert Mixer.open(MixingSettings()) is None
    with pytest.raises(CwjaxError, match="nowhere: no such folder"):
        Mixer.open(MixingSettings(noise=str(tmp_path / "nowhere")))
    with pytest.raises(CwjaxError, match=r"holds no audio \(data.mixing.rooms\)"):
        Mixer.open(MixingSettings(rooms=str(tmp_path)))
    with pytest.raises(CwjaxError, match="share"):
        MixingSettings(noise_share=2)
