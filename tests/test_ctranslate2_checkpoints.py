"""CTranslate2's own converter writes what is read here."""

import json

import numpy as np
import pytest
from references import SMALL, real_vocabulary
from tiny import write_bert

from cwjax.cli import main
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import abstract
from cwjax.models.parameters import flatten
from cwjax.weights.ctranslate2_checkpoints import CTRANSLATE2_FILE, open_ctranslate2
from cwjax.weights.export import export
from cwjax.weights.model_directory import save_model
from cwjax.weights.tensors import open_tensors

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model directory whose every array, biases too, is random."""
    directory = tmp_path_factory.mktemp("model")
    config, processor = real_vocabulary(tmp_path_factory.mktemp("parts"), SMALL)
    draw = np.random.default_rng(0)
    named = [(path, draw.normal(size=leaf.shape).astype(np.float32)) for path, leaf in flatten(abstract(config)[1])]
    save_model(directory, config, iter(named), processor, {})
    return directory


@pytest.fixture(scope="module")
def convert(model, tmp_path_factory):
    """Runs CTranslate2's converter on the Whisper in the model."""
    converters = pytest.importorskip("ctranslate2.converters")
    whisper = tmp_path_factory.mktemp("hugging-face") / "whisper"
    export(model, "hf-whisper", whisper)

    def run(quantization):
        output = tmp_path_factory.mktemp("ctranslate2") / "whisper"
        converter = converters.TransformersConverter(str(whisper), copy_files=["tokenizer.json"])
        converter.convert(str(output), quantization=quantization)
        return output

    return run


def test_the_way_through_ctranslate2_and_back_changes_no_bit(model, convert, tmp_path):
    theirs = convert(None)
    bert = write_bert(tmp_path / "bert")
    output = tmp_path / "again"
    assert main(["convert", "--whisper", str(theirs), "--text-encoder", str(bert), "--output", str(output)]) == 0
    before, after = open_tensors(model), open_tensors(output)
    assert before.shapes == after.shapes
    for path in before.shapes:
        if not path.startswith("text_encoder") and "/context_" not in path:
            np.testing.assert_array_equal(before.read(path), after.read(path), err_msg=path)
    heads = json.loads((theirs / "config.json").read_text())["alignment_heads"]
    assert json.loads((output / "generation_config.json").read_text())["alignment_heads"] == heads


def test_half_precision_is_read_and_quantized_weights_are_refused(model, convert):
    _, half = open_ctranslate2(convert("float16") / CTRANSLATE2_FILE)
    name = "decoder.layers.1.encoder_attn.v_proj.weight"
    kernel = open_tensors(model).read("decoder/blocks/cross_attn/value/kernel")[1]
    np.testing.assert_array_equal(half.read(name), kernel.T.astype(np.float16))
    with pytest.raises(CwjaxError, match=r"quantized .* to int8"):
        open_ctranslate2(convert("int8") / CTRANSLATE2_FILE)


def test_damaged_files_and_other_models_are_named(convert, tmp_path):
    whole = (convert(None) / CTRANSLATE2_FILE).read_bytes()
    file = tmp_path / CTRANSLATE2_FILE
    draw = np.random.default_rng(0)
    for length in [0, 3, 20, len(whole) - 2000, *draw.integers(len(whole), size=20)]:
        file.write_bytes(whole[:length])
        with pytest.raises(CwjaxError, match=str(file)):
            open_ctranslate2(file)
    file.write_bytes(whole.replace(b"WhisperSpec", b"GarbageSpec", 1))
    with pytest.raises(CwjaxError, match="GarbageSpec"):
        open_ctranslate2(file)
    file.write_bytes(whole.replace(b"decoder/layer_norm/beta", b"decoder/layer_norm/zeta", 1))
    with pytest.raises(CwjaxError, match=r"fit nowhere in Whisper: decoder/layer_norm/zeta"):
        open_ctranslate2(file)
