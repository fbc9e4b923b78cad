"""Which recordings are meant, their contexts, names that do not clash, and what is refused."""

import json
import os
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cwjax.commands.audio_files import AudioFile, AudioFiles, read_text
from cwjax.errors import CwjaxError


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("")


def gather(*audio: str, list_file: Path | None = None, context: str = "") -> AudioFiles:
    with closing(AudioFiles(audio, list_file and str(list_file), context)) as found:
        return found


def names(*audio: str) -> dict[str, str]:
    found = gather(*audio)
    assert not found.missing
    return {str(file.path): file.name for file in found.files}


def test_the_command_line_and_both_kinds_of_lists(here, tmp_path):
    folder = tmp_path / "lists"
    touch("talk.ogg", "lists/a.ogg", "b.wav", "lists/sub/c.m4a")
    entries = [
        {"audio": "a.ogg", "context": 'bees, "wax"\nand honey'},
        {"audio": str(tmp_path / "b.wav")},
        {"audio": "sub/c.m4a", "context": ""},
    ]
    (folder / "list.json").write_text(json.dumps(entries))
    expected = [
        AudioFile(Path("talk.ogg"), "sailing", "talk"),
        AudioFile(folder / "a.ogg", 'bees, "wax"\nand honey', "a"),
        AudioFile(tmp_path / "b.wav", "sailing", "b"),
        AudioFile(folder / "sub/c.m4a", "", os.path.join("sub", "c")),
    ]
    assert gather("talk.ogg", list_file=folder / "list.json", context="sailing").files == expected
    # In a table an empty cell is no context of its own.
    (folder / "list.CSV").write_text(
        f'\ufeffaudio,context\na.ogg,"bees, ""wax""\nand honey"\n{tmp_path / "b.wav"},\n', encoding="utf-8"
    )
    assert gather("talk.ogg", list_file=folder / "list.CSV", context="sailing").files == expected[:3]
    (folder / "list.csv").write_text("audio\r\na.ogg\r\n")
    assert gather(list_file=folder / "list.csv").files == [AudioFile(folder / "a.ogg", "", "a")]


def test_folders_are_searched_and_counted(here, caplog):
    caplog.set_level("INFO")
    touch("talks/b/2.MP3", "talks/b/1.mp3", "talks/a.webm", "talks/notes.txt", "talks/.hidden/3.mp3", "talks/._a.webm")
    assert names("talks") == {
        "talks/a.webm": "a",
        "talks/b/1.mp3": os.path.join("b", "1"),
        "talks/b/2.MP3": os.path.join("b", "2"),
    }
    assert "talks: 3 recordings, 2 other files" in caplog.text
    touch("empty/notes.txt")
    assert gather("empty").missing == [
        "empty: no recordings in this folder; files of unusual suffixes have to be named one by one"
    ]


def test_patterns_that_no_shell_expanded(here):
    touch("talks/1.mp3", "talks/2.mp3", "talks/3.txt", "talks/deep/4.mp3", "talk[1].mp3")
    assert list(names("talks/*.mp3")) == ["talks/1.mp3", "talks/2.mp3"]
    assert list(names("talks/**/*.mp3")) == ["talks/1.mp3", "talks/2.mp3", "talks/deep/4.mp3"]
    assert list(names("talk[1].mp3")) == ["talk[1].mp3"]
    (line,) = gather("talks/*.wav").missing
    assert line.startswith("talks/*.wav: no such audio file, and as a pattern it matches nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_pipes_are_read_once(here):
    os.mkfifo("pipe.wav")
    writer = threading.Thread(target=Path("pipe.wav").write_bytes, args=(b"sound" * 100_000,))
    writer.start()
    with closing(AudioFiles(["pipe.wav"], None, "")) as found:
        (file,) = found.files
        assert file.path.read_bytes() == b"sound" * 100_000
        assert file.label == "pipe.wav"
    assert not file.path.exists()
    writer.join()


def test_what_is_no_recording_is_said_at_once(here):
    touch("a.wav")
    found = gather("a.wav", "missing.mp3", "https://example.org/a.mp3", "s3://bucket/b.wav", "", "a.wav/b.wav")
    assert [file.name for file in found.files] == ["a"]
    reasons = [
        "missing.mp3: no such audio file",
        "https://example.org/a.mp3: is an address: download it first",
        "s3://bucket/b.wav: is an address: download it first",
        "'': no such audio file",
        "a.wav/b.wav: cannot be read (Not a directory)",
    ]
    assert len(found.missing) == len(reasons)
    for line, reason in zip(found.missing, reasons, strict=True):
        assert line.startswith(reason)
    Path("list.json").write_text(json.dumps([{"audio": "https://example.org/a.mp3"}, {"audio": "a\0.wav"}]))
    one, two = gather(list_file=Path("list.json")).missing
    assert one.startswith("https://example.org/a.mp3: is an address")
    assert two.startswith("a\\x00.wav: is no path")


def test_no_transcript_overwrites_another(here):
    touch("x/talk.ogg", "y/talk.mp3", "talk-2.wav", "Talk.wav", "talk")
    for order in (1, -1):
        found = names(*["x/talk.ogg", "y/talk.mp3", "talk-2.wav", "Talk.wav", "talk"][::order])
        given = [name.casefold() for name in found.values()]
        assert len(set(given)) == 5
        assert found["x/talk.ogg"] == os.path.join("x", "talk")
        assert found["talk-2.wav"] == "talk-2"


def test_names_do_not_depend_on_what_else_is_given(here):
    touch("talk.mp3", "talk.wav", "alone.wav", "alone.txt", "talks/a/1.mp3", "talks/b/1.mp3")
    assert names("talk.mp3", "talk.wav") == {"talk.mp3": "talk.mp3", "talk.wav": "talk.wav"}
    assert names("talk.wav") == {"talk.wav": "talk.wav"}
    assert names("alone.wav") == {"alone.wav": "alone"}
    assert names("talks") == names("talks/a/1.mp3", "talks/b/1.mp3")


def test_what_is_named_twice_is_transcribed_once(here, caplog):
    caplog.set_level("INFO")
    touch("talks/a.mp3")
    assert names("talks/a.mp3", "talks", "./talks/../talks/a.mp3") == {"talks/a.mp3": "a"}
    assert caplog.text.count("named twice") == 2
    # Under two contexts it is transcribed twice.
    Path("list.json").write_text(json.dumps([{"audio": "talks/a.mp3", "context": one} for one in ("bees", "wax")]))
    files = gather(list_file=Path("list.json")).files
    assert [(file.context, file.name) for file in files] == [("bees", "a"), ("wax", "a-2")]


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
        ("list.json", b'[{"audio": ""}]', "entry 1 needs"),
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
        AudioFiles([], str(tmp_path / name), "")
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(CwjaxError, match="cannot be read"):
            read_text(path)
