"""How to decode: the options of openai-whisper under their names, and what the context adds to them."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cwjax.errors import CwjaxError

Task = Literal["transcribe", "translate"]
Vad = Literal["none", "energy", "silero"]

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"


NO_SPOTTER = (
    "this Whisper has no phrase spotter, which phrases need; launch/train_spotter.py trains one, which "
    "`spotter` then names; `initial_prompt` and `hotwords` need none"
)

COMPILED = (
    "sample_len",
    "best_of",
    "beam_size",
    "patience",
    "length_penalty",
    "suppress_tokens",
    "suppress_blank",
    "without_timestamps",
    "max_initial_timestamp",
    "repetition_penalty",
    "no_repeat_ngram_size",
)
"""Options that are part of a compiled program or of the biases it is given."""


MOST, LEAST = sys.float_info.max, sys.float_info.min
LIMITS: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(
        ("sample_len", "best_of", "beam_size", "language_detection_segments"), (1, MOST, "it must be at least 1")
    ),
    "patience": (LEAST, MOST, "it must leave at least one hypothesis (patience * beam_size >= 1)"),
    "length_penalty": (0, 1, "use a number in 0..1"),
    "phrases_used": (0, MOST, "it must be at least 0"),
    "phrases_boost": (0, MOST, "it must be at least 0"),
    "phrases_threshold": (0, 1, "use a probability, 0 to 1"),
    "repetition_penalty": (LEAST, MOST, "use a number above 0 (1: none)"),
    "no_repeat_ngram_size": (0, MOST, "use a number of tokens, or 0"),
    "chunk_length": (1, MOST, "use seconds, at least 1"),
    "hallucination_silence_threshold": (0, MOST, "use seconds, at least 0"),
    "context_scale": (0, MOST, "use a number of at least 0 (1 is as trained)"),
}
"""The least and the most that an option may be, and what else to do."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CwjaxError(message)


@dataclass(frozen=True)
class DecodingOptions:
    """Options of a transcription. Names, meanings and defaults are those of openai-whisper's `transcribe`, and those of
    faster-whisper where only that has them.

    Raises:
        CwjaxError: a value is impossible, or does not go with another.
    """

    language: str | None = None
    """Code or English name of the language spoken; None: detected from the first window."""
    task: Task = "transcribe"
    """"translate": into English."""
    temperature: float | Sequence[float] = TEMPERATURES
    """Of sampling; several are tried in turn until a window's text passes the thresholds. 0: the likeliest."""
    sample_len: int | None = None
    """Most tokens of a window. None: half of the decoder's positions; where windows are shorter than 30 s, all
    that the prompt leaves."""
    best_of: int | None = None
    """Samples to choose from at temperatures above 0."""
    beam_size: int | None = None
    """Hypotheses of beam search at temperature 0; None: greedy."""
    patience: float | None = None
    """Beam search ends when `patience * beam_size` hypotheses have ended (Kasai et al. 2022); None: 1."""
    length_penalty: float | None = None
    """Exponent of the length penalty (Wu et al. 2016) that ranks hypotheses; None: the mean log-probability does."""
    suppress_tokens: str | Sequence[int] | None = "-1"
    """Ids never to be decoded, as numbers or separated by commas; -1 stands for symbols that are not spoken."""
    suppress_blank: bool = True
    """Never begin with a space alone, nor end before the first token."""
    without_timestamps: bool = False
    """Decode text only."""
    max_initial_timestamp: float | None = 1.0
    """Latest first timestamp of a window, in seconds; None or 0: any."""
    compression_ratio_threshold: float | None = 2.4
    """Text that compresses better than this repeats itself and is decoded again at the next temperature."""
    logprob_threshold: float | None = -1.0
    """Text whose mean log-probability is lower is decoded again at the next temperature."""
    no_speech_threshold: float | None = 0.6
    """A window whose no-speech probability is higher, and whose text failed `logprob_threshold`, is silence."""
    initial_prompt: str | Sequence[int] | None = None
    """Previous text for the first window, or its tokens: spelling and style to go on with."""
    hotwords: str | None = None
    """Words to expect, put before the previous text of every window; without effect where there is a `prefix`."""
    prefix: str | None = None
    """The beginning of the first window's text."""
    phrases: Sequence[str] = ()
    """Names and terms that may be said, any number. Each window's decoder is shown those that a phrase spotter hears in
    it. "Goethe | gurta": written as the first, spoken like any of them."""
    phrases_used: int = 10
    """Most phrases that the decoder is shown for a window."""
    phrases_boost: float = 3.0
    """By how much the logits of tokens that begin a phrase heard are raised, and by 1 more of those that continue it;
    less for unlikely ones. 0: nothing is raised."""
    phrases_threshold: float | None = None
    """Probability from which the decoder is shown a phrase. None: 0.02 for lists of up to 100, rising to 0.05 for
    those of 500 and more, of whose unlikely phrases more are wrong."""
    carry_initial_prompt: bool = False
    """Give `initial_prompt` to every window."""
    condition_on_previous_text: bool = True
    """Prompt each window with the text before it; not with `independent_windows`."""
    repetition_penalty: float = 1.0
    """Divides the scores of tokens that the window has already; above 1 against repetition."""
    no_repeat_ngram_size: int = 0
    """Runs of so many tokens never occur twice in a window; 0: they may."""
    multilingual: bool = False
    """Detect the language of every window, for recordings of several languages."""
    language_detection_segments: int = 1
    """Windows that are looked at, at most, to detect the language."""
    language_detection_threshold: float = 0.5
    """A language this probable ends the detection; otherwise the most frequent of the windows' languages counts."""
    chunk_length: float | None = None
    """Seconds of a window; None: all that the model hears at once."""
    vad: Vad = "none"
    """Transcribe only what voice activity detection takes for speech: by loudness ("energy"), or by a network
    ("silero", of the extra cwjax[vad])."""
    independent_windows: bool = False
    """Cut the recording in pauses into windows that do not depend on each other and fill a batch together: faster, but
    no window knows the text before it."""
    word_timestamps: bool = False
    """Find the times of words."""
    prepend_punctuations: str = PREPENDED
    """Marks that belong to the word after them."""
    append_punctuations: str = APPENDED
    """Marks that belong to the word before them."""
    clip_timestamps: str | Sequence[float] = "0"
    """Start, end, start, end, ... of the stretches to transcribe, in seconds; the last end may be left out."""
    hallucination_silence_threshold: float | None = None
    """Skip silence longer than this many seconds around words that look invented; needs `word_timestamps`."""
    context_scale: float = 1.0
    """How much the context counts: 0 not at all (stock Whisper), 1 as trained, more than 1 exaggerated."""
    context_from_history: bool = False
    """Let the text encoder read the text before each window, too; not with `independent_windows`."""

    def __post_init__(self) -> None:
        lists: dict[str, type] = {"temperature": float, "suppress_tokens": int, "clip_timestamps": float}
        if self.initial_prompt is not None and not isinstance(self.initial_prompt, str):
            lists["initial_prompt"] = int
        for name, kind in lists.items():
            object.__setattr__(self, name, _numbers(name, getattr(self, name), kind))
        one = isinstance(self.phrases, str) or not isinstance(self.phrases, Iterable)
        object.__setattr__(self, "phrases", (self.phrases,) if one else tuple(self.phrases))
        for name, (least, most, cure) in LIMITS.items():
            value = getattr(self, name)
            _require(value is None or least <= value <= most, f"{name} is {value}: {cure}")
        for name, kind in {"task": Task, "vad": Vad}.items():
            value, known = getattr(self, name), get_args(kind)
            _require(value in known, f"{name} is {value!r}: use {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")
        _require(all(isinstance(one, str) for one in self.phrases), "phrases are not all texts: give a list of names")
        _require(
            bool(self.temperature) and all(0 <= value < math.inf for value in self.temperature),
            f"temperature is {self.temperature}: use one or more numbers of at least 0",
        )
        _require(min(self.suppress_tokens, default=0) >= -1, "suppress_tokens has a negative id other than -1")
        clips = self.clip_timestamps
        _require(
            all(0 <= value < math.inf for value in clips) and list(clips) == sorted(clips),
            f"clip_timestamps are {clips}: give start,end,start,end,... in seconds, in ascending order",
        )
        if self.patience is not None:
            _require(
                round(self.patience * self.beam_count) >= 1,
                f"patience is {self.patience}: it must leave at least one hypothesis (patience * beam_size >= 1)",
            )
            _require(self.beam_size is not None, "patience is for beam search: give beam_size with it, or leave it out")
        _require(
            self.hallucination_silence_threshold is None or self.word_timestamps,
            "hallucination_silence_threshold goes by the times of words: set word_timestamps with it",
        )
        _require(
            not self.carry_initial_prompt or self.initial_prompt is not None,
            "carry_initial_prompt has nothing to carry: give an initial_prompt",
        )
        for name in ("context_from_history", "hallucination_silence_threshold"):
            _require(
                not (self.independent_windows and getattr(self, name)),
                f"{name} needs one window after the other, and a model that has learned timestamps: leave it out, or "
                "independent_windows",
            )

    @property
    def decoding_part(self) -> "DecodingOptions":
        """Those options that decide what is compiled; windows for which they are equal may share a batch."""
        return DecodingOptions(**{name: getattr(self, name) for name in COMPILED})

    @property
    def beam_count(self) -> int:
        """Hypotheses at temperature 0."""
        return self.beam_size or 1


def _numbers(name: str, given: Any, kind: type) -> tuple[Any, ...]:
    """One number, several, or text with commas, as a tuple."""
    if given is None:
        return ()
    if isinstance(given, str):
        given = [part for part in given.split(",") if part.strip()]
    try:
        return tuple(kind(value) for value in (given if isinstance(given, Iterable) else [given]))
    except (TypeError, ValueError):
        raise CwjaxError(f"{name} is {given!r}: use numbers, or text of numbers separated by commas") from None
