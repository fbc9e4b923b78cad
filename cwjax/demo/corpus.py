"""A speech corpus without a download: spoken articles about words that sound the same.

Every article is about one word of a pair such as *sail* and *sale*. Its title, section titles and lead say which,
its sentences do not ("They wrote about the sail again."), and both words of a pair are spoken by the same voices in
the same sentences: sound alone cannot tell them apart, knowing the topic can. Train, validation and test share
neither readers nor voices nor the wording of a topic. The layout is that of the Spoken Wikipedia Corpus 2.0.
"""

import json
import logging
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import count, product
from pathlib import Path

from tqdm import tqdm

from cwjax.data.prepared.splits import SPLITS, SPLITS_FILE
from cwjax.demo.article import ArticlePlan, Reader, Section, write_article
from cwjax.demo.espeak import Voice, phonemes
from cwjax.demo.homophones import HOMOPHONES_FILE, Homophone, HomophonePairs, read_homophones
from cwjax.demo.swc_writer import identifier
from cwjax.errors import CwjaxError
from cwjax.machine import available_cores

log = logging.getLogger(__name__)

ARTICLES_PER_PROCESS = 100
"""Fewer are spoken before another process would have started."""

LANGUAGE_FOLDER = "english"

# A second sentence for the lead, with a number that is spoken as several words.
_DATED = ("It was first described in {year}.", "In {year} a small museum opened.", "A society was founded in {year}.")
_FIRST_YEAR, _LAST_YEAR = 1911, 1999

# fmt: off
_FIRST_NAMES = (
    "Ada", "Bruno", "Clara", "Dario", "Edith", "Felix", "Greta", "Hugo", "Irene",
    "Jonas", "Karin", "Leo", "Mira", "Nils", "Olga", "Pavel", "Rosa", "Simon",
)
_LAST_NAMES = (
    "Abbott", "Brandt", "Calder", "Dunmore", "Ekberg", "Farley", "Grieve",
    "Halloran", "Ivers", "Jessop", "Kimura", "Lindqvist", "Moreau",
)
# fmt: on


@dataclass(frozen=True)
class DemoCorpusSettings:
    """What the corpus consists of. A range (low, high) is drawn from, both ends included.

    Attributes:
        pairs: how many pairs of words, from the start of the collection; 0 takes all.
        train_articles, validation_articles, test_articles: articles about each word.
        sentences: sentences in each of an article's two sections.
        accents: eSpeak NG's languages; in all of them both words of every pair have equal phonemes.
        train_variants, validation_variants, test_variants: eSpeak NG's voices, each spoken in every accent.
        speed_wpm, pitch, pitch_range: of a reader, as in `Voice`.
        sentence_pause, paragraph_pause: seconds.
        headings_read, announced, untimed, ignored, two_files, studio, dated: share of the articles with each of
            these traits of the real corpus (`ArticlePlan`); a dated lead has a second sentence with a year.
    """

    pairs: int = 24
    train_articles: int = 8
    validation_articles: int = 1
    test_articles: int = 2
    sentences: tuple[int, int] = (4, 6)
    accents: tuple[str, ...] = ("en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-x-gbclan")
    train_variants: tuple[str, ...] = (
        *("m1", "m2", "m4", "m5", "m7", "f1", "f2", "f5"),
        *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Gene", "Jacky", "Lee", "Mario", "Michael", "linda"),
    )
    validation_variants: tuple[str, ...] = ("m8", "f3")
    test_variants: tuple[str, ...] = ("m3", "m6", "f4")
    speed_wpm: tuple[int, int] = (160, 200)
    pitch: tuple[int, int] = (40, 56)
    pitch_range: tuple[int, int] = (35, 65)
    sentence_pause: float = 0.36
    paragraph_pause: float = 0.6
    headings_read: float = 0.1
    announced: float = 0.25
    untimed: float = 0.3
    ignored: float = 0.3
    two_files: float = 0.15
    studio: float = 0.05
    dated: float = 0.3


def write_demo_corpus(
    root: Path, seed: int, settings: DemoCorpusSettings = DemoCorpusSettings(), processes: int = 0
) -> None:
    """Writes the corpus; equal seed and settings give equal texts, times and samples.

    Below `root`: `english/<Folder>/` for each article, `splits.json` (split -> article identifiers) and
    `homophones.json` (the pairs; article identifier -> its word and the word that sounds the same). The corpus
    appears under its name when it is complete; one that is there already is replaced.

    Args:
        root: a new folder, or one that an earlier run has written.
        seed: decides readers, topics and sentences.
        settings: what the corpus consists of.
        processes: how many processes speak, 0: as many as there are cores to use, or one if there is little to do; the
            corpus does not depend on it.

    Raises:
        CwjaxError: eSpeak NG is missing, `root` holds something else, or the corpus cannot be written.
    """
    is_corpus = (root / SPLITS_FILE).is_file() and (root / HOMOPHONES_FILE).is_file()
    if root.exists() and not is_corpus and (not root.is_dir() or any(root.iterdir())):
        raise CwjaxError(f"{root}: exists and is no demonstration corpus, name a new folder")
    plans = plan_corpus(seed, settings)
    unfinished = root.with_name(root.name + ".unfinished")
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        _write(plans, unfinished, processes)
        if root.exists():
            shutil.rmtree(root)
        unfinished.rename(root)
    except OSError as error:
        raise CwjaxError(
            f"{root}: cannot write the demonstration corpus ({error.strerror}), free some space or name another folder"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def seconds_to_write(plans: Sequence[ArticlePlan]) -> float:
    """How long it will take here to write so many articles, by the time that one of them takes.

    Raises:
        CwjaxError: eSpeak NG is missing.
    """
    with tempfile.TemporaryDirectory() as directory:
        for plan in plans[:2]:  # the first also loads the voices
            began = time.perf_counter()
            write_article(plan, Path(directory))
    return (time.perf_counter() - began) * len(plans) / _processes(plans)


def plan_corpus(seed: int, settings: DemoCorpusSettings) -> list[ArticlePlan]:
    """Every article of the corpus, in a fixed order.

    Raises:
        CwjaxError: eSpeak NG is missing, or an accent speaks two words of a pair differently.
    """
    homophones = read_homophones()
    pairs = homophones.pairs[: settings.pairs or None]
    _require_same_sound(pairs, settings.accents)
    return plan_articles(HomophonePairs(pairs, homophones.carriers), seed, settings)


def plan_articles(homophones: HomophonePairs, seed: int, settings: DemoCorpusSettings) -> list[ArticlePlan]:
    """Every article of the corpus, in a fixed order.

    The n-th articles about the two words of a pair have the same reader and the same sentences.
    """
    chance = random.Random(f"readers {seed}")
    variants = (settings.train_variants, settings.validation_variants, settings.test_variants)
    articles = (settings.train_articles, settings.validation_articles, settings.test_articles)
    names = _names()
    plans = []
    for split, split_variants, per_word in zip(SPLITS, variants, articles, strict=True):
        readers = [
            Reader(
                next(names),
                Voice(
                    accent,
                    variant,
                    chance.randint(*settings.speed_wpm),
                    chance.randint(*settings.pitch),
                    chance.randint(*settings.pitch_range),
                ),
            )
            for accent, variant in product(settings.accents, split_variants)
        ]
        chance.shuffle(readers)
        turns = count()
        for pair in homophones.pairs:
            seeds = [f"{seed} {split} {pair[0].word} {number}" for number in range(per_word)]
            turn = [readers[next(turns) % len(readers)] for _ in seeds]
            for entry in pair:
                plans += _plan_word(entry, split, turn, seeds, homophones.carriers, settings)
    return plans


def _plan_word(
    entry: Homophone,
    split: str,
    readers: Sequence[Reader],
    seeds: Sequence[str],
    carriers: Sequence[str],
    settings: DemoCorpusSettings,
) -> Iterator[ArticlePlan]:
    """The articles of a split about one word, one for each reader and seed."""
    wordings = entry.wordings[split]
    topics = list(wordings.titles)
    random.Random(f"{seeds[:1]} {entry.word}").shuffle(topics)
    for number, (reader, seed) in enumerate(zip(readers, seeds, strict=True)):
        title, repetition = topics[number % len(topics)], number // len(topics)
        wording = random.Random(f"{seed} {entry.word}")
        first, second, *others = wording.sample([topic for topic in topics if topic != title], len(topics) - 1)
        lead = [wording.choice(wordings.leads)]

        shared = random.Random(seed)  # equal for both words of the pair
        if shared.random() < settings.dated:
            lead.append(shared.choice(_DATED).format(year=_year(shared)))
        lengths = [shared.randint(*settings.sentences) for _ in range(2)]
        sentences = [carrier.format(word=entry.word) for carrier in shared.sample(carriers, sum(lengths))]
        traits = {
            trait: shared.random() < getattr(settings, trait)
            for trait in ("headings_read", "announced", "untimed", "ignored", "two_files", "studio")
        }
        if not traits["headings_read"]:
            # A very short title that nobody reads cannot be told from one that is read quickly.
            first, second, *others = sorted((first, second, *others), key=_is_short)
            traits["headings_read"] = _is_short(second)
        yield ArticlePlan(
            title=f"{title} (part {repetition + 1})" if repetition else title,
            word=entry.word,
            partner=entry.partner,
            split=split,
            reader=reader,
            lead=tuple(lead),
            sections=(
                Section(first, tuple(sentences[: lengths[0]])),
                Section(second, tuple(sentences[lengths[0] :])),
            ),
            categories=tuple(others[:1]),
            sentence_pause=settings.sentence_pause,
            paragraph_pause=settings.paragraph_pause,
            seed=seed,
            **traits,
        )


def _is_short(title: str) -> bool:
    return len(title.split()) < 3


def _year(chance: random.Random) -> int:
    """A year that is spoken as two numbers."""
    return chance.choice([year for year in range(_FIRST_YEAR, _LAST_YEAR + 1) if year % 100 >= 10])


def _names() -> Iterator[str]:
    """Made-up names of people, no two alike."""
    for round_, (index, first) in product(range(len(_LAST_NAMES)), enumerate(_FIRST_NAMES)):
        yield f"{first} {_LAST_NAMES[(index + round_) % len(_LAST_NAMES)]}"


def _require_same_sound(pairs: Sequence[tuple[Homophone, Homophone]], accents: Sequence[str]) -> None:
    """Raises `CwjaxError` for an accent in which two words of a pair differ."""
    for accent in accents:
        first, second = (phonemes(" ".join(pair[index].word for pair in pairs), Voice(accent)) for index in range(2))
        if first != second:
            raise CwjaxError(f"accents: {accent!r} does not speak both words of every pair alike, leave it out")


def _write(plans: Sequence[ArticlePlan], root: Path, processes: int) -> None:
    """Speaks all articles into a folder and writes the two indexes."""
    directory = root / LANGUAGE_FOLDER
    directory.mkdir(parents=True)
    seconds = 0.0
    progress = tqdm(
        total=len(plans), desc="speaking", unit="article", disable=not sys.stderr.isatty(), dynamic_ncols=True
    )
    with progress:
        for done, length in enumerate(_each_length(plans, directory, processes), 1):
            seconds += length
            progress.update()
            if progress.disable and (done % 100 == 0 or done == len(plans)):
                log.info("spoke %d of %d articles, %.2f h of audio", done, len(plans), seconds / 3600)
    splits = {split: [identifier(plan.title) for plan in plans if plan.split == split] for split in SPLITS}
    words = {identifier(plan.title): {"word": plan.word, "partner": plan.partner} for plan in plans}
    pairs = list(dict.fromkeys(tuple(sorted((plan.word, plan.partner))) for plan in plans))
    (root / SPLITS_FILE).write_text(json.dumps(splits, indent=1), encoding="utf-8")
    (root / HOMOPHONES_FILE).write_text(json.dumps({"pairs": pairs, "articles": words}, indent=1), encoding="utf-8")


def _processes(plans: Sequence[ArticlePlan]) -> int:
    return min(available_cores(), 1 + len(plans) // ARTICLES_PER_PROCESS)


def _each_length(plans: Sequence[ArticlePlan], directory: Path, processes: int) -> Iterator[float]:
    """Writes the articles and gives the seconds of each."""
    write = partial(write_article, directory=directory)
    processes = processes or _processes(plans)
    if processes == 1:
        yield from map(write, plans)
        return
    # Fresh interpreters: forking a process whose JAX threads hold locks can hang it.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(write, plans, chunksize=4)
        except BrokenProcessPool as error:
            raise CwjaxError("a process that spoke articles was killed, is memory short?") from error
