"""Words that a model has seen in training, and those of references that it has not: new words are where contexts help.

Error rates of the two are counted as those of listed words are: an unseen word is a listed one.
"""

import dataclasses
import json
from collections.abc import Sequence, Set
from pathlib import Path

from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.files import write_text
from cwjax.scoring.measures import Measure
from cwjax.scoring.normalisers import plain_words
from cwjax.scoring.score import Scores, score_files

UNSEEN_FILE = "unseen_words.jsonl"
NAMES = {"U-WER": "WER of seen words", "B-WER": "WER of unseen words"}


def training_words(directory: str | Path) -> set[str]:
    """The words of a prepared corpus's training split. Raises CwjaxError if there are none."""
    said = (one for one in PreparedCorpus.read(directory).all_supervisions() if one.custom["split"] == "train")
    words = {word for one in said for word in plain_words(one.text, one.language)}
    if not words:
        raise CwjaxError(f"{directory}: has nothing in the split 'train', so no words were seen in it")
    return words


def score_unseen(hypotheses: Path, items: Sequence[Item], seen: Set[str]) -> Scores:
    """Counts errors of seen and unseen words; the lists of those stay beside the hypotheses. Raises CwjaxError."""
    path = hypotheses.with_name(UNSEEN_FILE)
    lists = ({"id": one.id, "bias_words": sorted({*plain_words(one.reference, one.language)} - seen)} for one in items)
    try:
        write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lists))
    except OSError as error:
        raise CwjaxError(f"{path}: cannot be written ({error.strerror}); choose another --output") from error
    scores = score_files([hypotheses], bias_lists=path, measures=["b-wer"])
    return dataclasses.replace(scores, measures={name: _renamed(one) for name, one in scores.measures.items()})


def _renamed(measure: Measure) -> Measure:
    rates = [dataclasses.replace(one, name=NAMES[one.name]) for one in measure.rates if one.name in NAMES]
    return dataclasses.replace(measure, rates=tuple(rates))
