"""Recordings in which every word is a tone of its own pitch, so that a test can hear which words a sound holds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
PITCHES = 100
WORD_MS, PAUSE_MS = 320, 80


@dataclass(frozen=True)
class File:
    """An audio file of a recording: how long it is, and its form."""

    seconds: float
    rate: int = RATE
    channels: int = 1
    suffix: str = "wav"


def word(number: int) -> str:
    """The word whose pitch is that of `number`."""
    return f"tone{number % PITCHES}"


def pitch(number: int) -> float:
    return 300.0 + 60.0 * (number % PITCHES)


def sound(words: Sequence[tuple[int, float, float]], seconds: float, rate: int) -> np.ndarray:
    """A recording of (number, start, end) in seconds, (n,) float32."""
    samples = np.zeros(round(seconds * rate), np.float32)
    for number, start, end in words:
        first, last = max(0, round(start * rate)), min(len(samples), round(end * rate))
        if last > first:
            times = np.arange(first, last) / rate
            # Whole bursts fade in and out over 5 ms: a click would have every pitch.
            fade = np.minimum(1, np.minimum(times - start, end - times).clip(0) / 0.005)
            samples[first:last] += 0.4 * fade * np.sin(2 * np.pi * pitch(number) * times)
    return samples


def heard(samples: np.ndarray) -> list[tuple[int, float, float]]:
    """Which tones 16 kHz samples hold: (number, start, end) in seconds, to about 10 ms."""
    size, hop = 512, 80
    padded = np.pad(np.asarray(samples, np.float32), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, 4 * size))
    loudest = power.argmax(axis=1)
    is_loud = power[np.arange(len(power)), loudest] > 0.5 * 0.4 * np.hanning(size).sum() / 2
    numbers = np.where(is_loud, np.round((loudest * RATE / (4 * size) - 300) / 60), -1).astype(int)
    found: list[tuple[int, float, float]] = []
    for place, number in enumerate(numbers):
        time = place * hop / RATE
        if number < 0:
            continue
        if found and found[-1][0] == number and time - found[-1][2] < 1.5 * hop / RATE:
            found[-1] = (number, found[-1][1], time)
        else:
            found.append((int(number), time, time))
    return [one for one in found if one[2] - one[1] > 0.02]


def steady(first: int, count: int, start: float, length: int = 4) -> list[list[tuple[int, float, float]]]:
    """Sentences of `length` words, each word 0.32 s with 0.08 s between; times in seconds."""
    words = [
        (first + k, start + k * (WORD_MS + PAUSE_MS) / 1000, start + (k * (WORD_MS + PAUSE_MS) + WORD_MS) / 1000)
        for k in range(count)
    ]
    return [words[at : at + length] for at in range(0, count, length)]


def write_sound(path: Path, samples: np.ndarray, rate: int, channels: int = 1) -> None:
    """Writes samples, the same on every channel; in blocks, for the Vorbis encoder fails on long ones."""
    frames = np.repeat(samples[:, None], channels, axis=1)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        for first in range(0, len(frames), 4096):
            file.write(frames[first : first + 4096])


def write_article(
    folder: Path,
    sentences: Sequence[Sequence[tuple[int, float, float]]],
    files: Sequence[File] = (File(6.0),),
    title: str = "",
    reader: str = "Ada",
    language: str = "en",
    lead_sentences: int = 1,
) -> Path:
    """An article of the Spoken Wikipedia: `lead_sentences`, then one that is a section's title, then the section."""
    folder.mkdir(parents=True, exist_ok=True)
    spoken = [one for sentence in sentences for one in sentence]
    offset, offsets = 0.0, []
    for place, file in enumerate(files, 1):
        name = f"audio{place if len(files) > 1 else ''}.{file.suffix}"
        inside = [(number, start - offset, end - offset) for number, start, end in spoken]
        write_sound(folder / name, sound(inside, file.seconds, file.rate), file.rate, file.channels)
        offsets.append(offset)
        offset += file.seconds
    elements = [
        " ".join(
            f'<t>{word(number)}<n pronunciation="{word(number)}" start="{round(start * 1000)}" '
            f'end="{round(end * 1000)}"/></t>'
            for number, start, end in sentence
        )
        for sentence in sentences
    ]
    lead, heading, rest = elements[:lead_sentences], elements[lead_sentences], elements[lead_sentences + 1 :]
    paragraphs = [f"<p>{' '.join(f'<s>{one}<t>.</t></s>' for one in part)}</p>" for part in (lead, rest)]
    section = f"<sectiontitle>{heading}</sectiontitle><sectioncontent>{paragraphs[1]}</sectioncontent>"
    body = f"{paragraphs[0]}<section level='2'>{section}</section>"
    title = title or folder.name
    properties = {"DC.title": title, "DC.identifier": title.replace(" ", "_"), "DC.language": language}
    meta = "".join(f'<prop key="{key}" value="{value}"/>' for key, value in properties.items())
    licence = '<prop key="DC.license" value="CC-BY-SA"/><link key="DC.source" value="https://wiki.example/a"/>'
    (folder / "aligned.swc").write_text(f"<article><meta>{meta}{licence}</meta><d>{body}</d></article>")
    info = {"audio_files": [{"offset": one} for one in offsets], "article_parsed": {"reader": reader}}
    (folder / "info.json").write_text(json.dumps(info))
    anchors = " ".join(f"[[Anchor of {title} {letter}]]" for letter in "abc")
    (folder / "wiki.txt").write_text(f"Text {anchors}\n[[Category:Things]]\n")
    return folder
