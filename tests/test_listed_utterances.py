"""What all readers of listed utterances share: which are kept, and what is known about each."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cwjax.data.corpora.languages import whisper_language
from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.examples.whisper_tokens import language_names
from cwjax.data.segment import segment_of
from cwjax.errors import CwjaxError

LIMITS = SegmentationSettings(max_duration=2.0)


def test_an_utterance_may_differ_from_its_article(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(64_000), 16_000)
    utterances = [
        ListedUtterance("a", "a.wav", 0.0, 1.0, "eins", language="de", licence="CC0", source="here"),
        ListedUtterance("b", "a.wav", 1.0, 2.0, "two"),
        ListedUtterance("c", "a.wav", 2.5, 3.0, "three", gap_before=True),
    ]
    reading = as_reading(tmp_path, ListedArticle("x", utterances, "en", "BY", "there", "train"), LIMITS)
    (track,) = reading.tracks
    one, two = (segment_of([said], reading.articles["x"], 0) for said in track.supervisions[:2])
    assert (one.language, one.licence, one.source) == ("de", "CC0", "here")
    assert reading.splits == {"x": "train"}
    assert (two.language, two.licence, two.source) == ("en", "BY", "there")
    assert [said.custom.get("gap_before", False) for said in track.supervisions] == [False, False, True]


def test_nothing_is_too_long_for_a_reader(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(64_000), 16_000)
    utterances = [
        ListedUtterance(split or "unknown", "a.wav", 0.0, 4.0, "a long one", split=split)
        for split in ("train", "validation", "test", "")
    ]
    reading = as_reading(tmp_path, ListedArticle("x", utterances), LIMITS)
    (track,) = reading.tracks
    assert [said.custom.get("split", "") for said in track.supervisions] == ["train", "validation", "test", ""]
    assert reading.dropped == {}


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
    assert [(said.id, said.language) for track in reading.tracks for said in track.supervisions] == [("a", "de")]
    assert reading.dropped == {"language": 1.5}
    assert reading.warnings == ("x: its language 'eo' is none that Whisper knows; give another code, or leave it out",)
    with pytest.raises(CwjaxError, match="x: its language 'eo' is none that Whisper knows"):
        as_reading(tmp_path, ListedArticle("x", utterances[1:]), LIMITS)
