"""Speaks one article of the demonstration corpus and writes its folder.

Some articles have the traits of the real Spoken Wikipedia that a reader must cope with: an announcement that is not
part of the text, words without a time, text that nobody speaks, a number spoken as several words, a footnote inside a
sentence, two audio files on one timeline.
"""

import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from cwjax.demo import swc_writer
from cwjax.demo.espeak import SAMPLING_RATE, Voice, synthesize
from cwjax.demo.swc_writer import Sentence, SpokenArticle, SpokenWordTime, WrittenToken

_GRID = 20  # ms; a whole number of samples at 22050 Hz, and of the 10 ms that the corpus gives times in
_GRID_SAMPLES = SAMPLING_RATE * _GRID // 1000
_FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "it", "its", "of", "on", "the", "to", "was")
)
_ONES = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@dataclass(frozen=True)
class Reader:
    """A made-up person and how they sound."""

    name: str
    voice: Voice


@dataclass(frozen=True)
class Section:
    """A title and the sentences below it."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class ArticlePlan:
    """All that decides an article.

    Attributes:
        title: unique in the corpus.
        word, partner: the word it is about, and the one that sounds the same.
        split: "train", "validation" or "test".
        reader: who speaks.
        lead: the sentences before the first section.
        sections: what comes after the lead.
        categories: subject headings.
        headings_read: lead and section titles are read aloud; otherwise they are in the text alone.
        announced: the recording begins with an announcement of the title.
        untimed: some function words of the lead have no time.
        ignored: a table of contents, a footnote and edit links, which nobody speaks.
        two_files: the second section is in an audio file of its own, which begins with an announcement.
        studio: the audio is stereo at 44.1 kHz.
        sentence_pause, paragraph_pause: seconds.
        seed: of the choices made inside the article.
    """

    title: str
    word: str
    partner: str
    split: str
    reader: Reader
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    categories: tuple[str, ...]
    headings_read: bool
    announced: bool
    untimed: bool
    ignored: bool
    two_files: bool
    studio: bool
    sentence_pause: float
    paragraph_pause: float
    seed: str


def write_article(plan: ArticlePlan, directory: Path) -> float:
    """Speaks an article and writes its folder into a directory.

    Returns:
        The length of its audio in seconds.

    Raises:
        CwjaxError: eSpeak NG is missing or does not know the reader's voice.
        OSError: a file cannot be written.
    """
    recording = _Recording(plan.reader.voice)
    recording.pause(plan.paragraph_pause)
    announcement: Sentence = ()
    if plan.announced:
        announcement = recording.say(f"{plan.title}. From the spoken encyclopedia.")
        recording.pause(plan.paragraph_pause)
    lead = recording.say_all(plan.lead, plan.sentence_pause) if plan.headings_read else tuple(map(_unread, plan.lead))
    if plan.untimed:
        chance = random.Random(plan.seed)
        lead = tuple(_without_some_times(sentence, chance) for sentence in lead)
    sections = []
    for number, section in enumerate(plan.sections):
        recording.pause(plan.paragraph_pause)
        if plan.two_files and number == 1:
            recording.start_file()
            recording.pause(plan.paragraph_pause)
            recording.say(f"{plan.title}. Part two.")
            recording.pause(plan.paragraph_pause)
        title = _unread(section.title)
        if plan.headings_read:
            title = recording.say(section.title)
            recording.pause(plan.paragraph_pause)
        sections.append((title, recording.say_all(section.sentences, plan.sentence_pause)))
    recording.pause(plan.paragraph_pause)

    folder = directory / swc_writer.folder_name(plan.title)
    folder.mkdir(parents=True)
    for (name, _), samples in zip(recording.audio, recording.files, strict=True):
        (folder / name).write_bytes(_ogg_vorbis(samples, plan.studio))
    article = SpokenArticle(
        title=plan.title,
        reader=plan.reader.name,
        accent=plan.reader.voice.language,
        audio=recording.audio,
        announcement=announcement,
        lead=lead,
        sections=tuple(sections),
        categories=plan.categories,
        ignored=plan.ignored,
    )
    for file_name, content in (
        ("aligned.swc", swc_writer.aligned_swc(article)),
        ("wiki.html", swc_writer.wiki_html(article)),
        ("wiki.txt", swc_writer.wiki_text(article)),
        ("info.json", json.dumps(swc_writer.info(article))),
        ("audiometa.txt", swc_writer.audio_description(article)),
    ):
        (folder / file_name).write_bytes(content.encode())
    return recording.milliseconds / 1000


class _Recording:
    """What was said so far, on one timeline over one or more audio files."""

    def __init__(self, voice: Voice):
        self._voice = voice
        self._pieces: list[list[np.ndarray]] = [[]]
        self._offsets = [0]
        self.milliseconds = 0

    @property
    def files(self) -> list[np.ndarray]:
        """(N,) int16 samples of each file."""
        return [np.concatenate(pieces) for pieces in self._pieces]

    @property
    def audio(self) -> tuple[tuple[str, int], ...]:
        """The name of each file as the corpus has it, and where on the timeline it begins, in milliseconds."""
        if len(self._offsets) == 1:
            return (("audio.ogg", 0),)
        return tuple((f"audio{number}.ogg", offset) for number, offset in enumerate(self._offsets, 1))

    def start_file(self) -> None:
        """What follows goes into a new audio file."""
        self._pieces.append([])
        self._offsets.append(self.milliseconds)

    def pause(self, seconds: float) -> None:
        """Silence."""
        self._append(np.zeros(round(seconds * 1000 / _GRID) * _GRID_SAMPLES, np.int16))

    def say_all(self, sentences: Sequence[str], pause: float) -> tuple[Sentence, ...]:
        """Sentences with pauses between them."""
        said = []
        for number, sentence in enumerate(sentences):
            if number:
                self.pause(pause)
            said.append(self.say(sentence))
        return tuple(said)

    def say(self, text: str) -> Sentence:
        """Speaks a sentence and returns its tokens with their times."""
        tokens = _unread(text)
        utterance, offsets = "", []
        for token in tokens:
            if not token.spoken:
                utterance += token.surface
            for word in token.spoken:
                utterance += " " * bool(utterance)
                offsets.append(len(utterance))
                utterance += word.pronunciation
        # A full stop makes the voice fall at the end of a title too.
        speech = synthesize(utterance if utterance.endswith(".") else utterance + ".", self._voice)
        times = {word.offset: (self._on_grid(word.start), self._on_grid(word.end)) for word in speech.words}
        self._append(np.pad(speech.samples, (0, -len(speech.samples) % _GRID_SAMPLES)))
        following = iter(offsets)
        return tuple(
            replace(
                token,
                spoken=tuple(
                    SpokenWordTime(word.pronunciation, *times.get(next(following), ())) for word in token.spoken
                ),
            )
            for token in tokens
        )

    def _on_grid(self, seconds: float) -> int:
        return self.milliseconds + round(seconds * 100) * 10

    def _append(self, samples: np.ndarray) -> None:
        self._pieces[-1].append(samples)
        self.milliseconds += len(samples) // _GRID_SAMPLES * _GRID


def _unread(text: str) -> Sentence:
    """The tokens of a sentence, how they are pronounced, and no times."""
    return tuple(map(_with_spoken_year, swc_writer.tokenize(text)))


def _with_spoken_year(token: WrittenToken) -> WrittenToken:
    """A year such as 1938 is pronounced as two numbers: nineteen, thirty, eight. Other tokens are left alone.

    The last two digits must be 10 or more.
    """
    if not token.surface.isdigit():
        return token
    words: list[str] = []
    for number in divmod(int(token.surface), 100):
        tens, ones = divmod(number, 10)
        words += [_TEENS[ones]] if tens == 1 else [_TENS[tens], _ONES[ones]]
    return replace(token, spoken=tuple(SpokenWordTime(word) for word in words if word))


def _without_some_times(sentence: Sentence, chance: random.Random) -> Sentence:
    """Takes the times from the first word, if it is a function word, and from half of the other function words."""
    return tuple(
        replace(token, spoken=tuple(SpokenWordTime(word.pronunciation) for word in token.spoken))
        if token.surface.lower() in _FUNCTION_WORDS and (index == 0 or chance.random() < 0.5)
        else token
        for index, token in enumerate(sentence)
    )


def _ogg_vorbis(samples: np.ndarray, studio: bool) -> bytes:
    """(N,) int16 -> the bytes of an Ogg Vorbis file."""
    waveform = samples.astype(np.float32) / 32768
    rate = SAMPLING_RATE
    if studio:
        waveform = resample_poly(waveform, 2, 1)[:, None] * np.array([1.0, 0.9], np.float32)
        rate *= 2
    buffer = io.BytesIO()
    channels = waveform.shape[1] if waveform.ndim == 2 else 1
    with soundfile.SoundFile(buffer, "w", rate, channels, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(waveform), rate):  # libsndfile's encoder overflows its stack on long blocks
            file.write(waveform[start : start + rate])
    return buffer.getvalue()
