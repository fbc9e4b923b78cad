"""Every kind of corpus, written small in its own layout.

Words are tones, so that what a segment's text says can be heard in its audio.
"""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import soundfile
from sounding import RATE, heard, sound, word, write_sound

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.prepared import build
from cwjax.data.prepared.corpus import PreparedCorpus

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


def peoples_speech(root: Path) -> None:
    for split, part, number in (("train", "clean_sa", 1), ("validation", "validation", 2), ("test", "test", 3)):
        recording(root / split / part / "a_b" / "c_0.flac", (number, 0.3), seconds=1.0)
        data = {"duration_ms": [1000, 1000], "label": [word(number), "lost"], "name": ["a_b/c_0.flac", "a_b/none.flac"]}
        line = json.dumps({"identifier": "a_b", "training_data": data})
        (root / split / f"{part}.json").write_text(f'{line}\n{{"identifier": "x", "training_data": {{}}}}\n[\n')


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
