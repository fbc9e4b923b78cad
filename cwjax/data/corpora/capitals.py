"""Transcripts in capitals, in which case says nothing, as sentences."""

import re


def as_sentences(text: str) -> str:
    """Small letters, but for the first of each sentence and the word "I"; single spaces."""
    text = " ".join(text.lower().split())
    text = re.sub(r"(^|[.!?] )(\w)", lambda match: match[1] + match[2].upper(), text)
    return re.sub(r"\bi\b", "I", text)
