"""How well the utterances of a prepared corpus are cut: a model transcribes all, and its disagreement is kept.

Nothing is deleted: the rates stand beside the index, and training leaves out what is above its thresholds
(`data.max_cer`, `data.max_edge_cer`). Stopped and run again, the work goes on where it was.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import cwjax
from cwjax.data.prepared.corpus import QUALITY_FILE, PreparedCorpus
from cwjax.data.prepared.index import CORPUS_FILE
from cwjax.errors import CwjaxError
from cwjax.files import write_text
from cwjax.inference.options import DecodingOptions
from cwjax.scoring.normalisers import joined_characters, plain_words
from cwjax.scoring.word_errors import errors_by_place

log = logging.getLogger(__name__)

EDGE = 20
"""Characters at either end of an utterance whose error rate is kept on its own: three or four words."""
SCORES_FILE = "quality.partial.jsonl"
"""In the corpus's folder while segments are being scored: the model, then a segment a line."""


def score_corpus(corpus: PreparedCorpus, model_directory: str | Path, batch_size: int = 8) -> None:
    """Transcribes every segment without context and keeps the character error rates of its utterances.

    Args:
        corpus: prepared.
        model_directory: of a trained model.
        batch_size: windows at once.

    Raises:
        CwjaxError: the model cannot be read, or the corpus's folder cannot be written.
    """
    transcriber = cwjax.load(model_directory).transcriber
    corpus = PreparedCorpus.read(corpus.directory, transcriber.programs.processor.window_seconds)
    aside, model = corpus.directory / SCORES_FILE, str(Path(model_directory).resolve())
    try:
        if corpus.settings.get("scored_with") == model and corpus.quality is not None:
            log.info("%s was scored with %s before", corpus.directory, model_directory)
            return
        rates = np.full((len(corpus.supervisions), 3), np.nan, np.float32)
        for first, found in _scored_before(aside, model):
            rates[first : first + len(found)] = found
        missing = np.flatnonzero(np.isnan(rates[corpus.segments.begins, 0])).tolist()
        total, hidden = len(corpus.segments), not sys.stderr.isatty()
        with (
            aside.open("a", encoding="utf-8") as scores,
            tqdm(total=total, initial=total - len(missing), desc="scoring", disable=hidden) as bar,
        ):
            for place in range(0, len(missing), batch_size):
                places = missing[place : place + batch_size]
                segments = [corpus.segments[one] for one in places]
                transcripts = transcriber.transcribe_many(
                    [corpus.audio(one) for one in places],
                    options=[DecodingOptions(language=segment.language, temperature=0.0) for segment in segments],
                    batch_size=batch_size,
                )
                for one, segment, transcript in zip(places, segments, transcripts, strict=True):
                    first, last = corpus.segments.supervisions(one)
                    texts = [utterance.text for utterance in segment.utterances]
                    rates[first:last] = measure(texts, transcript.text, segment.language)
                    scores.write(json.dumps([first, rates[first:last].tolist()]) + "\n")
                scores.flush()
                bar.update(len(places))
        partial = corpus.directory / f"{QUALITY_FILE}.partial"
        with partial.open("wb") as file:
            np.save(file, rates)
        partial.replace(corpus.directory / QUALITY_FILE)
        settings = corpus.settings | {"scored_with": model}
        write_text(corpus.directory / CORPUS_FILE, json.dumps(settings, indent=2) + "\n")
        aside.unlink()
    except OSError as error:
        raise CwjaxError(f"{corpus.directory}: cannot be written ({error.strerror or error})") from error
    shares = ", ".join(f"{share} % below {np.percentile(rates[:, 0], share):.3f}" for share in (50, 90, 99))
    log.info("character error rates of %d utterances: %s", len(rates), shares)


def measure(references: Sequence[str], hypothesis: str, language: str = "en") -> np.ndarray:
    """Character error rates of a transcript, case and punctuation aside; a rate above 1 says that much was invented.

    Args:
        references: what was said, utterance by utterance.
        hypothesis: what was heard of all of them.
        language: of both.

    Returns:
        (n, 3): of each utterance the rate of the whole, and of its first and its last characters. What was heard
        between two utterances counts for the later one, what was heard at the end for the last.
    """
    texts = [joined_characters(plain_words(text, language), language) for text in references]
    heard, gap = joined_characters(plain_words(hypothesis, language), language), joined_characters(["", ""], language)
    said, places = "", []
    for text in texts:
        joint = gap if said and text else ""
        places.append((len(said), len(said) + len(joint + text)))
        said += joint + text
    _, errors = errors_by_place(said, heard)
    rates = np.full((len(texts), 3), float(bool(heard and not said)), np.float32)
    for row, text, (first, last) in zip(rates, texts, places, strict=True):
        if text:
            behind = last == len(said)  # what was heard at the end
            here, joint, edge = errors[first : last + behind], last - first - len(text), min(EDGE, len(text))
            row[:] = here.sum() / len(text), here[: joint + edge].sum() / edge, here[-edge - behind :].sum() / edge
    return np.round(rates, 4)


def _scored_before(aside: Path, model: str) -> list[list[Any]]:
    """What an earlier run has scored with this model, or else a new file."""
    lines = list(_lines(aside))
    if not lines or lines[0] != {"model": model}:
        aside.write_text(json.dumps({"model": model}) + "\n", encoding="utf-8")
        return []
    # The last line may have been cut short; what follows must not stick to it.
    aside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines[1:]


def _lines(path: Path) -> Iterator[Any]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return
