"""Languages, as corpora and users call them -> the codes of Whisper's tokens."""

import re
from functools import cache

import langcodes

from cwjax.data.examples.whisper_tokens import language_names

OTHERWISE = {"fil": "tl", "jv": "jw", "nan": "zh", "nb": "no"}
"""Codes that Whisper writes in another way, or that the registry of languages counts as part of one of Whisper's."""


@cache
def whisper_language(name: str) -> str:
    """Whisper's code for a language given by an English name or by a code of ISO 639 or BCP 47, else an empty string.

    Regions are left out ("de-DE" is "de"), and a language that Whisper has only as part of a larger one has that one's
    code: "nb" is "no", "nan" is "zh".
    """
    known = language_names()
    name = re.split(r"[-_. ]", name.strip().lower())[0]
    by_name = {other: code for code, names in known.items() for other in names}
    if name in known or name in by_name:
        return name if name in known else by_name[name]
    try:
        codes = [langcodes.standardize_tag(name, macro=macro) for macro in (False, True)]
    except langcodes.LanguageTagError:
        return ""
    return next((code for code in (OTHERWISE.get(one, one) for one in codes) if code in known), "")


def unknown_language(what: str, name: str) -> str:
    """Why something is left out for its language."""
    return f"{what}: its language {name!r} is none that Whisper knows; give another code, or leave it out"
