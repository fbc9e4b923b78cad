"""Tokens that are never decoded, or not as the first one, as biases to add to the logits.

Legend: V vocabulary.
"""

import string
from typing import NamedTuple

import numpy as np

from cwjax.data.whisper_tokens import TIMESTAMP_STEP, WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions

SYMBOLS = '"#()*+/:;<=>@[\\]^_`{|}~「」『』'
GROUPS = "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪"
NOTES = "♩♪♫♬♭♮♯"
"""Symbols of captions that are not speech, such as [MUSIC] and ♪; the list is openai-whisper's."""

NON_SPEECH = -1
"""Among `suppress_tokens`: stands for `non_speech_tokens`."""


class Suppression(NamedTuple):
    """Biases of 0 and -inf.

    Attributes:
        always: (V,) float32, for every token.
        first: (V,) float32, for the first token in addition.
    """

    always: np.ndarray
    first: np.ndarray


def suppression(tokens: WhisperTokens, vocabulary: int, options: DecodingOptions) -> Suppression:
    """The biases of a decoding.

    Args:
        tokens: what the ids mean; those behind its last are never decoded.
        vocabulary: V, of the model.
        options: what else is suppressed.

    Raises:
        CwjaxError: `suppress_tokens` names an id beyond the vocabulary.
    """
    always, first = np.zeros((2, vocabulary), np.float32)
    always[_never(tokens, options)] = -np.inf
    always[len(tokens) :] = -np.inf
    if options.suppress_blank:
        first[[*_blank(tokens), tokens.end_of_text]] = -np.inf
    if not options.without_timestamps:
        always[tokens.first_timestamp - 1] = -np.inf
        first[: tokens.first_timestamp] = -np.inf
        if options.max_initial_timestamp:
            first[tokens.first_timestamp + round(options.max_initial_timestamp / TIMESTAMP_STEP) + 1 :] = -np.inf
    return Suppression(always, first)


def transcript_only(tokens: WhisperTokens, vocabulary: int) -> Suppression:
    """Every special token but end of text suppressed: for transcripts without timestamps and nothing else."""
    always = np.zeros(vocabulary, np.float32)
    always[tokens.end_of_text + 1 :] = -np.inf
    return Suppression(always, np.zeros_like(always))


def non_speech_tokens(tokens: WhisperTokens) -> list[int]:
    """Symbols that captions have and speech has not, alone or behind a space.

    A symbol of several tokens is left alone, but for musical notes: those are suppressed by their first token,
    provided it holds two of their three bytes, which only such symbols share. A hyphen or an apostrophe is
    suppressed at the beginning of a word only.
    """
    found = {ids[0] for ids in map(tokens.pieces, (" -", " '")) if len(ids) == 1}
    for symbol in (*SYMBOLS, *GROUPS.split(), *NOTES):
        for ids in (tokens.pieces(symbol), tokens.pieces(" " + symbol)):
            note = symbol in NOTES and len(tokens.utf8(ids[:1]).strip()) > 1
            if len(ids) == 1 or note:
                found.add(ids[0])
    return sorted(found)


def _never(tokens: WhisperTokens, options: DecodingOptions) -> list[int]:
    asked = set(options.suppress_tokens)
    if asked and max(asked) >= len(tokens):
        raise CwjaxError(f"suppress_tokens has {max(asked)}, but this model's vocabulary ends at {len(tokens) - 1}")
    if NON_SPEECH in asked:
        asked = asked - {NON_SPEECH} | set(non_speech_tokens(tokens))
    names = ("<|transcribe|>", "<|translate|>", "<|startoftranscript|>", "<|startofprev|>", "<|startoflm|>")
    return sorted(asked | {tokens.id(name) for name in names} | {tokens.no_speech})


def _blank(tokens: WhisperTokens) -> list[int]:
    """The space alone, unless words may begin with it, as they do where tokens are letters."""
    separate = any(len(tokens.pieces(" " + letter)) > 1 for letter in string.ascii_letters)
    return [] if separate else tokens.pieces(" ")
