"""How well `cwjax align` finds the words of Spoken Wikipedia articles whose times are taken away.

    python benchmarks/align_articles.py make --articles FOLDER [FOLDER ...] --directory DIR
    cwjax align --root DIR/robbed --output DIR/aligned --model openai/whisper-base
    python benchmarks/align_articles.py score --directory DIR

`make` lets eSpeak NG say the phrases of the articles' `aligned.swc`, every word stretched to the time it has there, and
takes the times of half of the words away, in runs of any length up to the longest. `score` says how many of those were
placed again, and how far from their times.
"""

import argparse
import random
import shutil
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import soundfile
from lxml import etree

from cwjax.alignment.books import Book, Recording
from cwjax.alignment.run import CUTS_FILE
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.corpora.swc.article import ALIGNMENT_FILE, read_article
from cwjax.data.corpora.swc.text import Norm
from cwjax.data.cuts import read_cuts
from cwjax.demo.espeak import Voice, synthesize
from cwjax.errors import CwjaxError

PAUSE, LONGEST_PHRASE = 0.1, 12
"""Seconds between phrases that are said by themselves, and words of one."""
NOISE = 0.0005
TAIL = 2.0
"""Seconds of sound after the last time."""


def main() -> None:
    """Makes, or scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "score"))
    parser.add_argument("--articles", type=Path, nargs="+", default=[])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--longest-run", type=int, default=30, help="words in a row that are robbed (30)")
    options = parser.parse_args()
    if options.what == "score":
        score(options.directory)
    for folder in options.articles if options.what == "make" else ():
        make(folder, options.directory, options.longest_run)


def make(folder: Path, directory: Path, longest_run: int) -> None:
    """Writes the article with sound, whole and robbed of times."""
    whole, robbed = directory / "whole" / folder.name, directory / "robbed" / folder.name
    shutil.copytree(folder, whole, dirs_exist_ok=True)
    article = read_article(folder, require_audio=False)
    sound = speech([norm for token in article.tokens for norm in token.norms], article.language)
    starts = [round(part.offset * SAMPLING_RATE) for part in article.audio_parts]
    for part, start, end in zip(article.audio_parts, starts, [*starts[1:], len(sound)], strict=True):
        soundfile.write(whole / Path(part.path).with_suffix(".flac").name, sound[start:end], SAMPLING_RATE)
    shutil.copytree(whole, robbed, dirs_exist_ok=True)
    document = etree.parse(folder / ALIGNMENT_FILE)
    tokens = [token for token in document.iter("t") if any(form.get("start") for form in token.iterfind("n"))]
    draw, place, is_taken = random.Random(0), 0, False
    while place < len(tokens):
        length = draw.randint(1, longest_run)
        for form in (form for token in tokens[place : place + length] for form in token.iterfind("n") if is_taken):
            for edge in ("start", "end"):
                form.attrib.pop(edge, None)
        place, is_taken = place + length, not is_taken
    document.write(robbed / ALIGNMENT_FILE, encoding="utf-8", xml_declaration=True)


def speech(forms: list[Norm], language: str) -> np.ndarray:
    """All spoken forms at their times, in faint noise."""
    timed = [(form, start / 1000, end / 1000) for form, start, end in forms if start is not None]
    sound = np.zeros(round((max(end for *_, end in timed) + TAIL) * SAMPLING_RATE), np.float32)
    phrases: list[list[tuple[str, float, float]]] = []
    for form in timed:
        if not phrases or not 0 <= form[1] - phrases[-1][-1][2] < PAUSE or len(phrases[-1]) == LONGEST_PHRASE:
            phrases.append([])
        phrases[-1].append(form)
    for phrase in phrases:
        say(phrase, language, sound)
    return sound + np.random.default_rng(0).normal(0, NOISE, len(sound)).astype(np.float32)


def say(phrase: list[tuple[str, float, float]], language: str, sound: np.ndarray) -> None:
    """Adds a phrase at about its speed, from each word that eSpeak NG has a time for to the next stretched to fit."""
    text, offsets = " ".join(form for form, *_ in phrase), {}
    for number in range(len(phrase)):
        offsets[sum(len(one) + 1 for one, *_ in phrase[:number])] = number
    try:
        said = synthesize(text, Voice(language))
        rate = said.duration / max(phrase[-1][2] - phrase[0][1], 1e-3)
        said = synthesize(text, Voice(language, speed_wpm=round(np.clip(Voice.speed_wpm * rate, 80, 450))))
    except CwjaxError:  # nothing in it can be spoken
        return
    samples = librosa.resample(
        said.samples.astype(np.float32) / 2**15, orig_sr=said.sampling_rate, target_sr=SAMPLING_RATE
    )
    marks = [(word.start, phrase[offsets[word.offset]][1]) for word in said.words if word.offset in offsets]
    marks = [(0.0, phrase[0][1]), *marks[1:], (said.duration, phrase[-1][2])]
    for (begin, first), (end, last) in pairwise(marks):
        piece = samples[round(begin * SAMPLING_RATE) : round(end * SAMPLING_RATE)]
        place, count = round(first * SAMPLING_RATE), round((last - first) * SAMPLING_RATE)
        if len(piece) and count > 0:
            stretched = librosa.effects.time_stretch(piece, rate=len(piece) / count, n_fft=512)[:count]
            sound[place : place + len(stretched)] += stretched


def score(directory: Path) -> None:
    """Prints a line an article."""
    cuts = list(read_cuts(directory / "aligned" / CUTS_FILE))
    for folder in sorted(one for one in (directory / "whole").iterdir() if one.is_dir()):
        parts = sorted(folder.glob("*.flac"))
        recordings = [Recording("", part) for part in parts]
        (text, true), (_, left) = (
            Book("", directory / name / folder.name / ALIGNMENT_FILE, recordings).read() for name in ("whole", "robbed")
        )
        taken = true.is_placed & ~left.is_placed
        errors, kept = [], []
        found = np.zeros(len(text), bool)
        for cut in (one for one in cuts if Path(one.recording.path).parent.name == folder.name):
            number = [part.name for part in parts].index(Path(cut.recording.path).name)
            for one in cut.supervisions:
                first = int(np.searchsorted(text.begins, one.custom["characters"][0]))
                for place, word in enumerate(one.words, first):
                    if true.recording[place] == number:
                        off = [abs(word.start - true.start[place]), abs(word.end - true.end[place])]
                        (errors if taken[place] else kept).extend(off)
                        found[place] = True
        again = (found & taken).sum() / taken.sum()
        print(
            f"{folder.name}: {taken.sum()} of {true.is_placed.sum()} words robbed, {100 * again:.1f} % placed again, "
            f"median error {np.median(errors):.3f} s, nine of ten below {np.quantile(errors, 0.9):.3f} s; "
            f"{(found & left.is_placed).sum()} of {left.is_placed.sum()} others kept, off by {max(kept):.3f} s at most"
        )


if __name__ == "__main__":
    main()
