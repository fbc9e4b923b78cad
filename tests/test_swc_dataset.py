"""The Spoken Wikipedia as a sequence: descriptions, waveforms and texts belong to each other."""

from pathlib import Path

import numpy as np
import pytest
from sounding import File, heard, steady, word, write_article

import cwjax.data
from cwjax.data import SWCDataset
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.errors import CwjaxError


@pytest.fixture
def dataset(tmp_path: Path) -> SWCDataset:
    for number in range(5):
        files = (File(2.2, 44_100, 2, "ogg"), File(4.0, 22_050, 1)) if number % 2 else (File(6.0),)
        write_article(tmp_path / f"Talk_{number}", steady(10 * number, 12, 0.5), files, title=f"Talk {number}")
    (tmp_path / "Talk_3" / "audio2.wav").unlink()
    return SWCDataset(tmp_path, SegmentationSettings(max_duration=2.4, pad=0.05))


def test_lists_belong_to_each_other(dataset: SWCDataset) -> None:
    assert len(dataset) == 5
    descriptions, waveforms, texts, segments = dataset[1]
    assert len(descriptions) == len(waveforms) == len(texts) == len(segments) > 1
    for description, waveform, text in zip(descriptions, waveforms, texts, strict=True):
        assert description.startswith("Talk 1.")
        assert waveform.dtype == np.float32
        said = text.replace(".", "").split()
        assert [word(number) for number, _, _ in heard(waveform)] == said
    lead = " ".join(map(word, range(10, 14))) + "."
    assert lead in descriptions[-1]
    assert lead not in descriptions[0]


def test_batches_of_articles(dataset: SWCDataset, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CwjaxError, match=r"audio2.*missing"):
        dataset[3]
    sizes = [{segment.article for segment in batch.segments} for batch in dataset.batches(2)]
    assert sizes == [{"Talk_0", "Talk_1"}, {"Talk_2", "Talk_4"}]
    assert "audio2" in caplog.text
    both = dataset[:2]
    assert both.texts == dataset[0].texts + dataset[1].texts


def test_a_folder_without_articles(tmp_path: Path) -> None:
    with pytest.raises(CwjaxError, match="does not look like a Spoken Wikipedia"):
        SWCDataset(tmp_path)
    with pytest.raises(AttributeError, match="no attribute"):
        cwjax.data.nothing  # noqa: B018
