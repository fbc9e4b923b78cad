"""How well the segments of a prepared corpus are cut: a model transcribes each, and its disagreement is kept.

Nothing is deleted: the rates stand in the index, and training leaves out what is above its thresholds
(`data.max_cer`, `data.max_edge_cer`). Stopped and run again, the work goes on where it was.
"""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import cwjax
from cwjax.data.prepared.corpus import CORPUS_FILE, PreparedCorpus
from cwjax.data.prepared.index import INDEX_FILE, index_line
from cwjax.data.segment import Quality
from cwjax.errors import CwjaxError
from cwjax.files import write_text
from cwjax.inference.options import DecodingOptions
from cwjax.scoring.normalisers import joined_characters, plain_words
from cwjax.scoring.word_errors import errors_by_place

log = logging.getLogger(__name__)

EDGE = 20
"""Characters at either end of a segment whose error rate is kept on its own: three or four words."""
SCORES_FILE = "quality.partial.jsonl"
"""In the corpus's folder while segments are being scored: the model, then a segment a line."""


def score_segments(corpus: PreparedCorpus, model_directory: str | Path, batch_size: int = 8) -> PreparedCorpus:
    """Transcribes every segment without context and keeps the character error rates in the index.

    Args:
        corpus: prepared; its index is replaced when all is done.
        model_directory: of a trained model.
        batch_size: windows at once.

    Returns:
        The corpus with the new index.

    Raises:
        CwjaxError: the model cannot be read, or the corpus's folder cannot be written.
    """
    transcriber = cwjax.load(model_directory).transcriber
    window_seconds = transcriber.programs.processor.window_seconds
    longest = max((segment.duration for segment in corpus.segments), default=0.0)
    if longest > window_seconds + 1e-6:
        raise CwjaxError(
            f"{model_directory}: hears windows of {window_seconds:.1f} s, but segments of {corpus.directory} "
            f"are up to {longest:.1f} s long; choose a model with longer windows"
        )
    aside, model = corpus.directory / SCORES_FILE, str(Path(model_directory).resolve())
    try:
        made_of = json.loads((corpus.directory / CORPUS_FILE).read_text(encoding="utf-8"))
        if made_of.get("scored_with") == model:
            log.info("%s was scored with %s before", corpus.directory, model_directory)
            return corpus
        done = _scored_before(aside, model)
        found = dict(done)
        with (
            aside.open("a", encoding="utf-8") as scores,
            tqdm(total=len(corpus.segments), initial=len(done), desc="scoring", disable=not sys.stderr.isatty()) as bar,
        ):
            missing = [place for place in range(len(corpus.segments)) if place not in done]
            for first in range(0, len(missing), batch_size):
                places = missing[first : first + batch_size]
                segments = [corpus.segments[place] for place in places]
                transcripts = transcriber.transcribe_many(
                    [corpus.audio(place) for place in places],
                    options=[DecodingOptions(language=segment.language, temperature=0.0) for segment in segments],
                    batch_size=batch_size,
                )
                for place, segment, transcript in zip(places, segments, transcripts, strict=True):
                    found[place] = measure(segment.text, transcript.text, segment.language)
                    scores.write(json.dumps([place, *asdict(found[place]).values()]) + "\n")
                scores.flush()
                bar.update(len(places))
        _rewrite_index(corpus, found)
        write_text(corpus.directory / CORPUS_FILE, json.dumps(made_of | {"scored_with": model}, indent=2) + "\n")
        aside.unlink()
    except OSError as error:
        raise CwjaxError(f"{corpus.directory}: cannot be written ({error.strerror or error})") from error
    _log_distribution(found)
    return PreparedCorpus.read(corpus.directory)


def measure(reference: str, hypothesis: str, language: str = "en") -> Quality:
    """Character error rates of a transcript, case and punctuation aside; a rate above 1 says that much was invented."""
    said, heard = (joined_characters(plain_words(text, language), language) for text in (reference, hypothesis))
    if not said:
        return Quality(*[float(bool(heard))] * 3)
    _, errors = errors_by_place(said, heard)
    edge = min(EDGE, len(said))
    rates = errors.sum() / len(said), errors[:edge].sum() / edge, errors[-edge - 1 :].sum() / edge
    return Quality(*(round(float(rate), 4) for rate in rates))


def _scored_before(aside: Path, model: str) -> dict[int, Quality]:
    """What an earlier run has scored with this model, or else a new file."""
    lines = list(_lines(aside))
    if not lines or lines[0] != {"model": model}:
        aside.write_text(json.dumps({"model": model}) + "\n", encoding="utf-8")
        return {}
    # The last line may have been cut short; what follows must not stick to it.
    aside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {place: Quality(*rates) for place, *rates in lines[1:]}


def _lines(path: Path) -> Iterator[Any]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return


def _rewrite_index(corpus: PreparedCorpus, found: dict[int, Quality]) -> None:
    aside = corpus.directory / (INDEX_FILE + ".partial")
    with aside.open("w", encoding="utf-8") as index:
        for place, segment in enumerate(corpus.segments):
            index.write(index_line(replace(segment, quality=found[place]), corpus.segments.shard(place)))
    aside.replace(corpus.directory / INDEX_FILE)


def _log_distribution(found: dict[int, Quality]) -> None:
    rates = [quality.cer for quality in found.values()]
    if rates:
        shares = ", ".join(f"{share} % below {np.percentile(rates, share):.3f}" for share in (50, 90, 99))
        log.info("character error rates of %d segments: %s", len(rates), shares)
