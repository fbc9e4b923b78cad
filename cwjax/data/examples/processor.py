"""From sound and text to arrays: the one place that knows a model's input formats.

Legend: B batch, N samples, F mel frames, M mels, S context tokens.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cwjax.data.audio.decode import read_audio
from cwjax.data.audio.log_mel import HOP_LENGTH, SAMPLING_RATE, log_mel
from cwjax.data.examples.text_tokenizer import TextTokenizer
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError
from cwjax.files import read_json, write_json

log = logging.getLogger(__name__)

PREPROCESSOR_FILE = "preprocessor_config.json"
TOKENIZER_FOLDER = "tokenizer"
CONTEXT_TOKENIZER_FOLDER = "context_tokenizer"
NO_CONTEXT = "this model is a stock Whisper, which takes no context: leave the context out"


@dataclass(frozen=True)
class Processor:
    """Turns audio into log-mel features, text into Whisper tokens and context into text-encoder ids.

    Attributes:
        tokens: the Whisper tokenizer.
        context_tokenizer: the text encoder's tokenizer; None: a stock Whisper, which takes no context.
        num_mel_bins: M, 80 or 128.
        window_samples: N, samples of the model's window at 16 kHz (480,000 for 30 s).
    """

    tokens: WhisperTokens
    context_tokenizer: TextTokenizer | None
    num_mel_bins: int
    window_samples: int

    @property
    def window_seconds(self) -> float:
        """Length of the model's window."""
        return self.window_samples / SAMPLING_RATE

    def pad(self, waveform: np.ndarray) -> np.ndarray:
        """(n,) samples, cut or followed by zeros to (N,)."""
        if len(waveform) >= self.window_samples:
            return waveform[: self.window_samples]
        padded = np.zeros(self.window_samples, waveform.dtype)
        padded[: len(waveform)] = waveform
        return padded

    def features(self, audio: str | Path | np.ndarray) -> np.ndarray:
        """Log-mel features of the first window of a file or of 16 kHz samples, (F, M) float32."""
        waveform = read_audio(audio) if isinstance(audio, str | Path) else np.asarray(audio)
        padded = self.pad(waveform).astype(np.float64)[None]
        return log_mel(padded, self.num_mel_bins)[0].astype(np.float32)

    def context(self, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Text-encoder ids of contexts and where they are real, (B, S) int32 and (B, S) bool, S = `length`.

        An empty context has no real position at all. A context that is too long loses its end.

        Raises:
            CwjaxError: the model takes no context.
        """
        ids = np.zeros((len(texts), length), np.int32)
        mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            if not text.strip():
                continue
            if self.context_tokenizer is None:
                raise CwjaxError(NO_CONTEXT)
            encoded = self.context_tokenizer.encode(text)
            if len(encoded) > length:
                log.debug("context cut from %d to %d tokens: %s", len(encoded), length, text)
                encoded = [*encoded[: length - 1], encoded[-1]]
            ids[row, : len(encoded)] = encoded
            mask[row, : len(encoded)] = True
        return ids, mask

    def save(self, directory: str | Path) -> None:
        """Writes the tokenizers and the audio settings into a model directory."""
        directory = Path(directory)
        self.tokens.tokenizer.save(directory / TOKENIZER_FOLDER)
        if self.context_tokenizer:
            self.context_tokenizer.save(directory / CONTEXT_TOKENIZER_FOLDER)
        save_preprocessor_settings(directory, self.num_mel_bins, self.window_samples)

    @classmethod
    def read(cls, directory: str | Path, takes_context: bool = True) -> "Processor":
        """Reads what `save` wrote.

        Raises:
            CwjaxError: a file is missing or unreadable.
        """
        file = Path(directory) / PREPROCESSOR_FILE
        settings = read_json(file)
        sizes = [settings.get(name) for name in ("feature_size", "n_samples")]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise CwjaxError(f"{file}: feature_size and n_samples are {sizes}, not two whole numbers; fetch it again")
        return cls(
            WhisperTokens.read(file.parent / TOKENIZER_FOLDER),
            TextTokenizer.read(file.parent / CONTEXT_TOKENIZER_FOLDER) if takes_context else None,
            *sizes,
        )


def save_preprocessor_settings(directory: Path, num_mel_bins: int, window_samples: int) -> None:
    """Writes the audio settings in the form of transformers' WhisperFeatureExtractor."""
    settings = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": num_mel_bins,
        "sampling_rate": SAMPLING_RATE,
        "hop_length": HOP_LENGTH,
        "n_fft": 400,
        "n_samples": window_samples,
        "nb_max_frames": window_samples // HOP_LENGTH,
        "chunk_length": window_samples / SAMPLING_RATE,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    write_json(directory / PREPROCESSOR_FILE, settings)
