"""The benchmark of names: its errors are counted as others count them."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from cwjax.inference.transcript import Word

pytest.importorskip("rapidfuzz")
pytest.importorskip("wordfreq")

SPEC = importlib.util.spec_from_file_location("names", Path(__file__).parents[1] / "benchmarks" / "names.py")
names = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(names)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "others", "rare"),
    [
        ("they met ada in ulm", "they met ada in ulm", [0, 3], [0, 2]),
        ("they met ada in ulm", "they met eta in ulm", [0, 3], [1, 2]),
        ("they met ada in ulm", "they in ulm", [1, 3], [1, 2]),
        ("they met ada", "they ulm met ada oh", [1, 2], [1, 1]),  # an inserted word is rare if it is listed
        ("met ada", "ulm", [1, 1], [1, 1]),  # deletion and substitution: the same for each order
        ("", "ulm oh", [1, 0], [1, 0]),
        ("ada ulm", "", [0, 0], [2, 2]),
        ("x ada", "y ulm ada", [2, 1], [0, 1]),  # as cheap as ulm inserted, but the diagonal is left only for less
        ("ada", "x y", [1, 0], [1, 1]),
    ],
)
def test_errors_of_rare_words_and_of_others(reference, hypothesis, others, rare):
    window = names.Window(names.np.zeros(9), [names.Sentence(reference, 0.0, 1.0, ("Ada", "Ulm"), "v")])
    assert names._counts(window, hypothesis).tolist() == [others, rare]


def test_lists_hold_what_they_should():
    said = names.Sentence("They met Ada Bo.", 0.0, 2.0, ("Ada Bo",), "v")
    windows = [names.Window(names.np.zeros(9), [said])]
    others = ["Ada Bot", "met", *(f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(300))]
    (mixed,) = names.lists(windows, others, 50)
    assert len(mixed) == len(set(mixed)) == 50
    assert "Ada Bo" in mixed
    assert "met" not in mixed
    (wrong,) = names.lists(windows, others, 50, said=False)
    assert "Ada Bo" not in wrong


def test_a_folder_of_windows(tmp_path):
    names.soundfile.write(tmp_path / "one.flac", names.np.zeros(16_000), 16_000)
    entry = '[{"text": "Ask Ada.", "start": 0.1, "end": 0.9, "phrases": ["Ada"], "voice": "v"}]'
    (tmp_path / "one.json").write_text(entry)
    (window,) = names._recordings(str(tmp_path), names.SpeechSettings())
    assert window.samples.shape == (16_000,)
    assert window.sentences == [names.Sentence("Ask Ada.", 0.1, 0.9, ("Ada",), "v")]


def test_what_the_spotter_finds_by_itself(capsys):
    likely = {"Ada": 0.95, "Bo": 0.92, "Ulm": 0.3, "Eve": 0.2, "Gil": 0.1, "Ida": 0.05, "Jo": 0.02}
    found = [Word(text, 0.0, 0.5, probability) for text, probability in sorted(likely.items())]
    spotter = SimpleNamespace(encode=lambda phrases: phrases, spot=lambda states, phrases, options: [found])
    model = SimpleNamespace(transcriber=SimpleNamespace(phrases=spotter))
    said = [names.Sentence(" ".join(own), 0.0, 1.0, own, "v") for own in (("Ada", "Ulm"), ("Bo", "Jo"), ("Kim",))]
    windows = [names.Window(names.np.zeros(9), [one]) for one in said]
    names._print_found(model, windows, [None] * 3, [tuple(likely)] * 3)
    printed = capsys.readouterr().out
    assert "first 1 / 5 / 20: 20 / 60 / 80 %" in printed  # Ada; Ulm and Bo; Jo; Kim was not found
    assert "given 0.9 or more: 6, of which 2 were said" in printed
