"""BERT (Devlin et al. 2018), the encoder that reads the context. No pooler; every token is of type 0.

Shape legend: B batch, S context tokens, E width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.configuration import check_sizes
from cwjax.models.layers import (
    MLP,
    Activation,
    Embedding,
    LayerNorm,
    MultiHeadAttention,
    Remat,
    named_key,
    run_layers,
    stack,
)


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT, under the names of Hugging Face configurations. The default is BERT-base, uncased."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Activation = "gelu"

    def __post_init__(self) -> None:
        check_sizes("BERT", self, "hidden_size", "num_attention_heads")


class BertBlocks(nnx.Module):
    """The blocks, each part's layer norm after its residual; parameters stacked over layers."""

    def __init__(self, config: BertConfig, *, key: jax.Array):
        width, epsilon = config.hidden_size, config.layer_norm_eps

        def layers(name: str, make: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
            return stack(make, config.num_hidden_layers, named_key(key, name))

        self.remat: Remat = "none"
        self.attn = layers("attn", lambda rngs: MultiHeadAttention(width, config.num_attention_heads, rngs=rngs))
        self.attn_ln = layers("attn_ln", lambda rngs: LayerNorm(width, epsilon=epsilon, rngs=rngs))
        self.mlp = layers("mlp", lambda rngs: MLP(width, config.intermediate_size, config.hidden_act, rngs=rngs))
        self.mlp_ln = layers("mlp_ln", lambda rngs: LayerNorm(width, epsilon=epsilon, rngs=rngs))

    def __call__(self, stream: jax.Array, mask: jax.Array) -> jax.Array:
        """(B, S, E) and (B, S) bool -> (B, S, E)."""

        def block(stream: jax.Array, layer: BertBlocks):
            stream = layer.attn_ln(stream + layer.attn(stream, is_key=mask))
            return layer.mlp_ln(stream + layer.mlp(stream)), None

        return run_layers(block, stream, self, self.remat)[0]


class Bert(nnx.Module):
    """The encoder.

    Args:
        config: sizes.
        key: random key.
    """

    def __init__(self, config: BertConfig, *, key: jax.Array):
        def embedding(name: str, rows: int) -> Embedding:
            return Embedding(rows, config.hidden_size, std=0.02, rngs=nnx.Rngs(named_key(key, name)))

        self.token_embedding = embedding("token_embedding", config.vocab_size)
        self.position_embedding = embedding("position_embedding", config.max_position_embeddings)
        self.type_embedding = embedding("type_embedding", config.type_vocab_size)
        self.embedding_ln = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=nnx.Rngs(0))
        self.blocks = BertBlocks(config, key=named_key(key, "blocks"))

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Reads token sequences.

        Args:
            ids: (B, S) int.
            mask: (B, S) bool, False at padding, which no real token sees.

        Returns:
            (B, S, E); what stands at padding has no meaning.

        Raises:
            CwjaxError: more tokens than positions.
        """
        length, positions = ids.shape[1], self.position_embedding.num_embeddings
        if length > positions:
            raise CwjaxError(
                f"the context has {length} tokens, but this text encoder reads at most {positions}: shorten it"
            )
        token_type = self.type_embedding.embedding[0]
        stream = self.token_embedding(ids) + self.position_embedding.embedding[:length] + token_type
        return self.blocks(self.embedding_ln(stream), mask)
