"""From a corpus on disk to a prepared one, whatever is wrong with single articles."""

import argparse
import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE, end_when_hung
from sounding import File, heard, steady, word, write_article

from cwjax.cli import main
from cwjax.commands.prepare import add_options
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.prepared import build as preparing
from cwjax.data.prepared import survey
from cwjax.data.prepared.build import prepare
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.data.prepared.splits import SPLITS
from cwjax.data.prepared.working_folder import only_process, publish
from cwjax.errors import CwjaxError

SETTINGS = SegmentationSettings(max_duration=2.4, pad=0.05)

BOMB = """<?xml version="1.0"?><!DOCTYPE article [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<article><meta/><d>&b;</d></article>"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine articles of twelve words by six readers; every third has two files of different form."""
    root = tmp_path_factory.mktemp("corpus") / "swc"
    for number in range(9):
        files = (File(6.0, 22_050, 2),)
        sentences = steady(10 * number, 12, 0.5)
        if number % 3 == 0:
            files = (File(2.2, 44_100, 2, "ogg"), File(4.0, 16_000, 1, "flac"))
        write_article(root / "english" / f"Article_{number}", sentences, files, reader=f"Reader {number % 6}")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "swc")


def folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.rglob("aligned.swc"))


def report(output: Path) -> dict:
    return json.loads((output / "report.json").read_text())


def content(output: Path) -> dict[str, bytes]:
    """All that a preparation wrote but the page."""
    files = [path for path in sorted(output.rglob("*")) if path.is_file() and path.name != "report.html"]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("audio", ["pcm16", "flac"])
def test_segments_hold_the_sound_of_their_words(root: Path, tmp_path: Path, audio: str) -> None:
    corpus = prepare("swc", root, tmp_path / "prepared", SETTINGS, audio)
    assert not report(tmp_path / "prepared")["failures"]
    assert {segment.article for segment in corpus.segments} == {f"Article_{number}" for number in range(9)}
    for place, segment in enumerate(corpus.segments):
        assert segment.duration <= 2.4
        samples = corpus.audio(place)
        assert len(samples) == pytest.approx(segment.duration * 16000, abs=1)
        found = heard(samples)
        words = segment.text.replace(".", "").split()
        assert [word(number) for number, _, _ in found] == words
        assert found[0][1] == pytest.approx(segment.utterances[0].start, abs=0.02)
        assert found[-1][2] == pytest.approx(segment.utterances[-1].end, abs=0.02)


def test_the_report_counts_what_there_is(root: Path, tmp_path: Path) -> None:
    corpus = prepare("swc", root, tmp_path / "prepared", SETTINGS)
    said = report(tmp_path / "prepared")
    rows = corpus.supervisions
    seconds = sum(rows["end"] - rows["start"])
    assert said["utterances"] == len(rows) == sum(said["lengths"].values())
    assert said["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert said["languages"]["en"]["utterances"] == len(rows)
    assert set(said["speakers"]) == {f"reader {number}" for number in range(6)}
    assert sum(numbers["articles"] for numbers in said["splits"].values()) == 9
    for split, numbers in said["splits"].items():
        assert numbers["utterances"] == np.count_nonzero(rows["split"] == SPLITS.index(split))
    article = said["articles"]["english/Article_1"]
    assert article["reader"] == "Reader 1"
    assert (article["licence"], article["source"]) == ("CC-BY-SA", "https://wiki.example/a")
    assert article["timed_ratio"] == 1.0
    page = (tmp_path / "prepared" / "report.html").read_text()
    assert page.count("<audio") == 10
    assert page.count("<svg") == 3
    assert "Reader" in page or "reader 0" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_damaged_articles_are_named_and_the_others_kept(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    articles = folders(root)
    harm = {
        "malformed": lambda folder: (folder / "aligned.swc").write_text("<article><d>"),
        "bomb": lambda folder: (folder / "aligned.swc").write_text(BOMB),
        "empty": lambda folder: (folder / "aligned.swc").write_text("<article><meta/><d/></article>"),
        "no audio": lambda folder: [path.unlink() for path in folder.glob("audio*")],
        "no bytes": lambda folder: [os.truncate(path, 0) for path in folder.glob("audio*")],
        "no alignment": lambda folder: (folder / "aligned.swc").unlink(),
    }
    for folder, damage in zip(articles, harm.values(), strict=False):
        damage(folder)
    corpus = prepare("swc", root, tmp_path / "prepared", SETTINGS)
    failures = report(tmp_path / "prepared")["failures"]
    harmed = {folder.relative_to(root).as_posix() for folder in articles[: len(harm)]}
    assert set(failures) == harmed
    for name, reason in failures.items():
        assert name in reason
        assert "\n" not in reason
        assert reason in caplog.text
    kept = {f"english/{segment.article}" for segment in corpus.segments}
    assert kept == {folder.relative_to(root).as_posix() for folder in articles} - harmed


def test_nothing_usable_is_an_error_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    for folder in folders(root):
        (folder / "aligned.swc").write_text("no XML")
    with pytest.raises(CwjaxError, match=r"none of 9 articles can be read; the first: .*aligned.swc"):
        prepare("swc", root, tmp_path / "prepared", SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["swc"]
    with pytest.raises(CwjaxError, match="no such folder"):
        prepare("swc", tmp_path / "nowhere", tmp_path / "prepared", SETTINGS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CwjaxError, match="does not look like a Spoken Wikipedia Corpus"):
        prepare("swc", tmp_path / "empty", tmp_path / "prepared", SETTINGS)


def test_prepared_once(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    first = list(prepare("swc", root, output, SETTINGS).segments)
    stamp = (output / "corpus.json").stat().st_mtime_ns
    assert list(prepare("swc", root, output, SETTINGS).segments) == first
    assert (output / "corpus.json").stat().st_mtime_ns == stamp
    assert len(prepare("swc", root, output, dataclasses.replace(SETTINGS, max_duration=5.0)).segments) < len(first)
    with pytest.raises(CwjaxError, match="other limits"):
        prepare("swc", root, output, dataclasses.replace(SETTINGS, pad=0.1))
    with pytest.raises(CwjaxError, match="another form of audio"):
        prepare("swc", root, output, SETTINGS, "flac")
    (tmp_path / "mine").mkdir()
    with pytest.raises(CwjaxError, match="no prepared corpus"):
        prepare("swc", root, tmp_path / "mine", SETTINGS)
    other = shutil.copytree(root, tmp_path / "other")
    with pytest.raises(CwjaxError, match="prepared from another corpus"):
        prepare("swc", other, output, SETTINGS)
    shutil.rmtree(root)
    assert list(prepare("swc", root, output, SETTINGS).segments) == first, "the corpus itself is not needed again"


def test_two_processes_write_what_one_does(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "SHORTEST_SHARD", 10)
    prepare("swc", root, tmp_path / "one", SETTINGS, processes=1)
    prepare("swc", root, tmp_path / "two", SETTINGS, processes=2)
    assert len(PreparedCorpus.read(tmp_path / "one").settings["shards"]) >= 3
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_goes_on_where_it_was_stopped(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "SHORTEST_SHARD", 10)
    prepare("swc", root, tmp_path / "whole", SETTINGS)
    written = []
    real = preparing.write_shard

    def write_two(task):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(task.number)
        return real(task)

    monkeypatch.setattr(preparing, "write_shard", write_two)
    with pytest.raises(KeyboardInterrupt):
        prepare("swc", root, tmp_path / "prepared", SETTINGS)
    assert not (tmp_path / "prepared").exists()
    partial = tmp_path / "prepared.partial"
    stamps = {path.name: path.stat().st_mtime_ns for path in partial.rglob("recording*.tar")}
    assert len(stamps) == 2
    with pytest.raises(CwjaxError, match=r"prepared.partial: was prepared from other limits"):
        prepare("swc", root, tmp_path / "prepared", dataclasses.replace(SETTINGS, pad=0.1))

    # Half a shard, as a killed process leaves it.
    (partial / "corpus" / "shards" / "recording.000002.tar").write_bytes(b"half a shard")
    (partial / "corpus" / "shards" / "recording.000099.tar").write_bytes(b"of other units")
    (partial / "parts" / "000002.cuts").write_text("half a li")
    monkeypatch.setattr(preparing, "write_shard", real)
    prepare("swc", root, tmp_path / "prepared", SETTINGS)
    assert content(tmp_path / "prepared") == content(tmp_path / "whole")
    for name, stamp in stamps.items():
        assert (tmp_path / "prepared" / "shards" / name).stat().st_mtime_ns == stamp, "not written again"
    assert not partial.exists()


@pytest.mark.parametrize(
    "last",
    [
        "cwjax.data.prepared.build.write_text",
        "cwjax.data.prepared.build.Assembly.finish",
        "cwjax.data.prepared.assembly.sizes_of",
        "cwjax.data.prepared.build.write_page",
        "cwjax.data.prepared.build.shutil.copy",
        "cwjax.data.prepared.build.publish",
        "cwjax.data.prepared.working_folder.shutil.rmtree",
    ],
)
def test_killed_anywhere_near_the_end_it_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """What is killed does no more, not even what it would do at the end."""

    def kill(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(last, kill)
        with pytest.raises(Killed):
            prepare("swc", root, tmp_path / "prepared", SETTINGS)
    prepare("swc", root, tmp_path / "prepared", SETTINGS)
    prepare("swc", root, tmp_path / "whole", SETTINGS)
    assert content(tmp_path / "prepared") == content(tmp_path / "whole")
    prepare("swc", root, tmp_path / "prepared", SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared", "swc", "whole"]


class Killed(BaseException):
    """As a process is by a signal."""


def test_killed_with_its_workers_and_done_again(root: Path, tmp_path: Path) -> None:
    code = (
        "import multiprocessing, sys\n"
        "from cwjax.data.prepared import build as preparing, survey\n"
        "from cwjax.data.corpora.segmentation_settings import SegmentationSettings\n"
        "each_shard = preparing._each_shard\n"
        "def slowly(*arguments):\n"
        "    for shard in each_shard(*arguments):\n"
        "        print(len(multiprocessing.active_children()), flush=True)\n"
        "        sys.stdin.readline()\n"
        "        yield shard\n"
        "if __name__ == '__main__':\n"
        "    survey.SHORTEST_SHARD = 10\n"
        "    preparing._each_shard = slowly\n"
        "    limits = SegmentationSettings(max_duration=2.4, pad=0.05)\n"
        "    preparing.prepare('swc', sys.argv[1], sys.argv[2], limits, processes=2)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(root), str(tmp_path / "prepared")]
    environment = {**os.environ, "PYTHONPATH": str(Path(preparing.__file__).parents[3])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    hung = end_when_hung(process)
    assert int(process.stdout.readline()) > 0  # workers, when the first shard is there
    process.kill()
    process.communicate(timeout=PATIENCE)  # its workers write to the same pipe: it ends when all have ended
    hung.cancel()
    subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    ids = [segment.id for segment in PreparedCorpus.read(tmp_path / "prepared").segments]
    assert len(ids) == len(set(ids))
    prepare("swc", root, tmp_path / "whole", SETTINGS)
    assert sorted(ids) == sorted(segment.id for segment in PreparedCorpus.read(tmp_path / "whole").segments)


def test_a_second_process_waits_and_takes_what_the_first_made(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom cwjax.data.prepared.build import prepare\n"
        "from cwjax.data.corpora.segmentation_settings import SegmentationSettings\n"
        "corpus = prepare('swc', sys.argv[1], sys.argv[2], SegmentationSettings(max_duration=2.4, pad=0.05))\n"
        "print(len(corpus.segments))\n"
    )
    command = [sys.executable, str(script), str(root), str(tmp_path / "prepared")]
    environment = {**os.environ, "PYTHONPATH": str(Path(preparing.__file__).parents[3])}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared", "run.py", "swc"]


def test_who_comes_second_says_so_and_waits(tmp_path: Path) -> None:
    said = threading.Event()
    output = tmp_path / "prepared"

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.getMessage() == f"waiting for another process that prepares {output}"
            said.set()

    def work() -> Path | None:
        with only_process(output) as aside:
            return aside

    log = logging.getLogger("cwjax.data.prepared.working_folder")
    log.addHandler(listener := Listener(logging.INFO))
    log.setLevel(logging.INFO)
    try:
        with ThreadPoolExecutor(1) as pool:
            with only_process(output) as aside:
                second = pool.submit(work)
                assert said.wait(PATIENCE)
                assert not second.done()
                (aside / "corpus").mkdir()
                publish(aside / "corpus", output)
            assert second.result(PATIENCE) is None
    finally:
        log.removeHandler(listener)
        log.setLevel(logging.NOTSET)
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


def test_too_small_a_disk_is_noticed_before_the_work(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(survey.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    # Nine articles of about six seconds.
    with pytest.raises(
        CwjaxError, match=r"about 0\.0 GB are needed for 0\.0 hours of audio, but only 0\.0 GB are free"
    ):
        prepare("swc", root, tmp_path / "prepared", SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["swc"]
    # Nine articles of about six seconds take 1.7 MB, and a tenth more for the index.
    monkeypatch.setattr(survey.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2 * 10**6))
    prepare("swc", root, tmp_path / "prepared", SETTINGS)


def test_the_estimate_is_near(root: Path) -> None:
    found = survey.survey_corpus("swc", root)
    assert found.units == 9
    assert found.seconds == pytest.approx(6 * 6.0 + 3 * 6.2, rel=0.05)


def test_equal_articles_keep_their_own_sound_and_ids(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "english" / "Article_1", root / "Article_1")
    corpus = prepare("swc", root, tmp_path / "prepared", SETTINGS)
    twins = [one for one in corpus.segments if one.article == "Article_1"]
    assert len({one.id for one in twins}) == len(twins) == 2 * len({one.text for one in twins})
    assert len({one.split for one in twins}) == 1


def test_a_bug_of_a_reader_costs_one_article(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cwjax.data.corpora.swc import reader as swc_corpus

    real = swc_corpus.read_article

    def fail_once(folder: Path, corpus_root: Path):
        if folder.name == "Article_4":
            raise KeyError("unforeseen")
        return real(folder, corpus_root)

    monkeypatch.setattr(swc_corpus, "read_article", fail_once)
    prepare("swc", root, tmp_path / "prepared", SETTINGS)
    failures = report(tmp_path / "prepared")["failures"]
    assert list(failures) == ["english/Article_4"]
    assert "KeyError" in failures["english/Article_4"]


def test_samples_are_those_of_the_file(root: Path, tmp_path: Path) -> None:
    """The same stretch cut from the file itself is the same, but for the resampler's last bits."""
    from cwjax.data.audio.decode import read_audio

    corpus = prepare("swc", root, tmp_path / "prepared", SETTINGS)
    for place, segment in enumerate(corpus.segments):
        if segment.article == "Article_1":
            whole = read_audio(root / "english" / "Article_1" / "audio.wav")
            first = round(segment.start * 16000)
            ours = corpus.audio(place)
            np.testing.assert_allclose(ours, whole[first : first + len(ours)], atol=1e-4)


def test_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--max-duration", "2.4", "--pad", "0.05", "--long-gap-slack", "1.5", "2.5", "3"]
    command = ["prepare", "swc", "--root", str(root), "--output", str(tmp_path / "out"), *options]
    assert main([*command, "--audio", "flac"]) == 0
    corpus = PreparedCorpus.read(tmp_path / "out")
    assert corpus.settings["audio"] == "flac"
    assert max(segment.duration for segment in corpus.segments) <= 2.4
    again = prepare("swc", root, tmp_path / "out", SETTINGS)
    assert len(again.segments) == len(corpus.segments), "training takes either form of audio"
    capsys.readouterr()
    assert main([*command, "--audio", "pcm16"]) == 1
    assert main(["prepare", "librispeech", "--root", str(root), "--output", str(tmp_path / "other")]) == 1
    first, second = capsys.readouterr().err.strip().splitlines()[-2:]
    assert first == (
        f"cwjax: error: {tmp_path / 'out'}: was prepared from another form of audio; delete it or name another output "
        "(data.prepared)"
    )
    assert "but like a Spoken Wikipedia Corpus" in second
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", "nothing", "--root", "a", "--output", "b"])
    assert stopped.value.code == 2


def test_a_bucket_is_to_be_mounted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for places in ((root, "gs://bucket/prepared"), ("s3://bucket/swc", tmp_path / "output")):
        with pytest.raises(CwjaxError, match=r"(gs|s3)://bucket/\w+: must be a folder of this machine; mount"):
            prepare("swc", *places)
    with pytest.raises(CwjaxError, match="gs://bucket/prepared: must be a folder"):
        PreparedCorpus.read("gs://bucket/prepared")
    assert main(["prepare", "swc", "--root", str(root), "--output", "gs://bucket/prepared"]) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_every_limit_is_an_option_that_says_what_it_is() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    for field in dataclasses.fields(SegmentationSettings):
        action = next(one for one in parser._actions if one.dest == f"limit_{field.name}")
        assert len(action.help) > 15


def test_a_users_file_beside_the_output_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text("mine")
    with only_process(tmp_path / "poetry"):
        pass
    assert (tmp_path / "poetry.lock").read_text() == "mine"
