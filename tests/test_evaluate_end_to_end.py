"""`cwjax evaluate --suite` with a small Whisper that understands tones and a phrase spotter, then `cwjax score`."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
import tones
from lxml import html
from references import real_vocabulary, wide_parameters

from cwjax.cli import main
from cwjax.evaluation.conditions import Condition, Others
from cwjax.evaluation.suites import open_suite
from cwjax.inference import phrases
from cwjax.inference.programs import Programs
from cwjax.models.parameters import flatten, merge
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig
from cwjax.weights.model_directory import save_model
from cwjax.weights.spotter_files import encoder_sha256, save_spotter

pytestmark = pytest.mark.usefixtures("quick_compilation")

SUITE = "is21/test-clean.biasing_100"
CONDITIONS = ("none", "phrases:own", "phrases:own:prompt", "phrases:6:hotwords")
SPOKEN = [tones.WORDS[number].strip() for number in range(6)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model, its spotter, and the suite's folder: two readers of six utterances with three tones each."""
    folder = tmp_path_factory.mktemp("suite")
    config, processor = real_vocabulary(folder, tones.SIZES)
    parameters = merge(wide_parameters(config), tones.trained(processor.tokens))
    save_model(folder / "model", config, iter(flatten(parameters)), processor, {})
    spotter = PhraseSpotter(SpotterConfig(audio_width=64, hidden=8, width=8, rows=1400), key=jax.random.key(0))
    save_spotter(spotter, folder / "spotter.safetensors", encoder_sha256(parameters), {})
    random = np.random.default_rng(0)
    rows = []
    for number in range(12):
        name, said = f"{number // 6}-7-{number:04d}", [number % 6, (number + 1) % 6, (number + 3) % 6]
        flac = folder / "LibriSpeech" / "test-clean" / name.split("-")[0] / "7" / f"{name}.flac"
        flac.parent.mkdir(parents=True, exist_ok=True)
        spoken = [(1 + 2 * place, 1.8 + 2 * place, word) for place, word in enumerate(said)]
        soundfile.write(flac, tones.sound(spoken, 7.5, random), 16_000)
        words = [SPOKEN[word] for word in said]
        rows.append("\t".join([name, " ".join(words), json.dumps(words[:1]), json.dumps([*words[:1], "Ada", "Bo"])]))
    (folder / "test-clean.biasing_100.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder / "model", folder / "spotter.safetensors", folder


def test_a_suite_is_heard_in_all_ways_and_scored_as_the_report_says(
    files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, spotter, folder = files
    before: set[str] = set()
    decode, detect = Programs.decode, phrases.detect

    def noting(programs, encoded, starts, previous, *others):
        before.update(programs.tokens.text(tokens) for tokens in previous)
        return decode(programs, encoded, starts, previous, *others)

    def detecting(*given):
        spotted.append(detect(*given))
        return spotted[-1]

    spotted: list[tuple] = []
    monkeypatch.setattr(Programs, "decode", noting)
    monkeypatch.setattr(phrases, "detect", detecting)
    given = ["evaluate", "--model", str(model), "--spotter", str(spotter), "--suite", SUITE, "--data", str(folder)]
    report, scored = tmp_path / "report", tmp_path / "scores.json"
    assert main([*given, "--output", str(report), "--conditions", *CONDITIONS, "--batch-size", "6"]) == 0

    items = list(open_suite(SUITE, folder))
    lines = [json.loads(line) for line in (report / "hypotheses.jsonl").read_text("utf-8").splitlines()]
    assert [(line["id"], line["condition"]) for line in lines] == [(i.id, c) for i in items for c in CONDITIONS]
    assert {line["phrases"] for line in lines if "own" in line["condition"]} == {3}
    assert {line["phrases"] for line in lines if line["condition"] == "phrases:6:hotwords"} == {6}
    assert spotted, "the spotter has listened"
    for name in CONDITIONS[2:]:
        told = {", ".join(Condition.named(name).give(item, Others(items)).phrases) for item in items}
        assert told <= {one.strip() for one in before}, "the decoder has read the list"

    found = json.loads((report / "report.json").read_text("utf-8"))["conditions"]
    assert found["runs"]["none"]["rates"]["WER"]["rate"] < 0.2, "the model understands its language"
    assert found["runs"]["none"]["rates"]["B-WER"]["of"] == 12
    assert main(["score", str(report / "hypotheses.jsonl"), "--json", str(scored)]) == 0
    assert "over 12 utterances" not in capsys.readouterr().out, "but over readers"
    again = json.loads(scored.read_text("utf-8"))
    for name in CONDITIONS:
        run = again["runs"][f"hypotheses.jsonl: {name}"]
        assert {key: found["runs"][name][key] for key in run} == run
    for pair in found["pairs"]:
        names = {side: f"hypotheses.jsonl: {pair[side]}" for side in ("first", "second")}
        assert pair | names in again["pairs"]
    page = html.parse(str(report / "report.html"))
    assert [row[0].text_content() for row in page.find(".//table").iter("tr")][1:] == list(CONDITIONS)
    assert page.find(".//h1").text == f"{folder.name}: {SUITE}"
    assert json.loads((report / "report.json").read_text("utf-8"))["facts"]["evaluated on"] == SUITE
