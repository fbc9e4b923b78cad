"""A model card as the Hugging Face hub reads it: with the scores of the model in its `model-index`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwjax.errors import CwjaxError
from cwjax.weights.model_card import MODEL_CARD_FILE
from cwjax.weights.model_directory import read_training_facts

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

SPLIT = " split"
"""Measures are named such as "word error rate, test split"."""


def hub_card(directory: Path, name: str, licence: str = "") -> str:
    """The card of a model directory, whatever its owner wrote into it, with what the hub wants to know in its header.

    Args:
        directory: of the model.
        name: of the repository.
        licence: of the weights, by the hub's name for it; empty: as the card has it.

    Raises:
        CwjaxError: there is no card, or its header is no YAML.
    """
    from huggingface_hub import ModelCard

    file = directory / MODEL_CARD_FILE
    try:
        card = ModelCard(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CwjaxError(f"{file}: cannot be read ({error.strerror}); write one, or train or convert again") from error
    except Exception as error:  # of the parser of YAML too
        raise CwjaxError(
            f"{file}: its header between --- is no YAML ({str(error).splitlines()[0]}); mend it"
        ) from error
    if licence:
        card.data.license = licence
    if results := eval_results(read_training_facts(directory)):
        card.data.model_name, card.data.eval_results = name, results
    return str(card)


def eval_results(facts: dict[str, Any]) -> "list[EvalResult]":
    """The scores of a model, in per cent, one for each measure and context."""
    from huggingface_hub import EvalResult

    corpus = str(facts.get("corpus") or "unnamed")
    return [
        EvalResult(
            task_type="automatic-speech-recognition",
            dataset_type=corpus,
            dataset_name=corpus,
            dataset_split=measure.rpartition(", ")[2].removesuffix(SPLIT),
            metric_type="wer" if measure.startswith("word error rate") else "accuracy",
            metric_name=f"{measure.rpartition(', ')[0]}, {condition} context",
            metric_value=round(100 * value, 2),
        )
        for measure, by_condition in facts.get("scores", {}).items()
        for condition, value in by_condition.items()
    ]


def model_index(name: str, facts: dict[str, Any]) -> str:
    """The scores of `eval_results` as YAML, to be put into the header of a card.

    Args:
        name: of the model.
        facts: with `corpus`, which was evaluated, and `scores`.
    """
    from huggingface_hub import ModelCardData

    return ModelCardData(model_name=name, eval_results=eval_results(facts)).to_yaml() + "\n"
