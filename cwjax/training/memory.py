"""What is said when memory does not suffice: which program, how much, and what helps."""

import contextlib
import re
from collections.abc import Iterator

import jax

from cwjax.errors import CwjaxError

CURE = (
    "a smaller --train.batch-size, --train.accumulation 2 or more, --train.remat dots or full, a larger --mesh.fsdp; "
    "`cwjax plan --config FILE --search` says what fits"
)

_NEEDED = re.compile(r"(?:allocat\w+|requires?|Used)[^\d\n]{0,20}([\d.,]+ ?(?:[KMGT]i?B?|bytes)\b)")


@contextlib.contextmanager
def name_out_of_memory(program: str, cure: str = CURE) -> Iterator[None]:
    """Turns the exception of a program that found no memory into one line.

    Raises:
        CwjaxError: there was not enough memory. All other exceptions pass.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        device = jax.local_devices()[0]
        limit = (device.memory_stats() or {}).get("bytes_limit")
        needed = _NEEDED.search(str(error))
        figures = [f"it asked for {needed[1]}"] if needed else []
        figures += [f"a device has {limit / 2**30:.1f} GiB"] if limit else []
        told = f" ({', '.join(figures)})" if figures else ""
        raise CwjaxError(f"out of memory: {program} does not fit on {device.device_kind}{told}; try {cure}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory does not suffice, of the host or of a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)
