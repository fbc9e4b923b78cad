"""A student that learns from a teacher: what it starts from, and what it learns."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_step import CONFIG as MODEL
from test_step import SETTINGS as OPTIMIZER
from test_step import TERMS, host, initial_parameters, make_batch
from tiny import read_tensors, write_bert
from tolerance import assert_close

from cwjax.config import Config, DataSettings, DistilSettings, ModelSettings, TrainSettings
from cwjax.data.audio.log_mel import log_mel
from cwjax.data.audio.pcm16 import from_pcm16
from cwjax.errors import CwjaxError
from cwjax.models.context_whisper import ContextWhisperConfig, abstract
from cwjax.models.parameters import Parameters, flatten, merge, unflatten
from cwjax.training.distillation import kept_layers, teacher_arrays
from cwjax.training.groups import count_parameters, split_parameters
from cwjax.training.parts import open_parts
from cwjax.training.plan import planned_sizes
from cwjax.training.sharding import make_mesh
from cwjax.training.train_step import abstract_state, init_state, make_train_step
from cwjax.weights.pretrained import open_whisper

pytestmark = pytest.mark.usefixtures("quick_compilation")

KL, CE, HEAT = 1.5, 0.7, 2.0


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Whisper of transformers', wider than the student and with more layers."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = dataclasses.asdict(MODEL.whisper) | {
        "d_model": 48, "decoder_layers": 4, "encoder_layers": 3, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80,
        "init_std": 0.2,
    }  # fmt: skip
    place = tmp_path_factory.mktemp("teacher") / "whisper"
    settings = transformers.WhisperConfig(**sizes, pad_token_id=0)
    transformers.WhisperForConditionalGeneration(settings).save_pretrained(place)
    return str(place)


def config_of(teacher: str, **distil: object) -> Config:
    return Config(
        freeze=("text_encoder",),
        data=DataSettings(max_target_tokens=8, max_context_tokens=8),
        distil=DistilSettings(**{"teacher": teacher, "kl_weight": KL, "ce_weight": CE, "temperature": HEAT} | distil),
        optim=OPTIMIZER,
        train=TrainSettings(steps=9, batch_size=4),
    )


def whisper_logits(parameters: Parameters, config: ContextWhisperConfig, batch: dict, context: bool) -> jax.Array:
    model = nnx.merge(abstract(config)[0], parameters)
    features = log_mel(from_pcm16(batch["waveform"]), 80, jnp)
    states = model.encode_context(batch["context_ids"], batch["context_mask"]) if context else None
    return model.decode(batch["tokens"], model.encode(features, states))


def test_a_step_learns_from_the_teacher_and_leaves_it_alone(teacher: str) -> None:
    """The loss, and what the update does to it, of a plain definition over all logits."""
    config, mesh, batch = config_of(teacher), make_mesh(-1, 1, 1), make_batch()
    shapes, frozen_shapes = abstract_state(config, MODEL, mesh)
    theirs = dict(teacher_arrays(config))
    assert {path: leaf.shape for path, leaf in flatten({"teacher": frozen_shapes["teacher"]})} == {
        path: array.shape for path, array in theirs.items()
    }
    trainable, frozen = split_parameters(merge(initial_parameters(), unflatten(theirs)), config.freeze)
    counts = count_parameters(shapes.trainable, frozen_shapes)
    assert counts["parameters"] == sum(leaf.size for leaf in host(initial_parameters()).values())
    state = init_state(config, trainable, shapes)

    def expected(trainable: Parameters) -> jax.Array:
        own = {name: part for name, part in merge(trainable, frozen).items() if name != "teacher"}
        ours = whisper_logits(own, MODEL, batch, context=True)
        stock = ContextWhisperConfig(open_whisper(Path(teacher)).config, None, None)
        taught = whisper_logits(frozen["teacher"], stock, batch, context=False)
        right = jnp.take_along_axis(jax.nn.log_softmax(ours), batch["targets"][..., None], -1)[..., 0]
        student, teaching = (jax.nn.log_softmax(logits / HEAT) for logits in (ours, taught))
        divergence = (jnp.exp(teaching) * (teaching - student)).sum(-1)
        return (
            jnp.where(batch["is_target"], -CE * right + KL * HEAT**2 * divergence, 0).sum() / batch["is_target"].sum()
        )

    value, gradients = jax.jit(jax.value_and_grad(expected))(trainable)
    before = host(frozen)
    state, metrics = make_train_step(config, MODEL, mesh)(state, frozen, batch)
    assert_close(metrics["loss"], value, TERMS)
    norm = np.sqrt(sum(float((leaf**2).sum()) for _, leaf in flatten(gradients)))
    assert_close(metrics["gradient_norm"], norm, TERMS)
    assert all(np.array_equal(leaf, before[path]) for path, leaf in host(frozen).items())


def test_layers_are_evenly_spaced_the_first_and_the_last_among_them() -> None:
    """As distil-whisper's own checkpoints have them: layers 0 and 31 of 32."""
    assert kept_layers(32, 2) == [0, 31]
    assert kept_layers(12, 4) == [0, 3, 7, 11]
    assert kept_layers(24, 24) == list(range(24))
    assert kept_layers(32, 1) == [31]


def test_a_student_starts_from_its_teachers_layers(teacher: str, tmp_path: Path) -> None:
    bert = write_bert(tmp_path / "bert")
    config = dataclasses.replace(
        config_of(teacher, encoder_layers=2, decoder_layers=3),
        model=ModelSettings(whisper=teacher, text_encoder=str(bert)),
    )
    parts = open_parts(config)
    assert (parts.config.whisper.encoder_layers, parts.config.whisper.decoder_layers) == (2, 3)
    assert planned_sizes(config) == parts.config
    read, tensors = dict(parts.read()), read_tensors(Path(teacher))
    for ours, theirs in enumerate([0, 2]):
        kernel = tensors[f"model.encoder.layers.{theirs}.fc1.weight"].T
        np.testing.assert_array_equal(read["audio_encoder/blocks/mlp/up/kernel"][ours], kernel)
    for ours, theirs in enumerate([0, 1, 3]):
        kernel = tensors[f"model.decoder.layers.{theirs}.encoder_attn.q_proj.weight"].T
        np.testing.assert_array_equal(read["decoder/blocks/cross_attn/query/kernel"][ours], kernel)
    assert len(read["teacher/decoder/blocks/attn_ln/scale"]) == 4
    assert parts.facts["teacher"] == teacher


@pytest.mark.parametrize(
    ("distil", "complaint"),
    [
        ({"kl_weight": -1.0}, "distil.kl_weight is -1.0: must not be negative"),
        ({"kl_weight": 0, "ce_weight": 0}, "are both 0"),
        ({"temperature": float("nan")}, "distil.temperature is nan: must be positive"),
        ({"decoder_layers": 9}, r"distil.decoder_layers is 9, but .*whisper has only 4"),
        ({"encoder_layers": -1}, "distil.encoder_layers is -1"),
        ({"teacher": "./nowhere"}, "nowhere: no such directory"),
    ],
)
def test_what_cannot_be_learnt_is_refused(teacher: str, distil: dict, complaint: str) -> None:
    def try_it() -> None:
        config = config_of(**{"teacher": teacher} | distil)
        abstract_state(config, MODEL, make_mesh(-1, 1, 1))
        planned_sizes(dataclasses.replace(config, model=ModelSettings(whisper=teacher)))

    with pytest.raises(CwjaxError, match=complaint):
        try_it()


def test_a_teacher_of_another_vocabulary_or_shorter_texts_is_refused(teacher: str) -> None:
    other = dataclasses.replace(MODEL, whisper=dataclasses.replace(MODEL.whisper, vocab_size=62))
    with pytest.raises(CwjaxError, match="has 61 tokens, the student 62"):
        abstract_state(config_of(teacher), other, make_mesh(-1, 1, 1))
    longer = dataclasses.replace(config_of(teacher), data=DataSettings(max_target_tokens=17, max_context_tokens=8))
    with pytest.raises(CwjaxError, match=r"data.max_target_tokens is 17, but the teacher's decoder has only 16"):
        abstract_state(longer, MODEL, make_mesh(-1, 1, 1))
    with pytest.raises(CwjaxError, match=r"chooses among the layers of a pretrained model.whisper"):
        planned_sizes(config_of(teacher, decoder_layers=1))
