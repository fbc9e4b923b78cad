"""Whisper's token layout: what stands around a transcript, and a tokenizer trained in that layout.

A Whisper vocabulary is byte-level BPE followed by special tokens in a fixed order: end of text,
start of transcript, the languages, the tasks, markers, and 1501 timestamps 0.02 s apart
(Radford et al. 2022, section 2.3; openai/whisper, tokenizer.py).
"""

import itertools
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.segment import SPACELESS, Utterance, join_texts
from cwjax.errors import CwjaxError

TIMESTAMP_STEP = 0.02
"""Seconds between neighbouring timestamp tokens."""
LAST_TIMESTAMP = 30.0
"""Seconds of the last timestamp token."""
TIMESTAMPS = round(LAST_TIMESTAMP / TIMESTAMP_STEP) + 1
"""How many timestamp tokens there are."""
GPT2_END_OF_TEXT = 50256
_END = "<|endoftext|>"
SETTINGS = {
    "tokenizer_class": "WhisperTokenizer",
    "add_prefix_space": False,
    **{f"{role}_token": _END for role in ("bos", "eos", "pad", "unk")},
}
"""What transformers needs to know of a tokenizer in this layout."""


@dataclass(frozen=True)
class WhisperTokens:
    """A Whisper tokenizer with the ids that decoding and labels need."""

    tokenizer: TextTokenizer

    @classmethod
    def read(cls, directory: str | Path) -> "WhisperTokens":
        """Reads the tokenizer files of a directory.

        Raises:
            CwjaxError: there is no tokenizer, or not one in Whisper's layout.
        """
        tokenizer = TextTokenizer.read(directory)
        if "<|startoftranscript|>" not in tokenizer.get_vocab():
            raise CwjaxError(f"{directory}: its tokenizer has no <|startoftranscript|>: not a Whisper tokenizer")
        tokenizer.backend.encode_special_tokens = True  # as text: what was said never becomes a special token
        return cls(tokenizer)

    def __len__(self) -> int:
        """How many ids have a meaning; older tokenizers do not name the timestamps.

        Tokens that were added for further training stand behind those.
        """
        return max(len(self.tokenizer), self.first_timestamp + TIMESTAMPS)

    def id(self, token: str) -> int:
        """Id of a special token such as `<|en|>`."""
        number = self._vocabulary.get(token)
        if number is None:
            raise CwjaxError(f"the tokenizer has no token {token}")
        return number

    def agree(self, others: "WhisperTokens") -> bool:
        """Whether ids mean the same to others, whatever they call the markers before the timestamps."""
        named = [
            {name: number for name, number in one._vocabulary.items() if number < one.no_speech}
            for one in (self, others)
        ]
        return named[0] == named[1] and (self.first_timestamp, self._added) == (others.first_timestamp, others._added)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self.tokenizer.get_vocab()

    @cached_property
    def end_of_text(self) -> int:
        """Ends every transcript, and fills what follows it."""
        return self.id("<|endoftext|>")

    @cached_property
    def first_timestamp(self) -> int:
        """Id of `<|0.00|>`; `<|t|>` is `t / 0.02` above it."""
        return self.id("<|notimestamps|>") + 1

    def is_timestamp(self, token: int) -> bool:
        """Whether an id is that of a timestamp."""
        return self.first_timestamp <= token < self.first_timestamp + TIMESTAMPS

    def is_text(self, token: int) -> bool:
        """Whether an id is that of text: of the vocabulary, or of an added token that is not special."""
        return token < self.end_of_text or token in self._added

    @cached_property
    def _added(self) -> dict[int, str]:
        """Id -> text of the tokens that were added behind the timestamps as text."""
        added = self.tokenizer.backend.get_added_tokens_decoder()
        behind = self.first_timestamp + TIMESTAMPS
        return {number: token.content for number, token in added.items() if number >= behind and not token.special}

    @cached_property
    def is_multilingual(self) -> bool:
        """Whether the prompt names language and task; English-only Whispers, on GPT-2's vocabulary, do not."""
        return self.end_of_text != GPT2_END_OF_TEXT

    @cached_property
    def no_speech(self) -> int:
        """Says that a window holds no speech; named `<|nospeech|>` or `<|nocaptions|>`."""
        return self.first_timestamp - 2

    @cached_property
    def languages(self) -> dict[str, int]:
        """ISO 639-1 code -> id of every language the model knows, in the order of ids."""
        first, last = self.id("<|startoftranscript|>") + 1, self.id("<|translate|>")
        names = self.tokenizer.convert_ids_to_tokens(list(range(first, last)))
        return {name[2:-2]: number for number, name in enumerate(names, start=first)}

    def language_code(self, language: str) -> str:
        """ISO 639-1 code of a language given by code or English name.

        Raises:
            CwjaxError: the model does not know it.
        """
        name = language.strip().lower()
        code = next((code for code, names in language_names().items() if name in names), name)
        if code not in self.languages or (not self.is_multilingual and code != "en"):
            known = ", ".join(sorted(self.languages)) if self.is_multilingual else "en only"
            raise CwjaxError(f"language {language!r} is not known to this model; it knows {known}")
        return code

    def prompt(self, language: str, timestamps: bool, task: str = "transcribe") -> list[int]:
        """The tokens a transcript is decoded from: start, language, task, and no-timestamps unless wanted."""
        tokens = [self.id("<|startoftranscript|>")]
        if self.is_multilingual:
            tokens += [self.id(f"<|{language}|>"), self.id(f"<|{task}|>")]
        return tokens if timestamps else [*tokens, self.id("<|notimestamps|>")]

    def previous(self, said: Sequence[int], longest: int) -> list[int]:
        """What stands before a prompt to tell the decoder what was said: a token that announces it, and the last
        `longest` of the tokens; nothing if there is room for none."""
        return [self.id("<|startofprev|>"), *said[-longest:]] if said and longest > 0 else []

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text, which never become special tokens; Whisper's texts start with a space."""
        return self.tokenizer.encode(" " + text.strip(), add_special_tokens=False)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many ids `encode` gives for each text; none for an empty one."""
        stripped = [text.strip() for text in texts]
        return self.tokenizer.lengths([" " + text if text else "" for text in stripped])

    def pieces(self, text: str) -> list[int]:
        """Ids of a text just as it is, without a space put before it."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def text(self, tokens: Iterable[int]) -> str:
        """Text of tokens just as it is, special and timestamp tokens left out.

        Bytes that are no valid UTF-8, such as the first half of a character, become U+FFFD.
        """
        return self.utf8(tokens).decode("utf-8", errors="replace")

    def utf8(self, tokens: Iterable[int]) -> bytes:
        """Bytes of the text of tokens, which may begin and end within a character."""
        return b"".join(
            self._bytes[token] if token < self.end_of_text else self._added[token].encode()
            for token in tokens
            if self.is_text(token)
        )

    @cached_property
    def _bytes(self) -> list[bytes]:
        """What each text token stands for. Byte-level BPE (Radford et al. 2019) writes the bytes that are no
        printable characters of their own as characters from 256 on."""
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        value = {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
        names = self.tokenizer.convert_ids_to_tokens(list(range(self.end_of_text)))
        return [bytes(value[character] for character in name) for name in names]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of the tokens before the first end of text, special and timestamp tokens left out."""
        return self.text(itertools.takewhile(lambda token: token != self.end_of_text, tokens)).strip()

    def timestamp(self, seconds: float) -> int:
        """Id of the timestamp token nearest to a time within the window."""
        return self.first_timestamp + round(min(max(seconds, 0.0), LAST_TIMESTAMP) / TIMESTAMP_STEP)

    def transcript(self, utterances: Sequence[Utterance], timestamps: bool, language: str = "en") -> list[int]:
        """The tokens of a transcript with its end: what the decoder is to say after the prompt.

        With timestamps every utterance stands between its start and its end, which never run backwards
        and are at least one step apart.
        """
        encode = self.encode if language not in SPACELESS else lambda text: self.pieces(text.strip())
        if not timestamps:
            text = join_texts((piece.text for piece in utterances), language)
            return [*encode(text), self.end_of_text]
        tokens: list[int] = []
        earliest = self.first_timestamp
        for piece in utterances:
            start = max(self.timestamp(piece.start), earliest)
            earliest = max(self.timestamp(piece.end), start + 1)
            tokens += [start, *encode(piece.text), earliest]
        return [*tokens, self.end_of_text]


@cache
def language_names() -> dict[str, list[str]]:
    """ISO 639-1 code -> English names of every language of Whisper, in the order of their tokens."""
    return tomllib.loads((Path(__file__).parent / "languages.toml").read_text(encoding="utf-8"))


def special_tokens() -> list[str]:
    """Whisper's special tokens in their order, the timestamps last."""
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{language}|>" for language in list(language_names())[:99]),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *(f"<|{step * TIMESTAMP_STEP:.2f}|>" for step in range(TIMESTAMPS)),
    ]


def train_tokenizer(texts: Iterable[str], size: int, directory: str | Path) -> WhisperTokens:
    """Trains byte-level BPE of `size` tokens and writes it to `directory` in Whisper's layout.

    Args:
        texts: transcripts; the result depends on nothing else.
        size: BPE tokens, at least 256 (the bytes); the special tokens come on top.
        directory: receives the tokenizer files.
    """
    if size < 256:
        raise CwjaxError(f"model.tokenizer_size is {size}: byte-level BPE needs at least 256 tokens")
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    draft = Tokenizer(models.BPE())
    draft.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    draft.decoder = decoders.ByteLevel()
    draft.train_from_iterator((" " + text.strip() for text in texts), trainer)
    draft.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens()])
    TextTokenizer(draft, SETTINGS).save(directory)
    return WhisperTokens.read(directory)
