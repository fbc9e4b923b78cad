"""`cwjax transcribe` with a real, if untrained, model: every way through it leads to files that agree."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soundfile
from flax import nnx
from lxml import html
from references import real_vocabulary
from tolerance import assert_close, audio_encoder_terms, text_encoder_terms

from cwjax.cli import main
from cwjax.data.audio.decode import read_audio
from cwjax.data.audio.log_mel import log_mel
from cwjax.evaluation.explanation import explain, locate_words, window_spans
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.models.context_whisper import abstract
from cwjax.models.parameters import flatten
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig
from cwjax.models.whisper import WhisperConfig
from cwjax.weights.model_directory import load_model, save_model

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE = 16_000
SIZES = WhisperConfig(
    d_model=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=16,
    max_source_positions=100,
    max_target_positions=24,
)
CONTEXT = "The wind in the sail.\nnames: bear, market"
LITTLE = ["--beam-size", "none", "--temperature-increment-on-fallback", "none", "--no-speech-threshold", "none"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model directory of random weights, wide enough that context and sound matter."""
    folder = tmp_path_factory.mktemp("end_to_end")
    config, processor = real_vocabulary(folder, SIZES)
    random = np.random.default_rng(0)
    wide = {
        path: (random.normal(0, 0.4, leaf.shape) + path.endswith("scale")).astype(np.float32)
        for path, leaf in flatten(abstract(config)[1])
    }
    save_model(folder / "model", config, iter(wide.items()), processor, {})
    return folder / "model"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[Path]:
    """Five seconds of noise that swells, and one second of it at another rate and in stereo."""
    folder = tmp_path_factory.mktemp("recordings")
    random = np.random.default_rng(1)
    noise = random.normal(0, 0.1, 5 * RATE) * np.abs(np.sin(np.arange(5 * RATE) / 5000))
    soundfile.write(folder / "long.wav", noise, RATE)
    soundfile.write(folder / "short.flac", random.normal(0, 0.1, (8_000, 2)), 8_000)
    return [folder / "long.wav", folder / "short.flac"]


def test_files_hold_what_the_transcriber_says(model, recordings, tmp_path):
    arguments = ["transcribe", *map(str, recordings), "--model", str(model), "--context", CONTEXT, *LITTLE]
    assert main([*arguments, "--language", "en", "-o", str(tmp_path)]) == 0
    transcriber = Transcriber(*load_model(model))
    options = DecodingOptions(language="en", best_of=5, temperature=0, no_speech_threshold=None)
    for path in recordings:
        expected = transcriber.transcribe(path, CONTEXT, options)
        assert expected.segments
        assert json.loads((tmp_path / f"{path.stem}.json").read_text()) == expected.to_dict()
        lines = (tmp_path / f"{path.stem}.txt").read_text().splitlines()
        assert len(lines) >= len(expected.segments)


def explained(path: Path) -> dict:
    """The data of the page of an explanation."""
    return json.loads(html.fromstring(path.read_text()).get_element_by_id("data").text)


def test_batches_comparison_and_explanation(model, recordings, tmp_path, capsys):
    arguments = ["transcribe", *map(str, recordings), "--model", str(model), "--context", CONTEXT, *LITTLE]
    options = ["--language", "en", "--batch-size", "2", "--explain", "--compare-context", "--output-format", "json"]
    assert main([*arguments, *options, "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("with context:") == 2
    for path in recordings:
        written = json.loads((tmp_path / f"{path.stem}.json").read_text())
        assert written["segments"]
        assert all("words" in segment for segment in written["segments"])
        data = explained(tmp_path / f"{path.stem}.html")
        assert data["context"] == CONTEXT
        assert data["answer"]["context_words"]["words"] == CONTEXT.split()
        words = [word["word"].strip() for one in written["segments"] for word in one["words"]]
        assert [one["word"] for one in data["answer"]["words"]] == [word for word in words if word]


def test_phrases_alone_are_explained(model, recordings, tmp_path, monkeypatch):
    """Without a context, and though the spotter knows nothing: half a chance for each phrase."""
    config = SpotterConfig(audio_width=16, hidden=8, width=8, rows=1400)
    monkeypatch.setattr("cwjax.model.load_spotter", lambda *given: PhraseSpotter(config, key=jax.random.key(0)))
    monkeypatch.setattr("cwjax.inference.engine.Engine._believed", lambda *given: given[4])
    (tmp_path / "names.txt").write_text("Ada\nBo\n")
    arguments = ["transcribe", str(recordings[0]), "--model", str(model), *LITTLE, "--language", "en", "--explain"]
    assert main([*arguments, "--phrases", str(tmp_path / "names.txt"), "-f", "txt", "-o", str(tmp_path)]) == 0
    answer = explained(tmp_path / "long.html")["answer"]
    assert {one["phrase"] for one in answer["phrases"]} == {"Ada", "Bo"}
    assert answer["words"]
    assert not answer["context_words"]["words"]


def test_an_explanation_is_what_the_model_computed(model, recordings):
    """Of the first window, from features made of the whole recording."""
    config, parameters, processor = load_model(model)
    transcriber = Transcriber(config, parameters, processor)
    options = DecodingOptions(language="en", temperature=0, no_speech_threshold=None)
    transcript = transcriber.transcribe(recordings[0], CONTEXT, options)
    explanation = explain(transcriber, recordings[0], CONTEXT, transcript)
    assert explanation.layers == (0, 1)
    assert explanation.words == ("The", "wind", "in", "the", "sail.", "names:", "bear,", "market")
    windows = explanation.windows
    assert windows[0].start == 0
    assert windows[-1].end == pytest.approx(5, abs=0.1)

    samples = np.pad(read_audio(recordings[0]), (0, 2 * RATE))
    features = log_mel(samples[None].astype(np.float64), 80)[:, :200].astype(np.float32)
    whole = nnx.merge(abstract(config)[0], parameters)
    states = whole.encode_context(*processor.context(["The wind in the sail. names: bear, market"], 32))
    lengths = np.asarray(whole.audio_encoder.context_contributions(features, states))[:, 0]
    (first, following), *_ = window_spans(transcript, 500, 200)
    assert first == 0
    positions = -(-following // 2)
    expected = lengths[:, :positions].sum(axis=(1, 2))
    weights = np.diff([*range(0, positions, 5), positions])
    ours = (windows[0].influence.sum(axis=1) + windows[0].others) @ weights
    terms = text_encoder_terms(config.text_encoder, 32) + audio_encoder_terms(SIZES, 32) + lengths[0].size
    assert_close(ours, expected, terms)
    pieces = processor.context_tokenizer.convert_ids_to_tokens(processor.context([CONTEXT], 32)[0][0])
    row = windows[0].words.index(explanation.words.index("wind"))
    wind = lengths[:, :positions, pieces.index("wind")].sum(axis=1)
    assert_close(windows[0].influence[:, row] @ weights, wind, terms)


def test_words_of_chunks(model):
    tokenizer = load_model(model)[2].context_tokenizer
    chunks = ["the  bear, unknownword", "", "sail."]
    words, owners = locate_words(chunks, tokenizer, (3, 24))
    assert words == ("the", "bear,", "unknownword", "sail.")
    owners = owners.reshape(3, 24)
    for row, chunk in enumerate(chunks):
        ids = tokenizer.encode(chunk)
        pieces = tokenizer.convert_ids_to_tokens(ids)
        for place in {*owners[row]} - {-1}:
            own = [
                piece.removeprefix("##") for piece, owner in zip(pieces, owners[row], strict=False) if owner == place
            ]
            spelled = "".join(own)
            assert spelled == words[place] or "[UNK]" in own
        assert owners[row, 0] == -1
        assert (owners[row, len(ids) - 1 :] == -1).all()


def test_spans_of_windows():
    def transcript(*seeks):
        return SimpleNamespace(segments=[SimpleNamespace(seek=seek) for seek in seeks])

    assert list(window_spans(transcript(0, 0, 180, 350), 500, 200)) == [(0, 180), (180, 350), (350, 500)]
    assert list(window_spans(transcript(30, 600), 650, 200)) == [(30, 230), (230, 430), (430, 600), (600, 650)]
    assert list(window_spans(transcript(), 250, 200)) == [(0, 200), (200, 250)]
