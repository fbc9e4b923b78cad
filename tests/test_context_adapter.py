"""Context adapters: what they hold, what they are joined with, and what they refuse."""

import json
import shutil

import jax
import numpy as np
import pytest
from references import SMALL, real_vocabulary, transformers_model, wide_parameters
from tiny import write_bert

import cwjax
from cwjax.cli import main
from cwjax.models.parameters import flatten
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig
from cwjax.weights.hub_upload import contents_of
from cwjax.weights.model_directory import save_model
from cwjax.weights.spotter_files import encoder_sha256, save_spotter

pytestmark = pytest.mark.usefixtures("quick_compilation")

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A Whisper and a text encoder of others, and a model of which the context attention was trained."""
    folder = tmp_path_factory.mktemp("places")
    _, processor = real_vocabulary(folder / "parts", SMALL)
    whisper, text_encoder, model = folder / "whisper", folder / "bert", folder / "model"
    stock = wide_parameters(real_vocabulary(folder / "again", SMALL)[0])
    transformers_model(SMALL, stock).save_pretrained(whisper)
    processor.tokens.tokenizer.save(whisper)
    write_bert(text_encoder)
    assert (
        main(["convert", "--whisper", str(whisper), "--text-encoder", str(text_encoder), "--output", str(model)]) == 0
    )
    opened = cwjax.load(model)
    trained = {
        path: np.asarray(leaf) + (0.1 * ("/context_" in path)) * np.ones_like(leaf)
        for path, leaf in flatten(opened.params)
    }
    save_model(model, opened.config, iter(trained.items()), opened.processor, opened.source.facts())
    return whisper, text_encoder, model


@pytest.fixture(scope="module")
def adapter(places, tmp_path_factory):
    whisper, text_encoder, model = places
    directory = tmp_path_factory.mktemp("adapter") / "adapter"
    assert _export(model, directory, whisper, text_encoder) == 0
    return directory


def _export(model, output, whisper, text_encoder, *more):
    sources = ["--whisper", str(whisper), "--text-encoder", str(text_encoder)]
    return main(["convert", "--model", str(model), "--export", "adapter", *sources, "--output", str(output), *more])


def test_an_adapter_joined_with_what_it_names_is_the_model(places, adapter):
    ours, theirs = cwjax.load(places[2]), cwjax.load(adapter)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert theirs.config == ours.config
    assert theirs.processor.context(["a sail"], 8)[0].tolist() == ours.processor.context(["a sail"], 8)[0].tolist()
    weights = (adapter / "model.safetensors").stat().st_size
    assert weights < 0.2 * (places[2] / "model.safetensors").stat().st_size


def test_an_adapter_is_saved_as_a_whole_model(places, adapter, tmp_path):
    cwjax.load(adapter).save(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, cwjax.load(tmp_path / "whole").params, cwjax.load(places[2]).params)


def test_the_hub_gets_an_adapter_with_its_bases(adapter):
    contents = contents_of(adapter, "ada/adapter")
    assert set(contents) == {"config.json", "model.safetensors", "README.md"}
    assert "base_model_relation: adapter" not in contents["README.md"].decode()  # of directories nothing is known there


def test_a_card_names_the_hub_ids_it_adapts(places, adapter, tmp_path):
    from cwjax.weights.model_card import model_card

    settings = json.loads((adapter / "config.json").read_text())
    facts = settings["training"] | {"whisper": "openai/whisper-base", "text_encoder": "google/flan-t5-base"}
    card = model_card(cwjax.load(adapter).config, 1, facts, adapter=True)
    assert "base_model:\n- openai/whisper-base\n- google/flan-t5-base\nbase_model_relation: adapter" in card


def test_a_phrase_spotter_goes_with_it(places, tmp_path):
    whisper, text_encoder, model = places
    spotter = PhraseSpotter(SpotterConfig(audio_width=SMALL.d_model), key=jax.random.key(0))
    save_spotter(spotter, tmp_path / "own.safetensors", encoder_sha256(cwjax.load(model).params), {})
    assert not cwjax.load(model).spots_phrases
    assert _export(model, tmp_path / "out", whisper, text_encoder, "--spotter", str(tmp_path / "own.safetensors")) == 0
    assert cwjax.load(tmp_path / "out").spots_phrases


def test_other_weights_under_the_same_name_are_refused(places, tmp_path, capsys):
    whisper, text_encoder, model = places
    moved = shutil.copytree(text_encoder, tmp_path / "bert")
    assert _export(model, tmp_path / "out", whisper, moved) == 0
    shutil.rmtree(moved)
    write_bert(moved, seed=1)
    with pytest.raises(cwjax.CwjaxError, match=r"trained with other weights than those of .*bert; name the same"):
        cwjax.load(tmp_path / "out")
    shutil.rmtree(moved)
    write_bert(moved, layers=2)
    with pytest.raises(cwjax.CwjaxError, match="of other sizes than those of"):
        cwjax.load(tmp_path / "out")


def test_a_model_of_which_more_was_trained_is_refused(places, tmp_path, capsys):
    whisper, text_encoder, model = places
    opened = cwjax.load(model)
    trained = dict(flatten(opened.params))
    trained["decoder/positions"] = np.asarray(trained["decoder/positions"]) * np.float32(1.01)
    save_model(tmp_path / "tuned", opened.config, iter(trained.items()), opened.processor, opened.source.facts())
    assert _export(tmp_path / "tuned", tmp_path / "out", whisper, text_encoder) == 1
    assert "decoder/positions differs from that of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_the_model_was_made_of_must_be_known(places, tmp_path, capsys):
    model = places[2]
    opened = cwjax.load(model)
    save_model(tmp_path / "orphan", opened.config, flatten(opened.params), opened.processor, {})
    assert (
        main(["convert", "--model", str(tmp_path / "orphan"), "--export", "adapter", "--output", str(tmp_path / "o")])
        == 1
    )
    assert "does not say which whisper it was made of; name it with --whisper" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{}", '{"model_type": "context-whisper-adapter"}', "[", '{"model_type": 5}'])
def test_a_damaged_adapter_is_refused_in_a_line(adapter, tmp_path, content):
    damaged = shutil.copytree(adapter, tmp_path / "damaged")
    (damaged / "config.json").write_text(content)
    with pytest.raises(cwjax.CwjaxError):
        cwjax.load(damaged)


def test_an_adapter_of_an_unreachable_whisper_names_it(adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = json.loads((adapter / "config.json").read_text())
    settings["parts"]["whisper"]["source"] = "nobody/whisper-nowhere"
    damaged = shutil.copytree(adapter, tmp_path / "adapter")
    (damaged / "config.json").write_text(json.dumps(settings))
    with pytest.raises(cwjax.CwjaxError, match=r"nobody/whisper-nowhere: is not here, was looked up on the hub"):
        cwjax.load(damaged)
