"""Texts that make careless patterns take minutes; all are read in the time that their length is worth."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cwjax.data.corpora import switchboard, telephone
from cwjax.data.corpora.swc import article

SECONDS = 3.0
"""Far more than is needed, and a hundredth of what growth with the square takes."""

TEXTS: list[tuple[Callable[[str], object], str]] = [
    (article.reader_key, "[[a|" * 60_000),
    (article.reader_key, "[a://" * 40_000),
    (article.reader_key, "[a://b" + " " * 100_000),
    (article.reader_key, "user:" * 40_000),
    (switchboard.clean, "[laughter-" * 20_000),
    (switchboard.clean, "[a/" * 40_000),
    (telephone.clean, '<"' * 60_001),
    (telephone.clean, "<a " * 60_000 + '"'),
]


@pytest.mark.parametrize(("read", "text"), TEXTS, ids=lambda one: one[:12] if isinstance(one, str) else one.__name__)
def test_text(read: Callable[[str], object], text: str) -> None:
    start = time.process_time()
    read(text)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("text", ["<!--" * 50_000, "\n" * 60_000, "|user_name=" + " " * 100_000, " |" * 100_000])
def test_descriptions(tmp_path: Path, text: str) -> None:
    (tmp_path / "audiometa.txt").write_text(text)
    start = time.process_time()
    assert article._described_reader(tmp_path / "audiometa.txt") == ""
    assert time.process_time() - start < SECONDS


def test_comments_are_left_out(tmp_path: Path) -> None:
    for text, reader in (
        ("<!-- |user_name=No -->\n  | user_name = Jo <!-- x\n-->\n", "Jo"),
        ("|user_name=Jo\n<!-- open |user_name=No", "Jo"),
        ("<!-- -- > -->|user_name=Jo", "Jo"),
    ):
        (tmp_path / "audiometa.txt").write_text(text)
        assert article._described_reader(tmp_path / "audiometa.txt") == reader
