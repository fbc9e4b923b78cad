"""The model card: what a model is made of, what was frozen, what it was trained on, and its scores."""

from typing import Any

from cwjax.models.context_whisper import ContextWhisperConfig
from cwjax.models.t5 import T5Config

MODEL_CARD_FILE = "README.md"
CONTEXT_WHISPER = (
    "# ContextWhisper",
    "Whisper whose audio encoder attends to what a text encoder reads about the recording.",
)


def model_card(config: ContextWhisperConfig, parameters: int, facts: dict[str, Any], adapter: bool = False) -> str:
    """A README in the form of the Hugging Face hub, with its header of metadata.

    Args:
        config: of the model.
        parameters: how many there are.
        facts: how the model came to be, as `config.json` keeps them under `training`; what is not known is left out.
        adapter: whether it holds the context attention alone.
    """
    base = [one for name in ("whisper", "text_encoder") if _is_hub_id(one := str(facts.get(name, "")))]
    header = ["library_name: cwjax", "pipeline_tag: automatic-speech-recognition", "tags:", "- whisper", "- context"]
    if base:
        header += ["base_model:", *(f"- {one}" for one in base)]
        header += ["base_model_relation: adapter"] * adapter
    sections = [
        "---\n" + "\n".join(header) + "\n---",
        *(CONTEXT_WHISPER if config.takes_context else ("# Whisper", "It takes no context.")),
        _use(', context="an interview about bee keeping"' if config.takes_context else ""),
        "## What it is made of\n\n" + _table(_parts(config, parameters, facts)),
    ]
    training = _training(facts)
    if training:
        sections.append("## How it was trained\n\n" + _table(training))
    if facts.get("scores"):
        sections.append("## Scores\n\n" + _scores(facts["scores"]))
    return "\n\n".join(sections) + "\n"


def _use(context: str) -> str:
    return (
        "```python\n"
        "import cwjax\n\n"
        'model = cwjax.load("THIS_DIRECTORY_OR_HUB_ID")\n'
        f'print(model.transcribe("talk.ogg"{context}).text)\n'
        "```"
    )


def _parts(config: ContextWhisperConfig, parameters: int, facts: dict[str, Any]) -> dict[str, str]:
    whisper, text = config.whisper, config.text_encoder
    heard = (
        f"{_source(facts, 'whisper')}{whisper.encoder_layers} + {whisper.decoder_layers} layers, "
        f"{whisper.d_model} wide, {whisper.num_mel_bins} mel bins, {whisper.vocab_size} tokens"
    )
    if text is None or config.context is None:
        return {"Whisper": heard, "parameters": f"{parameters:,}"}
    kind, layers = ("T5", text.num_layers) if isinstance(text, T5Config) else ("BERT", text.num_hidden_layers)
    attending = config.context.layers_of(whisper.encoder_layers)
    where = "all layers" if len(attending) == whisper.encoder_layers else f"layers {', '.join(map(str, attending))}"
    gate = "no gate" if config.context.gate == "none" else "a tanh gate each"
    return {
        "Whisper": heard,
        "text encoder": f"{_source(facts, 'text_encoder')}{kind}, {layers} layers, {text.hidden_size} wide",
        "context attention": f"in {where} of the audio encoder, {gate}",
        "parameters": f"{parameters:,}",
    }


def _training(facts: dict[str, Any]) -> dict[str, str]:
    rows = {}
    if "frozen" in facts:
        rows["frozen"] = ", ".join(facts["frozen"]) or "nothing"
    for name, title in (("adapter", "adapter merged"), ("lora", "LoRA"), ("teacher", "teacher"), ("corpus", "corpus")):
        if name in facts:
            rows[title] = str(facts[name])
    for name, unit in (("training_hours", "hours"), ("training_utterances", "utterances"), ("steps", "steps")):
        if name in facts:
            rows[unit] = f"{facts[name]:,}"
    return rows


def _scores(scores: dict[str, dict[str, float]]) -> str:
    """Measures by condition, such as {"WER": {"right": 0.05, "none": 0.08}}."""
    conditions = list(dict.fromkeys(condition for measure in scores.values() for condition in measure))
    lines = ["| | " + " | ".join(f"{condition} context" for condition in conditions) + " |"]
    lines.append("|---" * (len(conditions) + 1) + "|")
    for name, measure in scores.items():
        cells = [f"{measure[condition]:.1%}" if condition in measure else "" for condition in conditions]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _source(facts: dict[str, Any], name: str) -> str:
    source = facts.get(name)
    return f"`{source}`: " if source and source != "new" else ""


def _is_hub_id(source: str) -> bool:
    return source.count("/") == 1 and not source.startswith((".", "/", "~", "runs/"))
