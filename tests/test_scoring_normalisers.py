"""Texts of all scripts as they are compared."""

import unicodedata

import pytest

from cwjax.errors import CwjaxError
from cwjax.scoring.normalisers import joined_characters, language_code, normaliser, plain_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("They saw the SAIL, again!", ["they", "saw", "the", "sail", "again"]),
        ("a well-known (spoken) [word] – 1,938", ["a", "well", "known", "spoken", "word", "1", "938"]),
        ("Straße_x", ["straße", "x"]),
        ("İstanbul", ["istanbul"]),
        ("soft\u00adhyphen \ufeffmark", ["softhyphen", "mark"]),
        ("  ...  ", []),
    ],
)
def test_plain_words(text: str, words: list[str]) -> None:
    assert plain_words(text) == words


@pytest.mark.parametrize("name", ["whisper", "plain", "is21", "none"])
def test_words_that_differ_in_a_vowel_sign_differ(name: str) -> None:
    """Hindi की, का, कि: the published basic normaliser makes a consonant of them all."""
    normalise = normaliser(name, "hi")
    assert len({normalise(word) for word in ("की", "का", "कि", "क")}) == 4
    assert len(normalise("हिन्दी में").split()) == 2
    assert normaliser("basic", "hi")("की").strip() == normaliser("basic", "hi")("का").strip()


@pytest.mark.parametrize("name", ["whisper", "basic", "plain", "is21", "none"])
@pytest.mark.parametrize("text", ["Café Müller", "Ťažký", "한국어", "Điện"])
def test_how_accents_are_stored_makes_no_difference(name: str, text: str) -> None:
    normalise = normaliser(name, "vi")
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


def test_turkish_has_two_letters_i() -> None:
    for name in ("whisper", "plain", "is21"):
        assert normaliser(name, "tr")("ISPARTA İZMİR").split() == ["ısparta", "izmir"]
        assert normaliser(name, "de")("ISPARTA İZMİR").split() == ["isparta", "izmir"]


@pytest.mark.parametrize("language", ["zh", "Chinese", "zh-CN", "ja", "th", "yue"])
def test_characters_are_words_where_words_are_not_spaced(language: str) -> None:
    words = normaliser("whisper", language)("我在北京。").split()
    assert words == list("我在北京")
    assert joined_characters(words, language) == "我在北京"
    assert joined_characters(["in", "Wien"], "de") == "in Wien"


def test_languages_by_code_name_and_tag() -> None:
    found = [language_code(one) for one in ("en", "English", "en-GB", "pt_BR", "Mandarin", "xx")]
    assert found == ["en", "en", "en", "pt", "zh", "xx"]


def test_librispeechs_spelling_keeps_apostrophes_inside_words() -> None:
    assert normaliser("is21")("“Don’t,” said O'Brien's 'friend' – twice.") == "don't said o'brien's friend twice"


def test_prices_and_titles_are_the_same_spoken_and_written() -> None:
    """Once two thirds of these words were wrong."""
    english = normaliser("whisper", "en")
    assert english("Mr. Smith paid $25") == english("mister smith paid twenty-five dollars")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(CwjaxError, match=r"nfkc: no normaliser, but one of whisper, basic"):
        normaliser("nfkc")
