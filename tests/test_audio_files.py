"""Lists of recordings: two formats, the rule for contexts, names that do not clash, and what is refused."""

import json
from pathlib import Path

import pytest

from cwjax.commands.audio_files import AudioFile, gather_audio_files, read_text
from cwjax.errors import CwjaxError


def test_the_command_line_and_both_kinds_of_lists(tmp_path):
    entries = [
        {"audio": "a.ogg", "context": 'bees, "wax"\nand honey'},
        {"audio": "/b.wav"},
        {"audio": "c.m4a", "context": ""},
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    expected = [
        AudioFile(Path("talk.ogg"), "sailing", "talk"),
        AudioFile(tmp_path / "a.ogg", 'bees, "wax"\nand honey', "a"),
        AudioFile(Path("/b.wav"), "sailing", "b"),
        AudioFile(tmp_path / "c.m4a", "", "c"),
    ]
    assert gather_audio_files(["talk.ogg"], str(tmp_path / "list.json"), "sailing") == expected
    # In a table an empty cell is no context of its own.
    (tmp_path / "list.CSV").write_text(
        '\ufeffaudio,context\na.ogg,"bees, ""wax""\nand honey"\n/b.wav,\n', encoding="utf-8"
    )
    assert gather_audio_files(["talk.ogg"], str(tmp_path / "list.CSV"), "sailing") == expected[:3]
    (tmp_path / "list.csv").write_text("audio\r\na.ogg\r\n")
    assert gather_audio_files([], str(tmp_path / "list.csv"), "") == [AudioFile(tmp_path / "a.ogg", "", "a")]


def test_no_transcript_overwrites_another():
    paths = ["x/talk.ogg", "y/talk.mp3", "talk-2.wav", "Talk.wav", "talk"]
    names = [one.name for one in gather_audio_files(paths, None, "")]
    assert names == ["talk", "talk-2", "talk-2-2", "Talk-3", "talk-4"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("list.json", b"[", "no valid JSON"),
        ("list.json", b'{"audio": "a.ogg"}', "must be a list"),
        ("list.json", b'[{"audio": "a.ogg"}, {"context": "bees"}]', "entry 2 needs 'audio'"),
        ("list.json", b'[{"audio": 3}]', "entry 1 needs"),
        ("list.json", b'[{"audio": "a.ogg", "context": 3}]', "entry 1 needs"),
        ("list.json", b'[{"audio": "a.ogg", "kontext": "bees"}]', "nothing else"),
        ("list.json", b'["a.ogg"]', "entry 1 needs"),
        ("list.csv", b"file,context\na.ogg,bees\n", "entry 1 needs 'audio'"),
        ("list.csv", b"audio,context\na.ogg,bees,wax\n", "entry 1 needs"),
        ("list.csv", b'audio,context\n"a.ogg,bees\n', "no valid CSV"),
        ("list.csv", b"audio,context\na.ogg,\xff\n", "no UTF-8"),
        ("list.txt", b"a.ogg", "reads .json and .csv"),
    ],
)
def test_what_is_wrong_with_a_list(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CwjaxError, match=reason) as caught:
        gather_audio_files([], str(tmp_path / name), "")
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(CwjaxError, match="cannot be read"):
            read_text(path)
