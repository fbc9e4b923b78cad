"""Items transcribed under conditions, such as right, no and wrong context, by all processes at once.

Transcribing is the transcription engine's business. It wants the parameters whole on this process's devices: where
several processes share them, a jitted program gives them to all, as copies in the precision of the computation. Then
each process transcribes its share of the items, and all get all texts, so that all decide the same.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from cwjax.data.prepared.corpus import PreparedCorpus
from cwjax.errors import CwjaxError
from cwjax.evaluation.conditions import Condition, Given, Others
from cwjax.evaluation.corpus_items import corpus_items
from cwjax.evaluation.homophones import ArticleHomophones
from cwjax.evaluation.hypotheses import HypothesesFile, Line, described, hash_of, line_of
from cwjax.evaluation.items import Item
from cwjax.evaluation.transcription import CONDITIONS, Transcription, transcriptions
from cwjax.inference.options import DecodingOptions
from cwjax.inference.transcriber import Transcriber
from cwjax.inference.transcription import Request
from cwjax.models.parameters import Parameters, cast
from cwjax.models.placement import BATCH_AXES, TENSOR_AXIS
from cwjax.processes import shared


class Evaluator:
    """Transcribes items under conditions, in all processes; its programs are compiled once.

    Args:
        make_transcriber: of parameters on this process's devices.
        dtype: of the computation.
        corpus: whose segments `transcribe` takes; its `homophones.json` is used if it has one. None: items only.
        batch_size: windows that a process transcribes at once.
        stop_asked: whether to leave; all processes ask equally often, after every batch.
    """

    def __init__(
        self,
        make_transcriber: Callable[[Parameters], Transcriber],
        dtype: jnp.dtype,
        corpus: PreparedCorpus | None,
        batch_size: int,
        stop_asked: Callable[[], bool] = lambda: False,
    ):
        self._make_transcriber = make_transcriber
        self._transcriber: Transcriber | None = None
        self._dtype = jnp.dtype(dtype)
        self.corpus = corpus
        self.homophones = ArticleHomophones.of_corpus(corpus.directory) if corpus else None
        self._batch_size = batch_size
        self._stop_asked = stop_asked
        self._opened: set[str] = set()

    def transcribe(
        self, parameters: Parameters, positions: Sequence[int], options: DecodingOptions, quiet: bool = False
    ) -> list[Transcription] | None:
        """Transcribes segments of the corpus with right, no and wrong context; arguments and result as of `hear`."""
        items = corpus_items(self.corpus, positions, self.homophones)
        lines = self.hear(parameters, items, [Condition.named(name) for name in CONDITIONS], options, quiet=quiet)
        return None if lines is None else transcriptions([self.corpus.segments[one] for one in positions], lines)

    def hear(
        self,
        parameters: Parameters,
        items: Sequence[Item],
        conditions: Sequence[Condition],
        options: DecodingOptions,
        file: HypothesesFile | None = None,
        base: str = "",
        quiet: bool = False,
    ) -> dict[tuple[str, str], Line] | None:
        """Transcribes items under each condition that serves them.

        Args:
            parameters: of the model, in whatever shards.
            items: equal in all processes.
            conditions: equal in all processes.
            options: how to decode; the language is each item's.
            file: takes this process's lines as they come, and may have some of them already.
            base: tells the model, for the file.
            quiet: show no progress.

        Returns:
            The lines by id and condition; None if it was left because a stop was asked for.

        Raises:
            CwjaxError: an item cannot be transcribed, in any process.
        """
        local = local_parameters(parameters, self._dtype)
        with _own_mesh():
            self._transcriber = self._transcriber or self._make_transcriber(local)
            self._transcriber.use(local)
        others, base = Others(items), f"{base} {options}"
        served = {one.name: [item for item in items if one.serves(item, others)] for one in conditions}
        asked = {(item.id, one.name): (item, one) for one in conditions for item in served[one.name]}

        def made_of(line: Line) -> str | None:
            item, condition = asked.get((line["id"], line["condition"]), (None, None))
            return hash_of(base, item, condition.give(item, others)) if item else None

        heard: dict[tuple[str, str], Line] = {}
        failure = ""
        try:
            for line in file.find(made_of) if file else ():
                key = line["id"], line["condition"]
                heard[key] = described(line, asked[key][0])
        except CwjaxError as error:
            failure = str(error)
        number, count = jax.process_index(), jax.process_count()
        at_once = self._batch_size * count
        hidden = quiet or not sys.stderr.isatty()
        with tqdm(total=len(asked), desc="transcribing", unit="item", disable=hidden) as progress:
            # A condition at a time, so that the seconds are its own.
            for first in range(0, len(items), at_once):
                for condition in conditions:
                    rows = served[condition.name][first : first + at_once]
                    mine = [one for one in rows[number::count] if (one.id, condition.name) not in heard]
                    try:
                        for line in self._heard([] if failure else mine, condition, others, options, base):
                            heard[line["id"], line["condition"]] = line
                            if file is not None:
                                file.add(line)
                    except CwjaxError as error:
                        failure = str(error)
                    progress.update(len(rows))
                    if self._stop_asked():
                        return None
        everywhere = [
            json.loads(one) for one in shared(json.dumps({"heard": list(heard.values()), "failure": failure}))
        ]
        for one in everywhere:
            if one["failure"]:
                raise CwjaxError(one["failure"])
        return {(line["id"], line["condition"]): line for one in everywhere for line in one["heard"]}

    def _heard(
        self, items: Sequence[Item], condition: Condition, others: Others, options: DecodingOptions, base: str
    ) -> Iterator[Line]:
        """The lines of some items, from this process's devices. Each has its share of the time that went by."""
        asked: dict[Request, tuple[Item, Given]] = {}
        seconds: dict[Request, float] = {}

        def requests() -> Iterator[Request]:
            for item in items:
                given = condition.give(item, others)
                spoken = dataclasses.replace(options, language=item.language, **given.options)
                request = Request(item.open(again=item.id in self._opened), given.context, spoken)
                self._opened.add(item.id)
                asked[request], seconds[request] = (item, given), 0.0
                yield request

        with _own_mesh():
            before = time.perf_counter()
            for event in self._transcriber.stream_many(requests(), self._batch_size, threaded=False):
                now = time.perf_counter()
                for request in asked:
                    seconds[request] += (now - before) / len(asked)
                before = now
                if event.error is not None:
                    raise event.error
                if event.transcript is not None:
                    item, given = asked.pop(event.request)
                    made_of = hash_of(base, item, given)
                    yield line_of(item, condition, given, made_of, event.transcript, seconds.pop(event.request))


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
