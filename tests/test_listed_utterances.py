"""What all readers of listed utterances share: which are kept, and what is known about each."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cwjax.data.corpora.languages import whisper_language
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.examples.whisper_tokens import language_names
from cwjax.errors import CwjaxError

LIMITS = SegmentationSettings(max_duration=2.0)


def test_an_utterance_may_differ_from_its_article(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(64_000), 16_000)
    utterances = [
        ListedUtterance("a", "a.wav", 0.0, 1.0, "eins", language="de", licence="CC0", source="here"),
        ListedUtterance("b", "a.wav", 1.0, 2.0, "two"),
        ListedUtterance("c", "a.wav", 2.5, 3.0, "three", gap_before=True),
    ]
    pieces = as_reading(tmp_path, ListedArticle("x", utterances, "en", "BY", "there", "train"), LIMITS).pieces
    one, two, three = (piece.segment for piece in pieces)
    assert (one.language, one.licence, one.source, one.split) == ("de", "CC0", "here", "train")
    assert (two.language, two.licence, two.source) == ("en", "BY", "there")
    assert (two.context.previous, three.context.previous) == ("eins", "")


def test_nothing_of_a_test_set_is_too_long(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(64_000), 16_000)
    utterances = [
        ListedUtterance(split or "unknown", "a.wav", 0.0, 4.0, "a long one", split=split)
        for split in ("train", "validation", "test", "")
    ]
    reading = as_reading(tmp_path, ListedArticle("x", utterances), LIMITS)
    assert [piece.segment.split for piece in reading.pieces] == ["validation", "test"]
    assert reading.dropped == {"too_long": 8.0}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("de", "de"), ("German", "de"), ("de-DE", "de"), ("pt_BR", "pt"), ("eng", "en"), ("ger", "de"), ("deu", "de"),
        ("English-Nigerian", "en"), ("castilian", "es"), ("jv", "jw"), ("nb-NO", "no"), ("nn-NO", "nn"), ("cmn", "zh"),
        ("nan-tw", "zh"), ("yue", "yue"), ("zh-CN", "zh"), ("iw", "he"), ("fil", "tl"), ("arb", "ar"), ("haw", "haw"),
        ("eo", ""), ("ckb", ""), ("rm-sursilv", ""), ("rw", ""), ("klingon", ""), ("", ""), ("-", ""), ("x", ""),
    ],
)  # fmt: skip
def test_languages_by_whatever_name(name: str, code: str) -> None:
    assert whisper_language(name) == code


def test_every_code_and_name_of_whisper_is_known() -> None:
    for code, names in language_names().items():
        assert {whisper_language(name) for name in (code, *names)} == {code}


def test_what_whisper_cannot_write_is_left_out_and_counted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(64_000), 16_000)
    utterances = [
        ListedUtterance("a", "a.wav", 0.0, 1.0, "ein Satz", language="German"),
        ListedUtterance("b", "a.wav", 1.0, 2.5, "unu frazo", language="eo"),
    ]
    reading = as_reading(tmp_path, ListedArticle("x", utterances, ""), LIMITS)
    assert [(piece.segment.id, piece.segment.language) for piece in reading.pieces] == [("a", "de")]
    assert reading.dropped == {"language": 1.5}
    assert reading.warnings == ("x: its language 'eo' is none that Whisper knows; give another code, or leave it out",)
    with pytest.raises(CwjaxError, match="x: its language 'eo' is none that Whisper knows"):
        as_reading(tmp_path, ListedArticle("x", utterances[1:]), LIMITS)
