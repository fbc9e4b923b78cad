"""What a realtime session is told by `session.update` -> how it hears and transcribes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cwjax.inference.audio import FRAMES_PER_SECOND
from cwjax.serving.errors import ApiError
from cwjax.serving.fields import Asked, read_fields
from cwjax.serving.served import Served
from cwjax.serving.uploads import FORM_BYTES

SAMPLING_RATE = 24_000
"""Of the sound that clients send, in hertz."""
FORMAT = {"type": "audio/pcm", "rate": SAMPLING_RATE}
LOGPROBS = "item.input_audio_transcription.logprobs"
TOLD = (
    "model", "language", "languages", "prompt", "context", "context_scale", "keywords", "hotwords", "phrases",
    "initial_prompt", "temperature",
)  # fmt: skip
"""Fields of `transcription`; they mean what they mean in a form."""
LONGEST_MS = 10_000


@dataclass(frozen=True)
class Settings:
    """Of a session.

    Attributes:
        values: of `session`, as it is shown.
        asked: how to transcribe.
        pause: frames of 10 ms without speech that end a turn; None: the client ends them.
        padding: frames before speech that belong to a turn.
    """

    values: dict[str, Any]
    asked: Asked
    pause: int | None
    padding: int


def first_settings(model: str, served: Served) -> Settings:
    """Those of a new session.

    Raises:
        ApiError: the model is another one.
    """
    detection = {"type": "server_vad", "prefix_padding_ms": 300, "silence_duration_ms": 500}
    sound = {"format": FORMAT, "noise_reduction": None, "transcription": {"model": model}, "turn_detection": detection}
    return _settings({"type": "transcription", "audio": {"input": sound}, "include": []}, served)


def updated(settings: Settings, changes: Any, served: Served) -> Settings:
    """The settings after `session.update`.

    Args:
        settings: before.
        changes: of the event's `session`; what it does not name stays.
        served: the model.

    Raises:
        ApiError: something in it is impossible; nothing has changed then.
    """
    return _settings(_merged(settings.values, _object(changes, "session")), served)


def _settings(values: dict[str, Any], served: Served) -> Settings:
    if values.get("type") != "transcription":
        raise _wrong("session.type", "only 'transcription' can be had")
    sound = _object(_object(values.get("audio"), "session.audio").get("input"), "session.audio.input")
    if sound.get("format") != FORMAT:
        raise _wrong("session.audio.input.format", f"send 16-bit PCM, one channel: {FORMAT}")
    detection, pause, padding = sound.get("turn_detection"), None, 0
    if detection is not None:
        where = "session.audio.input.turn_detection"
        if _object(detection, where).get("type") != "server_vad":
            raise _wrong(f"{where}.type", "use 'server_vad', or null for turn_detection")
        pause = max(_frames(detection, where, "silence_duration_ms", 500), 2)
        padding = _frames(detection, where, "prefix_padding_ms", 300)
    include = values.get("include") or []
    if not isinstance(include, list) or any(one != LOGPROBS for one in include):
        raise _wrong("session.include", f"use ['{LOGPROBS}']")
    fields = _fields(_object(sound.get("transcription"), "session.audio.input.transcription"))
    asked = read_fields([*fields, *[("include[]", "logprobs")] * bool(include)], served, "transcribe")
    return Settings(values, asked, pause, padding)


def _fields(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Values as fields of a form."""
    fields: list[tuple[str, str]] = []
    for name in TOLD:
        value = values.get(name)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            fields += [(f"{name}[]", one) for one in value]
        elif isinstance(value, str | float | int):
            fields.append((name, str(value)))
        elif value is not None:
            raise _wrong(f"session.audio.input.transcription.{name}", "use a text, a number or a list of texts")
    try:
        size = len("".join(name + value for name, value in fields).encode())
    except UnicodeEncodeError:
        raise _wrong("session.audio.input.transcription", "a text is no Unicode") from None
    if size > FORM_BYTES:
        raise _wrong("session.audio.input.transcription", f"use at most {FORM_BYTES >> 20} MiB of text")
    return fields


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with those that change, which objects on both sides do value by value."""
    merged = {**values, **changes}
    for name in values.keys() & changes.keys():
        if isinstance(values[name], dict) and isinstance(changes[name], dict):
            merged[name] = _merged(values[name], changes[name])
    return merged


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, "use an object")
    return value


def _frames(values: Mapping[str, Any], where: str, name: str, usual: int) -> int:
    """Milliseconds as frames."""
    value = values.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_MS:
        raise _wrong(f"{where}.{name}", f"use a number from 0 to {LONGEST_MS}")
    return round(value / 1000 * FRAMES_PER_SECOND)


def _wrong(where: str, cure: str) -> ApiError:
    return ApiError(400, f"{where}: {cure}", "unsupported_value", where)
