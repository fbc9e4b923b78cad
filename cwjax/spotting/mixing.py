"""Windows of a phrase spotter's training that are mixed on the device, so that no step hears what another has heard.

An accelerator mixes and encodes windows in less time than it takes to read encoded ones. Which sentences are said
where, and in what noise and room, is drawn on the host; their samples stay on the device.

Shape legend: W windows, K sentences of each at most, n samples of a window.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.spotting.batches import POSITIONS_PER_SECOND
from cwjax.spotting.speech import Sentence, SpeechSettings
from cwjax.spotting.spoken_sentences import SpokenSentence
from cwjax.spotting.states import EncodedWindow

MOST_SENTENCES = 16
RESPONSE = 8000
"""Samples of a room's response: half a second."""
TILT = 0.25
"""Power of the frequency by which spectra rise or fall at most, as those of microphones do."""
NARROW_SHARE, NARROW = 0.07, 3400.0
"""Share of windows that sound as by telephone, and the highest frequency of these in hertz."""
NOWHERE = 1 << 30
"""Sample where a sentence begins that is not said."""


class Mixture(NamedTuple):
    """How windows are mixed.

    Attributes:
        first, length: (W, K) int32, where each sentence lies among the samples of all.
        place: (W, K) int32, sample of the window where it begins, ascending.
        speed, gain: (W, K) float32.
        reverberation: (W,) float32, seconds in which a room's sound falls by 60 dB.
        room: (W,) float32, how loud it is; 0: no room.
        noise: (W,) float32, its amplitude as a share of the speech's; 0: no noise.
        slope: (W,) float32, power of the frequency by which the noise's power falls.
        tilt: (W,) float32, power of the frequency by which the spectrum rises.
        highest: (W,) float32, hertz above which nothing is heard.
    """

    first: np.ndarray
    length: np.ndarray
    place: np.ndarray
    speed: np.ndarray
    gain: np.ndarray
    reverberation: np.ndarray
    room: np.ndarray
    noise: np.ndarray
    slope: np.ndarray
    tilt: np.ndarray
    highest: np.ndarray


def draw_mixture(
    sentences: Sequence[SpokenSentence], settings: SpeechSettings, windows: int, seconds: float, chance: random.Random
) -> tuple[Mixture, list[EncodedWindow]]:
    """Draws what is said in windows of so many seconds.

    Returns:
        How they are mixed, and the windows as batches are made of them; in the place of states, which are not known
        yet, each position has the numbers of the window and of the position.
    """
    shape = (windows, MOST_SENTENCES)
    first, length, place = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(shape, NOWHERE, np.int32)
    speed, gain = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    drawn = []
    for row in range(windows):
        at = chance.uniform(0.0, 1.5)
        until = seconds if chance.random() < 0.8 else seconds * chance.random()
        until *= chance.random() >= settings.no_speech_share
        said = []
        for column in range(MOST_SENTENCES):
            if at >= until:
                break
            one, factor = chance.choice(sentences), chance.uniform(*settings.speed)
            lasting = one.length / factor / SAMPLING_RATE
            first[row, column], length[row, column] = one.first, one.length
            place[row, column], speed[row, column] = round(at * SAMPLING_RATE), factor
            gain[row, column] = 10 ** chance.uniform(-0.9, 0)
            if at + lasting <= seconds:
                said.append(Sentence(one.text, at, at + lasting, one.phrases, one.voice))
            at += lasting + chance.uniform(0.1, 0.8)
        positions = np.arange(round(seconds * POSITIONS_PER_SECOND), dtype=np.int32)
        drawn.append(EncodedWindow(np.stack([np.full_like(positions, row), positions], axis=1), tuple(said)))

    def draw(least: float, most: float, share: float = 1.0, otherwise: float = 0.0) -> np.ndarray:
        values = [chance.uniform(least, most) if chance.random() < share else otherwise for _ in range(windows)]
        return np.array(values, np.float32)

    noise = 10 ** (-draw(*settings.signal_to_noise) / 20) * draw(1, 1, settings.noise_share)
    reverberation, room = draw(0.15, 0.6), draw(0.02, 0.1, settings.room_share)
    narrow = draw(NARROW, NARROW, NARROW_SHARE, SAMPLING_RATE / 2)
    effects = (reverberation, room, noise, draw(0, 2), draw(-TILT, TILT), narrow)
    return Mixture(first, length, place, speed, gain, *effects), drawn


def mix(samples: jax.Array, mixture: Mixture, key: jax.Array, length: int) -> jax.Array:
    """Mixes windows.

    Args:
        samples: (N,) int16, of all sentences.
        mixture: of W windows.
        key: random key, of noises and rooms.
        length: n.

    Returns:
        (W, n) float32 at 16 kHz, in -1..1.
    """

    def one(mixture: Mixture, key: jax.Array) -> jax.Array:
        at = jnp.arange(length)
        number = jnp.maximum(jnp.searchsorted(mixture.place, at, side="right") - 1, 0)
        # Between two samples, on a straight line.
        exact = (at - mixture.place[number]).astype(jnp.float32) * mixture.speed[number]
        before = jnp.floor(exact).astype(jnp.int32)
        is_said = (exact >= 0) & (before < mixture.length[number] - 1)
        place = jnp.where(is_said, mixture.first[number] + before, 0)
        share = exact - before
        speech = (samples[place] * (1 - share) + samples[place + 1] * share) * mixture.gain[number] / 32768
        speech = jnp.where(is_said, speech, 0)

        size = 1 << (length + RESPONSE - 1).bit_length()
        bins = jnp.arange(size // 2 + 1)
        hertz = bins * (SAMPLING_RATE / size)
        for_room, real, imaginary = jax.random.split(key, 3)
        seconds = jnp.arange(RESPONSE) / SAMPLING_RATE
        response = jax.random.normal(for_room, (RESPONSE,)) * 10 ** (-3 * seconds / mixture.reverberation)
        response = (response * mixture.room).at[0].set(1.0)
        spectrum = jnp.fft.rfft(speech, size) * jnp.fft.rfft(response, size)
        spectrum *= (jnp.maximum(hertz, 60) / 1000) ** mixture.tilt * (hertz < mixture.highest)
        noise = jax.random.normal(real, bins.shape) + 1j * jax.random.normal(imaginary, bins.shape)
        noise /= jnp.maximum(bins, 20.0) ** (mixture.slope / 2)
        power, loud = (jnp.square(jnp.abs(some)).sum() for some in (spectrum, noise))
        power = jnp.where(power > 0, power, 1.0 * size)  # of a window without speech
        mixed = jnp.fft.irfft(spectrum + noise * mixture.noise * jnp.sqrt(power / loud), size)[:length]
        return mixed / jnp.maximum(jnp.abs(mixed).max(), 1)

    return jax.vmap(one)(mixture, jax.random.split(key, len(mixture.first)))
