"""Every public suite, written small in its own layout.

Words are tones, so that what an item's reference says can be heard in its audio.
"""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sounding import RATE, sound, write_sound

from cwjax.data.prepared.build import prepare
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites import open_suite

SECONDS = 0.6


def tone(number: int, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """A word that is heard from 0.1 s on for 0.3 s."""
    return sound([(number, 0.1, 0.4)], seconds, rate)


def audio(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sound(path, tone(number), RATE)
    return path


def content(number: int, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(number, rate=rate), rate, format="WAV")
    return file.getvalue()


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table as `datasets` writes it: Parquet, or an Arrow stream."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    made = pyarrow.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        parquet.write_table(made, path, row_group_size=2)
    else:
        with ipc.new_stream(str(path), made.schema) as stream:
            stream.write_table(made, max_chunksize=2)
    return path


def cell(number: int, rate: int = RATE) -> dict[str, Any]:
    return {"bytes": content(number, rate), "path": f"{number}.wav"}


def is21(root: Path) -> str:
    base = root / "LibriSpeech"
    text(
        base / "CHAPTERS.TXT",
        "; ID | READER | MINUTES | SUBSET | PROJ. | BOOK ID | CH. TITLE | PROJECT TITLE",
        "121726 | 121 | 8.42 | test-clean | 219 | 121 | Chapter 01 | Northanger Abbey",
    )
    for number in range(3):
        audio(base / "test-clean" / "121" / "121726" / f"121-121726-000{number}.flac", number)
    text(
        root / "is21_deep_bias" / "ref" / "test-clean.biasing_100.tsv",
        '121-121726-0000\tthe tone0 of morland\t["tone0", "morland"]\t["zebra", "tone0", "apse", "morland"]',
        '121-121726-0001\ttone1 again\t[]\t["apse"]',
        '121-121726-0002\tonly tone2\t["tone2"]\t["tone2", "zebra"]',
    )
    return "is21/test-clean.biasing_100"


def contextasr(root: Path) -> str:
    names = "FNED-000001_EN", "FNED-000002_EN"
    row = {"language": "English", "duration": SECONDS, "domain_label": "Medicine"}
    text(
        root / "ContextASR-Speech_English.jsonl",
        *(
            json.dumps(
                {
                    "uniq_id": name,
                    **row,
                    "audio": f"audio/ContextASR-Speech/English/{name}.wav",
                    "text": f"Dr. Vogt said tone{number}.",
                    "entity_list": ["Dr. Vogt", f"tone{number}", "Dr.  Vogt", " "],
                }
            )
            for number, name in enumerate(names)
        ),
    )
    audio(root / "audio" / "ContextASR-Speech" / "English" / f"{names[0]}.wav", 0)
    with tarfile.open(root / "audio/ContextASR-Speech/English/ContextASR-Speech_English_1.tar", "w") as archive:
        member = tarfile.TarInfo(f"./{names[1]}.wav")
        member.size = len(content(1))
        archive.addfile(member, io.BytesIO(content(1)))
    return "contextasr/Speech_English"


def profasr(root: Path) -> str:
    table(
        root / "data" / "train" / "data-00000-of-00003.arrow",
        [
            {
                "utterance_id": f"fin_{number}",
                "audio": cell(number, 22_050),
                "text": f"We met. It was tone{number}.",
                "profile": "mid-thirties analyst from Toronto",
                "domain": "FINANCIAL",
                "voice": "emma",
                "asr_difficulty": 0.4,
                "sentences": ["We met.", f"It was tone{number}."],
                "prompt": ["We met."],
                "truth": f"It was tone{number}.",
            }
            for number in range(3)
        ],
    )
    return "profasr"


def contextual_earnings22(root: Path) -> str:
    table(
        root / "data" / "test-00000-of-00001.parquet",
        [
            {
                "audio": cell(number),
                "file_id": "4468654_chunk45",
                "audio_start": 15.0 * number,
                "audio_end": 15.0 * number + 15,
                "duration": 15.0,
                "text": f"At Aberdeen we saw tone{number}.",
                "norm_text": f"at aberdeen we saw tone{number}",
                "transcript": ["at", "aberdeen"],
                "dictionary": ["Aberdeen", f"tone{number}"],
                "keywords": ["Aberdeen", "Zurich", f"tone{number}", "Jane Roe"],
                "is_flagged": False,
            }
            for number in range(2)
        ],
    )
    return "contextual-earnings22"


NLP = "token|speaker|ts|endTs|punctuation|case|tags|wer_tags"


def earnings21(root: Path) -> str:
    conec, speech = root / "ConEC" / "earnings21", root / "speech-datasets" / "earnings21"
    text(
        conec / "transcripts" / "nlp_references" / "4320211.nlp",
        NLP,
        "Good|0||||UC|[]|[]",
        "morning|0|||,|LC|['4:TIME']|['4']",
        "<inaudible>|0||||LC|[]|[]",
        "Maureen|0||||UC|['7:PERSON']|['7']",
        "D'Ambrosia|1|||,|UC|['7:PERSON']|['7']",
        "tone3|1|||.|LC|['8:ORG']|['8', '9']",
    )
    text(conec / "contexts" / "4320211.txt", "undercar 1", "dambrosia 1", "morning 2")
    text(
        conec / "contexts" / "participant_names" / "4320211.names.txt",
        "Maureen D'Ambrosia - CFO",
        "Bret Jordan - Jefferies",
    )
    audio(speech / "media" / "4320211.wav", 3)
    text(
        speech / "earnings21-file-metadata.csv",
        "file_id,audio_length,sample_rate,company_name,financial_quarter,sector",
        "4320211,3600,44100,Monro Inc,3,Consumer Goods",
    )
    return "earnings21"


def m3av(root: Path) -> str:
    text(root / "set_split.json", json.dumps({"CHI-0B493": "test", "CHI-003EC": "dev", "CHI-004BD": "train"}))
    path = root / "dataset_v1.0_onlyaudio" / "CHI-0B493.flac"
    path.parent.mkdir(parents=True)
    write_sound(path, sound([(0, 0.6, 0.9), (1, 1.3, 1.6)], 2.0, RATE), RATE)
    segments = [
        {"timestr": "0000500_0001000", "final_spoken": "this is tone0", "final_written": "This is tone0."},
        {"timestr": "0001200_0001900", "final_spoken": "and tone1", "final_written": "And tone1."},
    ]
    text(root / "dataset_v1.0_noaudio/CHI-0B493/speech/final+timestamps.json", json.dumps(segments))
    about = {"id": "WmGob4", "title": "Tether", "description": "A pocket sensor.", "tags": ["chi", "touch"]}
    text(root / "info" / "CHI-0B493.info.json", json.dumps(about))
    return "m3av/test"


def spoken_wikipedia(root: Path) -> str:
    rows = []
    for number, split in enumerate(("test", "train")):
        (root / "speech").mkdir(exist_ok=True)
        write_sound(root / "speech" / f"{number}.wav", tone(number, 3.0), RATE)
        rows.append(
            {
                "id": f"north/{number}",
                "article": f"Northanger {number}",
                "audio": f"{number}.wav",
                "text": f"He heard, he heard, he heard, he said tone{number}.",
                "title": "Northanger",
                "section": "Plot",
                "lead": "It is a novel. He heard, he heard, he heard, he said tone0. It ends well.",
                "keywords": "tone0;Bath",
                "speaker": f"ann {number}",
                "split": split,
            }
        )
    text(root / "speech" / "table.jsonl", "\n".join(map(json.dumps, rows)))
    prepare("manifest", root / "speech", root / "prepared", audio="flac")
    for path in [*(root / "prepared").iterdir()]:
        path.rename(root / path.name)
    return "spoken-wikipedia"


def open_asr(root: Path) -> str:
    said = "tone0 okay", "ignore time segment in scoring", "", "tone3 yes"
    rows = [
        {"audio": cell(number), "dataset": "ami", "text": one, "id": f"AMI_{number}", "audio_length_s": SECONDS}
        for number, one in enumerate(said)
    ]
    table(root / "ami" / "test-00000-of-00002.parquet", rows[:3])
    table(root / "ami" / "test-00001-of-00002.parquet", rows[3:])
    return "open-asr/ami/test"


def mlperf(root: Path) -> str:
    clips = []
    for number in range(2):
        clip = audio(root / "dev-all-repack" / f"1272-128104_{number}.wav", number)
        file = {
            "channels": 1,
            "sample_rate": 16000.0,
            "duration": SECONDS,
            "fname": f"/data/dev-all-repack/{clip.name}",
        }
        clips.append(
            {"transcript": f"tone{number} was he", "files": [file | {"speed": 1}], "original_duration": SECONDS}
        )
    text(root / "dev-all-repack.json", json.dumps(clips, indent=2))
    return "mlperf"


def read(make: Callable[[Path], str], root: Path) -> list[Item]:
    return list(open_suite(make(root), root))
