"""How long tests wait for what never comes. Nothing that works, on however slow a machine, is ended by it."""

import os
import signal
import threading
from subprocess import Popen

PATIENCE = float(os.environ.get("CWJAX_TEST_PATIENCE", 1800))
"""Seconds after which a test takes a process for hung."""


def end_when_hung(process: Popen) -> threading.Timer:
    """Kills the process once patience is over, and what it started if it leads a session, so that whatever waits for it
    or reads from it goes on."""

    def end() -> None:
        if hasattr(os, "killpg") and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()

    timer = threading.Timer(PATIENCE, end)
    timer.daemon = True
    timer.start()
    return timer
