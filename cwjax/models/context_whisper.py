"""The whole model: a text encoder reads the context, Whisper hears with it in mind.

Parameters are one nested dictionary of arrays beside a graph definition without any:

    graphdef, _ = abstract(config)
    params = init_params(config, key)
    logits = nnx.merge(graphdef, params)(features, tokens, context_ids, context_mask)

Shape legend: B batch, F mel frames, A audio positions (= F/2), M mels, S context tokens, E width of
the text encoder, T target tokens, D width, V vocabulary.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

from cwjax.errors import CwjaxError
from cwjax.models.attention import Implementation
from cwjax.models.audio_encoder import AudioEncoder, ContextStates, ProjectedContext
from cwjax.models.bert import Bert, BertConfig
from cwjax.models.configuration import configured, require_fields
from cwjax.models.dropout import Dropout
from cwjax.models.layers import Remat, named_key
from cwjax.models.parameters import Parameters
from cwjax.models.t5 import T5Config, T5Encoder
from cwjax.models.text_decoder import TextDecoder
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig

TextEncoderConfig = BertConfig | T5Config
Section = TypeVar("Section", WhisperConfig, BertConfig, T5Config, ContextAttentionConfig)

TEXT_ENCODERS: dict[str, type[TextEncoderConfig]] = {"bert": BertConfig, "t5": T5Config}
"""Text encoders by the `kind` that config.json names."""


@dataclass(frozen=True)
class ContextWhisperConfig:
    """All that is needed to rebuild the model around its parameters. A stock Whisper has neither text encoder nor
    context attention: both are None."""

    whisper: WhisperConfig = field(default_factory=WhisperConfig)
    text_encoder: TextEncoderConfig | None = field(default_factory=BertConfig)
    context: ContextAttentionConfig | None = field(default_factory=ContextAttentionConfig)

    def __post_init__(self) -> None:
        if (self.text_encoder is None) != (self.context is None):
            raise CwjaxError("config.json: text_encoder and context go together: give both, or neither")
        if self.context is not None:
            self.context.layers_of(self.whisper.encoder_layers)

    @property
    def takes_context(self) -> bool:
        """Whether there is a text encoder; False: a stock Whisper."""
        return self.text_encoder is not None

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values; `kind` says which text encoder it is."""
        settings = dataclasses.asdict(self)
        if self.text_encoder is None or self.context is None:
            return settings
        kind = next(kind for kind, config in TEXT_ENCODERS.items() if isinstance(self.text_encoder, config))
        settings["text_encoder"] = {"kind": kind, **settings["text_encoder"]}
        if self.context.layers is not None:
            settings["context"]["layers"] = list(self.context.layers)
        return settings

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "ContextWhisperConfig":
        """The inverse of `to_dict`. Entries beside the three sections are left alone.

        Raises:
            CwjaxError: a section is missing, or a value is unknown, missing or wrong.
        """
        sections = ["whisper", "text_encoder", "context"]
        if all(settings.get(name, ...) is None for name in sections[1:]):
            return cls(_section("whisper", WhisperConfig, settings.get("whisper")), None, None)
        whisper, text_encoder, context = (_entries(name, settings.get(name)) for name in sections)
        kind = text_encoder.pop("kind", None)
        if not isinstance(kind, str) or kind not in TEXT_ENCODERS:
            known = " and ".join(repr(kind) for kind in TEXT_ENCODERS)
            raise CwjaxError(f"config.json: text_encoder has kind {kind!r}; only {known} are known")
        if isinstance(context.get("layers"), list):
            context["layers"] = tuple(context["layers"])
        return cls(
            whisper=_section("whisper", WhisperConfig, whisper),
            text_encoder=_section("text_encoder", TEXT_ENCODERS[kind], text_encoder),
            context=_section("context", ContextAttentionConfig, context),
        )


def _entries(name: str, section: Any) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise CwjaxError(f"config.json: has no section '{name}'; is it a model that cwjax wrote?")
    return dict(section)


def _section(name: str, kind: type[Section], values: Any) -> Section:
    require_fields(kind, _entries(name, values).keys(), f"config.json: {name}")
    return configured(kind, values, f"config.json: {name}")


class ContextWhisper(nnx.Module):
    """Whisper whose audio encoder attends to a text encoder's reading of the context.

    Args:
        config: sizes.
        key: random key; each part's first values depend on it and on that part's own sizes only.
    """

    def __init__(self, config: ContextWhisperConfig, *, key: jax.Array):
        text_encoder = T5Encoder if isinstance(config.text_encoder, T5Config) else Bert
        if config.takes_context:
            self.text_encoder = text_encoder(config.text_encoder, key=named_key(key, "text_encoder"))
        width = config.text_encoder.hidden_size if config.takes_context else 0
        self.audio_encoder = AudioEncoder(config.whisper, config.context, width, key=named_key(key, "audio_encoder"))
        self.decoder = TextDecoder(config.whisper, key=named_key(key, "decoder"))

    def encode_context(self, ids: jax.Array, mask: jax.Array) -> ContextStates:
        """Reads contexts, once for all windows of a recording.

        Args:
            ids: (B, S) int, tokens of the text encoder.
            mask: (B, S) bool, False at padding; all False: no context.

        Raises:
            CwjaxError: more tokens than the text encoder has positions (a T5 reads any number), or a stock Whisper.
        """
        if not hasattr(self, "text_encoder"):
            raise CwjaxError("this model is a stock Whisper, which takes no context: leave the context out")
        return ContextStates(self.text_encoder(ids, mask), mask)

    def encode(
        self,
        features: jax.Array,
        states: ContextStates | ProjectedContext | None = None,
        dropout: Dropout | None = None,
    ) -> jax.Array:
        """Encodes log-mel features (B, F, M) -> (B, A, D); without `states` as stock Whisper does; with `dropout` in
        training.

        Raises:
            CwjaxError: more frames than the audio encoder has positions for.
        """
        return self.audio_encoder(features, states, dropout)

    def decode(self, tokens: jax.Array, audio: jax.Array) -> jax.Array:
        """Logits of the next tokens: (B, T) int and (B, A, D) -> (B, T, V) float32.

        Raises:
            CwjaxError: more tokens than the decoder has positions.
        """
        return self.decoder(tokens, audio)

    def __call__(
        self, features: jax.Array, tokens: jax.Array, context_ids: jax.Array, context_mask: jax.Array
    ) -> jax.Array:
        """All three in a row: `encode_context`, `encode`, `decode`."""
        return self.decode(tokens, self.encode(features, self.encode_context(context_ids, context_mask)))


def context_is_inert(config: ContextWhisperConfig, parameters: Parameters) -> bool:
    """Whether no context can change what the model hears: it takes none, or every gate is exactly zero."""
    if config.context is None:
        return True
    return config.context.gate == "tanh" and not np.any(parameters["audio_encoder"]["blocks"]["context_gate"])


def abstract(
    config: ContextWhisperConfig, remat: Remat = "none", attention: Implementation | None = None
) -> tuple[nnx.GraphDef, Parameters]:
    """The graph definition, and the parameters' shapes and dtypes; takes no memory.

    Args:
        config: sizes.
        remat: what a gradient computes again.
        attention: its implementation; None: the platform's.
    """
    model = nnx.eval_shape(lambda: ContextWhisper(config, key=jax.random.key(0)))
    model.set_attributes(remat=remat, implementation=attention)
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


@partial(jax.jit, static_argnums=0)
def init_params(config: ContextWhisperConfig, key: jax.Array) -> Parameters:
    """New random parameters, float32."""
    return nnx.to_pure_dict(nnx.state(ContextWhisper(config, key=key)))
