"""A small Whisper that understands a language of eight tones.

Each word of the language is a chord; a recording is words with pauses between them. The audio encoder is random and
stays so; the decoder learns to name the words, to say roughly when they begin and end, and to end. Timestamp tokens
start from the sinusoids of the audio positions they stand for, and attention to the audio starts by looking for what is
alike, which is what makes them quick to learn.

`python tests/tones.py` trains the decoder within a few minutes and writes what it learned to `tests/data/tones.npz`.
"""

import dataclasses
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cwjax.data.audio.log_mel import SAMPLING_RATE, log_mel
from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.models.audio_encoder import AudioEncoder, sinusoids
from cwjax.models.parameters import Parameters, flatten, unflatten
from cwjax.models.text_decoder import TextDecoder
from cwjax.models.whisper import WhisperConfig

SIZES = WhisperConfig(
    d_model=64,
    encoder_layers=2,
    encoder_attention_heads=4,
    encoder_ffn_dim=256,
    decoder_layers=2,
    decoder_attention_heads=4,
    decoder_ffn_dim=256,
)
WORDS = (" bee", " honey", " sail", " wind", " bear", " forest", ",", ".")
PITCHES = (300, 450, 680, 1000, 1500, 2200, 3300, 5000)
WINDOW = 30.0
LEARNED = Path(__file__).parent / "data/tones.npz"
PREVIOUS, TARGET = 8, 40
"""Most tokens of previous text, and of a transcript with its prompt, in training."""

Spoken = list[tuple[float, float, int]]
"""Start and end in seconds, and number of each word."""


def utterances(random: np.random.Generator, seconds: float) -> Spoken:
    """Words at random times, all multiples of 0.02 s."""
    words: Spoken = []
    time = random.uniform(0.2, 3)
    while True:
        duration = random.uniform(0.4, 1.0)
        if time + duration > seconds:
            return words
        start, end = (round(value * 50) / 50 for value in (time, time + duration))
        words.append((start, end, int(random.integers(len(WORDS)))))
        time += duration + (random.uniform(0.3, 1.5) if random.random() < 0.5 else random.uniform(1.5, 6))


def sound(words: Spoken, seconds: float, random: np.random.Generator) -> np.ndarray:
    """The recording of words, with a little noise."""
    samples = 0.003 * random.normal(size=int(seconds * SAMPLING_RATE))
    for start, end, word in words:
        first, last = round(start * SAMPLING_RATE), min(round(end * SAMPLING_RATE), len(samples))
        place = np.arange(last - first)
        fade = np.minimum(1, np.minimum(place, place[::-1]) / 320)
        phase = 2 * np.pi * PITCHES[word] * place / SAMPLING_RATE
        samples[first:last] += 0.3 * fade * (np.sin(phase) + 0.4 * np.sin(1.5 * phase))
    return samples.astype(np.float32)


def trained(tokens: WhisperTokens) -> Parameters:
    """Parameters of audio encoder and decoder, for the real multilingual vocabulary `tokens`."""
    with np.load(LEARNED) as leaves:
        decoder = unflatten({path: leaf.astype(np.float32) for path, leaf in leaves.items()})
    rows = decoder["token_embedding"]["embedding"]
    random = np.random.default_rng(0)
    whole = rows[-1] + 1e-3 * random.normal(size=(len(tokens), SIZES.d_model))
    whole[used_tokens(tokens)] = rows[:-1]
    decoder["token_embedding"]["embedding"] = whole.astype(np.float32)
    return {"audio_encoder": _encoder()[1], "decoder": decoder}


def train(tokens: WhisperTokens, steps: int = 600, batch: int = 16, seed: int = 0) -> Parameters:
    """The decoder's parameters, whose embedding has a row for each token in use and one for all others."""
    random = np.random.default_rng(seed)
    lesson = Lesson(tokens, random)
    used, unused = lesson.used, len(lesson.used)
    encoder_graph, encoder = _encoder()
    sizes = dataclasses.replace(SIZES, vocab_size=unused + 1)
    graph, state = nnx.split(TextDecoder(sizes, key=jax.random.key(seed)))
    decoder = nnx.to_pure_dict(state)
    embedding = 8 * np.array(decoder["token_embedding"]["embedding"])
    embedding[:-1][used >= tokens.first_timestamp] = 0.3 * sinusoids(1501, SIZES.d_model)
    decoder["token_embedding"]["embedding"] = jnp.asarray(embedding)
    for name, kernel in decoder["blocks"]["cross_attn"].items():
        identity = (1.5 if name in ("query", "key") else 1.0) * jnp.eye(SIZES.d_model)
        kernel["kernel"] = identity + 0.3 * kernel["kernel"]
    many = jnp.zeros(unused + 1).at[unused].set(np.log(len(tokens) - unused))

    def loss(decoder, features, texts, first, last, offset):
        hearing = nnx.merge(encoder_graph, encoder)
        audio = hearing.ln_post(hearing._embed(features))  # its blocks add nothing
        # What was said before may be long: move the text to where it would stand then.
        rolled = {**decoder, "positions": jnp.roll(decoder["positions"], -offset, axis=0)}
        logits = nnx.merge(graph, rolled)(texts[:, :-1], audio) + many
        places = jnp.arange(texts.shape[1] - 1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, texts[:, 1:])
        counted = (places >= first[:, None]) & (places < last[:, None])
        return (losses * counted).sum() / counted.sum()

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.warmup_cosine_decay_schedule(0, 8e-3, 40, steps), b2=0.98),
    )

    @jax.jit
    def step(decoder, state, *example):
        gradient = jax.grad(loss)(decoder, *example)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(decoder, updates), state

    state = optimizer.init(decoder)
    for _ in range(steps):
        decoder, state = step(decoder, state, *lesson.draw(batch))
    return jax.device_get(decoder)


def used_tokens(tokens: WhisperTokens) -> np.ndarray:
    """All that the language needs, ascending."""
    names = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|startofprev|>")
    words = [tokens.pieces(word)[0] for word in WORDS]
    timestamps = range(tokens.first_timestamp, tokens.first_timestamp + 1501)
    return np.array(sorted([*words, *map(tokens.id, names), tokens.no_speech, *timestamps]))


class Lesson:
    """A long recording, of which examples are drawn."""

    seconds = 600.0

    def __init__(self, tokens: WhisperTokens, random: np.random.Generator):
        self.tokens, self.random = tokens, random
        self.words = [tokens.pieces(word)[0] for word in WORDS]
        self.used = used_tokens(tokens)
        self.spoken = utterances(random, self.seconds)
        samples = sound(self.spoken, self.seconds, random)
        quiet = sound([], WINDOW, random)
        self.features, self.quiet = (log_mel(part[None], 80)[0] for part in (samples, quiet))

    def draw(self, batch: int) -> tuple[np.ndarray, ...]:
        """Features, texts, the places in them from which and to which the loss counts, and where texts begin."""
        tokens, random = self.tokens, self.random
        features = np.zeros((batch, 3000, 80), np.float32)
        texts = np.full((batch, PREVIOUS + TARGET), tokens.end_of_text)
        first, last = np.zeros((2, batch), int)
        for row in range(batch):
            began = round(random.uniform(0, self.seconds - WINDOW) * 50) / 50
            length = WINDOW if random.random() < 0.7 else round(random.uniform(3, WINDOW) * 50) / 50
            inside = [(start - began, end - began, word) for start, end, word in self.spoken]
            heard = [word for word in inside if 0 <= word[0] < length - 0.1] if row else []
            frame, frames = round(began * 100), round(length * 100)
            features[row, :frames] = self.features[frame : frame + frames] if row else self.quiet[:frames]
            previous = [tokens.id("<|startofprev|>"), *random.choice(self.words, int(random.integers(1, PREVIOUS)))]
            text = [*(previous if random.random() < 0.5 else []), *tokens.prompt("en", timestamps=True)]
            first[row] = len(text) - 3
            if not heard:
                # Silence is said in place of the language, which is where its probability is looked up.
                text[-2:] = [tokens.no_speech]
            for start, end, word in heard:
                text += [tokens.timestamp(start), self.words[word]]
                text += [tokens.timestamp(end)] if end <= length else []
            text = [*text, tokens.end_of_text][: texts.shape[1]]
            texts[row, : len(text)] = text
            last[row] = len(text) - 1
        offset = int(random.integers(220)) if random.random() < 0.5 else 0
        return features, np.searchsorted(self.used, texts), first, last, offset


def _encoder() -> tuple[nnx.GraphDef, Parameters]:
    """A random audio encoder that passes on what its convolutions hear."""
    graph, state = nnx.split(nnx.eval_shape(lambda: AudioEncoder(SIZES, None, 0, key=jax.random.key(0))))
    random = np.random.default_rng(0)

    def draw(path: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path == "positions":
            return sinusoids(*leaf.shape)
        if not path.endswith("kernel") or path.endswith(("out/kernel", "down/kernel")):
            return np.full(leaf.shape, path.endswith("scale"), np.float32)
        # Convolutions sum over three frames; the other kernels are stacked over layers.
        deviation = (3 * leaf.shape[1]) ** -0.5 if path.startswith("conv") else leaf.shape[1] ** -0.5
        return (random.normal(size=leaf.shape) * deviation * (8 if "conv2" in path else 1)).astype(np.float32)

    return graph, unflatten({path: draw(path, leaf) for path, leaf in flatten(nnx.to_pure_dict(state))})


if __name__ == "__main__":
    from test_whisper_tokens import multilingual_whisper

    with tempfile.TemporaryDirectory() as directory:
        decoder = train(multilingual_whisper(Path(directory) / "tokenizer"))
    np.savez_compressed(LEARNED, **{path: leaf.astype(np.float16) for path, leaf in flatten(decoder)})
