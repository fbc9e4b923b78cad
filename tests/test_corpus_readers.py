"""Each kind of corpus is recognised by its layout, and taken for no other."""

from pathlib import Path

import pytest
from small_corpora import (
    common_voice,
    conversations,
    earnings,
    fisher,
    gigaspeech,
    libriheavy,
    librispeech,
    mls,
    own_files,
    peoples_speech,
    tedlium,
)

from cwjax.data.corpora.registry import READERS, require_corpus
from cwjax.errors import CwjaxError

WRITERS = {
    "tedlium": tedlium,
    "fisher": fisher,
    "mls": mls,
    "peoples_speech": peoples_speech,
    "earnings": earnings,
    "librispeech": librispeech,
    "libriheavy": libriheavy,
    "common_voice": common_voice,
    "switchboard": conversations,
    "gigaspeech": gigaspeech,
    "manifest": own_files,
}


@pytest.mark.parametrize("name", WRITERS)
def test_another_corpus_is_recognised(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / "root")
    require_corpus(name, tmp_path / "root")
    for other in READERS.keys() - {name}:
        with pytest.raises(CwjaxError, match=f"does not look like .* but like .*: that one is called {name}"):
            require_corpus(other, tmp_path / "root")
