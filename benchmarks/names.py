"""Names that were never heard in training: how many are written right, with lists of all lengths.

    python benchmarks/names.py --model MODEL [--spoken 60 | FOLDER] [--voices kokoro:FOLDER/bf_emma ...]
        [--lists 20 100 500 2000 5000] [--ljspeech FOLDER] [--chart FILE]

Sentences with a rare word or name or two, in voices, wordings and words that trained no phrase spotter, without noise,
each a recording that is transcribed greedily: without anything, after a sentence on their topic, and with lists of
names, as `phrases`, as `initial_prompt` and as faster-whisper's `hotwords`; with lists that hold names like those that
are said, too, only such names, or only others. Prints word error rates, of all words, of the rare ones that are said
(B-WER) and of the others (U-WER), as in Le et al. 2021, with 95 % intervals over recordings; in how many a listed name
is written that was not said, and is not without the list; and the seconds it took. Then what the spotter finds by
itself, homophones with their topics, sound without speech with 5,000 phrases, and with `--ljspeech` names of early
printing among 500 others in read speech.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import soundfile
import soxr
import wordfreq

import cwjax
from cwjax.data.audio.decode import read_audio
from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.demo.espeak import Voice, synthesize
from cwjax.demo.homophones import read_homophones
from cwjax.errors import CwjaxError
from cwjax.evaluation.charts import COLOURS, bar_chart, save_chart
from cwjax.inference.phrases import occurrences
from cwjax.scoring.biased_errors import biased_errors
from cwjax.scoring.normalisers import plain_words
from cwjax.spotting.batches import look_alikes
from cwjax.spotting.speech import Sentence, SpeechSettings, Window, make_window, speak, vocabulary

PRINTING = ("Gutenberg", "Schoeffer", "Sweynheim", "Pannartz", "Subiaco", "psalters", "missal", "missals")
"""Names and terms that the read speech says."""
SENTENCES = (
    "In the spring of that year {} travelled to {} with two of his friends and a large wooden box.",
    "The committee decided that {} should write the first chapter and that somebody else would do the rest.",
    "When we arrived at the station, {} was already waiting for us with the tickets in her hand.",
    "Most people remember {} for the pictures, but the letters to {} are much better.",
    "There is a small shop behind the church where you can still buy {} for a few coins.",
    "According to the newspaper, the {} was sold last week to a collector from {}.",
    "She told me that the old house near the river once belonged to the {} family.",
    "Nobody knows exactly how {} came to be the most important person in the whole village.",
    "After the long winter they finally opened the road between {} and the sea.",
    "The second part of the talk is about {} and what it means for the rest of us.",
    "I have never understood why {} left the company so soon after the war was over.",
    "If you look closely at the map, you will find {} just to the north of the lake.",
    "For many years the only doctor in the town was {}, who came from a farm in {}.",
    "They played the music of {} all night long and nobody wanted to go home.",
    "My grandmother used to cook {} every Sunday, and the whole street could smell it.",
)
TOPIC = "Somebody reads sentences in which rare words and names of people and places occur."
PLAIN = cwjax.DecodingOptions(language="en", temperature=0.0)
SAMPLES = 1000
"""Of the bootstrap."""


def main() -> None:
    """Speaks, transcribes in every way, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="whatever cwjax.load takes")
    parser.add_argument(
        "--spoken",
        default="60",
        help="sentences to make (60), or a folder of recordings NAME.flac, each with what is said as NAME.json: "
        '[{"text", "start", "end", "phrases", "voice"}, ...]',
    )
    parser.add_argument(
        "--voices",
        nargs="+",
        default=SpeechSettings().test_voices,
        help="who speaks the sentences that are made, named as for --speech.test-voices of launch/train_spotter.py",
    )
    parser.add_argument("--lists", type=int, nargs="*", default=[20, 100, 500, 2000, 5000])
    parser.add_argument("--prompts", type=int, nargs="*", default=[20, 100], help="lists that prompts are tried with")
    parser.add_argument("--homophones", type=int, default=32, help="of how many words (32)")
    parser.add_argument("--silences", type=int, default=10, help="half minutes without speech (10)")
    parser.add_argument("--ljspeech", type=Path, help="folder of read speech")
    parser.add_argument("--chart", type=Path, help="file for a chart of the rare words' error rates")
    arguments = parser.parse_args()
    others = vocabulary()["test"]
    spoken = list(_recordings(arguments.spoken, SpeechSettings(test_voices=tuple(arguments.voices))))
    model = cwjax.load(arguments.model)
    if not model.spots_phrases:
        raise SystemExit(f"names: {arguments.model} has no phrase spotter")
    rare = sum(len(sentence.phrases) for window in spoken for sentence in window.sentences)
    print(f"{len(spoken)} recordings, {rare} rare words and names; {len(others):,} others to choose from\n")
    print(f"{'given':36} {'WER':^18} {'U-WER':^18} {'B-WER':^18} {'not said':>8} {'seconds':>8}")
    table = _Table(model, spoken)
    table.row("nothing", [{}] * len(spoken))
    table.row(
        "a sentence on the topic as prompt", [{"initial_prompt": TOPIC, "carry_initial_prompt": True}] * len(spoken)
    )
    for size in arguments.lists:
        table.row(f"{size} phrases", [{"phrases": some} for some in lists(spoken, others, size)])
    for size in arguments.prompts:
        texts = [", ".join(some) for some in lists(spoken, others, size)]
        table.row(f"the same {size} as hotwords", [{"hotwords": text} for text in texts])
        prompts = [{"initial_prompt": text, "carry_initial_prompt": True} for text in texts]
        table.row(f"the same {size} as initial_prompt", prompts)
    if arguments.chart:
        plain = {"nothing", *(f"the same {size} as hotwords" for size in arguments.prompts)}
        bars = {
            name: (*map(float, rates), COLOURS["none" if name in plain else "right"])
            for name, rates in table.rare.items()
            if "prompt" not in name
        }
        save_chart(
            bar_chart(bars, f"{rare} rare words and names that were never heard: written wrongly"), arguments.chart
        )
    kinds = {"some like them": (True, True), "only like them": (False, True), "none said": (False, False)}
    for name, kind in kinds.items():
        table.row(f"500 phrases, {name}", [{"phrases": some} for some in lists(spoken, others, 500, *kind)])
    states = [model.encode(model.processor.features(window.samples)[None]) for window in spoken]
    for size in arguments.lists:
        _print_found(model, spoken, states, lists(spoken, others, size))
    if arguments.homophones:
        _print_homophones(model, arguments.homophones)
    _print_silence(model, arguments.silences, random.Random(0).sample(others, 5000))
    if arguments.ljspeech:
        _print_names(model, arguments.ljspeech, others)


def _recordings(source: str, settings: SpeechSettings) -> Iterator[Window]:
    if source.isdecimal():
        rare = [word for word in vocabulary()["test"] if 1.0 <= wordfreq.zipf_frequency(word, "en") < 3.3]
        for number in range(int(source)):
            chance = random.Random(f"names {number}")
            template = SENTENCES[number % len(SENTENCES)]
            phrases = tuple(chance.choice(rare) for _ in range(template.count("{}")))
            samples, voice = speak(template.format(*phrases), settings, "test", chance)
            sentence = Sentence(template.format(*phrases), 0.0, len(samples) / SAMPLING_RATE, phrases, voice)
            yield Window(samples * np.float32(0.5 / np.abs(samples).max()), [sentence])
        return
    for file in sorted(Path(source).glob("*.flac")):
        said = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        yield Window(read_audio(file), [Sentence(**one | {"phrases": tuple(one["phrases"])}) for one in said])


def lists(
    spoken: Sequence[Window], others: Sequence[str], size: int, said: bool = True, alike: bool = False
) -> list[tuple[str, ...]]:
    """A list for each window: what is said in it, what is spelled like that, and words that are not said."""
    found = []
    for number, window in enumerate(spoken):
        own = sorted({phrase for sentence in window.sentences for phrase in sentence.phrases})
        words = {word for sentence in window.sentences for word in plain_words(sentence.text)}
        chance = random.Random(f"{number} {size}")
        near = [one for phrase in own for one in look_alikes(phrase.casefold(), others)] if alike else []
        strange = dict.fromkeys([*near, *chance.sample(others, min(size + 100, len(others)))])
        chosen = [*(own if said else ()), *(word for word in strange if word.casefold() not in words)][:size]
        chance.shuffle(chosen)
        found.append(tuple(chosen))
    return found


class _Table:
    """Transcribes recordings in one way a row, and prints how well."""

    def __init__(self, model: cwjax.Model, spoken: Sequence[Window]):
        self._model, self._spoken = model, spoken
        self._plain: list[str] = []
        self.rare: dict[str, tuple[float, float, float]] = {}

    def row(self, name: str, options: Sequence[dict]) -> None:
        began = time.perf_counter()
        pairs = list(zip(self._spoken, options, strict=True))
        texts = [self._model.transcribe(window.samples, "", PLAIN, **own).text for window, own in pairs]
        taken = time.perf_counter() - began
        self._plain = self._plain or texts
        counts = np.array([_counts(window, text) for window, text in zip(self._spoken, texts, strict=True)])
        chosen = np.random.default_rng(0).integers(len(counts), size=(SAMPLES, len(counts)))
        drawn = _rates(counts[chosen].sum(axis=1))
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        intervals = list(zip(_rates(counts.sum(axis=0)), low, high, strict=True))
        rates = "".join(f" {rate:6.1f} ({least:4.1f}-{most:5.1f})" for rate, least, most in intervals)
        self.rare[name] = intervals[-1]
        wrong = sum(
            any(_is_new(phrase, window, text, plain) for phrase in own.get("phrases", ()))
            for (window, own), text, plain in zip(pairs, texts, self._plain, strict=True)
        )
        print(f"{name:36}{rates} {100 * wrong / len(texts):6.0f} % {taken:8.0f}", flush=True)


def _is_new(phrase: str, window: Window, text: str, plain: str) -> bool:
    """Whether a phrase is written that was neither said nor is written without a list."""
    said = " ".join(sentence.text for sentence in window.sentences)
    return phrase in text and bool(occurrences(phrase, text)) and not occurrences(phrase, f"{said} {plain}")


def _rates(counts: np.ndarray) -> np.ndarray:
    """Error rates in per cent of all words, of the others and of the rare ones: (..., 2, 2) -> (..., 3)."""
    both = np.concatenate([counts.sum(axis=-2, keepdims=True), counts], axis=-2)
    return 100 * both[..., 0] / np.maximum(both[..., 1], 1)


def _counts(window: Window, text: str) -> np.ndarray:
    """Errors and words, of the others and of the rare words: (2, 2)."""
    rare = {word for one in window.sentences for phrase in one.phrases for word in plain_words(phrase)}
    said = plain_words(" ".join(sentence.text for sentence in window.sentences))
    (counts,) = biased_errors([said], [plain_words(text)], [rare])
    return np.stack([counts.reshape(2, 4)[:, :3].sum(1), counts.reshape(2, 4)[:, 3]], axis=1)


def _print_found(
    model: cwjax.Model, spoken: Sequence[Window], states: Sequence[jax.Array], listed: Sequence[tuple[str, ...]]
) -> None:
    """How often the spotter has what is said among its likeliest phrases, and is right where it is sure."""
    twenty = cwjax.DecodingOptions(phrases_used=20, phrases_threshold=0.0)
    spotter, ranks, sure = model.transcriber.phrases, [], []
    for window, encoded, phrases in zip(spoken, states, listed, strict=True):
        (found,) = spotter.spot(encoded, spotter.encode(phrases), [twenty])
        said = {phrase for one in window.sentences for phrase in one.phrases}
        likeliest = [one.text for one in sorted(found, key=lambda one: -one.probability)]
        ranks += [likeliest.index(phrase) if phrase in likeliest else np.inf for phrase in said]
        sure += [one.text in said for one in found if one.probability >= 0.9]
    within = " / ".join(f"{100 * np.mean(np.array(ranks) < most):.0f}" for most in (1, 5, 20))
    print(
        f"of {len(listed[0]):5,} phrases, what is said among the first 1 / 5 / 20: {within} %; "
        f"given 0.9 or more: {len(sure)}, of which {sum(sure)} were said",
        flush=True,
    )


def _print_homophones(model: cwjax.Model, words: int) -> None:
    """In which share of sentences that give neither away the word is written that is meant."""
    known = read_homophones()
    asked = [pair for both in known.pairs for pair in (both, both[::-1])][:words]
    given: dict[str, list[dict]] = {}
    for own, other in asked:
        topic, wrong = (" ".join(one.wordings["test"].leads[:2]) for one in (own, other))
        both = {"phrases": (own.word, other.word)}
        given.setdefault("nothing", []).append({})
        given.setdefault("the topic as prompt", []).append({"initial_prompt": topic})
        given.setdefault("the other's topic as prompt", []).append({"initial_prompt": wrong})
        given.setdefault("the word as phrase", []).append({"phrases": (own.word,)})
        given.setdefault("both words as phrases", []).append(both)
        given.setdefault("the same, the topic as prompt", []).append(both | {"initial_prompt": topic})
        if model.takes_context:
            given.setdefault("the topic as context", []).append({"context": topic})
    sounds = []
    for number, (own, _) in enumerate(asked):
        text = known.carriers[number % len(known.carriers)].format(word=own.word)
        speech = synthesize(text, Voice("en-us", "m3"))
        sounds.append(soxr.resample(speech.samples / np.float32(32768), speech.sampling_rate, SAMPLING_RATE))
    print(f"\n{len(asked)} homophones")
    for name, options in given.items():
        texts = [model.transcribe(sound, options=PLAIN, **own).text for sound, own in zip(sounds, options, strict=True)]
        heard = [set(plain_words(text)) for text in texts]
        right = sum(own.word in words for (own, _), words in zip(asked, heard, strict=True))
        wrong = sum(other.word in words for (_, other), words in zip(asked, heard, strict=True))
        print(f"{name:36} {100 * right / len(asked):4.0f} % as meant, {100 * wrong / len(asked):.0f} % as the other")


def _print_silence(model: cwjax.Model, windows: int, phrases: Sequence[str]) -> None:
    quiet = SpeechSettings(no_speech_share=1.0)
    sounds = [make_window(quiet, "test", 30.0, f"silence {number}").samples for number in range(windows)]
    print(f"\n{windows} windows of noise, tones or nothing")
    for name, options in (("nothing", {}), (f"{len(phrases)} phrases", {"phrases": tuple(phrases)})):
        found = [model.transcribe(sound, language="en", **options) for sound in sounds]
        written = [one.text for one in found if one.text.strip()]
        heard = sum(len(one.phrases) for one in found)
        print(f"given {name}: {len(written)} with a text, {heard} phrases heard {written}")


def _print_names(model: cwjax.Model, folder: Path, others: Sequence[str]) -> None:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".wav"))
    phrases = [*PRINTING, *random.Random(0).sample(others, 500 - len(PRINTING))]
    seconds = sum(soundfile.info(file).duration for file in files)
    print(f"\n{seconds:.0f} seconds of read speech")
    for name, options in (("nothing", {}), ("500 phrases", {"phrases": tuple(phrases)})):
        text = " ".join(model.transcribe(read_audio(file), "", PLAIN, **options).text for file in files)
        right = [phrase for phrase in PRINTING if occurrences(phrase, text)]
        wrong = [phrase for phrase in phrases[len(PRINTING) :] if len(phrase) > 3 and occurrences(phrase, text)]
        print(f"given {name}: {', '.join(right) or 'none'} written right; of the others {', '.join(wrong) or 'none'}")


if __name__ == "__main__":
    try:
        main()
    except CwjaxError as error:
        raise SystemExit(f"names: {error}") from error
