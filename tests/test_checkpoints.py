"""Checkpoints on a disk that fills up. Whole runs, killed and continued, are in test_runs.py."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cwjax.errors import CwjaxError
from cwjax.training.checkpoints import Checkpoints

PARAMETERS = {"kernel": np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32)}


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """A limit on the size of files makes writes fail in the operating system, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    checkpoints.save_best(1, PARAMETERS)
    checkpoints.wait()
    with full_disk():
        with pytest.raises(CwjaxError, match="frozen: the frozen parameters cannot be written"):
            checkpoints.save_frozen(PARAMETERS)
        checkpoints.save_best(2, PARAMETERS)
        with pytest.raises(CwjaxError, match="best: the checkpoint of step 2 cannot be written"):
            checkpoints.wait()
    checkpoints.close()
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["1"]
    assert not list(tmp_path.glob("frozen*"))
    again = Checkpoints(tmp_path, kept=2)
    again.save_frozen(PARAMETERS)
    again.save_best(3, PARAMETERS)
    again.close()
    assert (tmp_path / "frozen").is_dir()
