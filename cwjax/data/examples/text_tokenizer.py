"""Tokenizers as `tokenizer.json` keeps them, read without transformers, which takes seconds to import."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cwjax.errors import CwjaxError
from cwjax.extras import require_package
from cwjax.files import read_json, write_json

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
VOCABULARY_FILES = ("vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
"""What older tokenizers are written in; transformers makes a `tokenizer.json` of them."""


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer of any kind that `tokenizers` knows.

    Attributes:
        backend: splits texts.
        settings: of `tokenizer_config.json`, kept for transformers.
    """

    backend: Tokenizer
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: str | Path) -> "TextTokenizer":
        """Reads the tokenizer of a directory; runs no code of it.

        Raises:
            CwjaxError: there is none, or it is damaged.
        """
        directory = Path(directory)
        if not (directory / TOKENIZER_FILE).is_file():
            return _read_older(directory)
        try:
            backend = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise CwjaxError(
                f"{directory}: holds no readable tokenizer ({TOKENIZER_FILE}: {reason}); fetch it again"
            ) from error
        backend.no_padding()
        backend.no_truncation()
        settings = directory / SETTINGS_FILE
        return cls(backend, read_json(settings) if settings.is_file() else {})

    def save(self, directory: str | Path) -> None:
        """Writes what `read` and transformers read."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TOKENIZER_FILE).write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        # `auto_map` names code of the place it came from.
        kept = {name: value for name, value in self.settings.items() if name != "auto_map"}
        write_json(directory / SETTINGS_FILE, kept)

    def __len__(self) -> int:
        """How many tokens there are."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""
        return self.backend.get_vocab(with_added_tokens=True)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text, between the special tokens that the model wants around it unless told otherwise."""
        return self.backend.encode(text, add_special_tokens=add_special_tokens).ids

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many ids each text has, special tokens not counted."""
        return [len(encoded) for encoded in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    @property
    def special_tokens(self) -> int:
        """How many special tokens stand around a text."""
        return self.backend.num_special_tokens_to_add(False)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token of `encode` stands; empty spans for special tokens."""
        return self.backend.encode(text).offsets

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens by their names."""
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """Names of ids; None for ids without one."""
        return [self.backend.id_to_token(int(one)) for one in ids]


def has_tokenizer(directory: Path) -> bool:
    """Whether a directory has the files of a tokenizer."""
    return any((directory / name).is_file() for name in (TOKENIZER_FILE, *VOCABULARY_FILES))


def _read_older(directory: Path) -> TextTokenizer:
    # transformers makes a tokenizer of a few special tokens up where the vocabulary is missing.
    if not has_tokenizer(directory):
        raise CwjaxError(
            f"{directory}: holds no readable tokenizer ({TOKENIZER_FILE} is missing); copy there the tokenizer's files "
            "of the model that the weights are from"
        )
    require_package("transformers", f"{directory}: a tokenizer without {TOKENIZER_FILE}")
    try:
        from transformers import AutoTokenizer

        whole = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        with tempfile.TemporaryDirectory() as scratch:
            whole.save_pretrained(scratch)
            return TextTokenizer.read(scratch)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CwjaxError(f"{directory}: holds no readable tokenizer ({reason}); put {TOKENIZER_FILE} there") from error
