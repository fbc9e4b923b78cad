"""Segments of a corpus transcribed under right, no and wrong context, by all processes at once.

Transcribing is the transcription engine's business. It wants the parameters whole on this process's devices: where
several processes share them, a jitted program gives them to all, as copies in the precision of the computation. Then
each process transcribes its share of the segments, and all get all texts, so that all decide the same.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from cwjax.data.context import describe_for_evaluation
from cwjax.data.homophones import HOMOPHONES_FILE
from cwjax.data.prepared import PreparedCorpus
from cwjax.data.segment import Segment
from cwjax.errors import CwjaxError
from cwjax.evaluation.contrast import wrong_contexts
from cwjax.evaluation.homophones import Homophones
from cwjax.evaluation.transcription import CONDITIONS, Transcription
from cwjax.inference.audio import Recording
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcription import Request
from cwjax.models.parameters import Parameters, cast
from cwjax.models.placement import BATCH_AXES, TENSOR_AXIS
from cwjax.processes import shared


class Evaluator:
    """Transcribes segments of a corpus three times each, in all processes; its programs are compiled once.

    Args:
        make_transcriber: of parameters on this process's devices.
        dtype: of the computation.
        corpus: where the segments lie; its `homophones.json` is used if it has one.
        batch_size: windows that a process transcribes at once.
        stop_asked: whether to leave; all processes ask equally often, after every batch.
    """

    def __init__(
        self,
        make_transcriber: Callable[[Parameters], Transcriber],
        dtype: jnp.dtype,
        corpus: PreparedCorpus,
        batch_size: int,
        stop_asked: Callable[[], bool] = lambda: False,
    ):
        self._make_transcriber = make_transcriber
        self._transcriber: Transcriber | None = None
        self._dtype = jnp.dtype(dtype)
        self.corpus = corpus
        path = corpus.directory / HOMOPHONES_FILE
        self.homophones = Homophones.read(path) if path.exists() else None
        self._batch_size = batch_size
        self._stop_asked = stop_asked

    def transcribe(
        self, parameters: Parameters, positions: Sequence[int], options: DecodingOptions, quiet: bool = False
    ) -> list[Transcription] | None:
        """Transcribes segments with right, no and wrong context.

        The wrong context is that of an article about the other word of the segment's pair of homophones, the
        hardest there is, or of any other article of the same split where there is no such pair.

        Args:
            parameters: of the model, in whatever shards.
            positions: of the segments in the corpus.
            options: how to decode; the language is each segment's.
            quiet: show no progress.

        Returns:
            None if it was left because a stop was asked for.

        Raises:
            CwjaxError: a segment cannot be transcribed, in any process.
        """
        local = local_parameters(parameters, self._dtype)
        with _own_mesh():
            self._transcriber = self._transcriber or self._make_transcriber(local)
            self._transcriber.use(local)
        segments = [self.corpus.segments[position] for position in positions]
        contexts = {
            "right": [describe_for_evaluation(segment) for segment in segments],
            "none": [""] * len(segments),
            "wrong": wrong_contexts(segments, self.corpus.segments, self.homophones),
        }
        number, count = jax.process_index(), jax.process_count()
        at_once = max(1, self._batch_size // len(CONDITIONS)) * count
        heard: dict[int, dict[str, str]] = {}
        failure = ""
        hidden = quiet or not sys.stderr.isatty()
        with tqdm(total=len(segments), desc="transcribing", unit="segment", disable=hidden) as progress:
            for first in range(0, len(segments), at_once):
                rows = range(len(segments))[first : first + at_once]
                try:
                    mine = [] if failure else rows[number::count]
                    heard |= self._heard([(row, positions[row], segments[row]) for row in mine], contexts, options)
                except CwjaxError as error:
                    failure = str(error)
                progress.update(len(rows))
                if self._stop_asked():
                    return None
        everywhere = [json.loads(text) for text in shared(json.dumps({"heard": heard, "failure": failure}))]
        for one in everywhere:
            if one["failure"]:
                raise CwjaxError(one["failure"])
        texts = {int(row): by_condition for one in everywhere for row, by_condition in one["heard"].items()}
        return [
            Transcription(segment, {condition: contexts[condition][row] for condition in CONDITIONS}, texts[row])
            for row, segment in enumerate(segments)
        ]

    def _heard(
        self, rows: Sequence[tuple[int, int, Segment]], contexts: dict[str, list[str]], options: DecodingOptions
    ) -> dict[int, dict[str, str]]:
        """The texts of some rows by condition, from this process's devices."""
        asked: dict[Request, tuple[int, str]] = {}

        def requests() -> Iterator[Request]:
            for row, position, segment in rows:
                recording = Recording.open(self.corpus.audio(position))
                spoken = dataclasses.replace(options, language=segment.language)
                for condition in CONDITIONS:
                    request = Request(recording, contexts[condition][row], spoken)
                    asked[request] = row, condition
                    yield request

        heard: dict[int, dict[str, str]] = {row: {} for row, _, _ in rows}
        with _own_mesh():
            for event in self._transcriber.stream_many(requests(), self._batch_size, threaded=False):
                if event.error is not None:
                    raise event.error
                if event.transcript is not None:
                    row, condition = asked.pop(event.request)
                    heard[row][condition] = event.transcript.text.strip()
        return heard


def local_parameters(parameters: Parameters, dtype: jnp.dtype) -> Parameters:
    """The parameters on this process's devices in the precision of the computation. All processes must call it.

    What a process has to itself stays as it is, in whatever shards.
    """
    leaves = jax.tree.leaves(parameters)
    if all(leaf.is_fully_addressable for leaf in leaves):
        return jax.tree.map(lambda leaf: leaf if leaf.dtype == dtype else _cast(leaf, dtype), parameters)
    mesh = leaves[0].sharding.mesh
    here = NamedSharding(_local_mesh(), P())

    def local(leaf: jax.Array) -> jax.Array:
        copies = {shard.device: shard.data for shard in leaf.addressable_shards}
        return jax.make_array_from_single_device_arrays(
            leaf.shape, here, [copies[device] for device in here.mesh.devices.flat]
        )

    return jax.tree.map(local, _replicated_cast(NamedSharding(mesh, P()))(parameters, dtype))


_cast = jax.jit(cast, static_argnums=1)


@cache
def _replicated_cast(sharding: NamedSharding) -> Any:
    return jax.jit(cast, static_argnums=1, out_shardings=sharding)


def _own_mesh() -> contextlib.AbstractContextManager[Any]:
    """Programs are for this process's devices, where there are those of others, too."""
    return jax.set_mesh(_local_mesh()) if jax.process_count() > 1 else contextlib.nullcontext()


@cache
def _local_mesh() -> Mesh:
    """Of this process's devices, all along the axis that splits the batch."""
    devices = np.asarray(jax.local_devices()).reshape(-1, 1, 1)
    return Mesh(devices, (*BATCH_AXES, TENSOR_AXIS), axis_types=(AxisType.Auto,) * 3)
