"""How far apart two computations of the same numbers may lie: from arithmetic, not from what one machine showed.

Instruction sets, thread counts and libraries each add up a sum in an order of their own, and every addition rounds.
The errors have either sign, so a sum of n terms is off by about sqrt(n) roundings of its largest value, not by n
(Higham and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis"). A network is a chain of sums: what
counts is how many terms there are along its longest path, and how large the largest value is, since small results are
differences of large ones.
"""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from cwjax.models.bert import BertConfig
from cwjax.models.parameters import Parameters
from cwjax.models.t5 import T5Config
from cwjax.models.whisper import WhisperConfig

MARGIN = 4.0
"""Roundings allowed for each root of a term. The analysis asks for a small constant; softmaxes and norms, which enlarge
the errors of what they are given, take the rest."""


def tolerance(terms: int, dtype: Any = np.float32) -> float:
    """The largest difference that rounding explains, relative to the largest value.

    Args:
        terms: numbers that are added up along the longest path from inputs to results.
        dtype: that they are added up in.
    """
    return MARGIN * float(ml_dtypes.finfo(dtype).eps) * terms**0.5


def assert_close(
    ours: ArrayLike,
    reference: ArrayLike,
    terms: int,
    scale: float | None = None,
    dtype: Any = np.float32,
    message: str = "",
) -> None:
    """Fails where two arrays differ by more than `tolerance` times the largest value.

    Args:
        ours: of the same shape as the reference.
        reference: finite.
        terms: as in `tolerance`.
        scale: the largest value of what was added up, where it is not among the results because they are what is left
            after cancellation, or logarithms.
        dtype: as in `tolerance`.
        message: which arrays these are.
    """
    ours, reference = (np.asarray(array).astype(np.float64) for array in (ours, reference))
    assert ours.shape == reference.shape, message
    largest = np.abs(reference).max(initial=0) if scale is None else scale
    difference, allowed = np.abs(ours - reference).max(initial=0), tolerance(terms, dtype) * largest
    assert difference <= allowed, f"{message} differs by {difference:.3g}, which is more than {allowed:.3g}"


def layer_terms(width: int, hidden: int, *keys: int) -> int:
    """Terms along the path through a transformer's layer.

    Args:
        width: of the stream and of all heads together: in each attention it is summed over by norm, projections, scores
            and output, in the MLP by norm and first map.
        hidden: width of the MLP.
        keys: how many each attention of the layer sees.
    """
    return (4 * len(keys) + 2) * width + sum(keys) + hidden


def text_encoder_terms(config: BertConfig | T5Config, keys: int) -> int:
    """Terms along the path through a text encoder that reads so many tokens."""
    if isinstance(config, BertConfig):
        return config.num_hidden_layers * layer_terms(config.hidden_size, config.intermediate_size, keys)
    width = max(config.d_model, config.num_heads * config.d_kv)
    return config.num_layers * layer_terms(width, config.d_ff, keys)


def audio_encoder_terms(config: WhisperConfig, context: int | None = None) -> int:
    """The same for Whisper's audio encoder with its longest window; `context` is how many tokens it attends to."""
    keys = [config.max_source_positions] if context is None else [config.max_source_positions, context]
    convolutions = 3 * config.num_mel_bins + 3 * config.d_model
    return convolutions + config.encoder_layers * layer_terms(config.d_model, config.encoder_ffn_dim, *keys)


def decoder_terms(config: WhisperConfig) -> int:
    """The same for Whisper's decoder with its longest text, up to the logits."""
    keys = config.max_target_positions, config.max_source_positions
    return config.decoder_layers * layer_terms(config.d_model, config.decoder_ffn_dim, *keys) + 2 * config.d_model


def whisper_terms(config: WhisperConfig, context: int | None = None) -> int:
    """The same from features to logits."""
    return audio_encoder_terms(config, context) + decoder_terms(config)


def largest_logit(parameters: Parameters) -> float:
    """A bound: the length of a stream that has been normed, times the length of the embedding's longest row."""
    norm, embedding = parameters["decoder"]["ln"], parameters["decoder"]["token_embedding"]["embedding"]
    stream = np.abs(norm["scale"]).max() * len(norm["scale"]) ** 0.5 + np.linalg.norm(norm["bias"])
    return float(stream * np.linalg.norm(embedding, axis=-1).max())


def amplitudes(features: ArrayLike) -> np.ndarray:
    """What log-mel features are the logarithms of: a quiet band's rounding errors are those of the loudest."""
    return 10 ** (2 * np.asarray(features, np.float64) - 2)
