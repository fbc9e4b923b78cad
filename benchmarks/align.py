"""How well `cwjax align` finds the words of a book in hours of speech.

    python benchmarks/align.py make --text BOOKS --directory DIR [--hours 3]
    cwjax align --audio DIR/part-*.flac --text DIR/book.txt --model openai/whisper-base --output DIR/aligned
    python benchmarks/align.py score --directory DIR [--aligned OUTPUT]

    python benchmarks/align.py join --clips FOLDER --text BOOKS --directory DIR
    cwjax align --audio DIR/joined.flac --text DIR/book.txt --output DIR/aligned
    python benchmarks/align.py score-clips --directory DIR

`make` takes 300,000 characters of a text, as one book, and lets eSpeak NG read them aloud, a voice a chapter: every
second pair of chapters in the wrong order, 5 % of the sentences left out, 3 % of sentences said that are not in the
book, an announcement before each file, and pauses and faint noise between. BOOKS is any plain text in English of
600,000 characters or more, of Project Gutenberg for instance, or Jane Austen's novels as Debian has them: the file
`Rdata.rdb` of its package r-cran-janeaustenr. `score` compares with what was said when.

`join` puts clips of real speech one after the other, a folder with `text.tsv` (name and text of each), and their text
into the middle of the book; `score-clips` says how many words of each clip were placed, and how far from its ends.
"""

import argparse
import bisect
import json
import random
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from cwjax.alignment.run import CUTS_FILE
from cwjax.alignment.written import written
from cwjax.data.audio.decode import read_audio
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.cuts import TimedWord, read_cuts
from cwjax.demo.espeak import Voice, synthesize

CHARACTERS, CHAPTER = 300_000, 12_000
SKIPPED, INSERTED = 0.05, 0.03
PART_MINUTES = 30
NOISE = 0.0005
TOLERANCE, CLIP_TOLERANCE = 0.25, 0.3
"""Seconds by which a word may be beside its true time and still be placed right, and a clip's words from its ends."""
VARIANTS = ("m1", "m3", "m7", "f1", "f2", "f4", "Alex", "Andy", "Annie", "Michael", "linda")
ANNOUNCEMENT = (
    "This is a LibriVox recording. All LibriVox recordings are in the public domain. For more information, or to "
    "volunteer, please visit LibriVox dot org. Part {part}."
)


@dataclass(frozen=True)
class Sentence:
    """A stretch of the book without a break, or, where `begin` is -1, a sentence that is not in it."""

    begin: int
    text: str


def main() -> None:
    """Makes, or scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "score", "join", "score-clips"))
    parser.add_argument("--text", type=Path, help="to read aloud")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--clips", type=Path, help="folder of clips to join")
    parser.add_argument("--aligned", type=Path, help="output of the command (DIRECTORY/aligned)")
    parser.add_argument("--hours", type=float, default=3.0)
    options = parser.parse_args()
    aligned = options.aligned or options.directory / "aligned"
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.what == "make":
        make(options.text, options.directory, options.hours)
    elif options.what == "join":
        join(options.clips, options.text, options.directory)
    elif options.what == "score":
        score(options.directory, aligned)
    else:
        score_clips(options.directory, aligned)


def make(source: Path, directory: Path, hours: float) -> None:
    """Writes `book.txt`, `part-NN.flac` and `truth.jsonl`, a line a word of the book that is read."""
    book, others = from_books(source)
    (directory / "book.txt").write_text(book, encoding="utf-8")
    draw = random.Random(0)
    strange = [one.text for one in sentences(others)]
    chapters = in_chapters(book)
    for number in range(0, len(chapters) - 1, 4):
        chapters[number], chapters[number + 1] = chapters[number + 1], chapters[number]
    samples, spoken, part, total = [], [], 1, 0.0
    with (directory / "truth.jsonl").open("w", encoding="utf-8") as truth:

        def finish() -> None:
            nonlocal samples, spoken, part, total
            name = f"part-{part:02d}.flac"
            sound = np.concatenate(samples)
            soundfile.write(directory / name, sound, SAMPLING_RATE)
            for word in spoken:
                truth.write(json.dumps({"file": name, **word}) + "\n")
            total += len(sound) / SAMPLING_RATE
            samples, spoken, part = [], [], part + 1

        for chapter in chapters:
            if total + sum(map(len, samples)) / SAMPLING_RATE > 3600 * hours:
                break
            accent, variant = draw.choice(("en-us", "en", "en-gb-x-rp")), draw.choice(VARIANTS)
            voice = Voice(accent, variant, draw.randint(150, 185), draw.randint(40, 56))
            if not samples:
                say(Sentence(-1, ANNOUNCEMENT.format(part=part)), voice, samples, spoken, draw)
            for sentence in chapter:
                if draw.random() >= SKIPPED:
                    say(sentence, voice, samples, spoken, draw)
                if draw.random() < INSERTED:
                    say(Sentence(-1, draw.choice(strange)), voice, samples, spoken, draw)
            samples.append(silence(2.0, draw))
            if sum(map(len, samples)) > 60 * PART_MINUTES * SAMPLING_RATE:
                finish()
        if samples:
            finish()
    print(f"{part - 1} files, {total / 3600:.2f} hours")


def from_books(source: Path) -> tuple[str, str]:
    """So many characters that one book has, and what is after them."""
    text = read_books(source)
    first = text.index("\n\n", len(text) // 10) + 2
    return text[first : first + CHARACTERS], text[first + CHARACTERS :]


def read_books(source: Path) -> str:
    """A text file, or the character vectors in a lazy-load database of R, a paragraph where a line is empty."""
    if source.suffix != ".rdb":
        return source.read_text(encoding="utf-8")
    raw, at, lines = source.read_bytes(), 0, []
    while at < len(raw):
        decompressor = zlib.decompressobj()
        data = decompressor.decompress(raw[at + 4 :])
        at = len(raw) - len(decompressor.unused_data)
        # A string is a word of flags, of which the last byte says that it is one, its length, and its bytes.
        place = data.index(b"\x00\x00\x00\x10") + 8
        while place < len(data) and data[place + 3] == 9:
            (length,) = struct.unpack(">i", data[place + 4 : place + 8])
            lines.append(data[place + 8 : place + 8 + max(length, 0)].decode())
            place += 8 + max(length, 0)
    return "\n".join(lines)


def in_chapters(book: str) -> list[list[Sentence]]:
    """The sentences of the book, so many characters together."""
    chapters: list[list[Sentence]] = [[]]
    for one in sentences(book):
        if chapters[-1] and one.begin - chapters[-1][0].begin > CHAPTER:
            chapters.append([])
        chapters[-1].append(one)
    return chapters


def sentences(text: str) -> Iterator[Sentence]:
    """What can be said in one breath."""
    for paragraph in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text):
        for found in re.finditer(r"\S.*?(?:[.!?;][\"'”’)_]*(?=\s)|$)", paragraph[0].replace("\n", " ")):
            if re.search(r"\w", found[0]):
                yield Sentence(paragraph.start() + found.start(), found[0])


def say(sentence: Sentence, voice: Voice, samples: list[np.ndarray], spoken: list[dict], draw: random.Random) -> None:
    """Appends the sound of a sentence, and its words if they are the book's."""
    speech = synthesize(sentence.text.replace("_", " "), voice)
    began = sum(map(len, samples)) / SAMPLING_RATE
    sound = soxr.resample(speech.samples.astype(np.float32) / 2**15, speech.sampling_rate, SAMPLING_RATE)
    samples += [sound + silence(len(sound) / SAMPLING_RATE, draw), silence(draw.uniform(0.25, 0.8), draw)]
    if sentence.begin < 0:
        return
    known = {word.offset: word for word in speech.words}
    for found in re.finditer(r"\S*\w\S*", sentence.text.replace("_", " ")):
        word = known.get(found.start())
        times = (word.start, word.end) if word else (0.0, speech.duration)
        spoken.append(
            {
                "begin": sentence.begin + found.start(),
                "text": found[0],
                "start": round(began + times[0], 3),
                "end": round(began + times[1], 3),
                "measured": word is not None,
            }
        )


def score(directory: Path, aligned: Path) -> None:
    """Prints how many of the words that were said were placed, how many of those rightly, and how far off."""
    said: dict[tuple[str, int], dict] = {}
    for line in (directory / "truth.jsonl").open(encoding="utf-8"):
        word = json.loads(line)
        said[word["file"], word["begin"]] = word
    begins: dict[str, list[int]] = {}
    for name, begin in sorted(said):
        begins.setdefault(name, []).append(begin)
    text = written((directory / "book.txt").read_text(encoding="utf-8"))
    placed, right, errors = set(), 0, []
    wrong = 0
    for cut in read_cuts(aligned / CUTS_FILE):
        name = Path(cut.recording.path).name
        for one in cut.supervisions:
            first = int(np.searchsorted(text.begins, one.custom["characters"][0]))
            for number, word in enumerate(one.words, first):
                # A word that was said may be several of the text: "come--and".
                place = bisect.bisect_right(begins[name], text.ends[number] - 1) - 1
                true = said[name, begins[name][place]] if place >= 0 else None
                if true is None or text.begins[number] >= true["begin"] + len(true["text"]):
                    wrong += 1
                    continue
                placed.add((name, true["begin"]))
                is_right = word.start < true["end"] + TOLERANCE and word.end > true["start"] - TOLERANCE
                right, wrong = right + is_right, wrong + (not is_right)
                if true["measured"] and text.begins[number] <= true["begin"]:
                    errors.append(abs(word.start - true["start"]))
                if true["measured"] and text.ends[number] >= true["begin"] + len(true["text"]):
                    errors.append(abs(word.end - true["end"]))
    print(f"{len(said)} words of the book were said; {100 * len(placed) / len(said):.2f} % of them were placed")
    print(f"{right + wrong} words were placed, {100 * right / (right + wrong):.2f} % of them rightly")
    median, late = np.quantile(errors, [0.5, 0.9])
    print(f"error of beginnings and ends: median {median:.3f} s, nine of ten below {late:.3f} s")


def join(clips: Path, source: Path, directory: Path) -> None:
    """Writes `joined.flac`, `book.txt` and `clips.json`: of each clip its characters in the book, its start and end."""
    book, _ = from_books(source)
    begin = book.index("\n\n", len(book) // 2) + 2
    before, parts, sound, facts = book[:begin], [], [], []
    for line in (clips / "text.tsv").read_text(encoding="utf-8").splitlines():
        name, text = line.split("\t")
        first, start = len(before) + sum(len(part) + 1 for part in parts), sum(map(len, sound)) / SAMPLING_RATE
        parts.append(text)
        sound.append(read_audio(clips / f"{name}.flac"))
        end = sum(map(len, sound)) / SAMPLING_RATE
        facts.append({"clip": name, "begin": first, "end_character": first + len(text), "start": start, "end": end})
    soundfile.write(directory / "joined.flac", np.concatenate(sound), SAMPLING_RATE)
    (directory / "book.txt").write_text(f"{before}{' '.join(parts)}\n\n{book[begin:]}", encoding="utf-8")
    (directory / "clips.json").write_text(json.dumps(facts), encoding="utf-8")


def score_clips(directory: Path, aligned: Path) -> None:
    """Prints a line a clip that lacks words or whose ends are off, and the sums."""
    text = written((directory / "book.txt").read_text(encoding="utf-8"))
    (cut,) = read_cuts(aligned / CUTS_FILE)
    times: dict[int, TimedWord] = {}
    for one in cut.supervisions:
        first = int(np.searchsorted(text.begins, one.custom["characters"][0]))
        times.update(enumerate(one.words, first))
    errors, lacking, expected = [], 0, set()
    for clip in json.loads((directory / "clips.json").read_text(encoding="utf-8")):
        words = range(*np.searchsorted(text.begins, [clip["begin"], clip["end_character"]]).tolist())
        expected.update(words)
        missing = [text.between(word, word + 1) for word in words if word not in times]
        lacking += len(missing)
        off = [
            abs(times[words[0]].start - clip["start"]) if words[0] in times else np.inf,
            abs(times[words[-1]].end - clip["end"]) if words[-1] in times else np.inf,
        ]
        errors += off
        if missing or max(off) > CLIP_TOLERANCE:
            print(f"{clip['clip']}: begins off by {off[0]:.2f} s, ends by {off[1]:.2f} s; without {missing}")
    print(f"{len(expected) - lacking} of {len(expected)} words placed, {len(times.keys() - expected)} others")
    print(f"ends of clips: median error {np.median(errors):.3f} s, largest {max(errors):.3f} s")


def silence(seconds: float, draw: random.Random) -> np.ndarray:
    """Faint noise."""
    noise = np.random.default_rng(draw.getrandbits(32))
    return noise.normal(0, NOISE, round(seconds * SAMPLING_RATE)).astype(np.float32)


if __name__ == "__main__":
    main()
