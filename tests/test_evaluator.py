"""The evaluator among several processes, which are played one after the other: shares, failures, being left."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from segmented import ListedSegments, supervisions_of

from cwjax.data.segment import ContextMaterial, Segment
from cwjax.errors import CwjaxError
from cwjax.evaluation import evaluator as module
from cwjax.evaluation.evaluator import Evaluator, local_parameters
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcript import Transcript
from cwjax.inference.transcription import Event

SEGMENTS = [
    Segment(
        f"{n}",
        f"article {n % 3}",
        "a.wav",
        0.0,
        1.0,
        f"text {n}",
        (),
        ContextMaterial(title=f"title {n}"),
        split="test",
    )
    for n in range(11)
]


class Hearing:
    """In a transcriber's place: its texts tell the segment, by the length of its sound, and the context."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.asked = 0

    def use(self, parameters: object) -> None:
        pass

    def stream_many(self, requests, batch_size: int, threaded: bool):
        for request in requests:
            length = len(request.audio.samples)
            self.heard.append(length)
            if length == 113:
                yield Event(request, error=CwjaxError("segment 13 is damaged"))
            yield Event(request, transcript=Transcript(f" {length}|{request.context} ", (), "en"))


def evaluate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, positions: list[int], stop_at: int = 0
) -> tuple[list, list[Hearing]]:
    """What every one of the processes gets, and what each has heard. The first round of them finds out what they say
    to each other, the second one hears it."""
    said: list[str] = []
    corpus = SimpleNamespace(
        segments=ListedSegments(SEGMENTS),
        supervisions=supervisions_of(SEGMENTS),
        directory=tmp_path,
        audio=lambda position: np.full(100 + position, 0.1, np.float32),
    )
    results, hearings = [], []
    monkeypatch.setattr(module.jax, "process_count", lambda: count)
    for number in (*range(count), *range(count)):
        hearing = Hearing()
        monkeypatch.setattr(module.jax, "process_index", lambda number=number: number)

        def share(text: str) -> list[str]:
            said.append(text)
            return said[:count] if len(said) > count else [json.dumps({"heard": {}, "failure": "not yet"})]

        monkeypatch.setattr(module, "shared", share)
        asked = iter(range(1, 100))
        one = Evaluator(
            lambda _, hearing=hearing: hearing, jnp.float32, corpus, 6, lambda asked=asked: next(asked) == stop_at
        )
        try:
            results.append(one.transcribe({"kernel": jnp.ones(3)}, positions, DecodingOptions(), quiet=True))
        except CwjaxError as error:
            results.append(str(error))
        hearing.asked = next(asked) - 1
        hearings.append(hearing)
    return results[count:], hearings[count:]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_processes_get_all_texts_of_which_each_has_heard_a_share(
    count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    positions = [9, 3, 4, 0, 7, 10, 1]
    results, hearings = evaluate(monkeypatch, tmp_path, count, positions)
    assert sorted(length for hearing in hearings for length in hearing.heard) == sorted(
        3 * [100 + n for n in positions]
    )
    assert all(len(hearing.heard) <= 3 * -(-len(positions) // count) for hearing in hearings)
    for found in results:
        assert [one.segment.id for one in found] == [str(position) for position in positions]
        for one, position in zip(found, positions, strict=True):
            assert one.hypotheses["right"] == f"{100 + position}|{one.contexts['right']}"
            assert f"title {position}" in one.contexts["right"]
            assert one.hypotheses["none"] == f"{100 + position}|"
            assert one.hypotheses["wrong"] == f"{100 + position}|{one.contexts['wrong']}"
            assert one.contexts["wrong"] not in ("", one.contexts["right"])
        assert found == results[0]


def test_what_fails_in_one_process_fails_in_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(f"{__name__}.SEGMENTS", [*SEGMENTS, *SEGMENTS[:3]])
    results, _ = evaluate(monkeypatch, tmp_path, 2, [0, 13, 2, 3])
    assert results == ["segment 13 is damaged"] * 2


def test_all_ask_equally_often_and_leave_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A round is a condition of twice six segments: eleven take three rounds, one of the processes has one less."""
    results, hearings = evaluate(monkeypatch, tmp_path, 2, list(range(11)))
    assert [hearing.asked for hearing in hearings] == [3, 3]
    assert None not in results
    results, hearings = evaluate(monkeypatch, tmp_path, 2, list(range(11)), stop_at=2)
    assert results == [None, None]
    assert [len(hearing.heard) for hearing in hearings] == [12, 10]


def test_parameters_are_cast_and_those_that_fit_are_not_copied() -> None:
    parameters = {"kernel": jnp.ones(3), "bias": jnp.ones(3, jnp.bfloat16)}
    local = local_parameters(parameters, jnp.dtype(jnp.bfloat16))
    assert local["bias"] is parameters["bias"]
    assert local["kernel"].dtype == jnp.bfloat16
    assert jax.tree.map(lambda leaf: leaf.dtype, parameters)["kernel"] == jnp.float32
