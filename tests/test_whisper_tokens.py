"""Token layout against OpenAI's own tokenizer, and the tokenizer trained in that layout."""

import json
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperTokenizer

from cwjax.data.examples.whisper_tokens import WhisperTokens, special_tokens, train_tokenizer
from cwjax.data.segment import Utterance
from cwjax.errors import CwjaxError
from cwjax.inference.logit_rules import suppression
from cwjax.inference.options import DecodingOptions

TEXTS = ["They talked about the sail again.", "A bear sleeps; the night is long.", "Öl, 5 km – naïve?"] * 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> WhisperTokens:
    return train_tokenizer(TEXTS, 320, tmp_path_factory.mktemp("tokenizer"))


def multilingual_whisper(directory: Path) -> WhisperTokens:
    """The real multilingual vocabulary, rebuilt from the ranks that OpenAI's package carries."""
    pytest.importorskip("whisper")
    rebuilt().save_pretrained(str(directory))
    return WhisperTokens.read(directory)


@cache
def rebuilt() -> WhisperTokenizer:
    from whisper.tokenizer import get_encoding

    encoding = get_encoding("multilingual", 99)
    ranks = encoding._mergeable_ranks
    byte_names = byte_characters()
    name = {piece: "".join(byte_names[byte] for byte in piece) for piece in ranks}
    merges = []
    for piece, rank in ranks.items():
        if len(piece) > 1:
            left, right = split_at_last_merge(piece, rank, ranks)
            merges.append((name[left], name[right]))
    backend = Tokenizer(models.BPE(vocab={name[piece]: rank for piece, rank in ranks.items()}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens()])
    return WhisperTokenizer(tokenizer_object=backend)


def without_timestamps(directory: Path) -> WhisperTokens:
    """The tokenizer of a directory as older ones are, and faster-whisper's: its timestamps have ids but no names."""
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    first = next(one["id"] for one in content["added_tokens"] if one["content"] == "<|0.00|>")
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < first]
    file.write_text(json.dumps(content))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer"}))
    return WhisperTokens.read(directory)


def byte_characters() -> dict[int, str]:
    """The printable stand-in of each byte in byte-level BPE (Radford et al. 2019): itself, or one above 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def split_at_last_merge(piece: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that byte-pair merging of lower rank leaves of a piece."""
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 2:
        candidates = [(ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1)]
        _, best = min(candidates)
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def test_layout_equals_openai(tmp_path: Path) -> None:
    ours = multilingual_whisper(tmp_path)
    from whisper.tokenizer import get_tokenizer

    theirs = get_tokenizer(True, num_languages=99, language="de", task="translate")
    assert len(ours) == theirs.encoding.n_vocab == 51865
    assert ours.end_of_text == theirs.eot
    assert ours.first_timestamp == theirs.timestamp_begin
    assert ours.prompt("de", timestamps=True, task="translate") == list(theirs.sot_sequence)
    assert ours.prompt("de", timestamps=False, task="translate") == list(theirs.sot_sequence_including_notimestamps)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(" " + text)
        assert ours.decode(theirs.encode(" " + text)) == text


def test_trained_tokenizer_gives_back_any_text(trained: WhisperTokens) -> None:
    for text in [*TEXTS, "日本語 🙂 ß \t tab", "<|endoftext|> in the text"]:
        ids = trained.encode(text)
        assert max(ids) < trained.end_of_text, "text must never become a special token"
        assert trained.decode(ids) == text
    assert trained.end_of_text <= 320
    assert len(trained) == trained.end_of_text + len(special_tokens())
    assert trained.is_multilingual


def test_same_texts_give_the_same_tokenizer(trained: WhisperTokens, tmp_path: Path) -> None:
    again = train_tokenizer(TEXTS, 320, tmp_path)
    assert again.tokenizer.get_vocab() == trained.tokenizer.get_vocab()


def test_transcript_with_timestamps_never_runs_backwards(trained: WhisperTokens) -> None:
    utterances = [Utterance(0.0, 1.499, "One"), Utterance(1.49, 1.49, "two"), Utterance(40, 50, "three")]
    tokens = trained.transcript(utterances, timestamps=True)
    times = [token - trained.first_timestamp for token in tokens if token >= trained.first_timestamp]
    assert times[:4] == [0, 75, 75, 76]
    assert times == sorted(times)
    assert times[4] == 1500
    assert tokens[-1] == trained.end_of_text
    assert trained.decode(tokens) == "One two three"
    assert trained.transcript(utterances, timestamps=False) == [*trained.encode("One two three"), trained.end_of_text]


@pytest.mark.parametrize("timestamps", [False, True])
def test_a_language_without_spaces_gets_none(tmp_path: Path, timestamps: bool) -> None:
    """OpenAI's vocabulary has 你好 as a token; a space before it would be another."""
    tokens = multilingual_whisper(tmp_path)
    said = tokens.transcript([Utterance(0, 1, "你好"), Utterance(1, 2, "世界。")], timestamps, "zh")
    text = "".join(tokens.text([token]) for token in said if tokens.is_text(token))
    assert text == "你好世界。"


def test_what_is_no_whisper_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CwjaxError, match=str(tmp_path)):
        WhisperTokens.read(tmp_path)
    with pytest.raises(CwjaxError, match="at least 256"):
        train_tokenizer(TEXTS, 100, tmp_path)


def test_timestamps_need_no_names(tmp_path: Path) -> None:
    named = multilingual_whisper(tmp_path)
    unnamed = without_timestamps(tmp_path)
    assert len(unnamed.tokenizer) == 50364
    assert len(unnamed) == len(named) == 51865
    spoken = [Utterance(0.5, 1.5, "They talked."), Utterance(2, 30, "The night is long.")]
    assert unnamed.transcript(spoken, timestamps=True) == named.transcript(spoken, timestamps=True)
    assert suppression(unnamed, 51865, DecodingOptions()).always.tolist() == (
        suppression(named, 51865, DecodingOptions()).always.tolist()
    )


def test_a_transcript_has_the_tokens_of_its_utterances_and_no_others(trained: WhisperTokens) -> None:
    """Whatever space stands around them, so that what is counted of each is what a window of all of them has."""
    utterances = [Utterance(0, 1, " They talked "), Utterance(1, 2, " "), Utterance(2, 3, "again.\n")]
    expected = [*trained.encode("They talked"), *trained.encode("again."), trained.end_of_text]
    assert trained.transcript(utterances, timestamps=False) == expected
