"""Several processes as one run: joining, agreeing, and stopping together.

Every process runs the same program on its own devices (JAX's multi-controller model). What a run
writes lies in a directory that all of them see.
"""

import contextlib
import ctypes
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from cwjax.config import differences
from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

AUTOMATIC = "auto"
JOIN_SECONDS = 600
"""How long processes wait for each other at the start. Machines of a cluster start minutes apart, fetch the program
first, and import it from a disk that all of them read at once; too long costs no more than a late message."""
HEARTBEAT_SECONDS = 100
"""A process that was silent for so long is taken for dead, and all others are stopped; JAX's own default. A thread
outside Python beats, whatever Python does, but not while a machine swaps, or is moved to other hardware. Most deaths
show earlier, in the communication that fails."""
END_SECONDS = 24 * 3600
"""How long processes that are done wait for the first, which still evaluates."""
LOST = "lost the other processes, one of which has probably died"
CONTINUE = "run the same command again in all of them: it continues from the last checkpoint"
GRACE_SECONDS = 2
"""How long process 0 stays when all end; JAX's threads in the others abort as soon as it is gone."""


@dataclass(frozen=True)
class Patience:
    """How long processes wait for each other.

    Attributes:
        join: seconds at the start.
        heartbeat: seconds of silence after which a process is taken for dead.
    """

    join: int = JOIN_SECONDS
    heartbeat: int = HEARTBEAT_SECONDS

    def __post_init__(self) -> None:
        for name, seconds in vars(self).items():
            if seconds < 1:
                raise CwjaxError(f"--{name}-timeout is {seconds}: use at least 1 second")


@contextlib.contextmanager
def joined(setting: str, patience: Patience = Patience()) -> Iterator[None]:
    """Makes this process one of several for the work inside. If the work fails here, the process says why and ends at
    once: Python would first wait for the others, which wait for this one, but as it is they notice, and end too.

    Args and errors: as `join`.
    """
    join(setting, patience)
    try:
        yield
    except BaseException as error:
        if isinstance(error, CwjaxError | KeyboardInterrupt):
            reason = str(error) or "interrupted"
        elif tells_of_loss(error):
            reason = f"{LOST} ({str(error).splitlines()[0][:200]}); {CONTINUE}"
        else:
            reason = traceback.format_exc()
        _end(f"process {jax.process_index()}: {reason}")


def tells_of_loss(error: BaseException | None) -> bool:
    """Whether an error comes of another process or device that is lost. On CPUs some of them are a ValueError."""
    return isinstance(error, jax.errors.JaxRuntimeError) or (isinstance(error, ValueError) and "Gloo " in str(error))


def join(setting: str, patience: Patience = Patience()) -> None:
    """Makes this process one of several.

    Args:
        setting: "auto" where JAX recognises the cluster (TPU pods, Slurm, Open MPI, Kubernetes), or else
            "HOST:PORT,N,I": address of process 0, number of processes, number of this one.
        patience: how long to wait for the others.

    Raises:
        CwjaxError: the setting cannot be read, no cluster is recognised, or the others cannot be reached.
    """
    arguments = {} if setting == AUTOMATIC else _parse(setting)
    address = arguments.get("coordinator_address", "the cluster's coordinator")
    if address.startswith(("127.", "localhost:", "[::1]:")):  # JAX would listen to the whole network
        arguments["coordinator_bind_address"] = address
    if arguments.get("process_id"):
        _wait_for(address, patience.join)
    # JAX would end the process from inside C++, without a plain word.
    alarm = threading.Timer(patience.join, _give_up, (setting, address, patience.join))
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=2 * patience.join,
            heartbeat_timeout_seconds=patience.heartbeat,
            shutdown_timeout_seconds=END_SECONDS,
        )
    except (ValueError, ImportError) as error:
        raise CwjaxError(
            f"--distributed {setting}: no cluster is recognised ({error}); give HOST:PORT,N,I: the address of process "
            "0, the number of processes, the number of this one"
        ) from error
    except RuntimeError as error:
        raise CwjaxError(f"--distributed {setting}: {address}: {str(error).splitlines()[0][:200]}") from error
    finally:
        alarm.cancel()
    if os.name == "posix":
        ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
    _require_same_count(patience.join)
    name = f"process {jax.process_index()} of {jax.process_count()}"
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(f"%(asctime)s [{name}] %(message)s", "%H:%M:%S"))
    if not is_first():
        logging.getLogger("cwjax").setLevel(logging.WARNING)
    log.info("%d devices, %d of them here", jax.device_count(), jax.local_device_count())


def _require_same_count(seconds: int) -> None:
    """Ends this process if others were told of another number of processes; they would wait for each other for ever."""
    state = distributed.global_state
    state.client.key_value_set(f"cwjax/count/{state.process_id}", str(state.num_processes))
    other = max(state.process_id, 1)
    if state.num_processes > 1:
        first, second = (
            state.client.blocking_key_value_get(f"cwjax/count/{one}", 1000 * seconds) for one in (0, other)
        )
        if first != second:
            _say(f"--distributed: process 0 is one of {first} processes, process {other} one of {second}")
            state.client.key_value_set(f"cwjax/told/{state.process_id}", "")
            if state.process_id == 0:  # when it ends, all do, whatever they are about to say
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    state.client.blocking_key_value_get(f"cwjax/told/{other}", 1000 * seconds)
                    time.sleep(GRACE_SECONDS)
            os._exit(1)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
    """Ends a process that JAX's threads abort when the coordinator or another process is gone, and which Python's own
    signal handlers would not reach: with a plain line and a status like any other, and without a core file."""
    os.write(2, f"cwjax: error: {LOST}; {CONTINUE}\n".encode())
    os._exit(1)


def _give_up(setting: str, address: str, seconds: int) -> None:
    _end(
        f"--distributed {setting}: {address}: not all processes joined within {seconds} s; are all of them running, "
        "with the same number of processes? If they start slowly, give a longer --join-timeout"
    )


def _end(reason: str) -> NoReturn:
    """Ends this process without waiting for the others, as Python would."""
    _say(reason)
    os._exit(1)


def _say(reason: str) -> None:
    print(f"cwjax: error: {reason}", file=sys.stderr, flush=True)


def _parse(setting: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\S+:\d+),(\d+),(\d+)", setting)
    if not match or int(match[3]) >= int(match[2]):
        raise CwjaxError(
            f"--distributed {setting}: give {AUTOMATIC}, or HOST:PORT,N,I: the address of process 0, the number of "
            "processes, the number of this one (from 0 to N-1)"
        )
    return {"coordinator_address": match[1], "num_processes": int(match[2]), "process_id": int(match[3])}


def _wait_for(address: str, seconds: int) -> None:
    """Waits until something listens there; JAX itself would end the process without a Python error."""
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + seconds
    reason = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=left).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(0.2)
    raise CwjaxError(
        f"--distributed: process 0 cannot be reached at {address} within {seconds} s ({reason}); is it running, and is "
        "the port open? If it starts slowly, give a longer --join-timeout"
    )


def is_first() -> bool:
    """Whether this process writes logs, reports and models."""
    return jax.process_index() == 0


def shared(text: str) -> list[str]:
    """The texts of all processes, in all of them."""
    encoded = np.frombuffer(text.encode(), np.uint8)
    longest = max(1, int(multihost_utils.process_allgather(np.int32(len(encoded))).max()))
    rows = multihost_utils.process_allgather(np.pad(encoded, (0, longest - len(encoded))))
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]


def barrier() -> None:
    """Waits until all processes are here."""
    shared("")


def first_alone(work: Callable[[], Result]) -> Result:
    """Does what must be done once on process 0, and then on the others, which find it done.

    Raises:
        CwjaxError: that of process 0, in all processes.
    """
    if jax.process_count() == 1:
        return work()
    result, failure = None, ""
    if is_first():
        try:
            result = work()
        except CwjaxError as error:
            failure = str(error)
    failure = shared(failure)[0]
    if failure:
        raise CwjaxError(failure)
    return result if is_first() else work()


def require_same_settings(settings: dict[str, Any]) -> None:
    """Raises `CwjaxError`, in all processes, if one has other settings than process 0."""
    first, *others = map(json.loads, shared(json.dumps(settings)))
    for number, theirs in enumerate(others, 1):
        changed = differences(theirs, first)
        if changed:
            raise CwjaxError(
                f"process {number} has another configuration than process 0 ({'; '.join(changed[:5])}); start all "
                "processes with the same command"
            )
