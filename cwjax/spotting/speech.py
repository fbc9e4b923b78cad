"""Speech to train a phrase spotter with: sentences full of rare words and names, spoken by synthetic voices.

eSpeak NG speaks in many accents and voices. More natural voices take turns with it: of flite, RHVoice and SVOX Pico
where Debian's packages `flite`, `rhvoice` with `rhvoice-english` and `libttspico-utils` are installed, of piper (a
voice's ONNX file), of Kokoro (a folder) and of the package `hibari-tts`. Words of training, validation and test differ,
and so do the voices. Everything follows from the seed.
"""

import importlib
import json
import logging
import random
import re
import shutil
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soundfile
import soxr

from cwjax.data.audio.augmentation import perturb_speed
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.audio.mixing import add_noise, reverberate
from cwjax.demo.espeak import Voice, phonemes, synthesize
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

Split = Literal["train", "validation", "test"]

WORD_LANGUAGES = {"en": 60000, **dict.fromkeys(("de", "fr", "es", "it", "nl", "pl", "sv", "pt"), 4000)}
"""Of which languages' word lists so many of the most frequent words are taken, by `wordfreq`."""

NAME_LOCALES = (
    *("en_US", "en_GB", "en_IN", "en_NG", "en_KE", "de_DE", "de_AT", "fr_FR", "es_ES", "es_MX", "it_IT", "pl_PL"),
    *("cs_CZ", "sv_SE", "nl_NL", "fi_FI", "da_DK", "no_NO", "hu_HU", "tr_TR", "pt_BR", "ro_RO", "hr_HR", "id_ID"),
    *("ga_IE", "et_EE", "lt_LT", "yo_NG", "zu_ZA", "ha_NG", "is_IS", "vi_VN"),
)
"""Locales of `faker` whose first and last names are taken."""

_COMMON_WORDS = 3000
_SHARES = {"test": 0.12, "validation": 0.2}  # up to which part of 0..1 a word's hash may be; the rest is for training

# fmt: off
_SENTENCES = {
    "train": (
        "{} and {} came back from {} last week.", "We asked {} about the {} again.", "The {} was found near {}.",
        "In the second chapter, {} writes about {} and {}.", "My neighbour {} sold the {} to {}.",
        "Nobody in {} had ever seen a {} before.", "They called it {}, after {}.", "Is {} the same as {}?",
        "First came {}, then {}, and at last {}.", "I would like to thank {} and {} for their help.",
        "The road from {} to {} was closed.", "Please send the {} to {} by Friday.", "{} is what we call {}.",
        "Before the war, {} lived with {} in {}.", "The word {} comes up twice, {} only once.",
        "As {} said to {}, it depends on the {}.", "You can buy {} and {} at the market in {}.",
        "Doctor {} gave a talk on {}.", "The museum of {} shows {} and some {}.", "A letter from {} mentions {}.",
        "Between {} and {} there is a small lake.", "She studied {} with Professor {}.", "Have you met {} from {}?",
        "It was {} who first described the {}.", "His book on {} was printed in {}.", "{}, {}, {} and so on.",
        "The company {} was bought by {}.", "Take the {} first, and then the {}.", "Our guest today is {}, from {}.",
        "They moved from {} to {} when {} was born.", "What does {} have to do with {}?", "I never liked {} or {}.",
        "The old name of {} was {}.", "Without {}, the {} would not work.", "Let us talk about {} for a minute.",
        "When {} met {}, everything changed.", "The tests with {} failed, but {} was fine.", "Ask {}.", "{}!",
        "Good morning, {}, this is {}.", "The results for {} are better than those for {}.", "Here is {}.",
    ),
    "validation": (
        "Yesterday {} wrote to {} about a {}.", "Few people know that {} was once part of {}.", "We begin with {}.",
        "The {} of {} is famous.", "There was no sign of {} or of {}.", "{} took the {} home.", "And this is {}.",
        "After {} had left, {} looked for the {}.", "The report names {} and {}.", "Who is {}, and why {}?",
    ),
    "test": (
        "The story begins in {}, where {} kept a {}.", "Later that year {} followed {}.", "Some say {}, others {}.",
        "At the meeting {} spoke against {}.", "For the {} we need {} and {}.", "Next to {} stands the {}.",
        "It took {} three days to reach {}.", "He compared {} with {}.", "The painting shows {}.", "Remember {}?",
    ),
}
_VARIANTS = {
    "train": (
        *("", "m1", "m2", "m4", "m5", "m7", "f1", "f2", "f5", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis"),
        *("Gene", "Jacky", "Lee", "Mario", "Michael", "linda"),
    ),
    "validation": ("m8", "f3"),
    "test": ("m3", "m6", "f4"),
}
_ACCENTS = ("en-us", "en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-scotland", "en-029")
_PROGRAMS = {
    "flite": ("flite", "-voice", "{voice}", "-t", "{text}", "-o", "{file}"),
    "rhvoice": ("RHVoice-test", "-p", "{voice}", "-q", "standard", "-o", "{file}"),  # reads from its input
    "pico": ("pico2wave", "-l", "{voice}", "-w", "{file}", "--", "{text}"),
}
# fmt: on
_seeding = threading.Lock()  # of onnxruntime, whose seed is one for the whole process


@dataclass(frozen=True)
class SpeechSettings:
    """What is spoken.

    Attributes:
        train_windows, validation_windows, test_windows: how many of each, in the length of the model's window.
        words: a file of words and names, one a line; empty: those that the packages wordfreq and faker carry.
        train_voices, validation_voices, test_voices: who speaks, as `KIND:VOICE` or, to speak more or less often than
            others, `KIND:VOICE=WEIGHT`: `espeak` (in the split's own variants), `flite:slt`, `rhvoice:bdl`,
            `pico:en-US`, `hibari:heart`, `piper:FILE.onnx` with its JSON beside it, `kokoro:FOLDER/bf_emma` with
            Kokoro's model (the first `kokoro-*.onnx`) and voices (`voices-*.bin`) in the folder.
        rare_share: share of sentences made for rare words; the others are common words in any order.
        no_speech_share: share of windows with noise, tones or nothing.
        noise_share, room_share: share of windows with a noise, with a room.
        signal_to_noise: lowest and highest, in decibels.
        speed: lowest and highest factor by which natural voices are played faster, which changes the voice, too.
    """

    train_windows: int = 1000
    validation_windows: int = 60
    test_windows: int = 60
    words: str = ""
    train_voices: tuple[str, ...] = (
        *("espeak=7", "flite:slt", "flite:awb", "rhvoice:alan", "rhvoice:bdl", "rhvoice:clb", "rhvoice:slt"),
        "pico:en-US",
    )
    validation_voices: tuple[str, ...] = ("espeak=2", "flite:kal16")
    test_voices: tuple[str, ...] = ("espeak=2", "flite:rms", "pico:en-GB")
    rare_share: float = 0.75
    no_speech_share: float = 0.03
    noise_share: float = 0.5
    room_share: float = 0.3
    signal_to_noise: tuple[float, float] = (5.0, 30.0)
    speed: tuple[float, float] = (0.88, 1.12)


@dataclass(frozen=True)
class Sentence:
    """What is said in a window from `start` to `end` seconds; `phrases` are the rare words and names in it."""

    text: str
    start: float
    end: float
    phrases: tuple[str, ...]
    voice: str


@dataclass
class Window:
    """A window's samples at 16 kHz, (n,) float32, and what is said in it."""

    samples: np.ndarray
    sentences: list[Sentence] = field(default_factory=list)


@lru_cache(maxsize=4)
def vocabulary(words: str = "") -> dict[Split, tuple[str, ...]]:
    """The words of every split; none is in two, however it is written.

    Raises:
        CwjaxError: the file cannot be read or has few words, or neither package is installed.
    """
    found = _words_of_file(words) if words else _words_of_packages()
    splits: dict[Split, dict[str, str]] = {"train": {}, "validation": {}, "test": {}}
    for word in found:
        splits[_split(word.casefold())].setdefault(word.casefold(), word)
    if min(map(len, splits.values())) < 10:
        raise CwjaxError(f"{words}: only {len(found)} words can be used; give some thousand")
    return {split: tuple(spelled.values()) for split, spelled in splits.items()}


def _split(word: str) -> Split:
    place = zlib.crc32(word.encode()) % 10000 / 10000
    return next((split for split, end in _SHARES.items() if place < end), "train")


def _words_of_file(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CwjaxError(f"{file}: cannot be read as a list of words ({error}); give a UTF-8 text file") from error
    return [line.strip() for line in lines if line.strip()]


def _words_of_packages() -> list[str]:
    try:
        import wordfreq

        importlib.import_module("faker")  # whose names `_names` takes
    except ImportError as error:
        raise CwjaxError(
            f"a spotter's training takes words from the package {error.name}, which is not installed here: "
            "pip install 'cwjax[spotter]', or name a file with --speech.words"
        ) from error
    found = [word for language, count in WORD_LANGUAGES.items() for word in wordfreq.top_n_list(language, count)]
    return [word for word in [*_names(), *found] if 3 <= len(word) <= 20 and word.isalpha() and _is_latin(word)]


def _is_latin(word: str) -> bool:
    return all(ord(letter) < 0x250 for letter in word)


def _names() -> Iterator[str]:
    for locale in NAME_LOCALES:
        try:
            provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        except ImportError:
            continue
        for kind in ("first_names", "first_names_male", "first_names_female", "last_names"):
            for entry in getattr(provider, kind, ()):
                yield from str(entry).split()


@lru_cache(maxsize=1)
def common_words() -> tuple[str, ...]:
    """Frequent English words, which stand around the others in every split."""
    try:
        import wordfreq
    except ImportError:
        return tuple(sorted({word for text in _SENTENCES["train"] for word in text.split() if word.isalpha()}))
    return tuple(word for word in wordfreq.top_n_list("en", _COMMON_WORDS) if word.isalpha() and word.isascii())


@lru_cache(maxsize=8)
def cast(settings: SpeechSettings, split: Split) -> dict[str, float]:
    """Who speaks in a split, and how often against the others; the log names those whose program is not installed.

    Raises:
        CwjaxError: a voice cannot be read or speaks in two splits, or none is left.
    """
    weights: dict[str, float] = {}
    for voice, weight in _voices(settings, split).items():
        kind = voice.partition(":")[0]
        other = next((one for one in get_args(Split) if one != split and voice in _voices(settings, one)), None)
        if other and kind != "espeak":
            raise CwjaxError(f"{voice}: speaks in {split} and in {other}, which must not share voices; name it once")
        if kind in _PROGRAMS and not shutil.which(_PROGRAMS[kind][0]):
            log.warning("%s: %s does not speak, for %s is not installed", split, voice, _PROGRAMS[kind][0])
        elif weight:
            weights[voice] = weight
    if not weights:
        raise CwjaxError(f"{split}: none of its voices is installed; add espeak to --speech.{split}-voices")
    return weights


def _voices(settings: SpeechSettings, split: Split) -> dict[str, float]:
    weights = {}
    kinds = "|".join([*_PROGRAMS, "piper", "kokoro", "hibari"])
    for entry in getattr(settings, f"{split}_voices"):
        found = re.fullmatch(rf"(espeak|(?:{kinds}):.+?)(?:=(\d+\.?\d*|\.\d+))?", entry)
        if not found:
            raise CwjaxError(f"{entry}: is no voice; write espeak, flite:slt, piper:FILE.onnx or piper:FILE.onnx=0.5")
        weights[found[1]] = float(found[2] or 1)
    return weights


def make_window(settings: SpeechSettings, split: Split, seconds: float, seed: str) -> Window:
    """Speaks a window full of sentences, or makes one without speech.

    Raises:
        CwjaxError: eSpeak NG is missing, or a voice that the settings name does not speak.
    """
    chance = random.Random(f"{seed} {split}")
    numbers = np.random.default_rng(chance.getrandbits(32))
    length = round(seconds * SAMPLING_RATE)
    if chance.random() < settings.no_speech_share:
        return Window(_without_speech(length, numbers))
    samples = np.zeros(length, np.float32)
    sentences = []
    # Anew for each window: the noise in its speech goes on from where the sentence before has left it.
    piper = cache(lambda file: Piper(Path(file), chance.getrandbits(31)))
    at = chance.uniform(0.0, 1.5)
    until = seconds if chance.random() < 0.8 else seconds * chance.random()  # the last window of a recording is short
    while at < until:
        text, phrases = make_sentence(settings, split, chance)
        try:
            spoken, voice = speak(text, settings, split, chance, piper)
        except CwjaxError as error:
            if "says nothing" not in str(error):
                raise
            continue
        start, room = round(at * SAMPLING_RATE), length - round(at * SAMPLING_RATE)
        spoken = spoken * np.float32(10 ** chance.uniform(-0.9, 0) * 0.5 / max(1e-4, np.abs(spoken).max()))
        samples[start : start + len(spoken)] = spoken[:room]
        if len(spoken) <= room:
            sentences.append(Sentence(text, at, at + len(spoken) / SAMPLING_RATE, phrases, voice))
        at += len(spoken) / SAMPLING_RATE + chance.uniform(0.1, 0.8)
    if chance.random() < settings.room_share:
        samples = reverberate(samples, _room(numbers))
    if chance.random() < settings.noise_share:
        samples = add_noise(samples, _noise(length, numbers), chance.uniform(*settings.signal_to_noise))
    return Window(samples, sentences)


def make_sentence(settings: SpeechSettings, split: Split, chance: random.Random) -> tuple[str, tuple[str, ...]]:
    """A sentence, and the rare words and names in it."""
    words = vocabulary(settings.words)[split]
    if chance.random() >= settings.rare_share:
        chosen = [chance.choice(common_words()) for _ in range(chance.randint(3, 12))]
        place = chance.randrange(len(chosen))
        chosen[place] = chance.choice(words)
        return " ".join(chosen).capitalize() + ".", (chosen[place],)
    template = chance.choice(_SENTENCES[split])
    phrases = []
    for _ in range(template.count("{}")):
        phrase = " ".join(chance.choice(words) for _ in range(chance.choices((1, 2, 3), (80, 17, 3))[0]))
        phrases.append(phrase.title() if chance.random() < 0.5 else phrase)
    return template.format(*phrases), tuple(phrases)


def speak(
    text: str,
    settings: SpeechSettings,
    split: Split,
    chance: random.Random,
    piper: Callable[[str], "Piper"] = lambda file: Piper(Path(file), 0),
) -> tuple[np.ndarray, str]:
    """A sentence by one of a split's voices, float32 samples at 16 kHz, and who speaks.

    Raises:
        CwjaxError: the voice does not speak, or says nothing.
    """
    weights = cast(settings, split)
    name = chance.choices(list(weights), list(weights.values()))[0]
    kind, _, voice = name.partition(":")
    if kind == "espeak":
        accent, variant = chance.choice(_ACCENTS), chance.choice(_VARIANTS[split])
        pitch, spread = chance.randint(25, 75), chance.randint(25, 75)
        one = Voice(accent, variant, chance.randint(130, 210), pitch, spread)
        speech = synthesize(text, one)
        return soxr.resample(speech.samples / np.float32(32768), speech.sampling_rate, SAMPLING_RATE), one.name
    if kind == "piper":
        samples, rate = piper(voice).speak(text, chance)
        name = f"piper:{Path(voice).stem}"
    elif kind == "kokoro":
        samples, rate = _kokoro(voice, text)
        name = f"kokoro:{Path(voice).name}"
    elif kind == "hibari":
        speaker = _hibari(voice)
        samples, rate = speaker(text, seed=chance.getrandbits(31)), speaker.sample_rate
    else:
        samples, rate = _program(text, kind, voice)
    if not len(samples):
        raise CwjaxError(f"{text}: {name} says nothing")
    samples = soxr.resample(samples.astype(np.float32), rate, SAMPLING_RATE) if rate != SAMPLING_RATE else samples
    return perturb_speed(samples, chance.uniform(*settings.speed)), name


def _program(text: str, kind: str, voice: str) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        command = [part.format(voice=voice, text=text, file=file) for part in _PROGRAMS[kind]]
        try:
            subprocess.run(command, check=True, capture_output=True, input=text.encode(), timeout=60)
            return soundfile.read(file, dtype="float32")
        except (OSError, subprocess.SubprocessError, soundfile.LibsndfileError) as error:
            raise CwjaxError(
                f"{kind}:{voice}: does not speak ({error}); install the voice, or leave it out of --speech.*-voices"
            ) from error


@lru_cache(maxsize=8)
def _hibari(voice: str) -> Any:
    try:
        from hibari import Hibari

        return Hibari(voice)
    except ImportError as error:
        raise CwjaxError(f"hibari:{voice}: needs the package hibari-tts: pip install hibari-tts") from error
    except Exception as error:
        raise CwjaxError(f"hibari:{voice}: does not speak ({error}); hibari:heart comes with the package") from error


def _kokoro(voice: str, text: str) -> tuple[np.ndarray, int]:
    folder, speaker = Path(voice).parent, Path(voice).name
    accent = "en-gb" if speaker.startswith("b") else "en-us"
    try:
        return _kokoro_model(folder).create(text, speaker, lang=accent)
    except ImportError as error:
        raise CwjaxError(f"kokoro:{voice}: needs the package kokoro-onnx: pip install kokoro-onnx") from error
    except Exception as error:
        raise CwjaxError(
            f"kokoro:{voice}: does not speak ({error}); {folder} must hold kokoro-v1.0.onnx and voices-v1.0.bin of "
            "kokoro-onnx's releases on GitHub, and the voice must be one of theirs"
        ) from error


@lru_cache(maxsize=1)
def _kokoro_model(folder: Path) -> Any:
    from kokoro_onnx import Kokoro

    files = {name: sorted(folder.glob(name)) for name in ("kokoro-*.onnx", "voices-*.bin")}
    if missing := [name for name, found in files.items() if not found]:
        raise FileNotFoundError(f"{missing[0]} is missing")
    return Kokoro(*(str(found[0]) for found in files.values()))


class Piper:
    """A voice of piper: a network from phonemes to samples.

    Args:
        file: the voice, ONNX.
        seed: of the noise in its speech.

    Raises:
        CwjaxError: onnxruntime is not installed, or the file is no voice.
    """

    def __init__(self, file: Path, seed: int):
        try:
            import onnxruntime
        except ImportError as error:
            raise CwjaxError("piper's voices need the package onnxruntime: pip install onnxruntime") from error
        try:
            self.settings = json.loads(file.with_name(file.name + ".json").read_text(encoding="utf-8"))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            with _seeding:
                onnxruntime.set_seed(seed)
                self.network = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise CwjaxError(f"{file}: is no voice of piper that can be read ({error}); fetch it again") from error

    def speak(self, text: str, chance: random.Random) -> tuple[np.ndarray, int]:
        """A sentence as samples (n,) float32, and their rate."""
        numbers = self.settings["phoneme_id_map"]
        ids = [*numbers["^"], *numbers["_"]]
        for sound in phonemes(text, Voice(self.settings["espeak"]["voice"]), ipa=True) + ".":
            ids += [*numbers.get(sound, ()), *numbers["_"]] if sound in numbers else ()
        how = self.settings["inference"]
        slower = how["length_scale"] * chance.uniform(0.85, 1.15)
        scales = np.array([how["noise_scale"], slower, how["noise_w"]], np.float32)
        inputs: dict[str, Any] = {"input": np.array([ids + numbers["$"]], np.int64), "scales": scales}
        inputs["input_lengths"] = np.array([inputs["input"].shape[1]], np.int64)
        return self.network.run(None, inputs)[0].reshape(-1), self.settings["audio"]["sample_rate"]


def _noise(length: int, numbers: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with the frequency's `slope`-th power: white, pink, brown and between."""
    spectrum = numbers.normal(size=length // 2 + 1) + 1j * numbers.normal(size=length // 2 + 1)
    colored = spectrum / np.maximum(np.arange(length // 2 + 1), 20) ** (numbers.uniform(0, 2) / 2)
    noise = np.fft.irfft(colored, length)
    return (noise / np.abs(noise).max()).astype(np.float32)


def _room(numbers: np.random.Generator) -> np.ndarray:
    """A room's impulse response: the direct sound and a noise that dies away within 0.15 to 0.6 s."""
    times = np.arange(round(0.5 * SAMPLING_RATE)) / SAMPLING_RATE
    tail = (
        numbers.normal(size=len(times)) * 10 ** (-3 * times / numbers.uniform(0.15, 0.6)) * numbers.uniform(0.02, 0.1)
    )
    tail[0] = 1.0
    return tail.astype(np.float32)


def _without_speech(length: int, numbers: np.random.Generator) -> np.ndarray:
    """Silence, noise, or chords that change twice a second."""
    kind = numbers.integers(3)
    if kind == 0:
        return np.zeros(length, np.float32)
    if kind == 1:
        return _noise(length, numbers) * np.float32(10 ** numbers.uniform(-3, -0.5))
    times = np.arange(length) / SAMPLING_RATE
    beats = (2 * times).astype(int)
    chords = 110 * 2 ** (numbers.integers(0, 36, size=(3, beats.max() + 1)) / 12)
    decay = np.exp(-3 * (2 * times - beats))
    tones: Sequence[np.ndarray] = [
        np.sin(2 * np.pi * chord[beats] * times * n) / n for chord in chords for n in (1, 2, 3)
    ]
    return (0.05 * decay * np.sum(tones, axis=0)).astype(np.float32)
