"""`cwjax.load`: stock Whispers in every format, names, devices, and what is not imported for it."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from references import SMALL, real_vocabulary, transformers_model, wide_parameters, write_smallest_model
from test_whisper_tokens import TEXTS
from tiny import write_bert
from tolerance import assert_close, largest_logit, whisper_terms

import cwjax
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.errors import CwjaxError
from cwjax.extras import EXTRAS
from cwjax.inference.programs import _alignment_heads
from cwjax.machine import set_threads
from cwjax.models.context_whisper import ContextWhisperConfig, context_is_inert
from cwjax.models.parameters import flatten, unflatten
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig
from cwjax.models.whisper import ContextAttentionConfig
from cwjax.weights.export import export
from cwjax.weights.model_directory import save_model
from cwjax.weights.spotter_files import encoder_sha256, save_spotter
from cwjax.weights.tensors import SAFETENSORS_FILE, open_tensors

pytestmark = pytest.mark.usefixtures("quick_compilation")

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    config, processor = real_vocabulary(tmp_path_factory.mktemp("parts"), SMALL)
    return config, processor, wide_parameters(config)


@pytest.fixture(scope="module")
def model(parts, tmp_path_factory):
    """A model of ours."""
    config, processor, parameters = parts
    directory = tmp_path_factory.mktemp("ours") / "model"
    save_model(directory, config, flatten(parameters), processor, {"corpus": "none"})
    return directory


@pytest.fixture(scope="module")
def hugging_face(parts, tmp_path_factory):
    """The Whisper in it as transformers writes it."""
    config, processor, parameters = parts
    directory = tmp_path_factory.mktemp("hugging-face") / "whisper"
    transformers_model(config.whisper, parameters).save_pretrained(directory)
    processor.tokens.tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    """A model of a few kilobytes."""
    directory = tmp_path_factory.mktemp("smallest")
    write_smallest_model(directory / "model", directory)
    return directory / "model"


@pytest.fixture
def copy(smallest, tmp_path):
    return Path(shutil.copytree(smallest, tmp_path / "copy"))


def spoil(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def hear(model: cwjax.Model) -> np.ndarray:
    features = np.random.default_rng(0).normal(0, 1, (1, 3000, 80)).astype(np.float32)
    return np.asarray(model.decode(np.array([[50258, 50259, 50359, 50363, 11]]), model.encode(features)))


def sources(kind: str, model: Path, hugging_face: Path, scratch: Path) -> Path:
    """The same Whisper in another form."""
    if kind == "hugging face":
        return hugging_face
    if kind == "saved":
        cwjax.load(hugging_face).save(scratch / "saved")
        return scratch / "saved"
    if kind == "openai":
        export(model, "openai", scratch / "whisper.pt")
        shutil.copy(hugging_face / "tokenizer.json", scratch)
        return scratch / "whisper.pt"
    converters = pytest.importorskip("ctranslate2.converters")
    converter = converters.TransformersConverter(str(hugging_face), copy_files=["tokenizer.json"])
    converter.convert(str(scratch / "ctranslate2"))
    return scratch / "ctranslate2" / ("model.bin" if kind == "model.bin" else "")


@pytest.mark.parametrize("kind", ["hugging face", "saved", "openai", "ctranslate2", "model.bin"])
def test_a_stock_whisper_in_every_form(kind, model, hugging_face, tmp_path):
    stock, whole = cwjax.load(sources(kind, model, hugging_face, tmp_path)), cwjax.load(model)
    np.testing.assert_array_equal(hear(stock), hear(whole))
    assert stock.config == ContextWhisperConfig(SMALL, None, None)
    assert whole.takes_context
    assert not whole.context_is_inert
    assert not stock.takes_context
    assert stock.context_is_inert
    samples = np.random.default_rng(1).normal(size=16000).astype(np.float32) * 0.1
    assert stock.processor.context_tokenizer is None
    assert stock.processor.tokens.encode("a sail") == whole.processor.tokens.encode("a sail")
    for ask in (stock.transcribe, lambda *given: stock.encode_context(*stock.processor.context([given[1]], 8))):
        with pytest.raises(CwjaxError, match="stock Whisper, which takes no context"):
            ask(samples, "a sail in the wind")
    with pytest.raises(CwjaxError, match="stock Whisper"):
        stock.encode_context(np.zeros((1, 4), np.int32), np.ones((1, 4), bool))
    if kind == "saved":
        brief = {"temperature": 0.0, "sample_len": 8, "language": "en"}
        assert stock.transcribe(samples, **brief) == whole.transcribe(samples, **brief)
        assert "takes no context" in (tmp_path / "saved/README.md").read_text()


def test_a_stock_whisper_computes_what_transformers_computes(parts, hugging_face):
    config, _, parameters = parts
    features = np.random.default_rng(0).normal(0, 1, (1, 3000, 80)).astype(np.float32)
    tokens = torch.tensor([[50258, 50259, 50359, 50363, 11]])
    with torch.no_grad():
        logits = transformers_model(config.whisper, parameters)(torch.tensor(features).mT, decoder_input_ids=tokens)
    terms = whisper_terms(config.whisper)
    assert_close(hear(cwjax.load(hugging_face)), logits.logits, terms, largest_logit(parameters))


def test_a_context_that_cannot_matter(parts):
    config, _, parameters = parts
    leaves = dict(flatten(parameters))
    gates = "audio_encoder/blocks/context_gate"
    assert not context_is_inert(config, parameters)
    closed = leaves[gates] * 0
    assert context_is_inert(config, unflatten(leaves | {gates: jnp.asarray(closed)}))
    closed[-1] = 1e-30
    assert not context_is_inert(config, unflatten(leaves | {gates: closed}))
    ungated = ContextWhisperConfig(SMALL, config.text_encoder, ContextAttentionConfig("none"))
    assert not context_is_inert(ungated, wide_parameters(ungated))
    with pytest.raises(CwjaxError, match="text_encoder and context go together"):
        ContextWhisperConfig(SMALL, None)


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("tiny", "openai/whisper-tiny"),
        ("turbo", "openai/whisper-large-v3-turbo"),
        ("distil-large-v3", "distil-whisper/distil-large-v3"),
        ("somebody/model", "somebody/model"),
    ],
)
def test_names_are_looked_up_on_the_hub(name, hub_id, hugging_face, monkeypatch):
    import huggingface_hub

    with pytest.raises(
        CwjaxError, match=rf"^{name}: is not here, was looked up on the hub as {hub_id}, and cannot"
    ) as e:
        cwjax.load(name)
    assert "\n" not in str(e.value)
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda found, **_: asked.append(found) or str(hugging_face)
    )
    assert cwjax.load(name).config.whisper == SMALL
    assert set(asked) == {hub_id}
    with pytest.raises(CwjaxError, match=r"no hub id .* no Whisper by name .*tiny"):
        cwjax.load("nothing")


def test_a_whisper_without_tokenizer_is_given_the_published_one(model, hugging_face, tmp_path, monkeypatch):
    import huggingface_hub

    export(model, "openai", tmp_path / "whisper.pt")
    lonely = cwjax.load(tmp_path / "whisper.pt")
    with pytest.raises(CwjaxError, match=r"whisper\.pt: its tokenizer\.json, .* hub as openai/whisper-tiny,"):
        _ = lonely.processor
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(hugging_face))
    assert lonely.processor.tokens.encode("a sail") == cwjax.load(model).processor.tokens.encode("a sail")


def test_nothing_but_what_transcribing_needs_is_imported(smallest, tmp_path):
    program = (
        "import sys, numpy, cwjax\n"
        "def loaded(): return {name.partition('.')[0] for name in sys.modules}\n"
        "model = cwjax.load(sys.argv[1])\n"
        "model.transcriber\n"
        "print(*loaded())\n"
        "model.transcribe(numpy.sin(numpy.arange(8000.0)), 'a sail', temperature=0.0)\n"
        "print(*loaded())"
    )
    heavy = {*EXTRAS, "torch", "sklearn", "jiwer", "huggingface_hub", "pandas", "librosa", "numba", "scipy", "jinja2"}
    heavy -= {"optax"}  # which flax imports
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for filters in ({"librosa", "numba", "scipy", "jinja2"}, set()):  # the mel filters are kept the second time
        command = [sys.executable, "-c", program, str(smallest)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        loaded, transcribed = (heavy & set(line.split()) for line in ran.stdout.splitlines())
        assert not loaded
        assert not transcribed - filters


def test_what_an_extra_brings_is_named(smallest, copy, tmp_path):
    """As where `pip install cwjax` was all: the packages of the extras cannot be imported."""
    program = (
        "import sys, importlib.util, json\n"
        "from cwjax.extras import EXTRAS\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {*EXTRAS} - {'optax', 'orbax'}:  # which flax brings\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name in EXTRAS else real(name, package)\n"
        "from cwjax.cli import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    print('ended with', main(command), file=sys.stderr)"
    )
    sound = tmp_path / "sound.wav"
    soundfile.write(sound, np.zeros(8000), 16000)
    (copy / "tokenizer/tokenizer.json").rename(copy / "tokenizer/vocab.json")
    transcribe = ["transcribe", str(sound), "--output-dir", str(tmp_path), "--model"]
    told = "cwjax: error: {} needs the package {}, not installed here: pip install 'cwjax[{}]'"
    cases = (
        (["train", "--config", "configs/demo.py"], told.format("train", "tyro", "train")),
        (["prepare", "--help"], told.format("prepare", "langcodes", "prepare")),
        ([*transcribe, str(copy)], "a tokenizer without tokenizer.json needs the package transformers"),
        ([*transcribe, str(smallest)], ""),
    )
    commands = json.dumps([command for command, _ in cases])
    ran = subprocess.run([sys.executable, "-c", program, commands], capture_output=True, text=True)
    said = re.split(r"ended with (\d)\n", ran.stderr)
    assert said[1::2] == ["1", "1", "1", "0"], ran.stderr
    for (_, expected), text in zip(cases, said[::2], strict=False):
        assert expected in text.splitlines()[-1]


def test_dtype_and_device(smallest):
    assert cwjax.load(smallest).params["decoder"]["positions"].dtype == jnp.float32
    half = cwjax.load(smallest, dtype="bfloat16", device="cpu:0")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("bfloat16")}
    assert jax.tree.leaves(half.params)[0].devices() == {jax.local_devices()[0]}
    for device in ("cuda:1", "tpu", "cpu:7", "cpu:", "cpu:x", "cpu:-1", "abacus"):
        with pytest.raises(CwjaxError, match=rf"device '{device}': there is none; JAX has cpu:0"):
            cwjax.load(smallest, device=device)
    for dtype in ("float8", 5):
        with pytest.raises(CwjaxError, match="use one of float32, bfloat16, float16"):
            cwjax.load(smallest, dtype=dtype)


def test_a_phrase_spotter_of_ones_own(smallest, tmp_path):
    plain = cwjax.load(smallest)
    assert not plain.spots_phrases
    sizes = SpotterConfig(plain.config.whisper.d_model, width=8, hidden=8, rows=1400)
    for name, sha256 in (("ours", encoder_sha256(plain.params)), ("theirs", "0" * 64)):
        save_spotter(PhraseSpotter(sizes, key=jax.random.key(0)), tmp_path / f"{name}.safetensors", sha256, {})
    assert cwjax.load(smallest, spotter=tmp_path / "ours.safetensors").spots_phrases
    with pytest.raises(CwjaxError, match=r"theirs.*another audio encoder"):
        cwjax.load(smallest, spotter=tmp_path / "theirs.safetensors")
    with pytest.raises(CwjaxError, match=r"none\.safetensors"):
        cwjax.load(smallest, spotter=str(tmp_path / "none.safetensors"))


def test_compiled_programs_are_kept_for_python_users_too(smallest, tmp_path):
    program = (
        "import sys, jax\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "jax.jit(lambda x: x + 1)(1)\n"  # JAX settles on its cache when it first compiles
        "import cwjax, numpy\n"
        "if len(sys.argv) > 2: jax.config.update('jax_compilation_cache_dir', sys.argv[2])\n"
        "cwjax.load(sys.argv[1]).encode(numpy.zeros((1, 20, 80), numpy.float32))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "home")
    subprocess.run([sys.executable, "-c", program, str(smallest)], env=environment, check=True)
    assert list((tmp_path / "home/cwjax/xla").iterdir())
    shutil.rmtree(tmp_path / "home")
    subprocess.run([sys.executable, "-c", program, str(smallest), str(tmp_path / "own")], env=environment, check=True)
    assert not (tmp_path / "home/cwjax/xla").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for threads in /proc")
def test_threads_of_the_cpu():
    program = (
        "import os, sys\n"
        "from cwjax.machine import set_threads\n"
        "set_threads(int(sys.argv[1]))\n"
        "import jax.numpy as jnp\n"
        "(jnp.ones((500, 500)) @ jnp.ones((500, 500))).block_until_ready()\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    one, nine = (
        int(subprocess.run([sys.executable, "-c", program, count], capture_output=True, check=True).stdout)
        for count in ("1", "9")
    )
    assert nine - one >= 8
    jax.devices()
    with pytest.raises(CwjaxError, match="before the first model is loaded"):
        set_threads(1)


# What may be wrong with a model directory.


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("config.json", {"whisper": {"encoder_layers": "2"}}, "encoder_layers is '2', where a whole number is needed"),
        ("config.json", {"whisper": {"d_model": None}}, "d_model is None, where a whole number is needed"),
        ("config.json", {"whisper": {"init_std": []}}, "init_std is \\[\\], where a number is needed"),
        ("config.json", {"text_encoder": {"kind": []}}, "text_encoder has kind \\[\\]"),
        ("config.json", {"text_encoder": {"layer_norm_eps": "small"}}, "layer_norm_eps is 'small'"),
        ("config.json", {"context": {"layers": 5}}, "a value is of the wrong type"),
        ("config.json", {"context": {"layers": ["a"]}}, "a value is of the wrong type"),
        ("config.json", {"context": {"gate": []}}, "gate is \\[\\]"),
        ("config.json", {"training": [1]}, "training is \\[1\\], no JSON object"),
        ("config.json", {"model_type": []}, "is of a \\[\\] model, where a Whisper is needed"),
        ("preprocessor_config.json", {"feature_size": None}, "feature_size and n_samples are \\[None"),
        ("preprocessor_config.json", {"n_samples": "480000"}, "feature_size and n_samples are"),
        (
            "preprocessor_config.json",
            {"n_samples": 10**12},
            "windows of 1000000000000 samples .* the model at most 19200",
        ),
        ("preprocessor_config.json", {"feature_size": 128}, "128 mel bins"),
    ],
)
def test_wrong_values_are_named(file, changes, told, copy):
    settings = json.loads((copy / file).read_text())
    for name, value in changes.items():
        merged = settings[name] | value if isinstance(value, dict) else value
        spoil(copy / file, **{name: merged})
    with pytest.raises(CwjaxError, match=told) as error:
        _ = cwjax.load(copy).transcriber
    assert file in str(error.value)


@pytest.mark.parametrize("content", ["null", "[1]", "{", "[" * 100_000, '{"a":' * 100_000, '"\\ud800"', "\udcff"])
@pytest.mark.parametrize(
    "file", ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer/tokenizer_config.json",
             "tokenizer/tokenizer.json", "context_tokenizer/tokenizer.json", "model.safetensors.index.json"]
)  # fmt: skip
def test_files_that_are_no_json_objects_are_named(file, content, copy):
    if file.startswith("model"):
        (copy / SAFETENSORS_FILE).unlink()
    (copy / file).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CwjaxError, match=Path(file).name) as error:
        _ = cwjax.load(copy).transcriber
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shard", [5, None, "../copy/model.safetensors", "/etc/passwd", ["a"]])
def test_an_index_names_files_beside_it(shard, copy):
    names = open_tensors(copy).shapes
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))
    with pytest.raises(CwjaxError, match="is no readable index of shards"):
        cwjax.load(copy)


def test_a_tokenizer_that_was_lost_is_not_made_up(copy, tmp_path):
    (copy / "context_tokenizer/tokenizer.json").unlink()
    with pytest.raises(
        CwjaxError, match=r"context_tokenizer: holds no readable tokenizer .*tokenizer\.json is missing"
    ):
        _ = cwjax.load(copy).processor
    other = TextTokenizer.read(write_bert(tmp_path / "bert"))
    other.save(copy / "context_tokenizer")
    _ = cwjax.load(copy).processor
    content = json.loads((copy / "context_tokenizer/tokenizer.json").read_text())
    content["model"]["vocab"] = dict(list(content["model"]["vocab"].items())[:5])
    (copy / "context_tokenizer/tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CwjaxError, match="context_tokenizer: the tokenizer has 5 tokens, the text encoder"):
        _ = cwjax.load(copy).processor


def test_no_code_of_a_tokenizer_is_run_or_kept(copy, tmp_path):
    folder = copy / "context_tokenizer"
    spoil(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    tokenizer = TextTokenizer.read(folder)
    tokenizer.save(tmp_path / "saved")
    assert "auto_map" not in (tmp_path / "saved/tokenizer_config.json").read_text()
    (folder / "tokenizer.json").unlink()
    write_bert(tmp_path / "bert")
    shutil.copy(tmp_path / "bert/vocab.txt", folder)
    assert TextTokenizer.read(folder).encode("a sail") == tokenizer.encode("a sail")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("named", [[], "abc", [[9, 0], [1, 0]], [[1, 9]], 5, [5], [[1, 0, 0]], {"a": 1}, [[-1, 0]]])
def test_heads_that_do_not_exist_are_replaced(named, caplog):
    assert _alignment_heads(named, 2, 3) == ((1, 0), (1, 1), (1, 2))
    assert "are not heads of this decoder (2 x 3)" in caplog.text


def test_heads_that_exist_are_used(caplog):
    assert _alignment_heads([[1, 2], [0, 1]], 2, 3) == ((0, 1), (1, 2))
    assert _alignment_heads(None, 3, 2) == ((1, 0), (1, 1), (2, 0), (2, 1))
    assert not caplog.text


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("inside", [None, "state_dict"])
def test_names_of_wrapped_models(prefix, inside, hugging_face, tmp_path):
    source = Path(shutil.copytree(hugging_face, tmp_path / "wrapped"))
    tensors = open_tensors(hugging_face)
    state = {prefix + name: torch.tensor(np.array(tensors.read(name))) for name in tensors.shapes}
    (source / SAFETENSORS_FILE).unlink()
    torch.save({inside: state, "step": 5} if inside else state, source / "pytorch_model.bin")
    np.testing.assert_array_equal(hear(cwjax.load(source)), hear(cwjax.load(hugging_face)))


def test_a_pickle_of_more_than_tensors_is_not_called_damaged(hugging_face, tmp_path):
    import argparse

    source = Path(shutil.copytree(hugging_face, tmp_path / "more"))
    (source / SAFETENSORS_FILE).unlink()
    torch.save({"a": torch.ones(2), "options": argparse.Namespace()}, source / "pytorch_model.bin")
    with pytest.raises(
        CwjaxError, match=r"holds more than tensors \(argparse\.Namespace\).*save the model's state_dict"
    ):
        cwjax.load(source)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_weights_are_as_readable_as_other_files(smallest, tmp_path):
    before = os.umask(0o027)
    try:
        cwjax.load(smallest).save(tmp_path / "copy")
    finally:
        os.umask(before)
    for name in ("model.safetensors", "config.json"):
        assert stat.S_IMODE((tmp_path / "copy" / name).stat().st_mode) == 0o640


def test_tokenizers_read_as_transformers_reads_them(parts, hugging_face, model):
    from transformers import AutoTokenizer

    texts = [*TEXTS[:3], " They", "naïve 東京 🙂 <|en|> [SEP]", "", "the bear, UNKNOWN."]
    ours, theirs = (
        TextTokenizer.read(model / "context_tokenizer"),
        AutoTokenizer.from_pretrained(model / "context_tokenizer"),
    )
    assert len(ours) == len(theirs)
    for text in texts:
        read = theirs(text, return_offsets_mapping=True)
        assert ours.encode(text) == read["input_ids"]
        assert ours.spans(text) == read["offset_mapping"]
    tokens, theirs = parts[1].tokens, AutoTokenizer.from_pretrained(hugging_face)
    for text in texts:
        assert tokens.pieces(text) == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokens.tokenizer.get_vocab() == theirs.get_vocab()


def test_languages_are_those_of_transformers():
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    from cwjax.data.examples.whisper_tokens import language_names

    assert {code: names[0] for code, names in language_names().items()} == LANGUAGES
    assert list(language_names()) == list(LANGUAGES)
    assert {name: code for code, names in language_names().items() for name in names} == TO_LANGUAGE_CODE
