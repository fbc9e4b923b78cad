import inspect

import pytest

from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions


def test_defaults_are_openai_whispers() -> None:
    whisper = pytest.importorskip("whisper")
    theirs = {name: one.default for name, one in inspect.signature(whisper.transcribe).parameters.items()}
    theirs |= {name: getattr(whisper.DecodingOptions(), name) for name in ("task", "suppress_tokens", "best_of")}
    ours = DecodingOptions(**{name: theirs[name] for name in vars(DecodingOptions()) if name in theirs})
    assert ours == DecodingOptions()
    for name in ("sample_len", "beam_size", "patience", "length_penalty", "suppress_blank", "without_timestamps"):
        assert getattr(DecodingOptions(), name) == getattr(whisper.DecodingOptions(), name)
    assert DecodingOptions().max_initial_timestamp == whisper.DecodingOptions().max_initial_timestamp


def test_numbers_come_alone_in_sequences_or_as_text() -> None:
    options = DecodingOptions(temperature=0.5, suppress_tokens="-1, 7", clip_timestamps="1.5,3")
    assert options.temperature == (0.5,)
    assert options.suppress_tokens == (-1, 7)
    assert options.clip_timestamps == (1.5, 3.0)
    assert options == DecodingOptions(temperature=[0.5], suppress_tokens=[-1, 7], clip_timestamps=(1.5, 3))
    assert DecodingOptions(suppress_tokens=None).suppress_tokens == DecodingOptions(suppress_tokens="").suppress_tokens
    assert hash(options) == hash(DecodingOptions(temperature=0.5, suppress_tokens="-1,7", clip_timestamps=[1.5, 3]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": ()}, "temperature is .*one or more numbers"),
        ({"temperature": (0.0, -1.0)}, "temperature is .*at least 0"),
        ({"temperature": "warm"}, "temperature is .*use numbers"),
        ({"suppress_tokens": "1,x"}, "suppress_tokens is .*use numbers"),
        ({"suppress_tokens": (-2,)}, "suppress_tokens has a negative id"),
        ({"beam_size": 0}, "beam_size is 0: it must be at least 1"),
        ({"best_of": 0}, "best_of is 0"),
        ({"sample_len": 0}, "sample_len is 0"),
        ({"patience": 1.0}, "patience is for beam search: give beam_size"),
        ({"beam_size": 2, "patience": 0.1}, "patience is 0.1: .*at least one hypothesis"),
        ({"length_penalty": 1.5}, "length_penalty is 1.5"),
        ({"task": "sing"}, "task is 'sing'"),
        ({"clip_timestamps": "5,3"}, "clip_timestamps are .*ascending"),
        ({"clip_timestamps": "-1"}, "clip_timestamps are"),
        ({"hallucination_silence_threshold": 2.0}, "set word_timestamps"),
        ({"hallucination_silence_threshold": -1.0, "word_timestamps": True}, "hallucination_silence_threshold is -1"),
        ({"carry_initial_prompt": True}, "give an initial_prompt"),
        ({"context_scale": -1.0}, "context_scale is -1.0"),
        ({"context_scale": float("nan")}, "context_scale is nan"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(wrong: dict, message: str) -> None:
    with pytest.raises(CwjaxError, match=message) as raised:
        DecodingOptions(**wrong)
    assert "\n" not in str(raised.value)
