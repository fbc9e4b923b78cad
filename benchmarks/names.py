"""Names that were never heard in training: how many are written right, with lists of all lengths.

    python benchmarks/names.py --model MODEL [--windows 40] [--lists 0 20 100 500 2000 5000] [--ljspeech FOLDER]

Sentences with rare words and names, in voices, wordings and words that trained no phrase spotter, without noise, each
transcribed greedily: without anything, with lists of names of which only those that are said matter, and with lists of
which none is said. The same lists are given as `phrases` and as faster-whisper's `hotwords`. Prints the word error
rates: of all words, of the rare ones that are listed (B-WER) and of the others (U-WER), as in Le et al. 2021, and how
long it took. With `--ljspeech`, names of early printing among 500 others in read speech, too.
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import jiwer
import soundfile

import cwjax
from cwjax.data.audio import read_audio
from cwjax.data.spotter_speech import SpeechSettings, Window, make_window, vocabulary
from cwjax.evaluation.word_errors import normalise

PRINTING = ("Gutenberg", "Schoeffer", "Sweynheim", "Pannartz", "Subiaco", "psalters", "missal", "missals")
"""Names and terms that the read speech says."""


def main() -> None:
    """Speaks, transcribes in every way, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="whatever cwjax.load takes")
    parser.add_argument("--windows", type=int, default=40, help="half minutes of speech (40)")
    parser.add_argument("--lists", type=int, nargs="+", default=[20, 100, 500, 2000, 5000])
    parser.add_argument("--hotwords", type=int, nargs="+", default=[20, 100], help="lists that hotwords are tried with")
    parser.add_argument("--ljspeech", type=Path, help="folder of read speech")
    arguments = parser.parse_args()
    settings = SpeechSettings(rare_share=1.0, no_speech_share=0.0, noise_share=0.0, room_share=0.0)
    spoken = [make_window(settings, "test", 30.0, f"names {number}") for number in range(arguments.windows)]
    others = vocabulary()["test"]
    model = cwjax.load(arguments.model)
    if not model.spots_phrases:
        raise SystemExit(f"names: {arguments.model} has no phrase spotter")
    rare = sum(len(sentence.phrases) for window in spoken for sentence in window.sentences)
    print(f"{arguments.windows} windows, {rare} rare words and names; {len(others):,} others to choose from\n")
    print(f"{'given':28} {'WER':>6} {'U-WER':>6} {'B-WER':>6} {'seconds':>8}")
    _row(model, spoken, "nothing", [{}] * len(spoken))
    for size in arguments.lists:
        _row(model, spoken, f"{size} phrases", [{"phrases": some} for some in lists(spoken, others, size)])
    for size in arguments.hotwords:
        texts = [{"hotwords": ", ".join(some)} for some in lists(spoken, others, size)]
        _row(model, spoken, f"{size} hotwords", texts)
    wrong = [{"phrases": some} for some in lists(spoken, others, 500, said=False)]
    _row(model, spoken, "500 phrases, none said", wrong)
    if arguments.ljspeech:
        _print_names(model, arguments.ljspeech, others)


def lists(spoken: Sequence[Window], others: Sequence[str], size: int, said: bool = True) -> list[tuple[str, ...]]:
    """A list for each window: what is said in it, filled up with words that are not."""
    found = []
    for number, window in enumerate(spoken):
        own = {phrase for sentence in window.sentences for phrase in sentence.phrases}
        words = {word for sentence in window.sentences for word in normalise(sentence.text)}
        chance = random.Random(f"{number} {size}")
        strange = [word for word in chance.sample(others, min(size + 100, len(others))) if word.casefold() not in words]
        chosen = [*(sorted(own) if said else ()), *strange][:size]
        chance.shuffle(chosen)
        found.append(tuple(chosen))
    return found


def _row(model: cwjax.Model, spoken: Sequence[Window], name: str, options: Sequence[dict]) -> None:
    plain = cwjax.DecodingOptions(language="en", temperature=0.0)
    began = time.perf_counter()
    texts = [
        model.transcribe(window.samples, "", plain, **own).text for window, own in zip(spoken, options, strict=True)
    ]
    taken = time.perf_counter() - began
    errors = {"all": [0, 0], "rare": [0, 0], "other": [0, 0]}
    for window, text in zip(spoken, texts, strict=True):
        rare = {word for one in window.sentences for phrase in one.phrases for word in normalise(phrase)}
        reference = normalise(" ".join(sentence.text for sentence in window.sentences))
        _count(errors, reference, normalise(text), rare)
    rates = [100 * errors[kind][0] / max(errors[kind][1], 1) for kind in ("all", "other", "rare")]
    print(f"{name:28} {rates[0]:6.1f} {rates[1]:6.1f} {rates[2]:6.1f} {taken:8.0f}", flush=True)


def _count(errors: dict[str, list[int]], reference: list[str], hypothesis: list[str], rare: set[str]) -> None:
    """Adds a window's errors; an inserted word is a rare one's if it is rare itself."""
    chunks = jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]
    for word in reference:
        errors["all"][1] += 1
        errors["rare" if word in rare else "other"][1] += 1
    for chunk in chunks:
        if chunk.type == "equal":
            continue
        wrong = (
            hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            if chunk.type == "insert"
            else reference[chunk.ref_start_idx : chunk.ref_end_idx]
        )
        for word in wrong:
            errors["all"][0] += 1
            errors["rare" if word in rare else "other"][0] += 1


def _print_names(model: cwjax.Model, folder: Path, others: Sequence[str]) -> None:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".wav"))
    chance = random.Random(0)
    phrases = [*PRINTING, *chance.sample(others, 500 - len(PRINTING))]
    plain = cwjax.DecodingOptions(language="en", temperature=0.0)
    for name, options in (("nothing", {}), ("500 phrases", {"phrases": tuple(phrases)})):
        texts = " ".join(model.transcribe(read_audio(file), "", plain, **options).text for file in files)
        right = [phrase for phrase in PRINTING if phrase.casefold() in texts.casefold()]
        print(f"read speech, given {name}: {', '.join(right) or 'none'} written right")
    seconds = sum(soundfile.info(file).duration for file in files)
    print(f"({seconds:.0f} seconds of it)")


if __name__ == "__main__":
    main()
