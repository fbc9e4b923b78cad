"""Scoring segments: rates against jiwer's, an index that keeps them, and work that goes on where it stopped."""

import json
import shutil

import jax
import jiwer
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from references import real_vocabulary
from test_transcribe_end_to_end import SIZES

import cwjax
from cwjax.cli import main
from cwjax.data.examples.context import ContextProbabilities
from cwjax.data.examples.pipeline import ExampleSettings, training_windows
from cwjax.data.examples.windows import Selection
from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError
from cwjax.evaluation.quality import EDGE, SCORES_FILE, measure
from cwjax.inference.transcriber import Transcriber
from cwjax.models.context_whisper import abstract
from cwjax.weights.model_directory import save_model

words = st.lists(st.sampled_from(["sea", "sail", "wind", "market", "bear", "bare"]), max_size=12).map(" ".join)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@given(words, words)
def test_the_rate_is_that_of_jiwer_and_its_ends_are_part_of_it(said, heard):
    ((cer, start, end),) = measure([said.title() + "."], heard.upper())
    if said and heard:
        assert cer == pytest.approx(jiwer.cer(said, heard), abs=1e-4)
    if 0 < len(said) <= EDGE:
        assert max(start, end) <= cer + 1e-4


@given(st.lists(words, min_size=1, max_size=5), words)
def test_errors_of_a_window_are_those_of_its_utterances(said, heard):
    found = measure(said, heard)
    letters = np.array([len(one) for one in said])
    whole = " ".join(filter(None, said))
    if whole:
        joints = sum(letters > 0) - 1  # a blank between two utterances counts for the later one
        errors = sum(found[:, 0] * letters)
        assert errors == pytest.approx(jiwer.cer(whole, heard) * len(whole), abs=0.05) if heard else len(whole)
        assert joints >= 0
        assert (found[letters == 0] == 0).all()


def test_a_wrong_cut_shows_at_its_end_alone():
    text = "the quick brown fox jumps over the lazy dog again and again"
    assert measure([text], text.removeprefix("the quick "))[0, 1:].tolist() == [10 / EDGE, 0]
    assert measure([text], text + " and then")[0, 1:].tolist() == pytest.approx([0, 9 / EDGE])
    assert measure([text, text], text + text.removeprefix("the quick ")).round(2).tolist() == [
        [0, 0, 0],
        pytest.approx([11 / len(text), 11 / EDGE, 0], abs=0.01),
    ]
    assert measure([text], "")[0, 0] == measure([""], "nothing")[0, 0] == 1
    assert measure(["..."], "")[0, 0] == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    config, processor = real_vocabulary(tmp_path_factory.mktemp("parts"), SIZES)
    draw = np.random.default_rng(0)
    parameters = jax.tree.map(lambda leaf: draw.normal(0, 0.4, leaf.shape).astype(np.float32), abstract(config)[1])
    save_model(directory, config, cwjax.models.parameters.flatten(parameters), processor, {})
    return directory


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Seven recordings of a second, each an article."""
    folder = tmp_path_factory.mktemp("root")
    lines = []
    for number in range(7):
        samples = np.random.default_rng(number).normal(0, 0.1, 16_000)
        soundfile.write(folder / f"{number}.wav", samples, 16_000)
        lines.append(json.dumps({"audio": f"{number}.wav", "text": f"the word was {number}", "speaker": str(number)}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def prepare(root, output, *options):
    return main(["prepare", "manifest", "--root", str(root), "--output", str(output), *map(str, options)])


def test_scores_are_kept_and_the_rest_stays(root, model, tmp_path, monkeypatch):
    assert prepare(root, tmp_path / "plain") == 0
    shutil.copytree(tmp_path / "plain", tmp_path / "scored")
    before = PreparedCorpus.read(tmp_path / "plain")
    heard, texts = [], []
    transcribe = Transcriber.transcribe_many

    def stopped_once(self, recordings, **options):
        if heard == ["first"]:
            heard.append("stopped")
            raise KeyboardInterrupt
        found = transcribe(self, recordings, **options)
        heard.append("first" if not heard else len(found))
        texts.extend(transcript.text.strip() for transcript in found)
        return found

    monkeypatch.setattr(Transcriber, "transcribe_many", stopped_once)
    monkeypatch.setattr("cwjax.evaluation.quality.score_corpus.__defaults__", (3,))
    prepare(root, tmp_path / "scored", "--score-with", model)
    assert PreparedCorpus.read(tmp_path / "scored").quality is None
    with (tmp_path / "scored" / SCORES_FILE).open("a") as scores:
        scores.write("[3, [[0.1, 0.")  # as a kill would leave it
    assert prepare(root, tmp_path / "scored", "--score-with", model) == 0
    assert heard == ["first", "stopped", 3, 1]  # three segments were not transcribed again
    after = PreparedCorpus.read(tmp_path / "scored")
    for place, (old, new) in enumerate(zip(before.segments, after.segments, strict=True)):
        assert new == old
        np.testing.assert_array_equal(before.pcm16(place), after.pcm16(place))
        np.testing.assert_array_equal(after.quality[place : place + 1], measure([new.text], texts[place]))
    assert not (tmp_path / "scored" / SCORES_FILE).exists()
    assert prepare(root, tmp_path / "scored", "--score-with", model) == 0
    assert len(heard) == 4  # nothing is transcribed twice


def test_training_leaves_out_what_disagrees(root, model, tmp_path):
    prepare(root, tmp_path / "plain")
    corpus = PreparedCorpus.read(tmp_path / "plain")
    processor = cwjax.load(model).processor
    settings = ExampleSettings(24, 12, ContextProbabilities(), 0)
    everything = training_windows(corpus, processor, settings, Selection())
    with pytest.raises(CwjaxError, match="--score-with"):
        training_windows(corpus, processor, settings, Selection(max_cer=0.5))
    prepare(root, tmp_path / "plain", "--score-with", model)
    corpus = PreparedCorpus.read(tmp_path / "plain")
    is_train = corpus.supervisions["split"] == 0
    rates = corpus.quality[is_train, 0]
    assert everything.count == len(rates)
    highest = float(np.sort(rates)[2])
    chosen = training_windows(corpus, processor, settings, Selection(max_cer=highest))
    ids = {chosen.segment(chosen[number]).id for number in range(chosen.count)}
    listed = np.array([one.id for one in corpus.all_supervisions()])
    assert ids == set(listed[is_train & (corpus.quality[:, 0] <= highest)])
    with pytest.raises(CwjaxError, match="no training utterance remains"):
        training_windows(corpus, processor, settings, Selection(max_edge_cer=-1.0))
