"""Corpora of conversations, talks and calls: text, times, speakers and context come out, and the sound."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from segmented import listed
from small_corpora import (
    LIMITS,
    conversations,
    earnings,
    fisher,
    gigaspeech,
    prepare,
    report,
    require_sound,
    sphere,
    tedlium,
    words,
)
from sounding import sound, word

from cwjax.data.corpora import fisher as fisher_reader
from cwjax.data.corpora import gigaspeech as gigaspeech_reader
from cwjax.data.corpora import switchboard
from cwjax.data.corpora import tedlium as tedlium_reader
from cwjax.data.corpora.gigaspeech import clean as clean_gigaspeech
from cwjax.errors import CwjaxError


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
