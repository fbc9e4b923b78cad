"""Every kind of corpus, written small in its own layout: text, times, speakers and context come out, and the sound.

Words are tones, so that what a segment's text says can be heard in its audio.
"""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from segmented import listed
from sounding import RATE, heard, sound, word, write_sound

from cwjax.data.corpora import fisher as fisher_reader
from cwjax.data.corpora import gigaspeech as gigaspeech_reader
from cwjax.data.corpora import libriheavy as libriheavy_reader
from cwjax.data.corpora import librispeech as librispeech_reader
from cwjax.data.corpora import switchboard
from cwjax.data.corpora import tedlium as tedlium_reader
from cwjax.data.corpora.gigaspeech import clean as clean_gigaspeech
from cwjax.data.corpora.libriheavy import clean as clean_libriheavy
from cwjax.data.corpora.registry import READERS, require_corpus
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.subtitles import read_cues
from cwjax.data.prepared import build
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError

LIMITS = SegmentationSettings()


def prepare(*arguments) -> PreparedCorpus:
    """A prepared corpus, every utterance of which is a segment of its own."""
    return PreparedCorpus.read(build.prepare(*arguments).directory, 0.001)


def words(*numbers: int) -> str:
    return " ".join(map(word, numbers))


def recording(path: Path, *said: tuple[int, float], seconds: float = 4.0, rate: int = RATE) -> Path:
    """A file in which the words (number, start) are heard for 0.2 s each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sound(path, sound([(number, start, start + 0.2) for number, start in said], seconds, rate), rate)
    return path


def require_sound(corpus: PreparedCorpus) -> None:
    """Every segment's audio holds the words of its text, in order, and no others."""
    for place, segment in enumerate(corpus.segments):
        said = [one.strip(".,?!-").lower() for one in segment.text.split()]
        assert [word(number) for number, _, _ in heard(corpus.audio(place))] == said, segment.id


def by_id(corpus: PreparedCorpus) -> dict:
    return {segment.id: segment for segment in corpus.segments}


def report(output: Path) -> dict:
    return json.loads((output / "report.json").read_text())


def librispeech(root: Path) -> None:
    base = root / "LibriSpeech"
    base.mkdir(parents=True)
    (base / "CHAPTERS.TXT").write_text(
        "; CHAPTERS.TXT\n;ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE | PROJECT TITLE\n"
        "198    | 19   | 8.42  | train-clean-100  | 219  | 121   | Chapter 01                | Northanger Abbey\n"
        "2      | 110  | 10.30 | dev-clean        | 53   | 1023  | In | Fashion  | Bleak House\n"
    )
    (base / "SPEAKERS.TXT").write_text("; x\n19   | F | train-clean-100  | 35.78 | Kara Shallenberg\n")
    for subset, reader, chapter, numbers in (
        ("train-clean-100", "19", "198", (0, 1, 3)),
        ("dev-clean", "110", "2", (0,)),
        ("test-other", "7", "8", (5,)),
    ):
        lines = []
        for number in numbers:
            name = f"{reader}-{chapter}-{number:04d}"
            recording(base / subset / reader / chapter / f"{name}.flac", (number, 0.3), (number + 1, 0.6), seconds=1.0)
            lines.append(f"{name} {words(number, number + 1).upper()}\n")
        (base / subset / reader / chapter / f"{reader}-{chapter}.trans.txt").write_text("".join(lines))


def test_librispeech(tmp_path: Path) -> None:
    librispeech(tmp_path / "root")
    corpus = prepare("librispeech", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    segments = by_id(corpus)
    first, second, later = (segments[f"19-198-{number:04d}"] for number in (0, 1, 3))
    assert (first.text, first.speaker, first.article, first.language) == (words(0, 1), "19", "19-198", "en")
    assert (first.context.title, first.context.section) == ("Northanger Abbey", ("Chapter 01",))
    assert (first.split, segments["110-2-0000"].split, segments["7-8-0005"].split) == ("train", "validation", "test")
    assert segments["110-2-0000"].context.section == ("In | Fashion",)
    assert segments["7-8-0005"].context.title == ""
    # What was said before only where the numbers follow each other.
    assert [(one.start, one.end) for one in (first, second, later)] == [(0, 1)] * 3
    assert (second.context.previous, second.context.previous_is_approximate) == (words(0, 1), True)
    assert (first.context.previous, first.context.previous_is_approximate) == ("", False)
    assert later.context.previous == ""
    assert first.licence == "CC BY 4.0"
    assert report(tmp_path / "out")["articles"]["LibriSpeech/train-clean-100/19/198"]["reader"] == "Kara Shallenberg"


def test_librispeech_keeps_its_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    librispeech(tmp_path / "root")
    seen = {}
    as_reading = librispeech_reader.as_reading
    monkeypatch.setattr(
        librispeech_reader,
        "as_reading",
        lambda root, article, *rest: seen.setdefault(article.identifier, article) and as_reading(root, article, *rest),
    )
    for unit in librispeech_reader.articles(tmp_path / "root"):
        librispeech_reader.read(tmp_path / "root", unit, LIMITS)
    assert {name: (one.split, one.subset) for name, one in seen.items()} == {
        "19-198": ("train", "train-clean-100"),
        "110-2": ("validation", "dev-clean"),
        "7-8": ("test", "test-other"),
    }


def test_nothing_of_librispeech_test_sets_is_too_long(tmp_path: Path) -> None:
    librispeech(tmp_path / "root")
    limits = replace(LIMITS, max_duration=0.9, min_duration=0.2)
    corpus = prepare("librispeech", tmp_path / "root", tmp_path / "out", limits)
    assert {"110-2-0000", "7-8-0005"} <= set(by_id(corpus))
    assert "too_long" not in report(tmp_path / "out")["dropped"]


def test_librispeech_names_what_is_wrong(tmp_path: Path) -> None:
    librispeech(tmp_path / "root")
    base = tmp_path / "root" / "LibriSpeech"
    (base / "test-other/7/8/7-8.trans.txt").unlink()
    (base / "train-clean-100/19/198/19-198-0001.flac").write_bytes(b"fLaC")
    with (base / "train-clean-100/19/198/19-198.trans.txt").open("a") as lines:
        lines.write("84-1-0001 A LINE OF ANOTHER CHAPTER\n19-198-0009 TONE9\n")
    corpus = prepare("librispeech", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert set(by_id(corpus)) == {"19-198-0000", "19-198-0003", "110-2-0000"}
    said = report(tmp_path / "out")
    assert "7-8.trans.txt: cannot be read" in said["failures"]["LibriSpeech/test-other/7/8"]
    warned = " ".join(said["warnings"]["LibriSpeech/train-clean-100/19/198"])
    for part in ("19-198-0001.flac", "84-1-0001", "19-198-0009.flac"):
        assert part in warned


def libriheavy(root: Path) -> None:
    track = "small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum_sea_fairies_64kb"
    root.mkdir(parents=True, exist_ok=True)
    recording(root / "librilight" / f"{track}.flac", *((number, 0.5 * number) for number in range(8)))

    def cut(number: int, start: float, duration: float, text: str, before: str) -> str:
        custom = {"texts": [text, text.upper()], "pre_texts": [before, before], "begin_byte": 1, "end_byte": 2}
        supervision = {"id": "x", "recording_id": track, "start": 0, "duration": duration, "channel": 0}
        source = {"type": "file", "channels": [0], "source": f"download/librilight/{track}.flac"}
        text_path = "download/librilight_text/output_text_small_cleaned/Sea Fairies/text.txt"
        return json.dumps(
            {
                "id": f"{track}_{number}",
                "start": start,
                "duration": duration,
                "channel": 0,
                "supervisions": [{**supervision, "language": "English", "speaker": "100", "custom": custom}],
                "recording": {"id": track, "sources": [source], "sampling_rate": 16000, "num_samples": 64000},
                "custom": {"text_path": text_path},
                "type": "MonoCut",
            }
        )

    lines = [
        cut(0, 0.9, 1.0, f"“{word(2)}, {word(3)}.”", "...The sea was calm. He said:"),
        cut(1, 2.4, 1.4, f'" {words(5, 6, 7)}', f"...calm. He said: {words(2, 3)}"),
    ]
    with gzip.open(root / "libriheavy_cuts_small.jsonl.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    with gzip.open(root / "libriheavy_cuts_test_clean.jsonl.gz", "wt") as file:
        file.write(cut(2, 0.4, 0.4, word(1), "") + "\n")


def test_libriheavy(tmp_path: Path) -> None:
    libriheavy(tmp_path / "root")
    corpus = prepare("libriheavy", tmp_path / "root", tmp_path / "out")
    first, second, test = corpus.segments
    assert first.text == f'"{word(2)}, {word(3)}."'
    assert [word(number) for number, _, _ in heard(corpus.audio(0))] == [word(2), word(3)]
    assert [word(number) for number, _, _ in heard(corpus.audio(1))] == second.text.split() == words(5, 6, 7).split()
    assert (first.start, first.end, second.start, second.end) == (0.9, 1.9, 2.4, 3.8)
    assert (first.speaker, first.context.title, first.context.previous) == (
        "100",
        "Sea Fairies",
        "The sea was calm. He said:",
    )
    assert second.context.previous == f"calm. He said: {words(2, 3)}"
    assert not second.context.previous_is_approximate
    assert first.licence == "public domain"
    assert {first.split, second.split, test.split} == {"test"}, "one recording is in one split, whatever the lists say"
    assert clean_libriheavy("’Tis[FN#12]  “so”") == '\'Tis "so"'


def test_libriheavy_reads_one_tree_of_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    libriheavy(root)
    (root / "raw").mkdir()
    for path in root.glob("*.jsonl.gz"):
        shutil.copy(path, root / "raw")
    shutil.copy(root / "libriheavy_cuts_test_clean.jsonl.gz", root / "libriheavy_cuts_test_clean_large.jsonl.gz")
    corpus = prepare("libriheavy", root, tmp_path / "out")
    assert len({segment.id for segment in corpus.segments}) == len(corpus.segments) == 3
    assert "the lists in raw are not read" in caplog.text
    assert (
        "libriheavy_cuts_test_clean_large.jsonl.gz: 1 of its cuts are left out, for an earlier list has them"
        in caplog.text
    )
    for path in root.glob("*.jsonl.gz"):
        path.rename(root / "raw" / path.name)
    (track,) = (root / "librilight").rglob("*.flac")
    assert {unit.audio for unit in libriheavy_reader.articles(root)} == {(track.relative_to(root).as_posix(),), ()}


def test_libriheavy_without_the_book_and_with_damage(tmp_path: Path) -> None:
    libriheavy(tmp_path / "root")
    path = tmp_path / "root" / "libriheavy_cuts_small.jsonl.gz"
    with gzip.open(path, "rt") as file:
        first, second = file.read().splitlines()
    record = json.loads(first)
    del record["custom"], record["supervisions"][0]["custom"]
    record["supervisions"][0]["text"] = words(2, 3)
    with gzip.open(path, "wt") as file:
        file.write(
            "\n".join([json.dumps(record), second[:-30], '{"id": 1}', second.replace("librilight/", "nowhere/")])
        )
    corpus = prepare("libriheavy", tmp_path / "root", tmp_path / "out")
    assert (corpus.segments[0].text, corpus.segments[0].context.title) == (words(2, 3), "")
    reasons = " ".join(report(tmp_path / "out")["failures"].values())
    for part in ("small.jsonl.gz:2: is no cut", "small.jsonl.gz:3: is no cut", "no such audio file"):
        assert part in reasons

    path.write_bytes(path.read_bytes()[:200])
    prepare("libriheavy", tmp_path / "root", tmp_path / "again")
    assert "cannot be read after line" in " ".join(report(tmp_path / "again")["failures"].values())


def common_voice(root: Path, columns: tuple[str, ...] = ()) -> Path:
    folder = root / "cv-corpus-17.0-2024-03-15" / "de"
    heads = columns or (
        "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender",
        "accents", "variant", "locale", "segment",
    )  # fmt: skip
    number = 0
    for table in ("train", "dev", "test"):
        rows = ["\t".join(heads)]
        for speaker in "ab":
            recording(folder / "clips" / f"common_voice_de_{number}.mp3", (number, 0.4), (number + 1, 0.8), seconds=1.5)
            fields = {
                "client_id": f"{table}{speaker}",
                "path": f"common_voice_de_{number}.mp3",
                "sentence": f'{word(number)} "{word(number + 1)}.',
                "sentence_domain": "nature|news" if speaker == "a" else "",
                "locale": "de",
            }
            rows.append("\t".join(fields.get(head, "") for head in heads))
            number += 10
        (folder / f"{table}.tsv").write_text("\n".join(rows) + "\n")
    (folder / "validated.tsv").write_text("no table at all")
    return folder


def test_common_voice(tmp_path: Path) -> None:
    common_voice(tmp_path / "root")
    corpus = prepare("common_voice", tmp_path / "root", tmp_path / "out")
    assert len(corpus.segments) == 6
    for place, segment in enumerate(corpus.segments):
        tones = [word(number) for number, _, _ in heard(corpus.audio(place))]
        assert tones == segment.text.replace('"', "").rstrip(".").split()
        assert segment.duration == pytest.approx(1.5, abs=0.1)
    segments = by_id(corpus)
    first = segments["common_voice_de_0"]
    assert (first.text, first.speaker, first.language, first.split) == (
        f'{word(0)} "{word(1)}.',
        "traina",
        "de",
        "train",
    )
    assert (first.context.categories, first.context.title, first.context.previous) == (("nature", "news"), "", "")
    assert segments["common_voice_de_20"].split == "validation"
    assert segments["common_voice_de_50"].context.categories == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_common_voice_in_whatever_encoding_and_with_what_each_row_says(tmp_path: Path, encoding: str) -> None:
    folder = common_voice(tmp_path / "root")
    for table in folder.glob("*.tsv"):
        rows = table.read_text().replace('"tone1.', "größer.").splitlines()
        if table.name == "train.tsv":
            rows[1:2] = [rows[1].replace("\tde\t", "\tnb-NO\t"), rows[2].replace("\tde\t", "\teo\t")]
        table.write_text("\n".join(rows), encoding=encoding)
    corpus = prepare("common_voice", tmp_path / "root", tmp_path / "out")
    first = by_id(corpus)["common_voice_de_0"]
    assert (first.text, first.language) == ("tone0 größer.", "no")
    assert by_id(corpus)["common_voice_de_10"].language == "de"
    warnings = " ".join(report(tmp_path / "out")["warnings"]["cv-corpus-17.0-2024-03-15/de/train.tsv:1-3"])
    assert "its language 'eo' is none that Whisper knows" in warnings
    assert ("train.tsv:2: is not UTF-8" in warnings) == (encoding == "cp1252")


def test_common_voice_in_a_language_that_whisper_lacks(tmp_path: Path) -> None:
    folder = common_voice(tmp_path / "root")
    for table in folder.glob("*.tsv"):
        table.write_text(table.read_text().replace("\tde\t", "\teo\t"))
    with pytest.raises(
        CwjaxError, match=r"none of 3 articles can be read; the first: .*its language 'eo' is none that"
    ):
        prepare("common_voice", tmp_path / "root", tmp_path / "out")


def test_that_common_voice_says_nothing_of_itself_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    common_voice(tmp_path / "new")
    require_corpus("common_voice", tmp_path / "new")
    common_voice(tmp_path / "old", ("client_id", "path", "sentence"))
    require_corpus("common_voice", tmp_path / "old")
    said = [record.getMessage() for record in caplog.records]
    assert "no context but the domain of some sentences" in said[0]
    assert "no context at all" in said[1]


def test_common_voice_of_an_old_release_and_with_damage(tmp_path: Path) -> None:
    folder = common_voice(tmp_path / "root", ("client_id", "path", "sentence", "up_votes", "down_votes", "accent"))
    for table in ("dev", "test"):
        (folder / f"{table}.tsv").unlink()
    clips = folder / "clips"
    (clips / "common_voice_de_0.mp3").write_bytes(b"no sound")
    corpus = prepare("common_voice", folder, tmp_path / "out")
    assert [(one.id, one.language) for one in corpus.segments] == [("common_voice_de_10", "de")]
    assert "common_voice_de_0.mp3" in " ".join(report(tmp_path / "out")["warnings"]["train.tsv:1-2"])

    (folder / "train.tsv").write_text("client_id\tpath\nx\ty.mp3\n")
    with pytest.raises(CwjaxError, match=r"train.tsv: has no column 'sentence'"):
        prepare("common_voice", folder, tmp_path / "again")


def sphere(path: Path, sides: np.ndarray, coding: str = "ulaw") -> None:
    """A SPHERE file as the LDC writes it: 1024 bytes of header, then mu-law, both channels interleaved."""
    raw = path.with_suffix(".raw")
    soundfile.write(raw, sides, 8000, format="RAW", subtype="ULAW")
    header = (
        "NIST_1A\n   1024\ndatabase_id -s13 SWITCHBOARD-1\nconversation_id -s4 2001\nchannel_count -i 2\n"
        f"sample_count -i {len(sides)}\nsample_rate -i 8000\nsample_n_bytes -i 1\nsample_sig_bits -i 8\n"
        f"sample_coding -s{len(coding)} {coding}\nsample_byte_format -s1 1\nchannels_interleaved -s4 TRUE\nend_head\n"
    )
    path.write_bytes(header.encode().ljust(1024) + raw.read_bytes())
    raw.unlink()


def conversations(root: Path) -> None:
    (root / "swb1_d1" / "data").mkdir(parents=True)
    first = sound([(1, 0.2, 0.4), (2, 0.5, 0.7), (5, 2.2, 2.4)], 4.0, 8000)
    second = sound([(3, 1.0, 1.2), (4, 1.3, 1.5)], 4.0, 8000)
    sphere(root / "swb1_d1" / "data" / "sw02001.sph", np.stack([first, second], axis=1))
    folder = root / "swb_ms98_transcriptions" / "20" / "2001"
    folder.mkdir(parents=True)
    (folder / "sw2001A-ms98-a-trans.text").write_text(
        "sw2001A-ms98-a-0001 0.000000 0.100000 [silence]\n"
        f"sw2001A-ms98-a-0002 0.100000 0.800000 [laughter-{word(1)}] {{{word(2)}_1}} [noise]\n"
        f"sw2001A-ms98-a-0003 2.000000 2.600000 <b_aside> [{word(6)}/{word(5)}] <e_aside>\n"
    )
    (folder / "sw2001B-ms98-a-trans.text").write_text(
        f"sw2001B-ms98-a-0001 0.900000 1.600000 {words(3, 4)} [vocalized-noise]\n"
    )
    (root / "tables").mkdir()
    (root / "tables" / "conv.tab").write_text('2001, "Y", 1001, 1002, 318, "", "910304", "1016"\n')
    (root / "tables" / "topic.tab").write_text(
        '"CHILD CARE", 318, "FIND OUT WHAT CRITERIA THE OTHER CALLER WOULD USE. I SEE.", "Y", "", "DO YOU AGREE?"\n'
    )


def test_switchboard(tmp_path: Path) -> None:
    conversations(tmp_path / "root")
    corpus = prepare("switchboard", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    one, last, other = corpus.segments
    assert [segment.text for segment in corpus.segments] == [words(1, 2), word(5), words(3, 4)]
    assert [segment.speaker for segment in corpus.segments] == ["1001", "1001", "1002"]
    assert [(segment.start, segment.end) for segment in corpus.segments] == [(0.1, 0.8), (2.0, 2.6), (0.9, 1.6)]
    assert {segment.article for segment in corpus.segments} == {"sw2001"}
    assert one.context.title == "Child care"
    prompt = "Find out what criteria the other caller would use. I see. Do you agree?"
    assert one.context.lead == prompt
    assert (one.context.previous, other.context.previous, last.context.previous) == ("", words(1, 2), words(1, 2, 3, 4))
    assert len({segment.split for segment in corpus.segments}) == 1


@pytest.mark.parametrize("ending", [".tab", "_tab.csv"])
def test_switchboard_tables_by_either_name(tmp_path: Path, ending: str) -> None:
    conversations(tmp_path)
    for name in ("conv", "topic"):
        (tmp_path / "tables" / f"{name}.tab").rename(tmp_path / "tables" / f"{name}{ending}")
    (unit,) = switchboard.articles(tmp_path)
    assert (unit.content.topic, unit.content.callers) == ("Child care", ("1001", "1002"))


def many_conversations(root: Path, count: int, lines: int) -> None:
    """Conversations in which all callers are connected, as the corpus's are."""
    (root / "tables").mkdir(parents=True)
    (root / "tables" / "conv_tab.csv").write_text(
        "".join(f'{2001 + number}, "Y", {number}, {number + 1}, 318\n' for number in range(count))
    )
    for number in range(2001, 2001 + count):
        folder = root / "swb_ms98_transcriptions" / str(number // 100) / str(number)
        folder.mkdir(parents=True)
        for side in "AB":
            said = [f"sw{number}{side}-ms98-a-{line:04d} {line}.0 {line}.5 tone\n" for line in range(lines // 2)]
            silence = f"sw{number}{side}-ms98-a-9999 900.0 901.0 [silence]\n"
            (folder / f"sw{number}{side}-ms98-a-trans.text").write_text("".join([*said, silence]))


def test_switchboard_is_divided_by_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "DEV_UTTERANCES", 10)
    many_conversations(tmp_path, count=60, lines=4)
    splits = [unit.content.split for unit in switchboard.articles(tmp_path)]
    assert splits == ["validation"] * 3 + ["train"] * 57, "4, 8, 12 utterances: the tenth is in the third"


def test_a_piece_of_switchboard_keeps_most_of_it_to_train_on(tmp_path: Path) -> None:
    many_conversations(tmp_path, count=25, lines=2)
    splits = [unit.content.split for unit in switchboard.articles(tmp_path)]
    assert splits == ["validation"] * 2 + ["train"] * 23


def hub5(root: Path) -> None:
    audio = root / "LDC2002S09" / "hub5e_00" / "english"
    audio.mkdir(parents=True)
    first = sound([(1, 0.2, 0.4), (2, 0.5, 0.7)], 3.0, 8000)
    second = sound([(3, 1.0, 1.2), (4, 1.3, 1.5)], 3.0, 8000)
    for name in ("sw_4390", "en_4156"):
        sphere(audio / f"{name}.sph", np.stack([first, second], axis=1))
    texts = root / "LDC2002T43" / "reference" / "english"
    texts.mkdir(parents=True)
    for name in ("sw_4390", "en_4156"):
        (texts / f"{name}.txt").write_text(
            "#Language: eng\n#File id: 5017\n# 121 131 #BEGIN\n\n"
            f'0.10 0.80 A: <contraction e_form="[we=>we][\'re=>are]">{word(1)} %{word(2)}, {{breath}}\n\n'
            f"0.90 1.60 B: {word(3)} (( {word(4)} ))\n1.70 1.90 B: {{laugh}}\nno turn\n"
        )


def test_eval2000_is_the_test_set_of_switchboard(tmp_path: Path) -> None:
    conversations(tmp_path / "root")
    hub5(tmp_path / "root")
    corpus = prepare("switchboard", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    test = [segment for segment in corpus.segments if segment.split == "test"]
    assert [(one.article, one.text, one.start, one.end, one.speaker) for one in test if "sw" in one.article] == [
        ("sw_4390", f"{word(1)} {word(2)},", 0.1, 0.8, "sw_4390-A"),
        ("sw_4390", words(3, 4), 0.9, 1.6, "sw_4390-B"),
    ]
    assert {one.article for one in test} == {"sw_4390", "en_4156"}
    assert "sw_4390.txt:9: is no line START END SIDE" in report(tmp_path / "out")["warnings"]["sw_4390"][0]
    subsets = {unit.name: unit.content.subset for unit in switchboard.articles(tmp_path / "root")}
    assert subsets == {"sw2001": "", "en_4156": "eval2000 CallHome", "sw_4390": "eval2000 Switchboard"}


def test_switchboard_with_the_free_table_and_damage(tmp_path: Path) -> None:
    root = tmp_path / "root"
    conversations(root)
    (root / "tables" / "conv.tab").unlink()
    (root / "tables" / "topic.tab").unlink()
    (root / "swda-metadata.csv").write_text(
        "conversation_no,talk_day,length,topic_description,prompt,from_caller_sex,from_caller,to_caller\n"
        '2001,910304,4,"BOOKS, NEW","SAY WHAT YOU READ.",F,11,12\n'
    )
    lone = root / "swb_ms98_transcriptions" / "20" / "2005"
    lone.mkdir()
    (lone / "sw2005A-ms98-a-trans.text").write_text("sw2005A-ms98-a-0001 0.0 1.0 hello\n")
    packed = root / "swb_ms98_transcriptions" / "20" / "2006"
    packed.mkdir()
    (packed / "sw2006A-ms98-a-trans.text").write_text("sw2006A-ms98-a-0001 0.0 1.0 hello\n")
    sphere(root / "sw02006.sph", np.zeros((8000, 2), np.float32), "ulaw,embedded-shorten-v2.00")
    corpus = prepare("switchboard", root, tmp_path / "out")
    assert corpus.segments[0].context.title == "Books, new"
    assert corpus.segments[0].context.lead == "Say what you read."
    assert [segment.speaker for segment in corpus.segments] == ["11", "11", "12"]
    failures = report(tmp_path / "out")["failures"]
    assert "sw02005.sph: cannot be read" in failures["sw2005"]
    assert "compressed with shorten; unpack it with the LDC's sph2pipe" in failures["sw2006"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[laughter-story] them_1 {yuppiedom} ab[solute]-", "story them yuppiedom ab-"),
        ("[it'n/isn't] <b_aside> so <e_aside> [noise] [vocalized-noise] -[re]ally", "isn't so -ally"),
        ("[silence]", ""),
        ("[laughter]", ""),
    ],
)
def test_switchboard_marks(written: str, said: str) -> None:
    assert switchboard.clean(written) == said


def gigaspeech(root: Path) -> None:
    recording(root / "audio/podcast/P0001/POD1.opus.ogg", (1, 0.5), (2, 1.0), (3, 2.5))
    recording(root / "audio/youtube/Y0001/YOU1.flac", (4, 0.5))

    def audio(aid: str, path: str, *segments: tuple, subset: str = "{XL}") -> dict:
        return {
            "aid": aid,
            "title": f"The title of {aid}",
            "url": f"https://example.org/{aid}",
            "path": path,
            "duration": 4.0,
            "source": "podcast",
            "category": "Science and Technology",
            "format": "opus",
            "sample_rate": 16000,
            "channels": 1,
            "segments": [
                {"sid": f"{aid}_S{number:07d}", "begin_time": start, "end_time": end, "text_tn": text,
                 "speaker": speaker, "subsets": [subset]}
                for number, (start, end, text, speaker) in enumerate(segments)
            ],
        }  # fmt: skip

    listed = [
        audio(
            "POD1",
            "audio/podcast/P0001/POD1.opus.ogg",
            (0.4, 1.4, f"{word(1)} <COMMA> {word(2)} <PERIOD>".upper(), "N/A"),
            (1.5, 2.3, "<MUSIC>", "N/A"),
            (2.4, 2.9, word(3).upper(), "spk1"),
        ),
        audio("YOU1", "audio/youtube/Y0001/YOU1.flac", (0.4, 0.9, word(4).upper(), "N/A"), subset="{DEV}"),
        audio("YOU2", "audio/youtube/Y0001/YOU2.flac", (0.4, 0.9, "LOST", "N/A")),
    ]
    (root / "GigaSpeech.json").write_text(json.dumps({"dataset": "GigaSpeech", "audios": listed}, indent=1))


def test_gigaspeech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwjax.data.corpora.gigaspeech.BLOCK", 100)
    gigaspeech(tmp_path / "root")
    corpus = prepare("gigaspeech", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    first, later, other = corpus.segments
    assert (first.id, first.text) == ("POD1_S0000000", f"{word(1).capitalize()}, {word(2)}.")
    assert (first.start, first.end, first.split, other.split) == (0.4, 1.4, "train", "validation")
    assert (first.context.title, first.context.categories) == ("The title of POD1", ("Science and Technology",))
    assert (first.speaker, later.speaker, first.source) == ("", "POD1/spk1", "https://example.org/POD1")
    assert later.context.previous == "", "music lies between"
    said = report(tmp_path / "out")
    assert "no_letters" in said["articles"]["POD1"]["dropped_seconds"]
    assert "YOU2.flac" in said["failures"]["YOU2"]
    assert clean_gigaspeech("WHAT <QUESTIONMARK> I SAY <COMMA> I'M HERE <PERIOD> OH") == "What? I say, I'm here. Oh"
    assert clean_gigaspeech("<SIL>") == ""

    path = tmp_path / "root" / "GigaSpeech.json"
    path.write_text(path.read_text()[:1200])
    with pytest.raises(CwjaxError, match=r"GigaSpeech.json: is damaged"):
        prepare("gigaspeech", tmp_path / "root", tmp_path / "again")


def subset_of_gigaspeech(root: Path, subset: str) -> list[tuple[str, str]]:
    units = list(gigaspeech_reader.articles(root))
    readings = [gigaspeech_reader.read(root, unit, replace(LIMITS, subset=subset)) for unit in units]
    return [(one.text, one.context.previous) for reading in readings for one in listed(reading)]


def test_a_subset_of_gigaspeech(tmp_path: Path) -> None:
    gigaspeech(tmp_path)
    path = tmp_path / "GigaSpeech.json"
    content = json.loads(path.read_text())
    del content["audios"][2]
    for segment, subsets in zip(
        content["audios"][0]["segments"], (["{XL}", "{L}", "{M}"], ["{XL}"], ["{XL}", "{L}"]), strict=True
    ):
        segment["subsets"], segment["text_tn"] = subsets, f"{segment['sid'][-1]} IS SAID"
    path.write_text(json.dumps(content))
    dev = (word(4).capitalize(), "")
    assert subset_of_gigaspeech(tmp_path, "M") == [("0 is said", ""), dev]
    assert subset_of_gigaspeech(tmp_path, "l") == [("0 is said", ""), ("2 is said", ""), dev], "one between is left out"
    assert subset_of_gigaspeech(tmp_path, "XS") == [dev]
    assert subset_of_gigaspeech(tmp_path, "")[2] == ("2 is said", "0 is said 1 is said")
    with pytest.raises(CwjaxError, match="subset is 'huge'; use one of XS, S, M, L, XL"):
        subset_of_gigaspeech(tmp_path, "huge")


def test_entries_of_gigaspeech_that_are_none(tmp_path: Path) -> None:
    gigaspeech(tmp_path / "root")
    path = tmp_path / "root" / "GigaSpeech.json"
    content = json.loads(path.read_text())
    content["audios"] = [5, None, "x", *content["audios"], {"aid": "none"}, {"aid": "odd", "segments": [3]}]
    path.write_text(json.dumps(content))
    corpus = prepare("gigaspeech", tmp_path / "root", tmp_path / "out")
    assert len(corpus.segments) == 3
    failures = report(tmp_path / "out")["failures"]
    assert {"GigaSpeech.json:0", "GigaSpeech.json:1", "GigaSpeech.json:2", "none", "odd"} < failures.keys()


def test_the_list_of_gigaspeech_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of many blocks is decoded again a few times, not once for every block."""
    monkeypatch.setattr(gigaspeech_reader, "BLOCK", 100)
    tries = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, text: str, place: int = 0) -> tuple:
            tries.append(len(text) - place)
            return super().raw_decode(text, place)

    monkeypatch.setattr(json, "JSONDecoder", Counting)
    text = json.dumps({"note": "x" * 50_000, "audios": [{"aid": "long", "title": "x" * 200_000}, {"aid": "next"}]})
    (tmp_path / "GigaSpeech.json").write_text(text)
    assert [unit.name for unit in gigaspeech_reader.articles(tmp_path)] == ["long", "next"]
    assert sum(tries) < 4 * len(text)


def own_files(root: Path, table: str = "list.jsonl") -> None:
    recording(root / "talks" / "bees.wav", (1, 0.5), (2, 1.0), (3, 2.5), rate=22_050)
    recording(root / "whole.flac", (7, 0.3), seconds=0.8)
    rows = [
        {"audio": "talks/bees.wav", "start": 2.4, "end": 2.9, "text": word(3), "context": "Bee keeping"},
        {"audio": "talks/bees.wav", "start": 0.4, "end": 1.3, "text": words(1, 2), "context": "Bee keeping"},
        {
            "audio": str(root / "whole.flac"), "start": "", "end": "", "text": word(7), "context": "Said by the lake.",
            "title": "Boats", "section": "Lake > Pier", "categories": "Water; Wood", "keywords": "Lake Como;oar",
            "speaker": "Jo", "language": "de", "article": "boats", "split": "test", "id": "b1", "licence": "CC0",
            "source": "https://example.org",
        },
    ]  # fmt: skip
    if table.endswith(".jsonl"):
        (root / table).write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        return
    divider = "\t" if table.endswith(".tsv") else ","
    heads = list(rows[2])
    lines = [divider.join(heads), *(divider.join(f'"{row.get(head, "")}"' for head in heads) for row in rows)]
    (root / table).write_text("\ufeff" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("table", ["list.jsonl", "list.csv", "list.tsv"])
def test_own_table(tmp_path: Path, table: str) -> None:
    own_files(tmp_path / "root", table)
    corpus = prepare("manifest", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    first, later, whole = corpus.segments
    assert (first.text, first.start, first.end, first.article) == (words(1, 2), 0.4, 1.3, "talks/bees.wav")
    assert (first.context.title, first.context.lead, first.language) == ("Bee keeping", "", "en")
    assert later.context.previous == words(1, 2)
    assert (whole.id, whole.start, whole.end, whole.speaker, whole.split) == ("b1", 0.0, 0.8, "Jo", "test")
    context = whole.context
    assert (context.title, context.lead, context.section) == ("Boats", "Said by the lake.", ("Lake", "Pier"))
    assert (context.categories, context.keywords) == (("Water", "Wood"), ("Lake Como", "oar"))
    assert (whole.language, whole.licence, whole.source) == ("de", "CC0", "https://example.org")


def test_own_table_names_what_is_wrong(tmp_path: Path) -> None:
    root = tmp_path / "root"
    own_files(root)
    recording(root / "b.wav", (1, 0.5), (2, 1.5))
    rows = [
        {"audio": "b.wav", "start": 0.4, "end": 0.9, "text": word(1)},
        {"audio": "b.wav", "start": "soon", "end": 0.9, "text": "what"},
        {"audio": "b.wav", "start": 1.4, "end": 900, "text": "too late"},
        {"audio": "b.wav", "start": 1.9, "end": 1.4, "text": "backwards"},
        {"audio": "b.wav", "start": 1.4, "end": 1.9, "text": "12 …"},
        {"audio": "b.wav", "start": 1.4, "end": 1.9, "text": "words " * 40},
        {"audio": "nowhere.wav", "text": "lost"},
        {"audio": "b.wav", "article": "ms", "start": 400, "end": 900, "text": word(1)},
        {"audio": "b.wav", "article": "ms", "start": 1400, "end": 1900, "text": word(2)},
        {"audio": "b.wav", "article": "odd", "text": word(2), "split": "holdout"},
    ]
    lines = [json.dumps(row) for row in rows]
    (root / "list.jsonl").write_text("\n".join([*lines[:3], "{no json", "[1]", *lines[3:]]) + "\n")
    corpus = prepare("manifest", root, tmp_path / "out")
    require_sound(corpus)
    assert [segment.text for segment in corpus.segments] == [word(1)]
    said = report(tmp_path / "out")
    article = said["articles"]["list.jsonl: b.wav"]
    assert set(article["dropped_seconds"]) == {"times", "no_letters", "too_fast"}
    assert "start is 'soon'" in said["warnings"]["list.jsonl: b.wav"][0]
    reasons = said["failures"]
    assert "not milliseconds" in reasons["list.jsonl: ms"]
    assert "its split is 'holdout'" in reasons["list.jsonl: odd"]
    assert "no such audio file" in reasons["list.jsonl: nowhere.wav"]
    assert {name.rpartition(":")[2] for name in reasons if "root/list.jsonl:" in name} == {"4", "5"}


SUBRIP = """1
00:00:00,400 --> 00:00:01,300
<i>{one}</i>
{two}

2
00:00:01,400 --> 00:00:02,000
[Music] ♪

3
00:00:02,400 --> 00:00:02,900 X1:40
{{\\an8}}{three} &amp; {{\\an8}}
"""
WEBVTT = """WEBVTT

NOTE nobody says this

STYLE
::cue {{ color: red }}

first
00:00.400 --> 00:02.400 align:start
<v Jo Reader>{one}</v>
<c.red>{two}</c>

00:02.400 --> 00:02.900
{two}
{three}
"""


def test_own_subtitles(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a/Bee_keeping.wav", "Boats.flac"):
        recording(root / name, (1, 0.5), (2, 1.0), (3, 2.5))
    names = {"one": word(1), "two": word(2), "three": word(3)}
    (root / "a" / "Bee_keeping.de.srt").write_bytes(SUBRIP.format(**names).replace("\n", "\r\n").encode("utf-8-sig"))
    (root / "a" / "Bee_keeping.txt").write_text("A keeper tells\nof bees.")
    (root / "Boats.vtt").write_text(WEBVTT.format(**names))
    (root / "lonely.srt").write_text(SUBRIP.format(**names))
    (root / "Boats.srt").write_text("nothing to see")
    corpus = prepare("subtitles", root, tmp_path / "out")
    segments = list(corpus.segments)
    assert [one.text for one in segments] == [words(1, 2), words(3), words(1, 2), f"{word(3)} &"]
    assert [(one.start, one.end) for one in segments] == [(0.4, 2.4), (2.4, 2.9), (0.4, 1.3), (2.4, 2.9)]
    for place in range(4):
        tones = [word(number) for number, _, _ in heard(corpus.audio(place))]
        assert tones == segments[place].text.replace(" &", "").split()
    boats, bees = segments[0], segments[2]
    assert (boats.speaker, segments[1].speaker, boats.language) == ("Boats/Jo Reader", "", "en")
    assert (bees.context.title, bees.context.lead, bees.language) == ("Bee keeping", "A keeper tells of bees.", "de")
    assert (segments[1].context.previous, boats.article) == (words(1, 2), "Boats")
    failures = report(tmp_path / "out")["failures"]
    assert "has no audio beside it" in failures["lonely.srt"]
    assert "holds no subtitles" in report(tmp_path / "out")["warnings"]["Boats.srt"][0]


def test_subtitles_of_more_than_an_hour(tmp_path: Path) -> None:
    (tmp_path / "x.srt").write_text("1\n01:02:03,004 --> 01:02:05,5\nHello\n")
    assert read_cues(tmp_path / "x.srt")[0][:2] == (3723.004, 3725.5)


def tedlium(root: Path) -> None:
    base = root / "TEDLIUM_release-3"
    for split, talk, numbers in (
        ("train", "AaronHuey_2010X", (1, 2, 3, 4)),
        ("dev", "BlaiseA_2003", (5,)),
        ("test", "C_1", ()),
    ):
        folder = base / "legacy" / split
        (folder / "stm").mkdir(parents=True)
        said = [(number, 0.2 + 0.5 * place) for place, number in enumerate(numbers)]
        recording(folder / "sph" / f"{talk}.wav", *said).rename(folder / "sph" / f"{talk}.sph")
        lines = []
        if numbers:
            lines.append(f"{talk} 1 {talk} 0.10 0.95 <o,f0,male> {words(*numbers[:2])} {{NOISE}} <unk>")
        if len(numbers) > 2:
            lines.append(f"{talk} 1 inter_segment_gap 0.95 1.00 <o,,unknown> ignore_time_segment_in_scoring")
            lines.append(f"{talk} 1 {talk} 1.10 1.45 <o,f0,male> {word(3)}(2)")
            lines.append(f"{talk} 1 {talk} 1.45 2.00 <o,f0,male> {word(4)}")
        (folder / "stm" / f"{talk}.stm").write_text("\n".join(lines) + "\n")
    (base / "legacy/train/stm/AaronHuey_2010X.stm").open("a").write("no line at all\n")
    (base / "data" / "stm").mkdir(parents=True)
    shutil.copy(base / "legacy/train/stm/AaronHuey_2010X.stm", base / "data/stm")


def test_tedlium(tmp_path: Path) -> None:
    tedlium(tmp_path / "root")
    corpus = prepare("tedlium", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert [(one.text, one.split, one.speaker, one.context.title, one.context.previous) for one in corpus.segments] == [
        (words(1, 2), "train", "AaronHuey", "Aaron Huey", ""),
        (word(3), "train", "AaronHuey", "Aaron Huey", ""),
        (word(4), "train", "AaronHuey", "Aaron Huey", word(3)),
        (word(5), "validation", "BlaiseA", "Blaise A", ""),
    ]
    said = report(tmp_path / "out")
    assert "C_1.stm: holds no utterance" in " ".join(said["failures"].values())
    assert "AaronHuey_2010X.stm:5: is no line TALK CHANNEL" in str(said["warnings"])
    assert tedlium_reader.clean("i 'm here <unk> and it 's the(2) dogs ' day") == "i'm here and it's the dogs ' day"


def fisher(root: Path, count: int = 20, lines: int = 2) -> None:
    audio, trans = root / "fe_03_p1_sph1" / "audio" / "000", root / "fe_03_p1_tran" / "data" / "trans" / "000"
    for folder in (audio, trans, root / "fe_03_p1_tran" / "doc"):
        folder.mkdir(parents=True)
    sides = np.stack([sound([(1, 0.2, 0.4)], 3.0, 8000), sound([(2, 1.0, 1.2)], 3.0, 8000)], axis=1)
    for number in range(1, count + 1):
        name = f"fe_03_{number:05d}"
        if number < 4:
            sphere(audio / f"{name}.sph", sides)
        more = "".join(f"2.{place} 2.9 A: so\n" for place in range(lines - 2))
        (trans / f"{name}.txt").write_text(
            f"# {name}.sph\n# Transcribed at the LDC\n\n0.10 0.50 A: {word(1)} [laughter]\n\n"
            f"0.90 1.30 B: (( {word(2)} ))\n{more}"
        )
    (root / "fe_03_p1_tran/doc/fe_03_p1_calldata.tbl").write_text(
        "CALL_ID,DATE_TIME,TOPICID,SIG_GRADE,CNV_GRADE,APIN,ASX.DL,APHNUM,APHSET,APHTYP,BPIN\n"
        "00001,20021212_23:59,ENG01,4,3,2602,f.a,x,1,1,1790\n"
    )
    (root / "fe_03_p1_tran/doc/fe_03_topics.sgm").write_text(
        '<topic id=ENG01 title="Professional sports on TV.">\nDo either of you have\na favorite TV sport?\n</topic>\n'
    )


def test_fisher(tmp_path: Path) -> None:
    fisher(tmp_path / "root")
    corpus = prepare("fisher", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    first, second = (one for one in corpus.segments if one.article == "fe_03_00001")
    assert (first.speaker, second.speaker, first.split) == ("2602", "1790", "validation")
    assert (first.context.title, first.context.lead) == (
        "Professional sports on TV.",
        "Do either of you have a favorite TV sport?",
    )
    assert (second.context.previous, first.start, first.end) == (word(1), 0.1, 0.5)
    assert len(report(tmp_path / "out")["failures"]) == 17


def test_fisher_is_divided_by_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fisher(tmp_path, count=40)
    splits = [unit.content.split for unit in fisher_reader.articles(tmp_path)]
    assert splits == ["validation"] * 4 + ["test"] * 4 + ["train"] * 32
    monkeypatch.setattr(fisher_reader, "EVALUATED_UTTERANCES", 5)
    splits = [unit.content.split for unit in fisher_reader.articles(tmp_path)]
    assert splits == ["validation"] * 3 + ["test"] * 3 + ["train"] * 34, "two utterances each"


def mls(root: Path, name: str = "mls_german", ending: str = "flac") -> None:
    folder = root / name
    rows = {
        "train": [("10_20_000000", (1,), 5.0), ("10_20_000001", (3,), 90.0), ("10_20_000002", (2,), 6.0)],
        "dev": [("11_21_000000", (4,), 0.0)],
        "test": [("12_22_000000", (5,), 0.0)],
    }
    for split, utterances in rows.items():
        for one, numbers, _ in utterances:
            path = folder / split / "audio" / "/".join(one.split("_")[:2]) / f"{one}.{ending}"
            recording(path.with_suffix(".flac" if ending == "flac" else ".ogg"), (numbers[0], 0.3), seconds=1.0)
            if ending == "opus":
                path.with_suffix(".ogg").rename(path)
        lines = [f"{one}\t{words(*numbers)}" for one, numbers, _ in utterances]
        (folder / split / "transcripts.txt").write_text("\n".join([*lines, "no utterance"]) + "\n")
        (folder / split / "segments.txt").write_text(
            "".join(f"{one}\thttp://x/{split}.mp3\t{start}\t{start + 1}\n" for one, _, start in utterances)
        )
    (folder / "metainfo.txt").write_text(
        " SPEAKER   |   GENDER   | PARTITION  |  MINUTES   |  BOOK ID   |   TITLE   |  CHAPTER\n"
        "  10  |  M  | train | 1.5 | 20 | Faust | Prolog \n  11 | F | dev | 1 | 21 | Emil | Eins\n"
        "  11 | F | dev | 1 | 21 | Emil | Zwei\n"
    )


@pytest.mark.parametrize(("name", "ending"), [("mls_german", "flac"), ("mls_german_opus", "opus")])
def test_mls(tmp_path: Path, name: str, ending: str) -> None:
    mls(tmp_path / "root", name, ending)
    corpus = prepare("mls", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    segments = by_id(corpus)
    first, later, second = (segments[f"10_20_{number:06d}"] for number in range(3))
    assert (first.language, first.split, first.speaker, first.licence) == ("de", "train", "10", "CC BY 4.0")
    assert (first.context.title, first.context.section) == ("Faust", ("Prolog",))
    assert (second.context.previous, later.context.previous) == (words(1), ""), "one ends where the other begins"
    assert segments["11_21_000000"].context.section == (), "one of two chapters"
    assert {one.split for one in corpus.segments} == {"train", "validation", "test"}
    assert "transcripts.txt:4: is no line READER_BOOK_NUMBER" in " ".join(report(tmp_path / "out")["failures"].values())


def peoples_speech(root: Path) -> None:
    for split, part, number in (("train", "clean_sa", 1), ("validation", "validation", 2), ("test", "test", 3)):
        recording(root / split / part / "a_b" / "c_0.flac", (number, 0.3), seconds=1.0)
        data = {"duration_ms": [1000, 1000], "label": [word(number), "lost"], "name": ["a_b/c_0.flac", "a_b/none.flac"]}
        line = json.dumps({"identifier": "a_b", "training_data": data})
        (root / split / f"{part}.json").write_text(f'{line}\n{{"identifier": "x", "training_data": {{}}}}\n[\n')


def test_peoples_speech(tmp_path: Path) -> None:
    peoples_speech(tmp_path / "root")
    corpus = prepare("peoples_speech", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert [(one.text, one.split, one.licence) for one in corpus.segments] == [
        (word(1), "train", "CC BY-SA 4.0"),
        (word(2), "validation", "CC BY 4.0"),
        (word(3), "test", "CC BY 4.0"),
    ]
    said = report(tmp_path / "out")
    assert "clean_sa.json:2: is no recording" in " ".join(said["failures"].values())
    assert "none.flac" in str(said["warnings"])


NLP = "token|speaker|ts|endTs|punctuation|case|tags|wer_tags\n"


def earnings(root: Path, timed: bool = True) -> None:
    base = root / "earnings21"
    recording(base / "media" / "43.wav", *((number, 0.5 * number) for number in range(1, 7)))
    lines = [
        f"{word(1)}|0|{0.5 if timed else ''}|{0.7 if timed else ''}||UC|[]|[]",
        f"{word(2)}|0|||.|LC|[]|[]",
        f"{word(3)}|0|{1.5 if timed else ''}|{1.7 if timed else ''}|,|LC|['1:ORG']|['1']",
        "<inaudible>|0||||LC|[]|[]",
        f"{word(4)}|0|||.|LC|[]|[]",
        f"{word(5)}|1|||.|LC|[]|[]",
        f"{word(6)}|1|{3.0 if timed else ''}|{3.2 if timed else ''}|.|LC|[]|[]",
    ]
    for folder in ("nlp_references", "timestamps") if timed else ("nlp_references",):
        path = base / "transcripts" / folder / "43.nlp"
        path.parent.mkdir(parents=True)
        kept = lines if folder == "timestamps" or not timed else [line.replace("|0|0.5|0.7", "|0||") for line in lines]
        path.write_text(NLP + "\n".join(kept) + "\n")
    names = base / "contexts" / "participant_names"
    names.mkdir(parents=True)
    (names / "43.names.txt").write_text("Brett Ponton - President and CEO\nRick Nelson - Stephens\n")
    (base / "contexts" / "43.txt").write_text("cumulus 1\nmedia 3\n")
    (base / "earnings21-file-metadata.csv").write_text(
        "file_id,audio_length,sample_rate,company_name,financial_quarter,sector\n"
        "43,4,16000,Monro Inc,3,Consumer Goods\n"
    )


def test_earnings_with_contexts(tmp_path: Path) -> None:
    earnings(tmp_path / "root")
    corpus = prepare("earnings", tmp_path / "root", tmp_path / "out")
    require_sound(corpus)
    assert [(one.text, one.split, one.speaker) for one in corpus.segments] == [
        (f"{word(1)} {word(2)}.", "test", "43/0"),
        (f"{word(3)}, {word(4)}. {word(5)}.", "test", "43/0"),
        (f"{word(6)}.", "test", "43/1"),
    ], "nobody knows where the fourth word ends and the fifth begins"
    context = corpus.segments[0].context
    assert (context.title, context.categories) == ("Earnings call of Monro Inc", ("Consumer Goods",))
    assert context.lead == "Participants: Brett Ponton - President and CEO; Rick Nelson - Stephens."
    assert context.keywords == ("Brett Ponton", "Rick Nelson", "cumulus", "media")


def test_earnings_without_times_are_one_utterance(tmp_path: Path) -> None:
    earnings(tmp_path / "root", timed=False)
    corpus = prepare("earnings", tmp_path / "root", tmp_path / "out", replace(LIMITS, max_duration=2.0))
    require_sound(corpus)
    (segment,) = corpus.segments
    assert (segment.start, segment.end, segment.split) == (0.0, 4.0, "test")


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


def test_windows_hold_as_much_as_the_model_hears(tmp_path: Path) -> None:
    """What alone is longer is not lost, for it may be of a test set."""
    own_files(tmp_path / "root")
    whole = build.prepare("manifest", tmp_path / "root", tmp_path / "out")
    assert [(one.text, one.start, one.end) for one in whole.segments] == [(words(1, 2, 3), 0.4, 2.9), (word(7), 0, 0.8)]
    short = build.prepare("manifest", tmp_path / "root", tmp_path / "out", replace(LIMITS, max_duration=1.5))
    assert [one.text for one in short.segments] == [words(1, 2), word(3), word(7)]
