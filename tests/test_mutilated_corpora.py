"""Five hundred articles, each spoilt in one way: nothing crashes, no text meets a wrong sound, every loss is named.

Words are tones, so a segment whose audio is not that of its text would be heard.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sounding import File, heard, steady, word, write_article

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.cuts import read_cuts
from cwjax.data.prepared.build import prepare

CORPORA, ARTICLES = 20, 25
SETTINGS = SegmentationSettings(max_duration=2.4, pad=0.05)

Spoil = Callable[[Path, np.random.Generator], Path | None]
"""Spoils the article in a folder, and gives the folder if it has another name then."""

BOMB = '<!DOCTYPE article [<!ENTITY a "{0}"><!ENTITY b "&a;&a;&a;&a;">]><article><meta/><d>&b;</d></article>'
EXTERNAL = (
    '<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]><article><d><p><s><t>&x;</t></s></p></d></article>'
)


def audio_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("audio*.ogg"))


def truncated(pattern: str) -> Spoil:
    def spoil(folder: Path, generator: np.random.Generator) -> None:
        path = generator.choice(sorted(folder.glob(pattern)))
        os.truncate(path, int(generator.integers(path.stat().st_size)))

    return spoil


def flipped(pattern: str) -> Spoil:
    def spoil(folder: Path, generator: np.random.Generator) -> None:
        path = generator.choice(sorted(folder.glob(pattern)))
        content = bytearray(path.read_bytes())
        first, length = int(generator.integers(len(content))), int(generator.choice([1, 8, 300]))
        for place in range(first, min(first + length, len(content))):
            content[place] ^= int(generator.integers(1, 256))
        path.write_bytes(content)

    return spoil


def wrong_offset(folder: Path, generator: np.random.Generator) -> None:
    info = json.loads((folder / "info.json").read_text())
    part = info["audio_files"][int(generator.integers(len(info["audio_files"])))]
    strange = [None, "soon", "nan", -3.0, 1e300, [], True, part["offset"] + 0.3, part["offset"] - 0.3, 17.0]
    part["offset"] = strange[int(generator.integers(len(strange)))]
    (folder / "info.json").write_text(json.dumps(info))


def strange_info(folder: Path, generator: np.random.Generator) -> None:
    strange = [
        "[]", "7", "{", "", "[" * 5000, '{"audio_files": 5}', '{"audio_files": [1, "x", null]}', "\x00", "null",
        '{"article": {"title": "\\ud800", "language": "\\ud800"}, "article_parsed": {"reader": "\\udfff"}}',
    ]  # fmt: skip
    (folder / "info.json").write_text(strange[int(generator.integers(len(strange)))])


def missing_file(folder: Path, generator: np.random.Generator) -> None:
    generator.choice(sorted(folder.iterdir())).unlink()


def no_article(folder: Path, generator: np.random.Generator) -> None:
    strange = [
        "<article><meta/><d/></article>", "<article><meta/></article>", "", "no XML", "<html/>", "\ufeff",
        "<article><d><p>text<s>text</s></p></d></article>", BOMB.format("x" * 1000), EXTERNAL,
    ]  # fmt: skip
    text = strange[int(generator.integers(len(strange)))]
    encoding = "utf-16" if "DOCTYPE" in text and generator.random() < 0.3 else "utf-8"
    (folder / "aligned.swc").write_text(text, encoding=encoding)


def strange_times(folder: Path, generator: np.random.Generator) -> None:
    text = (folder / "aligned.swc").read_text()
    head, *tokens = text.split(' start="')
    strange = ["-5", "0", "999999999999", "99999", "1.5", "", "soon", "1e3", "3000", "10", " 700 ", "1_000"]
    for place in generator.choice(len(tokens), int(generator.integers(1, 4)), replace=False):
        value = strange[int(generator.integers(len(strange)))]
        if generator.random() < 0.5:
            tokens[place] = value + '"' + tokens[place].partition('"')[2]
        else:
            start, _, rest = tokens[place].partition('" end="')
            tokens[place] = f'{start}" end="{value}"' + rest.partition('"')[2]
    (folder / "aligned.swc").write_text(' start="'.join([head, *tokens]))


def seconds_for_milliseconds(folder: Path, generator: np.random.Generator) -> None:
    text = (folder / "aligned.swc").read_text()
    for number in sorted(
        {int(part.partition('"')[0]) for edge in ("start", "end") for part in text.split(f' {edge}="')[1:]}
    ):
        for edge in ("start", "end"):
            text = text.replace(f' {edge}="{number}"', f' {edge}="{-(-number // 1000)}"')
    (folder / "aligned.swc").write_text(text)


def link_out(folder: Path, generator: np.random.Generator) -> None:
    path = generator.choice([*audio_files(folder), folder / "aligned.swc", folder / "info.json"])
    outside = folder.parents[1] / f"outside-{folder.name}-{path.name}"
    path.rename(outside)
    path.symlink_to(generator.choice([outside, Path("/etc/passwd"), Path("/nowhere"), path]))


def folder_link_out(folder: Path, generator: np.random.Generator) -> None:
    outside = folder.parents[1] / f"outside-{folder.name}"
    folder.rename(outside)
    folder.symlink_to(outside)


def no_plain_file(folder: Path, generator: np.random.Generator) -> None:
    path = generator.choice([*audio_files(folder), folder / "aligned.swc"])
    path.unlink()
    if generator.random() < 0.5:
        path.mkdir()
    else:
        os.mkfifo(path)


def other_language(folder: Path, generator: np.random.Generator) -> None:
    text = (folder / "aligned.swc").read_text()
    code = generator.choice(["fr", "", "klingon", "EN", "en-US"])
    (folder / "aligned.swc").write_text(
        text.replace('key="DC.language" value="en"', f'key="DC.language" value="{code}"')
    )


def no_letters(folder: Path, generator: np.random.Generator) -> None:
    text = (folder / "aligned.swc").read_text()
    for number in range(100):
        text = text.replace(f"<t>{word(number)}<", f"<t>{number}<")
    (folder / "aligned.swc").write_text(text)


def strange_name(folder: Path, generator: np.random.Generator) -> Path:
    names = [
        "it's \"so\"", "100%", "%2f%00%zz", "a b\tc", "-rf", "$(x)", "back\\slash", "ä ö ü 日本", "line\nbreak",
        "x" * 200, os.fsdecode(b"caf\xe9"), "'; drop table", ".hidden", "&amp;<x>",
    ]  # fmt: skip
    name = names[int(generator.integers(len(names)))]
    new = folder.with_name(f"{name} {folder.name}")
    # Without a title of its own the article is called as its folder.
    text = (folder / "aligned.swc").read_text().replace('"DC.title"', '"x"').replace('"DC.identifier"', '"y"')
    (folder / "aligned.swc").write_text(text)
    folder.rename(new)
    return new


def foreign_sound(folder: Path, generator: np.random.Generator) -> None:
    path = generator.choice(audio_files(folder))
    strange = [b"", b"OggS", b"no sound at all" * 50, b"\x00" * 5000, (folder / "aligned.swc").read_bytes()]
    path.write_bytes(strange[int(generator.integers(len(strange)))])


def one_file_too_many(folder: Path, generator: np.random.Generator) -> None:
    files = audio_files(folder)
    names = {"audio.ogg", "audio1.ogg", "audio3.ogg", "audio7.OGG", "audio02.ogg"} - {path.name for path in files}
    shutil.copy(files[0], folder / generator.choice(sorted(names)))


SPOILS: dict[str, Spoil] = {
    "truncated XML": truncated("aligned.swc"),
    "truncated audio": truncated("audio*.ogg"),
    "truncated info": truncated("info.json"),
    "damaged XML": flipped("aligned.swc"),
    "damaged audio": flipped("audio*.ogg"),
    **{function.__name__: function for function in (
        wrong_offset, strange_info, missing_file, no_article, strange_times, seconds_for_milliseconds, link_out,
        folder_link_out, no_plain_file, other_language, no_letters, strange_name, foreign_sound, one_file_too_many,
    )},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Articles of one and of two files, from which all others are made."""
    root = tmp_path_factory.mktemp("whole")
    forms = [
        (File(5.6, 22_050, 1, "ogg"),),
        (File(2.75, 16_000, 2, "ogg"), File(2.85, 22_050, 1, "ogg")),
        (File(1.53, 44_100, 1, "ogg"), File(4.0, 16_000, 1, "ogg")),
    ]
    return [
        write_article(root / f"whole{number}", steady(30 * number, 12, 0.3), files, title="Title", reader=f"R {number}")
        for number, files in enumerate(forms)
    ]


def said(text: str) -> list[str]:
    return [one for one in text.replace(".", "").split() if one]


@pytest.mark.parametrize("seed", range(CORPORA))
def test_no_crash_no_wrong_sound_and_every_loss_is_named(seed: int, whole: list[Path], tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    root = tmp_path / "english"
    kinds: dict[str, tuple[str, int]] = {}
    for number in range(ARTICLES):
        kind = list(SPOILS)[(seed * ARTICLES + number) % len(SPOILS)]
        origin = int(generator.integers(len(whole)))
        folder = shutil.copytree(whole[origin], root / f"Article_{number}")
        folder = SPOILS[kind](folder, generator) or folder
        kinds[os.fsencode(folder.name).decode(errors="backslashreplace")] = (kind, origin)
    for origin, folder in enumerate(whole):
        shutil.copytree(folder, root / folder.name)
        kinds[folder.name] = ("nothing", origin)

    corpus = prepare("swc", root, tmp_path / "out", SETTINGS)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (cuts,) = (tmp_path / "out" / "shards").glob("cuts.*")
    recordings = list(read_cuts(cuts))
    kept: dict[str, list[str]] = {name: [] for name in kinds}
    for place, segment in enumerate(corpus.segments):
        name = recordings[segment.recording].custom["source"].rpartition("/")[0]
        numbers = [tone for tone, _, _ in heard(corpus.audio(place))]
        texts = [str(number) for number in numbers] if kinds[name][0] == "no_letters" else list(map(word, numbers))
        assert texts == said(segment.text), f"{kinds[name]}: another sound than {segment.text!r}"
        kept[name] += texts

    for name, (kind, origin) in kinds.items():
        reason = report["failures"].get(name, "")
        assert "\n" not in reason.replace(name, "")
        assert "Error:" not in reason, f"{kind}: not foreseen: {reason}"
        facts, intact = report["articles"].get(name, {}), report["articles"][f"whole{origin}"]
        if kind == "nothing":
            assert len(kept[name]) >= 9
        elif kept[name] != kept[f"whole{origin}"]:
            named = (
                reason
                or report["warnings"].get(name)
                or facts["timed_ratio"] < intact["timed_ratio"]
                or facts.get("dropped_seconds") != intact.get("dropped_seconds")
                or facts.get("holes") != intact.get("holes")
            )
            assert named, f"{kind}: {name} lost words without a word"


def test_every_kind_of_harm_can_do_harm(whole: list[Path], tmp_path: Path) -> None:
    """Each of the kinds above costs words at least once in twenty, so that the test above tests it."""
    harmless = {"other_language", "strange_name", "one_file_too_many", "truncated info", "strange_info"}
    generator = np.random.default_rng(0)
    for kind in SPOILS.keys() - harmless:
        root = tmp_path / kind.replace(" ", "_")
        names = []
        for number in range(8):
            folder = shutil.copytree(whole[number % 3], root / "english" / f"Article_{number}")
            names.append((SPOILS[kind](folder, generator) or folder).name)
        shutil.copytree(whole[0], root / "english" / "whole")
        prepare("swc", root, root / "out", SETTINGS)
        report = json.loads((root / "out" / "report.json").read_text())
        damage = [
            name for name in report["failures"] | report["warnings"] | report["articles"]
            if report["articles"].get(name, {}).get("seconds", 0) < report["articles"]["english/whole"]["seconds"]
        ]  # fmt: skip
        assert damage, kind
