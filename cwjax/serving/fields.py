"""The fields of a form -> what is asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cwjax.errors import CwjaxError
from cwjax.inference.contexts import listed_phrases
from cwjax.inference.options import TEMPERATURES, DecodingOptions, Task
from cwjax.serving.errors import ApiError
from cwjax.serving.served import Served
from cwjax.serving.uploads import printable_name

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
STREAMED = ("json", "text", "verbose_json")
EXTENDED = ("json", "verbose_json")
"""Formats that have room for what `include[]` asks for, as streams have."""
GRANULARITIES = ("word", "segment")
INCLUDES = ("logprobs", "without_context", "context_words")
CHUNKED = ("auto", "server_vad")
HIGHEST_SCALE = 10.0
IGNORED_SHOWN = 32
"""Names of unknown fields that are told."""


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        context: what is known about the recording.
        options: how to decode.
        languages: one of which is spoken; empty: any.
        response_format: of the answer.
        stream: send the text as it comes.
        granularities: of times, "word", "segment" or both.
        include: what the answer holds besides.
        ignored: names of fields without an effect.
    """

    context: str = ""
    options: DecodingOptions = field(default_factory=DecodingOptions)
    languages: tuple[str, ...] = ()
    response_format: str = "json"
    stream: bool = False
    granularities: tuple[str, ...] = ("segment",)
    include: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def is_told(self) -> bool:
        """Whether anything is known about the recording."""
        return bool(self.context or self.options.phrases or self.options.hotwords)

    @property
    def plain_options(self) -> DecodingOptions:
        """How to decode without what is known about the recording."""
        return replace(self.options, phrases=(), hotwords=None)


class Fields:
    """Values by name; those that are never taken have no effect."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)
        self.left = dict.fromkeys(self._values)

    def text(self, name: str) -> str:
        """A single value, empty if it is missing."""
        self.left.pop(name, None)
        return self._values.get(name, [""])[-1]

    def texts(self, name: str, separators: str = ",") -> tuple[str, ...]:
        """The values of `name[]`, and those of `name`, which may hold several."""
        self.left.pop(f"{name}[]", None)
        single = re.split(f"[{separators}]", self.text(name))
        return tuple(one.strip() for one in [*self._values.get(f"{name}[]", []), *single] if one.strip())

    def choice(self, name: str, known: Sequence[str]) -> str:
        """One of several values, empty if it is missing."""
        return _known(name, [self.text(name)], ["", *known])[0]

    def choices(self, name: str, known: Sequence[str]) -> tuple[str, ...]:
        """Some of several values."""
        return _known(name, self.texts(name), known)

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number, None if it is missing."""
        text = self.text(name).strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = float("nan")
        if value is not None and not least <= value <= most:
            raise _unsupported(name, f"use a number from {least:g} to {most:g}")
        return value

    def truth(self, name: str) -> bool:
        """Whether a switch is on."""
        text = self.text(name).strip().lower()
        if text not in ("", "0", "1", "false", "true"):
            raise _unsupported(name, "use true or false")
        return text in ("1", "true")


def read_fields(pairs: Sequence[tuple[str, str]], served: Served, task: Task) -> Asked:
    """What is asked for.

    Args:
        pairs: names and texts of the fields.
        served: by which model.
        task: to transcribe, or to translate into English.

    Raises:
        ApiError: a field is impossible, or the model is another one.
    """
    fields = Fields(pairs)
    _check_model(fields.text("model"), served)
    response_format = fields.choice("response_format", (*FORMATS, "diarized_json")) or "json"
    if response_format == "diarized_json":
        raise _unsupported("response_format", "speakers are not told apart; use verbose_json")
    stream = fields.truth("stream")
    if stream and response_format not in STREAMED:
        raise _unsupported("stream", f"it goes with response_format {', '.join(STREAMED)}")
    granularities = fields.choices("timestamp_granularities", GRANULARITIES)
    if granularities and response_format != "verbose_json":
        raise _unsupported("timestamp_granularities", "they go with response_format verbose_json")
    include = fields.choices("include", INCLUDES)
    unused = ["include"] * bool(include and not stream and response_format not in EXTENDED)
    include = () if unused else include
    context, given, untold = _told(fields, served)
    languages = tuple(dict.fromkeys(_language(fields, name, served) for name in ("language", "languages")))
    languages = tuple(dict.fromkeys(code for some in languages for code in some))
    temperature = fields.number("temperature", 0, 1)
    scale = fields.number("context_scale", 0, HIGHEST_SCALE)
    options = {
        "task": task,
        "language": languages[0] if len(languages) == 1 else None,
        "temperature": (temperature,) if temperature else TEMPERATURES,
        "initial_prompt": fields.text("initial_prompt").strip() or None,
        "context_scale": 1.0 if scale is None else scale,
        "independent_windows": _chunking(fields),
        "word_timestamps": "word" in granularities or bool(include),
        **given,
    }
    try:
        decoding = DecodingOptions(**options)
    except CwjaxError as error:
        raise ApiError(400, str(error), "unsupported_value") from None
    ignored = tuple(dict.fromkeys(map(printable_name, [*fields.left, *untold, *unused])))
    return Asked(
        context=context,
        options=decoding,
        languages=languages if len(languages) > 1 else (),
        response_format=response_format,
        stream=stream,
        granularities=granularities or ("segment",),
        include=include,
        ignored=ignored[:IGNORED_SHOWN],
    )


def _check_model(model: str, served: Served) -> None:
    if not model.strip():
        raise ApiError(400, "'model' is missing", "missing_required_parameter", "model")
    if not served.knows(model):
        raise unknown_model(model, served)


def unknown_model(model: str, served: Served) -> ApiError:
    """What to say of another model."""
    return ApiError(404, f"no model is called '{model[:100]}' here; use '{served.id}'", "model_not_found", "model")


def _told(fields: Fields, served: Served) -> tuple[str, dict[str, object], list[str]]:
    """The context, options that make the most of what is known, and the fields that the model can make nothing of."""
    prompt, own = fields.text("prompt").strip(), fields.text("context").strip()
    context = own or prompt or served.context
    given = fields.texts("keywords"), fields.texts("hotwords"), fields.texts("phrases", ",\n")
    phrases = tuple(dict.fromkeys(one for some in given for one in some))
    field_name = "context" if own else "prompt" if prompt else ""
    if served.spots_phrases:
        if served.takes_context:
            return context, {"phrases": phrases}, []
        listed = tuple(listed_phrases(context)) if context else ()
        return "", {"phrases": (*phrases, *listed)}, [field_name] * bool(field_name and not listed)
    if served.takes_context:
        names = f"names: {', '.join(phrases)}" if phrases else ""
        return "\n".join(filter(None, (context, names))), {}, []
    return "", {"hotwords": ", ".join(phrases) or None}, [field_name] * bool(field_name)


def _language(fields: Fields, name: str, served: Served) -> tuple[str, ...]:
    """Codes of the languages that a field names."""
    try:
        return tuple(map(served.transcriber.programs.tokens.language_code, fields.texts(name)))
    except CwjaxError as error:
        raise ApiError(400, str(error), "unsupported_value", name) from None


def _chunking(fields: Fields) -> bool:
    """Whether windows are cut in pauses and decoded side by side. The client sends an object as `x[type]`, curl as
    JSON; how it finds pauses is the server's business."""
    text = fields.text("chunking_strategy").strip() or fields.text("chunking_strategy[type]").strip()
    kind = re.search(r'"type"\s*:\s*"(\w*)"', text) if text.startswith("{") else None
    return bool(_known("chunking_strategy", [kind[1] if kind else text], ["", *CHUNKED])[0])


def _known(name: str, values: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise _unsupported(name, f"'{value[:100]}' is unknown; use {', '.join(filter(None, known))}")
    return tuple(dict.fromkeys(values))


def _unsupported(name: str, cure: str) -> ApiError:
    return ApiError(400, f"{name}: {cure}", "unsupported_value", name)
