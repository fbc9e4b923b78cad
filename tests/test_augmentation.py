"""Speed perturbation: pitch, length and times move together."""

import numpy as np
import pytest

from cwjax.data.audio.augmentation import perturb_speed, perturb_utterances
from cwjax.data.segment import Utterance


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.2])
def test_pitch_and_length_follow_the_factor(factor: float) -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(16000) / 16000).astype(np.float32)
    played = perturb_speed(tone, factor)
    assert played.dtype == np.float32
    assert len(played) == pytest.approx(16000 / factor, abs=2)
    spectrum = np.abs(np.fft.rfft(played * np.hanning(len(played))))
    assert spectrum.argmax() * 16000 / len(played) == pytest.approx(400 * factor, abs=1.5)


def test_times_follow_the_sound() -> None:
    utterances = perturb_utterances((Utterance(0.5, 1.0, "a"), Utterance(1.0, 2.0, "b")), 2.0)
    assert utterances == (Utterance(0.25, 0.5, "a"), Utterance(0.5, 1.0, "b"))
