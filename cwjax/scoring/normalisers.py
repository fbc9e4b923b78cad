"""Texts as they are compared: what published scorers do to references and hypotheses before words are counted.

| name | what it does |
|---|---|
| whisper | English: Whisper's `EnglishTextNormalizer`; others: `basic`, but marks (as Hindi's vowel signs) are kept |
| basic | Whisper's `BasicTextNormalizer` as published: marks become spaces; without spaces, characters are words |
| plain | case and punctuation aside, nothing else: words in brackets stay, numbers stay as written |
| is21 | LibriSpeech's spelling as far as letters go: capitals and all punctuation but apostrophes inside words aside |
| contextasr | that of ContextASR-Bench; needs the package `contractions` |
| none | nothing, words are what stands between spaces |

Every text is brought to Unicode's NFC first, so that no figure depends on how an accent was stored. All but the
published ones drop invisible characters, and keep the two i of Turkish apart.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

import regex
from whisper_normalizer.basic import BasicTextNormalizer, remove_symbols
from whisper_normalizer.english import EnglishTextNormalizer

from cwjax.data.examples.whisper_tokens import language_names
from cwjax.errors import CwjaxError
from cwjax.extras import require_package

Normaliser = Callable[[str], str]
"""A text to one whose words stand between spaces."""

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km", "yue"})
"""Languages written without spaces between words, whose characters are scored (Radford et al. 2022, appendix C)."""

REMEMBERED, SHORT = 10_000, 500
"""How many texts are remembered with their normalised form, and the characters of those that are."""

_TURKIC = str.maketrans({"I": "ı", "İ": "i"})
_INVISIBLE = regex.compile(r"[\p{Cf}--\u200c\u200d]", regex.V1)  # not the joiners, which Persian and Hindi write with
_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")
# What ContextASR-Bench takes for punctuation: U+201A, U+300D and U+FF0E are missing there, too.
_CONTEXTASR_PUNCTUATION = regex.compile(
    r"""[,;(){}\[\]"|:!?.#$%&*+/<=>@\\^_`~\-'\u3000-\u3003\u3008-\u300c\u300e-\u3011\u3014-\u301f\u3030\u303e\u303f\u2013-\u2015"""
    r"""\u2018\u2019\u201b-\u201f\u2022\u2026\u2027\u2032\u2033\u00b7\u30fb\u4e36\ufe4f\uff01-\uff0d\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff64]"""
)
_BETWEEN_CHARACTERS = regex.compile(
    r"(?<=[\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana}])(?=[\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana}\p{IsLatin}])"
    r"|(?<=\p{IsLatin})(?=[\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana}])"
)


@cache
def language_code(language: str) -> str:
    """The code of a language given as code, name or tag: "en", "English", "en-GB"; unknown ones as they are."""
    first = re.split(r"[-_]", language.strip().lower())[0]
    return next((code for code, names in language_names().items() if language.strip().lower() in names), first)


@cache
def normaliser(name: str, language: str = "en") -> Normaliser:
    """One of `NORMALISERS` for a language.

    Raises:
        CwjaxError: there is none of this name, or it needs a package that is not installed.
    """
    if name not in NORMALISERS:
        raise CwjaxError(f"{name}: no normaliser, but one of {', '.join(NORMALISERS)}")
    normalise = NORMALISERS[name](language_code(language))

    def whole(text: str) -> str:
        return normalise(unicodedata.normalize("NFC", text))

    remembered = lru_cache(REMEMBERED)(whole)  # one reference stands under several conditions, one word in many lists
    return lambda text: (remembered if len(text) <= SHORT else whole)(text)


def plain_words(text: str, language: str = "") -> list[str]:
    """Words of a text without case and punctuation, marks kept; words in brackets stay."""
    return normaliser("plain", language)(text).split()


def joined_characters(words: list[str], language: str) -> str:
    """What the character error rate compares: words with single spaces, or with none where none are written."""
    return ("" if language_code(language) in UNSPACED else " ").join(words)


def _lower(text: str, language: str) -> str:
    text = text.translate(_TURKIC) if language in ("tr", "az") else text.replace("İ", "i")
    return text.lower()


def _whisper(language: str) -> Normaliser:
    if language == "en":
        return EnglishTextNormalizer()
    basic = BasicTextNormalizer(preserve_marks=True, split_letters=language in UNSPACED)
    return lambda text: basic(_INVISIBLE.sub("", _lower(text, language)))


def _basic(language: str) -> Normaliser:
    return BasicTextNormalizer(split_letters=language in UNSPACED)


def _plain(language: str) -> Normaliser:
    return lambda text: remove_symbols(_INVISIBLE.sub("", _lower(text, language)), preserve_marks=True).lower()


def _is21(language: str) -> Normaliser:
    words = regex.compile(r"[\w\p{M}--_]+(?:'[\w\p{M}--_]+)*", regex.V1)
    return lambda text: " ".join(words.findall(_lower(text.translate(_APOSTROPHES), language)))


def _contextasr(language: str) -> Normaliser:
    english = language != "zh"
    if english:
        require_package("contractions", "the normaliser contextasr")
        import contractions

    def normalise(text: str) -> str:
        text = text.lower() if text.isupper() else text
        if english:
            for letter in "Oo":
                text = re.sub(rf"^{letter}'\s|\s{letter}'$|\s{letter}'\s", f" {letter} ", text)
            text = contractions.fix(text, leftovers=False, slang=False)
        text = _BETWEEN_CHARACTERS.sub(" ", _CONTEXTASR_PUNCTUATION.sub(" ", text))
        return _letters_joined(text.split()).lower()

    return normalise


def _letters_joined(words: list[str]) -> str:
    """Runs of single letters as one word, each letter with the plural's s that may follow it."""
    joined: list[str] = []
    spelled = False  # whether the word before was a letter
    for word in words:
        letter = (word[0].islower() or word[0].isupper()) and word[1:] in ("", "s")
        if letter and spelled:
            joined[-1] += word
        else:
            joined.append(word)
        spelled = letter
    return " ".join(joined)


NORMALISERS: dict[str, Callable[[str], Normaliser]] = {
    "whisper": _whisper,
    "basic": _basic,
    "plain": _plain,
    "none": lambda _: lambda text: text,
    "is21": _is21,
    "contextasr": _contextasr,
}
"""Makers of normalisers, by the code of a language."""
