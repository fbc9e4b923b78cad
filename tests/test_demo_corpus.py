import json
import re
import resource
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lxml import etree
from segmented import segmented

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.article import find_articles, read_article
from cwjax.data.prepared.splits import SPLITS, Member, article_splits
from cwjax.demo.corpus import DemoCorpusSettings, plan_articles, write_demo_corpus
from cwjax.demo.homophones import read_homophones
from cwjax.errors import CwjaxError

pytest.importorskip("espeakng_loader", reason="eSpeak NG comes with the extra `demo`")

TRAITS = ("announced", "untimed", "ignored", "two_files", "studio", "dated")
SMALL = DemoCorpusSettings(pairs=1, train_articles=1, sentences=(2, 2), test_articles=1)
PLAIN = replace(SMALL, **dict.fromkeys(TRAITS, 0.0), headings_read=1.0)
QUIRKY = replace(SMALL, **dict.fromkeys(TRAITS, 1.0), headings_read=1.0)

# The schema of the corpus (swc-1.0) as far as `<d>` goes, in RelaxNG's XML form.
SCHEMA = """
<grammar xmlns="http://relaxng.org/ns/structure/1.0"
         datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes">
  <start><element name="article"><ref name="meta"/><element name="d"><zeroOrMore><choice>
    <ref name="extra"/><ref name="ignored"/><ref name="p"/><ref name="section"/><ref name="s"/>
  </choice></zeroOrMore></element></element></start>
  <define name="meta"><element name="meta"><zeroOrMore><choice>
    <element name="prop"><ref name="entry"/></element><element name="link"><ref name="entry"/></element>
  </choice></zeroOrMore></element></define>
  <define name="entry"><attribute name="key"/><attribute name="value"/>
    <optional><attribute name="group"/></optional></define>
  <define name="extra"><element name="extra"><attribute name="text"/><oneOrMore><element name="s">
    <attribute name="text"/><oneOrMore><element name="t"><attribute name="text"/>
      <zeroOrMore><ref name="n"/></zeroOrMore></element></oneOrMore></element></oneOrMore></element></define>
  <define name="ignored"><element name="ignored"><zeroOrMore><choice>
    <ref name="p"/><ref name="s"/><ref name="section"/></choice></zeroOrMore></element></define>
  <define name="section"><element name="section">
    <attribute name="level"><data type="positiveInteger"/></attribute>
    <element name="sectiontitle"><zeroOrMore><choice><ref name="t"/>
      <element name="ignored"><zeroOrMore><ref name="t"/></zeroOrMore></element></choice></zeroOrMore></element>
    <element name="sectioncontent"><zeroOrMore><choice>
      <ref name="s"/><ref name="p"/><ref name="section"/><ref name="ignored"/></choice></zeroOrMore></element>
  </element></define>
  <define name="p"><element name="p"><zeroOrMore><choice>
    <ref name="s"/><ref name="ignored"/><ref name="p"/></choice></zeroOrMore></element></define>
  <define name="s"><element name="s"><oneOrMore><ref name="t"/></oneOrMore></element></define>
  <define name="t"><element name="t"><mixed><zeroOrMore><ref name="n"/></zeroOrMore></mixed></element></define>
  <define name="n"><element name="n"><attribute name="pronunciation"/><optional>
    <attribute name="start"><data type="nonNegativeInteger"/></attribute>
    <attribute name="end"><data type="positiveInteger"/></attribute></optional></element></define>
</grammar>
"""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("corpora")
    roots = {"plain": folder / "plain", "quirky": folder / "quirky"}
    write_demo_corpus(roots["plain"], 1, PLAIN, processes=1)
    write_demo_corpus(roots["quirky"], 1, QUIRKY, processes=1)
    return roots


def folders(root: Path) -> list[Path]:
    return sorted((root / "english").iterdir())


def document(folder: Path) -> etree._Element:
    return etree.fromstring((folder / "aligned.swc").read_bytes())


def timed_words(folder: Path) -> list[etree._Element]:
    return [word for word in document(folder).iter("n") if word.get("start")]


def timeline(folder: Path) -> tuple[np.ndarray, int]:
    """All audio of an article in a row, one channel, placed by the offsets in info.json; and its sampling rate."""
    parts = json.loads((folder / "info.json").read_text())["audio_files"]
    names = ["audio.ogg"] if len(parts) == 1 else [f"audio{number}.ogg" for number in range(1, len(parts) + 1)]
    pieces = []
    for name, part in zip(names, parts, strict=True):
        samples, rate = soundfile.read(folder / name, always_2d=True)
        assert sum(map(len, pieces)) / rate == pytest.approx(part["offset"], abs=1e-9)
        pieces.append(samples.mean(axis=1))
    return np.concatenate(pieces), rate


def is_loud(folder: Path) -> np.ndarray:
    """One bool for each 10 ms of an article."""
    samples, rate = timeline(folder)
    frame = rate // 100
    frames = round(len(samples) / rate * 100)
    edges = (np.arange(frames) * rate / 100).astype(int)
    level = np.array([np.abs(samples[edge : edge + frame]).mean() for edge in edges])
    return level > 0.02 * level.max()


@pytest.mark.parametrize("kind", ["plain", "quirky"])
def test_the_layout_is_that_of_the_corpus(corpora, kind):
    root = corpora[kind]
    audio = {"audio.ogg"} if kind == "plain" else {"audio1.ogg", "audio2.ogg"}
    assert len(folders(root)) == 6
    for folder in folders(root):
        names = {path.name for path in folder.iterdir()}
        assert names == {"aligned.swc", "info.json", "wiki.txt", "wiki.html", "audiometa.txt", *audio}
        for name in audio:
            header = soundfile.info(folder / name)
            assert (header.format, header.subtype) == ("OGG", "VORBIS")
            assert (header.samplerate, header.channels) == ((22050, 1) if kind == "plain" else (44100, 2))


@pytest.mark.parametrize("kind", ["plain", "quirky"])
def test_documents_are_valid(corpora, kind):
    schema = etree.RelaxNG(etree.fromstring(SCHEMA))
    for folder in folders(corpora[kind]):
        schema.assertValid(document(folder))


@pytest.mark.parametrize("kind", ["plain", "quirky"])
def test_the_text_is_the_same_in_all_files(corpora, kind):
    for folder in folders(corpora[kind]):
        body = document(folder).find("d")
        page = etree.HTML((folder / "wiki.html").read_text())
        assert "".join("".join(body.itertext()).split()) == "".join("".join(page.itertext()).split())
        for ignored in list(body.iter("ignored")):
            etree.strip_elements(ignored, "*", with_tail=True)
        wikitext = (folder / "wiki.txt").read_text()
        plain = re.sub(r"<ref>.*?</ref>|\[\[Category:.*?\]\]|==", " ", wikitext)
        plain = re.sub(r"\s+", " ", plain).strip()
        for boundary in ("p", "sectiontitle"):  # a new paragraph is a space though none is written
            for element in body.iter(boundary):
                element.tail = " " + (element.tail or "")
        assert re.sub(r"\s+", " ", "".join(body.itertext())).strip() == plain


@pytest.mark.parametrize("kind", ["plain", "quirky"])
def test_times_lie_on_the_grid_and_never_go_back(corpora, kind):
    for folder in folders(corpora[kind]):
        times = [(int(word.get("start")), int(word.get("end"))) for word in timed_words(folder)]
        assert all(time % 10 == 0 for pair in times for time in pair)
        assert all(start < end for start, end in times)
        assert all(end <= start for (_, end), (start, _) in pairwise(times))


def test_all_sound_lies_in_words_and_all_words_hold_sound(corpora):
    for folder in folders(corpora["plain"]):
        loud = is_loud(folder)
        for word in timed_words(folder):
            start, end = int(word.get("start")) // 10, int(word.get("end")) // 10
            assert loud[start:end].mean() > 0.4, word.get("pronunciation")
        for word, following in pairwise(document(folder).find("d/section/sectioncontent").iter("n")):
            silent = ~loud[int(word.get("end")) // 10 : int(following.get("start")) // 10]
            assert silent.mean() > 0.8 if len(silent) > 2 else True
        for (_, end), (start, _) in pairwise(sentence_times(folder)):
            assert start - end >= 300
            assert not loud[end // 10 + 2 : start // 10 - 1].any()


def sentence_times(folder: Path) -> list[tuple[int, int]]:
    """(start, end) of every sentence and title, in milliseconds."""
    times = []
    for element in document(folder).iter("s", "sectiontitle"):
        words = [word for word in element.iter("n") if word.get("start")]
        times.append((int(words[0].get("start")), int(words[-1].get("end"))))
    return times


def test_words_of_the_second_file_sound_where_its_offset_says(corpora):
    for folder in folders(corpora["quirky"]):
        offset = json.loads((folder / "info.json").read_text())["audio_files"][1]["offset"]
        loud = is_loud(folder)
        words = [word for word in timed_words(folder) if int(word.get("start")) > 1000 * offset]
        assert len(words) > 10
        for word in words:
            start, end = int(word.get("start")) // 10, int(word.get("end")) // 10
            assert loud[start:end].mean() > 0.4, word.get("pronunciation")
        before, after = int(words[0].get("start")) // 10 - 40, int(words[0].get("start")) // 10 - 2
        assert not loud[before:after].any()


def test_traits_of_the_real_corpus_are_there(corpora):
    untimed = 0
    for folder in folders(corpora["quirky"]):
        body = document(folder).find("d")
        assert body.find("extra").get("text").endswith("From the spoken encyclopedia.")
        assert {"".join(element.itertext()) for element in body.iter("ignored")} >= {"[edit]", "[1]"}
        year = next(token for token in body.find("p").iter("t") if re.fullmatch(r"\d{4}", token.text or ""))
        spoken = [word.get("pronunciation") for word in year.iter("n")]
        assert (spoken[0], len(spoken)) == ("nineteen", 3) or len(spoken) == 2
        assert all(word.get("start") for word in year.iter("n"))
        untimed += sum(not word.get("start") for sentence in body.find("p").iter("s") for word in sentence.iter("n"))
        assert not any(word.get("start") for part in body.iter("ignored") for word in part.iter("n"))
        for section in body.findall("section"):
            assert all(word.get("start") for word in section.find("sectioncontent").iter("n"))
    assert untimed > 6


def test_the_reader_of_the_corpus_reads_it(corpora):
    root = corpora["quirky"]
    words = json.loads((root / "homophones.json").read_text())["articles"]
    segments = []
    for folder in find_articles(root):
        article = read_article(folder, root)
        assert [part.path.rsplit("/", 1)[1] for part in article.audio_parts] == ["audio1.ogg", "audio2.ogg"]
        found = segmented(article, SegmentationSettings(max_duration=8.0))
        assert not found.rejected
        segments += found.segments
        text = " ".join(segment.text for segment in found.segments)
        assert len(re.findall(rf"\b{words[article.identifier]['word']}\b", text)) == 4
    split = article_splits({Member(one.article, one.speaker) for one in segments}, root=root)
    assert sorted(split.values()) == ["test"] * 2 + ["train"] * 2 + ["validation"] * 2


@pytest.mark.parametrize("kind", ["plain", "quirky"])
def test_the_indexes_name_every_article(corpora, kind):
    root = corpora[kind]
    splits = json.loads((root / "splits.json").read_text())
    homophones = json.loads((root / "homophones.json").read_text())
    identifiers = {document(folder).find("meta/prop[@key='DC.identifier']").get("value") for folder in folders(root)}
    listed = [identifier for split in SPLITS for identifier in splits[split]]
    assert sorted(listed) == sorted(identifiers) == sorted(homophones["articles"])
    assert homophones["pairs"] == [["sail", "sale"]]
    for folder in folders(root):
        entry = homophones["articles"][document(folder).find("meta/prop[@key='DC.identifier']").get("value")]
        sentences = " ".join(document(folder).find("d").itertext()).split()
        assert entry["word"] in sentences
        assert entry["partner"] not in sentences


def test_splits_share_no_reader_voice_or_wording():
    settings = DemoCorpusSettings()
    plans = plan_articles(read_homophones(), 3, settings)
    seen: dict[str, dict[str, set]] = {
        split: {
            "readers": {plan.reader.name for plan in plans if plan.split == split},
            "variants": {plan.reader.voice.variant for plan in plans if plan.split == split},
            "wordings": {
                wording
                for plan in plans
                if plan.split == split
                for wording in (plan.title, plan.lead[0], *plan.categories, *(part.title for part in plan.sections))
            },
        }
        for split in SPLITS
    }
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for kind in ("readers", "variants", "wordings"):
            assert not seen[first][kind] & seen[second][kind]
    assert len(seen["train"]["readers"]) >= 30
    assert len({plan.title.casefold() for plan in plans}) == len(plans)
    counts = {split: sum(plan.split == split for plan in plans) for split in SPLITS}
    words = 2 * len(read_homophones().pairs)
    assert words >= 48
    assert counts == {
        "train": words * settings.train_articles,
        "validation": words * settings.validation_articles,
        "test": words * settings.test_articles,
    }


def test_headings_that_nobody_reads_are_in_no_segment(tmp_path):
    write_demo_corpus(tmp_path / "corpus", 2, replace(PLAIN, sentences=(5, 5), headings_read=0.0), processes=1)
    for folder in find_articles(tmp_path / "corpus"):
        article = read_article(folder, tmp_path / "corpus")
        segments = segmented(article, SegmentationSettings(max_duration=8.0)).segments
        titles = {title for segment in segments for title in segment.context.section}
        assert len(titles) == 2
        said = " ".join(segment.text for segment in segments)
        # Two sections of five sentences, each sentence with its full stop, and nothing else.
        assert said.count(".") == 10
        assert not any(title in said for title in titles)
        assert segments[0].context.lead
        assert segments[0].context.lead not in said
        assert not any(segment.is_lead for segment in segments)


def test_voice_and_sentences_do_not_tell_the_words_of_a_pair_apart():
    plans = plan_articles(read_homophones(), 3, DemoCorpusSettings())

    def heard(word: str, partner: str) -> list[tuple]:
        return [
            (
                plan.reader,
                [re.sub(rf"\b{word}\b", "_", sentence) for part in plan.sections for sentence in part.sentences],
            )
            for plan in plans
            if plan.word == word and plan.partner == partner
        ]

    for first, second in read_homophones().pairs:
        assert heard(first.word, second.word) == heard(second.word, first.word)


def test_titles_stay_unique_when_there_are_more_articles_than_wordings():
    plans = plan_articles(read_homophones(), 0, replace(PLAIN, train_articles=25))
    titles = [plan.title for plan in plans]
    assert len(set(titles)) == len(titles)
    assert sum(title.endswith("(part 3)") for title in titles) > 0


def test_wordings_name_neither_word_of_their_pair():
    wordings: list[str] = []
    for pair in read_homophones().pairs:
        assert [entry.partner for entry in pair] == [pair[1].word, pair[0].word]
        for entry in pair:
            for split, (titles, leads) in zip(SPLITS, ((8, 5), (3, 2), (4, 3)), strict=True):
                found = entry.wordings[split]
                assert len(found.titles) >= titles
                assert len(found.leads) >= leads
                wordings += found.titles + found.leads
                for text in found.titles + found.leads:
                    for word in (entry.word, entry.partner):
                        inflected = rf"\b{word}" + (r"" if len(word) > 3 else r"(s|es|d|ed|r|ing|y|[a-z]?\b)")
                        assert not re.search(inflected, text, re.IGNORECASE), (word, text)
    assert len({wording.casefold() for wording in wordings}) == len(wordings)


def test_carriers_fit_every_word_and_hold_none():
    homophones = read_homophones()
    words = {entry.word for pair in homophones.pairs for entry in pair}
    for carrier in homophones.carriers:
        assert carrier.count("{word}") == 1
        assert not words & set(re.findall(r"\w+", carrier.lower().replace("{word}", "")))
        assert re.search(r"\b(the|this|that) \{word\}", carrier, re.IGNORECASE)
    assert len(words) >= 48


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".ogg"
    }


def test_equal_seeds_give_equal_corpora_whatever_the_processes(corpora, tmp_path):
    write_demo_corpus(tmp_path / "again", 1, QUIRKY, processes=2)
    assert contents(tmp_path / "again") == contents(corpora["quirky"])
    for folder in folders(tmp_path / "again"):
        np.testing.assert_array_equal(timeline(folder)[0], timeline(corpora["quirky"] / "english" / folder.name)[0])


def test_another_seed_gives_another_corpus(corpora, tmp_path):
    write_demo_corpus(tmp_path / "other", 2, QUIRKY, processes=1)
    assert contents(tmp_path / "other") != contents(corpora["quirky"])


def test_a_corpus_is_replaced_and_other_folders_are_left_alone(corpora, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(corpora["plain"], root)
    (root / "english" / "stale").mkdir()
    write_demo_corpus(root, 1, PLAIN, processes=1)
    assert contents(root) == contents(corpora["plain"])

    precious = tmp_path / "documents"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(CwjaxError, match="documents"):
        write_demo_corpus(precious, 1, PLAIN, processes=1)
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_leaves_nothing_behind(corpora, tmp_path):
    """A limit on the size of files makes writes fail in the operating system, as a full disk does."""
    root = tmp_path / "corpus"
    shutil.copytree(corpora["plain"], root)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for place in (root, tmp_path / "new"):
            with pytest.raises(CwjaxError, match=rf"{place}.*free some space"):
                write_demo_corpus(place, 2, PLAIN, processes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(root) == contents(corpora["plain"])
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_an_accent_that_tells_the_words_apart_is_refused(tmp_path):
    with pytest.raises(CwjaxError, match="'de'"):
        write_demo_corpus(tmp_path / "corpus", 1, replace(PLAIN, accents=("en-us", "de")))
