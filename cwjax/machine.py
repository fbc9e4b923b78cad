"""What the machine offers: cores, devices, memory used so far, and a folder to keep things in between runs."""

import errno
import glob
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwjax.errors import CwjaxError

if TYPE_CHECKING:
    import jax

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")
"""What models compute in."""


def available_cores() -> int:
    """Cores this process may use: no more than its affinity, and its container's share of CPU time, allow."""
    import joblib

    return joblib.cpu_count()


ACCELERATORS = {
    "/proc/driver/nvidia/gpus/*": "pip install 'cwjax[cuda]', and look at what nvidia-smi says of the driver",
    "/dev/accel[0-9]*": "pip install 'cwjax[tpu]'",
}
"""Where Linux shows accelerators, and what is missing where JAX does not use them."""


def log_devices() -> None:
    """Names JAX's devices in the log, and warns of an accelerator that is there and not used."""
    import jax

    devices = jax.devices()
    log.info("devices: %d x %s (%s)", len(devices), devices[0].device_kind, devices[0].platform)
    if devices[0].platform != "cpu" or (jax.config.jax_platforms or "").startswith("cpu"):
        return
    for pattern, cure in ACCELERATORS.items():
        if found := glob.glob(pattern):
            log.warning(
                "%s: an accelerator is here, but JAX does not use it: %s; going on with the CPU", found[0], cure
            )


def peak_memory() -> int | None:
    """The most memory this process has held so far, in bytes; None where the system does not tell."""
    if sys.platform == "win32":
        try:
            import psutil
        except ImportError:
            return None
        return psutil.Process().memory_info().peak_wset
    try:
        import resource
    except ImportError:
        return None
    # Kibibytes on Linux and the BSDs, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cache_directory() -> Path | None:
    """Where things are kept between runs; None for a user without a home directory. It need not be writable."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cwjax"
    except RuntimeError:
        return None


def keep_compiled_programs() -> None:
    """Keeps compiled programs between runs, unless JAX was told where, by JAX_COMPILATION_CACHE_DIR or `jax.config`."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = cache_directory()
    try:
        if cache is None:
            raise OSError(errno.ENOENT, "there is no home directory")
        cache = cache / "xla"
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError as error:
        log.info(
            "compiled programs are not kept for the next time: %s (%s); JAX_COMPILATION_CACHE_DIR may name a folder",
            cache or "no cache",
            error.strerror,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    compilation_cache.reset_cache()  # if anything has been compiled already, JAX has settled on none


def find_device(name: str | None) -> "jax.Device | None":
    """The device of a name such as "cpu", "gpu", "cuda:1" or "tpu"; None for none.

    Raises:
        CwjaxError: there is no such device.
    """
    import jax

    if name is None:
        return None
    kind, colon, number = name.lower().partition(":")
    try:
        devices = dict(enumerate(jax.local_devices(backend="gpu" if kind == "cuda" else kind)))
        return devices[int(number) if colon else 0]
    except (RuntimeError, ValueError, KeyError) as error:
        found = ", ".join(f"{one.platform}:{one.id}" for one in jax.local_devices())
        raise CwjaxError(
            f"device {name!r}: there is none; JAX has {found} (others need pip install 'cwjax[cuda]' or 'cwjax[tpu]')"
        ) from error


def compute_dtype(dtype: Any, device: "jax.Device | None" = None) -> Any:
    """What to compute in: the NumPy dtype of a name; None: what suits the device (None: JAX's first).

    Raises:
        CwjaxError: it is none of `DTYPES`.
    """
    import jax
    import jax.numpy as jnp

    if dtype is None:
        return jnp.dtype("float32" if (device or jax.local_devices()[0]).platform == "cpu" else "bfloat16")
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise CwjaxError(f"dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    return found


def set_threads(count: int) -> None:
    """Lets programs for the CPU use so many threads; without it there is one for each core this process may use.

    XLA makes its pool when JAX first looks for devices, as large as the environment variable NPROC says
    (openxla/xla, pjrt/utils.cc); the flags of XLA that speak of threads change nothing.

    Raises:
        CwjaxError: the number is impossible, or JAX has looked for devices already.
    """
    if count < 1:
        raise CwjaxError(f"threads: {count} is too few, use at least 1")
    if "jax" in sys.modules:
        from jax._src.xla_bridge import backends_are_initialized

        if backends_are_initialized():
            raise CwjaxError("threads: JAX has its threads already; set them before the first model is loaded")
    os.environ["NPROC"] = str(count)
