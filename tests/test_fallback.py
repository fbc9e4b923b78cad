"""When a window is decoded again, and which one counts as silence; a stand-in for the model tells what was asked."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cwjax.inference.decoding import EncodedAudio
from cwjax.inference.engine import Engine, WindowJob, is_silent, needs_another_try
from cwjax.inference.options import DecodingOptions
from cwjax.inference.programs import select_windows
from cwjax.inference.segments import DecodedWindow
from cwjax.models.text_decoder import ProjectedAudio

GOOD = DecodedWindow((1, 2), "all is well", -0.3, 0.1, 0.0)
REPETITIVE = replace(GOOD, text="again and " * 30)
IMPROBABLE = replace(GOOD, avg_logprob=-1.5)
SILENT = replace(IMPROBABLE, no_speech_prob=0.9)
LOUD = replace(GOOD, no_speech_prob=0.9)


@pytest.mark.parametrize(
    ("window", "options", "again", "silent"),
    [
        (GOOD, {}, False, False),
        (REPETITIVE, {}, True, False),
        (REPETITIVE, {"compression_ratio_threshold": None}, False, False),
        (IMPROBABLE, {}, True, False),
        (IMPROBABLE, {"logprob_threshold": None}, False, False),
        (SILENT, {}, False, True),
        (SILENT, {"no_speech_threshold": None}, True, False),
        (replace(SILENT, text="again and " * 30), {}, False, True),
        (LOUD, {}, False, False),
        (LOUD, {"logprob_threshold": None}, False, True),
        (replace(LOUD, text="again and " * 30), {}, True, False),
    ],
)
def test_thresholds(window: DecodedWindow, options: dict, again: bool, silent: bool) -> None:
    assert needs_another_try(window, DecodingOptions(**options)) == again
    assert is_silent(window, DecodingOptions(**options)) == silent


def test_only_failed_windows_are_decoded_again_and_hotter() -> None:
    asked = []
    good_from = [0.0, 0.4, 9.0, 0.2, 0.0]  # the temperature at which each window's text is good

    def decode(encoded, starts, previous, options, temperatures, seeds, boost):
        rows = np.asarray(encoded.audio.value[0])[:, 0]
        asked.append((temperatures[0], rows.tolist()))
        assert list(seeds) == [100 + row for row in rows]
        assert list(previous) == [(row,) for row in rows]
        assert list(starts) == [[row] for row in rows]
        return [
            replace(GOOD if temperature >= good_from[row] else IMPROBABLE, temperature=temperature, text=str(row))
            for row, temperature in zip(rows, temperatures, strict=True)
        ]

    options = DecodingOptions(temperature=(0.0, 0.2, 0.4))
    jobs = [WindowJob(None, 0.0, 100 + row, 3000, False, None, options, "en", previous=(row,)) for row in range(5)]
    audio = jnp.asarray([0, 1, 2, 3, 4, 4, 4, 4])[:, None]  # padded, as the engine does
    encoded = EncodedAudio(ProjectedAudio((audio,), (audio,)))
    engine = Engine(SimpleNamespace(decode=decode, tokens=None))
    results, shown = engine._decode(jobs, encoded, [[row] for row in range(5)], [()] * 5, None)
    assert shown == [()] * 5
    assert [window.text for window in results] == list("01234")
    assert [window.temperature for window in results] == [0.0, 0.4, 0.4, 0.2, 0.0]
    assert asked[1:] == [(0.2, [1, 2, 3, 3]), (0.4, [1, 2])]


def test_windows_encoded_twice_are_selected_together() -> None:
    rows = jnp.arange(3)[:, None]
    audio = ProjectedAudio((rows,), (rows,))
    some = select_windows(EncodedAudio(audio, jax.tree.map(lambda leaf: leaf + 3, audio), jnp.arange(3) / 2), [2, 0])
    np.testing.assert_array_equal(some.audio.value[0][:, 0], [2, 0])
    np.testing.assert_array_equal(some.plain.value[0][:, 0], [5, 3])
    np.testing.assert_array_equal(some.scale, [1, 0])
