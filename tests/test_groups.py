"""Which parameters are trained."""

import jax.numpy as jnp
import pytest

from cwjax.errors import CwjaxError
from cwjax.models.parameters import flatten, merge, unflatten
from cwjax.training.groups import group_of, require_open_way, split_parameters

PATHS = {
    "text_encoder/word_embeddings/embedding": "embeddings",
    "text_encoder/layers/attn/query/kernel": "text_encoder",
    "audio_encoder/conv1/kernel": "audio_encoder",
    "audio_encoder/positions": "embeddings",
    "audio_encoder/blocks/attn/query/kernel": "audio_encoder",
    "audio_encoder/blocks/context_attn/query/kernel": "context",
    "audio_encoder/blocks/context_attn_ln/scale": "context",
    "audio_encoder/blocks/context_gate": "context",
    "decoder/token_embedding/embedding": "embeddings",
    "decoder/positions": "embeddings",
    "decoder/blocks/mlp/up/kernel": "decoder",
}


def tree(gate: float = 0.0) -> dict:
    leaves = {path: jnp.full((2,), number, jnp.float32) for number, path in enumerate(PATHS)}
    return unflatten(leaves | {"audio_encoder/blocks/context_gate": jnp.full((2,), gate)})


def trained_paths(*freeze: str) -> set[str]:
    return {path for path, _ in flatten(split_parameters(tree(), freeze)[0])}


def test_every_parameter_has_its_group() -> None:
    assert {path: group_of(path) for path in PATHS} == PATHS
    with pytest.raises(CwjaxError, match="somewhere/else"):
        group_of("somewhere/else")


@pytest.mark.parametrize("freeze", [(), ("text_encoder",), ("audio_encoder", "decoder"), ("embeddings",)])
def test_split_and_merge_lose_nothing(freeze: tuple[str, ...]) -> None:
    trained, frozen = split_parameters(tree(), freeze)
    assert dict(flatten(merge(trained, frozen))).keys() == PATHS.keys()
    assert not dict(flatten(trained)).keys() & dict(flatten(frozen)).keys()


def test_freezing_an_encoder_freezes_its_embeddings_but_not_the_context_attention() -> None:
    left = trained_paths("audio_encoder", "text_encoder")
    assert {group_of(path) for path in left} == {"context", "decoder", "embeddings"}
    assert not any(path.startswith("text_encoder/") for path in left)
    assert trained_paths("embeddings") == {path for path, group in PATHS.items() if group != "embeddings"}


def test_sinusoids_are_never_trained() -> None:
    assert "audio_encoder/positions" not in trained_paths()


def test_patterns_freeze_single_parameters() -> None:
    assert trained_paths("decoder/blocks/*") == set(PATHS) - {"decoder/blocks/mlp/up/kernel", "audio_encoder/positions"}


@pytest.mark.parametrize(
    ("freeze", "complaint"),
    [
        (("decodr",), "'decodr' is no group"),
        (("text_encoder", "audio_encoder", "decoder", "context"), "nothing is left"),
    ],
)
def test_a_freeze_that_cannot_be_meant_is_refused(freeze: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(CwjaxError, match=complaint):
        split_parameters(tree(), freeze)


def test_training_behind_closed_gates_is_refused() -> None:
    only_text_encoder = ("audio_encoder", "decoder", "context")
    with pytest.raises(CwjaxError, match="closed gates"):
        require_open_way(*split_parameters(tree(), only_text_encoder))
    with pytest.raises(CwjaxError, match="closed gates"):
        require_open_way(*split_parameters(tree(), ("audio_encoder", "decoder", "*/context_gate")))
    require_open_way(*split_parameters(tree(gate=0.5), only_text_encoder))
    require_open_way(*split_parameters(tree(), ("audio_encoder", "decoder")))
