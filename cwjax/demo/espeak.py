"""Speech with word times from eSpeak NG, through ctypes.

eSpeak NG is a small formant synthesiser. It sounds like a machine, but it runs anywhere, speaks in many accents
and voices, and says when each word begins: enough to build a speech corpus without downloading one. The library
comes with the wheel `espeakng-loader` (extra `demo`). The C interface is that of eSpeak NG 1.52, `speak_lib.h`.

The library keeps state between sentences (the phase of a voice's flutter, among others) and seeds its noise from
the clock. To make speech a function of its arguments alone, every call works on a freshly loaded library, about
half a millisecond, and sets the seed.
"""

import _ctypes
import ctypes
import importlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from cwjax.errors import CwjaxError

SAMPLING_RATE = 22050
"""Samples per second of everything eSpeak NG speaks."""

_OUTPUT_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: sound goes to the callback and the call returns when all is said
_CHARS_UTF8 = 1
_IPA = 2
_POSITION_CHARACTER = 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_EVENT_LIST_TERMINATED, _EVENT_WORD = 0, 1
_NOISE_SEED = 1

# Silence within a word lasts up to 100 ms (the closure of a stop); what is longer is a pause between words.
_LONGEST_CLOSURE = 0.12
_FRAME = 0.005
_AUDIBLE = 0.01  # of the loudest frame's mean amplitude

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """How a speaker sounds.

    Attributes:
        language: eSpeak NG's name of the language or accent: "en-us", "en" (British), "en-gb-scotland", ...
        variant: a voice of `espeak-ng-data/voices/!v`, such as "m1" or "f2"; empty for the accent's own.
        speed_wpm: words per minute, 80 to 450.
        pitch: 0 to 100.
        pitch_range: 0 (monotone) to 100.
    """

    language: str = "en-us"
    variant: str = ""
    speed_wpm: int = 175
    pitch: int = 50
    pitch_range: int = 50

    @property
    def name(self) -> str:
        """The name by which eSpeak NG selects accent and variant."""
        return f"{self.language}+{self.variant}" if self.variant else self.language


@dataclass(frozen=True)
class SpokenWord:
    """A word of the text with its own time: `text[offset : offset + length]`, seconds from the first sample."""

    offset: int
    length: int
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """What was said.

    Attributes:
        samples: (N,) int16, mono; begins and ends with sound.
        sampling_rate: samples per second.
        words: in the order of the text. eSpeak NG runs some function words together ("of the") and reports only
            the first; the others are missing here, and the first one's end leaves them their share of the time.
    """

    samples: np.ndarray
    sampling_rate: int
    words: tuple[SpokenWord, ...]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sampling_rate


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """`espeak_EVENT`: positions in the text count characters from 1, `sample` counts from the first one."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def synthesize(text: str, voice: Voice) -> Speech:
    """Speaks a sentence.

    Equal arguments give equal samples, in any process and whatever was spoken before.

    Args:
        text: plain text; times are given for its words, a word being a run of characters without a space.
        voice: who speaks.

    Raises:
        CwjaxError: eSpeak NG is not installed or does not know the voice, or nothing in the text can be spoken.
    """
    chunks: list[bytes] = []
    events: list[tuple[int, int]] = []  # character offset, sample

    def collect(samples: "ctypes._Pointer[ctypes.c_short]", count: int, batch: "ctypes._Pointer[_Event]") -> int:
        if count and samples:
            chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while batch[index].type != _EVENT_LIST_TERMINATED:
            if batch[index].type == _EVENT_WORD:
                events.append((batch[index].text_position - 1, batch[index].sample))
            index += 1
        return 0

    callback = _SynthCallback(collect)
    encoded = text.encode() + b"\0"
    with _library(voice) as library:
        library.espeak_SetSynthCallback(callback)
        for parameter, value in (
            (_RATE, voice.speed_wpm),
            (_PITCH, voice.pitch),
            (_PITCH_RANGE, voice.pitch_range),
        ):
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_Synth(encoded, len(encoded), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)

    samples = np.frombuffer(b"".join(chunks), np.int16)
    audible = np.flatnonzero(_audible_frames(samples))
    if not len(audible):
        raise CwjaxError(f"eSpeak NG says nothing for the text {text!r}: give it letters or digits")
    frame = round(_FRAME * SAMPLING_RATE)
    first, last = int(audible[0]) * frame, min((int(audible[-1]) + 1) * frame, len(samples))
    return Speech(samples[first:last], SAMPLING_RATE, tuple(_words(text, events, samples[first:last], first)))


def phonemes(text: str, voice: Voice, ipa: bool = False) -> str:
    """The phonemes of a text in eSpeak NG's own notation or in that of the IPA, clauses joined by spaces.

    Raises:
        CwjaxError: eSpeak NG is not installed or does not know the voice.
    """
    encoded = ctypes.create_string_buffer(text.encode())
    rest = ctypes.c_void_p(ctypes.addressof(encoded))
    clauses = []
    with _library(voice) as library:
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        while rest.value is not None:
            clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, _IPA if ipa else 0).decode())
    return " ".join(clauses)


def _words(text: str, events: list[tuple[int, int]], samples: np.ndarray, first_sample: int) -> Iterator[SpokenWord]:
    """Gives every event to the word it lies in and finds where the words end."""
    tokens = [(match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    tokens = [(start, end) for start, end in tokens if re.search(r"\w", text[start:end])]
    starts: dict[int, int] = {}  # number of the token -> sample; long numbers have several events, the first counts
    for position, sample in events:
        index = next((number for number, (_, end) in enumerate(tokens) if position < end), None)
        if index is not None:
            starts.setdefault(index, min(max(sample - first_sample, 0), len(samples)))
    timed = sorted(starts)
    audible = _audible_frames(samples)
    for index, following in zip(timed, [*timed[1:], len(tokens)], strict=True):
        start = starts[index]
        end = _end_of_sound(audible, start, starts.get(following, len(samples)))
        letters = [sum(map(str.isalnum, text[slice(*tokens[number])])) for number in range(index, following)]
        end = start + (end - start) * letters[0] // sum(letters)
        offset = tokens[index][0]
        yield SpokenWord(offset, tokens[index][1] - offset, start / SAMPLING_RATE, end / SAMPLING_RATE)


def _end_of_sound(audible: np.ndarray, start: int, end: int) -> int:
    """The sample before `end` where the sound stops, or `end` where the silence is no longer than a closure."""
    frame = round(_FRAME * SAMPLING_RATE)
    heard = np.flatnonzero(audible[start // frame : end // frame])
    if not len(heard):
        return end
    stop = (start // frame + int(heard[-1]) + 1) * frame
    return stop if end - stop > _LONGEST_CLOSURE * SAMPLING_RATE else end


def _audible_frames(samples: np.ndarray) -> np.ndarray:
    """(N,) int16 -> one bool for each frame of `_FRAME` seconds: louder than silence."""
    frame = round(_FRAME * SAMPLING_RATE)
    padded = np.pad(samples.astype(np.float32), (0, -len(samples) % frame))
    level = np.abs(padded).reshape(-1, frame).mean(axis=1)
    return level > _AUDIBLE * level.max(initial=0.0)


@contextmanager
def _library(voice: Voice) -> Iterator[ctypes.CDLL]:
    """eSpeak NG freshly loaded, set to a voice; unloaded afterwards."""
    loader = _loader()
    data = Path(loader.get_data_path())
    variants = data / "voices" / "!v"
    if voice.variant and voice.variant not in {path.name for path in variants.iterdir()}:
        raise CwjaxError(f"eSpeak NG has no voice variant {voice.variant!r}: choose one of {variants}")
    with _one_at_a_time:  # two threads would share the one loaded copy
        library = ctypes.CDLL(loader.get_library_path())
        try:
            if library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), 0) != SAMPLING_RATE:
                raise CwjaxError(f"{data}: eSpeak NG does not start, reinstall it with pip install 'cwjax[demo]'")
            library.espeak_ng_SetRandSeed(ctypes.c_long(_NOISE_SEED))
            if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
                raise CwjaxError(
                    f"eSpeak NG has no language {voice.language!r}: name one of {data / 'lang'}, such as en-us"
                )
            yield library
        finally:
            library.espeak_Terminate()
            unload = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary  # POSIX, Windows
            unload(library._handle)


def _loader() -> ModuleType:
    """The module that knows where the library is."""
    try:
        return importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise CwjaxError("speaking needs eSpeak NG: pip install 'cwjax[demo]'") from error
