"""Decoding at rising temperatures until the text looks right (Radford et al. 2022, section 4.5)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cwjax.inference.decoding import Heard
from cwjax.inference.decoding_options import DecodingOptions
from cwjax.inference.recognizer import DecodedWindow, Recognizer


def decode_with_fallback(
    recognizer: Recognizer,
    heard: Heard,
    languages: Sequence[str],
    previous: Sequence[Sequence[int]],
    options: DecodingOptions,
    seeds: Sequence[int],
) -> list[DecodedWindow]:
    """Decodes windows at the first of the temperatures, and those that fail again at the next ones.

    Arguments as in `Recognizer.decode`; a window's result does not depend on the others.
    """
    results = recognizer.decode(heard, languages, previous, options, options.temperature[0], seeds)
    for temperature in options.temperature[1:]:
        failed = [row for row, window in enumerate(results) if needs_another_try(window, options)]
        if not failed:
            break
        # A batch of a power of two, filled up with its last window, so that few programs are compiled.
        rows = failed + failed[-1:] * ((1 << (len(failed) - 1).bit_length()) - len(failed))
        again = recognizer.decode(
            select_windows(heard, rows),
            [languages[row] for row in rows],
            [previous[row] for row in rows],
            options,
            temperature,
            [seeds[row] for row in rows],
        )
        for row, window in zip(failed, again, strict=False):
            results[row] = window
    return results


def needs_another_try(window: DecodedWindow, options: DecodingOptions) -> bool:
    """Whether a text repeats itself or is improbable, and the window is not silence."""
    limit, silence = options.logprob_threshold, options.no_speech_threshold
    improbable = limit is not None and window.avg_logprob < limit
    if improbable and silence is not None and window.no_speech_prob > silence:
        return False
    ratio = options.compression_ratio_threshold
    return improbable or (ratio is not None and window.compression_ratio > ratio)


def is_silent(window: DecodedWindow, options: DecodingOptions) -> bool:
    """Whether a window holds no speech: that is probable, and its text is not."""
    if options.no_speech_threshold is None or window.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or window.avg_logprob <= options.logprob_threshold


def select_windows(heard: Heard, rows: Sequence[int]) -> Heard:
    """Some of the windows, each as often as it is named."""
    chosen = jnp.asarray(rows)
    if heard.scale is not None:
        chosen = jnp.concatenate([chosen, chosen + heard.audio.value[0].shape[0] // 2])
    return Heard(jax.tree.map(lambda array: array[chosen], heard.audio), heard.scale)
