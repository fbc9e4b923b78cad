"""`cwjax align` from files to cuts: with a stand-in for the model that hears coded speech, times and all."""

import json
import os
from pathlib import Path

import lhotse
import numpy as np
import pytest
import soundfile
from coded_speech import WORDS, CodedModel, prose, sentences, speak

import cwjax
from cwjax.alignment import hearing
from cwjax.alignment.hearing import Ear, pauses, stretches
from cwjax.cli import main
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.data.cuts import read_cuts
from cwjax.inference.transcript import Transcript
from cwjax.inference.transcription import Event


@pytest.fixture
def model(monkeypatch) -> CodedModel:
    """What `cwjax.load` gives."""
    model = CodedModel()
    monkeypatch.setattr(cwjax, "load", lambda *_, **__: model)
    return model


@pytest.fixture
def book(tmp_path) -> Path:
    """A text, and two chapters of it in files, the second first."""
    words = [word for one in sentences(prose(1200, 1), 1) for word in one]
    folder = tmp_path / "a book"
    folder.mkdir()
    (folder / "text.txt").write_text("\n".join(words), encoding="utf-8")
    for number, (first, last) in enumerate([(600, 900), (100, 400)]):
        write_speech(folder / f"chapter-{number}.flac", words[first:last])
    return folder


def write_speech(path: Path, words: list[str]) -> None:
    soundfile.write(path, speak(words)[0], SAMPLING_RATE, subtype="PCM_16")


def aligned(book: Path, output: Path, *options: str) -> int:
    audio = sorted(str(path) for path in book.glob("*.flac"))
    return main(["align", "--audio", *audio, "--text", str(book / "text.txt"), "--output", str(output), *options])


def test_a_book_becomes_cuts_that_lhotse_reads_with_the_sound_of_their_words(model, book, tmp_path):
    output = tmp_path / "out"
    assert aligned(book, output) == 0
    cuts = lhotse.CutSet.from_file(output / "cuts.jsonl.gz").to_eager()
    text = (book / "text.txt").read_text(encoding="utf-8").split()
    for cut, (first, last) in zip(cuts, [(600, 900), (100, 400)], strict=True):
        assert " ".join(one.text for one in cut.supervisions).split() == text[first:last]
        _, times = speak(text[first:last])
        words = [word for one in cut.supervisions for word in one.alignment["word"]]
        offsets = [one.start for one in cut.supervisions for _ in one.alignment["word"]]
        assert len(offsets) == len(words)
        assert [word.symbol for word in words] == [word for word, *_ in times]
        np.testing.assert_allclose([word.start for word in words], [start for _, start, _ in times], atol=0.011)
        np.testing.assert_allclose([word.end for word in words], [end for *_, end in times], atol=0.011)
        assert all(one.language == "en" and one.custom["confidence"] == 1 for one in cut.supervisions)
        assert not any(one.custom["gap_before"] for one in cut.supervisions)
        one = cut.trim_to_supervisions(keep_overlapping=False)[3]
        spoken = soundfile.read(cut.recording.sources[0].source, dtype="float32")[0]
        begin = round(cut.supervisions[3].start * SAMPLING_RATE)
        np.testing.assert_array_equal(one.load_audio()[0], spoken[begin : begin + one.num_samples])
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["text_words"] == 1200
    assert report["supervised_words"] == 600
    assert report["left_out_words"] == {"written, not read": 600}
    assert report["supervised_seconds"] + sum(report["left_out_seconds"].values()) == pytest.approx(report["seconds"])
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 10
    assert sorted(path.name for path in output.iterdir()) == [
        "cuts.jsonl.gz",
        "heard.jsonl",
        "report.html",
        "report.json",
    ]


def test_what_was_heard_is_not_heard_again_and_the_results_are_the_same(model, book, tmp_path, monkeypatch):
    monkeypatch.setattr(hearing, "STRETCH", 30.0)
    assert aligned(book, tmp_path / "whole") == 0
    stretches_in_all = model.stretches
    assert stretches_in_all > 6
    output = tmp_path / "out"
    model.fails_after = model.stretches + 3
    assert aligned(book, output) == 130
    assert sorted(path.name for path in output.iterdir()) == ["heard.jsonl"]
    with (output / "heard.jsonl").open("ab") as file:
        file.write(b'{"audio": "torn')
    model.fails_after, model.stretches = 1 << 30, 0
    assert aligned(book, output) == 0
    assert model.stretches == stretches_in_all - 3
    assert (output / "cuts.jsonl.gz").read_bytes() == (tmp_path / "whole" / "cuts.jsonl.gz").read_bytes()
    model.stretches = 0
    assert aligned(book, output) == 0
    assert model.stretches == 0
    assert aligned(book, output, "--model", "another") == 0
    assert model.stretches == stretches_in_all


def test_another_model_under_the_same_name_hears_again(model, book, tmp_path):
    weights = tmp_path / "whisper" / "weights"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    for changed in (1, 1, 2):
        os.utime(weights, (changed, changed))
        assert aligned(book, tmp_path / "out", "--model", str(weights.parent)) == 0
    assert model.stretches == 2 * 2  # of two files


def test_a_recording_of_the_same_name_with_other_sound_is_heard(model, book, tmp_path):
    output = tmp_path / "out"
    assert aligned(book, output) == 0
    text = (book / "text.txt").read_text(encoding="utf-8").split()
    write_speech(book / "chapter-0.flac", text[950:1100])
    heard_before = model.stretches
    assert aligned(book, output) == 0
    assert model.stretches == heard_before + 1
    first, _ = read_cuts(output / "cuts.jsonl.gz")
    assert first.supervisions[0].text.split()[0] == text[950]


def test_a_damaged_recording_is_named_and_left_out(model, book, tmp_path, capsys):
    (book / "chapter-1b.flac").write_bytes((book / "chapter-1.flac").read_bytes()[:20_000])
    output = tmp_path / "out"
    assert aligned(book, output) == 1
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    (failure,) = report["failures"].values()
    assert "chapter-1b.flac" in failure
    assert [cut.id for cut in read_cuts(output / "cuts.jsonl.gz")] == ["chapter-0", "chapter-1"]
    assert "chapter-1b.flac" in (output / "report.html").read_text(encoding="utf-8")


def test_folders_of_librivox(model, book, tmp_path):
    other = tmp_path / "no text"
    other.mkdir()
    write_speech(other / "speech.flac", prose(50, 8))
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    write_speech(stranger / "speech.flac", prose(300, 7))
    (stranger / "text.txt").write_text(" ".join(prose(3000, 6)), encoding="utf-8")
    output = tmp_path / "out"
    assert main(["align", "--root", str(tmp_path), "--output", str(output)]) == 1
    cuts = list(read_cuts(output / "cuts.jsonl.gz"))
    assert [cut.id for cut in cuts] == ["a book/chapter-0", "a book/chapter-1"]
    failures = json.loads((output / "report.json").read_text(encoding="utf-8"))["failures"]
    assert "keep one .txt beside" in failures["no text"]
    assert "nothing of the text is heard in the audio" in failures["stranger"]


def write_article(folder: Path, words: list[str], known: set[int]) -> list[tuple[str, float, float]]:
    """An article of two audio files, and which of its words have times; gives all times, on one timeline."""
    folder.mkdir()
    half = len(words) // 2
    times, tokens, offset = [], [], 0.0
    for number, part in enumerate([words[:half], words[half:]], 1):
        write_speech(folder / f"audio{number}.flac", part)
        samples, spoken = speak(part)
        times += [(word, offset + start, offset + end) for word, start, end in spoken]
        if number == 1:
            offset = len(samples) / SAMPLING_RATE
    for number, (word, start, end) in enumerate(times):
        span = f' start="{round(1000 * start)}" end="{round(1000 * end)}"' if number in known else ""
        plain = word.strip(".")
        tokens.append(f'<t>{plain}<n pronunciation="{plain}"{span}/></t>' + "<t>.</t>" * word.endswith("."))
    meta = "".join(
        f'<prop key="DC.source.audio.offset" value="{value}" group="audio{number}"/>'
        for number, value in enumerate([0.0, offset], 1)
    )
    (folder / "aligned.swc").write_text(
        f'<article><meta><prop key="DC.language" value="en"/>{meta}</meta>'
        f"<d><p><s>{' '.join(tokens)}</s></p></d></article>"
    )
    return times


@pytest.mark.parametrize("hears", [True, False], ids=["heard", "not heard"])
def test_articles_keep_the_times_they_have_and_get_the_others(model, tmp_path, monkeypatch, hears):
    """What the model does not hear is placed where known times leave room for it."""
    words = [word for one in sentences(prose(300, 1), 1) for word in one]
    unknown = {number for number in range(len(words)) if number % 12 in (2, 3, 7)}
    times = write_article(tmp_path / "article", words, set(range(len(words))) - unknown)
    if not hears:
        monkeypatch.setattr(CodedModel, "stream_many", hears_nothing)
    output = tmp_path / "out"
    assert main(["align", "--root", str(tmp_path), "--output", str(output), "--least-confidence", "0.5"]) == 0
    first, second = read_cuts(output / "cuts.jsonl.gz")
    assert [cut.id for cut in (first, second)] == ["article/audio1", "article/audio2"]
    offset = first.recording.duration
    placed = [
        (word.text, start + word.start, start + word.end)
        for cut, start in ((first, 0.0), (second, offset))
        for one in cut.supervisions
        for word in one.words
    ]
    assert [word for word, *_ in placed] == words
    for number, ((_, start, end), (_, true_start, true_end)) in enumerate(zip(placed, times, strict=True)):
        tolerance = 0.0021 if number not in unknown else 0.011 if hears else 0.15
        assert start == pytest.approx(true_start, abs=tolerance)
        assert end == pytest.approx(true_end, abs=tolerance)


def quote(book: Path) -> None:
    """Makes the text another book's, in which one sentence of it stands."""
    words = (book / "text.txt").read_text(encoding="utf-8").split()
    others = prose(3000, 9)
    others[1000:1000] = words[700:718]
    (book / "text.txt").write_text(" ".join(others * 2), encoding="utf-8")


def hears_nothing(self, requests, batch_size=None):
    for request in requests:
        yield Event(request, transcript=Transcript("", (), "en"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda book: (book / "text.txt").write_text("", encoding="utf-8"), "text.txt: holds no words"),
        (lambda book: (book / "text.txt").write_bytes(b"\x7fELF\0\0\1"), "text.txt: is no plain text"),
        (lambda book: (book / "text.txt").write_bytes(b"caf\xe9"), "--encoding cp1252"),
        (lambda book: (book / "text.txt").unlink(), "text.txt: cannot be read"),
        (lambda book: (book / "text.txt").write_text(" ".join(prose(3000, 9))), "nothing of the text is heard"),
        (lambda book: quote(book), "nothing of the text is heard"),
        (
            lambda book: [path.write_bytes(b"no audio at all") for path in book.glob("*.flac")],
            "cannot be read as audio",
        ),
    ],
    ids=["empty", "binary", "latin", "missing", "another book", "one that quotes it", "no audio"],
)
def test_bad_input_is_one_line(model, book, tmp_path, capsys, change, message):
    change(book)
    assert aligned(book, tmp_path / "out") == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if "cwjax: error:" in line]) == 1
    assert message in said[-1]
    assert not (tmp_path / "out" / "cuts.jsonl.gz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--audio", "missing.mp3", "--text", "b.txt"], "no such audio file"),
        (["--audio", "a.mp3"], "give --audio and --text, or --root"),
        (["--root", "nowhere"], "no such folder"),
        (["--root", ".", "--text", "b.txt"], "leave out --audio and --text"),
        (["--audio", "a.mp3", "--text", "b.txt", "--least-confidence", "60"], "a share from 0 to 1"),
    ],
)
def test_impossible_options_are_one_line(options, message, tmp_path, capsys):
    assert main(["align", "--output", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err


def test_inputs_and_what_others_made_stay_as_they_are(model, book, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "report.html").write_text("mine", encoding="utf-8")
    assert aligned(book, output) == 1
    assert "was not written by an alignment" in capsys.readouterr().err
    assert (output / "report.html").read_text(encoding="utf-8") == "mine"
    os.rename(book / "text.txt", book / "report.json")
    os.symlink(book / "report.json", book / "text.txt")
    assert aligned(book, book) == 1
    assert "is an input and would be overwritten" in capsys.readouterr().err
    assert len((book / "report.json").read_text(encoding="utf-8").split()) == 1200


def test_a_second_process_waits_its_turn(model, book, tmp_path, capsys):
    from filelock import FileLock

    with FileLock(tmp_path / ".out.cwjax-lock"):
        assert aligned(book, tmp_path / "out") == 1
    assert "another process aligns into it" in capsys.readouterr().err
    assert aligned(book, tmp_path / "out") == 0


def test_stretches_are_cut_in_pauses_whatever_the_blocks(monkeypatch):
    monkeypatch.setattr(hearing, "STRETCH", 30.0)
    samples, times = speak([word for one in sentences(prose(400, 1), 1) for word in one])
    cut = [begin for begin, _ in stretches(iter([samples]))]
    for size in (1000, 77_777, 1_000_000):
        parts = list(stretches(samples[first : first + size] for first in range(0, len(samples), size)))
        assert [begin for begin, _ in parts] == cut
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), samples)
        assert max(len(part) for _, part in parts) <= 30 * SAMPLING_RATE
    assert len(cut) > 3
    for begin in cut[1:]:
        assert not any(start < begin / SAMPLING_RATE < end for _, start, end in times)


def test_pauses_are_where_nothing_sounds_beside_noise():
    samples, times = speak([f"{word}." for word in WORDS[:3]])
    noisy = samples + np.random.default_rng(0).normal(0, 3e-4, len(samples)).astype(np.float32)
    found = pauses(noisy)
    expected = [
        (times[place][2], times[place + 1][1] if place < 2 else len(samples) / SAMPLING_RATE) for place in range(3)
    ]
    np.testing.assert_allclose(found, expected, atol=0.011)
    assert pauses(np.zeros(SAMPLING_RATE, np.float32)) == [(0.0, 1.0)]


def test_a_long_recording_is_heard_stretch_by_stretch(model, tmp_path, monkeypatch):
    monkeypatch.setattr(hearing, "STRETCH", 30.0)
    words = [word for one in sentences(prose(1500, 1), 1) for word in one]
    write_speech(tmp_path / "long.flac", words)
    found = Ear(lambda: model, "m", tmp_path).hear(tmp_path / "long.flac")
    assert [word.text for word in found.words] == [word.lower().strip(".") for word in words]
    assert max(model.lengths) <= 30
    assert sum(model.lengths) == pytest.approx(found.duration, abs=0.1)
