"""Groups of parameters, and what is trained of them.

Frozen parameters are taken out of the tree that is differentiated, so they cost no gradient and no
optimizer state and cannot change.
"""

import fnmatch

import jax.numpy as jnp

from cwjax.errors import CwjaxError
from cwjax.models.lora import LoraSettings, is_pair, merge_lora, pair_shapes
from cwjax.models.parameters import Parameters, flatten, merge, unflatten

GROUP_PATTERNS: dict[str, tuple[str, ...]] = {
    "context": ("audio_encoder/blocks/context_*",),
    "embeddings": (
        "decoder/token_embedding/*",
        "decoder/positions",
        "audio_encoder/positions",
        "text_encoder/*embedding*",
    ),
    "text_encoder": ("text_encoder/*",),
    "audio_encoder": ("audio_encoder/*",),
    "decoder": ("decoder/*",),
}
"""Patterns of each group; a parameter belongs to the first that matches, except that freezing a whole encoder or
decoder freezes its embeddings too."""


NEVER_TRAINED = ("audio_encoder/positions",)
"""Whisper's encoder positions are fixed sinusoids."""


TEACHER = "teacher"
"""In the tree of what is frozen: the parameters of the model that is learnt from."""


def group_of(path: str) -> str:
    """The group a parameter belongs to."""
    for group, patterns in GROUP_PATTERNS.items():
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
            return group
    raise CwjaxError(f"parameter {path} belongs to no group")


def is_frozen(path: str, freeze: tuple[str, ...]) -> bool:
    """Whether one of the groups or patterns in `freeze` holds the parameter.

    `audio_encoder` leaves the context attention inside it trainable; everything else of the path's
    head, its embeddings included, is frozen with it.
    """
    if path in NEVER_TRAINED or path.startswith(f"{TEACHER}/"):
        return True
    group = group_of(path)
    head = path.split("/")[0]
    return any(
        entry == group
        or (entry == head and group != "context")
        or (entry not in GROUP_PATTERNS and fnmatch.fnmatchcase(path, entry))
        for entry in freeze
    )


def split_parameters(parameters: Parameters, freeze: tuple[str, ...]) -> tuple[Parameters, Parameters]:
    """Splits a tree into (trained, frozen); LoRA's pairs are trained whatever is frozen.

    Raises:
        CwjaxError: an entry of `freeze` matches nothing, or nothing is left to train.
    """
    leaves = dict(flatten(parameters))
    for entry in freeze:
        if not any(is_frozen(path, (entry,)) and not is_frozen(path, ()) for path in leaves if not is_pair(path)):
            raise CwjaxError(
                f"freeze: '{entry}' is no group ({', '.join(GROUP_PATTERNS)}) and matches no parameter path"
            )
    trained = {path: leaf for path, leaf in leaves.items() if is_pair(path) or not is_frozen(path, freeze)}
    frozen = {path: leaf for path, leaf in leaves.items() if path not in trained}
    if not trained:
        raise CwjaxError("freeze: everything is frozen, nothing is left to train")
    return unflatten(trained), unflatten(frozen)


def with_pairs(parameters: Parameters, lora: LoraSettings, freeze: tuple[str, ...]) -> Parameters:
    """Shapes of the model's parameters with those of the pairs that adapt what is frozen of them.

    Raises:
        CwjaxError: a target matches no parameter, or nothing that is frozen.
    """
    if not lora.rank:
        return parameters
    leaves = dict(flatten(parameters))
    for pattern in lora.targets:
        if not fnmatch.filter(leaves, pattern):
            raise CwjaxError(f"lora.targets: '{pattern}' matches no parameter path")
    pairs = pair_shapes({path: leaf for path, leaf in leaves.items() if is_frozen(path, freeze)}, lora)
    if not pairs:
        raise CwjaxError(
            "lora.targets: match nothing that is frozen, and what is trained needs no pair; name what is to be adapted "
            "with --freeze, such as --freeze audio_encoder decoder text_encoder"
        )
    return merge(parameters, pairs)


def without_teacher(parameters: Parameters) -> Parameters:
    """The model's own parameters."""
    return {name: part for name, part in parameters.items() if name != TEACHER}


def whole_model(trainable: Parameters, frozen: Parameters, lora: LoraSettings) -> Parameters:
    """The model's own parameters, with LoRA's pairs merged into them."""
    return merge_lora(merge(trainable, without_teacher(frozen)), lora.scale)


def count_parameters(trainable: Parameters, frozen: Parameters) -> dict[str, int]:
    """Counts for the log: all parameters but LoRA's pairs and the teacher's, those that are trained, and those of
    context attention."""
    frozen = without_teacher(frozen)

    def count(*trees: Parameters, part: str = "") -> int:
        return sum(leaf.size for tree in trees for path, leaf in flatten(tree) if part in path)

    return {
        "parameters": count(trainable, frozen) - count(trainable, part="/lora_"),
        "trained": count(trainable),
        "context_attention": count(trainable, frozen, part="/context_"),
    }


def require_open_way(trained: Parameters, frozen: Parameters) -> None:
    """Refuses to train what no gradient reaches.

    With every gate closed (tanh(0) = 0) the text encoder and the context attention have no part in
    the output; if only they are trained, and the gates are not, training would do nothing for ever.
    """
    whole = dict(flatten(merge(trained, frozen)))
    gate = whole.get("audio_encoder/blocks/context_gate")
    if gate is None or jnp.any(gate != 0):
        return
    paths = [path for path, _ in flatten(trained)]
    behind_gates = all(path.startswith(("text_encoder/", "audio_encoder/blocks/context_attn")) for path in paths)
    if behind_gates:
        raise CwjaxError(
            "freeze: everything that is trained lies behind closed gates, so no gradient reaches it; train the "
            "context group too, or open the gates with --model.context-attention.gate-init 0.5"
        )
