"""A server with a tiny model that understands tones, and whose context matters, on a port of this machine."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
import tones
from references import real_vocabulary, wide_parameters

from cwjax.inference.transcriber import Transcriber
from cwjax.models.parameters import flatten, merge
from cwjax.models.phrase_spotter import PhraseSpotter, SpotterConfig
from cwjax.serving.app import Access, Limits
from cwjax.serving.served import Served
from cwjax.serving.server import Server, bind
from cwjax.weights.model_directory import save_model

GATES = 0.2
"""So far open that a context changes some words, and not all."""
FOLLOWING = (0, 0)
"""Layer and head whose attention follows the sound."""


def tone_model(directory: Path) -> Transcriber:
    """A model that has learned tones, saved in `directory / "model"`."""
    config, processor = real_vocabulary(directory, tones.SIZES)
    parameters = merge(wide_parameters(config, gates=GATES), tones.trained(processor.tokens))
    save_model(directory / "model", config, flatten(parameters), processor, {})
    return Transcriber(config, parameters, processor, [FOLLOWING])


def let_spot(transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the model a spotter that knows nothing, to which every phrase is as likely as not, and that is believed."""
    config = SpotterConfig(audio_width=tones.SIZES.d_model, hidden=8, width=8, rows=1400)
    spotter = PhraseSpotter(config, key=jax.random.key(0))
    monkeypatch.setitem(vars(transcriber.phrases), "spotter", spotter)
    monkeypatch.setattr("cwjax.inference.engine.Engine._believed", lambda *given: given[4])


def served(transcriber: Transcriber, **others) -> Served:
    return Served(transcriber, "tones", **{"takes_context": True, **others})


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread."""

    url: str
    server: Server
    thread: threading.Thread

    @property
    def place(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


@contextmanager
def running(model: Served, limits: Limits | None = None, access: Access | None = None, **others) -> Iterator[Running]:
    """Serves until the end of the block."""
    listening = bind("127.0.0.1", 0)
    server = Server(model, limits or Limits(grace=1.0), access or Access(), **{"warm": False, **others})
    thread = threading.Thread(target=server.run, args=(listening,))
    thread.start()
    try:
        if server.ready.wait(0 if others.get("warm") else 60):
            wait_for(lambda: answers(listening.getsockname()))
        yield Running(f"http://127.0.0.1:{listening.getsockname()[1]}", server, thread)
    finally:
        server.stop()
        thread.join()
        listening.close()


def answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, 1).close()
    except OSError:
        return False
    return True


def wait_for(condition, seconds: float = 60.0) -> None:
    """Until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def spoken(seconds: float, seed: int = 5) -> bytes:
    """A recording of tones as a WAV file."""
    random = np.random.default_rng(seed)
    return wav(tones.sound(tones.utterances(random, seconds), seconds, random))


def wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
