"""The encoder half of T5 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer"), which reads the context: T5, its version 1.1 with gated MLPs (Shazeer 2020,
"GLU Variants Improve Transformer"), Flan-T5, mT5 and ByT5.

Positions are known by a bias on the scores alone, learned for ranges of distances (Raffel et al.,
section 2.1), so a context may have any length.

Shape legend: B batch, S context tokens, E width, H heads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.configuration import check_sizes
from cwjax.models.layers import MLP, Embedding, Linear, MultiHeadAttention, Remat, named_key, run_layers, stack

FeedForward = Literal["relu", "gated-gelu"]


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5 encoder, under the names of Hugging Face configurations. The default is "t5-small"."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    """Width of a head; all heads together may be wider or narrower than `d_model`."""
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    """Ranges of distances with a bias of their own, half of them for each direction."""
    relative_attention_max_distance: int = 128
    """Distance in tokens from which on all share one bias."""
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: FeedForward = "relu"
    """The MLP: "relu" in T5, "gated-gelu" in T5 1.1 and its descendants."""

    def __post_init__(self) -> None:
        check_sizes("T5", self)
        if self.relative_attention_num_buckets < 4:
            raise CwjaxError(
                f"T5's relative_attention_num_buckets is {self.relative_attention_num_buckets}: it must be at least 4"
            )
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 4:
            raise CwjaxError(
                f"T5's relative_attention_max_distance is {self.relative_attention_max_distance}: it must be more than "
                f"a quarter of relative_attention_num_buckets {self.relative_attention_num_buckets}"
            )

    @property
    def hidden_size(self) -> int:
        """E, as a BERT's configuration calls it."""
        return self.d_model

    @property
    def max_position_embeddings(self) -> None:
        """The longest context, as a BERT's configuration calls it: there is no limit."""
        return None


def relative_buckets(distances: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of each distance, key position minus query position.

    The first half of the buckets is for keys before or at the query, the second for those after it. In
    each half, one half of the buckets is for a single distance each; the ranges of the others grow
    geometrically up to `max_distance`, beyond which the last takes all.

    Args:
        distances: int, of any shape.
        buckets: how many there are.
        max_distance: in tokens.

    Returns:
        int, from 0 to `buckets` - 1.
    """
    one_way = buckets // 2
    exact = one_way // 2
    distance = np.abs(distances)
    # In float32, as T5 was trained: rounding decides about distances at the border of two buckets.
    growth = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    step = (growth / np.float32(math.log(max_distance / exact)) * np.float32(one_way - exact)).astype(int)
    bucket = np.where(distance < exact, distance, np.minimum(exact + step, one_way - 1))
    return bucket + one_way * (distances > 0)


class GatedMLP(nnx.Module):
    """An MLP whose hidden units are multiplied by the GELU of others, without biases: D -> `hidden` -> D."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.gate = Linear(width, hidden, bias=False, rngs=rngs)
        self.up = Linear(width, hidden, bias=False, rngs=rngs)
        self.down = Linear(hidden, width, bias=False, rngs=rngs)

    def __call__(self, stream: jax.Array) -> jax.Array:
        """(..., D) -> (..., D)."""
        gate = self.gate(stream)
        # T5 was trained with the GELU by tanh, not with the exact one.
        opened = jax.nn.gelu(gate.astype(jnp.float32), approximate=True).astype(gate.dtype)
        return self.down(opened * self.up(stream))


class RMSNorm(nnx.RMSNorm):
    """Division by the root mean square of the last axis (Zhang and Sennrich 2019), in float32. Only its input is kept
    for the gradient."""

    def __init__(self, width: int, epsilon: float, *, rngs: nnx.Rngs):
        super().__init__(width, epsilon=epsilon, rngs=rngs)

    def __call__(self, stream: jax.Array) -> jax.Array:
        """(..., width) -> (..., width)."""
        return jax.checkpoint(super().__call__, prevent_cse=False)(stream)


class T5Blocks(nnx.Module):
    """The blocks, each part's norm before it; parameters stacked over layers.

    The dot products are not scaled. New query kernels are smaller instead, as T5 was initialised.
    """

    def __init__(self, config: T5Config, *, key: jax.Array):
        width, epsilon = config.d_model, config.layer_norm_epsilon

        def layers(name: str, make: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
            return stack(make, config.num_layers, named_key(key, name))

        def attention(rngs: nnx.Rngs) -> MultiHeadAttention:
            biases = dict.fromkeys(("query_bias", "key_bias", "value_bias", "out_bias"), False)
            return MultiHeadAttention(width, config.num_heads, head_width=config.d_kv, scale=1.0, **biases, rngs=rngs)

        def mlp(rngs: nnx.Rngs) -> MLP | GatedMLP:
            if config.feed_forward_proj == "relu":
                return MLP(width, config.d_ff, "relu", bias=False, rngs=rngs)
            return GatedMLP(width, config.d_ff, rngs=rngs)

        self.remat: Remat = "none"
        self.attn_ln = layers("attn_ln", lambda rngs: RMSNorm(width, epsilon, rngs=rngs))
        self.attn = layers("attn", attention)
        self.mlp_ln = layers("mlp_ln", lambda rngs: RMSNorm(width, epsilon, rngs=rngs))
        self.mlp = layers("mlp", mlp)

    def __call__(self, stream: jax.Array, mask: jax.Array, bias: jax.Array) -> jax.Array:
        """(B, S, E), (B, S) bool and the bias on every layer's scores (H, S, S) -> (B, S, E)."""

        def block(stream: jax.Array, layer: T5Blocks):
            stream = stream + layer.attn(layer.attn_ln(stream), is_key=mask, bias=bias)
            return stream + layer.mlp(layer.mlp_ln(stream)), None

        return run_layers(block, stream, self, self.remat)[0]


class T5Encoder(nnx.Module):
    """The encoder.

    Args:
        config: sizes.
        key: random key.
    """

    def __init__(self, config: T5Config, *, key: jax.Array):
        self.buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        rngs = nnx.Rngs(named_key(key, "token_embedding"))
        self.token_embedding = Embedding(config.vocab_size, config.d_model, std=1.0, rngs=rngs)
        initializer = nnx.initializers.normal(config.d_model**-0.5)
        self.relative_bias = nnx.Param(
            initializer(named_key(key, "relative_bias"), (self.buckets, config.num_heads), jnp.float32)
        )
        self.blocks = T5Blocks(config, key=named_key(key, "blocks"))
        self.final_ln = RMSNorm(config.d_model, config.layer_norm_epsilon, rngs=nnx.Rngs(0))

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Reads token sequences of any length.

        Args:
            ids: (B, S) int.
            mask: (B, S) bool, False at padding, which no real token sees.

        Returns:
            (B, S, E); what stands at padding has no meaning.
        """
        stream = self.blocks(self.token_embedding(ids), mask, self.position_bias(ids.shape[1]))
        return self.final_ln(stream)

    def position_bias(self, length: int) -> jax.Array:
        """What every layer adds to its scores, (H, S, S) float32, for S = `length`."""
        positions = np.arange(length)
        buckets = relative_buckets(positions - positions[:, None], self.buckets, self.max_distance)
        return jnp.moveaxis(self.relative_bias[...].astype(jnp.float32)[buckets], -1, 0)
