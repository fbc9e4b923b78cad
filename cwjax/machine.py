"""What the machine offers: cores, memory used so far, and a folder to keep things in between runs."""

import os
import sys
from pathlib import Path


def available_cores() -> int:
    """Cores this process may use: no more than its affinity, and its container's share of CPU time, allow."""
    import joblib

    return joblib.cpu_count()


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
