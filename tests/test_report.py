"""The report: its numbers, its page, and hostile text in it."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lxml import html
from test_homophones import HOMOPHONES, transcription

from cwjax.evaluation.charts import as_svg, homophone_chart, save_chart
from cwjax.evaluation.conditions import Condition, Given
from cwjax.evaluation.corpus_items import segment_item
from cwjax.evaluation.hypotheses import HypothesesFile, line_of
from cwjax.evaluation.report import summarise, write_report
from cwjax.inference.transcript import Transcript
from cwjax.scoring.score import score_files
from cwjax.scoring.score import summarise as summarise_scores

HOSTILE = "<script>alert('sail')</script> & \"sail\""


def transcriptions() -> list:
    return [
        transcription("Yachts", "The sail is big.", "The sail is big.", "The sale is big.", "The sale is big."),
        transcription(
            "Bargains", "This sale matters.", "This sale matters.", "This sale matters.", "This sail matters."
        ),
        transcription("Yachts", HOSTILE, HOSTILE, "", "something"),
    ]


HISTORY = [
    *({"step": step, "loss": 5 / step, "gate": step / 100, "learning_rate": 1e-3} for step in range(1, 60)),
    {"step": 59, **{f"validation/homophones/{name}": 0.5 for name in ("right", "none", "wrong")}},
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    tone = np.sin(np.arange(8000) / 8).astype(np.float32) / 2
    summary = summarise(transcriptions(), HOMOPHONES)
    write_report(directory, summary, transcriptions(), HISTORY, lambda _: tone, "Demo <test>", {"steps": "1,200"})
    return directory


def test_json_has_the_agreed_keys(page: Path) -> None:
    report = json.loads((page / "report.json").read_text())
    assert set(report["homophones"]) == set(report["wer"]) == set(report["wer_elsewhere"]) == {"right", "none", "wrong"}
    assert {"share", "low", "high", "count"} <= set(report["homophones"]["none"])
    assert report["homophones"]["right"] == report["homophones"]["right"] | {"share": 1.0, "count": 4}
    assert report["homophones"]["none"]["share"] == pytest.approx(1 / 4)
    assert report["wer"]["right"] == 0
    assert report["pairs"]["sail / sale"]["wrong"] == 0


def test_page_holds_charts_players_and_marked_words(page: Path) -> None:
    tree = html.parse(str(page / "report.html")).getroot()
    assert len(tree.findall(".//svg")) == 3
    heads = [[cell.text_content() for cell in table.find("tr")] for table in tree.find_class("example")]
    assert heads == [["", "told", "heard"]] * 2, "as those of all conditions"
    players = tree.findall(".//audio")
    assert len(players) == 2, "one example for each article"
    kind, data = players[0].get("src").split(",")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert (kind, rate, len(samples)) == ("data:audio/mpeg;base64", 16000, 8000)
    assert {"sale", "sail"} <= {mark.text for mark in tree.findall(".//mark")}


def test_nothing_from_the_data_becomes_markup(page: Path) -> None:
    text = (page / "report.html").read_text()
    assert "<script" not in text
    assert "<title>Demo &lt;test&gt;</title>" in text
    assert "http-equiv" not in text
    assert "src='http" not in text


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    summary = summarise([], None)
    assert summary["segments"] == 0
    assert "homophones" not in summary
    write_report(tmp_path, summary, [], [], lambda _: np.zeros(1), "Nothing", {})
    text = (tmp_path / "report.html").read_text()
    assert "nothing to transcribe" in text
    assert "no curves" in text


def test_equal_charts_have_equal_text(tmp_path: Path) -> None:
    summary = summarise(transcriptions(), HOMOPHONES)
    assert as_svg(homophone_chart(summary)) == as_svg(homophone_chart(summary))
    for name in ("chart.svg", "chart.png"):
        save_chart(homophone_chart(summary), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 2000


def test_the_hypotheses_score_as_the_report_says(tmp_path: Path) -> None:
    file = HypothesesFile(tmp_path)
    file.finish(
        [
            line_of(
                segment_item(one.segment, None, HOMOPHONES),
                Condition(name),
                Given(),
                "",
                Transcript(text, (), "en"),
                1.0,
            )
            for one in transcriptions()
            for name, text in one.hypotheses.items()
        ]
    )
    scores = summarise_scores(score_files([tmp_path / "hypotheses.jsonl"]))
    summary = summarise(transcriptions(), HOMOPHONES)
    assert len(scores["pairs"]) == 3
    for condition in ("right", "none", "wrong"):
        run = scores["runs"][f"hypotheses.jsonl: {condition}"]
        assert run["rates"]["WER"]["rate"] == pytest.approx(summary["wer"][condition])
        assert run["rates"]["CER"]["rate"] == pytest.approx(summary["cer"][condition])
        share = run["rates"]["homophones"]
        assert share == share | {"rate": pytest.approx(summary["homophones"][condition]["share"]), "of": 4}
        assert (share["low"], share["high"]) == pytest.approx(
            tuple(summary["homophones"][condition][end] for end in ("low", "high"))
        )
