"""Corpora -> segments -> examples -> batches; knows nothing of models."""

from typing import Any

__all__ = ["SWCDataset"]


def __getattr__(name: str) -> Any:
    """Public names, imported when they are wanted: what reads audio and XML is not needed everywhere."""
    if name == "SWCDataset":
        from cwjax.data.corpora.swc.dataset import SWCDataset

        return SWCDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
