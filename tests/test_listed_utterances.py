"""What all readers of listed utterances share: which are kept, and what is known about each."""

from pathlib import Path

import numpy as np
import soundfile

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.segmentation_settings import SegmentationSettings

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
