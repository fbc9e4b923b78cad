"""An evaluation under conditions: its file of hypotheses, being resumed, and its report."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub import ModelCard
from lxml import html

from cwjax.errors import CwjaxError
from cwjax.evaluation import condition_sections
from cwjax.evaluation import evaluator as evaluator_module
from cwjax.evaluation.evaluate import Ladder, evaluate_items
from cwjax.evaluation.evaluator import Evaluator
from cwjax.evaluation.items import Item
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcript import Segment, Transcript, Word
from cwjax.inference.transcription import Event
from cwjax.scoring.score import score_files, summarise

NAMES = ("Aino", "Bela", "Cosima", "Dragan", "Eeva", "Fedor", "Greta", "Hugo", "Ines", "Juro", "Kaisa", "Leif")
CONDITIONS = ("none", "topic", "wrong", "phrases:0", "phrases:4", "phrases:8", "phrases:4:prompt", "previous")
LADDER = Ladder(CONDITIONS)


def items() -> list[Item]:
    """Each says a name, which is its topic's too; the sound's length is its number."""
    return [
        Item(
            f"item {number}",
            np.sin(np.arange(16_000 + 160 * number) / 8).astype(np.float32) / 2,
            f"This is {name}, and that is all.",
            texts={"topic": f"A talk by {name}."} | ({"previous": "So it was."} if number % 3 == 0 else {}),
            phrases=(name,),
            fields={"speaker": f"speaker {number}", "recording": f"tape {number // 2}"},
        )
        for number, name in enumerate(NAMES)
    ]


class Hearing:
    """In a transcriber's place: writes a name that it was told of and that is said, and otherwise another. Of a wrong
    context it makes a mess. It is `interrupted` after so many."""

    def __init__(self, interrupted: int = 10**9) -> None:
        self.heard: list[tuple[int, str]] = []
        self._interrupted = interrupted

    def use(self, parameters: object) -> None:
        pass

    def stream_many(self, requests, batch_size: int, threaded: bool):
        for request in requests:
            if len(self.heard) == self._interrupted:
                raise KeyboardInterrupt
            number = (len(request.audio.samples) - 16_000) // 160
            name, options = NAMES[number], request.options
            told = f"{request.context} {' '.join(options.phrases)} {options.initial_prompt or ''}"
            self.heard.append((number, told))
            text = f" This is {name if name in told else 'Anna'}, and that is all."
            if request.context and name not in told:
                text = " " + request.context
            words = (Word(" This", 0.0, 0.25, 1.0),) if options.word_timestamps else None
            segment = Segment(0, 0, 0.0, 1.0, text, (), 0.0, 0.0, 1.0, 0.0, words)
            yield Event(request, transcript=Transcript(text, (segment,), "en", 1.0 + number / 100))


def evaluate(
    output: Path, ladder: Ladder = LADDER, asked: Sequence[Item] = (), hearing: Hearing | None = None
) -> tuple[dict, Hearing]:
    hearing = hearing or Hearing()
    evaluator = Evaluator(lambda _: hearing, jnp.float32, None, 4)
    facts = {"steps": 1200, "scores": {"word error rate": {"none": 0.5}}}
    summary = evaluate_items(evaluator, {"kernel": jnp.ones(3)}, asked or items(), output, "Names", facts, [], ladder)
    return summary, hearing


def lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "hypotheses.jsonl").read_text().splitlines()]


def untimed(output: Path) -> list[dict]:
    return [line | {"seconds": 0} for line in lines(output)]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("evaluation")
    evaluate(output)
    return output


def test_a_line_for_each_item_and_condition_that_serves_it(evaluated: Path) -> None:
    found = lines(evaluated)
    expected = [
        (item.id, condition)
        for item in items()
        for condition in CONDITIONS
        if condition != "previous" or "previous" in item.texts
    ]
    assert [(line["id"], line["condition"]) for line in found] == expected
    by_condition = {line["condition"]: line for line in found if line["id"] == "item 1"}
    topic = by_condition["topic"]
    assert topic.pop("seconds") >= 0
    assert len(topic.pop("made_of")) == 16
    assert topic == {
        "id": "item 1",
        "condition": "topic",
        "reference": "This is Bela, and that is all.",
        "hypothesis": "This is Bela, and that is all.",
        "context": "A talk by Bela.",
        "phrases": 0,
        "duration": 1.01,
        "language": "en",
        "bias_words": ["Bela"],
        "speaker": "speaker 1",
        "recording": "tape 0",
    }
    assert {name: line["phrases"] for name, line in by_condition.items()} == {
        "none": 0, "topic": 0, "wrong": 0, "phrases:0": 1, "phrases:4": 4, "phrases:8": 8, "phrases:4:prompt": 4,
    }  # fmt: skip
    assert by_condition["phrases:4:prompt"]["hypothesis"] == "This is Bela, and that is all."
    assert not list(evaluated.glob("*.partial*"))


def test_the_report_has_the_figures_that_scoring_the_file_has(evaluated: Path) -> None:
    report = json.loads((evaluated / "report.json").read_text())
    scored = summarise(score_files([evaluated / "hypotheses.jsonl"]))
    assert report["segments"] == 12
    assert report["wer"]["none"] == pytest.approx(1 / 7)
    assert report["wer"]["topic"] == report["wer"]["phrases:4:prompt"] == 0
    assert report["facts"] == {"steps": "1,200"}
    for name in CONDITIONS:
        own, other = report["conditions"]["runs"][name], scored["runs"][f"hypotheses.jsonl: {name}"]
        assert own["rates"] == other["rates"]
        assert own["rates"]["B-WER"]["rate"] == (1 if name in ("none", "wrong", "previous") else 0)
        assert own["seconds_per_minute"] >= 0
    pairs = report["conditions"]["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("none", name) for name in CONDITIONS[1:]]
    recordings = {"of": "recordings", "better": 6, "equal": 0, "worse": 0}
    assert pairs[0]["recordings"] == recordings | {"intervals": scored["pairs"][0]["recordings"]["intervals"]}
    assert pairs[0]["rates"]["B-WER"]["difference"] == -1


def test_the_page_shows_conditions_curves_and_what_to_listen_to(evaluated: Path) -> None:
    tree = html.parse(str(evaluated / "report.html"))
    tables = [[[cell.text_content() for cell in row] for row in table.iter("tr")] for table in tree.iter("table")]
    rates, differences, *examples, facts = tables
    assert [row[0] for row in rates[1:]] == list(CONDITIONS)
    assert rates[0][1:] == ["phrases", "WER, %", "U-WER, %", "B-WER, %", "work, s/min"]
    assert rates[1][2].startswith("14.3 (")
    assert [row[0] for row in differences[1:]] == list(CONDITIONS[1:])
    assert differences[1][1:3] == ["12", "6 / 0 / 0 better 48 to 100 % worse 0 to 52 %"]
    assert differences[1][-1] == "-100.0, p < 0.001 (-100.0 to -100.0)"
    assert len(tree.findall(".//svg")) == 1
    labels = {text.text for text in tree.iter("{*}text", "text")}
    assert {"B-WER, %", "U-WER, %", "as phrases", "as prompt", "none"} <= labels
    assert len(tree.findall(".//audio")) == len(examples) == 5, "of a condition one, and two are worse than none"
    gained, lost = examples[0], examples[3]
    assert [row[0] for row in gained[1:]] == ["none", "topic"]
    assert [row[0] for row in lost[1:]] in (["none", "wrong"], ["none", "previous"])
    assert gained[2][1] == f"A talk by {gained[2][2].split()[2].strip(',')}."
    assert {mark.text for mark in tree.iter("mark")} >= {"Anna,"}
    assert facts == [["steps", "1,200"]]


def test_words_have_times_when_asked_for(tmp_path: Path) -> None:
    evaluate(tmp_path, Ladder(("none",), DecodingOptions(word_timestamps=True)))
    assert {json.dumps(line["words"]) for line in lines(tmp_path)} == {'[{"word": " This", "start": 0.0, "end": 0.25}]'}


def test_an_evaluation_that_was_interrupted_goes_on(
    evaluated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, hearing=Hearing(interrupted=30))
    aside = tmp_path / "hypotheses.0.partial.jsonl"
    assert f"{aside}: keeps what was heard so far (see --resume)" in caplog.messages
    assert len(aside.read_text().splitlines()) == 30
    aside.write_text(aside.read_text()[:-20])  # as a kill may leave it
    with caplog.at_level(logging.INFO):
        _, rest = evaluate(tmp_path, Ladder(CONDITIONS, resume=True))
    assert "29 lines are there already and are taken over" in caplog.messages
    assert len(rest.heard) == len(lines(evaluated)) - 29
    assert untimed(tmp_path) == untimed(evaluated)
    assert not aside.exists()


def test_more_conditions_can_be_added(evaluated: Path, tmp_path: Path) -> None:
    evaluate(tmp_path, Ladder(CONDITIONS[:3]))
    _, hearing = evaluate(tmp_path, Ladder(CONDITIONS, resume=True))
    assert len(hearing.heard) == len(lines(evaluated)) - 3 * len(NAMES)
    assert untimed(tmp_path) == untimed(evaluated)


def test_lines_are_taken_over_only_if_they_would_be_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("none", "topic")
    evaluate(tmp_path, Ladder(names, model="one"))
    for changed in (
        Ladder(names, model="another", resume=True),
        Ladder(names, DecodingOptions(beam_size=2), model="another", resume=True),
    ):
        caplog.clear()
        _, hearing = evaluate(tmp_path, changed)
        assert len(hearing.heard) == 24
        assert "24 lines are of another model, other options or texts: done again" in caplog.text
    ladder = changed
    one, *others = items()
    corrected = Item(
        one.id, one.audio, "It is Aino.", "en", {"topic": "Something else."}, ("Aino",), (), {"speaker": "x"}
    )
    _, hearing = evaluate(tmp_path, ladder, [corrected, *others])
    assert hearing.heard == [(0, "Something else.  ")], "only what was told has changed of it"
    found = [line for line in lines(tmp_path) if line["id"] == one.id]
    assert [(line["reference"], line["speaker"], "recording" in line) for line in found] == [
        ("It is Aino.", "x", False)
    ] * 2


@pytest.mark.parametrize(("conditions", "asked"), [(("topic",), items()), (("none", "topic"), items()[:5])])
def test_resumed_with_less_it_loses_nothing(tmp_path: Path, conditions: tuple[str, ...], asked: list[Item]) -> None:
    evaluate(tmp_path, Ladder(("none", "topic")))
    before = lines(tmp_path)
    with pytest.raises(CwjaxError, match=r"hypotheses.jsonl: 1[24] lines are of .* not asked for, such as item"):
        evaluate(tmp_path, Ladder(conditions, resume=True), asked)
    assert lines(tmp_path) == before


def test_without_resume_it_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, hearing=Hearing(interrupted=30))
    _, hearing = evaluate(tmp_path, Ladder(("none",)))
    assert "was not finished; this one begins anew" in caplog.text
    assert len(hearing.heard) == len(lines(tmp_path)) == 12


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CwjaxError, match=r"file.*hypotheses.jsonl: cannot be written .*choose another --output"):
        evaluate(tmp_path / "file")


def test_one_condition_shows_the_worst_recordings(tmp_path: Path) -> None:
    evaluate(tmp_path, Ladder(("previous",)))
    tree = html.parse(str(tmp_path / "report.html"))
    assert len(tree.findall(".//audio")) == 3
    assert "Compared with" not in (tmp_path / "report.html").read_text()


def test_the_scores_are_written_as_model_cards_have_them(tmp_path: Path) -> None:
    evaluate(tmp_path, Ladder(("none", "topic"), dataset="names", split="clean"))
    card = ModelCard(f"---\n{(tmp_path / 'model-index.yml').read_text()}---\n")
    assert [
        (one.dataset_name, one.dataset_split, one.metric_name, one.metric_value) for one in card.data.eval_results
    ] == [
        ("names", "clean", "word error rate, none context", 14.29),
        ("names", "clean", "word error rate, topic context", 0.0),
    ]


def test_of_one_item_there_are_no_intervals(tmp_path: Path) -> None:
    evaluate(tmp_path, Ladder(("none", "phrases:0", "phrases:1")), items()[:1])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    difference = report["conditions"]["pairs"][0]["rates"]["WER"]
    assert difference == {"difference": None, "low": None, "high": None, "p": 1.0}
    page = (tmp_path / "report.html").read_text()
    assert "(? to ?)" in page
    assert "nan" not in page.split("<svg")[0]


def test_of_long_recordings_the_page_has_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condition_sections, "LONGEST_SOUND", 1.05)
    evaluate(tmp_path, Ladder(("none",)))
    page = (tmp_path / "report.html").read_text()
    assert page.count("<audio") + page.count("too long for this page") == 3
    words = [f"word{number}" for number in range(1000)]
    heard = [*words[:500], "else", *words[501:]]
    before, differs, after = condition_sections.marked(" ".join(words), " ".join(heard))
    assert (differs, before[1], after[1]) == (("else", False), True, True)
    assert len(before[0].split()) == len(after[0].split()) == condition_sections.SAME_WORDS + 1
    assert before[0].split()[11:14] == ["word11", "…", "word488"]


def test_unseen_words_have_a_rate_of_their_own(tmp_path: Path) -> None:
    seen = {"this", "is", "and", "that", "all", *(name.casefold() for name in NAMES[:9])}
    summary, _ = evaluate(tmp_path, Ladder(("none", "topic"), seen=seen))
    runs = summary["conditions"]["runs"]
    rates = {name: [runs[name]["rates"][f"WER of {kind} words"] for kind in ("seen", "unseen")] for name in runs}
    assert [(one["rate"], one["of"]) for one in rates["none"]] == [(9 / 81, 81), (1.0, 3)]
    assert [one["rate"] for one in rates["topic"]] == [0, 0]
    assert runs["none"]["rates"]["B-WER"]["of"] == 12, "that of the names stays as it is"
    assert summary["conditions"]["pairs"][0]["rates"]["WER of unseen words"]["difference"] == -1
    assert "WER of unseen words, %" in (tmp_path / "report.html").read_text()


def test_what_is_wrong_with_a_recording_is_said_once_under_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quiet = [replace(item, audio=item.audio / 100) if number < 2 else item for number, item in enumerate(items())]
    evaluate(tmp_path, asked=quiet)
    said = [message for message in caplog.messages if "quiet" in message]
    assert said == [f"item {number}: is very quiet (46 dB below full scale) and amplified" for number in (0, 1)]
    with pytest.raises(CwjaxError, match=r"^item 3: holds samples that are not finite"):
        evaluate(tmp_path, asked=[*items()[:3], replace(items()[3], audio=np.full(16_000, np.nan, np.float32))])


def test_each_process_has_a_file_and_all_take_over_those_of_all(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes, played one after the other: the second one ends in the middle, and both begin again."""
    said: list[str] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def play(number: int, hearing: Hearing, resume: bool = True) -> Hearing:
        monkeypatch.setattr(jax, "process_index", lambda: number)
        monkeypatch.setattr(evaluator_module, "shared", lambda text: said.append(text) or said)
        evaluate(tmp_path, Ladder(CONDITIONS, resume=resume), hearing=hearing)
        return hearing

    with pytest.raises(KeyboardInterrupt):
        play(1, Hearing(interrupted=20), resume=False)
    with pytest.raises(KeyboardInterrupt):
        play(0, Hearing(interrupted=30), resume=False)
    assert "begins anew" not in caplog.text, "the other's file is of the same evaluation"
    assert {path.name for path in tmp_path.iterdir()} == {f"hypotheses.{number}.partial.jsonl" for number in (0, 1)}
    first = play(1, Hearing())
    assert (tmp_path / "hypotheses.0.partial.jsonl").exists()
    second = play(0, Hearing())
    assert 20 + 30 + len(first.heard) + len(second.heard) == len(lines(evaluated))
    assert untimed(tmp_path) == untimed(evaluated)
    assert not list(tmp_path.glob("*.partial*"))
