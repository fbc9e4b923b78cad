"""Text encoders in Hugging Face's layout: BERT and its relatives, T5 and its descendants, in both directions."""

import dataclasses
from typing import Any

import numpy as np

from cwjax.errors import CwjaxError
from cwjax.models.bert import Bert, BertConfig
from cwjax.models.context_whisper import TextEncoderConfig
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.t5 import T5Config, T5Encoder
from cwjax.weights.configuration_file import CONFIG_FILE, require_setting, sizes_from
from cwjax.weights.name_table import (
    EMBEDDING,
    LAYER_NORM,
    LINEAR,
    LINEAR_WITHOUT_BIAS,
    RMS_NORM,
    WEIGHT,
    NamedArrays,
    Table,
    abstract_parameters,
    place,
)
from cwjax.weights.tensors import Tensors

BERT_TABLE: Table = {
    "embeddings.word_embeddings": ("token_embedding", EMBEDDING),
    "embeddings.position_embeddings": ("position_embedding", EMBEDDING),
    "embeddings.token_type_embeddings": ("type_embedding", EMBEDDING),
    "embeddings.LayerNorm": ("embedding_ln", LAYER_NORM),
    "encoder.layer.#.attention.self.query": ("blocks/attn/query", LINEAR),
    "encoder.layer.#.attention.self.key": ("blocks/attn/key", LINEAR),
    "encoder.layer.#.attention.self.value": ("blocks/attn/value", LINEAR),
    "encoder.layer.#.attention.output.dense": ("blocks/attn/out", LINEAR),
    "encoder.layer.#.attention.output.LayerNorm": ("blocks/attn_ln", LAYER_NORM),
    "encoder.layer.#.intermediate.dense": ("blocks/mlp/up", LINEAR),
    "encoder.layer.#.output.dense": ("blocks/mlp/down", LINEAR),
    "encoder.layer.#.output.LayerNorm": ("blocks/mlp_ln", LAYER_NORM),
}
"""Of a BertModel; models with a head put "bert." before each name."""

BERT_UNUSED = ("pooler.", "cls.", "embeddings.position_ids")
"""Beginnings of names of tensors that the encoder's output does not depend on."""

DISTILBERT_TABLE: Table = {
    "embeddings.word_embeddings": ("token_embedding", EMBEDDING),
    "embeddings.position_embeddings": ("position_embedding", EMBEDDING),
    "embeddings.LayerNorm": ("embedding_ln", LAYER_NORM),
    "transformer.layer.#.attention.q_lin": ("blocks/attn/query", LINEAR),
    "transformer.layer.#.attention.k_lin": ("blocks/attn/key", LINEAR),
    "transformer.layer.#.attention.v_lin": ("blocks/attn/value", LINEAR),
    "transformer.layer.#.attention.out_lin": ("blocks/attn/out", LINEAR),
    "transformer.layer.#.sa_layer_norm": ("blocks/attn_ln", LAYER_NORM),
    "transformer.layer.#.ffn.lin1": ("blocks/mlp/up", LINEAR),
    "transformer.layer.#.ffn.lin2": ("blocks/mlp/down", LINEAR),
    "transformer.layer.#.output_layer_norm": ("blocks/mlp_ln", LAYER_NORM),
}
"""Of a DistilBertModel (Sanh et al. 2019): BERT without token types; with a head, "distilbert." comes first."""

DISTILBERT_UNUSED = ("vocab_", "pre_classifier.", "classifier.", "qa_outputs.", "embeddings.position_ids")
"""As `BERT_UNUSED`."""

_DISTILBERT_SIZES = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "activation": "hidden_act",
}
_DISTILBERT_DEFAULTS = {
    **{"vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072},
    **{"max_position_embeddings": 512, "activation": "gelu"},
}

T5_TABLE: Table = {
    "shared": ("token_embedding", EMBEDDING),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": ("relative_bias", WEIGHT),
    "encoder.block.#.layer.0.layer_norm": ("blocks/attn_ln", RMS_NORM),
    "encoder.block.#.layer.0.SelfAttention.q": ("blocks/attn/query", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.0.SelfAttention.k": ("blocks/attn/key", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.0.SelfAttention.v": ("blocks/attn/value", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.0.SelfAttention.o": ("blocks/attn/out", LINEAR_WITHOUT_BIAS),
    "encoder.block.#.layer.1.layer_norm": ("blocks/mlp_ln", RMS_NORM),
    "encoder.block.#.layer.1.DenseReluDense.wo": ("blocks/mlp/down", LINEAR_WITHOUT_BIAS),
    "encoder.final_layer_norm": ("final_ln", RMS_NORM),
}
"""Of a T5EncoderModel or MT5EncoderModel, and of the encoder in every whole model; the MLP's first half is apart."""

T5_MLP_TABLES: dict[str, Table] = {
    "relu": {"encoder.block.#.layer.1.DenseReluDense.wi": ("blocks/mlp/up", LINEAR_WITHOUT_BIAS)},
    "gated-gelu": {
        "encoder.block.#.layer.1.DenseReluDense.wi_0": ("blocks/mlp/gate", LINEAR_WITHOUT_BIAS),
        "encoder.block.#.layer.1.DenseReluDense.wi_1": ("blocks/mlp/up", LINEAR_WITHOUT_BIAS),
    },
}
"""What `T5_TABLE` lacks, by `feed_forward_proj`."""

T5_UNUSED = ("decoder.", "lm_head.")
"""As `BERT_UNUSED`."""

MT5_DEFAULTS = {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
"""What an mT5's configuration means by leaving these out."""


def text_encoder_config(settings: dict[str, Any]) -> TextEncoderConfig:
    """The sizes in the `config.json` of a BERT, DistilBERT, T5 or mT5.

    Raises:
        CwjaxError: it is of another model, or of a kind that is not supported.
    """
    readers = {"bert": bert_config, "distilbert": _distilbert_config, "t5": t5_config, "mt5": t5_config}
    kind = settings.get("model_type")
    if kind == "umt5":
        raise CwjaxError(
            f"{CONFIG_FILE}: model_type is 'umt5', which has relative positions of its own in every layer and is not "
            "supported here; choose an mT5"
        )
    if not isinstance(kind, str) or kind not in readers:
        raise CwjaxError(
            f"{CONFIG_FILE}: model_type is {kind!r}, where a text encoder is needed; supported are {', '.join(readers)}"
        )
    return readers[kind](settings)


def text_encoder_parameters(tensors: Tensors, settings: dict[str, Any]) -> NamedArrays:
    """Parameters of the text encoder, in the dtypes they have.

    Args:
        tensors: of the encoder alone, or of a model around it whose other parts are left alone.
        settings: the checkpoint's `config.json`.

    Raises:
        CwjaxError: a tensor is missing, unknown, or of another shape than the settings say.
    """
    config = text_encoder_config(settings)
    if isinstance(config, T5Config):
        return t5_parameters(tensors, config)
    if settings["model_type"] == "distilbert":
        return _distilbert_parameters(tensors, config)
    return bert_parameters(tensors, config)


def bert_config(settings: dict[str, Any]) -> BertConfig:
    """The sizes in a BERT's `config.json`.

    Raises:
        CwjaxError: it is of another model, or of a kind that is not supported.
    """
    require_setting(settings, "model_type", "bert")
    require_setting(settings, "position_embedding_type", "absolute", default="absolute")
    require_setting(settings, "is_decoder", False, default=False)
    return sizes_from(BertConfig, settings)


def bert_parameters(tensors: Tensors, config: BertConfig) -> NamedArrays:
    """Parameters of `cwjax.models.bert.Bert` from a BertModel, or from a BERT with any head."""
    used = _used(tensors, "bert.", BERT_UNUSED)
    # TensorFlow's checkpoints, from which some files were made, call norms' weights so.
    used = used.renamed(
        lambda name: name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    )
    return place("BERT", used, BERT_TABLE, abstract_text_encoder(config))


def t5_config(settings: dict[str, Any]) -> T5Config:
    """The sizes in the `config.json` of a T5 or mT5.

    Raises:
        CwjaxError: it is of another model, or of a kind that is not supported.
    """
    kind = settings.get("model_type")
    if kind != "mt5":
        require_setting(settings, "model_type", "t5")
    config = sizes_from(T5Config, MT5_DEFAULTS | settings if kind == "mt5" else settings)
    gated = config.feed_forward_proj == "gated-gelu"
    require_setting(settings, "is_gated_act", gated, default=gated)
    activation = "gelu_new" if gated else "relu"
    require_setting(settings, "dense_act_fn", activation, default=activation)
    require_setting(settings, "is_decoder", False, default=False)
    return config


def t5_parameters(tensors: Tensors, config: T5Config) -> NamedArrays:
    """Parameters of `cwjax.models.t5.T5Encoder` from a T5EncoderModel, or from a whole T5."""
    used = _used(tensors, "", T5_UNUSED)
    copy, shared = "encoder.embed_tokens.weight", "shared.weight"
    if copy in used.shapes and shared in used.shapes:
        if not np.array_equal(used.read(copy), used.read(shared)):
            raise CwjaxError(f"{used.place}: '{copy}' is not '{shared}'; such a T5 is not supported")
        used = used.renamed(lambda name: None if name == copy else name)
    else:
        used = used.renamed(lambda name: shared if name == copy else name)
    return place("T5", used, t5_table(config), abstract_text_encoder(config))


def t5_table(config: T5Config) -> Table:
    """The names of a T5's encoder."""
    return T5_TABLE | T5_MLP_TABLES[config.feed_forward_proj]


def text_encoder_table(config: TextEncoderConfig) -> Table:
    """The names under which an encoder of this kind is exported."""
    return t5_table(config) if isinstance(config, T5Config) else BERT_TABLE


def text_encoder_settings(config: TextEncoderConfig) -> dict[str, Any]:
    """Sizes under the names of `config.json`, for export."""
    sizes = dataclasses.asdict(config)
    if isinstance(config, T5Config):
        return {"model_type": "t5", "architectures": ["T5EncoderModel"], "is_encoder_decoder": False, **sizes}
    return {"model_type": "bert", "architectures": ["BertModel"], **sizes}


def abstract_text_encoder(config: TextEncoderConfig) -> Parameters:
    """Shapes of a text encoder's parameters."""
    make = T5Encoder if isinstance(config, T5Config) else Bert
    return abstract_parameters(lambda key: make(config, key=key))


def _distilbert_config(settings: dict[str, Any]) -> BertConfig:
    require_setting(settings, "sinusoidal_pos_embds", False, default=False)
    values = _DISTILBERT_DEFAULTS | settings
    return BertConfig(**{ours: values[theirs] for theirs, ours in _DISTILBERT_SIZES.items()}, type_vocab_size=1)


def _distilbert_parameters(tensors: Tensors, config: BertConfig) -> NamedArrays:
    """A DistilBERT as the BERT whose only token type adds nothing."""
    used = _used(tensors, "distilbert.", DISTILBERT_UNUSED)
    expected = dict(flatten(abstract_text_encoder(config)))
    added = expected.pop("type_embedding/embedding")
    placed = place("DistilBERT", used, DISTILBERT_TABLE, unflatten(expected))

    def with_token_type() -> NamedArrays:
        yield from placed
        yield "type_embedding/embedding", np.zeros(added.shape, np.float32)

    return with_token_type()


def _used(tensors: Tensors, prefix: str, unused: tuple[str, ...]) -> Tensors:
    """The tensors without their model's prefix and without those that the encoder does not need."""
    tensors = tensors.renamed(lambda name: name.removeprefix(prefix))
    return tensors.renamed(lambda name: None if name.startswith(unused) else name)
