"""From sound and text to arrays: the one place that knows a model's input formats.

Legend: B batch, N samples, F mel frames, M mels, S context tokens.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cwjax.data.audio import read_audio
from cwjax.data.log_mel import HOP_LENGTH, SAMPLING_RATE, log_mel
from cwjax.data.whisper_tokens import WhisperTokens
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

PREPROCESSOR_FILE = "preprocessor_config.json"
TOKENIZER_FOLDER = "tokenizer"
CONTEXT_TOKENIZER_FOLDER = "context_tokenizer"


@dataclass(frozen=True)
class Processor:
    """Turns audio into log-mel features, text into Whisper tokens and context into text-encoder ids.

    Attributes:
        tokens: the Whisper tokenizer.
        context_tokenizer: the text encoder's tokenizer.
        num_mel_bins: M, 80 or 128.
        window_samples: N, samples of the model's window at 16 kHz (480,000 for 30 s).
    """

    tokens: WhisperTokens
    context_tokenizer: PreTrainedTokenizerBase
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
        """
        ids = np.zeros((len(texts), length), np.int32)
        mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            if not text.strip():
                continue
            encoded = self.context_tokenizer.encode(text, add_special_tokens=True, verbose=False)
            if len(encoded) > length:
                log.debug("context cut from %d to %d tokens: %s", len(encoded), length, text)
                encoded = [*encoded[: length - 1], encoded[-1]]
            ids[row, : len(encoded)] = encoded
            mask[row, : len(encoded)] = True
        return ids, mask

    def save(self, directory: str | Path) -> None:
        """Writes both tokenizers and the audio settings into a model directory."""
        directory = Path(directory)
        self.tokens.tokenizer.save_pretrained(str(directory / TOKENIZER_FOLDER))
        self.context_tokenizer.save_pretrained(str(directory / CONTEXT_TOKENIZER_FOLDER))
        save_preprocessor_settings(directory, self.num_mel_bins, self.window_samples)

    @classmethod
    def read(cls, directory: str | Path) -> "Processor":
        """Reads what `save` wrote.

        Raises:
            CwjaxError: a file is missing or unreadable.
        """
        directory = Path(directory)
        try:
            settings = json.loads((directory / PREPROCESSOR_FILE).read_text(encoding="utf-8"))
            num_mel_bins, window_samples = settings["feature_size"], settings["n_samples"]
        except (OSError, ValueError, KeyError) as error:
            raise CwjaxError(f"{directory / PREPROCESSOR_FILE}: cannot be read ({error})") from error
        return cls(
            tokens=WhisperTokens.read(directory / TOKENIZER_FOLDER),
            context_tokenizer=read_context_tokenizer(directory / CONTEXT_TOKENIZER_FOLDER),
            num_mel_bins=num_mel_bins,
            window_samples=window_samples,
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
    (directory / PREPROCESSOR_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_context_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """Reads the text encoder's tokenizer.

    Raises:
        CwjaxError: the directory holds none.
    """
    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:
        raise CwjaxError(f"{directory}: holds no readable tokenizer ({type(error).__name__})") from error
