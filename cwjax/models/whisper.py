"""Sizes of a Whisper, and how its audio encoder attends to a context.

The published sizes are those of Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak
Supervision", and of OpenAI's later checkpoints.
"""

from dataclasses import dataclass
from typing import Literal

from cwjax.errors import CwjaxError
from cwjax.models.configuration import check_sizes


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of a Whisper, under the names of Hugging Face configurations. The default is "tiny"."""

    vocab_size: int = 51865
    num_mel_bins: int = 80
    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    decoder_layers: int = 4
    decoder_attention_heads: int = 6
    decoder_ffn_dim: int = 1536
    max_source_positions: int = 1500
    """Audio positions of the longest window, 20 ms each."""
    max_target_positions: int = 448
    """Tokens of the longest target, prompt included."""
    init_std: float = 0.02
    """Standard deviation of the decoder's embeddings when they are new."""

    def __post_init__(self) -> None:
        if self.init_std <= 0:
            raise CwjaxError(f"Whisper's init_std is {self.init_std}: it must be positive")
        check_sizes("Whisper", self, "d_model", "encoder_attention_heads", "decoder_attention_heads")
        if self.d_model % 2 or self.d_model < 4:
            raise CwjaxError(
                f"Whisper's d_model is {self.d_model}: sinusoidal positions need an even width of at least 4"
            )


def _whisper_sizes() -> dict[str, WhisperConfig]:
    def size(layers: int, width: int, heads: int, **others: int) -> WhisperConfig:
        both = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
        sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
        return WhisperConfig(d_model=width, **(sides | others))

    shapes = {"tiny": (4, 384, 6), "base": (6, 512, 8), "small": (12, 768, 12), "medium": (24, 1024, 16)}
    large, v3 = (32, 1280, 20), {"num_mel_bins": 128, "vocab_size": 51866}
    return {
        **{name: size(*shape) for name, shape in shapes.items()},
        **{f"{name}.en": size(*shape, vocab_size=51864) for name, shape in shapes.items()},
        "large-v2": size(*large),
        "large-v3": size(*large, **v3),
        "large-v3-turbo": size(*large, **v3, decoder_layers=4),
    }


WHISPER_SIZES: dict[str, WhisperConfig] = _whisper_sizes()
"""The published sizes by name; ".en" are the English-only ones, with a token less."""


def published_sizes(source: str) -> WhisperConfig | None:
    """Sizes of a Whisper of OpenAI's by its hub id, such as "openai/whisper-small"; None of any other source."""
    owner, _, name = source.partition("/whisper-")
    return WHISPER_SIZES.get(name) if owner == "openai" else None


@dataclass(frozen=True)
class ContextAttentionConfig:
    """How the audio encoder attends to the context."""

    gate: Literal["tanh", "none"] = "tanh"
    """"tanh": each layer's attention is scaled by the tanh of a learned scalar. "none": it is added as it is,
    and its projections have biases like Whisper's own."""
    gate_init: float = 0.0
    """What the scalars start from; 0 leaves a pretrained Whisper unchanged."""
    layers: tuple[int, ...] | None = None
    """Encoder layers with context attention, counted from 0 at the input; None: all."""

    def __post_init__(self) -> None:
        if self.gate not in ("tanh", "none"):
            raise CwjaxError(f"context attention's gate is {self.gate!r}: use 'tanh' or 'none'")
        if self.layers is not None and (
            not self.layers or min(self.layers) < 0 or list(self.layers) != sorted(set(self.layers))
        ):
            raise CwjaxError(
                f"context attention's layers are {self.layers}: name at least one, ascending from 0, each once"
            )

    def layers_of(self, encoder_layers: int) -> tuple[int, ...]:
        """The layers with context attention in an encoder of so many layers.

        Raises:
            CwjaxError: one of `layers` does not exist.
        """
        if self.layers is None:
            return tuple(range(encoder_layers))
        if self.layers[-1] >= encoder_layers:
            raise CwjaxError(
                f"context attention's layers name {self.layers[-1]}, but the audio encoder's last layer is "
                f"{encoder_layers - 1}"
            )
        return self.layers
